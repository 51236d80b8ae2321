"""Whether and when a call goes on after an attempt that failed.

tenacity counts, waits and gives up; what may be repeated at all has been decided by the outcome
table, and comes here as `Again`. A call that succeeds at once never meets tenacity, which costs as
much as the rest of the router: the first attempt is made outside, and its failure is replayed.

The budget (Finagle's, and gRPC's, idea) stops storms: a fifth of recent calls may be repeated. A
sure refusal on the first attempt is always followed, since a deployment that is down must not take
the budget of those that fail over from it.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from router.errors import RouterError

if TYPE_CHECKING:
    import tenacity

__all__ = ["Again", "RetryBudget", "back_off", "retrying"]

T = TypeVar("T")

BUDGET_SHARE = 0.2
BUDGET_FLOOR = 5.0
BUDGET_CAP = 100.0
BACK_OFF_FIRST = 0.25
BACK_OFF_LONGEST = 8.0


class Again(Exception):  # noqa: N818  (a signal between engine and retry, never seen by callers)
    """An attempt failed and the call may go on; `error` is what the caller gets if it does not."""

    def __init__(self, error: RouterError, *, surely_refused: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.surely_refused = surely_refused


class RetryBudget:
    """A bucket that calls fill by a fifth each, and further attempts empty by one each."""

    def __init__(self) -> None:
        self._tokens = BUDGET_FLOOR
        self._lock = threading.Lock()

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def called(self) -> None:
        with self._lock:
            self._tokens = min(self._tokens + BUDGET_SHARE, BUDGET_CAP)

    def take(self) -> bool:
        with self._lock:
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True


def back_off(attempt: int, rng: random.Random) -> float:
    """Seconds before asking the same deployment again: doubling, with full jitter in its half."""
    longest = min(BACK_OFF_FIRST * 2.0 ** (attempt - 1), BACK_OFF_LONGEST)
    return longest * (0.5 + 0.5 * rng.random())


async def retrying(
    first: Again,
    attempt: Callable[[], Awaitable[T]],
    *,
    retries: int,
    budget: RetryBudget,
    wait: Callable[[int], float],
    too_late: Callable[[float], bool],
    sleep: Callable[[float], Awaitable[None]],
) -> T:
    """Further attempts after `first`, at most `retries` of them; raises the last error.

    `wait` gives the seconds before attempt n; `too_late` says whether the deadline would pass
    during such a wait.
    """
    import tenacity  # a tenth of the time that importing the router would take

    replay = [first]

    async def next_attempt() -> T:
        if replay:
            raise replay.pop()
        return await attempt()

    def enough(state: tenacity.RetryCallState) -> bool:
        if state.attempt_number > retries or too_late(state.upcoming_sleep):
            return True
        free = state.attempt_number == 1 and first.surely_refused
        return not (free or budget.take())

    tries = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(Again),
        stop=enough,
        wait=lambda state: wait(state.attempt_number),
        sleep=sleep,
        reraise=True,
    )
    try:
        return await tries(next_attempt)
    except Again as last:
        raise last.error from last.error.__cause__
