"""The stand-in without its doors: a request goes in, a delivery comes out.

    arrive(head)            routes it, knows its key, takes the fault that was planned for it
    answer(arrival, body)   does the work, keeps the records, says how the answer travels

Two steps, since a connection may be reset before the body was read. One lock stands around both;
no input or output happens here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

from router.testing.delivery import Delivery
from router.testing.dialects import DIALECTS, openai
from router.testing.dialects.dialect import Call, Dialect, Policy, Route
from router.testing.faults import Effect, FaultPlan, Reset
from router.testing.forms import decode
from router.testing.messages import Answer, Body, Head, Refusal
from router.testing.studio import Account, Studio

__all__ = ["OPERATIONS", "SUBMITS", "Arrival", "Provider", "SeenFile", "SeenRequest"]

OPERATIONS = frozenset(route.operation for dialect in DIALECTS for route in dialect.routes)

SUBMITS = frozenset({"generation", "edit", "extension", "remix", "create_character"})
"""What starts a paid job or stores an asset, and counts against requests per minute."""


@dataclass(frozen=True)
class SeenFile:
    field: str
    name: str
    size: int
    content_type: str


@dataclass(frozen=True)
class SeenRequest:
    """One request as it came, whatever became of it."""

    operation: str | None
    """None where no route matches."""
    account: str | None
    """None for an unknown key; the owner's for a link that needs none."""
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case."""
    fields: Mapping[str, Any]
    """Of a JSON object or a form, with nested keys unfolded."""
    files: tuple[SeenFile, ...]
    status: int | None
    """What was answered; None when the connection was reset instead."""


@dataclass(frozen=True)
class Arrival:
    """A request that has been looked at, but not read."""

    head: Head
    dialect: Dialect
    route: Route | None
    params: Mapping[str, str]
    account: Account | None
    fault: Effect | None

    @property
    def operation(self) -> str | None:
        return None if self.route is None else self.route.operation

    @property
    def hangs_up(self) -> bool:
        """The connection is to be reset now, with the body unread."""
        return isinstance(self.fault, Reset) and not self.fault.after


class Provider:
    def __init__(
        self, studio: Studio, faults: FaultPlan, *, policy: Policy, latency: float = 0.0
    ) -> None:
        self.lock = Lock()
        self.studio = studio
        self.faults = faults
        self.requests: list[SeenRequest] = []
        self._policy = policy
        self._latency = latency

    def arrive(self, head: Head) -> Arrival:
        dialect, route, params = _route(head)
        with self.lock:
            account = self._account(head, dialect, route, params)
            fault = self.faults.strike(
                None if route is None else route.operation,
                None if account is None else account.name,
            )
            arrival = Arrival(head, dialect, route, params, account, fault)
            if arrival.hangs_up:
                self._record(arrival, Body(), None)
        return arrival

    def answer(self, arrival: Arrival, content: bytes) -> Delivery:
        body, fault = decode(arrival.head.headers, content), arrival.fault
        with self.lock:
            works = fault is None or fault.after
            answer = self._work(arrival, body) if works else Answer(200)
            headers = {"x-request-id": f"req_{self.studio.hex()}", **answer.headers}
            answer = Answer(answer.status, answer.body, answer.content_type, headers)
            delivery = Delivery(answer, pause=self._latency)
            if fault is not None:
                delivery = fault.spoil(delivery)
            self._record(arrival, body, delivery.status)
        return delivery

    def put(self, kind: str, id: str, account: str | None) -> None:
        """Lay a video or character there; raises `ValueError` for an account that is none."""
        with self.lock:
            openai.PUT[kind](self.studio, self.studio.named(account), id)

    def forget(self) -> None:
        with self.lock:
            self.faults.clear()
            self.requests.clear()
            self.studio.forget()

    def _account(
        self, head: Head, dialect: Dialect, route: Route | None, params: Mapping[str, str]
    ) -> Account | None:
        if route is None or route.owner is None:
            return self.studio.account(dialect.key(head))
        (parameter,) = params.values()
        return self.studio.owner(route.owner(parameter))

    def _work(self, arrival: Arrival, body: Body) -> Answer:
        try:
            return self._call(arrival, body)
        except Refusal as refusal:
            return arrival.dialect.word(refusal)

    def _call(self, arrival: Arrival, body: Body) -> Answer:
        head, route, account = arrival.head, arrival.route, arrival.account
        if route is None:
            raise Refusal(404, f"Invalid URL ({head.method} {head.path})")
        if account is None and route.owner is not None:
            raise Refusal(404, "Not found.")
        if account is None:
            raise arrival.dialect.unknown_key(arrival.dialect.key(head))
        if route.operation in SUBMITS:
            self.studio.grant(account)
            if body.problem is not None:
                message = f"We could not parse the body of your request: {body.problem}"
                raise Refusal(400, message)
        call = Call(head, arrival.params, body, account, self.studio, self._policy)
        return route.handler(call)

    def _record(self, arrival: Arrival, body: Body, status: int | None) -> None:
        head, account = arrival.head, arrival.account
        self.requests.append(
            SeenRequest(
                operation=arrival.operation,
                account=None if account is None else account.name,
                method=head.method,
                path=head.path,
                query=head.query,
                headers=head.headers,
                fields=body.fields,
                files=tuple(
                    SeenFile(
                        upload.field, upload.filename, len(upload.content), upload.content_type
                    )
                    for upload in body.uploads
                ),
                status=status,
            )
        )


def _route(head: Head) -> tuple[Dialect, Route | None, dict[str, str]]:
    for dialect in DIALECTS:
        if found := dialect.find(head):
            return dialect, *found
    return DIALECTS[0], None, {}
