"""What can go wrong on purpose.

A fault is planned with `StandIn.fault(kind, ...)` and waits for its request. Each request takes the
oldest fault that matches it; each accepted job takes the oldest *job* fault that matches it, so a
job may be doomed and its answer lost as well. `KINDS` is the list of all kinds; the fields of each
class are the details it takes.

`after` tells which side of the work a fault strikes on. False: the request is not worked on and
nothing is accepted. True: all is done, a job is accepted and will be billed, and only then the
answer comes to harm. That second half is what a router must never retry blindly.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

from router.testing.delivery import Delivery
from router.testing.messages import Answer

__all__ = ["KINDS", "Fault", "FaultPlan", "JobFails", "NeverEnds"]


class Effect(Protocol):
    """What a fault does to the delivery of one answer."""

    @property
    def after(self) -> bool: ...

    def spoil(self, delivery: Delivery) -> Delivery: ...


def _encoded(body: object, content_type: str) -> tuple[bytes, str]:
    if isinstance(body, str | bytes):
        return body.encode() if isinstance(body, str) else body, content_type
    return json.dumps(body).encode(), "application/json"


@dataclass(frozen=True)
class Status:
    """An error (or any other) status; `body` is JSON, or text, or by default an OpenAI error."""

    status: int = 500
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)
    after: bool = False

    def spoil(self, delivery: Delivery) -> Delivery:
        body = self.body
        if body is None:
            message = f"The stand-in was told to answer {self.status}."
            error = {"message": message, "type": "server_error", "param": None, "code": None}
            body = {"error": error}
        content, content_type = _encoded(body, "text/plain")
        headers = {**delivery.answer.headers, **self.headers}
        return replace(delivery, answer=Answer(self.status, content, content_type, headers))


@dataclass(frozen=True)
class Delay:
    """The work is done at once; the answer comes `seconds` later."""

    seconds: float = 1.0
    after: bool = True

    def spoil(self, delivery: Delivery) -> Delivery:
        return replace(delivery, pause=delivery.pause + self.seconds)


@dataclass(frozen=True)
class Reset:
    """The connection is reset: before the body is read, or in place of the answer.

    Before: in-process the body is never touched; on a socket a client may have handed it over by
    then or still be writing, and sees a read error or a server that disconnected, as in real life.
    """

    after: bool = False

    def spoil(self, delivery: Delivery) -> Delivery:
        return replace(delivery, lost=True)


@dataclass(frozen=True)
class ResetMidBody:
    """The connection is reset when half of the answer's body is out."""

    after: bool = True

    def spoil(self, delivery: Delivery) -> Delivery:
        return replace(delivery, ending="reset")


@dataclass(frozen=True)
class Garbage:
    """200 with something that is not JSON, as a captive portal or a broken gateway sends it."""

    body: object = "<html><body>Welcome to nginx!</body></html>"
    content_type: str = "text/html"
    after: bool = True

    def spoil(self, delivery: Delivery) -> Delivery:
        content, content_type = _encoded(self.body, self.content_type)
        answer = Answer(200, content, content_type, delivery.answer.headers)
        return replace(delivery, answer=answer)


@dataclass(frozen=True)
class Empty:
    """200 without a body."""

    after: bool = True

    def spoil(self, delivery: Delivery) -> Delivery:
        return replace(delivery, answer=Answer(200, headers=delivery.answer.headers))


@dataclass(frozen=True)
class Truncated:
    """Fewer bytes than Content-Length promised, then the connection is closed."""

    after: bool = True

    def spoil(self, delivery: Delivery) -> Delivery:
        return replace(delivery, ending="cut")


@dataclass(frozen=True)
class WrongTypes:
    """200 with JSON of the right kind and the wrong types."""

    body: object = field(default_factory=lambda: {"id": 5, "object": "video", "status": None})
    after: bool = True

    def spoil(self, delivery: Delivery) -> Delivery:
        content, content_type = _encoded(self.body, "application/json")
        answer = Answer(200, content, content_type, delivery.answer.headers)
        return replace(delivery, answer=answer)


@dataclass(frozen=True)
class Endless:
    """200 and JSON that never ends, `size` bytes every `seconds`, until the client goes away."""

    size: int = 1024
    seconds: float = 0.001
    after: bool = True

    def spoil(self, delivery: Delivery) -> Delivery:
        content = (b'"padding",' * (self.size // 10 + 1))[: max(1, self.size)]
        answer = Answer(200, content, "application/json", delivery.answer.headers)
        return replace(delivery, answer=answer, gap=self.seconds, ending="never")


@dataclass(frozen=True)
class Drip:
    """The true answer, one byte every `seconds`."""

    seconds: float = 0.1
    after: bool = True

    def spoil(self, delivery: Delivery) -> Delivery:
        return replace(delivery, piece=1, gap=self.seconds)


@dataclass(frozen=True)
class Redirect:
    """A redirect to `location`, which a client with a secret in its headers must not follow."""

    location: str
    status: int = 302
    after: bool = False

    def spoil(self, delivery: Delivery) -> Delivery:
        headers = {**delivery.answer.headers, "location": self.location}
        return replace(delivery, answer=Answer(self.status, headers=headers))


@dataclass(frozen=True)
class ManyHeaders:
    """The true answer under `count` more headers."""

    count: int = 200
    after: bool = True

    def spoil(self, delivery: Delivery) -> Delivery:
        more = {f"x-padding-{number}": "x" * 20 for number in range(self.count)}
        answer = replace(delivery.answer, headers={**delivery.answer.headers, **more})
        return replace(delivery, answer=answer)


@dataclass(frozen=True)
class JobFails:
    """The job is accepted, runs its time, and ends without a video.

    `status` replaces the dialect's own word for it ("cancelled", "expired", "CANCELLED").
    """

    code: str = "server_error"
    message: str = "The video could not be generated."
    status: str | None = None


@dataclass(frozen=True)
class NeverEnds:
    """The job is accepted and stays in progress for ever.

    `status` replaces the dialect's own word for it ("THROTTLED", or one nobody has heard of).
    """

    status: str | None = None


KINDS: dict[str, type[Effect] | type[JobFails] | type[NeverEnds]] = {
    "status": Status,
    "delay": Delay,
    "reset": Reset,
    "reset_mid_body": ResetMidBody,
    "garbage": Garbage,
    "empty": Empty,
    "truncated": Truncated,
    "wrong_types": WrongTypes,
    "endless": Endless,
    "drip": Drip,
    "redirect": Redirect,
    "many_headers": ManyHeaders,
    "job_fails": JobFails,
    "never_ends": NeverEnds,
}


class Fault:
    """One planned fault: `hits` says how often it struck, `cancel()` ends it."""

    def __init__(
        self,
        kind: str,
        effect: Effect | JobFails | NeverEnds,
        *,
        operation: str | None,
        account: str | None,
        times: int | None,
    ) -> None:
        self.kind = kind
        self.effect = effect
        self.operation = operation
        self.account = account
        self.times = times
        self.hits = 0
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    @property
    def spent(self) -> bool:
        return self._cancelled or (self.times is not None and self.hits >= self.times)

    def matches(self, operation: str | None, account: str | None) -> bool:
        return self.operation in (None, operation) and self.account in (None, account)

    def __repr__(self) -> str:
        where = f"operation={self.operation!r}, account={self.account!r}"
        return f"<Fault {self.kind} {where}, hits={self.hits}, times={self.times}>"


class FaultPlan:
    """The faults that wait, oldest first. Not thread-safe: the provider's lock guards it."""

    def __init__(self, *, operations: Collection[str], accounts: Collection[str]) -> None:
        self._operations = operations
        self._accounts = accounts
        self._waiting: list[Fault] = []
        self.planned: list[Fault] = []

    def plan(
        self,
        kind: str,
        *,
        operation: str | None = None,
        account: str | None = None,
        times: int | None = 1,
        **details: Any,
    ) -> Fault:
        """Plan a fault; what could never strike, being misspelt, is a `ValueError`."""
        _check("kind", kind, KINDS)
        _check("operation", operation, [None, *sorted(self._operations)])
        _check("account", account, [None, *self._accounts])
        effect = _effect(kind, details)
        fault = Fault(kind, effect, operation=operation, account=account, times=times)
        self._waiting.append(fault)
        self.planned.append(fault)
        return fault

    def strike(self, operation: str | None, account: str | None) -> Effect | None:
        """Take the fault, if any, that this request has to suffer."""
        for fault in self._matching(operation, account):
            if not isinstance(fault.effect, JobFails | NeverEnds):
                fault.hits += 1
                return fault.effect
        return None

    def doom(self, operation: str, account: str) -> JobFails | NeverEnds | None:
        """Take the fault, if any, that this accepted job has to suffer."""
        for fault in self._matching(operation, account):
            if isinstance(fault.effect, JobFails | NeverEnds):
                fault.hits += 1
                return fault.effect
        return None

    def _matching(self, operation: str | None, account: str | None) -> list[Fault]:
        self._waiting = [fault for fault in self._waiting if not fault.spent]
        return [fault for fault in self._waiting if fault.matches(operation, account)]

    def clear(self) -> None:
        for fault in self.planned:
            fault.cancel()
        self._waiting.clear()
        self.planned.clear()


def _check(what: str, value: object, known: Collection[object]) -> None:
    if value not in known:
        raise ValueError(f"unknown {what} {value!r}; known: {', '.join(map(repr, known))}")


def _effect(kind: str, details: dict[str, Any]) -> Any:
    known = [detail.name for detail in fields(KINDS[kind])]  # type: ignore[arg-type]  # a Protocol
    for name in details:
        _check(f"detail of {kind!r}", name, known)
    return KINDS[kind](**details)
