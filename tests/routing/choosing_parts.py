"""What the tests of choosing share: candidates as values, workers that pick, and jobs that take."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from routing_parts import FakeClock, deployment, serving

from router import Router
from router.balancing import STRATEGIES, Load, Strategy
from router.config import Deployment
from router.health import Health
from router.leases import Job
from router.observations import BOTH, Cause, Ejection, epoch_of, sample
from router.operations import Demand
from router.selection import Candidate, Question, Route, Tier, choose, tiers
from router.testing import StandIn
from router.types import Operation

__all__ = [
    "GENERATION",
    "NOW",
    "Jobs",
    "Worker",
    "candidate",
    "eject",
    "four",
    "held",
    "took",
]

GENERATION = Operation.GENERATION
NOW = 1_800_000_000.0


def candidate(
    name: str,
    weight: float = 1.0,
    *,
    latency: float | None = None,
    in_flight: int = 0,
    job_cap: int | None = None,
    **told: Any,
) -> Candidate:
    """A deployment in rotation; `latency` of its generations is in seconds, if it is known."""
    load = Load()
    load.in_flight = in_flight
    if latency is not None:
        load.add(GENERATION, epoch_of(NOW), sample(latency, NOW))
    written = Deployment(
        id=name,
        model_names=("sora-2",),
        account=name,
        provider="openai",
        model="sora-2",
        base_url="http://host/v1",
        weight=weight,
        operations=frozenset(Operation),
        **told,
    )
    return Candidate(written, "openai", Health(), load, job_cap)


def health_of(one: Candidate) -> Health:
    assert isinstance(one.health, Health)
    return one.health


def eject(one: Candidate, cause: Cause = Cause.THROTTLED, seconds: float = 60.0) -> None:
    health_of(one).eject(Ejection(BOTH, NOW + seconds, cause, "for a test", at=NOW - 1))


class Worker:
    """One worker's picks among candidates, by a strategy and with a seed.

    With `keeps` its jobs are accepted at once and stay, as far as this worker knows; with `holds`
    they are not even answered. Without either its view stays as it is, but for whose turn it was.
    """

    def __init__(
        self,
        members: Sequence[Candidate],
        strategy: Strategy | str,
        seed: int = 1,
        *,
        keeps: bool = False,
        holds: bool = False,
    ) -> None:
        self.strategy = STRATEGIES[strategy] if isinstance(strategy, str) else strategy
        self.rng = random.Random(seed)
        self.members = members
        self.keeps, self.holds = keeps, holds
        self.picks = 0
        self._tiers: dict[tuple[Route, int], tuple[Tier[Candidate], ...]] = {}

    def pick(
        self,
        operation: Operation = GENERATION,
        *,
        among: Sequence[Tier[Candidate]] | None = None,
        tried: Iterable[Candidate] = (),
        now: float = NOW,
        follow_up: bool = False,
        demand: Demand | None = None,
    ) -> Candidate | None:
        route = Route(operation, follow_up=follow_up)
        demand = demand or Demand(operation)
        question = Question(route, demand, self.strategy, now, self.rng, frozenset(tried))
        found = choose(self._known(route) if among is None else among, question)
        if found is not None:
            self.picks += 1
            found.load.picked[operation] = self.picks
            if self.keeps:
                found.load.started(self._job(found.deployment, operation))
            if self.holds:
                found.load.enter(operation)
        return found

    def _job(self, at: Deployment, operation: Operation) -> Job:
        native = f"video_{self.picks}"
        return Job(at.account, native, at.id, str(operation), "me", NOW, NOW, "queued", 4.0)

    def _known(self, route: Route) -> tuple[Tier[Candidate], ...]:
        key = route, len(self.members)
        if key not in self._tiers:
            self._tiers[key] = tiers(self.members, route)
        return self._tiers[key]

    def names(self, times: int, **how: Any) -> list[str]:
        found = [self.pick(**how) for _ in range(times)]
        return [one.deployment.id for one in found if one is not None]

    def shares(self, times: int, **how: Any) -> Counter[str]:
        return Counter(self.names(times, **how))


# Through a router -------------------------------------------------------------------------------


def four(provider: StandIn, *deployments: Mapping[str, Any], **parts: Any) -> Router:
    """A router over the four accounts a to d, unless other deployments are given."""
    told = deployments or tuple(deployment(f"{name}-1") for name in "abcd")
    router = serving(provider, *told, **parts)
    return router


def took(router: Router, clock: FakeClock, account: str, seconds: float, **named: Any) -> None:
    """A generation at this account, by the caller's own client: its answer took so long.

    The job is called off at once.
    """
    with router.pick("generation", account=account, **named) as attempt:
        clock.advance(seconds)
        router.observe(attempt.accepted("video_0"), "cancelled")


@contextmanager
def held(router: Router, times: int, **named: Any) -> Iterator[list[str]]:
    """So many generations at once, none of which has been answered; where they went."""
    with ExitStack() as leaving:
        picks = [router.pick("generation", **named) for _ in range(times)]
        attempts = [leaving.enter_context(pick) for pick in picks]
        yield [attempt.deployment for attempt in attempts]
        for attempt in attempts:
            attempt.failed(400)


class Jobs:
    """A fleet of one deployment for each account, and jobs that take as long as `seconds` says.

    Seconds are of the fake clock; a job's video is 4 seconds long unless it is told otherwise.
    """

    def __init__(
        self, *accounts: str, strategy: str = "lowest-completion", **details: Mapping[str, Any]
    ) -> None:
        self.clock = FakeClock()
        self.seconds: dict[str, float] = dict.fromkeys(accounts, 40.0)
        self.provider = StandIn(
            accounts={f"sk-{name}": name for name in accounts},
            job_seconds=lambda operation, account: self.seconds[account],
            clock=self.clock,
            seed=1,
        )
        self.router = serving(
            self.provider,
            *[deployment(f"{name}-1", **details.get(name, {})) for name in accounts],
            clock=self.clock,
            settings={"strategy": strategy},
        )

    def start(self, account: str, times: int = 1, **named: Any) -> list[str]:
        """Jobs at this account; their ids."""
        told = {"prompt": "x", "account": account, **named}
        return [str(self.router.video_generation(**told).id) for _ in range(times)]

    def see(self, videos: Iterable[str], status: str | None = None) -> None:
        """Look after them, or hear from elsewhere that they are as `status` says."""
        for video in videos:
            if status is None:
                self.router.video_status(video)
            else:
                self.router.observe(video, status)

    def known(self, times: int = 3, **seconds: float) -> None:
        """Have jobs end at each account, which take so many seconds there."""
        self.seconds.update(seconds)
        for account, lasts in seconds.items():
            videos = self.start(account, times)
            self.clock.advance(lasts)
            self.see(videos)

    def next(self, times: int = 40, **named: Any) -> Counter[str]:
        """Where a next generation would go, asked so many times; each is given up at once."""
        found: list[str] = []
        for _ in range(times):
            with self.router.pick("generation", **named) as attempt:
                found.append(attempt.account)
                attempt.failed(400)
        return Counter(found)
