"""Several processes: the same task for two workers at once, and a worker killed at work.

Workers are processes with a router of their own; ours share a redis-server of this run's. Each has
made a call before the first that counts. The provider takes on a job at once and answers after
`LATENCY`, so there is a time in which calls overlap, and in which a worker can be killed.

**At once.** Two workers are told the same task in the same moment. Which of the two calls led to
a job nobody can tell, so there is no most for one call, only for one task.

**Killed.** A worker is told a task and ended by SIGKILL: as soon as the books have its job, or
within some milliseconds of being told, when it may have claimed, connected or sent. Then the queue
gives all that the dead were told to another worker, and gives it a task again after an error. Under
a key, that worker hears of the death when the dead worker's claim lapses, after half a minute.

The peer plays with its defaults: what is advised to it changes what follows an error, and here the
provider makes none.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.paying.calls import KEYS, usable
from benchmarks.paying.contenders import Contender, Place, Requester
from benchmarks.paying.scenarios import DELIVERIES
from benchmarks.paying.tasks import Counted, Outcome, Task, of_task
from benchmarks.sharing.stage import Wire, Worker, forked, redis_server, workers
from router import claiming
from router.testing import StandIn

__all__ = ["AT_ONCE", "CRASHES", "KILLED_EARLY", "KILLED_LATE", "at_once", "killed"]

AT_ONCE = "two-at-once"
KILLED_LATE = "killed"
KILLED_EARLY = "killed-early"
CRASHES = {
    AT_ONCE: "two workers get the same task at once",
    KILLED_LATE: "killed when the job was accepted, delivered again",
    KILLED_EARLY: "killed within 20 ms of the call, delivered again",
}
LATENCY = 0.2
EARLY = 0.02
SEED = 20260924
ACCEPTED_SECONDS = 30.0
REPLY_SECONDS = 180.0


@dataclass(frozen=True)
class Reply:
    """What a worker says of a task: how often it called, the id that it got or went on to."""

    calls: int
    answer: str | None = None
    resumed: str | None = None
    errors: tuple[str, ...] = ()


def at_once(
    contender: Contender, tasks: int, binary: str, *, patience: float | None = None
) -> Counted:
    """Two workers, and so many tasks that both are told."""
    with (
        _stage(contender, binary) as (stand_in, places, url),
        workers(2, _work_numbered, contender, places, url, 1, None, patience) as crew,
    ):
        outcomes = []
        for number in range(tasks):
            task = Task(f"{AT_ONCE} {number}")
            for worker in crew:
                worker.tell([task])
            replies = [reply for worker in crew for reply in worker.hear(REPLY_SECONDS)]
            outcomes.append(_judged(task, replies, stand_in))
        return Counted(outcomes)


def killed(
    contender: Contender,
    tasks: int,
    binary: str,
    *,
    claim_seconds: float | None = None,
    patience: float | None = None,
) -> Mapping[str, Counted]:
    """So many workers killed at each of the two moments.

    `claim_seconds` is in place of the half minute after which a worker is taken for dead,
    `patience` in place of the second that a call waits for what Redis says of its key.
    """
    rng = random.Random(SEED)
    told = {
        name: [Task(f"{name} {number}") for number in range(tasks)]
        for name in (KILLED_LATE, KILLED_EARLY)
    }
    with (
        _stage(contender, binary) as (stand_in, places, url),
        forked(
            _work, "receiver", contender, places, url, DELIVERIES, claim_seconds, patience
        ) as receiver,
    ):
        receiver.hear()
        for name, each in told.items():
            for task in each:
                victim = Worker(
                    _work, task.name, contender, places, url, 1, claim_seconds, patience
                )
                try:
                    victim.hear()
                    victim.tell([task])
                    if name == KILLED_LATE:
                        _accepted(task, stand_in)
                    else:
                        time.sleep(rng.uniform(0.0, EARLY))
                finally:
                    victim.kill()
        all_told = [task for each in told.values() for task in each]
        receiver.tell(all_told)
        replies = dict(zip(all_told, receiver.hear(REPLY_SECONDS), strict=True))
        return {
            name: Counted([_judged(task, [Reply(1), replies[task]], stand_in) for task in each])
            for name, each in told.items()
        }


def _judged(task: Task, replies: Sequence[Reply], stand_in: StandIn) -> Outcome:
    def holds(native_id: str | None) -> bool:
        return native_id is not None and asyncio.run(usable(native_id, task, stand_in))

    answered = any(holds(reply.answer) for reply in replies)
    return Outcome(
        calls=sum(reply.calls for reply in replies),
        jobs=len(of_task(task, stand_in.accepted)),
        answered=answered,
        resumed=not answered and any(holds(reply.resumed) for reply in replies),
        errors=tuple(name for reply in replies for name in reply.errors),
    )


def _accepted(task: Task, stand_in: StandIn) -> None:
    ends = time.monotonic() + ACCEPTED_SECONDS
    while not of_task(task, stand_in.accepted):
        if time.monotonic() > ends:
            raise TimeoutError(f"nothing was accepted for {task.name}")
        time.sleep(0.001)


@contextmanager
def _stage(contender: Contender, binary: str) -> Iterator[tuple[StandIn, Sequence[Place], str]]:
    """A provider with two accounts, and a Redis for those of ours."""
    accounts = ("east", "west")
    with (
        tempfile.TemporaryDirectory(prefix="paid-once-") as folder,
        StandIn(dict(zip(KEYS, accounts, strict=True)), latency=LATENCY) as stand_in,
        redis_server(binary, Path(folder)) as server,
    ):
        told = zip(accounts, KEYS, strict=True)
        places = [Place(account, stand_in.base_url, key) for account, key in told]
        yield stand_in, places, server.url if contender.ours else ""


# In a worker's process ---------------------------------------------------------------------------


def _work_numbered(wire: Wire, number: int, *told: object) -> None:
    _work(wire, f"worker {number}", *told)  # type: ignore[arg-type]  # as `workers` hands them on


def _work(
    wire: Wire,
    name: str,
    contender: Contender,
    places: Sequence[Place],
    redis_url: str,
    deliveries: int,
    claim_seconds: float | None,
    patience: float | None,
) -> None:
    if claim_seconds is not None:
        claiming.CLAIM_SECONDS = claim_seconds
    if patience is not None:
        claiming.PATIENCE = patience
    asyncio.run(_working(wire, name, contender, places, redis_url, deliveries))


async def _working(
    wire: Wire,
    name: str,
    contender: Contender,
    places: Sequence[Place],
    redis_url: str,
    deliveries: int,
) -> None:
    async with contender.begin(places, redis_url=redis_url) as requester:
        await requester.submit(Task(f"before {name}"))
        wire.say()
        while True:
            tasks = await asyncio.to_thread(wire.hear)
            wire.say(await asyncio.gather(*(_serve(requester, t, deliveries) for t in tasks)))


async def _serve(requester: Requester, task: Task, deliveries: int) -> Reply:
    """Call until there is an answer, so often at most; then go on from the last error."""
    errors = list[Exception]()
    for _ in range(deliveries):
        try:
            answer = await requester.submit(task)
        except Exception as exc:  # noqa: BLE001  (whatever a router raises is its answer)
            errors.append(exc)
        else:
            return Reply(len(errors) + 1, answer, None, _names(errors))
    return Reply(deliveries, None, await requester.resume(errors[-1]), _names(errors))


def _names(errors: Sequence[Exception]) -> tuple[str, ...]:
    return tuple(type(error).__name__ for error in errors)
