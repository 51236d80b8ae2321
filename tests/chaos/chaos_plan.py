"""What a run of the chaos is to be like: who works, who owns what, and what goes wrong when.

All of it is drawn from a seed. What processes make of it is their own affair: a seed brings the
same blows at the same seconds, and never the same run twice.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "CAPS",
    "DEADLINE",
    "GROUP",
    "JOB_TTL",
    "LANES",
    "NAMESPACE",
    "WAIT_TIMEOUT",
    "WORKERS",
    "Blow",
    "Plan",
    "configuration",
    "drawn",
    "faults",
]

WORKERS = 4
SURVIVORS = 2
"""The first so many workers are never killed: what grows slowly grows in them."""
LANES = {"blocking": 2, "async": 2}
"""Who calls in a worker: threads, and tasks of one event loop."""
CAPS = {"east": 4, "west": 9, "north": 6}
"""Jobs that may run at once, of each account."""
GROUP = "sora-2"
NAMESPACE = "chaos"

DEADLINE = 6.0
TIMEOUT = 2.0
WAIT_TIMEOUT = 6.0
JOB_SECONDS = (0.4, 3.0)
JOB_TTL = 12.0
"""Longer than a job, a frozen worker and a slow answer together: nobody's job outlasts its slot."""

FIRST_BLOW = 2.0
QUIET_END = 4.0
"""Seconds without a blow at the end, so that a run ends with a fleet at work."""
APART = 3.5
"""Seconds between two blows to Redis: more than it takes to be whole again."""


@dataclass(frozen=True)
class Blow:
    """At so many seconds something happens to a target, and lasts for `seconds`.

    `kind` is `kill` or `stop` of a worker, `freeze`, `flush` or `restart` of Redis, or `cut` of all
    connections to Redis or to the provider that lead through the proxy.
    """

    at: float
    kind: str
    target: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Plan:
    """One run. `mutations` names the workers that are to do wrong, and how.

    `faults` is how many are planned a second for the provider, `caps` what accounts may run, and
    `pause` for how many seconds a lane rests between two errands, on average.
    """

    seed: int
    seconds: float
    blows: tuple[Blow, ...] = ()
    faults: float = 2.5
    pause: float = 0.22
    mutations: dict[int, str] = field(default_factory=dict)
    caps: dict[str, int] = field(default_factory=lambda: dict(CAPS))


def drawn(seed: int, seconds: float) -> Plan:
    """The run of this seed."""
    rng = random.Random(f"blows {seed}")
    ends = seconds - QUIET_END
    blows = [*_to_redis(rng, ends), *_to_workers(rng, ends), *_to_connections(rng, ends)]
    return Plan(seed, seconds, tuple(sorted(blows, key=lambda blow: blow.at)))


def _to_redis(rng: random.Random, ends: float) -> Iterator[Blow]:
    at, kinds = FIRST_BLOW + rng.uniform(0, 3), list[str]()
    while at < ends:
        if not kinds:
            kinds = rng.sample(["freeze", "flush", "restart", "cut"], 4)
        kind = kinds.pop()
        seconds = rng.uniform(0.3, 4.0) if kind in ("freeze", "restart") else 0.0
        if at + seconds < ends:
            yield Blow(at, kind, "redis", seconds)
        at += seconds + APART + rng.expovariate(1 / 2.5)


def _to_workers(rng: random.Random, ends: float) -> Iterator[Blow]:
    at = FIRST_BLOW + rng.uniform(0, 2)
    while at < ends:
        if rng.random() < 0.5:
            yield Blow(at, "kill", str(rng.randrange(SURVIVORS, WORKERS)))
        else:
            yield Blow(at, "stop", str(rng.randrange(WORKERS)), rng.uniform(0.2, 4.0))
        at += 1.0 + rng.expovariate(1 / 3.5)


def _to_connections(rng: random.Random, ends: float) -> Iterator[Blow]:
    at = FIRST_BLOW
    while at < ends:
        yield Blow(at, "cut", "provider")
        at += 1.0 + rng.expovariate(1 / 3.0)


def faults(seed: int, rate: float) -> Iterator[tuple[float, dict[str, Any]]]:
    """What goes wrong at the provider, without end: after how many seconds, and which fault."""
    rng = random.Random(f"faults {seed}")
    while True:
        fault = {
            "account": rng.choice([None, *CAPS]),
            "operation": rng.choice(
                ["generation", "generation", "edit", "status", "content", None]
            ),
            "times": rng.choice([1, 1, 2, 4]),
            **rng.choice(_HARM),
        }
        if fault["kind"] == "job_fails":
            fault["operation"] = None
        if fault["kind"] == "delay":
            # Up to more than an attempt may take.
            fault["seconds"] = rng.uniform(0.1, 1.4 * TIMEOUT)
        yield rng.expovariate(rate), fault


_SOON = {"retry-after": "1"}
_HARM: list[dict[str, Any]] = [
    {"kind": "status", "status": 429, "headers": _SOON},
    {"kind": "status", "status": 503, "headers": _SOON},
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 500, "after": True},
    {"kind": "status", "status": 400},
    {"kind": "reset"},
    {"kind": "reset", "after": True},
    {"kind": "reset", "after": True},
    {"kind": "reset_mid_body"},
    {"kind": "truncated"},
    {"kind": "garbage"},
    {"kind": "empty"},
    {"kind": "wrong_types"},
    {"kind": "delay"},
    {"kind": "delay"},
    {"kind": "delay", "after": False},
    {"kind": "drip", "seconds": 0.01},
    {"kind": "job_fails"},
    {"kind": "job_fails", "code": "moderation_blocked", "message": "Blocked by moderation."},
]


def configuration(base_url: str, redis_url: str, caps: dict[str, int | None]) -> dict[str, Any]:
    """A worker's: three accounts behind one group, one of them with two deployments."""
    accounts = {
        name: {
            "base_url": base_url,
            "api_key": f"sk-{name}",
            "max_parallel_jobs": cap,
            "max_parallel_requests": 40,
            "job_ttl": JOB_TTL,
        }
        for name, cap in caps.items()
    }
    deployments = [("east-1", "east"), ("east-2", "east"), ("west-1", "west"), ("north-1", "north")]
    return {
        "settings": {
            "redis_url": redis_url,
            "namespace": NAMESPACE,
            "timeout": TIMEOUT,
            "connect_timeout": TIMEOUT,
            "deadline": DEADLINE,
        },
        "accounts": accounts,
        "deployments": [{"id": i, "model_name": GROUP, "account": a} for i, a in deployments],
    }
