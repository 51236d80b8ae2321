"""The strategies: how candidates compare.

A strategy is a plain function: of candidates it makes scores, lower being better, and a choice.
Clock and chance are handed in. Adding one is a file with that function, and a line here.
"""

from router.balancing.choice import Choice, Strategy
from router.balancing.least_busy import least_busy
from router.balancing.load import Load
from router.balancing.lowest_completion import lowest_completion
from router.balancing.lowest_cost import lowest_cost
from router.balancing.lowest_latency import lowest_latency
from router.balancing.round_robin import round_robin
from router.balancing.weighted_random import weighted_random

__all__ = ["STRATEGIES", "Choice", "Load", "Strategy"]

STRATEGIES: dict[str, Strategy] = {
    "lowest-completion": lowest_completion,
    "lowest-latency": lowest_latency,
    "least-busy": least_busy,
    "lowest-cost": lowest_cost,
    "weighted-random": weighted_random,
    "round-robin": round_robin,
}
