"""Whether limits hold when eight workers want the same slots at once.

**Running jobs.** `max_parallel_jobs: 2` and eight workers, each of which submits a video, polls it
until it is ready, and submits the next. Some calls wait for their turn (`max_wait`), most come
again at once when they are refused. What ran at the same time is counted by the provider's own
books, in which a job begins when it is accepted and ends when it says so.

What is measured is the limit while Redis answers. A call that hears nothing from it for a tenth of
a second goes by its worker's own share, one slot at least, so on a machine that has no time for
eight processes more may run; how often that happened is told.

**Requests per minute.** Eight workers submit as fast as they are let, or a little slower, for
longer than a minute. What was granted, and when, is read from Redis as it stands there; counted is
every window of 60 seconds that begins with a grant. A limit is exact when no window has more, and
the first one has not less.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Figure
from benchmarks.sharing.stage import (
    PREFIX,
    Redis,
    Wire,
    begun,
    configured,
    most_in_window,
    provider,
    redis_server,
    workers,
)
from router import CapacityError, Router
from router.leases import WINDOW

__all__ = ["Capped", "Granted", "measure", "play_jobs", "play_rate"]

WORKERS = 8
CAP = 2
SUBMITS, QUICK_SUBMITS = 1000, 100
JOB_SECONDS = 0.04
# Seconds until a refused call comes again: so soon that slots are fought for, and not so soon that
# the machine's processors are what is short.
AGAIN = (0.01, 0.06)
WAITING = 0.2
"""The share of calls that wait for a slot."""
RATE, QUICK_RATE = 300, 120
RATE_SECONDS, QUICK_RATE_SECONDS = 72.0, 6.0
SEED = 20260924


@dataclass(frozen=True)
class Capped:
    """`running` is the most that ever ran at once, `held` the slots still taken in the end.

    `unanswered` calls waited for Redis in vain.
    """

    submits: int
    accepted: int
    running: int
    refused: int
    unanswered: int
    held: int
    seconds: float


@dataclass(frozen=True)
class Granted:
    """When submits were granted, by Redis's clock, and how many the provider got."""

    times: list[float]
    accepted: int
    unanswered: int

    @property
    def most(self) -> int:
        """In any 60 seconds."""
        return most_in_window(self.times, WINDOW)

    @property
    def ungranted(self) -> int:
        """Submits that neither Redis granted, nor a worker that had no answer from it."""
        return max(self.accepted - len(self.times) - self.unanswered, 0)

    @property
    def first(self) -> int:
        """In the 60 seconds that began with the first."""
        return sum(at < min(self.times) + WINDOW for at in self.times)


def measure(binary: str, folder: Path, *, quick: bool) -> Iterator[Figure]:
    jobs = play_jobs(binary, folder, QUICK_SUBMITS if quick else SUBMITS)
    yield Figure(f"max_parallel_jobs: {CAP}, most running at once", jobs.running, "", CAP)
    yield Figure("submits", jobs.submits, "")
    yield Figure("submits lost or sent twice", abs(jobs.submits - jobs.accepted), "", 0)
    yield Figure("times that a call was refused for want of a slot", jobs.refused, "")
    yield Figure("calls that Redis did not answer in 0.1 s", jobs.unanswered, "")
    yield Figure("slots taken when all had ended", jobs.held, "", 0)
    yield Figure("submits a second", jobs.submits / jobs.seconds, "1/s")
    rate = QUICK_RATE if quick else RATE
    granted = play_rate(binary, folder, rate, QUICK_RATE_SECONDS if quick else RATE_SECONDS)
    yield Figure(f"rpm: {rate}, most grants in any 60 s", granted.most, "", rate)
    yield Figure(f"rpm: {rate}, grants missing from the first 60 s", rate - granted.first, "", 0)
    yield Figure("grants in all", len(granted.times), "")
    yield Figure("calls that Redis did not answer in 0.1 s", granted.unanswered, "")
    yield Figure("submits that nobody granted", granted.ungranted, "", 0)


# Running jobs ------------------------------------------------------------------------------------


def play_jobs(
    binary: str,
    folder: Path,
    submits: int,
    *,
    of_account: bool = False,
    patience: float | None = None,
) -> Capped:
    """Eight workers submit so many; the limit is one deployment's, or the account's of two."""
    limit = {"max_parallel_jobs": CAP}
    ids = ["east-1", "east-2"] if of_account else ["east-1"]
    deployments = [{"id": i, "account": "east", **({} if of_account else limit)} for i in ids]
    accounts = {"east": limit} if of_account else {}
    with (
        redis_server(binary, folder) as server,
        provider(["east"], job_seconds=JOB_SECONDS, poll_after_ms=10) as upstream,
    ):
        config = configured(upstream.base_url, server.url, deployments, accounts)
        with workers(WORKERS, _submit, config, submits // WORKERS, patience) as started:
            began = time.monotonic()
            for worker in started:
                worker.tell()
            told = [worker.hear(900) for worker in started]
            seconds = time.monotonic() - began
        books = upstream.books()
        resource = "jobs:account:east" if of_account else "jobs:deployment:east-1"
        held = len(server.holders(resource))
        wanted = submits // WORKERS * WORKERS
        refused, unanswered = (sum(counts) for counts in zip(*told, strict=True))
        accepted, running = len(books.jobs), books.running()
        return Capped(wanted, accepted, running, refused, unanswered, held, seconds)


def _submit(
    wire: Wire, number: int, config: dict[str, Any], submits: int, patience: float | None
) -> None:
    rng = random.Random(SEED + number)
    refused = 0
    with begun(config, patience) as one:
        wire.say()
        wire.hear()
        for _ in range(submits):
            max_wait = 60.0 if rng.random() < WAITING else 0.0
            while (video := _submitted(one.router, max_wait=max_wait)) is None:
                refused += 1
                time.sleep(rng.uniform(*AGAIN))
            one.router.video_wait(video.id)
    # It has told all by now: what it gave back is free.
    wire.say((refused, one.unanswered))


def _submitted(router: Router, **options: Any) -> Any:
    try:
        return router.video_generation(prompt="a heron takes off", **options)
    except CapacityError:
        return None


# Requests per minute -----------------------------------------------------------------------------


def play_rate(
    binary: str, folder: Path, rate: int, seconds: float, *, patience: float | None = None
) -> Granted:
    """Eight workers want more than `rate` a minute, for so many seconds."""
    deployments = [{"id": "east-1", "account": "east", "rpm": rate}]
    with redis_server(binary, folder) as server, provider(["east"]) as upstream:
        config = configured(upstream.base_url, server.url, deployments)
        grants: dict[str, float] = {}
        with workers(WORKERS, _hurry, config, seconds, patience) as started:
            for worker in started:
                worker.tell()
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                grants |= _granted(server)
                time.sleep(min(5.0, seconds / 4))
            unanswered = sum(worker.hear() for worker in started)
        grants |= _granted(server)
        return Granted(sorted(grants.values()), len(upstream.books().jobs), unanswered)


def _granted(server: Redis) -> Mapping[str, float]:
    """The grants of the last minute at least, under their tokens."""
    return dict(server.client.zrange(f"{PREFIX}rpm:deployment:east-1", 0, -1, withscores=True))


def _hurry(
    wire: Wire, number: int, config: dict[str, Any], seconds: float, patience: float | None
) -> None:
    rng = random.Random(SEED + number)
    # Half of them as fast as they can; the others spread what is left over the minute.
    pause = 0.0 if number % 2 else 0.5
    with begun(config, patience) as one:
        wire.say()
        wire.hear()
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            if _submitted(one.router) is None:
                time.sleep(rng.uniform(0.02, 0.1))
            else:
                time.sleep(rng.uniform(0.0, pause))
    wire.say(one.unanswered)
