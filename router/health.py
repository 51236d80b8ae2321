"""Which deployments are out of rotation, and until when.

                     3 failures in a row
        in rotation ─────────────────────► ejected 5 s, doubling to 300 s
             ▲                                  │
             │  one success (the back-off       │ the deadline passes
             │  starts again from 5 s)          ▼
             └───────────────────────────── in rotation, one failure from the next ejection

Beside this judgement of ours stand three that are the provider's own word, each with its deadline:
throttled (429), denied (the account's key or bill), missing (it has no such operation or model).

Submits and reads are judged apart, since they fail apart; but a host that cannot be reached is out
for both. Nothing here knows a clock or a network: `now` and the random generator are handed in.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from router.observations import BOTH, READS, SUBMITS, Cause, Ejection, Scope
from router.types import Operation

__all__ = ["FAILURES_IN_A_ROW", "Health"]

FAILURES_IN_A_ROW = 3
BACK_OFF_SECONDS = 5.0
LONGEST_BACK_OFF = 300.0


class Health:
    """The health of one deployment, as this worker knows it.

    Written under the lock of `Learning`, and read without: the ejections are replaced, not changed.
    """

    __slots__ = (
        "_ejections",
        "_failures",
        "_steps",
        "_throttled",
        "credential",
        "latest",
        "restored_at",
    )

    def __init__(self, credential: str = "") -> None:
        # A new key is a new start: what was refused to the old one no longer counts, nor does the
        # word of a call, or of another worker, that still used it.
        self.credential = credential
        # What was decided before an operator brought it back no longer counts either.
        self.restored_at = 0.0
        self._failures = {SUBMITS: 0, READS: 0}
        self._steps = {SUBMITS: 0, READS: 0}
        self._throttled = {SUBMITS: 0, READS: 0}
        self._ejections: dict[tuple[Scope, Cause], Ejection] = {}
        # The last deadline of all: one comparison tells a pick that nobody is out.
        self.latest = 0.0

    def succeeded(self, operation: Operation) -> None:
        side = _side(operation)
        self._failures[side] = self._steps[side] = self._throttled[side] = 0

    def failed(
        self, operation: Operation, now: float, rng: random.Random, *, unreachable: bool
    ) -> Ejection | None:
        """Count a failure; the ejection that it leads to, if it does.

        `unreachable` failures say that the host is gone, so they count for both sides.
        """
        judged = (SUBMITS, READS) if unreachable else (_side(operation),)
        # Who is out is not judged: an owner's reads go on, and must not drive the back-off.
        sides = [side for side in judged if not self._is_out(side, now)]
        for side in sides:
            self._failures[side] += 1
        if all(self._failures[side] < FAILURES_IN_A_ROW for side in sides):
            return None
        step = max(self._steps[side] for side in sides)
        for side in sides:
            self._steps[side] = step + 1
            # The next failure after the deadline ejects again at once, and for longer.
            self._failures[side] = FAILURES_IN_A_ROW - 1
        seconds = min(BACK_OFF_SECONDS * 2.0**step, LONGEST_BACK_OFF)
        # A tenth of jitter, so that a fleet does not come back as one.
        until = now + seconds * (1 + 0.1 * rng.random())
        scope = BOTH if unreachable else sides[0]
        return Ejection(scope, until, Cause.FAILURES, "failures in a row", step, at=now)

    def _is_out(self, side: Scope, now: float) -> bool:
        standing = [self._ejections.get((scope, Cause.FAILURES)) for scope in (side, BOTH)]
        return any(e is not None and e.until > now for e in standing)

    def throttled(self, operation: Operation) -> int:
        """Count a throttling; how many came in a row before it."""
        side = _side(operation)
        self._throttled[side] += 1
        return self._throttled[side] - 1

    def throttled_in_a_row(self, operation: Operation) -> int:
        return self._throttled[_side(operation)]

    def eject(self, ejection: Ejection) -> bool:
        """Take out of rotation; ejections only extend. Whether this one did."""
        key = (ejection.scope, ejection.cause)
        known = self._ejections.get(key)
        if not self._concerns(ejection):
            return False
        if known is not None and not ejection.outlasts(known, self.restored_at):
            return False
        self._ejections = {**self._ejections, key: ejection}
        self.latest = max(self.latest, ejection.until)
        return True

    def ejection(
        self, operation: Operation, now: float, ignoring: Iterable[Cause] = ()
    ) -> Ejection | None:
        """The longest ejection that keeps this operation away now; `None` in rotation."""
        if self.latest <= now:
            return None
        standing = [
            e for e in self.standing(now) if e.covers(operation) and e.cause not in ignoring
        ]
        return max(standing, key=lambda e: e.until, default=None)

    def standing(self, now: float) -> list[Ejection]:
        """All ejections in force."""
        return [e for e in self._ejections.values() if e.until > now and self._concerns(e)]

    def restore(self, at: float) -> bool:
        """Back into rotation, as of a moment; whether that is news."""
        if at <= self.restored_at:
            return False
        self.restored_at = at
        for counted in (self._failures, self._steps, self._throttled):
            counted[SUBMITS] = counted[READS] = 0
        return True

    def _concerns(self, ejection: Ejection) -> bool:
        mine = ejection.credential in ("", self.credential)
        return mine and ejection.at >= self.restored_at


def _side(operation: Operation) -> Scope:
    return SUBMITS if operation.is_submit else READS
