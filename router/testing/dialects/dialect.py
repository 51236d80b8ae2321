"""What a dialect is: routes, where its key is found, and how it words a refusal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from router.testing.media import is_clip
from router.testing.messages import Answer, Body, Head, Refusal
from router.testing.studio import Account, Studio

__all__ = ["Call", "Dialect", "Policy", "Route", "authorized"]


def authorized(head: Head, scheme: str = "bearer") -> str | None:
    """The key that a request is authorized by; `None` where it has none of this scheme."""
    written, _, key = head.headers.get("authorization", "").partition(" ")
    return key.strip() if written.lower() == scheme else None


@dataclass(frozen=True)
class Policy:
    """What the user of the stand-in chose about its answers."""

    models: tuple[str, ...] | None = None
    """The models it knows; None is any."""
    poll_after_ms: int | None = None
    """When to ask again, told with every answer about a job."""
    any_clip: bool = False
    """Whether what is uploaded as a clip need not be one."""

    def takes(self, clip: bytes) -> bool:
        return self.any_clip or is_clip(clip)


@dataclass(frozen=True)
class Call:
    """A request as a route's handler sees it: routed, known by its key, decoded."""

    head: Head
    params: Mapping[str, str]
    body: Body
    account: Account
    studio: Studio
    policy: Policy

    @property
    def fields(self) -> dict[str, Any]:
        return self.body.fields


@dataclass(frozen=True)
class Route:
    method: str
    path: str
    """Below one of the dialect's prefixes. A segment in braces matches any one segment; with a verb
    behind it (`{model}:predict`), any that ends in it."""
    operation: str
    handler: Callable[[Call], Answer]
    owner: Callable[[str], str] | None = None
    """Set for what needs no key: from the path's only parameter to the id of the job it shows."""

    def match(self, segments: tuple[str, ...]) -> dict[str, str] | None:
        pattern = self.path.strip("/").split("/")
        if len(pattern) != len(segments):
            return None
        params: dict[str, str] = {}
        for expected, segment in zip(pattern, segments, strict=True):
            name, brace, verb = expected.partition("}")
            if brace and segment.endswith(verb):
                params[name[1:]] = segment.removesuffix(verb)
            elif brace or expected != segment:
                return None
        return params


@dataclass(frozen=True)
class Dialect:
    name: str
    prefixes: tuple[str, ...]
    """Longest first."""
    routes: tuple[Route, ...]
    """The first match wins."""
    key: Callable[[Head], str | None]
    unknown_key: Callable[[str | None], Refusal]
    word: Callable[[Refusal], Answer]

    def find(self, head: Head) -> tuple[Route, dict[str, str]] | None:
        for prefix in self.prefixes:
            start = tuple(prefix.strip("/").split("/")) if prefix else ()
            if head.segments[: len(start)] != start:
                continue
            for route in self.routes:
                params = route.match(head.segments[len(start) :])
                if params is not None and route.method == head.method:
                    return route, params
        return None
