"""What a seed says: the fleet, the workers, the calls, and everything that goes wrong, and when.

A plan is drawn whole before anything runs, so that it can be read, and so that a change of the
router's code changes no plan. What a plan leaves open (which requests of a storm are hit, which
earlier video a follow-up is about) is drawn on the way, from generators of the same seed.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

__all__ = [
    "BLOWS",
    "FATES",
    "FAULTS",
    "FOLLOW_UPS",
    "KEYED",
    "READ_FAULTS",
    "STARTERS",
    "USED",
    "Blow",
    "Errand",
    "Key",
    "Plan",
    "Storm",
    "drawn",
    "weighted",
]

GROUPS = ("sora-2", "sora-2-pro")
# What can befall a request, by name: how often, and the details that are drawn with it. What is not
# the network's own doing is a fault kind of the stand-in.
FAULTS: dict[str, float] = {
    "refused": 3,  # nobody listens
    "unreachable": 2,  # nobody answers to the connection attempt
    "pool": 1,  # no free connection of our own
    "broken_sending": 3,  # the connection breaks while the body goes out
    "lost_request": 3,  # the whole body goes out, and the work is not done
    "broken_at_the_end": 2,  # the same, and nobody asked whether there is more of the body
    "died_at_the_end": 2,  # the same, and the work was done
    "reset_unread": 2,  # reset before anything was read
    "reset_done": 3,  # the work is done, and then the connection breaks
    "late": 3,  # the work is done, the answer comes after the time-out
    "slow": 2,  # the answer takes some seconds
    "drip": 1,  # byte by byte
    "endless": 1,
    "truncated": 2,
    "reset_mid_body": 2,
    "garbage": 2,  # 200 with HTML
    "empty": 1,
    "wrong_types": 1,
    "many_headers": 2,
    "redirect": 1,
    "throttled": 4,  # 429 with and without Retry-After, of all lengths
    "busy": 2,  # 503 with Retry-After
    "server_error": 3,  # 500, 502, 503, 504 in JSON or HTML, nothing done
    "server_error_done": 2,  # the same after the work was done
    "bad_request": 3,  # 400, 409, 413, 415, 422, content policy
    "not_found": 1,  # 404 of an id
    "model_missing": 2,  # 404 whose body names the model; 501
    "denied": 2,  # 401, 403
    "broke": 2,  # 429 insufficient_quota
}

# What can befall a download, and how often where a storm is aimed at downloads alone.
READ_FAULTS: dict[str, float] = {
    "refused": 2,
    "late": 3,
    "slow": 1,
    "drip": 3,
    "endless": 3,
    "truncated": 3,
    "reset_mid_body": 2,
    "garbage": 2,
    "empty": 3,
    "wrong_types": 2,
    "throttled": 2,
    "server_error": 3,
    "not_found": 2,
}

# What can befall a job that was accepted, whatever becomes of the answer that says so.
FATES: dict[str, float] = {
    "job_fails": 3,
    "job_refused": 1,  # it fails by what it was asked for
    "never_ends": 2,
}

STRATEGIES = ("lowest-completion", "lowest-latency", "least-busy", "weighted-random")

# The limits that may be configured, and how high.
CAPS = {"max_parallel_jobs": 3, "max_parallel_requests": 3, "rpm": 6, "read_rpm": 20}

# What can befall a worker or the store. Cancelled and killed calls are drawn with the calls.
BLOWS: dict[str, float] = {
    "kill": 2,  # a worker dies, and another takes its place
    "reload": 5,  # another configuration in one worker; of secrets, in all
    "reload_broken": 1,  # a file that is refused
    "rotate_key": 2,  # the old key is worth nothing; workers hear of the new one later
    "skew": 2,  # a worker's clock is set
    "freeze": 2,  # the store does not answer
    "flush": 1,  # the store forgets all
    "lose_answers": 2,  # the store does what it is told, and its answers are lost
}

# The details of a blow that mean something.
USED: dict[str, tuple[str, ...]] = {
    "freeze": ("lasts",),
    "lose_answers": ("lasts",),
    "rotate_key": ("lasts",),
    "skew": ("amount",),
}

# What callers do, and how often: what makes something, and what is about something that was made.
STARTERS: dict[str, float] = {
    "generation": 10,
    "edit": 3,
    "extension": 1,
    "create_character": 4,
    "pick": 3,
    "mistake": 1,
    "list": 0.5,
}
FOLLOW_UPS: dict[str, float] = {
    "status": 5,
    "wait": 7,
    "content": 8,
    "picture": 2,  # a thumbnail or a spritesheet
    "edit": 2,
    "extension": 2,
    "remix": 3,
    "get_character": 2,
    "delete": 1,
    "list": 2,
    "pick_read": 2,
    "observe": 1,
    "locate": 1,
    "mistake": 2,
}


# The submits that may bear an idempotency key.
KEYED = {"generation", "edit", "extension", "remix", "create_character"}

# Dollars per second of video. Of the sizes only the first is ever made.
PRICES: tuple[Any, ...] = (0.05, 0.1, 0.25, {"720x1280": 0.1, "1792x1024": 0.3})
DAY_OF_A_CAP = 54_000.0
"""Seconds from the end of the usual hour to the next midnight UTC."""


@dataclass(frozen=True, slots=True)
class Storm:
    """A fault over a stretch of time, that hits a share of the requests that it covers."""

    kind: str
    starts: float
    ends: float
    share: float
    deployment: str | None = None
    submits: bool | None = None
    operation: str | None = None

    def covers(self, at: float, deployment: str, operation: str, *, submit: bool) -> bool:
        return (
            self.starts <= at < self.ends
            and self.deployment in (None, deployment)
            and self.submits in (None, submit)
            and self.operation in (None, operation)
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
class Key:
    """An idempotency key: errands of one `name` are one call, made several times.

    What is meant is drawn as for the errand `first`. `other` is by mistake: under a key that was
    made for something else.
    """

    name: str
    first: int
    other: bool = False


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
    key: Key | None = None


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
    starts: float
    """The Unix time at which the timeline begins."""
    turn_seconds: float
    """Seconds between a worker's turns of sharing."""
    fates: float
    """The share of the jobs that do not end well."""
    fate: str | None
    """The one way in which they end then; else there are all kinds."""
    renewed: bool = True
    """Whether claims are short and renewed by each turn, as where a thread takes the turns."""


def weighted(rng: random.Random, table: Mapping[str, float]) -> str:
    return rng.choices(list(table), list(table.values()))[0]


def drawn(seed: int) -> Plan:
    """The plan of a seed."""
    rng = random.Random(f"{seed}/plan")
    # Rankings of more deployments than a fleet of a few sees are a path of their own.
    large = rng.random() < 0.025
    data, keys = _fleet(rng, large=large)
    _cap(random.Random(f"{seed}/caps"), data)
    capped = _budget(random.Random(f"{seed}/budgets"), data)
    names = [deployment["id"] for deployment in data["deployments"]]
    workers = rng.randint(1, 2 if large else 4)
    # Many calls at once, or a few now and then; rarely over more than an hour.
    lasts = rng.choices((10.0, 100.0, 900.0, 4500.0), (10, 10, 10, 1))[0]
    many = rng.randint(8, 12 if large else 40)
    errands = tuple(_errand(rng, number, workers, lasts) for number in range(many))
    keyed = _keyed(random.Random(f"{seed}/keys"), errands, workers, large=large)
    return Plan(
        seed=seed,
        data=data,
        keys=keys,
        workers=workers,
        errands=keyed,
        storms=(
            *(_storm(rng, names, lasts) for _ in range(rng.randint(0, 8))),
            *_over_keys(random.Random(f"{seed}/over keys"), keyed, lasts),
        ),
        blows=tuple(_blow(rng, workers, lasts, errands) for _ in range(rng.choice((0, 1, 2, 4)))),
        limits={
            "rpm": rng.choice((None, None, None, 3)),
            "max_running_jobs": rng.choice((None, None, 1, 3)),
        },
        lasts=lasts,
        skews=tuple(rng.uniform(-3, 3) for _ in range(workers)),
        starts=_starts(rng, lasts) + (DAY_OF_A_CAP if capped else 0.0),
        turn_seconds=5.0 if lasts > 1000 else 0.5,
        fates=rng.choice((0.0, 0.0, 0.1, 0.5, 1.0)),
        # Of one kind, so that some fail one after another and nothing comes in between.
        fate=rng.choice((None, None, *FATES)),
        renewed=random.Random(f"{seed}/renewal").random() < 0.6,
    )


def _starts(rng: random.Random, lasts: float) -> float:
    """Some time within an hour; often such that the hour ends under way, or just at the start."""
    before_the_end = rng.choice((rng.uniform(0, 3600), rng.uniform(0, min(lasts, 3600.0)), 0.0))
    return 1_800_003_600.0 - before_the_end


def _fleet(rng: random.Random, *, large: bool) -> tuple[dict[str, Any], dict[str, str]]:
    accounts = ["east", "west", "north", "south"][: 4 if large else rng.randint(1, 4)]
    deployments = [
        _deployment(rng, f"{account}-{n}", account)
        for account in accounts
        for n in range(1, 11 if large else rng.choice((2, 2, 3, 4)))
    ]
    if all(deployment.get("weight") == 0 for deployment in deployments):
        del deployments[0]["weight"]
    settings: dict[str, Any] = {
        "default_model": "sora-2",
        "strategy": rng.choice(STRATEGIES),
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


def _cap(rng: random.Random, data: dict[str, Any]) -> None:
    """Limits for some fleets; a generator of their own leaves the rest of a plan as it was."""
    if rng.random() < 0.5:
        return
    for told in (*data["accounts"].values(), *data["deployments"]):
        for limit, most in CAPS.items():
            if rng.random() < 0.25:
                told[limit] = rng.randint(1, most)
        if rng.random() < 0.2:
            told["job_ttl"] = 60.0
    data["settings"]["max_wait"] = rng.choice((0.0, 0.0, 5.0, 40.0))


def _budget(rng: random.Random, data: dict[str, Any]) -> bool:
    """Prices for some fleets, and for some of their accounts a bound on what a day may cost."""
    if rng.random() < 0.7:
        return False
    for told in data["deployments"]:
        told["cost_per_second"] = rng.choice(PRICES)
    for told in data["accounts"].values():
        if rng.random() < 0.7:
            told["max_cost_per_day"] = rng.choice((0.5, 1.0, 2.0, 4.0))
    return True


def _keyed(
    rng: random.Random, errands: tuple[Errand, ...], workers: int, *, large: bool
) -> tuple[Errand, ...]:
    """Some of the submits bear keys, and others repeat them; those come after all the rest."""
    if rng.random() < 0.4:
        return errands
    keyed = list(errands)
    for errand in errands:
        if errand.what not in KEYED or rng.random() < 0.65:
            continue
        key = Key(f"order {errand.number}", errand.number)
        cut = errand.cut
        if cut is None and errand.door == "async" and rng.random() < 0.25:
            cut = _cut(rng)
        keyed[errand.number] = replace(errand, key=key, cut=cut)
        for _ in range(1 if large else rng.choice((1, 1, 2, 3))):
            keyed.append(_repeat(rng, errand, key, len(keyed), workers))
    return tuple(keyed)


def _repeat(rng: random.Random, errand: Errand, key: Key, number: int, workers: int) -> Errand:
    """The same again: at the same time, while the first is under way, soon after, or later."""
    after = rng.choices(
        (0.0, rng.uniform(0.0, 1.0), rng.uniform(1.0, 40.0), rng.uniform(40.0, 400.0)),
        (3, 4, 4, 1),
    )[0]
    door = rng.choice(("async", "async", "blocking"))
    return Errand(
        number=number,
        at=errand.at + after,
        worker=errand.worker if rng.random() < 0.3 else rng.randrange(workers),
        what=errand.what,
        door=door,
        options=_options(rng),
        chance=rng.getrandbits(32),
        cut=_cut(rng) if door == "async" and rng.random() < 0.15 else None,
        key=replace(key, other=rng.random() < 0.15),
    )


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
    options = _options(rng)
    door = rng.choice(("async", "async", "blocking"))
    cut = _cut(rng) if door == "async" and rng.random() < 0.15 else None
    what, at = _what_and_when(rng, lasts)
    return Errand(
        number=number,
        at=at,
        worker=rng.randrange(workers),
        what=what,
        door=door,
        options=options,
        chance=rng.getrandbits(32),
        cut=cut,
    )


def _options(rng: random.Random) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if rng.random() < 0.15:
        options["timeout"] = rng.choice((2.0, 30.0))
    if rng.random() < 0.15:
        options["deadline"] = rng.choice((1.0, 10.0, 100.0))
    if rng.random() < 0.15:
        options["retries"] = rng.choice((0, 1, 5))
    return options


def _cut(rng: random.Random) -> tuple[str, int]:
    return rng.choice(("cancel", "cancel", "kill")), 1 + int(rng.expovariate(0.35))


def _what_and_when(rng: random.Random, lasts: float) -> tuple[str, float]:
    """First things are made, and then follows what is about them; some are made later, too."""
    if rng.random() < 0.5:
        at = rng.choice((0.0, rng.uniform(0, 0.3 * lasts), rng.uniform(0, lasts)))
        return weighted(rng, STARTERS), at
    return weighted(rng, FOLLOW_UPS), rng.uniform(0.1, 1.0) * lasts


def _storm(rng: random.Random, names: list[str], lasts: float) -> Storm:
    starts = rng.choice((0.0, rng.uniform(0, lasts)))
    # Rare operations would hardly ever be met by what strikes at random.
    aims = (None, None, None, "content", "content", "status", "list", "create_character")
    operation = rng.choice(aims)
    return Storm(
        kind=weighted(rng, READ_FAULTS if operation in ("content", "list") else FAULTS),
        starts=starts,
        ends=starts + lasts * (1.0 if operation else rng.choice((0.1, 0.3, 1.0))),
        share=rng.choice((0.1, 0.5, 1.0)),
        deployment=rng.choice((None, rng.choice(names), rng.choice(names))),
        submits=None if operation else rng.choice((None, None, True, False)),
        operation=operation,
    )


def _over_keys(rng: random.Random, errands: tuple[Errand, ...], lasts: float) -> list[Storm]:
    """Where there are keys something more befalls submits, so that there is a doubt to be kept."""
    if rng.random() < 0.4 or not any(errand.key for errand in errands):
        return []
    kind = weighted(rng, FAULTS)
    return [Storm(kind, 0.0, 2 * lasts, share=rng.choice((0.1, 0.3)), submits=True)]


def _blow(rng: random.Random, workers: int, lasts: float, errands: tuple[Errand, ...]) -> Blow:
    # While some call is surely under way, or at any time.
    amid = rng.choice(errands).at + rng.uniform(0.02, 1.0)
    return Blow(
        kind=weighted(rng, BLOWS),
        at=rng.choice((amid, amid, rng.uniform(0, lasts))),
        worker=rng.randrange(workers),
        lasts=rng.choice((1.0, 20.0, 200.0)),
        amount=rng.choice((-120.0, -2.0, 2.0, 120.0)),
    )
