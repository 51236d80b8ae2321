"""Which deployments may serve a call, and which of them does.

Two questions, kept apart. What the configuration answers (named group, owner's account, what the
provider can do, the tier, the groups to fall back on) is the same for every call of a kind, so it
is answered once and kept as `tiers`. What changes (who is out of rotation, who was tried, who is
quickest) is asked at each pick, of at most 32 candidates; in larger tiers of a sample, so that a
pick costs the same from there on.

                 tier 1        tier 2   …   fallbacks           panic
    in rotation? ──none──► in rotation? ──none──► … ──none──► out by failures alone?
         │ some                 │ some                              │ some
         └── on trial? ── else: the strategy's choice ◄─────────────┘

Whoever is due for a trial comes first, since one real call is what brings it back. Whoever has just
come back is left out by chance until it has its full share. Failure counting is a guess of ours: it
may prefer others, but where it has put out everybody, nobody is out by it (Envoy's and Finagle's
panic threshold). Where jobs begin to fail, others come first until one at a time has shown
how it is.

Everything here is pure: no network, no clock; the random generator is handed in.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from router.config import Deployment
from router.observations import Cause, Ejection
from router.operations import Demand
from router.types import Operation

__all__ = [
    "Candidate",
    "Obstacle",
    "Question",
    "Route",
    "Tier",
    "Unable",
    "choose",
    "explain",
    "least_bad",
    "obstacle",
    "panicked",
    "rank",
    "tiers",
]

SCORED_AT_MOST = 32
SAMPLE = 8
CATCHING_UP = 1.25
"""How much of its part by weight one gets at most that starts slowly. It has nothing to do, so it
would be chosen whenever it took part."""


class InRotation(Protocol):
    """What selection asks of a deployment's health.

    From `clear_from` until `retires` there is nothing to ask.
    """

    clear_from: float
    retires: float
    doubt: float | None
    """Since when its jobs fail, where the last ones did (Unix seconds)."""

    def ejection(
        self, operation: Operation, now: float, ignoring: Iterable[Cause] = ()
    ) -> Ejection | None: ...

    def is_out(self, operation: Operation, now: float, ignoring: Sequence[Cause] = ()) -> bool: ...

    def on_trial(self, operation: Operation, now: float) -> bool:
        """Whether it is out until one call, which may be this one, has gone well."""

    def share(self, operation: Operation, now: float) -> float:
        """How much of its share of new work it takes, from 0 to 1."""


@dataclass(slots=True, eq=False)
class Candidate:
    """A deployment with what is known of it. `load` is for the strategy to read."""

    deployment: Deployment
    dialect: str
    health: InRotation
    load: Any
    job_cap: int | None


_FOR_SUBMITS = (Cause.DRAINED, Cause.RETIRED)
_FOR_READS = (*_FOR_SUBMITS, Cause.FAILURES)


@dataclass(frozen=True, slots=True)
class Unable:
    """Deployments of one kind that cannot take what a call carries, and what they would take.

    `whole`: an argument as such, and not only its value.
    """

    provider: str
    model: str
    drop_params: bool
    advice: str
    whole: bool

    def is_true_of(self, deployment: Deployment) -> bool:
        kind = deployment.provider, deployment.model, deployment.drop_params
        return kind == (self.provider, self.model, self.drop_params)


@dataclass(frozen=True, slots=True)
class Route:
    """What a call asks of whoever serves it.

    `names`: the groups, `None` for all. `owners`: the accounts that may serve it, `None` for all.
    `follow_up`: it names something that exists, so failure counting keeps no owner's read away.
    `fallbacks`: the groups to go to where nobody of the others is left. `unable`: who cannot take
    what the call carries.
    """

    operation: Operation
    names: tuple[str, ...] | None = None
    provider: str | None = None
    owners: tuple[str, ...] | None = None
    follow_up: bool = False
    fallbacks: tuple[str, ...] = ()
    unable: tuple[Unable, ...] = ()

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
    weights: tuple[float, ...]
    cumulative: tuple[float, ...]

    @classmethod
    def of(cls, candidates: Iterable[CandidateT]) -> Tier[CandidateT]:
        members = tuple(candidates)
        weights = tuple(c.deployment.weight for c in members)
        shares = weights if any(weights) else (1.0,) * len(members)
        return cls(members, weights, tuple(itertools.accumulate(shares)))


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
    for unable in route.unable:
        if unable.is_true_of(deployment):
            return Obstacle("unsupported", unable.advice)
    if not deployment.weight and route.operation.is_submit and not route.follow_up:
        return Obstacle("drained", "its weight is 0: follow-ups only")
    return None


def tiers(candidates: Iterable[CandidateT], route: Route) -> tuple[Tier[CandidateT], ...]:
    """The candidates of a route, lowest `order` first, and after them those of its fallbacks."""
    known = list(candidates)
    found = _by_order(known, route)
    taken = {id(c) for tier in found for c in tier.candidates}
    for name in route.fallbacks if found else ():
        others = [c for c in known if id(c) not in taken]
        further = _by_order(others, dataclasses.replace(route, names=(name,), fallbacks=()))
        taken.update(id(c) for tier in further for c in tier.candidates)
        found += further
    return found


def _by_order(candidates: Iterable[CandidateT], route: Route) -> tuple[Tier[CandidateT], ...]:
    allowed = [c for c in candidates if obstacle(c, route) is None]
    allowed.sort(key=lambda c: c.deployment.order)
    grouped = itertools.groupby(allowed, key=lambda c: c.deployment.order)
    return tuple(Tier.of(members) for _, members in grouped)


class Choice(Protocol):
    """What a strategy answers: an index, and the scores."""

    @property
    def chosen(self) -> int: ...
    @property
    def scores(self) -> Sequence[float]: ...


def _plainly(candidate: Any, score: float) -> str:
    return f"{score:.4g}"


Choose = Callable[[Sequence[Any], Sequence[float], Demand, float, random.Random], Choice]


class Question(NamedTuple, Generic[CandidateT]):
    """What is asked of the tiers: for which demand, by which strategy, when, and not these.

    `told` says a candidate's score in words, for who asks why. A tuple, since each pick makes one.
    """

    route: Route
    demand: Demand
    strategy: Choose
    now: float
    rng: random.Random
    tried: Collection[CandidateT] = ()
    told: Callable[[CandidateT, float], str] = _plainly

    def choice(self, members: Sequence[CandidateT], weights: Sequence[float]) -> Choice:
        return self.strategy(members, weights, self.demand, self.now, self.rng)

    def ejection(self, candidate: CandidateT, *ignoring: Cause) -> Ejection | None:
        """What keeps a candidate away from this call now."""
        route = self.route
        return candidate.health.ejection(
            route.operation, self.now, (*route.ignoring, *ignoring) if ignoring else route.ignoring
        )


def choose(tiers: Sequence[Tier[CandidateT]], question: Question[CandidateT]) -> CandidateT | None:
    """The candidate that serves next; `None` when each is out of rotation or was tried.

    One that is due for a trial is to be asked for it: another worker may have been quicker.
    """
    for tier in tiers:
        members, weights = _standing(tier, question)
        if len(members) == 1:
            return members[0]
        if members:
            return members[question.choice(members, weights).chosen]
    return None


def rank(tiers: Sequence[Tier[CandidateT]], question: Question[CandidateT]) -> list[CandidateT]:
    """All that may serve, in the order in which to ask them for room: tier by tier, drawn first."""
    ranked: list[CandidateT] = []
    for tier in tiers:
        tested, taking, late = _in_rotation(tier.candidates, question)
        ranked += tested
        for members in (taking, late):
            ranked += _ranked(members, question)
    return ranked


def _ranked(members: Sequence[CandidateT], question: Question[CandidateT]) -> Sequence[CandidateT]:
    if len(members) < 2:
        return members
    choice = question.choice(members, _weights(members))
    others = (i for i in range(len(members)) if i != choice.chosen)
    return [members[i] for i in (choice.chosen, *sorted(others, key=choice.scores.__getitem__))]


def panicked(tiers: Sequence[Tier[CandidateT]], question: Question[CandidateT]) -> list[CandidateT]:
    """Who may serve where nobody is in rotation: those whom failure counting alone keeps out.

    In the order in which to ask them for room: by weight and not by times, since what is known of
    them is how they fail.
    """
    left = [
        c
        for tier in tiers
        for c in tier.candidates
        if c not in question.tried and question.ejection(c, Cause.FAILURES) is None
    ]
    return _by_weight(left, question.rng)


def least_bad(
    tiers: Sequence[Tier[CandidateT]], question: Question[CandidateT]
) -> list[CandidateT]:
    """Who is out, the shortest time first, of those that were not tried."""
    ends = [
        (ejection.until, index, c)
        for index, c in enumerate(c for tier in tiers for c in tier.candidates)
        if c not in question.tried and (ejection := question.ejection(c)) is not None
    ]
    return [c for _, _, c in sorted(ends)]


def _standing(
    tier: Tier[CandidateT], question: Question[CandidateT]
) -> tuple[Sequence[CandidateT], Sequence[float]]:
    """Who is to be chosen from, with the weights that are still to have their say."""
    members = tier.candidates
    if len(members) > SCORED_AT_MOST:
        sampled = question.rng.choices(members, cum_weights=tier.cumulative, k=SAMPLE)
        found = _first(_in_rotation(dict.fromkeys(sampled), question))
        if found:
            # The sample was drawn by weight, which counts once.
            return found, [1.0] * len(found)
    found = _first(_in_rotation(members, question))
    return found, tier.weights if len(found) == len(members) else _weights(found)


Parted = tuple[Sequence[CandidateT], Sequence[CandidateT], Sequence[CandidateT]]


def _in_rotation(
    members: Collection[CandidateT], question: Question[CandidateT]
) -> Parted[CandidateT]:
    """Who is due for a trial, who takes part in this draw, and who is left out of it by chance."""
    now, tried = question.now, question.tried
    clear = [c for c in members if c.health.clear_from <= now < c.health.retires and c not in tried]
    if len(clear) == len(members):
        return (), clear, ()
    operation, rng = question.route.operation, question.rng
    whole = sum(_weights(members)) or math.inf
    parted: tuple[list[CandidateT], list[CandidateT], list[CandidateT]] = ([], [], [])
    sure = set(clear)
    for c in members:
        if c in sure:
            parted[1].append(c)
        elif c not in tried and not c.health.is_out(operation, now, question.route.ignoring):
            parted[_part(c, operation, now, rng, whole)].append(c)
    return parted


def _part(
    candidate: Candidate, operation: Operation, now: float, rng: random.Random, whole: float
) -> int:
    """Of one that is in rotation, and not quite clear: which part it belongs to."""
    health = candidate.health
    if health.on_trial(operation, now):
        return 0
    share = health.share(operation, now)
    if share < 1.0:
        share = min(share, CATCHING_UP * candidate.deployment.weight / whole)
    taking = (share >= 1.0 or rng.random() < share) and not _is_doubted(candidate, operation)
    return 1 if taking else 2


def _is_doubted(candidate: Candidate, operation: Operation) -> bool:
    """Whether one more job is not to follow those that failed until it is known how one ends."""
    since = candidate.health.doubt
    return since is not None and operation.starts_job and candidate.load.younger(since) > 0


def _first(parted: Parted[CandidateT]) -> Sequence[CandidateT]:
    tested, taking, late = parted
    return tested[:1] or taking or late


def _weights(members: Iterable[CandidateT]) -> list[float]:
    return [c.deployment.weight for c in members]


def _by_weight(members: Sequence[CandidateT], rng: random.Random) -> list[CandidateT]:
    """All of them, as draws by weight that put nobody back would bring them."""
    # Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006.
    keys = [rng.random() ** (1.0 / (c.deployment.weight or 1.0)) for c in members]
    return [members[i] for i in sorted(range(len(members)), key=keys.__getitem__, reverse=True)]


# Explaining -------------------------------------------------------------------------------------


def explain(
    candidates: Iterable[CandidateT],
    tiers: Sequence[Tier[CandidateT]],
    question: Question[CandidateT],
) -> list[tuple[CandidateT, Obstacle, float | None]]:
    """Each deployment with its verdict and, where it came to that, its score."""
    places = {c.deployment.id: place for place, tier in enumerate(tiers) for c in tier.candidates}
    scores = {c.deployment.id: score for tier in tiers for c, score in _scored(tier, question)}
    picked = choose(tiers, question)
    panic = picked is None
    if panic:
        picked = next(iter(panicked(tiers, question)), None)
    explained = []
    for candidate in candidates:
        name = candidate.deployment.id
        score = scores.get(name)
        if name not in places:
            verdict = obstacle(candidate, question.route) or _TAKEN_TWICE
        elif candidate is picked:
            verdict = Obstacle(
                "picked", _why_picked(candidate, question, scores[name], panic=panic)
            )
        elif picked is None or places[name] == places[picked.deployment.id] or panic:
            verdict = _why_not(candidate, question) or Obstacle(
                "lost", _why_lost(candidate, picked, scores, question)
            )
        else:
            verdict = _why_not(candidate, question) or _later(candidate, question)
        explained.append((candidate, verdict, score))
    return explained


_TAKEN_TWICE = Obstacle("lost", "it is among the candidates already")


def _scored(
    tier: Tier[CandidateT], question: Question[CandidateT]
) -> Iterable[tuple[CandidateT, float]]:
    return zip(tier.candidates, question.choice(tier.candidates, tier.weights).scores, strict=True)


def _why_picked(candidate: Candidate, question: Question[Any], score: float, *, panic: bool) -> str:
    if panic:
        return "everybody is out, and failures alone keep nobody out then"
    if candidate.health.on_trial(question.route.operation, question.now):
        return "it is due for a trial"
    said = question.told(candidate, score)
    return f"the best of its tier, or drawn among the best: its score is {said}"


def _why_not(candidate: Candidate, question: Question[Any]) -> Obstacle | None:
    ejection = question.ejection(candidate)
    if ejection is None:
        return None
    if ejection.cause in (Cause.DRAINED, Cause.RETIRED):
        return Obstacle("drained", ejection.reason)
    return Obstacle("ejected", f"{ejection.reason}, {ejection.lasts(question.now, ' more')}")


def _why_lost(
    candidate: CandidateT,
    picked: CandidateT | None,
    scores: Mapping[str, float],
    question: Question[CandidateT],
) -> str:
    if picked is None:
        return "nobody was picked"
    score, best = scores[candidate.deployment.id], scores[picked.deployment.id]
    said = question.told(candidate, score)
    if score <= best:
        return f"its score is {said}; another of the best was drawn, or one that is less known"
    return f"its score is {said}, and {question.told(picked, best)} was to be had"


def _later(candidate: Candidate, question: Question[Any]) -> Obstacle:
    names = question.route.names
    if names is not None and not set(names) & set(candidate.deployment.model_names):
        return Obstacle("tier", "it is a fallback, for when nobody else is left")
    order = candidate.deployment.order
    return Obstacle("tier", f"its order is {order}, and another one serves")
