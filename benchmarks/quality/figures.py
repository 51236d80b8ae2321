"""What is read off a run: how long callers waited, who was lost, and who got which share."""

from __future__ import annotations

import bisect
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.quality.scenarios import Scenario
from benchmarks.quality.simulation import Attempt, Out, Result

__all__ = [
    "Waits",
    "deviation",
    "first_wave",
    "most_trials",
    "sent",
    "shares",
    "waits",
]

HEARD = 0.05
"""Seconds after which the whole fleet has heard of an ejection."""


@dataclass(frozen=True, slots=True)
class Waits:
    """Seconds from a call to its video; a call that got none waits for ever."""

    p50: float
    p95: float
    p99: float
    calls: int
    lost: int
    unserved: int
    regret: float
    """Mean seconds a call waited longer than with the reference, of those that both served."""

    @property
    def without_video(self) -> int:
        return self.lost + self.unserved


def waits(
    scenario: Scenario, results: Sequence[Result], references: Sequence[Result] = ()
) -> Waits:
    """Over several runs of one contender, with the reference's runs of the same traffic."""
    times: list[float] = []
    over: list[float] = []
    lost = unserved = 0
    for index, result in enumerate(results):
        against = references[index].done if index < len(references) else None
        for call in result.calls:
            if call.at < scenario.warm_up:
                continue
            done = result.done[call.number]
            times.append(math.inf if done is None else done - call.at)
            gone = call.number in result.lost
            lost += gone
            unserved += done is None and not gone
            known = against[call.number] if against is not None else None
            if done is not None and known is not None:
                over.append(done - known)
    times.sort()
    p50, p95, p99 = (_percentile(times, share) for share in (0.5, 0.95, 0.99))
    regret = sum(over) / len(over) if over else math.nan
    return Waits(p50, p95, p99, len(times), lost, unserved, regret)


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else math.nan


# Shares ------------------------------------------------------------------------------------------


def sent(results: Iterable[Result], since: float, until: float) -> Counter[str]:
    """How many submits that were sent in a time each host has taken. What it refused is no work."""
    return Counter(
        a.host for r in results for a in r.attempts if since <= a.at < until and a.status == 200
    )


def shares(counted: Mapping[str, int]) -> dict[str, float]:
    whole = sum(counted.values())
    return {host: count / whole for host, count in counted.items()} if whole else {}


def deviation(ours: Mapping[str, float], ideal: Mapping[str, float], hosts: int) -> float:
    """The largest distance of a share from the ideal one, as a part of that.

    Of an ideal share that is smaller than an even one, as a part of the even one: of a host that is
    to be left alone, nobody can have a fifth more than nothing.
    """
    names = {*ours, *ideal}
    return max(
        (
            abs(ours.get(name, 0.0) - ideal.get(name, 0.0)) / max(ideal.get(name, 0.0), 1 / hosts)
            for name in names
        ),
        default=math.nan,
    )


# What goes wrong ---------------------------------------------------------------------------------


def _spoiled(result: Result, names: Collection[str], since: float, until: float) -> list[Attempt]:
    """Submits to a host that nothing came of, in the order in which they were sent."""
    found = []
    for attempt in result.attempts:
        if attempt.host not in names or not since <= attempt.at < until:
            continue
        failed = attempt.status != 200 or result.ended.get(attempt.call, (0.0, False))[1]
        if failed:
            found.append(attempt)
    return sorted(found, key=lambda attempt: attempt.at)


def _deadlines(result: Result, names: Collection[str], since: float) -> list[Out]:
    outs = [out for out in result.outs if out.host in names and out.at >= since]
    return sorted(outs, key=lambda out: out.at)


def first_wave(result: Result, names: Collection[str], since: float, until: float) -> int:
    """How many calls a host swallowed before the fleet had put it out."""
    outs = _deadlines(result, names, since)
    known = outs[0].at + HEARD if outs else math.inf
    return sum(attempt.at <= known for attempt in _spoiled(result, names, since, until))


def most_trials(result: Result, names: Collection[str], since: float, until: float) -> int:
    """The most submits that the fleet risked with a host after one of its back-offs had passed."""
    return max(_trials(result, name, since, until) for name in names)


def _trials(result: Result, name: str, since: float, until: float) -> int:
    # Of each host by itself: the back-offs of several overlap, and together they would never end.
    outs = _deadlines(result, (name,), since)
    if not outs:
        return 0
    # A back-off is over when the last ejection that overlaps it is.
    ends: list[float] = []
    for out in outs:
        if ends and out.at <= ends[-1]:
            ends[-1] = max(ends[-1], out.until)
        else:
            ends.append(out.until)
    risked = [a.at for a in _spoiled(result, (name,), since, until) if a.at > outs[0].at + HEARD]
    after = Counter(bisect.bisect_right(ends, at) for at in risked)
    return max(after.values(), default=0)
