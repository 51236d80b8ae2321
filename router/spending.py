"""What was spent, for people to look at: by deployment, account and UTC day.

It decides nothing: what an account may spend in a day is asked of the store, like any limit.
"""

from __future__ import annotations

import datetime
import threading

from router.observations import SPEND_DAYS, day_of

__all__ = ["Spending"]

_EPOCH = datetime.date(1970, 1, 1)


class Spending:
    """Micro-dollars of the last `SPEND_DAYS` days; told in dollars. Safe under threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # By day, counted from 1970, and by deployment and account.
        self._days: dict[int, dict[tuple[str, str], int]] = {}

    def add(self, deployment: str, account: str, day: int, micros: int) -> None:
        with self._lock:
            spent = self._of(day)
            spent[deployment, account] = spent.get((deployment, account), 0) + micros

    def put(self, deployment: str, account: str, day: int, micros: int) -> None:
        """Take this for all that was spent there on that day, unless more is known already.

        A store that was emptied tells of what the living spent; what the dead spent was spent, too.
        """
        with self._lock:
            spent = self._of(day)
            spent[deployment, account] = max(micros, spent.get((deployment, account), 0))

    def today(self, now: float) -> dict[tuple[str, str], float]:
        """Dollars of the UTC day of a moment, by deployment and account."""
        with self._lock:
            return _dollars(self._days.get(day_of(now), {}))

    def by_day(self) -> dict[str, dict[tuple[str, str], float]]:
        """Dollars by deployment and account, by day as in `2026-12-31`, the oldest first."""
        with self._lock:
            return {_written(day): _dollars(self._days[day]) for day in sorted(self._days)}

    def after_fork(self) -> None:
        """In a child process: what is known is known, but no lock is held."""
        self._lock = threading.Lock()

    def _of(self, day: int) -> dict[tuple[str, str], int]:
        if day not in self._days:
            self._days[day] = {}
            for old in sorted(self._days)[:-SPEND_DAYS]:
                del self._days[old]
        # One that is too old is counted for nobody.
        return self._days.get(day, {})


def _dollars(spent: dict[tuple[str, str], int]) -> dict[tuple[str, str], float]:
    return {named: micros / 1_000_000 for named, micros in spent.items()}


def _written(day: int) -> str:
    return (_EPOCH + datetime.timedelta(days=day)).isoformat()
