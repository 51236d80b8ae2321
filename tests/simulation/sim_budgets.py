"""What must hold of money: what a day may cost, what was spent of it, and who is refused for it.

A submit costs what it asks for: so many seconds of video, at its deployment's price. Where it names
no length, 4 are reckoned, and the dearest size; it costs what is made of it, as soon as its worker
has heard. It counts on the UTC day on which it went out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from sim_history import Entry
from sim_network import SUBMITS, Exchange, Taken
from sim_truth import unsure
from simulation import Timeline

from router import errors

__all__ = ["budgets_hold", "money_is_counted", "money_is_refused_rightly"]

DAY = 86_400.0
USUAL_LENGTH = 4
MICRO = 1e-6
ABOUT_MIDNIGHT = 0.2
"""Seconds by which a refusal may name another time than midnight."""


def budgets_hold(timeline: Timeline) -> Iterator[str]:
    """What a day's accepted submits cost is at most what the account may spend in a day.

    While the store is away each worker may spend its share of that besides, by the number of
    workers that it heard of last; and what an emptied store forgot may be spent again. What turns
    out to cost more than was reckoned may be more than was left.
    """
    spent: Counter[tuple[str, int]] = Counter()
    for taken in timeline.world.taken:
        day = _day(timeline, taken.exchange)
        spent[taken.exchange.account, day] += min(_costs(timeline, taken))
    for (account, day), dollars in spent.items():
        cap = _cap(timeline, account)
        if cap is None:
            continue
        besides = sum(cap / fewest for fewest in _alone(timeline))
        most = cap * (1 + len(timeline.store.flushes)) + besides
        if dollars > most + MICRO:
            yield f"{account} spent ${dollars:g} on day {day}, and ${most:g} it may"


def _alone(timeline: Timeline) -> Iterator[int]:
    """Of each worker that had to do without the store: how few it took the workers for."""
    for worker in timeline.workers:
        known, fewest = 1, math.inf
        for step in timeline.store.steps[worker.number]:
            if step.heard:
                known = max(step.workers, 1)
            else:
                fewest = min(fewest, known)
        if fewest < math.inf:
            yield int(fewest)


def money_is_counted(timeline: Timeline) -> Iterator[str]:
    """At rest the store's sum of today is what was accepted today, and what may have been.

    Also where it forgot, since it is told anew; but not where somebody died who would have told.
    """
    store = timeline.store
    if any(not worker.alive for worker in timeline.workers):
        return
    now = store._time()
    least: Counter[str] = Counter()
    for taken in timeline.world.taken:
        if _day(timeline, taken.exchange) == int(now // DAY):
            least[taken.exchange.account] += min(_counted(timeline, taken))
    most = _may_have_spent(timeline, now, at_rest=True)
    for account in timeline.plan.data["accounts"]:
        if _cap(timeline, account) is None:
            continue
        resource = f"cost:account:{account}"
        dollars = store.store.picture((resource,)).held[resource] * MICRO
        if not least[account] - MICRO < dollars < most[account] + MICRO:
            yield (
                f"${dollars:g} are counted for {account}, which accepted ${least[account]:g}, "
                f"and may have accepted ${most[account]:g}"
            )


def money_is_refused_rightly(timeline: Timeline) -> Iterator[str]:
    """Who is refused for money could not be paid for, and hears of midnight.

    As far as everybody heard the store all the time.
    """
    steps = timeline.store.steps
    if any(not step.heard for mine in steps.values() for step in mine):
        return
    for entry in timeline.history.of("ended"):
        error = entry.get("error")
        if not isinstance(error, errors.CapacityError) or error.attempts:
            continue
        now = timeline.plan.starts + entry.at
        until_midnight = (now // DAY + 1) * DAY - now
        told = _BROKE.findall(str(error))
        for name, account in told:
            most = _may_have_spent(timeline, now)[account]
            cap = _cap(timeline, account) or 0.0
            seconds = float(entry["arguments"].get("seconds") or USUAL_LENGTH)
            if most + _price(timeline, name, seconds) <= cap - MICRO:
                yield f"call {entry.call} was refused for money, and {account} spent ${most:g}"
        # A window that opens only then may be in the way, too.
        only = bool(told) and len(told) == str(error).count("; ") + 1 and until_midnight > 150.0
        if only and abs(error.retry_after - until_midnight) > ABOUT_MIDNIGHT:
            yield f"call {entry.call} is to come back in {error.retry_after}, and not at midnight"


_BROKE = re.compile(r"([\w-]+): ([\w-]+) may spend")


def _may_have_spent(timeline: Timeline, now: float, *, at_rest: bool = False) -> Counter[str]:
    """What each account may have spent on a day until now, for all that its workers know."""
    ended = {entry.call: entry for entry in timeline.history.of("ended")}
    of = _counted if at_rest else _costs
    costs = {id(t.exchange): max(of(timeline, t)) for t in timeline.world.taken}
    spent: Counter[str] = Counter()
    sent = set()
    for exchange in timeline.world.exchanges:
        sent.add((exchange.call, exchange.deployment))
        today = _day(timeline, exchange) == int(now // DAY)
        if exchange.operation not in SUBMITS or not today or _at(timeline, exchange) > now:
            continue
        end = ended.get(exchange.call)
        # Who goes does not read what is just coming, and who dies tells nothing. Who has a client
        # of its own may say whatever it likes.
        going = end is None or end["errand"] == "pick" or not _told(timeline, end, now)
        left = end is not None and end["how"] == "cancelled" and exchange.sent_whole
        if going or left or unsure(exchange):
            spent[exchange.account] += costs.get(id(exchange), _cost(timeline, exchange))
    for entry in timeline.history.of("Picked"):
        # Nor need it send anything.
        name = entry["deployment"]
        if entry["operation"] in SUBMITS and (entry.call, name) not in sent:
            spent[_account(timeline, name)] += _price(timeline, name)
    return spent


def _told(timeline: Timeline, ended: Entry, now: float) -> bool:
    """Whether the store knew by then how a call had ended; it is told with the next turn."""
    steps = timeline.store.steps[ended.worker] if ended.worker is not None else []
    return any(step.done and ended.at < step.at <= now - timeline.plan.starts for step in steps)


def _at(timeline: Timeline, what: Exchange | Entry) -> float:
    return timeline.plan.starts + what.at


def _day(timeline: Timeline, exchange: Exchange) -> int:
    return int(_at(timeline, exchange) // DAY)


def _cap(timeline: Timeline, account: str) -> float | None:
    cap: float | None = timeline.plan.data["accounts"][account].get("max_cost_per_day")
    return cap


def _account(timeline: Timeline, deployment: str) -> str:
    told = {d["id"]: d["account"] for d in timeline.plan.data["deployments"]}
    return str(told[deployment])


def _price(
    timeline: Timeline, deployment: str, seconds: float = USUAL_LENGTH, size: str = ""
) -> float:
    told = {d["id"]: d for d in timeline.plan.data["deployments"]}
    return _dollars(told[deployment], size) * seconds


def _dollars(deployment: dict[str, Any], size: str) -> float:
    """A second of video; of no size at most, since no call of a plan names one."""
    price = deployment.get("cost_per_second", 0.0)
    if isinstance(price, dict):
        price = price.get(size, max(price.values()))
    return float(price)


def _cost(timeline: Timeline, exchange: Exchange) -> float:
    """What a submit costs; a character costs nothing."""
    if exchange.operation == "create_character":
        return 0.0
    return _price(timeline, exchange.deployment, exchange.length or USUAL_LENGTH)


def _costs(timeline: Timeline, taken: Taken) -> tuple[float, float]:
    """What was reckoned for an accepted submit, and what it costs."""
    exchange, reckoned = taken.exchange, _cost(timeline, taken.exchange)
    if not taken.size:  # a character
        return reckoned, reckoned
    # An extension's answer tells of the stitched whole.
    asked = exchange.length if exchange.operation == "extension" else None
    return reckoned, _price(timeline, exchange.deployment, asked or taken.length, taken.size)


def _counted(timeline: Timeline, taken: Taken) -> tuple[float, float]:
    """What may count of it at rest: what it costs, where its worker heard the answer."""
    exchange, (reckoned, costs) = taken.exchange, _costs(timeline, taken)
    heard = any(
        (entry.call, entry["deployment"]) == (exchange.call, exchange.deployment)
        and entry["result"] == "success"
        and entry["cost"] is not None
        for entry in timeline.history.of("Attempted")
    )
    return (costs if heard else reckoned), costs
