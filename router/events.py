"""What the router tells about itself: frozen values, handed to `on_event` one at a time.

Times are Unix times in seconds. No event holds a prompt, a key or a body.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = ["Attempted", "Ejected", "Event", "JobFinished", "OnEvent", "Picked", "Restored"]


@dataclass(frozen=True, slots=True)
class Picked:
    """A deployment was chosen for an attempt."""

    at: float
    operation: str
    deployment: str
    account: str
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Attempted:
    """An HTTP exchange ended. `accepted` is `maybe` where a submit's fate is unknown."""

    at: float
    operation: str
    deployment: str
    account: str
    seconds: float
    status: int | None
    result: str
    accepted: str
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Ejected:
    """A deployment went out of rotation for `seconds`.

    `scope` is `submits`, `reads`, `both`, or one operation; `cause` is `failures`, `throttled`,
    `denied` or `missing`; `reason` is for people.
    """

    at: float
    deployment: str
    account: str
    scope: str
    cause: str
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True)
class Restored:
    """A deployment was brought back into rotation; `reason` is for people."""

    at: float
    deployment: str
    account: str
    reason: str


@dataclass(frozen=True, slots=True)
class JobFinished:
    """A job was seen to have ended; told once by each worker that sees it."""

    at: float
    video_id: str
    account: str
    status: str
    code: str | None = None


Event: TypeAlias = Picked | Attempted | Ejected | Restored | JobFinished
OnEvent: TypeAlias = Callable[[Event], object]
