"""Stores for routers under a fake clock: where some routers of one test meet."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeAlias

import fakeredis
from shared_parts import FakeClock, made_older

from router.state import STORES, MemoryStore, News, Picture, Store, Turn

__all__ = ["MEETINGS", "Meet", "in_fakeredis", "in_memory"]

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
