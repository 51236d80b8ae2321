"""The store in this process: what Redis does for a fleet, for one worker or a few routers.

It is also what a worker falls back on while Redis is away, and the plainest description of what a
store has to do.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
import threading
import uuid
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping
from itertools import islice
from typing import TypeAlias

from router.characters import CHARACTER_SECONDS, MOST_CHARACTERS, CharacterFacts
from router.claims import Conclude, Renew
from router.ids import Copy
from router.leases import (
    WINDOW,
    Acquire,
    Command,
    Grant,
    Job,
    Leave,
    Need,
    Release,
    Seen,
    Settle,
    Spend,
)
from router.observations import (
    READS,
    SUBMITS,
    Batch,
    Change,
    CountKey,
    Ejection,
    EjectionKey,
    Scope,
    Sums,
    SumsKey,
    day_of,
    kept_for,
)
from router.state.budgets import Budgets, until_midnight
from router.state.records import Records
from router.state.sharing import MOST_RUNNING, News, Picture, Running, Turn, is_telling

__all__ = ["MemoryStore"]

KEEP_CHANGES = 200
KEEP_JOBS = 10_000
KEEP_ENDED = 10_000
WAITS_SECONDS = 3.0
"""Who has not asked again for so long waits no more."""
ALIVE_SECONDS = 10.0
DAY = 86_400.0
HISTORY_SECONDS = 7 * DAY
EJECTION_MARGIN = 60.0
TOMBSTONE_SECONDS = 600.0
QUEUE_SECONDS = 60.0

Name: TypeAlias = tuple[str, Hashable]
"""What is kept, by its kind and its key."""


class _Terms:
    """Until when each name is kept. A name stands in the heap once, however often it is renewed."""

    def __init__(self) -> None:
        self._ends: dict[Name, float] = {}
        self._heap: list[tuple[float, int, Name]] = []
        self._order = itertools.count()

    def keep(self, name: Name, until: float) -> None:
        """Keep a name until then; of two terms the later one holds."""
        known = self._ends.get(name)
        if known is None:
            heapq.heappush(self._heap, (until, next(self._order), name))
        self._ends[name] = until if known is None else max(known, until)

    def over(self, now: float) -> list[Name]:
        """The names whose term is over; they are told once."""
        found = list[Name]()
        while self._heap and self._heap[0][0] <= now:
            *_, name = heapq.heappop(self._heap)
            if self._ends[name] > now:  # renewed meanwhile
                heapq.heappush(self._heap, (self._ends[name], next(self._order), name))
            else:
                del self._ends[name]
                found.append(name)
        return found


class MemoryStore:
    """All in dictionaries, under one lock. Safe under threads. `now` is the store's own clock."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._generation = uuid.uuid4().hex
        self._version = 0
        self._changed: dict[Name, int] = {}
        self._sequences: dict[str, int] = {}
        self._workers: dict[str, float] = {}
        self._sums: dict[SumsKey, Sums] = {}
        self._counts: dict[CountKey, int] = {}
        self._ejections: dict[EjectionKey, Ejection] = {}
        self._restored: dict[str, float] = {}
        self._returned: dict[tuple[str, Scope], float] = {}
        # In the order in which they were told of.
        self._characters: dict[Copy, CharacterFacts] = {}
        # By deployment: what runs there, in the order of acceptance.
        self._running: dict[str, dict[str, Job]] = {}
        self._lapses: dict[str, float] = {}
        self._changes: deque[Change] = deque(maxlen=KEEP_CHANGES)
        # By resource: its holders and when they lapse, or the times of its grants.
        self._held: dict[str, dict[str, float]] = {}
        # By resource: who waits, in the order of first asking, and when they asked last.
        self._queues: dict[str, dict[str, float]] = {}
        # By resource: when those who were refused were told to come back.
        self._told: dict[str, list[float]] = {}
        self._asking: dict[str, float] = {}
        self._jobs: dict[str, Job] = {}
        self._ended: dict[str, str] = {}
        self._terms = _Terms()
        self._lapsing = _Terms()
        self._budgets = Budgets()
        self._records = Records()

    def turn(self, turn: Turn) -> News:
        with self._lock:
            now = self._now()
            self._forget(now)
            self._workers[turn.worker] = now - 2 * ALIVE_SECONDS if turn.onlooker else now
            self._terms.keep(("workers", turn.worker), now + DAY)
            if turn.sequence > self._sequences.get(turn.worker, 0):
                self._sequences[turn.worker] = turn.sequence
                self._learn(turn.batch, now)
            for command in turn.commands:
                self._obey(command, now)
            self._drop_unseen(now)
            grants = tuple(self._grant(acquire, now) for acquire in turn.acquires)
            claimed = tuple(self._records.claim(claim, now) for claim in turn.claims)
            since = turn.since if turn.generation == self._generation else 0
            news = self._since(since if since <= self._version else 0, now)
            ended = tuple(holder for holder in turn.running if holder in self._ended)
            return dataclasses.replace(news, grants=grants, ended=ended, claimed=claimed)

    def obey(self, command: Command) -> None:
        """Carry one command out, for a worker who shares with nobody and wants no news."""
        with self._lock:
            now = self._now()
            self._forget(now)
            self._obey(command, now)
            self._drop_unseen(now)

    def grant(self, acquire: Acquire) -> Grant:
        """Answer one question for room, likewise."""
        with self._lock:
            now = self._now()
            self._forget(now)
            self._drop_unseen(now)
            return self._grant(acquire, now)

    def picture(self, resources: tuple[str, ...]) -> Picture:
        with self._lock:
            now = self._now()
            self._forget(now)
            held = {resource: self._taken(resource, now) for resource in resources}
            jobs = sorted(self._jobs.values(), key=lambda job: -job.accepted_at)
            holders = {
                resource: {h: until - now for h, until in self._holders(resource, now).items()}
                for resource in resources
                if Need(resource, 0).for_job
            }
            return Picture(now, self._alive(now), held, jobs, list(self._changes), holders)

    def taken(self, resources: Iterable[str]) -> dict[str, int]:
        """How many hold each of these; of money, how much was spent today."""
        with self._lock:
            now = self._now()
            return {resource: self._taken(resource, now) for resource in resources}

    def _taken(self, resource: str, now: float) -> int:
        if Need(resource, 0).in_day:
            return self._budgets.spent(resource, now)
        return len(self._holders(resource, now))

    def held(self) -> list[Command]:
        """What is held, as orders that would bring another store to hold it too.

        Money is not among it: what is spent is told once, when it is, and anew as `spent` says.
        """
        with self._lock:
            now = self._now()
            held = [
                (holder, resource, until - now, self._jobs.get(holder))
                for resource in list(self._held)
                if not Need(resource, 0).in_window
                for holder, until in self._holders(resource, now).items()
            ]
        return [Settle(holder, (), (resource,), left, job) for holder, resource, left, job in held]

    def spent(self, token: str) -> list[Command]:
        """What was spent today, as orders for a store that has forgotten it.

        Each sum is under the token that it had, so that what was not forgotten counts once. Under
        `token` is the sum of those that are not remembered one by one.
        """
        with self._lock:
            return list(self._budgets.orders(token, self._now()))

    def running(self) -> tuple[str, ...]:
        """The jobs that hold something."""
        with self._lock:
            by_jobs = [by for resource, by in self._held.items() if Need(resource, 0).for_job]
            holders = dict.fromkeys(holder for by in by_jobs for holder in by)
            return tuple(holder for holder in holders if holder in self._jobs)

    def release(self, holders: Iterable[str]) -> None:
        """Give back what these hold, wherever."""
        with self._lock:
            for holder in holders:
                for held in self._held.values():
                    held.pop(holder, None)

    def close(self) -> None:
        """Nothing is open."""

    # What is forgotten --------------------------------------------------------------------------

    def _forget(self, now: float) -> None:
        """Let go of what nobody needs any more, as Redis lets it expire."""
        for kind, key in self._terms.over(now):
            getattr(self, f"_{kind}").pop(key, None)
            if kind == "workers":
                self._sequences.pop(str(key), None)
            self._changed.pop((kind, key), None)
        self._records.forget(now)
        while self._changes and self._changes[-1].at <= now - HISTORY_SECONDS:
            self._changes.pop()

    # What is learned ----------------------------------------------------------------------------

    def _learn(self, batch: Batch, now: float) -> None:
        for key, sums in batch.sums.items():
            self._sums[key] = self._sums.get(key, Sums()) + sums
            self._touch("sums", key, now + kept_for(key[0]))
        for count_key, count in batch.counts.items():
            self._counts[count_key] = self._counts.get(count_key, 0) + count
            self._touch("counts", count_key, now + kept_for(count_key[0]))
        for deployment, at in batch.restored.items():
            if at > self._restored.get(deployment, 0.0):
                self._restored[deployment] = at
                self._touch("restored", deployment, now + DAY)
        for returned_key, at in batch.returned.items():
            if at > self._returned.get(returned_key, 0.0):
                self._returned[returned_key] = at
                self._touch("returned", returned_key, now + DAY)
        for ejection_key, ejection in batch.ejections.items():
            known = self._ejections.get(ejection_key)
            void_before = self._void_before(ejection_key[0], ejection)
            if ejection.at < void_before:
                continue  # void, whenever it comes
            if known is None or ejection.outlasts(known, void_before):
                self._ejections[ejection_key] = ejection
                ends = max(ejection.until, now) + EJECTION_MARGIN
                self._touch("ejections", ejection_key, ends)
        for copy, facts in batch.characters.items():
            self._characters.pop(copy, None)
            self._characters[copy] = facts
            self._touch("characters", copy, now + CHARACTER_SECONDS)
            if len(self._characters) > MOST_CHARACTERS:
                oldest = next(iter(self._characters))
                del self._characters[oldest], self._changed["characters", oldest]
        self._changes.extendleft(batch.changes)

    def _void_before(self, name: str, ejection: Ejection) -> float:
        returned = {side: self._returned.get((name, side), 0.0) for side in (SUBMITS, READS)}
        return ejection.void_before(self._restored.get(name, 0.0), returned)

    def _touch(self, kind: str, key: Hashable, until: float) -> None:
        self._terms.keep((kind, key), until)
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
            known = getattr(self, f"_{kind}")[key]
            getattr(news, kind)[key] = _told(known) if kind == "running" else known
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
        for ticket in [t for t, asked in queue.items() if asked <= now - WAITS_SECONDS]:
            del queue[ticket]
        return queue

    def _grant(self, acquire: Acquire, now: float) -> Grant:
        full: list[tuple[str, float | None]] = []
        windows: list[str | None] = []
        for index, choice in enumerate(acquire.choices):
            blocked, by = self._blocked(choice, acquire.ticket, now)
            if blocked is None:
                for need in choice:
                    if need.in_day:
                        self._budgets.spend(need.resource, acquire.token, need.amount, now)
                        continue
                    until = now if need.in_window else now + acquire.lapse(need)
                    self._hold(need.resource, acquire.token, until, now)
                self._leave(acquire.ticket, _resources(acquire))
                return Grant(index)
            full.append(blocked)
            windows.append(by)
        self._enter(acquire, full, now)
        if acquire.last:
            self._tell(full, windows, now)
        return self._refused(tuple(full), now)

    def _hold(self, resource: str, holder: str, until: float, now: float) -> None:
        self._held.setdefault(resource, {})[holder] = until
        self._terms.keep(("held", resource), max(now + DAY, until))

    def _blocked(
        self, choice: tuple[Need, ...], ticket: str | None, now: float
    ) -> tuple[tuple[str, float | None] | None, str | None]:
        """The first need that has no room, the seconds in which the choice surely has none, and by
        which window. Money goes before all else: no job's end brings any, only midnight does."""
        first: str | None = None
        broke: str | None = None
        at_least: float | None = None
        by: str | None = None
        for need in choice:
            if need.in_day:
                if self._budgets.spent(need.resource, now) + need.amount > need.limit:
                    broke = broke or need.resource
                    if until_midnight(now) > (at_least or 0.0):
                        at_least, by = until_midnight(now), None
                continue
            holders, queue = self._holders(need.resource, now), self._queue(need.resource, now)
            before = list(queue).index(ticket) if ticket in queue else len(queue)
            taken = len(holders) + before
            if taken < need.limit:
                continue
            first = first or need.resource
            if need.in_window and need.limit > 0 and holders:
                place = taken - need.limit + self._about_to_come(need.resource, now)
                opens = _opens(sorted(holders.values()), need.limit, place) - now
                if opens > (at_least or 0.0):
                    at_least, by = opens, need.resource
        first = broke or first
        return (None if first is None else (first, at_least)), by

    def _about_to_come(self, resource: str, now: float) -> int:
        """How many were told to come back when a window opens for them, and have not come yet."""
        told = self._told.get(resource)
        if told is None:
            return 0
        told[:] = [at for at in told if at > now]
        return len(told)

    def _tell(
        self, full: list[tuple[str, float | None]], windows: list[str | None], now: float
    ) -> None:
        """Who is refused where a window opens at a known time comes back then, at the first there
        is; the next one hears of the time after it."""
        opens = [
            (at or 0.0, first) for (first, at), by in zip(full, windows, strict=True) if by == first
        ]
        if opens:
            at, resource = min(opens)
            self._told.setdefault(resource, []).append(now + at)
            self._terms.keep(("told", resource), now + 10 * WINDOW)

    def _enter(self, acquire: Acquire, full: list[tuple[str, float | None]], now: float) -> None:
        if acquire.ticket is None:
            return
        waits = set[str]()
        for choice, (resource, _) in zip(acquire.choices, full, strict=True):
            # Who lacks money waits nowhere: a place would stand in the way of those who have it.
            if not Need(resource, 0).in_day:
                self._queues[resource].setdefault(acquire.ticket, now)
                waits.update(need.resource for need in choice)
        # A place is kept while its holder asks, also where something else stands in the way.
        for resource in _resources(acquire):
            queue = self._queues.get(resource, {})
            if resource not in waits:
                queue.pop(acquire.ticket, None)
            elif acquire.ticket in queue:
                queue[acquire.ticket] = now
                self._terms.keep(("queues", resource), now + QUEUE_SECONDS)

    def _leave(self, ticket: str | None, resources: Iterable[str]) -> None:
        if ticket is not None:
            for resource in resources:
                self._queues.get(resource, {}).pop(ticket, None)

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
                self._terms.keep(("asking", resource), now + 2.0)
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
            if command.holder in self._jobs:
                self._run_no_more(self._jobs[command.holder], now)
        elif isinstance(command, Leave):
            self._leave(command.ticket, command.resources)
        elif isinstance(command, Spend):
            if day_of(command.at) >= day_of(now):
                amount, of = command.amount, command.of
                self._budgets.spend(command.resource, command.token, amount, now, of)
        elif isinstance(command, Renew):
            self._records.renew(command, now)
        elif isinstance(command, Conclude):
            self._records.conclude(command, now)

    def _settle(self, settle: Settle, now: float) -> None:
        job = settle.job
        ended = None if job is None else self._ended.get(job.holder)
        for resource in (*settle.release, *settle.hold):
            self._held.get(resource, {}).pop(settle.token, None)
        for resource in settle.release:
            if Need(resource, 0).in_day:
                self._budgets.refund(resource, settle.token, now)
        for resource in settle.hold if ended is None else ():
            holder = settle.token if job is None else job.holder
            self._hold(resource, holder, now + settle.seconds, now)
        if job is not None:
            # What is known of it already was seen later than its acceptance.
            if job.holder not in self._jobs:
                known = job if ended is None else dataclasses.replace(job, status=ended)
                self._jobs[job.holder] = known
                self._terms.keep(("jobs", job.holder), now + DAY)
            if len(self._jobs) > KEEP_JOBS:
                del self._jobs[next(iter(self._jobs))]
            if ended is None:
                self._run(self._jobs[job.holder], now + settle.seconds, now)

    def _seen(self, seen: Seen, now: float) -> None:
        for resource in seen.resources:
            holders = self._held.get(resource, {})
            if seen.ended:
                holders.pop(seen.holder, None)
            elif seen.holder in holders:
                self._hold(resource, seen.holder, now + seen.seconds, now)
        if seen.ended:
            self._ended[seen.holder] = seen.status
            lasts = max(TOMBSTONE_SECONDS, seen.seconds)
            self._terms.keep(("ended", seen.holder), now + lasts)
            if len(self._ended) > KEEP_ENDED:
                del self._ended[next(iter(self._ended))]
        job = self._jobs.get(seen.holder)
        if job is None:
            return
        self._terms.keep(("jobs", seen.holder), now + DAY)
        fresh = self._jobs[seen.holder] = job.sighted(seen.status, now)
        if seen.ended:
            self._run_no_more(fresh, now)
        elif seen.holder in self._running.get(job.deployment, {}):
            self._lapse(seen.holder, now + seen.seconds)
            self._running[job.deployment][seen.holder] = fresh
            if is_telling(job, fresh):
                self._touch("running", job.deployment, now + DAY)

    # What runs ----------------------------------------------------------------------------------

    def _run(self, job: Job, lapses: float, now: float) -> None:
        self._running.setdefault(job.deployment, {}).setdefault(job.holder, job)
        self._lapse(job.holder, lapses)
        self._touch("running", job.deployment, now + DAY)

    def _run_no_more(self, job: Job, now: float) -> None:
        self._lapses.pop(job.holder, None)
        if self._running.get(job.deployment, {}).pop(job.holder, None) is not None:
            self._touch("running", job.deployment, now + DAY)

    def _lapse(self, holder: str, at: float) -> None:
        self._lapses[holder] = at
        self._lapsing.keep(("lapses", holder), at)

    def _drop_unseen(self, now: float) -> None:
        """What nobody has seen for long is not counted on any more."""
        for _, key in self._lapsing.over(now):
            holder = str(key)
            if self._lapses.get(holder, math.inf) > now:  # it ended, or was seen meanwhile
                continue
            job = self._jobs.get(holder)
            if job is not None:
                self._run_no_more(job, now)
            self._lapses.pop(holder, None)


def _told(running: Mapping[str, Job]) -> Running:
    return Running(tuple(islice(running.values(), MOST_RUNNING)), len(running))


def _resources(acquire: Acquire) -> list[str]:
    return [need.resource for choice in acquire.choices for need in choice]


def _opens(granted: list[float], limit: int, place: int) -> float:
    """When a window has room: as many grants have left it as stand in the way.

    Or, beyond those that stand there now, as those that are about to come have filled it anew.
    """
    if place < len(granted):
        return granted[place] + WINDOW
    rounds, place = divmod(place - len(granted), limit)
    place = min(max(len(granted) - limit, 0) + place, len(granted) - 1)
    return granted[place] + WINDOW * (2 + rounds)
