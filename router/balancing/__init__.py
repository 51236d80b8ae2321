"""The strategies: how candidates compare.

A strategy is a plain function from candidates to scores, lower being better; `draw` makes the
choice. Adding one is a file with that function, and a line here.
"""

from collections.abc import Callable, Sequence

from router.balancing.draw import draw
from router.balancing.load import Load
from router.balancing.lowest_latency import lowest_latency
from router.balancing.weighted_random import weighted_random
from router.types import Operation

__all__ = ["STRATEGIES", "Load", "Strategy", "draw"]

Strategy = Callable[[Sequence[Load], Operation, float], Sequence[float]]

STRATEGIES: dict[str, Strategy] = {
    "lowest-latency": lowest_latency,
    "weighted-random": weighted_random,
}
