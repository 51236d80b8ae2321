"""What an operator watches, in the words of two libraries: hooks for `on_event`.

    Router.from_yaml("deployments.yaml", on_event=Prometheus())

`router.telemetry.opentelemetry` and `router.telemetry.prometheus` need the extras `otel` and
`prometheus`. Nothing else of the package imports them, or is changed by them. Both tell the same
metrics; labels are the operation, the deployment, its account, and words of which there are few.
What is different with every call (ids, a reason, `metadata`) is in none of them.

This module has what they share.
"""

from __future__ import annotations

from router.events import Ejected, Restored
from router.observations import BOTH, READS, SUBMITS
from router.types import Operation

__all__ = ["ATTEMPT_BUCKETS", "JOB_BUCKETS", "SCOPES", "WAIT_BUCKETS", "Standing"]

# In seconds. An exchange has 120 s unless told otherwise, a call waits inside its 300 s, and jobs
# are usually ready after 80 to 300 s: the buckets are closest there.
ATTEMPT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
JOB_BUCKETS = (5.0, 15.0, 30.0, 60.0, 90.0, 120.0, 180.0, 240.0, 300.0, 450.0, 600.0, 900.0, 1800.0)
WAIT_BUCKETS = (0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

SCOPES: tuple[str, ...] = (SUBMITS, READS, BOTH, *map(str, Operation))


class Standing:
    """Until when which deployment is out for what, as far as the events tell.

    Ejections end by a deadline, and no event says so; the deadlines are kept, on whatever clock
    the caller counts them. There is no lock, since a fork might copy it held; two threads that tell
    of one deployment in the same moment may at worst leave the earlier of two deadlines.
    """

    def __init__(self) -> None:
        self._until: dict[tuple[str, str, str], float] = {}

    def ejected(self, event: Ejected, until: float) -> float:
        """Note an ejection; the deadline that stands, which may be an earlier one's."""
        key = (event.deployment, event.account, event.scope)
        self._until[key] = until = max(until, self._until.get(key, until))
        return until

    def restored(self, event: Restored) -> None:
        """Forget the deadlines of what is back."""
        for key in list(self._until):
            if key[0] == event.deployment and event.scope in (None, key[2]):
                self._until[key] = 0.0

    def deadlines(self) -> list[tuple[tuple[str, str, str], float]]:
        """(deployment, account, scope) and the deadline, of all that were ever out."""
        return list(self._until.items())
