"""One process: each task has a stand-in and a router of its own.

So nobody's breaker answers for another task, and every task meets the same fault. The router has
made a call that went well before, so a connection stands and there are other jobs about. Then the
fault is planned, and the task is delivered. Tasks run some at a time, on one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Sequence

import httpx

from benchmarks.paying.contenders import Contender, Place, Requester
from benchmarks.paying.scenarios import DELIVERIES, Scenario
from benchmarks.paying.tasks import Counted, Outcome, Task, of_task
from router.testing import StandIn

__all__ = ["KEYS", "deliver", "play", "usable"]

AT_ONCE = 6
KEYS = ("sk-east", "sk-west")


def play(scenario: Scenario, contender: Contender, tasks: int) -> Counted:
    """So many tasks of a scenario."""
    return Counted(asyncio.run(_played(scenario, contender, tasks)))


async def _played(scenario: Scenario, contender: Contender, tasks: int) -> Sequence[Outcome]:
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> Outcome:
        async with room:
            return await _task(scenario, contender, f"{scenario.name} {number}")

    return await asyncio.gather(*map(one, range(tasks)))


async def _task(scenario: Scenario, contender: Contender, name: str) -> Outcome:
    # An edit starts from a video, which both deployments have to know.
    accounts = ("east", "east") if scenario.operation == "edit" else ("east", "west")
    with (
        StandIn(dict(zip(KEYS, accounts, strict=True))) as stand_in,
        _nobody_listens() as nowhere,
    ):
        urls = (stand_in.base_url, nowhere if scenario.refused else stand_in.base_url)
        places = [Place(*told) for told in zip(accounts, urls, KEYS, strict=True)]
        async with contender.begin(places) as requester:
            # Who has met a closed port before knows of it.
            source = None if scenario.refused else await requester.submit(Task(f"before {name}"))
            if scenario.fault is not None:
                stand_in.fault(operation=scenario.operation, times=scenario.times, **scenario.fault)
            task = Task(name, source if scenario.operation == "edit" else None)
            return await deliver(requester, task, stand_in, scenario)


async def deliver(
    requester: Requester, task: Task, stand_in: StandIn, scenario: Scenario
) -> Outcome:
    """Make the calls of a task, one after the other, and look into the books after each."""
    most = calls = 0
    answered = resumed = False
    errors = list[Exception]()
    for _ in range(1 if scenario.delivered == "once" else DELIVERIES):
        before = len(of_task(task, stand_in.accepted))
        calls += 1
        try:
            answered |= await usable(await requester.submit(task), task, stand_in)
        except Exception as exc:  # noqa: BLE001  (whatever a router raises is its answer)
            errors.append(exc)
        most = max(most, len(of_task(task, stand_in.accepted)) - before)
        if answered and scenario.delivered != "always":
            break
    if not answered and errors:
        found = await requester.resume(errors[-1])
        resumed = found is not None and await usable(found, task, stand_in)
    names = tuple(type(error).__name__ for error in errors)
    jobs = len(of_task(task, stand_in.accepted))
    return Outcome(calls, jobs, answered, most, resumed, names)


async def usable(native_id: str, task: Task, stand_in: StandIn) -> bool:
    """Whether the books have this job for this task, and the provider tells its status."""
    if not any(one.native_id == native_id for one in of_task(task, stand_in.accepted)):
        return False
    async with httpx.AsyncClient(base_url=stand_in.base_url) as client:
        for key in KEYS:
            headers = {"authorization": f"Bearer {key}"}
            answer = await client.get(f"/videos/{native_id}", headers=headers)
            if answer.is_success and isinstance(answer.json().get("status"), str):
                return True
    return False


@contextlib.contextmanager
def _nobody_listens() -> Iterator[str]:
    """The URL of a port that is taken and refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
