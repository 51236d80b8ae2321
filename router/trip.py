"""One call under way: the side it came in by, what it is bound to, what has happened to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from router._doors import Door
from router.claims import Record
from router.clips import Clip
from router.errors import RouterError
from router.fleet import Fleet, Member
from router.ids import IdCodec
from router.leases import Lease, Need
from router.observations import Cause
from router.operations import Call, Demand, Upload
from router.ownership import Owned
from router.selection import Route, Tier
from router.transport import Sink, Transport
from router.types import AttemptRecord, Operation

__all__ = ["Held", "Side", "Trip"]


@dataclass(frozen=True, slots=True)
class Side:
    """The side a call came in by: its door and its transport."""

    door: Door
    transport: Transport


@dataclass(slots=True, eq=False)
class Held:
    """An idempotency key under which this worker sends.

    `out` counts the exchanges that were begun and that nobody has surely refused; a character's
    copies are several at once. Written under the lock of `Claiming`.
    """

    key: str
    record: Record
    seconds: float
    out: int = 0
    made: str = ""
    told: bool = False

    def accepted(self, made: str) -> None:
        """The provider took the call, and this is the id of what it made."""
        self.made = made


@dataclass(slots=True, eq=False, kw_only=True)
class Trip:
    """One call under way: what it is bound to, and what has happened to it so far."""

    call: Call[Any]
    side: Side
    fleet: Fleet
    route: Route
    demand: Demand
    tiers: Sequence[Tier[Member]]
    owned: Owned
    started: float
    deadline: float
    upload: Upload | None = None
    sink: Sink | None = None
    # What speaks against it, once somebody looked, and what its upload is.
    advice: tuple[str, ...] | None = None
    clip: Clip | None = None
    tried: list[Member] = field(default_factory=list)
    attempts: list[AttemptRecord] = field(default_factory=list)
    failed: RouterError | None = None
    lease: Lease | None = None
    # The idempotency key under which it is sent.
    held: Held | None = None
    may_have_arrived: bool = False
    # It goes to who is out by these, since nobody else is left: it is not to be sent once more.
    ignoring: tuple[Cause, ...] = ()
    # Seconds that it waited since it came, or since its last pick.
    waited: float = 0.0

    @property
    def operation(self) -> Operation:
        return self.call.operation

    @property
    def codec(self) -> IdCodec:
        """How the ids of this call are written and read."""
        return self.fleet.codec_of(self.call.tenant)

    def cost(self, member: Member) -> float | None:
        """Dollars that this call is going to cost there; `None` where no price is known."""
        demand = self._demand_at(member)
        return member.deployment.cost(demand.size, demand.seconds)

    def needs_of(self, member: Member) -> tuple[Need, ...]:
        """What this call needs room in, there."""
        return member.needs_of(self._demand_at(member))

    def _demand_at(self, member: Member) -> Demand:
        """What is asked for there, where it may be less than the call asks for."""
        sent = member.sent(self.call)
        return self.demand if sent is self.call else Demand.of(sent)

    def facts(self, member: Member | None = None) -> dict[str, Any]:
        """What every error of this call carries."""
        return {
            "deployment": member.deployment.id if member else None,
            "account": member.deployment.account if member else None,
            "operation": str(self.operation),
            "attempts": tuple(self.attempts),
            "metadata": self.call.metadata,
            "idempotency_key": self.call.idempotency_key,
        }
