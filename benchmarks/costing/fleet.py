"""Routers to measure: so many deployments of one group, with or without a past."""

from __future__ import annotations

import random
from typing import Any

from router import Router
from router.observations import BOTH, Cause, Ejection, epoch_of, sample
from router.types import Operation

__all__ = ["GROUP", "PROMPT", "SEED", "fleet", "learned"]

SEED = 20260924
GROUP = "sora-2"
PROMPT = "The heron takes off, and the camera follows it over the reeds into the evening light"


def fleet(
    base_url: str,
    count: int,
    account: str | None = None,
    *,
    redis_url: str | None = None,
    **limits: Any,
) -> Router:
    """A router over `count` deployments of one group; each in an account of its own, or in one."""
    deployments = [
        {
            "id": f"d{index}",
            "model_name": GROUP,
            "account": account or f"a{index}",
            "base_url": base_url,
            "api_key": "sk-benchmark" if account else f"sk-{index}",
            **limits,
        }
        for index in range(count)
    ]
    settings = {"redis_url": redis_url} if redis_url else {}
    data = {"settings": settings, "deployments": deployments}
    return Router.from_dict(data, rng=random.Random(SEED), environ={})


def learned(router: Router, known: float, ejected: float) -> None:
    """Give the fleet a past: a few latencies each, some exchanges in flight, some out of rotation.

    Written where the engine writes it, since a past made of calls would take minutes.
    """
    rng = random.Random(SEED)
    engine = router._engine
    members = list(engine.fleet.members.values())
    now = engine.now()
    for member in rng.sample(members, round(known * len(members))):
        usual = rng.lognormvariate(0.0, 0.3)
        for _ in range(5):
            seconds = usual * rng.lognormvariate(0.0, 0.1)
            member.load.add(Operation.GENERATION, epoch_of(now), sample(seconds, now))
        member.load.in_flight = rng.randrange(4)
    if ejected:
        for member in rng.sample(members, max(round(ejected * len(members)), 1)):
            member.health.eject(Ejection(BOTH, now + 3600, Cause.FAILURES, "benchmark"))
