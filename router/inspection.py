"""Looking in: why a deployment would be picked, what is known of it, and whose an id is."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from router import operations
from router.balancing import draw
from router.engine import Engine
from router.errors import BadRequestError, InvalidIdError, NotFoundError, RouterError
from router.fleet import Member
from router.ids import Copy, Kind, checked_native, decode_litellm
from router.operations import Call
from router.ownership import Owned, owned_by, route_of
from router.reporting import id_of
from router.selection import explain
from router.trip import Side
from router.types import Operation, Video

__all__ = [
    "Explained",
    "Explanation",
    "IdDescription",
    "described",
    "explained",
    "known_of",
    "locate",
    "observe",
]

# What a call carries; none of it decides where the call goes.
_CARRIED = frozenset(
    {"prompt", "name", "seconds", "size", "replicate", "variant", "to", "limit", "after", "order"}
)


class Explained(NamedTuple):
    """One deployment's part in a pick. `facts` hold what was known of it."""

    deployment: str
    verdict: str
    reason: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Who would serve a call now, and why the others would not."""

    operation: str
    candidates: list[Explained]

    @property
    def picked(self) -> str | None:
        return next((c.deployment for c in self.candidates if c.verdict == "picked"), None)


@dataclass(frozen=True, slots=True)
class IdDescription:
    """What one of our ids says, and whether its accounts are configured here."""

    kind: str
    copies: tuple[Copy, ...]
    signed: bool
    known: bool


def explained(
    engine: Engine,
    operation: Operation | str,
    arguments: Mapping[str, Any],
    rng: random.Random,
) -> Explanation:
    """The verdict on each deployment for a call with these arguments."""
    named = {k: v for k, v in arguments.items() if k not in _CARRIED}
    source = named.pop("video", None)
    if isinstance(source, (Mapping, Video)):
        named["video_id"] = source
    call = operations.routing_only(operation, **named)
    fleet, now = engine.fleet, engine.now()
    route = route_of(call, fleet, owned_by(call, fleet))
    verdicts = explain(fleet.members.values(), route, fleet.strategy, draw, now=now, rng=rng)
    return Explanation(
        str(call.operation),
        [
            Explained(
                member.deployment.id,
                obstacle.verdict,
                obstacle.reason,
                {
                    "account": member.deployment.account,
                    "order": member.deployment.order,
                    "weight": member.deployment.weight,
                    "score": score,
                    **known_of(member, now),
                },
            )
            for member, obstacle, score in verdicts
        ],
    )


def known_of(member: Member, now: float) -> dict[str, Any]:
    """What is known of a deployment: load, latency in seconds by operation, ejections."""
    return {
        "in_flight": member.load.in_flight,
        "latency": {
            str(operation): {
                "mean": latency.mean,
                "deviation": latency.deviation,
                "count": latency.count,
            }
            for operation, latency in list(member.load.latency.items())
        },
        "ejections": [
            {"scope": str(e.scope), "seconds": e.until - now, "reason": e.reason}
            for e in member.health.standing(now)
        ],
    }


def described(engine: Engine, text: str) -> IdDescription:
    """What one of our ids says; raises `InvalidIdError` for any other."""
    for kind in (Kind.VIDEO, Kind.CHARACTER):
        if not str(text).startswith(kind.prefix):
            continue
        asset = engine.fleet.codec.decode(text, kind)
        if asset is not None:
            known = all(account in engine.fleet.accounts for account in asset.accounts)
            return IdDescription(str(kind), asset.copies, asset.signed, known)
    raise InvalidIdError("this id was not made by a router; `locate` finds the owner of such ids")


def observe(
    engine: Engine, side: Side, video_id: str, status: str | Video | Mapping[str, Any]
) -> None:
    """Take in a job's status, or the video, that somebody else saw."""
    said = {"status": status} if isinstance(status, str) else status
    if not isinstance(said, (Mapping, Video)) or not isinstance(dict(said).get("status"), str):
        raise BadRequestError("status is a word, a Video, or a mapping with a `status`")
    trip = engine.trip(operations.status(video_id), side)
    copy = Copy(*next((a, natives[0]) for a, natives in trip.owned.natives.items()))
    video = Video.tolerant({**dict(said), "id": copy.native_id})
    engine.learning.seen(trip.fleet, copy, id_of(trip, Kind.VIDEO, *copy), video)


async def locate(engine: Engine, side: Side, text: str) -> str:
    """Our id of a native (or LiteLLM) id: each account is asked for it by a free read.

    Raises `NotFoundError` where no account has it, or the error of an account that could not be
    asked, when the others have it not.
    """
    text = operations.id_in(text)
    for kind in (Kind.VIDEO, Kind.CHARACTER):
        if text.startswith(kind.prefix):
            engine.fleet.codec.decode(text, kind)
            return text
    foreign = decode_litellm(text)
    native = checked_native(foreign.native_id if foreign else text)
    kinds = (foreign.kind,) if foreign else _likely_kinds(native)
    asked = [
        _ask(engine, side, account, native, kind)
        for kind in kinds
        for account in engine.fleet.accounts
    ]
    results = await side.door.together(asked)
    found = [result for result in results if isinstance(result, str)]
    if found:
        return found[0]
    failed = [r for r in results if isinstance(r, RouterError) and not _says_no(r)]
    if failed:
        raise failed[0]
    raise NotFoundError(f"no account has {native!r}", operation="locate")


def _likely_kinds(native: str) -> tuple[Kind, ...]:
    if native.startswith("char"):
        return (Kind.CHARACTER,)
    if native.startswith("video"):
        return (Kind.VIDEO,)
    return (Kind.VIDEO, Kind.CHARACTER)


def _says_no(error: RouterError) -> bool:
    # An account whose providers have no such read has nothing of the kind either.
    return isinstance(error, (NotFoundError, NotImplementedError))


async def _ask(
    engine: Engine, side: Side, account: str, native: str, kind: Kind
) -> str | RouterError:
    character = kind is Kind.CHARACTER
    operation = Operation.GET_CHARACTER if character else Operation.STATUS
    call: Call[Any] = Call(operation=operation, ids=(native,), account=account)
    # The owner is a guess to be tried, so the id is not read as one that a caller vouches for.
    guess = Owned((account,), {account: (native,)})
    try:
        answer = await engine.run(call, side, owned=guess)
    except RouterError as error:
        return error
    return str(answer.id)
