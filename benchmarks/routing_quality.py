"""How well the router chooses: `python -m benchmarks.routing_quality`.

A discrete-event simulation on a virtual clock. What chooses is real: each of N workers is a
`Router` of its own, picking by `router.pick`, told of answers by `attempt.accepted` and `.failed`
and of jobs by `router.observe`; they share through one store by the real exchange, a turn each
second and a few milliseconds after an ejection or a slot that is given back. What is simulated is
the provider, the traffic and the time.

**The provider.** A deployment runs a number of jobs at a time and queues the rest, first come,
first served, with status `queued`; where the scenario says so, it answers 429 with a Retry-After
instead. A job takes its deployment's seconds per second of video, times the length of the video
(4, 8 or 12 s), times a lognormal luck with a coefficient of variation of 0.15. A submit is answered
after 0.3 to 1 s. Calls come as a Poisson process at a share of what the fleet can do, and in
bursts. All of a run's traffic is drawn beforehand, so every contender serves the same calls. Where
deployments have a job cap, callers let our router wait for room (`max_wait`), as they let the
reference; LiteLLM has no such queue, and its callers come again when it says so.

**The contenders.** Each of our strategies, with 1, 8 or 64 workers. LiteLLM's strategies, by its
own code for picking, learning and cooling down; a single router of it stands for the fleet, so its
workers share everything at once (see `quality.peer`). And the reference: a central queue that knows
all free slots and true speeds, and sends each job to where it will be done first.

**What is measured.** Seconds from the call until the provider has the video: p50, p95, p99, over
all calls after a warm-up, where a call that got no video counts as infinitely late. Lost calls.
Regret: the mean seconds over the reference, for the same calls. Shares of the jobs, against the
reference's: the largest distance, as a part of the share (or of an even share, where that is more).

**What is not measured.** The cost of a pick (`benchmarks.overhead`). How soon a caller notices that
its job has ended: the job's own end counts. Redis: the store is in memory and never late. The retry
inside one call: here each attempt is a pick of its own, which may fall on who refused just now.
LiteLLM's retries of ambiguous submits, which would be paid for twice: none happens here.

Full runs play each judged case with several seeds; `--quick` plays the main load of each scenario
once, with 8 workers, against two of the peer's strategies; it judges no share, since a hundred
calls are too few.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a file: the packages beside it are found from the folder above
    sys.path[0] = str(ROOT)

from benchmarks.measure import Figure, Report, machine, table  # noqa: E402  (after the path)
from benchmarks.peer import HOW_TO_INSTALL  # noqa: E402
from benchmarks.quality import chart  # noqa: E402
from benchmarks.quality.judged import Records, judged, off_share, settled  # noqa: E402
from benchmarks.quality.peer import PEERS  # noqa: E402
from benchmarks.quality.play import (  # noqa: E402
    JUDGED,
    REFERENCE,
    Played,
    Run,
    played,
    scenario_of,
    the_peers,
)
from benchmarks.quality.scenarios import SCENARIOS, TRIALS, Scenario  # noqa: E402
from router.balancing import STRATEGIES  # noqa: E402

SEED = 20260924


@dataclass(frozen=True)
class Effort:
    """How much is played, and when it is stopped by force.

    By number of workers: with how many seeds the judged strategy plays what never changes, what
    does, and the trials, at the main load. (A share of some hundred calls is a matter of luck; of a
    thousand it is not.) At other loads, and for `others` and `peers`, fewer are enough.
    """

    static: Mapping[int, int]
    changing: Mapping[int, int]
    trials: Mapping[int, int]
    peers: Sequence[str]
    others: bool
    every_load: bool
    seconds: float

    def seeds(self, scenario: Scenario) -> Mapping[int, int]:
        if scenario.name in TRIALS:
            return self.trials
        return self.changing if scenario.changes else self.static


FULL = Effort(
    static={1: 2, 8: 3, 64: 1},
    changing={1: 4, 8: 4, 64: 4},
    trials={1: 2, 8: 2},
    peers=PEERS,
    others=True,
    every_load=True,
    seconds=3600,
)
QUICK = Effort(
    static={8: 1},
    changing={8: 1},
    trials={8: 1},
    peers=("simple-shuffle", "latency-based-routing"),
    others=False,
    every_load=False,
    seconds=600,
)
PEER_SEEDS = 2
SOME_WORKERS = (1, 8)
"""At other loads; more take long, and tell little more."""


def planned(names: Sequence[str], strategies: Sequence[str], effort: Effort) -> Iterator[Run]:
    """Every run there is to play."""
    peers = [name for name in the_peers() if name.partition(" ")[2] in effort.peers]
    for name in names:
        scenario = scenario_of(name)
        for load in scenario.loads if effort.every_load else (scenario.load,):
            ours = list(_ours(scenario, load, strategies, effort))
            seeds = sorted({run.seed for run in ours})
            yield from (Run(name, load, REFERENCE, 0, seed) for seed in seeds)
            for peer in peers:
                yield from (Run(name, load, peer, 0, seed) for seed in seeds[:PEER_SEEDS])
            yield from ours


def _ours(
    scenario: Scenario, load: float, strategies: Sequence[str], effort: Effort
) -> Iterator[Run]:
    main, asked = load == scenario.load, len(strategies) < len(STRATEGIES)
    for strategy in strategies:
        if strategy == JUDGED:
            for workers, seeds in effort.seeds(scenario).items():
                if main or workers in SOME_WORKERS:
                    for seed in range(SEED, SEED + (seeds if main else 1)):
                        yield Run(scenario.name, load, strategy, workers, seed)
        elif main and (effort.others or asked):
            for workers in SOME_WORKERS if scenario.name == "burst" else (8,):
                yield Run(scenario.name, load, strategy, workers, SEED)


# Telling -----------------------------------------------------------------------------------------

COLUMNS = (
    "contender",
    "workers",
    "p50",
    "p95",
    "p99",
    "p95 ×",
    "regret",
    "lost",
    "unserved",
    "off",
)


def tell(report: Report, records: Records, name: str, load: float) -> None:
    """The table of a scenario at a load."""
    scenario = scenario_of(name)
    ideal = records.waits(name, load, REFERENCE)
    rows = []
    for contender, workers in _in_order(records, name, load):
        seen = records.waits(name, load, contender, workers)
        off = off_share(records, name, load, contender, workers)
        label = f"{name} at {load:.0%}, {contender}" + (f", {workers} workers" if workers else "")
        numbers = {
            "p50": seen.p50,
            "p95": seen.p95,
            "p99": seen.p99,
            "regret": seen.regret,
            "share off the ideal": off,
        }
        units = {"share off the ideal": ""}
        report.add(*(Figure(f"{label}: {k}", v, units.get(k, "s")) for k, v in numbers.items()))
        report.add(Figure(f"{label}: calls without a video", seen.without_video, "calls"))
        rows.append(
            [
                contender,
                str(workers or ""),
                *(f"{value:.0f}" for value in (seen.p50, seen.p95, seen.p99)),
                f"{seen.p95 / ideal.p95:.2f}",
                f"{seen.regret:.1f}",
                str(seen.lost),
                str(seen.unserved),
                f"{off:.0%}" if math.isfinite(off) else "",
            ]
        )
    since, until = settled(scenario)
    note = f"{ideal.calls} calls with the reference; shares from {since:.0f} to {until:.0f} s"
    changes = "; ".join(f"{change.at:.0f} s: {change.what}" for change in scenario.changes)
    title = f"{name} at {load:.0%} load: {scenario.title}"
    print(table(title, COLUMNS, rows, f"{note}; {changes}" if changes else note))


def _in_order(records: Records, name: str, load: float) -> list[tuple[str, int]]:
    order = [REFERENCE, JUDGED, *STRATEGIES, *the_peers()]
    found = records.contenders(name, load)
    return sorted(found, key=lambda who: (order.index(who[0]), who[1]))


def tell_judged(report: Report, figures: Sequence[Figure]) -> None:
    report.add(*figures)
    rows = [[f.name, f"{f.value:.2f} {f.unit}".strip(), _target(f), f.verdict] for f in figures]
    if rows:
        columns = ("figure", "found", "at most", "")
        print(table(f"What was promised of {JUDGED}", columns, rows))


def _target(figure: Figure) -> str:
    return "" if figure.target is None else f"{figure.target:g}"


def _finite(value: object) -> object:
    """JSON knows no infinity."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# The run -----------------------------------------------------------------------------------------


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks.routing_quality",
        description="How well the router chooses, by simulation.",
        epilog=f"scenarios: {', '.join(SCENARIOS)}; trials: {', '.join(TRIALS)}",
    )
    known = [*SCENARIOS, *TRIALS]
    parser.add_argument("--quick", action="store_true", help="the main lines, under a minute")
    parser.add_argument("--only", nargs="+", choices=known, metavar="SCENARIO", help="these alone")
    parser.add_argument("--strategy", nargs="+", choices=[*STRATEGIES], help="of ours, these alone")
    parser.add_argument(
        "--workers", nargs="+", type=int, metavar="N", help="so many, one seed each"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there too")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw the chart there")
    return parser.parse_args(given)


def play_all(runs: Sequence[Run]) -> list[Played]:
    results = []
    for one in played(runs):
        results.append(one)
        if sys.stderr.isatty():
            print(f"\r{len(results)} of {len(runs)} runs", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r" + " " * 40 + "\r", end="", file=sys.stderr)
    order = {run: index for index, run in enumerate(runs)}
    return sorted(results, key=lambda one: order[one.run])


def main(given_arguments: Sequence[str] | None = None) -> None:
    given = arguments(given_arguments)
    effort = QUICK if given.quick else FULL
    if given.workers:
        some = {workers: effort.changing.get(workers, 1) for workers in given.workers}
        effort = replace(effort, static=some, changing=some, trials=some)
    # Nothing here may hang: past its time, the run ends with every thread's stack.
    faulthandler.dump_traceback_later(effort.seconds, exit=True)
    started = time.monotonic()
    about = machine(["video-router", "litellm", "matplotlib"])
    report = Report(about)
    print(f"{about['processor']}, {about['cores']} cores, {about['system']}, {about['python']}")
    print(", ".join(f"{name} {version}" for name, version in about["versions"].items()))
    if not the_peers():
        print(HOW_TO_INSTALL)
    names = given.only or [*SCENARIOS, *TRIALS]
    runs = list(planned(names, given.strategy or [*STRATEGIES], effort))
    results = play_all(runs)
    records = Records(results)
    for name in (name for name in SCENARIOS if name in names):
        for load in records.loads(name):
            tell(report, records, name, load)
    tell_judged(report, judged(records))
    spent = sum(one.seconds for one in results)
    print(f"\n{report.summary()}")
    print(f"{len(runs)} runs, seeds from {SEED}, {spent:.0f} s of processor time, ", end="")
    print(f"in {time.monotonic() - started:.0f} s")
    if given.json is not None:
        text = json.dumps(_finite(report.as_json()), indent=1, allow_nan=False)
        given.json.write_text(text, encoding="utf-8")
    if given.png is not None:
        picture(records, given.png, about)


def picture(records: Records, path: Path, about: dict[str, object]) -> None:
    versions = about["versions"]
    told = ", ".join(f"{k} {v}" for k, v in versions.items()) if isinstance(versions, dict) else ""
    try:
        chart.draw(records, path, f"{told}; seeds from {SEED}")
    except ImportError:
        print(chart.HOW_TO_INSTALL)


if __name__ == "__main__":
    main()
