"""A submit under an idempotency key: one job, however often and from wherever it is asked for.

                ┌── another sends: wait, ask again ──┐
                ▼                                    │
    digest ──► claim ──┬─────────────────────────────┘
                       ├── ours ──► send ──┬── accepted ──► the record bears our id
                       │                   ├── surely refused ──► the key is free again
                       │                   └── nobody knows, or cancelled on the wire ──► unknown
                       ├── accepted ──► how the job is now
                       ├── unknown ──► AmbiguousSubmitError, never a second send
                       └── of other parameters ──► ConflictError

Whoever claims a key may send, so the claim and the note that it is being sent are one write. It is
renewed for as long as this worker lives; where it is not any more, the worker died with the call on
the wire, or before, and nobody can tell which.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias, TypeVar, cast

from router import operations
from router.claims import ACCEPTED, UNKNOWN, Record, digest_of
from router.engine import Engine
from router.errors import (
    Accepted,
    AmbiguousSubmitError,
    BadRequestError,
    ConflictError,
    DeadlineExceededError,
    RouterError,
    UnsupportedOperationError,
)
from router.operations import Call, Upload, opened
from router.reporting import traits_of
from router.trip import Side
from router.types import Answer, Character, Operation, Routing

__all__ = ["once"]

AnswerT = TypeVar("AnswerT", bound=Answer)
Send: TypeAlias = Callable[[Engine, Call[AnswerT], Side, Upload | None], Awaitable[AnswerT]]

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 1.0
_CHUNK = 1 << 20
# What says how a call is served, and not what it asks for.
_SERVING = frozenset(
    {
        "idempotency_key",
        "max_cost",
        "timeout",
        "deadline",
        "retries",
        "max_wait",
        "fallbacks",
        "metadata",
        "extra_headers",
        "to",
    }
)


async def once(engine: Engine, call: Call[AnswerT], side: Side, send: Send[AnswerT]) -> AnswerT:
    """Send a submit, unless its key has been used: then the answer is how that job is now.

    Raises `ConflictError` (status `None`) where the key was used with other parameters,
    `AmbiguousSubmitError` where nobody can say whether the call that used it started a job, and
    `StateUnavailableError`, before anything is sent, where the shared state is configured and out
    of reach.
    """
    claim = call.claim_key
    if claim is None:
        return await send(engine, call, side, None)
    engine.on_call()
    ends = engine.clock.monotonic() + engine.patience(call)
    met = False

    def left() -> float:
        seconds = ends - engine.clock.monotonic()
        if seconds <= 0:
            raise _too_late(engine, call, "maybe" if met else "no")
        return seconds

    async with opened(call.upload, side.door, left) as upload:
        written = await side.door.offload(_fingerprint, call, upload, left)
        claiming, pause = engine.claiming, FIRST_PAUSE
        while True:
            seconds = left()
            claimed = await claiming.ask(side, digest_of(claim), written, seconds)
            if claimed.mine:
                with claiming.holding(claimed.record, digest_of(claim), seconds) as held:
                    bounded = dataclasses.replace(call, deadline=left())
                    answer = await send(engine, bounded, side, upload)
                    if not held.told:
                        claiming.accepted(held, str(answer.id))  # type: ignore[attr-defined]  # all
                return answer
            record = claimed.record
            if record.fingerprint != written:
                raise _conflict(call)
            if record.state == ACCEPTED:
                return await _as_it_is(engine, call, side, record, left())
            if record.state == UNKNOWN:
                raise _nobody_knows(engine, call, record)
            met = True
            await side.door.sleep(min(pause, left()))
            pause = min(2 * pause, LONGEST_PAUSE)


async def _as_it_is(
    engine: Engine, call: Call[AnswerT], side: Side, record: Record, seconds: float
) -> AnswerT:
    """The job, or the character, that the key stands for."""
    options: Any = {
        "timeout": call.timeout,
        "retries": call.retries,
        "deadline": seconds,
        "max_wait": call.max_wait,
        "extra_headers": call.extra_headers,
        "metadata": call.metadata,
        "tenant": call.tenant,
    }
    look = (
        operations.get_character
        if call.operation is Operation.CREATE_CHARACTER
        else operations.status
    )
    try:
        found = await engine.run(look(record.id, **options), side)
    except RouterError as error:
        if isinstance(error, UnsupportedOperationError) and look is operations.get_character:
            # Not everybody who makes characters tells of them afterwards.
            return cast("AnswerT", _character(call, record))
        # Whatever keeps us from seeing it: it was accepted, and is not to be asked for again.
        error.accepted, error.video_id = "yes", record.id
        error.idempotency_key = call.idempotency_key
        raise
    return cast("AnswerT", found)


def _character(call: Call[Any], record: Record) -> Character:
    routing = Routing(record.deployment, record.account, metadata=call.metadata)
    return Character(id=record.id, name=call.name).with_routing(routing)


def _fingerprint(call: Call[Any], upload: Upload | None, left: Callable[[], float]) -> str:
    """A digest of what a call asks for; two calls of one key have to agree in it."""
    asked = {
        field.name: getattr(call, field.name)
        for field in dataclasses.fields(call)
        if field.name not in _SERVING and field.name != "upload"
    }
    digest = hashlib.blake2b(digest_size=16)
    try:
        digest.update(json.dumps(_plain(asked), sort_keys=True).encode())
    except (ValueError, RecursionError) as exc:
        raise BadRequestError(f"the call cannot be written as a request: {exc}") from exc
    if upload is not None:
        offset = 0
        while chunk := upload.source.read_at(offset, _CHUNK):
            digest.update(chunk)
            offset += len(chunk)
            left()
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """A value as JSON has it; what JSON has not, no request can be made of anyway."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value if isinstance(value, (str, int, float, bool)) or value is None else repr(value)


# Errors ------------------------------------------------------------------------------------------


def _facts(call: Call[Any]) -> dict[str, Any]:
    return {
        "operation": str(call.operation),
        "metadata": call.metadata,
        "idempotency_key": call.idempotency_key,
    }


def _conflict(call: Call[Any]) -> RouterError:
    return ConflictError(
        "the idempotency key was used for a call with other parameters: take another key for "
        "another video",
        accepted="no",
        **_facts(call),
    )


def _nobody_knows(engine: Engine, call: Call[Any], record: Record) -> RouterError:
    member = engine.fleet.members.get(record.deployment)
    where = f" to {record.deployment}" if record.deployment else ""
    helps = (
        "look in the account; where the character is not, take another key"
        if call.operation is Operation.CREATE_CHARACTER
        else "a job may be running; router.resume(error) looks for it"
    )
    return AmbiguousSubmitError(
        f"a call under this idempotency key was on its way{where} when it was last heard of: "
        f"{helps}",
        sent_at=record.at,
        deployment=record.deployment or None,
        account=record.account or None,
        traits=traits_of(call if member is None else member.sent(call)),
        **_facts(call),
    )


def _too_late(engine: Engine, call: Call[Any], accepted: Accepted) -> RouterError:
    why = "; another call under this idempotency key is under way" if accepted == "maybe" else ""
    return DeadlineExceededError(
        f"the deadline of {engine.patience(call):g} s passed{why}",
        accepted=accepted,
        **_facts(call),
    )
