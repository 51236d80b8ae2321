"""Following thousands of running jobs in one worker: `python -m benchmarks.following`.

A worker awaits `avideo_wait` for 10,000 jobs of 20 deployments. The upstream answers each look at
once that the job goes on, and advises the next one after 20 s: 500 looks a second. The waits begin
over one such period, so that looks are spread as they are in life. In the next one are counted the
looks, the processor time of this process, and its threads. A quick run follows 2,000 jobs that are
looked at every 4 s: as many looks a second.

There is one schedule for all: the event loop's own heap of timers. Between two looks a job is a
task that sleeps; there is no thread for it, and what it holds is told by `benchmarks.memory`. Looks
share the loop's kept connections. (The blocking door's `video_wait` blocks the thread that calls
it; a worker that follows many jobs calls the async one.)

The bare line is what as many `httpx.AsyncClient.get` take, one after the other, with their answers
parsed as JSON.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

if not __package__:  # run as a file: the packages beside it are found from the folder above
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import httpx

from benchmarks.costing.fleet import GROUP, fleet
from benchmarks.measure import Figure, Report, atogether
from benchmarks.run import play, told
from benchmarks.upstream import upstream
from router import Router

LOOKS_A_SECOND = 500
SHARE = 0.2
DEPLOYMENTS = 20
THREADS = 10.0  # those that an event loop has for what blocks: a few more than cores
WINDOWS = 5


def jobs_of(router: Router, count: int) -> list[str]:
    """Ids of jobs that run; written as `pick` does, since submits of them would take minutes."""
    found = []
    for number in range(count):
        with router.pick("generation", model=GROUP) as attempt:
            found.append(attempt.accepted(f"video_{number:048x}"))
    return found


async def spread(start: Callable[[], Awaitable[object]], seconds: float, count: int) -> list[float]:
    """Start so many over so many seconds; then the processor's share in each of some windows."""
    began = time.monotonic()
    tasks = []
    for number in range(count):
        due = began + seconds * number / count
        if (left := due - time.monotonic()) > 0.001:
            await asyncio.sleep(left)
        tasks.append(asyncio.ensure_future(start()))
    shares = []
    for _ in range(WINDOWS):
        before, processor = time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds / WINDOWS)
        shares.append((time.process_time() - processor) / (time.perf_counter() - before))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return shares


async def followed(base_url: str, count: int, seconds: float) -> tuple[list[float], float, int]:
    """Shares of a processor, looks a second, and threads that were there at the end of it."""
    router = fleet(base_url, DEPLOYMENTS)
    ids = iter(jobs_of(router, count))
    looks, threads = [0], [0]

    def looked(video: object) -> None:
        looks[0] += time.monotonic() > counting
        threads[0] = max(threads[0], threading.active_count())

    counting = time.monotonic() + seconds
    shares = await spread(lambda: router.avideo_wait(next(ids), on_progress=looked), seconds, count)
    await router.aclose()
    return shares, looks[0] / seconds, threads[0]


async def bare(base_url: str) -> list[float]:
    """Shares of a processor, one look at a time: with many at once its pool makes it slower."""
    async with httpx.AsyncClient() as client:

        async def looking() -> None:
            (await client.get(f"{base_url}/videos/video_{0:048x}")).json()

        turns = [await atogether(looking, at_once=1, calls=LOOKS_A_SECOND) for _ in range(WINDOWS)]
    return [turn.processor * LOOKS_A_SECOND for turn in turns]


def measure(report: Report, *, quick: bool) -> None:
    seconds = 4.0 if quick else 20.0
    count = round(LOOKS_A_SECOND * seconds)
    before = threading.active_count()
    with upstream(status="in_progress", poll_after=round(seconds * 1000)) as server:
        shares, looks, threads = asyncio.run(followed(server.base_url, count, seconds))
        of_bare = asyncio.run(bare(server.base_url))
    scaled = [share * LOOKS_A_SECOND / looks for share in shares]
    name = f"following {count:,} jobs"
    told(
        report,
        f"Following {count:,} running jobs in one worker",
        [
            Figure(f"{name}: looks a second", looks, "/s"),
            Figure.median(f"{name}: share of a core at 500 looks a second", scaled, "", SHARE),
            Figure.median("bare httpx: share of a core at 500 looks a second", of_bare, ""),
            Figure(f"{name}: a look", statistics.median(shares) / looks * 1e6, "µs"),
            Figure(f"{name}: threads for all of them", float(threads - before), "", THREADS),
        ],
    )


def main(given: Sequence[str] | None = None) -> None:
    play(
        measure,
        doc=__doc__,
        name="following",
        versions=("httpx", "httpcore", "h11"),
        seconds=(90, 240),
        given=given,
    )


if __name__ == "__main__":
    main()
