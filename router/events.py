"""What the router tells about itself: frozen values, handed to `on_event` as they happen.

    Waiting ──► Picked ──► Attempted ──► (again, or the call ends) ──► JobFinished
                               └──► Ejected ··· Restored

The hook is called where the thing happened: in the task or thread of the call, with its context
variables, and for what another worker told in the thread that looks after the shared state. It
should be quick and must not block; calls wait for it. What it raises is logged and ends no call.

Times are Unix times in seconds, as all workers count them. No event holds a prompt, a key or a
body. What one router knows and another does not, such as a price, is `None` where it is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

__all__ = [
    "Attempted",
    "Ejected",
    "Event",
    "JobFinished",
    "OnEvent",
    "Picked",
    "Restored",
    "Waiting",
]


@dataclass(frozen=True, slots=True)
class Waiting:
    """A call begins to wait, for `seconds` at most; told once for each time it does.

    `cause` is `room` where limits are full, and `throttled` where a provider asked for a pause;
    `reason` is for people. How long it was in the end stands in the `Picked` that follows.
    """

    at: float
    operation: str
    seconds: float
    reason: str
    metadata: Mapping[str, Any] | None = None
    cause: str = "room"


@dataclass(frozen=True, slots=True)
class Picked:
    """A deployment was chosen for an attempt, the `attempt`-th of its call.

    `waited` is how many seconds the call waited for that, since it came or since the attempt
    before; 0.0 for all calls that found room at once.
    """

    at: float
    operation: str
    deployment: str
    account: str
    metadata: Mapping[str, Any] | None = None
    attempt: int = 1
    waited: float = 0.0


@dataclass(frozen=True, slots=True)
class Attempted:
    """An HTTP exchange ended. `accepted` is `maybe` where a submit's fate is unknown.

    `result` is one of few words, such as `success`, `throttled`, `refused` or `timeout`. `cost` is
    in dollars: what the job will cost that was accepted, or may have been; `None` where nothing
    was, or no price is known. `provider`, `model` (the provider's name for it), `host` and `port`
    say where it went, `request_id` is what that provider's support asks for.
    """

    at: float
    operation: str
    deployment: str
    account: str
    seconds: float
    status: int | None
    result: str
    accepted: str
    metadata: Mapping[str, Any] | None = None
    attempt: int = 1
    cost: float | None = None
    provider: str | None = None
    model: str | None = None
    host: str | None = None
    port: int | None = None
    request_id: str | None = None

    @property
    def succeeded(self) -> bool:
        """The provider did what it was asked for."""
        return self.accepted == "yes"


@dataclass(frozen=True, slots=True)
class Ejected:
    """A deployment went out of rotation for `seconds`.

    `scope` is `submits`, `reads`, `both`, or one operation; `cause` is `failures`, `throttled`,
    `denied`, `missing`, `drained` or `retired`; `reason` is for people. Where `shared`, another
    worker decided and counted it, and this one has heard of it.
    """

    at: float
    deployment: str
    account: str
    scope: str
    cause: str
    seconds: float
    reason: str
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Restored:
    """A deployment was brought back into rotation; `reason` is for people.

    `scope` is what it is back for, `None` for all that it was out for. An ejection that ends by
    its deadline is not told again: its `Ejected` said when. `shared` is as for `Ejected`.
    """

    at: float
    deployment: str
    account: str
    reason: str
    scope: str | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class JobFinished:
    """A job was seen to have ended; told once by each worker that sees it.

    `seconds` is how long the job took, from its acceptance to its end: by the provider's own times
    where it tells both. What started it is known to the workers that share what was accepted.
    """

    at: float
    video_id: str
    account: str
    status: str
    code: str | None = None
    deployment: str | None = None
    operation: str | None = None
    seconds: float | None = None


Event: TypeAlias = Waiting | Picked | Attempted | Ejected | Restored | JobFinished
OnEvent: TypeAlias = Callable[[Event], object]
