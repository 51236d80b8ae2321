"""What a seed says: the fleet, the workers, the calls, and everything that goes wrong, and when.

A plan is drawn whole before anything runs, so that it can be read, and so that a change of the
router's code changes no plan. What a plan leaves open (which requests of a storm are hit, which
earlier video a follow-up is about) is drawn on the way, from generators of the same seed.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["BLOWS", "FAULTS", "Blow", "Errand", "Plan", "Storm", "drawn"]

GROUPS = ("sora-2", "sora-2-pro")
# What can befall a request, by name: how often, and the details that are drawn with it. What is not
# the network's own doing is a fault kind of the stand-in.
FAULTS: dict[str, float] = {
    "refused": 3,  # nobody listens
    "unreachable": 2,  # nobody answers to the connection attempt
    "pool": 1,  # no free connection of our own
    "broken_sending": 3,  # the connection breaks while the body goes out
    "lost_request": 3,  # the whole body goes out, and the work is not done
    "reset_unread": 2,  # reset before anything was read
    "reset_done": 3,  # the work is done, and then the connection breaks
    "late": 3,  # the work is done, the answer comes after the time-out
    "slow": 2,  # the answer takes some seconds
    "drip": 1,  # byte by byte
    "endless": 1,
    "truncated": 2,
    "reset_mid_body": 1,
    "garbage": 2,  # 200 with HTML
    "empty": 1,
    "wrong_types": 1,
    "many_headers": 1,
    "redirect": 1,
    "throttled": 4,  # 429 with and without Retry-After, of all lengths
    "busy": 2,  # 503 with Retry-After
    "server_error": 3,  # 500, 502, 503, 504 in JSON or HTML, nothing done
    "server_error_done": 2,  # the same after the work was done
    "bad_request": 3,  # 400, 409, 413, 415, 422, content policy
    "not_found": 1,  # 404 of an id
    "model_missing": 1,  # 404 whose body names the model; 501
    "denied": 1,  # 401, 403
    "broke": 1,  # 429 insufficient_quota
    "job_fails": 2,
    "job_refused": 1,  # the job fails by what it was asked for
    "never_ends": 1,
}

# What can befall a worker or the store. Cancelled and killed calls are drawn with the calls.
BLOWS: dict[str, float] = {
    "kill": 2,  # a worker dies, and another takes its place
    "reload": 3,  # new weights, a deployment more or less
    "reload_broken": 1,  # a file that is refused
    "rotate_key": 2,  # the old key is worth nothing; workers hear of the new one later
    "skew": 2,  # a worker's clock is set
    "freeze": 2,  # the store does not answer
    "flush": 1,  # the store forgets all
    "lose_answers": 2,  # the store does what it is told, and its answers are lost
}

# What callers do, and how often.
ERRANDS: dict[str, float] = {
    "generation": 10,
    "edit": 4,
    "extension": 2,
    "remix": 2,
    "create_character": 3,
    "get_character": 2,
    "status": 5,
    "wait": 5,
    "content": 4,
    "delete": 1,
    "list": 1,
    "pick": 2,
    "observe": 1,
    "locate": 1,
    "mistake": 2,
}


@dataclass(frozen=True, slots=True)
class Storm:
    """A fault over a stretch of time, that hits a share of the requests that it covers."""

    kind: str
    starts: float
    ends: float
    share: float
    deployment: str | None = None
    submits: bool | None = None

    def covers(self, at: float, deployment: str, *, submit: bool) -> bool:
        return (
            self.starts <= at < self.ends
            and self.deployment in (None, deployment)
            and self.submits in (None, submit)
        )


@dataclass(frozen=True, slots=True)
class Blow:
    """Something that befalls a worker, or the store, at one moment; `lasts` seconds if it does."""

    kind: str
    at: float
    worker: int
    lasts: float = 0.0
    amount: float = 0.0


@dataclass(frozen=True, slots=True)
class Errand:
    """What one caller does. `chance` seeds what is left open until then.

    `cut` says that the caller goes away, or the worker dies, where the call suspends for the n-th
    time.
    """

    number: int
    at: float
    worker: int
    what: str
    door: str
    options: Mapping[str, Any]
    chance: int
    cut: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    data: dict[str, Any]
    """The configuration that every worker starts with."""
    keys: dict[str, str]
    """The provider's keys, and the account of each."""
    workers: int
    errands: tuple[Errand, ...]
    storms: tuple[Storm, ...]
    blows: tuple[Blow, ...]
    limits: dict[str, Any]
    """The provider's own limits of each account."""
    skews: tuple[float, ...]
    """By how many seconds each worker's clock is wrong from the start."""
    lasts: float
    """Seconds in which all calls begin."""


def _weighted(rng: random.Random, table: Mapping[str, float]) -> str:
    return rng.choices(list(table), list(table.values()))[0]


def drawn(seed: int) -> Plan:
    """The plan of a seed."""
    rng = random.Random(f"{seed}/plan")
    data, keys = _fleet(rng)
    names = [deployment["id"] for deployment in data["deployments"]]
    workers = rng.randint(1, 4)
    # Many calls at once, or a few now and then.
    lasts = rng.choice((10.0, 100.0, 900.0))
    return Plan(
        seed=seed,
        data=data,
        keys=keys,
        workers=workers,
        errands=tuple(_errand(rng, number, workers, lasts) for number in range(rng.randint(8, 40))),
        storms=tuple(_storm(rng, names, lasts) for _ in range(rng.randint(0, 6))),
        blows=tuple(_blow(rng, workers, lasts) for _ in range(rng.choice((0, 1, 2, 4)))),
        limits={
            "rpm": rng.choice((None, None, None, 3)),
            "max_running_jobs": rng.choice((None, None, 1, 3)),
        },
        lasts=lasts,
        skews=tuple(rng.uniform(-3, 3) for _ in range(workers)),
    )


def _fleet(rng: random.Random) -> tuple[dict[str, Any], dict[str, str]]:
    accounts = ["east", "west", "north", "south"][: rng.randint(1, 4)]
    deployments = [
        _deployment(rng, f"{account}-{n}", account)
        for account in accounts
        for n in range(1, rng.choice((2, 2, 3, 4)))
    ]
    if all(deployment.get("weight") == 0 for deployment in deployments):
        del deployments[0]["weight"]
    settings: dict[str, Any] = {
        "default_model": "sora-2",
        "strategy": rng.choice(("lowest-latency", "weighted-random")),
        "timeout": rng.choice((5.0, 20.0, 60.0)),
        "connect_timeout": rng.choice((1.0, 5.0)),
        "deadline": rng.choice((30.0, 120.0, 300.0)),
        "retries": rng.choice((0, 1, 2, 2, 4)),
        "id_secrets": rng.choice(([], ["a secret of at least some length"])),
    }
    # Somebody must serve the default group, whatever the dice say.
    deployments[0]["model_name"] = list(GROUPS)
    data = {
        "settings": settings,
        "accounts": {account: {"api_key": f"sk-{account}"} for account in accounts},
        "deployments": deployments,
    }
    return data, {f"sk-{account}": account for account in accounts}


def _deployment(rng: random.Random, name: str, account: str) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": name,
        "model_name": rng.choice(("sora-2", "sora-2", "sora-2-pro", list(GROUPS))),
        "account": account,
        # A host of its own, so that the network knows who was asked.
        "base_url": f"http://{name}.sim/v1",
    }
    if rng.random() < 0.3:
        told["order"] = 2
    if rng.random() < 0.3:
        told["weight"] = rng.choice((0, 0.5, 3))
    if rng.random() < 0.2:
        told["retry_on_5xx"] = True
    if rng.random() < 0.2:
        told["timeout"] = 10.0
    if rng.random() < 0.15:
        told["operations"] = ["generation", "status", "content", "get_character"]
    return told


def _errand(rng: random.Random, number: int, workers: int, lasts: float) -> Errand:
    options: dict[str, Any] = {}
    if rng.random() < 0.15:
        options["timeout"] = rng.choice((2.0, 30.0))
    if rng.random() < 0.15:
        options["deadline"] = rng.choice((1.0, 10.0, 100.0))
    if rng.random() < 0.15:
        options["retries"] = rng.choice((0, 1, 5))
    door = rng.choice(("async", "async", "blocking"))
    cut = None
    if door == "async" and rng.random() < 0.15:
        cut = (rng.choice(("cancel", "cancel", "kill")), 1 + int(rng.expovariate(0.35)))
    return Errand(
        number=number,
        at=rng.choice((0.0, rng.uniform(0, lasts))),
        worker=rng.randrange(workers),
        what=_weighted(rng, ERRANDS),
        door=door,
        options=options,
        chance=rng.getrandbits(32),
        cut=cut,
    )


def _storm(rng: random.Random, names: list[str], lasts: float) -> Storm:
    starts = rng.choice((0.0, rng.uniform(0, lasts)))
    return Storm(
        kind=_weighted(rng, FAULTS),
        starts=starts,
        ends=starts + lasts * rng.choice((0.1, 0.3, 1.0)),
        share=rng.choice((0.1, 0.5, 1.0)),
        deployment=rng.choice((None, rng.choice(names), rng.choice(names))),
        submits=rng.choice((None, None, True, False)),
    )


def _blow(rng: random.Random, workers: int, lasts: float) -> Blow:
    return Blow(
        kind=_weighted(rng, BLOWS),
        at=rng.uniform(0, lasts),
        worker=rng.randrange(workers),
        lasts=rng.choice((1.0, 20.0, 200.0)),
        amount=rng.choice((-120.0, -2.0, 2.0, 120.0)),
    )
