"""Which deployments may serve a call, and which of them does.

Two questions, kept apart. What the configuration answers (named group, owner's account, what the
provider can do, the tier) is the same for every call of a kind, so it is answered once and kept as
`tiers`. What changes (who is out of rotation, who was tried, who is quickest) is asked at each
pick, of at most 32 candidates; in larger tiers of a sample, so that a pick costs the same from
there on.

Everything here is pure: no network, no clock; the random generator is handed in.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from router.config import Deployment
from router.observations import Cause, Ejection
from router.types import Operation

__all__ = [
    "Candidate",
    "Obstacle",
    "Route",
    "Tier",
    "choose",
    "explain",
    "obstacle",
    "rank",
    "tiers",
]

SCORED_AT_MOST = 32
SAMPLE = 8


class InRotation(Protocol):
    """What selection asks of a deployment's health."""

    latest: float

    def ejection(
        self, operation: Operation, now: float, ignoring: Iterable[Cause] = ()
    ) -> Ejection | None: ...


@dataclass(slots=True, eq=False)
class Candidate:
    """A deployment with what is known of it. `load` is for the strategy alone to read."""

    deployment: Deployment
    dialect: str
    health: InRotation
    load: Any


_FOR_SUBMITS = (Cause.DRAINED,)
_FOR_READS = (Cause.DRAINED, Cause.FAILURES)


@dataclass(frozen=True, slots=True)
class Route:
    """What a call asks of whoever serves it.

    `names`: the groups, `None` for all. `owners`: the accounts that may serve it, `None` for all.
    `follow_up`: it names something that exists, so failure counting keeps no owner's read away.
    """

    operation: Operation
    names: tuple[str, ...] | None = None
    provider: str | None = None
    owners: tuple[str, ...] | None = None
    follow_up: bool = False

    @property
    def ignoring(self) -> tuple[Cause, ...]:
        """What keeps nobody away from this call: who is drained still serves what it owns."""
        if not self.follow_up:
            return ()
        return _FOR_SUBMITS if self.operation.is_submit else _FOR_READS


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a deployment does not serve a call: a verdict of `explain`, and its reason in words."""

    verdict: str
    reason: str


CandidateT = TypeVar("CandidateT", bound=Candidate)


@dataclass(frozen=True, slots=True, eq=False)
class Tier(Generic[CandidateT]):
    """Candidates of one `order`, with what a draw needs, laid out once."""

    candidates: tuple[CandidateT, ...]
    loads: tuple[Any, ...]
    weights: tuple[float, ...]
    cumulative: tuple[float, ...]

    @classmethod
    def of(cls, candidates: Iterable[CandidateT]) -> Tier[CandidateT]:
        members = tuple(candidates)
        weights = tuple(c.deployment.weight for c in members)
        shares = weights if any(weights) else (1.0,) * len(members)
        loads = tuple(c.load for c in members)
        return cls(members, loads, weights, tuple(itertools.accumulate(shares)))


def obstacle(candidate: Candidate, route: Route) -> Obstacle | None:
    """What the configuration has against a deployment serving this route; `None` for nothing."""
    deployment = candidate.deployment
    if route.names is not None and not set(route.names) & set(deployment.model_names):
        return Obstacle("not-named", f"its groups are {', '.join(deployment.model_names)}")
    if route.provider is not None and route.provider not in (
        deployment.provider,
        candidate.dialect,
    ):
        return Obstacle("not-named", f"its provider is {deployment.provider}")
    if route.owners is not None and deployment.account not in route.owners:
        return Obstacle("not-owner", f"its account is {deployment.account}")
    if route.operation not in deployment.operations:
        return Obstacle("unsupported", f"{deployment.provider} cannot do {route.operation}")
    if not deployment.weight and route.operation.is_submit and not route.follow_up:
        return Obstacle("drained", "its weight is 0: follow-ups only")
    return None


def tiers(candidates: Iterable[CandidateT], route: Route) -> tuple[Tier[CandidateT], ...]:
    """The candidates of a route, lowest `order` first."""
    allowed = [c for c in candidates if obstacle(c, route) is None]
    allowed.sort(key=lambda c: c.deployment.order)
    grouped = itertools.groupby(allowed, key=lambda c: c.deployment.order)
    return tuple(Tier.of(members) for _, members in grouped)


Scores = Callable[[Sequence[Any], Operation, float], Sequence[float]]
Draw = Callable[[Sequence[float], Sequence[float], random.Random], int]


def choose(
    tiers: Sequence[Tier[CandidateT]],
    route: Route,
    scores: Scores,
    draw: Draw,
    *,
    now: float,
    rng: random.Random,
    tried: Collection[CandidateT] = (),
) -> CandidateT | None:
    """The candidate that serves next; `None` when each is out of rotation or was tried."""
    for tier in tiers:
        members, loads, weights = _standing(tier, route, now, rng, tried)
        if len(members) == 1:
            return members[0]
        if members:
            return members[draw(scores(loads, route.operation, now), weights, rng)]
    return None


def rank(
    tiers: Sequence[Tier[CandidateT]],
    route: Route,
    scores: Scores,
    draw: Draw,
    *,
    now: float,
    rng: random.Random,
    tried: Collection[CandidateT] = (),
) -> list[CandidateT]:
    """All that may serve, in the order in which to ask them for room: tier by tier, drawn first."""
    ranked: list[CandidateT] = []
    for tier in tiers:
        members, loads, weights = _standing(tier, route, now, rng, tried)
        if not members:
            continue
        found = scores(loads, route.operation, now)
        first = draw(found, weights, rng)
        others = sorted((i for i in range(len(members)) if i != first), key=found.__getitem__)
        ranked += [members[i] for i in (first, *others)]
    return ranked


def _standing(
    tier: Tier[CandidateT],
    route: Route,
    now: float,
    rng: random.Random,
    tried: Collection[CandidateT],
) -> tuple[Sequence[CandidateT], Sequence[Any], Sequence[float]]:
    """Who is in rotation, with their loads, and the weights that are still to have their say."""
    members = tier.candidates
    if len(members) > SCORED_AT_MOST:
        sampled = rng.choices(members, cum_weights=tier.cumulative, k=SAMPLE)
        standing = _in_rotation(sampled, route, now, tried)
        if standing:
            # The sample was drawn by weight, which counts once.
            return standing, [c.load for c in standing], [1.0] * len(standing)
    standing = _in_rotation(members, route, now, tried)
    if len(standing) == len(members):
        return members, tier.loads, tier.weights
    return standing, [c.load for c in standing], [c.deployment.weight for c in standing]


def _in_rotation(
    members: Iterable[CandidateT], route: Route, now: float, tried: Collection[CandidateT]
) -> list[CandidateT]:
    ignoring = route.ignoring
    return [
        c
        for c in members
        if (c.health.latest <= now or c.health.ejection(route.operation, now, ignoring) is None)
        and c not in tried
    ]


def explain(
    candidates: Iterable[CandidateT],
    route: Route,
    scores: Scores,
    draw: Draw,
    *,
    now: float,
    rng: random.Random,
) -> list[tuple[CandidateT, Obstacle, float | None]]:
    """Each deployment with its verdict and, where it came to that, its score."""
    known = list(candidates)
    served = tiers(known, route)
    picked = choose(served, route, scores, draw, now=now, rng=rng)
    explained = []
    for candidate in known:
        tier = next((t for t in served if candidate in t.candidates), None)
        serving = tier is not None and picked is not None and picked in tier.candidates
        score = None
        if tier is not None:
            peers = tier.candidates
            score = scores([c.load for c in peers], route.operation, now)[peers.index(candidate)]
        verdict = _verdict(candidate, route, now, picked, serving=serving)
        explained.append((candidate, verdict, score))
    return explained


def _verdict(
    candidate: Candidate, route: Route, now: float, picked: Candidate | None, *, serving: bool
) -> Obstacle:
    against = obstacle(candidate, route)
    if against is not None:
        return against
    ejection = candidate.health.ejection(route.operation, now, route.ignoring)
    if ejection is not None and ejection.cause is Cause.DRAINED:
        return Obstacle("drained", ejection.reason)
    if ejection is not None:
        return Obstacle("ejected", f"{ejection.reason}, for {ejection.until - now:.1f} s more")
    if candidate is picked:
        return Obstacle("picked", "the best of its tier")
    if not serving:
        return Obstacle("tier", f"its order is {candidate.deployment.order}, a lower one serves")
    return Obstacle("lost", "another scored better, or was drawn among equals")
