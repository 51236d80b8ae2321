"""For those who send the call with a client of their own: the choice, and what it led to.

    with router.pick("generation", model="sora-2") as attempt:
        job = OpenAI(base_url=attempt.base_url, api_key=attempt.api_key).videos.create(…)
        video_id = attempt.accepted(job.id)

What happened is reported to the attempt, so that the next pick knows it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from router._doors import step
from router.engine import Engine
from router.errors import BadRequestError, RouterError
from router.fleet import Member
from router.ids import Copy, Kind, checked_native
from router.messages import ErrorBody, Reply
from router.operations import Call
from router.outcomes import Fault
from router.reporting import id_of
from router.trip import Side, Trip
from router.types import Operation

__all__ = ["Attempt", "Picking"]


class Attempt:
    """A deployment chosen for one exchange that the caller makes.

    `base_url`, `api_key`, `headers` (with the key in them), `model` and `native_ids` (of what the
    call names, in the caller's order) are what a client needs; `dropped` are the arguments of the
    call that the deployment cannot take, and that its `drop_params` leaves out.
    """

    def __init__(self, engine: Engine, trip: Trip, member: Member) -> None:
        deployment = member.deployment
        self._engine, self._trip, self._member = engine, trip, member
        self._started = engine.clock.monotonic()
        self.reported = False
        self.deployment = deployment.id
        self.account = deployment.account
        self.provider = deployment.provider
        self.base_url = deployment.base_url
        self.api_key = deployment.api_key.get_secret_value() if deployment.api_key else None
        self.headers = dict(member.headers)
        self.model = deployment.model
        self.native_ids = trip.owned.natives_in(deployment.account)
        self.dropped = tuple(lack.parameter for lack in member.dropped(trip.call))

    def __repr__(self) -> str:
        return f"<Attempt {self._trip.operation} at {self.deployment}>"

    @property
    def native_id(self) -> str | None:
        return self.native_ids[0] if self.native_ids else None

    def accepted(self, native_id: str) -> str:
        """The provider took the call and answered with this id; returns ours."""
        operation = self._trip.operation
        character = operation in (Operation.CREATE_CHARACTER, Operation.GET_CHARACTER)
        copy = Copy(self.account, checked_native(native_id))
        self._check_unreported()
        if operation.starts_job:
            self._engine.accepted(self._trip, self._member, copy)
        self._report(Reply(200, {}), failed=False)
        kind = Kind.CHARACTER if character else Kind.VIDEO
        return id_of(self._trip, kind, *copy)

    def failed(
        self,
        status: int | None,
        headers: Mapping[str, str] | None = None,
        body: bytes | str | Mapping[str, Any] | None = None,
    ) -> RouterError:
        """The exchange failed with this status, or with none: no answer came.

        Records what that taught, and returns the error that the router would have raised.
        """
        if status is None:
            return self._report(None, failed=True)
        if not isinstance(status, int):
            raise BadRequestError("status is a number, or None where no answer came")
        raw = body if isinstance(body, bytes) else _bytes(body)
        lower = {name.lower(): value for name, value in (headers or {}).items()}
        return self._report(Reply(status, lower, raw), failed=True)

    def leave(self, exc: BaseException | None) -> None:
        """The caller's block ended. A submit that nothing was said of may have been sent."""
        if self.reported:
            return
        submit = self._trip.operation.is_submit
        if submit and exc is None:
            self._report(None, failed=True)
        elif submit:
            # Whether it was sent, nobody can say; what ended the block may be the caller's own.
            self._engine.left_by_caller(self._trip, self._member, self._seconds(), reached=True)
        elif exc is None:
            self._report(Reply(200, {}), failed=False)
        # What a read held, and what was reported as a success without an id.
        self._engine.leasing.settle(self._trip.lease, "no")

    def _seconds(self) -> float:
        return self._engine.clock.monotonic() - self._started

    def _check_unreported(self) -> None:
        if self.reported:
            raise RuntimeError("what became of this attempt has been reported")

    def _report(self, reply: Reply | None, *, failed: bool) -> RouterError:
        self._check_unreported()
        self.reported = True
        body = ErrorBody()
        if reply is not None and reply.status >= 300:
            said = self._member.provider.error(reply)
            body = said.without(self._member.deployment.redact)
        fault = None if reply is not None else Fault.BROKEN
        return self._engine.reported(
            self._trip, self._member, reply, body, fault, self._seconds(), failed=failed
        )


def _bytes(body: object) -> bytes:
    if body is None:
        return b""
    text = body if isinstance(body, str) else json.dumps(body, default=repr)
    return text.encode("utf-8", "replace")


class Picking:
    """The context manager that `pick` and `apick` return."""

    def __init__(self, engine: Engine, call: Call[Any], side: Side) -> None:
        self._engine, self._call, self._side = engine, call, side
        self._leaving = ExitStack()
        self._attempt: Attempt | None = None

    async def _enter(self) -> Attempt:
        trip = self._engine.trip(self._call, self._side)
        member = await self._engine.choosing.pick(trip)
        self._leaving.enter_context(self._engine.learning.in_flight(member, trip.operation))
        attempt = Attempt(self._engine, trip, member)
        self._attempt = attempt
        return attempt

    def _leave(self, exc: BaseException | None) -> None:
        with self._leaving:
            if self._attempt is not None:
                self._attempt.leave(exc)

    def __enter__(self) -> Attempt:
        return step(self._enter())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave(exc)

    async def __aenter__(self) -> Attempt:
        return await self._enter()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave(exc)
