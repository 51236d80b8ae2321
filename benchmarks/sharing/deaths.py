"""What is left behind when workers die in the midst of their work.

Workers submit videos and poll them, under a limit on running jobs of the deployment and of its
account. One after the other is ended by SIGKILL, at a moment nobody chose, and another takes its
place: it may have been granted a slot and not have sent yet, have sent and not been answered, been
answered and not told, or polled. All the while what holds a slot is read from Redis, and in the end
all are killed at once. Asked is whether the provider ever ran more jobs than the limit (a slot
given twice), whether any slot would be held for longer than its time (`job_ttl`, and for exchanges
the call's deadline and what follows it), whether any number in Redis is below zero, and how long it
takes until every slot is free and can be taken again.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from benchmarks.measure import Figure
from benchmarks.sharing.stage import (
    PREFIX,
    Redis,
    Wire,
    Worker,
    begun,
    configured,
    provider,
    redis_server,
)
from router import CapacityError, Router
from router.choosing import LAPSE_SECONDS

__all__ = ["Died", "measure", "play"]

WORKERS = 6
KILLS, QUICK_KILLS = 50, 10
CAP = 3
JOB_TTL = 5.0
JOB_SECONDS = 0.15
DEADLINE = 2.0
# Of exchanges at once: more than the dead can take with them, whose slots last for half a minute.
ROOM = 256
SEED = 20260924
# Calls wait for Redis as long as it takes: what they do without its answer is not asked here.
PATIENCE = 30.0
# What a death is followed by, before the next: long enough for its successor to be at work.
PAUSES = (0.1, 0.4)
# Seconds in which what the dead had sent arrives.
SETTLING = 0.1
JOBS = ("jobs:deployment:east-1", "jobs:account:east")
EXCHANGES = ("requests:deployment:east-1",)


@dataclass
class Died:
    """`held_most` slots of one limit at once; `overdue` seconds of any beyond its time."""

    kills: int = 0
    orphans: int = 0
    """Slots that were still taken when the last worker had died."""
    accepted: int = 0
    running: int = 0
    held_most: int = 0
    overdue: float = field(default=-JOB_TTL)
    negative: int = 0
    free_after: float = 0.0
    taken_again: int = 0


def measure(binary: str, folder: Path, *, quick: bool) -> Iterator[Figure]:
    found = play(binary, folder, QUICK_KILLS if quick else KILLS)
    yield Figure("workers killed", found.kills, "")
    yield Figure("jobs accepted meanwhile", found.accepted, "")
    yield Figure(f"max_parallel_jobs: {CAP}, most running at once", found.running, "", CAP)
    yield Figure("most slots of one limit taken at once", found.held_most, "", CAP)
    yield Figure("a slot would last beyond its time, at most", max(found.overdue, 0.0), "s", 0)
    yield Figure("numbers below zero", found.negative, "", 0)
    yield Figure("slots left behind by the last to die", found.orphans, "")
    yield Figure("seconds until all are free", found.free_after, "s", JOB_TTL)
    yield Figure("slots that cannot be taken again", CAP - found.taken_again, "", 0)


def play(binary: str, folder: Path, kills: int, *, job_ttl: float = JOB_TTL) -> Died:
    """Kill so many, and then all that are left."""
    limits = {"max_parallel_jobs": CAP, "job_ttl": job_ttl}
    deployments = [{"id": "east-1", "account": "east", "max_parallel_requests": ROOM, **limits}]
    with (
        redis_server(binary, folder) as server,
        # Slow enough to be killed in the midst of an exchange.
        provider(["east"], job_seconds=JOB_SECONDS, latency=0.01, poll_after_ms=20) as upstream,
    ):
        url = upstream.base_url
        config = configured(url, server.url, deployments, {"east": limits}, deadline=DEADLINE)
        found = Died(overdue=-job_ttl)
        _kill_one_by_one(server, config, kills, job_ttl, found)
        time.sleep(SETTLING)
        found.orphans = len(server.holders(JOBS[0]))
        found.free_after = _free_after(server, 4 * job_ttl)
        found.accepted, found.running = len(upstream.books().jobs), upstream.books().running()
        found.negative = _below_zero(server)
        found.taken_again = _taken_again(config)
        return found


def _kill_one_by_one(
    server: Redis, config: dict[str, Any], kills: int, job_ttl: float, found: Died
) -> None:
    rng = random.Random(SEED)
    crew = [Worker(_toil, SEED + number, config) for number in range(WORKERS)]
    try:
        for worker in crew:
            worker.hear()
        while found.kills < kills:
            until = time.monotonic() + rng.uniform(*PAUSES)
            while time.monotonic() < until:
                _look(server, job_ttl, found)
                time.sleep(0.01)
            number = rng.randrange(len(crew))
            crew[number].kill()
            found.kills += 1
            crew[number] = Worker(_toil, SEED + WORKERS + found.kills, config)
    finally:
        for worker in crew:
            worker.process.kill()
        for worker in crew:
            worker.end()
    found.kills += len(crew)


def _toil(wire: Wire, seed: int, config: dict[str, Any]) -> None:
    """Submit and poll, until death."""
    rng = random.Random(seed)
    with begun(config, PATIENCE) as one:
        wire.say()
        while True:
            try:
                video = one.router.video_generation(prompt="a heron takes off")
            except CapacityError:
                time.sleep(rng.uniform(0.01, 0.05))
            else:
                one.router.video_wait(video.id)


def _look(server: Redis, job_ttl: float, found: Died) -> None:
    """Who holds what just now, and for how long."""
    for resources, lasts in ((JOBS, job_ttl), (EXCHANGES, DEADLINE + LAPSE_SECONDS)):
        for resource in resources:
            held = server.holders(resource)
            if resource in JOBS:
                found.held_most = max(found.held_most, len(held))
            found.overdue = max([found.overdue, *(left - lasts for left in held.values())])


def _free_after(server: Redis, patience: float) -> float:
    """Seconds until nobody holds a slot; those of the last one, and it is seen to be gone."""
    began = now = time.monotonic()
    ends = began
    while now < began + patience:
        left = [one for resource in JOBS for one in server.holders(resource).values()]
        if not left:
            return ends - began
        ends = max(ends, now + max(left))
        time.sleep(0.01)
        now = time.monotonic()
    return patience


def _below_zero(server: Redis) -> int:
    """Numbers in hashes that are below zero: sums, counts, sequences."""
    found = 0
    for key in server.client.scan_iter(match=f"{PREFIX}*"):
        with contextlib.suppress(redis.ResponseError):  # of another type
            found += sum(_is_negative(value) for value in server.client.hvals(key))
    return found


def _is_negative(value: str) -> bool:
    try:
        return float(value) < 0
    except ValueError:
        return False


def _taken_again(config: dict[str, Any]) -> int:
    """How many slots a worker gets that comes afterwards, and does not wait."""
    with begun(config, PATIENCE) as one:
        return len(_submits(one.router, CAP))


def _submits(router: Router, count: int) -> Sequence[Any]:
    made = []
    with contextlib.suppress(CapacityError):
        for _ in range(count):
            made.append(router.video_generation(prompt="a heron takes off"))  # noqa: PERF401
    return made
