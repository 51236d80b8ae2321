"""What goes wrong, as values: the faults of the stand-in, and how often a task is delivered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["DELIVERIES", "DELIVERY", "SCENARIOS", "SINGLE", "TIMEOUT", "Scenario"]

TIMEOUT = 2.0
"""Seconds that both routers wait for an answer; what is slow takes half as long again."""
DELIVERIES = 3

Fault = Mapping[str, Any]

RESET: Fault = {"kind": "reset", "after": True}
SLOW: Fault = {"kind": "delay", "seconds": 1.5 * TIMEOUT}
ERROR_500: Fault = {"kind": "status", "status": 500, "after": True}
ERROR_503: Fault = {"kind": "status", "status": 503}
BROKEN: Fault = {"kind": "garbage"}


@dataclass(frozen=True)
class Scenario:
    """One fault, and how it is met.

    It strikes the first request of a task, or `all` of them. `refused`: one of the two deployments
    is a port where nobody listens. `delivered`: once; after each error again, up to `DELIVERIES`
    times; or always so often, as when the queue never heard that the task was done.
    """

    name: str
    title: str
    fault: Fault | None = None
    all: bool = False
    operation: Literal["generation", "edit"] = "generation"
    refused: bool = False
    delivered: Literal["once", "after an error", "always"] = "once"

    @property
    def times(self) -> int | None:
        return None if self.all else 1


SINGLE = (
    Scenario("none", "no fault"),
    Scenario("reset", "reset after the body was read", RESET),
    Scenario("reset-edit", "an edit, reset after the body was read", RESET, operation="edit"),
    Scenario("cut", "answer cut in the middle", {"kind": "truncated"}),
    Scenario("slow", "answer later than the time-out", SLOW),
    Scenario("500", "500 after acceptance", ERROR_500),
    Scenario("broken", "200 with a broken body", BROKEN),
    Scenario("429", "429, then fine", {"kind": "status", "status": 429}),
    Scenario(
        "503-later",
        "503 with Retry-After, then fine",
        {**ERROR_503, "headers": {"retry-after": "1"}},
    ),
    Scenario("503", "503 without, then fine", ERROR_503),
    Scenario("refused", "one of two deployments refuses connections", refused=True),
    Scenario("all-reset", "each is reset after the body was read", RESET, all=True),
    Scenario(
        "all-reset-edit",
        "edits, each is reset after the body was read",
        RESET,
        all=True,
        operation="edit",
    ),
    Scenario("all-slow", "each answer later than the time-out", SLOW, all=True),
    Scenario("all-500", "each a 500 after acceptance", ERROR_500, all=True),
    Scenario("all-broken", "each a 200 with a broken body", BROKEN, all=True),
)
"""A task is one call."""

DELIVERY = (
    Scenario("again-done", "no fault, and delivered three times", delivered="always"),
    Scenario("again-reset", "reset, again after an error", RESET, delivered="after an error"),
    Scenario("again-slow", "too late, again after an error", SLOW, delivered="after an error"),
    Scenario("again-503", "bare 503, again after an error", ERROR_503, delivered="after an error"),
    Scenario(
        "again-all-reset",
        "each reset, again after an error",
        RESET,
        all=True,
        delivered="after an error",
    ),
)
"""A queue delivers a task again, to the same worker."""

SCENARIOS = {one.name: one for one in (*SINGLE, *DELIVERY)}
