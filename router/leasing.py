"""Room for a call: leases in the limits of a deployment and of its account.

    ranked candidates ──► the store: the first with room ──► sent ──► settled
                             │ none                                      │ refused: given back
                             ▼                                           │ accepted: the job's
             ask after the longest-unseen jobs, once; wait; CapacityError│ nobody knows: kept

The store decides over all workers. While it is out of reach each worker goes by what it holds
itself, and takes its share of a limit and no more; what it holds it registers again as soon as the
store is back, before it asks for more.
"""

from __future__ import annotations

import functools
import sys
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from router.errors import Accepted
from router.fleet import Member
from router.ids import Copy
from router.leases import Acquire, Command, Grant, Job, Lease, Need, Settle
from router.limits import share
from router.observations import Batch
from router.state import MemoryStore, Picture, Sharing, Turn
from router.trip import Side
from router.types import Operation

__all__ = ["Asking", "Leasing", "job_of"]

PATIENCE = 0.1
"""Seconds that a call waits for the store's answer to the question for room."""


@dataclass(slots=True)
class Asking:
    """One call's question for room, which may be put several times."""

    operation: Operation
    seconds: float
    waits: bool
    members: Sequence[Member] = ()
    ticket: str = field(default_factory=lambda: uuid.uuid4().hex)

    def acquire(self) -> Acquire:
        choices = tuple(member.needs[self.operation] for member in self.members)
        token = uuid.uuid4().hex
        ticket = self.ticket if self.waits else None
        ttl = max((member.job_ttl for member in self.members), default=None)
        return Acquire(token, choices, self.seconds, ticket, ttl)


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
        if sharing is not None:
            sharing.register = self._own.held

    def after_fork(self) -> None:
        """In a child process: none of the parent's leases are its own."""
        self._own = MemoryStore(self._now)
        if self._sharing is not None:
            self._sharing.register = self._own.held

    async def ask(self, side: Side, asking: Asking) -> tuple[Grant, Lease | None]:
        """Put the question once; a lease where there was room."""
        acquire = asking.acquire()
        acquire, grant = await self._granted(side, acquire)
        if grant.index is None:
            return grant, None
        member = asking.members[grant.index]
        needs = acquire.choices[grant.index]
        lease = Lease(acquire.token, needs, member.job_ttl)
        if self._sharing is not None:
            # The store has decided; here it is only taken down, as of now.
            taken = tuple(Need(need.resource, sys.maxsize) for need in needs)
            self._turn(acquires=(replace(acquire, choices=(taken,), ticket=None),))
        return grant, lease

    async def _granted(self, side: Side, acquire: Acquire) -> tuple[Acquire, Grant]:
        """The store's answer, or this worker's own while there is none; and what it answers."""
        sharing = self._sharing
        if sharing is None:
            return acquire, self._turn(acquires=(acquire,))[0]
        # Of the calls that meet a frozen store only the first ones wait.
        if sharing.away is None and sharing.turns != self._slow_since:
            future = sharing.ask(acquire)
            try:
                return acquire, await side.door.hear(future, PATIENCE)
            except BaseException as exc:
                # A grant that comes too late, or whose answer was lost, is given back.
                future.add_done_callback(functools.partial(_give_back, sharing, acquire))
                if not isinstance(exc, Exception):
                    raise
                if isinstance(exc, TimeoutError):
                    self._slow_since = sharing.turns
            # Under another token, so that what is given back is not what is held from now on.
            acquire = replace(acquire, token=uuid.uuid4().hex)
        own = tuple(
            tuple(share(need, self.workers) for need in choice) for choice in acquire.choices
        )
        grant = self._turn(acquires=(replace(acquire, choices=own, ticket=None),))[0]
        return acquire, grant

    def settle(self, lease: Lease | None, accepted: Accepted, job: Job | None = None) -> None:
        """The exchange has ended: its slots go back, or to the job, or stay where nobody knows."""
        if lease is None:
            if job is not None:
                self.order(Settle("", job=job))
            return
        if lease.settled:
            return
        lease.settled = True
        back, slots = lease.given_back, lease.held_by_jobs
        if accepted == "no":
            settle = Settle(lease.token, (*back, *slots))
        else:
            settle = Settle(lease.token, back, slots, lease.job_ttl, job)
        self.order(settle)

    def order(self, command: Command) -> None:
        """Carry a command out, here and in the store."""
        self._note(command)
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
            if taken[need.resource] >= limit:
                return need, taken[need.resource]
        return None

    def picture(self, resources: tuple[str, ...]) -> Picture:
        """What is held, and what was accepted: over all workers, where a store can be asked."""
        store = self._own if self._sharing is None else self._sharing.store
        return store.picture(resources)

    def _note(self, command: Command) -> None:
        self._turn(commands=(command,))

    def _turn(
        self, commands: tuple[Command, ...] = (), acquires: tuple[Acquire, ...] = ()
    ) -> tuple[Grant, ...]:
        turn = Turn("", 0, Batch(), commands=commands, acquires=acquires)
        return self._own.turn(turn).grants


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
    copy: Copy, member: Member, operation: Operation, status: str, worker: str, now: float
) -> Job:
    """The record of what was accepted."""
    return Job(
        copy.account,
        copy.native_id,
        member.deployment.id,
        str(operation),
        worker,
        now,
        now,
        status,
    )
