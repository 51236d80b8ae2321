"""What the router holds in memory: `python -m benchmarks.memory`.

**A deployment.** Routers of 4 to 1,000 deployments, each in an account of its own, that have
picked once: what a thousand more take, by the deployment. Counted are the bytes that Python's
allocator has handed out and not got back (`tracemalloc`), not what the file that they were read
from took. A second figure is of a fleet that has learned: latencies, successes, a job of each.

**A followed job.** 10,000 jobs that run are followed by `avideo_wait`, each in a task of its own;
each has been looked at, and sleeps until its next look. From what they hold is taken what as many
tasks hold that only sleep.

Each is counted in a process of its own. What is resident stands beside it, not judged: it depends
on what was there before, and comes in pages.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a file: the packages beside it are found from the folder above
    sys.path[0] = str(ROOT)

import httpx  # noqa: E402

from benchmarks.costing.fleet import GROUP, fleet, learned  # noqa: E402
from benchmarks.measure import Figure, Report  # noqa: E402
from benchmarks.run import play, told  # noqa: E402
from router import Router  # noqa: E402

DEPLOYMENT_BYTES = 4096.0
JOB_BYTES = 500.0
DEPLOYMENTS = 20
SIZES = (4, 32, 100, 1_000)
POLL_AFTER = "3600000"  # milliseconds: longer than the benchmark


def resident() -> int:
    with Path("/proc/self/statm").open() as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Held:
    """Bytes that are held more than when this was made."""

    def __init__(self) -> None:
        gc.collect()
        self._resident = resident()
        tracemalloc.start()

    def now(self) -> tuple[int, int]:
        """As Python's allocator counts them, and as the system does."""
        gc.collect()
        return tracemalloc.get_traced_memory()[0], resident() - self._resident


# A deployment ------------------------------------------------------------------------------------


def of_deployments(count: int, known: bool) -> tuple[float, float]:
    """Bytes by the deployment, over a router of one; by Python's count and the system's."""
    few = used(1, known)
    held = Held()
    many = used(count, known)
    python, system = held.now()
    del few, many
    return python / count, system / count


def used(count: int, known: bool) -> Router:
    router = fleet("http://provider/v1", count)
    if known:
        learned(router, 1.0, 0.0)
        # One call each, and its job goes on.
        for member in router._engine.fleet.members.values():
            member.load.in_flight = 0
        for _ in range(count):
            with router.pick("generation", model=GROUP) as attempt:
                attempt.accepted(f"video_{id(attempt):048x}")
    else:
        with router.pick("generation", model=GROUP):
            pass
    return router


# A followed job ----------------------------------------------------------------------------------


def running(request: httpx.Request) -> httpx.Response:
    """A provider that answers at once: the job goes on."""
    native = request.url.path.rpartition("/")[2]
    body = {
        "id": native,
        "object": "video",
        "created_at": 1758941485,
        "status": "in_progress",
        "model": GROUP,
        "progress": 12,
        "seconds": "8",
        "size": "1280x720",
    }
    return httpx.Response(200, json=body, headers={"openai-poll-after-ms": POLL_AFTER})


async def of_jobs(count: int, known: bool) -> tuple[float, float]:
    """Bytes by the followed job, beyond those of a task that sleeps."""
    data = {
        "deployments": [
            {"id": name, "model_name": GROUP, "base_url": "http://provider/v1", "api_key": name}
            for name in (f"d{number}" for number in range(DEPLOYMENTS))
        ]
    }
    router = Router.from_dict(data, environ={}, async_http_client=httpx.MockTransport(running))
    held, ids = Held(), []
    for number in range(count):
        with router.pick("generation", model=GROUP) as attempt:
            ids.append(attempt.accepted(f"video_{number:048x}"))
    for video_id in ids:  # so that what is remembered of any look is there already
        await router.avideo_status(video_id)

    async def sleeping(video_id: str) -> None:
        await asyncio.sleep(3600)

    async def of(kind: str) -> tuple[int, int]:
        before = held.now()
        tasks = []
        for video_id in ids:
            one = sleeping(video_id) if kind == "sleeping" else router.avideo_wait(video_id)
            tasks.append(asyncio.create_task(one))
            await asyncio.sleep(0)
        # Each of them sleeps once the loop has nothing to do any more.
        while asyncio.get_running_loop()._ready:  # type: ignore[attr-defined]  # noqa: ASYNC110
            await asyncio.sleep(0)
        after = held.now()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # the loop forgets the timers of those that were cancelled
        return after[0] - before[0], after[1] - before[1]

    await of("sleeping")  # so that the loop's own tables have grown
    bare, followed = await of("sleeping"), await of("followed")
    await router.aclose()
    return (followed[0] - bare[0]) / count, (followed[1] - bare[1]) / count


# The run -----------------------------------------------------------------------------------------


def in_child(what: str, count: int, *, known: bool = False) -> tuple[float, float]:
    command = [sys.executable, "-m", "benchmarks.memory", "--one", what, str(count), str(known)]
    done = subprocess.run(
        command, cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=200, text=True
    )
    python, system = json.loads(done.stdout.splitlines()[-1])
    return python, system


def measure(report: Report, *, quick: bool) -> None:
    figures = []
    for known, past in ((False, "new"), (True, "with a past")):
        for size in (min(SIZES), max(SIZES)) if quick else SIZES:
            python, system = in_child("deployment", size, known=known)
            name = f"a deployment, {past}, of {size:,}"
            target = DEPLOYMENT_BYTES if size == max(SIZES) and not known else None
            curve = f"bytes a deployment, {past}"
            figures.append(Figure(name, python, "B", target, curve=curve, at=float(size)))
            if size == max(SIZES):
                figures.append(Figure(f"{name}: resident", system, "B"))
    jobs = 1_000 if quick else 10_000
    python, system = in_child("job", jobs)
    figures.append(Figure(f"a followed job of {jobs:,}, beyond its task", python, "B", JOB_BYTES))
    figures.append(Figure(f"a followed job of {jobs:,}, beyond its task: resident", system, "B"))
    told(report, "Memory", figures)


def main(given: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if given is None else given)
    if words[:1] == ["--one"]:
        count, known = int(words[2]), words[3] == "True"
        if words[1] == "job":
            print(json.dumps(asyncio.run(of_jobs(count, known))))
        else:
            print(json.dumps(of_deployments(count, known)))
        return
    play(
        measure,
        doc=__doc__,
        name="memory",
        versions=("httpx", "pydantic", "redis"),
        seconds=(100, 300),
        given=words,
    )


if __name__ == "__main__":
    main()
