"""Room for a call: leases in the limits of a deployment and of its account.

    ranked candidates ──► the store: the first with room ──► sent ──► settled
                             │ none                                      │ refused: given back
                             ▼                                           │ accepted: the job's
             ask after the longest-unseen jobs, once; wait; CapacityError│ nobody knows: kept

The store decides over all workers. While it is out of reach each worker goes by what it holds
itself, and takes its share of a limit and no more; what it holds it registers again as soon as the
store is back, before it asks for more.

Money is spent when it is granted, and comes back only where surely nothing was accepted. While the
store is away a worker spends up to its share of a day's limit, less what it has spent on that day
before, and tells of it when the store is back. So the same workers spend in that time the limit at
most on top of what was spent before, and in a day less than twice the limit; one that starts anew
has a share anew. Each sum is told under a token of its own, so it counts once, and is lost only
where a worker dies or has more than `MOST_ORDERS` to tell.

What is reserved is a guess where a call names no length; when the job is accepted the day's sum
becomes what it costs, which may be more than was left.

A store that was emptied is told anew, by each worker that lives on, what that one spent on that
day: under the same tokens, so that what was spent before the worker noticed counts once. Of more
than `MOST_TOKENS` the older ones are told as one sum; an order about one of those that was still
under way may count besides, so that rather too much is counted. What the dead have spent is
forgotten; and who asks before the living have told finds their money unspent.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from router.errors import Accepted
from router.fleet import Member
from router.ids import Copy
from router.leases import (
    WINDOW,
    Acquire,
    Command,
    Grant,
    Job,
    Lease,
    Leave,
    Need,
    Settle,
    Spend,
)
from router.limits import Later, share
from router.state import MemoryStore, News, Picture, Sharing
from router.trip import Side
from router.types import Operation

__all__ = ["Asking", "Leasing", "job_of"]

PATIENCE = 0.09
"""Seconds that a call waits for the store's answer to the question for room: with what a machine
adds to any wait, 100 ms at most."""
ASKED_AFTER = 20
"""Jobs of this worker, in turn, of which one turn hears whether others have seen them end."""
MOST_TOLD = 1000
"""Callers told to come back whose return is reckoned with."""


@dataclass(slots=True)
class Asking:
    """One call's question for room, which may be put several times."""

    needs_of: Callable[[Member], tuple[Need, ...]]
    seconds: float
    waits: bool
    members: Sequence[Member] = ()
    # Those of the members that are served only as their trial.
    trials: Sequence[Member] = ()
    ticket: str = field(default_factory=lambda: uuid.uuid4().hex)
    # Whether a refusal is the end of it.
    last: bool = False
    # Where this call may have a place in the queue.
    queues: set[str] = field(default_factory=set)

    def acquire(self) -> Acquire:
        choices = tuple(self._needs(member) for member in self.members)
        token = uuid.uuid4().hex
        ticket = self.ticket if self.waits else None
        ttl = max((member.job_ttl for member in self.members), default=None)
        return Acquire(token, choices, self.seconds, ticket, ttl, self.last)

    def _needs(self, member: Member) -> tuple[Need, ...]:
        needs = self.needs_of(member)
        return (*needs, member.trial) if member in self.trials else needs


class Told:
    """Who was refused, and told when to come back: later ones come later. Safe under threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: list[tuple[float, frozenset[str]]] = []

    def add(self, later: Later, now: float) -> None:
        with self._lock:
            self._due = [told for told in self._due if told[0] > now][-MOST_TOLD:]
            self._due.append((now + later.seconds, frozenset(later.resources)))

    def count(self, resources: Collection[str], now: float, until: float) -> int:
        """How many come back by then for room in any of these."""
        due = self._due
        return sum(now < at <= until and not told.isdisjoint(resources) for at, told in due)


class Leasing:
    """Asks for room and gives it back. `sharing` is how the store is reached."""

    def __init__(self, sharing: Sharing | None, now: Callable[[], float]) -> None:
        self._sharing = sharing
        self._now = now
        # What this worker holds: all there is to know without a store, and what it goes by while
        # the store is away.
        self._own = MemoryStore(now)
        self.workers = 1
        # How many turns had gone well when the store was too slow for a call to wait for.
        self._slow_since: int | None = None
        self._begin()

    def _begin(self) -> None:
        self._told = Told()
        self._asked_after = 0
        if self._sharing is not None:
            self._sharing.register = self._own.held
            self._sharing.spent = self._own.spent
            self._sharing.running = self._running

    def after_fork(self) -> None:
        """In a child process: none of the parent's leases are its own."""
        self._own = MemoryStore(self._now)
        self._begin()

    def _running(self) -> tuple[str, ...]:
        """Some of the jobs that hold something by what this worker knows; others the next time."""
        running = self._own.running()
        begins = self._asked_after % len(running) if running else 0
        self._asked_after = begins + ASKED_AFTER
        return (running[begins:] + running[:begins])[:ASKED_AFTER]

    def absorb(self, news: News) -> None:
        """What the store tells: how many there are to share with, and whose jobs have ended.

        Otherwise a job that another worker saw end would count here until its `job_ttl`, once the
        store is away and this worker goes by what it knows.
        """
        self.workers = news.workers
        if news.ended:
            self._own.release(news.ended)

    @contextlib.contextmanager
    def waiting(self, asking: Asking) -> Iterator[Asking]:
        """While a call asks; whatever ends that, its places in the queues are given up."""
        try:
            yield asking
        finally:
            if asking.queues:
                self.order(Leave(asking.ticket, tuple(sorted(asking.queues))))

    def ahead(self, resources: Collection[str], until: float) -> float:
        """How many who were refused are to be back by then, for room in any of these.

        Each worker knows whom it told so itself, and takes the others to be as many.
        """
        return self._told.count(resources, self._now(), until) * max(self.workers, 1)

    def told(self, later: Later) -> None:
        """A caller was told when to come back. Who comes back for money takes nobody's slot."""
        if not any(Need(resource, 0).in_day for resource in later.resources):
            self._told.add(later, self._now())

    async def ask(self, side: Side, asking: Asking) -> tuple[Grant, Lease | None]:
        """Put the question once; a lease where there was room."""
        acquire = asked = asking.acquire()
        stood = set(asking.queues)
        if acquire.ticket is not None:
            asking.queues.update(n.resource for choice in acquire.choices for n in choice)
        acquire, grant = await self._granted(side, asked)
        if grant.index is None:
            return grant, None
        if acquire is asked and not stood:
            asking.queues.clear()  # served at once, so it stands in no queue
        member = asking.members[grant.index]
        needs = acquire.choices[grant.index]
        lease = Lease(acquire.token, needs, member.job_ttl)
        if self._sharing is not None:
            # The store has decided; here it is only taken down, as of now.
            taken = tuple(replace(need, limit=sys.maxsize) for need in needs)
            self._own.grant(replace(acquire, choices=(taken,), ticket=None))
        return grant, lease

    async def admit(self, side: Side, need: Need) -> float | None:
        """Take one of a window that is no deployment's; else in how many seconds there is one."""
        acquire, grant = await self._granted(side, Acquire(uuid.uuid4().hex, ((need,),), WINDOW))
        if grant.index is None:
            ((_, opens),) = grant.full
            return opens if opens is not None else WINDOW
        if self._sharing is not None:
            taken = replace(need, limit=sys.maxsize)
            self._own.grant(replace(acquire, choices=((taken,),)))
        return None

    async def _granted(self, side: Side, acquire: Acquire) -> tuple[Acquire, Grant]:
        """The store's answer, or this worker's own while there is none; and what it answers."""
        sharing = self._sharing
        if sharing is None:
            return acquire, self._own.grant(acquire)
        # Of the calls that meet a frozen store only the first ones wait.
        if sharing.away is None and sharing.turns != self._slow_since:
            future = sharing.ask(acquire)
            try:
                return acquire, await side.door.hear(future, PATIENCE)
            except BaseException as exc:
                # A question that cannot be taken back any more may be granted too late, or have
                # been granted though the answer was lost: what it brought is given back.
                future.cancel()
                future.add_done_callback(functools.partial(_give_back, sharing, acquire))
                if not isinstance(exc, Exception):
                    raise
                if isinstance(exc, TimeoutError):
                    self._slow_since = sharing.turns
        # Under another token, so that what is given back is not what is held from now on; and so
        # that it can be told from what the store granted.
        acquire = replace(acquire, token=uuid.uuid4().hex)
        own = tuple(
            tuple(share(need, self.workers) for need in choice) for choice in acquire.choices
        )
        grant = self._own.grant(replace(acquire, choices=own))
        if grant.index is not None:
            self._tell(sharing, acquire, acquire.choices[grant.index])
        return acquire, grant

    def _tell(self, sharing: Sharing, acquire: Acquire, needs: Sequence[Need]) -> None:
        """What was taken without the store counts there, too: where it is only slow, at once.

        Where it is away, what is held is registered when it is back, but what is spent is not held:
        it is told now, and heard then.
        """
        for need in needs:
            if need.in_day:
                sharing.order(Spend(acquire.token, need.resource, need.amount, self._now()))
            elif not need.in_window and sharing.away is None:
                held = Settle(acquire.token, (), (need.resource,), acquire.lapse(need))
                sharing.order(held)

    def settle(
        self,
        lease: Lease | None,
        accepted: Accepted,
        job: Job | None = None,
        job_ttl: float = 0.0,
    ) -> None:
        """The exchange has ended: its slots go back, or to the job, or stay where nobody knows."""
        if lease is None:
            if job is not None:
                self.order(Settle("", seconds=job_ttl, job=job))
            return
        if lease.settled:
            return
        lease.settled = True
        back, slots = lease.given_back, lease.held_by_jobs
        if accepted == "no":
            settle = Settle(lease.token, (*back, *slots, *lease.costs))
        else:
            settle = Settle(lease.token, back, slots, lease.job_ttl, job)
        self.order(settle)

    def costs(self, lease: Lease | None, budget: Need) -> None:
        """What a lease was for was accepted, or may have been, and costs so much in truth.

        The day's sum becomes that, whatever was reserved. What costs more than was reserved before
        midnight costs it today; what costs less leaves the new day alone.
        """
        reserved, token = 0, ""
        if lease is not None:
            needs = (need for need in lease.needs if need.resource == budget.resource)
            reserved, token = sum(need.amount for need in needs), lease.token
        if budget.amount != reserved:
            own = f"{token or uuid.uuid4().hex}:costs"
            more = budget.amount - reserved
            self.order(Spend(own, budget.resource, more, self._now(), token))

    def order(self, command: Command) -> None:
        """Carry a command out, here and in the store."""
        self._own.obey(command)
        if self._sharing is not None:
            self._sharing.order(command)

    def lacking(self, needs: Sequence[Need]) -> tuple[Need, int] | None:
        """The first of these that has no room, with what is taken of it; `None` where all have.

        By what this worker holds itself: without a store that is all there is, with one it may be
        less, and what others hold is only known to the store.
        """
        taken = self._own.taken(need.resource for need in needs)
        whole = self._sharing is None or self._sharing.away is None
        for need in needs:
            limit = need.limit if whole else share(need, self.workers).limit
            if taken[need.resource] + need.amount > limit:
                return need, taken[need.resource]
        return None

    def picture(self, resources: tuple[str, ...]) -> Picture:
        """What is held, and what was accepted: over all workers, where a store can be asked."""
        store = self._own if self._sharing is None else self._sharing.store
        return store.picture(resources)

    def made_for(self, tenant: str) -> dict[Copy, float]:
        """What was accepted for a tenant in the last day, and when (shared Unix seconds).

        Of the whole fleet where the store can be asked, else what this worker knows.
        """
        try:
            jobs = self.picture(()).jobs
        except OSError:
            jobs = self._own.picture(()).jobs
        own = (job for job in jobs if job.tenant == tenant)
        return {Copy(job.account, job.native_id): job.accepted_at for job in own}


def _give_back(sharing: Sharing, acquire: Acquire, future: Future[Grant]) -> None:
    if future.cancelled():
        return
    lost = future.exception() is not None
    index = None if lost else future.result().index
    granted = acquire.choices if lost else () if index is None else (acquire.choices[index],)
    back = {need.resource for choice in granted for need in choice if not need.in_window}
    if back:
        sharing.order(Settle(acquire.token, tuple(sorted(back))))


def job_of(
    copy: Copy,
    member: Member,
    operation: Operation,
    status: str,
    worker: str,
    now: float,
    length: float,
    tenant: str = "",
) -> Job:
    """The record of what was accepted; `length` is in seconds of video."""
    return Job(
        copy.account,
        copy.native_id,
        member.deployment.id,
        str(operation),
        worker,
        now,
        now,
        status,
        length,
        tenant=tenant,
    )
