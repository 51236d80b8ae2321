"""The figures that are judged: what was promised of the choice, and what a run says of it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from benchmarks.measure import Figure
from benchmarks.quality.figures import (
    Waits,
    deviation,
    first_wave,
    most_trials,
    sent,
    shares,
    waits,
)
from benchmarks.quality.play import JUDGED, REFERENCE, Played, scenario_of
from benchmarks.quality.scenarios import (
    BURST,
    DEAD_SECONDS,
    JOB_SECONDS,
    MIDDLE,
    SCENARIOS,
    Scenario,
)
from benchmarks.quality.simulation import Attempt, Result

__all__ = ["Records", "judged", "off_share", "settled"]

STATIC_RATIO = 1.15
STATIC_LOAD = 0.7
PEER_LATENCY = "litellm latency-based-routing"
LATENCY_RATIO = 0.5
OFF_SHARE = 0.2
SETTLING = 1.5 * JOB_SECONDS
"""Seconds after a change by which the shares are to be right."""
FEWEST_SEEDS = 2
"""Runs from which on a share is judged; that of the hundred calls of one is a matter of luck."""
TIE = 1.02
"""Where nobody waits, nobody is better than another."""
LOST = 3
BACK_WITHIN = 60.0
TOO_MUCH = 1.5
ASKED_AGAIN = 200
LATE_ANSWER = 20.0
LONGEST_OUT = 300.0
SHORTEST_OUT = 1.0


class Records:
    """What was played, by scenario, load, contender and number of workers; by seed in each."""

    def __init__(self, played: Iterable[Played]) -> None:
        self._runs: dict[tuple[str, float, str, int], list[tuple[int, Result]]] = defaultdict(list)
        for one in played:
            run = one.run
            key = run.scenario, run.load, run.contender, run.workers
            self._runs[key].append((run.seed, one.result))
        for seeded in self._runs.values():
            seeded.sort(key=lambda pair: pair[0])

    def results(self, scenario: str, load: float, contender: str, workers: int = 0) -> list[Result]:
        return [result for _, result in self._runs.get((scenario, load, contender, workers), [])]

    def loads(self, scenario: str) -> list[float]:
        return sorted({load for name, load, *_ in self._runs if name == scenario})

    def contenders(self, scenario: str, load: float) -> list[tuple[str, int]]:
        """Who played there, with how many workers, in the order in which they were planned."""
        return [(c, w) for name, at, c, w in self._runs if (name, at) == (scenario, load)]

    def workers(self, scenario: str, load: float, contender: str) -> list[int]:
        found = self.contenders(scenario, load)
        return sorted({workers for name, workers in found if name == contender})

    def waits(self, scenario: str, load: float, contender: str, workers: int = 0) -> Waits:
        """Over the seeds, beside the reference's runs of the same traffic."""
        key = scenario, load, contender, workers
        reference = dict(self._runs.get((scenario, load, REFERENCE, 0), []))
        seeded = [(seed, result) for seed, result in self._runs[key] if seed in reference]
        against = [reference[seed] for seed, _ in seeded]
        return waits(scenario_of(scenario).at(load), [r for _, r in seeded], against)

    def same_traffic(
        self, scenario: str, load: float, one: tuple[str, int], other: tuple[str, int]
    ) -> tuple[Waits, Waits]:
        """Two contenders over the seeds that both played."""
        runs = [dict(self._runs.get((scenario, load, *who), [])) for who in (one, other)]
        seeds = sorted(runs[0].keys() & runs[1].keys())
        at = scenario_of(scenario).at(load)
        first, second = (waits(at, [by_seed[seed] for seed in seeds]) for by_seed in runs)
        return first, second


def settled(scenario: Scenario) -> tuple[float, float]:
    """The time in which shares are looked at: settled after a change, and until the next one."""
    if not scenario.changes:
        return scenario.warm_up, scenario.seconds
    since = scenario.changes[0].at + SETTLING
    until = scenario.changes[1].at if len(scenario.changes) > 1 else since + 900.0
    return since, until


def off_share(records: Records, name: str, load: float, contender: str, workers: int) -> float:
    """How far the shares are from the reference's, in the time in which they are looked at."""
    scenario = scenario_of(name)
    since, until = settled(scenario)
    both = [
        shares(sent(records.results(name, load, *who), since, until))
        for who in ((contender, workers), (REFERENCE, 0))
    ]
    return deviation(both[0], both[1], len(scenario.sites) + len(scenario.later))


def judged(records: Records) -> list[Figure]:
    figures: list[Figure] = []
    for name in SCENARIOS:
        for load in records.loads(name):
            for workers in records.workers(name, load, JUDGED):
                figures += _of_scenario(records, name, load, workers)
    return [*figures, *_of_the_lost(records), *_of_who_returns(records), *_of_trials(records)]


def _of_scenario(records: Records, name: str, load: float, workers: int) -> Iterator[Figure]:
    scenario, ours = scenario_of(name), (JUDGED, workers)
    label = f"{name} at {load:.0%}, {_told(workers)}"
    mine, ideal = records.same_traffic(name, load, ours, (REFERENCE, 0))
    if not scenario.changes:
        target = STATIC_RATIO if load <= STATIC_LOAD else None
        yield Figure(f"{label}: p95 over the reference", mine.p95 / ideal.p95, "×", target)
    else:
        off = off_share(records, name, load, *ours)
        enough = len(records.results(name, load, *ours)) >= FEWEST_SEEDS
        told = f"{label}: share off the ideal, once settled"
        yield Figure(told, off, "", OFF_SHARE if enough else None)
    peers = [c for c in records.contenders(name, load) if c[0].startswith("litellm ")]
    ratios = []
    for peer in peers:
        mine, theirs = records.same_traffic(name, load, ours, peer)
        ratios.append(mine.p95 / theirs.p95)
        if peer[0] == PEER_LATENCY and name in ("three-speeds", "slow-middle"):
            told = f"{label}: p95 over the peer's latency strategy"
            yield Figure(told, ratios[-1], "×", LATENCY_RATIO)
    if ratios:
        yield Figure(f"{label}: p95 over the best of the peer's", max(ratios), "×", TIE)


def _told(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"


# Who goes wrong, and who returns ------------------------------------------------------------------


def _of_the_lost(records: Records) -> Iterator[Figure]:
    for name in ("denied", "black-hole", "dies", "throttled"):
        scenario = scenario_of(name)
        until = scenario.changes[1].at if len(scenario.changes) > 1 else scenario.seconds
        for load in records.loads(name):
            for workers in records.workers(name, load, JUDGED):
                results = records.results(name, load, JUDGED, workers)
                asked = scenario.changed, MIDDLE, until
                label = f"{name} at {load:.0%}, {_told(workers)}"
                first = [first_wave(result, *asked) for result in results]
                most = [most_trials(result, *asked) for result in results]
                target = LOST if workers == 8 and name != "throttled" else None
                yield _worst(f"{label}: calls swallowed before it was out", first, target)
                told = f"{label}: submits risked after a back-off"
                # Of a job's failure nobody knows until somebody looks, so there it may be more.
                yield _worst(told, most, None if name == "black-hole" else len(scenario.changed))


def _worst(name: str, values: Sequence[float], target: float | None) -> Figure:
    """The worst over the seeds."""
    return Figure(name, max(values), "", target, values)


def _of_who_returns(records: Records) -> Iterator[Figure]:
    back = MIDDLE + DEAD_SECONDS
    for load in records.loads("dies"):
        for workers in records.workers("dies", load, JUDGED):
            results = records.results("dies", load, JUDGED, workers)
            even = 1 / len(scenario_of("dies").sites)
            label = f"dies at {load:.0%}, {_told(workers)}"
            first = [_first_job(result, "d0", back) for result in results]
            waited = [at - back for at in first]
            told = f"{label}: seconds until it has a job again"
            yield Figure(told, max(waited), "s", None, waited)
            # It is back in rotation with its trial: how long that takes is the back-off's matter.
            since = list(zip(results, first, strict=True))
            lacks = max(1 - _share_after(since, BACK_WITHIN, BACK_WITHIN + 120.0) / even, 0.0)
            told = f"{label}: lacks of its share 60 s after it is back"
            yield Figure(told, lacks, "", OFF_SHARE)
            minutes = [_share_after(since, 60.0 * n, 60.0 * (n + 1)) / even for n in range(10)]
            told = f"{label}: most of its share in any minute since"
            enough = len(results) >= FEWEST_SEEDS
            yield Figure(told, max(minutes), "×", TOO_MUCH if enough else None, minutes)


def _share_after(since: Iterable[tuple[Result, float]], begin: float, end: float) -> float:
    """The share of d0 in a time after its first job, each run by its own."""
    counted = sum((sent([result], at + begin, at + end) for result, at in since), Counter[str]())
    return shares(counted).get("d0", 0.0)


def _first_job(result: Result, host: str, since: float) -> float:
    """When a host was sent a submit that it took, after some time."""
    taken = (a.at for a in result.attempts if a.host == host and a.status == 200 and a.at > since)
    return min(taken, default=math.inf)


# Trials -------------------------------------------------------------------------------------------


def _of_trials(records: Records) -> Iterator[Figure]:
    yield from _bursts(records)
    for name in ("slow-answer", "slow-job"):
        for load in records.loads(name):
            for contender, workers in _routers(records, name, load):
                results = records.results(name, load, contender, workers)
                asked = [_calls_until_asked(result) for result in results]
                mine = contender == JUDGED
                label = f"{name}, {_who(contender, workers)}: calls until it is asked again"
                yield _worst(f"{label}, of {ASKED_AGAIN}", asked, ASKED_AGAIN - 1 if mine else None)
    for name in ("retry-after-year", "retry-after-0"):
        for load in records.loads(name):
            for contender, workers in _routers(records, name, load):
                results = records.results(name, load, contender, workers)
                yield _left_alone(name, contender, workers, results)


def _routers(records: Records, name: str, load: float) -> list[tuple[str, int]]:
    return [who for who in records.contenders(name, load) if who[0] != REFERENCE]


def _who(contender: str, workers: int) -> str:
    return f"{contender}, {_told(workers)}" if workers else contender


def _bursts(records: Records) -> Iterator[Figure]:
    times = [burst.at for burst in scenario_of("burst").bursts]
    hosts = [site.name for site in scenario_of("burst").sites]
    fair = BURST / len(hosts)
    for load in records.loads("burst"):
        for contender, workers in _routers(records, "burst", load):
            off = [
                max(abs(counted.get(host, 0) - fair) for host in hosts)
                for result in records.results("burst", load, contender, workers)
                for counted in [sent([result], at, at + 1e-6) for at in times]
            ]
            judged = contender in (JUDGED, "least-busy") and workers in (1, 8)
            label = f"burst of {BURST}, {_who(contender, workers)}: most off {fair:.0f} each"
            yield _worst(label, off, 3 if judged else None)


def _calls_until_asked(result: Result) -> int:
    """How many of the next calls went elsewhere before one went to who was slow once."""
    mine = [attempt for attempt in result.attempts if attempt.host == "d0"]
    if not mine:
        return ASKED_AGAIN
    slow = max(mine, key=lambda attempt: _slowness(result, attempt))
    # What is known of an answer is known with it, and of a job when it has ended.
    stalled = slow.answered_at - slow.at > LATE_ANSWER
    known = slow.answered_at if stalled else _end_of(result, slow)
    later = sorted((a.at, a.host) for a in result.attempts if a.at > known)
    after = [host for _, host in later[:ASKED_AGAIN]]
    return after.index("d0") if "d0" in after else ASKED_AGAIN


def _slowness(result: Result, attempt: Attempt) -> float:
    if attempt.answered_at - attempt.at > LATE_ANSWER:
        return math.inf
    lasted = _end_of(result, attempt) - attempt.answered_at
    return lasted / result.calls[attempt.call].length


def _end_of(result: Result, attempt: Attempt) -> float:
    return result.ended.get(attempt.call, (attempt.answered_at, False))[0]


def _left_alone(name: str, contender: str, workers: int, results: Sequence[Result]) -> Figure:
    """How long who answered 429 was left alone, by the router's word or by what it did."""
    seconds = [_seconds_alone(result) for result in results]
    year = name == "retry-after-year"
    label = f"{name}, {_who(contender, workers)}: seconds out"
    if contender != JUDGED:
        return Figure(label, max(seconds) if year else min(seconds), "s", None, seconds)
    if year:
        return Figure(label, max(seconds), "s", LONGEST_OUT * 1.01, seconds)
    lacks = max(SHORTEST_OUT - min(seconds), 0.0)
    return Figure(f"{label}, short of {SHORTEST_OUT:g}", lacks, "s", 0.0, seconds)


def _seconds_alone(result: Result) -> float:
    refused = next((a for a in result.attempts if a.status == 429), None)
    if refused is None:
        return math.nan
    outs = [o for o in result.outs if o.host == refused.host and o.at >= refused.answered_at]
    if outs:
        return outs[0].until - outs[0].at
    known = refused.answered_at
    later = [a.at for a in result.attempts if a.host == refused.host and a.at >= known]
    return min(later, default=math.inf) - refused.answered_at
