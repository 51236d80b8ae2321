"""Money in this process: what was spent today, and under which tokens."""

from __future__ import annotations

from router.observations import DAY_SECONDS, day_of

__all__ = ["Budgets", "until_midnight"]

MOST_TOKENS = 10_000


class Budgets:
    """Micro-dollars by resource, of the UTC day that it is. Not safe under threads.

    Each token has its say once: an amount, or 0 where that was given back. So it does no harm to be
    told again, nor to be told to give back what is granted only later. The last `MOST_TOKENS` are
    remembered; what is older stays spent. Of a day that is over nobody asks any more.
    """

    def __init__(self) -> None:
        self._day = 0
        self._total: dict[str, int] = {}
        self._tokens: dict[tuple[str, str], int] = {}

    def spent(self, resource: str, now: float) -> int:
        self._begin(day_of(now))
        return self._total.get(resource, 0)

    def spend(self, resource: str, token: str, amount: int, now: float) -> None:
        self._begin(day_of(now))
        if (resource, token) in self._tokens:
            return
        self._total[resource] = self._total.get(resource, 0) + amount
        self._tokens[resource, token] = amount
        if len(self._tokens) > MOST_TOKENS:
            del self._tokens[next(iter(self._tokens))]

    def refund(self, resource: str, token: str, now: float) -> None:
        self._begin(day_of(now))
        amount = self._tokens.get((resource, token))
        if amount is None:
            self.spend(resource, token, 0, now)
        else:
            self._total[resource] -= amount
            self._tokens[resource, token] = 0

    def _begin(self, day: int) -> None:
        if day != self._day:
            self._day = day
            self._total, self._tokens = {}, {}


def until_midnight(now: float) -> float:
    """Seconds until the UTC day ends."""
    return (day_of(now) + 1) * DAY_SECONDS - now
