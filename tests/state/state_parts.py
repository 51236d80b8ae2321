"""What the tests of the stores share: stores to meet in, of all kinds, and short ways to use them.

A backend is one place where workers meet. `advance` lets time pass there: a fake clock does it by
itself; in a real server, whose clock is its own, everything that stands there becomes older.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from shared_parts import DAY, FakeClock, made_older

from router.claims import Claim, Claimed
from router.leases import Acquire, Command, Grant, Job, Need, Seen, Settle
from router.observations import Batch
from router.state import STORES, MemoryStore, News, Store, Turn

__all__ = ["InMemory", "InRedis", "Meeting", "Worker", "a_job", "choice", "seen"]

NAMESPACE = "tests"


class InMemory:
    """The store in this process, under a clock that passes by hand."""

    def __init__(self) -> None:
        self._clock = FakeClock()
        self._store = MemoryStore(self._clock.time)

    def store(self) -> Store:
        return self._store

    def now(self) -> float:
        return self._clock.time()

    def advance(self, seconds: float) -> None:
        self._clock.advance(seconds)

    def empty(self) -> None:
        self._store = MemoryStore(self._clock.time)


class InRedis:
    """A Redis, by way of `connect`; each worker has a client of its own."""

    def __init__(self, connect: Callable[[], Any]) -> None:
        self._connect = connect
        self.client = connect()
        self.client.flushall()
        self._stores: list[Store] = []

    def store(self) -> Store:
        store = STORES["redis"](self._connect(), NAMESPACE)
        self._stores.append(store)
        return store

    def now(self) -> float:
        seconds, micros = self.client.time()
        return float(seconds + micros / 1e6)

    def advance(self, seconds: float) -> None:
        made_older(self.client, seconds)

    def empty(self) -> None:
        self.client.flushall()

    def close(self) -> None:
        for store in self._stores:
            store.close()
        self.client.close()


Backend = InMemory | InRedis


class Worker:
    """One worker at a store: it numbers its turns and remembers what it has heard."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name
        self.sequence, self.since, self.generation = 0, 0, ""

    def turn(
        self,
        batch: Batch | None = None,
        *commands: Command,
        asks: Sequence[Acquire] = (),
        claims: Sequence[Claim] = (),
        sequence: int | None = None,
    ) -> News:
        if sequence is None:
            self.sequence += 1
        news = self.store.turn(
            Turn(
                self.name,
                self.sequence if sequence is None else sequence,
                batch or Batch(),
                self.since,
                self.generation,
                commands,
                tuple(asks),
                claims=tuple(claims),
            )
        )
        self.since, self.generation = news.up_to, news.generation
        return news

    def hear(self) -> News:
        """All that there is to hear, in as many turns as it takes."""
        whole = self.turn()
        news = whole
        while news.more:
            news = self.turn()
            for kind in ("sums", "counts", "ejections", "restored"):
                getattr(whole, kind).update(getattr(news, kind))
        return whole

    def ask(
        self,
        *choices: Sequence[Need],
        seconds: float = 30.0,
        ticket: str | None = None,
        token: str | None = None,
    ) -> tuple[str, Grant]:
        token = token or f"token-{next(_numbers)}"
        acquire = Acquire(token, tuple(tuple(c) for c in choices), seconds, ticket)
        (grant,) = self.turn(asks=[acquire]).grants
        return token, grant

    def gets(self, *choices: Sequence[Need], **how: Any) -> bool:
        return self.ask(*choices, **how)[1].index is not None

    def claim(self, key: str, token: str, seconds: float = 30.0, fingerprint: str = "f") -> Claimed:
        (claimed,) = self.turn(claims=[Claim(key, token, fingerprint, seconds)]).claimed
        return claimed

    def order(self, *commands: Command) -> None:
        self.turn(None, *commands)


_numbers = itertools.count()


class Meeting:
    """Workers at one backend."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def worker(self, name: str | None = None) -> Worker:
        return Worker(self.backend.store(), name or f"worker-{next(_numbers)}")

    def workers(self, count: int) -> list[Worker]:
        return [self.worker() for _ in range(count)]

    def now(self) -> float:
        return self.backend.now()

    def advance(self, seconds: float) -> None:
        self.backend.advance(seconds)

    def clear_of_midnight(self) -> None:
        """Where the clock is a server's: no day ends in the next seconds."""
        left = DAY - self.now() % DAY
        if left < 5:
            time.sleep(left)

    def held(self, *resources: str) -> list[int]:
        held = self.backend.store().picture(resources).held
        return [held[resource] for resource in resources]


def choice(*named: str, limit: int = 1) -> tuple[Need, ...]:
    """Room in each of these, `limit` everywhere or as `resource=limit` says."""
    found = []
    for one in named:
        resource, _, own = one.partition("=")
        found.append(Need(resource, int(own) if own else limit))
    return tuple(found)


def a_job(native_id: str = "video_1", at: float = 1_800_000_000.25, **facts: str) -> Job:
    job = Job("acme", native_id, "east", "generation", "worker", at, at, "queued")
    return dataclasses.replace(job, **facts)


def seen(
    job: Job, resources: Iterable[str], status: str = "in_progress", seconds: float = 30.0
) -> Seen:
    ended = status in ("completed", "failed", "gone")
    return Seen(job.holder, tuple(resources), status, ended, job.seen_at, seconds)


def taken_over(token: str, job: Job, *resources: str, seconds: float = 30.0) -> Settle:
    """The settlement of a submit that was accepted: its slots are the job's."""
    return Settle(token, (), resources, seconds, job)
