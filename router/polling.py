"""When to look at a job again.

A job of a hundred seconds that is looked at each second is asked after ninety times too often; one
that is looked at each minute is noticed late. What is known of how long jobs take says better:
one look soon, few while it cannot be ready, and close ones when it is about to be.

    accepted ─┬────┬────────────────┬─────┬──┬─┬─┬─┬─┬─► ended, and noticed within a twentieth
              └ soon                        usual ─┘

The look that comes soon is for others: a job that failed at once, or that is queued, says where the
next ones had better not go.
"""

from __future__ import annotations

__all__ = ["pause"]

FIRST = 1.0
GROWTH = 0.3
LONGEST = 15.0
CLOSE = 0.05
"""How late, of a job's time, its end may be noticed."""
SHORTEST = 0.25
EARLY = 0.8
"""Few jobs are ready before this part of the usual time."""
SOON, SPREAD = 2.5, 3.0
"""The first look, in seconds; and each of the early ones so many times as far off as the last."""
APPROACH = 2 / 3
"""How much of the time that is left until a job may be ready the next look lets pass."""


def pause(elapsed: float, usual: float | None) -> float:
    """Seconds until the next look at a job that was accepted `elapsed` seconds ago.

    `usual` is how many seconds such jobs take, `None` before any has been seen to end; then looks
    begin one second apart and become fewer.
    """
    if usual is None:
        return min(max(GROWTH * elapsed, FIRST), LONGEST)
    close = max(CLOSE * max(usual, elapsed), SHORTEST)
    return min(SOON + SPREAD * elapsed, max(APPROACH * (EARLY * usual - elapsed), close))
