"""Stores for routers under a fake clock: where some routers of one test meet."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any, TypeAlias

import fakeredis
from shared_parts import FakeClock, in_process, made_older

from router import Router
from router.state import STORES, MemoryStore, News, Picture, Store, Turn
from router.testing import StandIn

__all__ = ["MEETINGS", "Dated", "Fleet", "Meet", "in_fakeredis", "in_memory"]

Meet: TypeAlias = Callable[[FakeClock], Store]


class Dated:
    """A store in a Redis of its own time, which follows a fake clock.

    Before each turn, all that stands there becomes as much older as the clock has moved on; and
    what is told of the time is the clock's.
    """

    def __init__(self, client: Any, clock: FakeClock) -> None:
        self.client = client
        self._store = STORES["redis"](client, "tests")
        self._clock = clock
        self._passed = clock.passed

    def turn(self, turn: Turn) -> News:
        self._catch_up()
        return dataclasses.replace(self._store.turn(turn), now=self._clock.time())

    def picture(self, resources: tuple[str, ...]) -> Picture:
        self._catch_up()
        return dataclasses.replace(self._store.picture(resources), now=self._clock.time())

    def close(self) -> None:
        self._store.close()

    def _catch_up(self) -> None:
        passed, self._passed = self._clock.passed - self._passed, self._clock.passed
        if passed > 0:
            made_older(self.client, passed)


def in_memory(clock: FakeClock) -> Store:
    return MemoryStore(clock.time)


def in_fakeredis(clock: FakeClock) -> Store:
    return Dated(fakeredis.FakeRedis(), clock)


MEETINGS: dict[str, Meet] = {"memory": in_memory, "redis": in_fakeredis}


class Fleet:
    """Two workers that meet in a store, or one that is alone: then it is the other, too."""

    def __init__(self, kind: str, provider: StandIn, clock: FakeClock) -> None:
        self.provider, self.clock = provider, clock
        self.store: Store | None = None if kind == "alone" else MEETINGS[kind](clock)
        self.routers: list[Router] = []

    def __call__(
        self,
        *deployments: dict[str, Any],
        accounts: dict[str, Any] | None = None,
        **settings: Any,
    ) -> tuple[Router, Router]:
        data = {"deployments": deployments, "accounts": accounts or {}, "settings": settings}
        for seed in range(2 if self.store else 1):
            self.routers.append(
                in_process(
                    self.provider,
                    data,
                    clock=self.clock,
                    rng=random.Random(seed),
                    **({"store": self.store} if self.store else {}),
                )
            )
        self.meet()
        return self.routers[0], self.routers[-1]

    def meet(self) -> None:
        for _ in range(2):
            for router in self.routers:
                router.share()

    def held(self, *resources: str) -> list[int]:
        self.meet()
        picture = self.routers[0]._engine.leasing.picture(resources)
        return [picture.held[resource] for resource in resources]
