"""Callers that are refused for want of room, and come back when they are told to.

A fleet of routers at one store and one provider, in virtual time, under traffic that takes a good
part of what there is room for. Nobody keeps anything free for who was refused: who comes back
competes with all who come by.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx
from virtual_time import VirtualLoop

from router import CapacityError, Router
from router.state import MemoryStore
from router.testing import StandIn

__all__ = ["Scenario", "Tally", "played"]

STARTS = 1_800_000_000.0
TURN_SECONDS = 5.0
WEBHOOKS = 0.8
AT_ONCE = (1, 1, 1, 1, 1, 1, 1, 2, 4, 6)
USUALLY_AT_ONCE = sum(AT_ONCE) / len(AT_ONCE)
WORKERS = 3
RETURNS = 1
"""How often somebody who was refused comes back before giving up."""
WARM_UP = 4.0
"""Times of a job until the fleet is as busy as it will be, and knows how long its jobs take."""


@dataclass(frozen=True)
class Scenario:
    """A fleet, the usual seconds of a job and how far jobs lie apart, and how busy it is kept."""

    deployments: tuple[dict[str, Any], ...]
    accounts: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    room: float = 1.0
    """How many calls a second there is room for, if each came at the right moment."""
    job_seconds: float = 120.0
    spread: float = 0.3
    max_wait: float = 0.0


@dataclass
class Tally:
    """What came of the first calls, and of those that were refused and came back."""

    calls: int = 0
    served: int = 0
    returned: int = 0
    served_then: int = 0
    waits: list[float] = field(default_factory=list)
    most: int = 0

    @property
    def full(self) -> bool:
        """Whether as many have come back as are counted."""
        return self.returned >= self.most

    def __iadd__(self, other: Tally) -> Tally:
        self.calls += other.calls
        self.served += other.served
        self.returned += other.returned
        self.served_then += other.served_then
        self.waits += other.waits
        return self

    @property
    def room(self) -> float:
        """The share of the moments at which there was room, as those who came by found."""
        return self.served / max(self.calls, 1)

    @property
    def success(self) -> float:
        return self.served_then / max(self.returned, 1)

    def __str__(self) -> str:
        waited = sum(self.waits) / max(len(self.waits), 1)
        return (
            f"{self.served_then:,} of {self.returned:,} who came back were served "
            f"({self.success:.0%}), told to wait {waited:.1f} s on average; "
            f"of who came by, {self.room:.0%} found room"
        )


def played(scenario: Scenario, load: float, refusals: int, seed: int) -> Tally:
    """Play a scenario until so many have come back."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(_World(loop, scenario, load, seed).play(refusals))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


class _Clock:
    def __init__(self, loop: VirtualLoop) -> None:
        self.monotonic = loop.time

    def time(self) -> float:
        return STARTS + self.monotonic()

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing here blocks")

    async def asleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Wire(httpx.AsyncBaseTransport):
    """To the provider and back: a submit takes a second or so, a read less."""

    def __init__(self, provider: StandIn, rng: random.Random) -> None:
        self._provider, self._rng = provider, rng

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        usual = 1.0 if request.method == "POST" else 0.2
        there = self._rng.lognormvariate(math.log(usual), 0.4)
        await asyncio.sleep(0.5 * there)
        response = await self._provider.transport.handle_async_request(request)
        await asyncio.sleep(0.5 * there)
        return response


class _World:
    def __init__(self, loop: VirtualLoop, scenario: Scenario, load: float, seed: int) -> None:
        self._scenario = scenario
        self._rng = random.Random(f"{seed}/{load}")
        self._rate = load * scenario.room
        clock = _Clock(loop)
        accounts = {d["account"] for d in scenario.deployments}
        provider = StandIn(
            accounts={f"sk-{account}": account for account in accounts},
            job_seconds=self._lasts,
            clock=clock,
            seed=seed,
        )
        store = MemoryStore(clock.time)
        data = {
            "accounts": {
                a: {"api_key": f"sk-{a}", "base_url": "http://p/v1", **scenario.accounts.get(a, {})}
                for a in sorted(accounts)
            },
            "deployments": [{"model_name": "sora-2", **d} for d in scenario.deployments],
            "settings": {"max_wait": scenario.max_wait},
        }
        self._routers = [
            Router.from_dict(
                data,
                environ={},
                async_http_client=_Wire(provider, self._rng),
                clock=clock,
                rng=random.Random(f"{seed}/{number}"),
                store=store,
            )
            for number in range(WORKERS)
        ]
        self._tasks: set[asyncio.Task[Any]] = set()
        self._timers: dict[Router, asyncio.TimerHandle] = {}
        self._loop, self._now = loop, loop.time
        self._studio: Any = provider._provider.studio
        self.tally = Tally()

    def _lasts(self, operation: str, account: str) -> float:
        """Lognormal, with this mean and this standard deviation as a part of it."""
        usual, part = self._scenario.job_seconds, self._scenario.spread
        variance = math.log(1 + part * part)
        return self._rng.lognormvariate(math.log(usual) - variance / 2, math.sqrt(variance))

    async def play(self, refusals: int) -> Tally:
        for router in self._routers:
            self._keep(router)
        await self._traffic(until=WARM_UP * self._scenario.job_seconds)
        self.tally = Tally(most=refusals)
        while not self.tally.full:
            await self._traffic(until=self._now() + 60.0)
        for timer in self._timers.values():
            timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for router in self._routers:
            await router.aclose()
        return self.tally

    def _begin(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _keep(self, router: Router) -> None:
        """The turns of one worker, as its thread takes them: rung for, or each second."""
        sharing = router._learning.sharing
        assert sharing is not None
        rung = False

        def turn() -> None:
            nonlocal rung
            rung = False
            router.share()

        def ring() -> None:
            nonlocal rung
            if not rung:
                rung = True
                self._loop.call_later(self._rng.uniform(0.0005, 0.02), turn)

        def often() -> None:
            ring()
            self._timers[router] = self._loop.call_later(TURN_SECONDS, often)

        sharing.inline, sharing.ring = False, ring
        often()

    async def _traffic(self, until: float) -> None:
        """Calls come one by one, and now and then several at once."""
        while self._now() < until:
            many = self._rng.choice(AT_ONCE)
            await asyncio.sleep(self._rng.expovariate(self._rate / USUALLY_AT_ONCE))
            for _ in range(many):
                self._begin(self._caller(self.tally))

    async def _caller(self, tally: Tally) -> None:
        for back in range(1 + RETURNS):
            router = self._rng.choice(self._routers)
            try:
                video = await router.avideo_generation(prompt="a fox")
            except CapacityError as error:
                wait: float | None = error.retry_after
            else:
                wait = None
            if tally is self.tally and not tally.full:
                tally.returned += back > 0
                tally.served_then += back > 0 and wait is None
                tally.calls += back == 0
                tally.served += back == 0 and wait is None
            if wait is None:
                await self._follow(router, video)
                return
            tally.waits.append(wait)
            await asyncio.sleep(wait)

    async def _follow(self, router: Router, video: Any) -> None:
        """Most callers are told of the end by a webhook, the others look from time to time."""
        if self._rng.random() < WEBHOOKS:
            (copy,) = router.describe_id(video.id).copies
            job = self._studio.owner(copy.native_id).jobs[copy.native_id]
            await asyncio.sleep(job.completed_at - STARTS - self._now() + self._rng.uniform(0.1, 2))
            router.observe(video.id, {"status": "completed", **_told(job)})
            return
        while not video.done:
            await asyncio.sleep(self._rng.uniform(20.0, 40.0))
            with contextlib.suppress(CapacityError):
                video = await router.avideo_status(video.id)


def _told(job: Any) -> dict[str, Any]:
    made, ended = int(job.created_at), int(job.completed_at)
    return {"created_at": made, "completed_at": ended, "seconds": "4"}
