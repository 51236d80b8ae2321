"""The store in this process: what Redis does for a fleet, for one worker or a few routers.

It is also what a worker falls back on while Redis is away, and the plainest description of what a
store has to do.
"""

from __future__ import annotations

import dataclasses
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from router.leases import WINDOW, Acquire, Command, Grant, Job, Need, Release, Seen, Settle
from router.observations import Batch, Change, CountKey, Ejection, EjectionKey, Sums, SumsKey
from router.state.sharing import News, Picture, Turn

__all__ = ["MemoryStore"]

KEEP_CHANGES = 200
KEEP_JOBS = 10_000
KEEP_ENDED = 10_000
WAITS_SECONDS = 3.0
"""Who has not asked again for so long waits no more."""
ALIVE_SECONDS = 10.0


class MemoryStore:
    """All in dictionaries, under one lock. Safe under threads. `now` is the store's own clock."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._generation = uuid.uuid4().hex
        self._version = 0
        self._changed: dict[tuple[str, object], int] = {}
        self._sequences: dict[str, int] = {}
        self._workers: dict[str, float] = {}
        self._sums: dict[SumsKey, Sums] = {}
        self._counts: dict[CountKey, int] = {}
        self._ejections: dict[EjectionKey, Ejection] = {}
        self._restored: dict[str, float] = {}
        self._changes: deque[Change] = deque(maxlen=KEEP_CHANGES)
        # By resource: its holders and when they lapse, or the times of its grants.
        self._held: dict[str, dict[str, float]] = {}
        self._queues: dict[str, dict[str, float]] = {}
        self._asked: dict[str, float] = {}
        self._asking: dict[str, float] = {}
        self._jobs: dict[str, Job] = {}
        self._ended: dict[str, str] = {}

    def turn(self, turn: Turn) -> News:
        with self._lock:
            now = self._now()
            self._workers[turn.worker] = now - 2 * ALIVE_SECONDS if turn.onlooker else now
            if turn.sequence > self._sequences.get(turn.worker, 0):
                self._sequences[turn.worker] = turn.sequence
                self._learn(turn.batch)
            for command in turn.commands:
                self._obey(command, now)
            grants = tuple(self._grant(acquire, now) for acquire in turn.acquires)
            since = turn.since if turn.generation == self._generation else 0
            return dataclasses.replace(self._since(min(since, self._version), now), grants=grants)

    def picture(self, resources: tuple[str, ...]) -> Picture:
        with self._lock:
            now = self._now()
            held = {resource: len(self._holders(resource, now)) for resource in resources}
            jobs = sorted(self._jobs.values(), key=lambda job: -job.accepted_at)
            holders = {
                resource: {h: until - now for h, until in self._holders(resource, now).items()}
                for resource in resources
                if Need(resource, 0).for_job
            }
            return Picture(now, self._alive(now), held, jobs, list(self._changes), holders)

    def taken(self, resources: Iterable[str]) -> dict[str, int]:
        """How many hold each of these."""
        with self._lock:
            now = self._now()
            return {resource: len(self._holders(resource, now)) for resource in resources}

    def held(self) -> list[Command]:
        """What is held, as orders that would bring another store to hold it too."""
        with self._lock:
            now = self._now()
            held = [
                (holder, resource, until - now, self._jobs.get(holder))
                for resource in list(self._held)
                if not Need(resource, 0).in_window
                for holder, until in self._holders(resource, now).items()
            ]
        return [Settle(holder, (), (resource,), left, job) for holder, resource, left, job in held]

    def close(self) -> None:
        """Nothing is open."""

    # What is learned ----------------------------------------------------------------------------

    def _learn(self, batch: Batch) -> None:
        for key, sums in batch.sums.items():
            self._sums[key] = self._sums.get(key, Sums()) + sums
            self._touch("sums", key)
        for count_key, count in batch.counts.items():
            self._counts[count_key] = self._counts.get(count_key, 0) + count
            self._touch("counts", count_key)
        for deployment, at in batch.restored.items():
            if at > self._restored.get(deployment, 0.0):
                self._restored[deployment] = at
                self._touch("restored", deployment)
        for ejection_key, ejection in batch.ejections.items():
            known = self._ejections.get(ejection_key)
            restored = self._restored.get(ejection_key[0], 0.0)
            if ejection.at < restored:
                continue  # void, whenever it comes
            if known is None or ejection.outlasts(known, restored):
                self._ejections[ejection_key] = ejection
                self._touch("ejections", ejection_key)
        self._changes.extendleft(batch.changes)

    def _touch(self, kind: str, key: object) -> None:
        self._version += 1
        # Moved to the end: the names stand in the order of their last change.
        self._changed.pop((kind, key), None)
        self._changed[kind, key] = self._version

    def _since(self, since: int, now: float) -> News:
        news = News(now, self._generation, self._version, workers=len(self._alive(now)))
        fresh = islice(reversed(self._changed.items()), self._version - since)
        for (kind, key), version in fresh:
            if version <= since:
                break
            getattr(news, kind)[key] = getattr(self, f"_{kind}")[key]
        return news

    def _alive(self, now: float) -> dict[str, float]:
        return {w: at for w, at in self._workers.items() if at > now - ALIVE_SECONDS}

    # Leases -------------------------------------------------------------------------------------

    def _holders(self, resource: str, now: float) -> dict[str, float]:
        holders = self._held.setdefault(resource, {})
        begins = now - WINDOW if Need(resource, 0).in_window else now
        for holder in [holder for holder, at in holders.items() if at <= begins]:
            del holders[holder]
        return holders

    def _queue(self, resource: str, now: float) -> dict[str, float]:
        queue = self._queues.setdefault(resource, {})
        for ticket in [t for t in queue if self._asked.get(t, 0.0) <= now - WAITS_SECONDS]:
            del queue[ticket]
        return queue

    def _grant(self, acquire: Acquire, now: float) -> Grant:
        full: list[tuple[str, float | None]] = []
        for index, choice in enumerate(acquire.choices):
            blocked = next(self._blocked(choice, acquire.ticket, now), None)
            if blocked is None:
                for need in choice:
                    until = now if need.in_window else now + acquire.lapse(need)
                    self._held[need.resource][acquire.token] = until
                self._leave(acquire)
                return Grant(index)
            full.append(blocked)
        self._enter(acquire, full, now)
        return self._refused(tuple(full), now)

    def _blocked(
        self, choice: tuple[Need, ...], ticket: str | None, now: float
    ) -> Iterator[tuple[str, float | None]]:
        """The needs that have no room, and in how many seconds they will, where that is known."""
        for need in choice:
            holders, queue = self._holders(need.resource, now), self._queue(need.resource, now)
            before = list(queue).index(ticket) if ticket in queue else len(queue)
            taken = len(holders) + before
            if taken < need.limit:
                continue
            opens = None
            if need.in_window and need.limit and holders:
                place = min(taken - need.limit, len(holders) - 1)
                opens = sorted(holders.values())[place] + WINDOW - now
            yield need.resource, opens

    def _enter(self, acquire: Acquire, full: list[tuple[str, float | None]], now: float) -> None:
        if acquire.ticket is not None:
            self._asked[acquire.ticket] = now
            for resource, _ in full:
                self._queues[resource].setdefault(acquire.ticket, now)

    def _leave(self, acquire: Acquire) -> None:
        if acquire.ticket is not None:
            self._asked.pop(acquire.ticket, None)
            for need in (need for choice in acquire.choices for need in choice):
                self._queues.get(need.resource, {}).pop(acquire.ticket, None)

    def _refused(self, full: tuple[tuple[str, float | None], ...], now: float) -> Grant:
        blocked = dict.fromkeys(r for r, _ in full if r.startswith("jobs:"))
        unseen: list[Job] = []
        holding: list[float] = []
        told: set[str] = set()
        for resource in blocked:
            holders = [h for h in self._held[resource] if h in self._jobs and h not in told]
            told.update(holders)
            jobs = [self._jobs[holder] for holder in holders]
            holding += [job.accepted_at for job in jobs]
            if self._asking.get(resource, 0.0) <= now:
                self._asking[resource] = now + 2.0
                unseen += sorted(jobs, key=lambda job: job.seen_at)[:3]
        return Grant(None, full, tuple(unseen), tuple(holding))

    def _obey(self, command: Command, now: float) -> None:
        if isinstance(command, Settle):
            self._settle(command, now)
        elif isinstance(command, Seen):
            self._seen(command, now)
        elif isinstance(command, Release):
            for resource in command.resources:
                self._held.get(resource, {}).pop(command.holder, None)

    def _settle(self, settle: Settle, now: float) -> None:
        job = settle.job
        ended = None if job is None else self._ended.get(job.holder)
        for resource in (*settle.release, *settle.hold):
            self._held.get(resource, {}).pop(settle.token, None)
        for resource in settle.hold if ended is None else ():
            holder = settle.token if job is None else job.holder
            self._held.setdefault(resource, {})[holder] = now + settle.seconds
        if job is not None:
            # What is known of it already was seen later than its acceptance.
            self._jobs.setdefault(
                job.holder, job if ended is None else dataclasses.replace(job, status=ended)
            )
            if len(self._jobs) > KEEP_JOBS:
                del self._jobs[next(iter(self._jobs))]

    def _seen(self, seen: Seen, now: float) -> None:
        for resource in seen.resources:
            holders = self._held.get(resource, {})
            if seen.ended:
                holders.pop(seen.holder, None)
            elif seen.holder in holders:
                holders[seen.holder] = now + seen.seconds
        if seen.ended:
            self._ended[seen.holder] = seen.status
            if len(self._ended) > KEEP_ENDED:
                del self._ended[next(iter(self._ended))]
        job = self._jobs.get(seen.holder)
        if job is not None:
            self._jobs[seen.holder] = dataclasses.replace(job, status=seen.status, seen_at=now)
