"""The control API of a stand-in that runs in another process.

    POST   /_stand_in/faults           plan a fault: `StandIn.fault()`'s arguments as JSON
    GET    /_stand_in/faults           the planned faults and their hits
    DELETE /_stand_in/faults           forget them, and nothing else
    GET    /_stand_in/accepted         the accepted submits, in order
    GET    /_stand_in/requests         the requests seen, in order
    PUT    /_stand_in/videos/ID        `StandIn.put_video()`; `?account=` as there
    PUT    /_stand_in/characters/ID    `StandIn.put_character()`
    DELETE /_stand_in                  forget everything

It needs no key, since it belongs to tests on one machine; it is neither recorded nor struck.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from router.testing.faults import Fault
from router.testing.messages import Answer, Head, json_answer
from router.testing.provider import Provider

__all__ = ["answer", "is_control"]

_ROOT = "_stand_in"


def is_control(head: Head) -> bool:
    return head.segments[0] == _ROOT


def answer(provider: Provider, head: Head, content: bytes) -> Answer:
    match (head.method, *head.segments[1:]):
        case ("POST", "faults"):
            return _plan(provider, content)
        case ("GET", "faults"):
            with provider.lock:
                return _listed([_fault(fault) for fault in provider.faults.planned])
        case ("DELETE", "faults"):
            with provider.lock:
                provider.faults.clear()
            return Answer(204)
        case ("GET", "accepted"):
            with provider.lock:
                return _listed([asdict(submit) for submit in provider.studio.accepted])
        case ("GET", "requests"):
            with provider.lock:
                return _listed([asdict(request) for request in provider.requests])
        case ("PUT", "videos" | "characters" as kind, id):
            return _put(provider, kind, id, head.query.get("account"))
        case ("DELETE",):
            provider.forget()
            return Answer(204)
        case _:
            return json_answer(404, {"error": f"no such control: {head.method} {head.path}"})


def _plan(provider: Provider, content: bytes) -> Answer:
    try:
        wish = json.loads(content)
        with provider.lock:
            return json_answer(200, _fault(provider.faults.plan(**wish)))
    except (TypeError, ValueError) as error:
        return json_answer(400, {"error": str(error)})


def _put(provider: Provider, kind: str, id: str, account: str | None) -> Answer:
    try:
        provider.put(kind, id, account)
    except ValueError as error:
        return json_answer(400, {"error": str(error)})
    return Answer(204)


def _fault(fault: Fault) -> dict[str, Any]:
    return {
        "kind": fault.kind,
        "operation": fault.operation,
        "account": fault.account,
        "times": fault.times,
        "hits": fault.hits,
    }


def _listed(items: list[dict[str, Any]]) -> Answer:
    return json_answer(200, {"data": items})
