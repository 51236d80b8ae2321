"""Money in this process: what was spent today, and under which tokens."""

from __future__ import annotations

from typing import NamedTuple

from router.leases import Spend
from router.observations import DAY_SECONDS, day_of

__all__ = ["Budgets", "until_midnight"]

MOST_TOKENS = 10_000


class _Said(NamedTuple):
    amount: int
    of: str = ""


NOTHING = _Said(0)


class Budgets:
    """Micro-dollars by resource, of the UTC day that it is. Not safe under threads.

    Each token has its say once: an amount, or 0 where that was given back. So it does no harm to be
    told again, nor to be told to give back what is granted only later. Less than nothing is said
    `of` another token, and only where so much stands under that one. The last `MOST_TOKENS` are
    remembered; what is older stays spent. Of a day that is over nobody asks any more.
    """

    def __init__(self) -> None:
        self._day = 0
        self._total: dict[str, int] = {}
        self._tokens: dict[tuple[str, str], _Said] = {}

    def spent(self, resource: str, now: float) -> int:
        self._begin(day_of(now))
        return self._total.get(resource, 0)

    def spend(self, resource: str, token: str, amount: int, now: float, of: str = "") -> None:
        self._begin(day_of(now))
        if (resource, token) in self._tokens:
            return
        if amount < 0 and self._tokens.get((resource, of), NOTHING).amount + amount < 0:
            return
        self._total[resource] = self._total.get(resource, 0) + amount
        self._tokens[resource, token] = _Said(amount, of)
        if len(self._tokens) > MOST_TOKENS:
            del self._tokens[next(iter(self._tokens))]

    def refund(self, resource: str, token: str, now: float) -> None:
        self._begin(day_of(now))
        said = self._tokens.get((resource, token))
        if said is None:
            self.spend(resource, token, 0, now)
        else:
            self._total[resource] -= said.amount
            self._tokens[resource, token] = NOTHING

    def orders(self, token: str, now: float) -> list[Spend]:
        """What was spent today, as orders; under `token` what is older than those remembered."""
        self._begin(day_of(now))
        older, told = dict(self._total), list[Spend]()
        for (resource, known), (amount, of) in self._tokens.items():
            older[resource] -= amount
            told.append(Spend(known, resource, amount, now, of))
        told[:0] = [Spend(token, resource, amount, now) for resource, amount in older.items()]
        return [spend for spend in told if spend.amount]

    def _begin(self, day: int) -> None:
        if day != self._day:
            self._day = day
            self._total, self._tokens = {}, {}


def until_midnight(now: float) -> float:
    """Seconds until the UTC day ends."""
    return (day_of(now) + 1) * DAY_SECONDS - now
