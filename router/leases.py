"""What is asked of the limits, as values: a slot, how it ended, a job that holds one.

A limit is a resource with a number: so many jobs running, so many requests in flight, so many
requests in any 60 seconds, of a deployment or of its account. A call needs room in several at once.
It takes a lease in all of them or in none, under a token; what holds the slot of a job is the job
itself, once the provider has accepted it, so that whoever sees the job end can give it back.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from router.claims import Conclude, Renew

__all__ = [
    "WINDOW",
    "Acquire",
    "Command",
    "Grant",
    "Job",
    "Lease",
    "Leave",
    "Need",
    "Release",
    "Seen",
    "Settle",
    "Spend",
    "holder_of",
]

WINDOW = 60.0
"""Seconds that requests per minute are counted over."""
QUEUED = "queued"
WAITS_SECONDS = 2.0
"""Every job is accepted as queued; one that still is after so long does wait."""


@dataclass(frozen=True, slots=True)
class Need:
    """Room that is needed: `limit` at a time, in the last `WINDOW` seconds, or in a UTC day.

    `resource` is `<kind>:<owner>:<name>`, as in `jobs:account:acme`; the kinds are `jobs`,
    `requests` (in flight), `rpm`, `read_rpm` and `cost`. Of a cost, `limit` and the `amount` that
    this call will cost are micro-dollars: whole numbers, so that sums are exact in any order. Of
    all else a call takes one.
    """

    resource: str
    limit: int
    amount: int = 1

    @property
    def in_day(self) -> bool:
        """Whether it is money: spent at once, given back only where surely nothing was accepted."""
        return self.resource.startswith("cost:")

    @property
    def in_window(self) -> bool:
        return self.resource.startswith(("rpm:", "read_rpm:"))

    @property
    def for_job(self) -> bool:
        return self.resource.startswith("jobs:")


@dataclass(frozen=True, slots=True)
class Acquire:
    """Ask for a lease under `token`, in the first of the ranked `choices` that has all the room.

    It lapses after `seconds`, unless it is settled before; a job's slot after `job_seconds`, since
    a job may run though its worker died before it said so. `ticket` is who waits: those who came
    first are served first, and asking again under the same ticket keeps one's place.

    `last` says that who is refused now is told to come back. Where windows stand in the way, the
    next one who is refused hears of the opening after that one. Nothing is kept free for anybody.
    """

    token: str
    choices: tuple[tuple[Need, ...], ...]
    seconds: float
    ticket: str | None = None
    job_seconds: float | None = None
    last: bool = False

    def lapse(self, need: Need) -> float:
        """Seconds after which what was granted of a need lapses."""
        return self.job_seconds or self.seconds if need.for_job else self.seconds


@dataclass(frozen=True, slots=True)
class Job:
    """A job or an asset that was accepted, and last seen how. No prompt, no key.

    Times are shared Unix seconds; `length` is in seconds of video, 0 where nobody knows, and
    `waited` how many seconds after its acceptance it was last seen to be queued. `tenant` is the
    name of the one for whom it was made, empty for none.
    """

    account: str
    native_id: str
    deployment: str
    operation: str
    worker: str
    accepted_at: float
    seen_at: float
    status: str
    length: float = 0.0
    waited: float = 0.0
    tenant: str = ""

    @property
    def holder(self) -> str:
        return holder_of(self.account, self.native_id)

    @property
    def is_queued(self) -> bool:
        """Whether it was last seen to wait, well after it was accepted as `queued`."""
        return self.status == QUEUED and self.waited > 0.0

    def sighted(self, status: str, at: float) -> Job:
        """The job, seen again."""
        age = at - self.accepted_at
        waits = status == QUEUED and age > WAITS_SECONDS
        return replace(self, status=status, seen_at=at, waited=age if waits else self.waited)


@functools.lru_cache(1 << 14)  # a job is looked at many times
def holder_of(account: str, native_id: str) -> str:
    """The name under which a job holds its slots: the same for every worker that sees it."""
    return "j" + hashlib.blake2b(f"{account}\0{native_id}".encode(), digest_size=12).hexdigest()


@dataclass(frozen=True, slots=True)
class Grant:
    """What came of an `Acquire`: the index of the choice that was granted, or `None`.

    `full` says of each choice which resource had no room, and for how many seconds at least the
    choice will have none, where that is known. `unseen` are jobs that hold what was asked for and
    that nobody has seen for longest: this worker is the one that is to ask after them.
    """

    index: int | None
    full: tuple[tuple[str, float | None], ...] = ()
    unseen: tuple[Job, ...] = ()
    holding: tuple[float, ...] = ()
    """When the jobs that hold a full resource were accepted."""

    def blocked_by(self, place: int, need: Need) -> bool:
        """Whether this need is what the choice at this place had no room in.

        Where a later choice was granted nothing is told of those before it; they had none.
        """
        return not self.full or self.full[place][0] == need.resource


@dataclass(slots=True)
class Lease:
    """Room that a call has, under a token; it is settled once."""

    token: str
    needs: tuple[Need, ...]
    job_ttl: float
    settled: bool = False

    @property
    def given_back(self) -> tuple[str, ...]:
        return tuple(n.resource for n in self.needs if not (n.in_window or n.for_job or n.in_day))

    @property
    def held_by_jobs(self) -> tuple[str, ...]:
        return tuple(n.resource for n in self.needs if n.for_job)

    @property
    def costs(self) -> tuple[str, ...]:
        """Where money was spent on it; it stays spent, unless surely nothing was accepted."""
        return tuple(n.resource for n in self.needs if n.in_day)


@dataclass(frozen=True, slots=True)
class Settle:
    """The exchange under a lease has ended.

    What is in `release` is given back. What is in `hold` stays taken for `seconds`, under the job's
    name if there is one, and under the token where nobody can say whether a job runs. Money in
    `release` is given back once, unless the day on which it was spent is over; in neither it stays
    spent.
    """

    token: str
    release: tuple[str, ...] = ()
    hold: tuple[str, ...] = ()
    seconds: float = 0.0
    job: Job | None = None

    @property
    def gives_back(self) -> bool:
        # Acceptance is told at once too: its swap is not to lose against a sight of the job.
        return bool(self.release or self.hold)


@dataclass(frozen=True, slots=True)
class Spend:
    """Money that was spent under a token without asking the store, `at` a shared time.

    It counts once, however often it is told, and not at all if it was given back before, or if the
    day on which it was spent is over.

    An `amount` below 0 is what was reserved too much under another token, `of`. It counts only
    where so much stands under that one: no sum falls below what others have spent.
    """

    token: str
    resource: str
    amount: int
    at: float
    of: str = ""

    @property
    def gives_back(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Seen:
    """A job was seen: it goes on, and holds its slots for `seconds` more, or it has ended."""

    holder: str
    resources: tuple[str, ...]
    status: str
    ended: bool
    at: float
    seconds: float

    @property
    def gives_back(self) -> bool:
        return self.ended and bool(self.resources)


@dataclass(frozen=True, slots=True)
class Release:
    """An operator gives back what a job, or a token, holds anywhere in an account."""

    holder: str
    resources: tuple[str, ...] = field(default=())

    @property
    def gives_back(self) -> bool:
        return bool(self.resources)


@dataclass(frozen=True, slots=True)
class Leave:
    """Who waited under a ticket waits no more: the places in these queues are given up.

    Who dies without saying so is missed after some seconds; but until then the place would stand
    in the way of all who came later.
    """

    ticket: str
    resources: tuple[str, ...]

    @property
    def gives_back(self) -> bool:
        return bool(self.resources)


Command: TypeAlias = Settle | Spend | Seen | Release | Leave | Renew | Conclude
