"""The scenarios: which hosts there are, what comes, and what happens to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.quality.provider import Refusal, Site
from benchmarks.quality.traffic import MEAN_LENGTH, Burst

if TYPE_CHECKING:
    from benchmarks.quality.simulation import Simulation

__all__ = ["JOB_SECONDS", "SCENARIOS", "TRIALS", "Change", "Scenario"]

PACE = 10.0
JOB_SECONDS = PACE * MEAN_LENGTH
"""A job of the mean length at the usual pace."""
MIDDLE = 1200.0
"""When things change: by then every contender has its habits."""
DEAD_SECONDS = 300.0
THROTTLED_SECONDS = 600.0
YEAR = 365 * 86_400

Act = Callable[["Simulation"], object]


@dataclass(frozen=True)
class Change:
    """Something happens to the provider."""

    at: float
    what: str
    act: Act


@dataclass(frozen=True)
class Scenario:
    """`load` is a share of what the hosts that are there at first can do; `loads` are all tried.

    What came before `warm_up` is not counted. `later` are hosts that come with a change. `changed`
    are the hosts that the changes are about; without any, the scenario is static.
    """

    name: str
    title: str
    sites: tuple[Site, ...]
    loads: tuple[float, ...]
    load: float
    seconds: float
    warm_up: float = 400.0
    later: tuple[Site, ...] = ()
    changes: tuple[Change, ...] = ()
    bursts: tuple[Burst, ...] = ()
    changed: tuple[str, ...] = ()
    retry_on_5xx: bool = False

    @property
    def rate(self) -> float:
        """Calls a second, bursts aside."""
        return self.load * sum(site.capacity for site in self.sites)

    def at(self, load: float) -> Scenario:
        return replace(self, load=load)


def _sites(count: int, slots: int, cap: int | None = None) -> tuple[Site, ...]:
    return tuple(Site(f"d{index}", slots, PACE, cap) for index in range(count))


def _refuse(refusal: Refusal | None, *names: str) -> Act:
    def act(run: Simulation) -> None:
        for name in names:
            run.hosts[name].refusing = refusal

    return act


# Nothing changes ---------------------------------------------------------------------------------


def _even() -> Scenario:
    return Scenario(
        "even",
        "8 equal deployments",
        _sites(8, slots=4),
        loads=(0.3, 0.5, 0.7, 0.9),
        load=0.7,
        seconds=3000.0,
    )


def _three_speeds() -> Scenario:
    speeds = (("fast", 60.0, 0.30), ("usual", 120.0, 0.20), ("slow", 240.0, 0.10))
    sites = tuple(
        Site(f"{name}{index}", 4, seconds / MEAN_LENGTH, price=price)
        for name, seconds, price in speeds
        for index in range(3)
    )
    return Scenario(
        "three-speeds",
        "60, 120 and 240 s a job, 3 deployments of each",
        sites,
        loads=(0.3, 0.5, 0.7, 0.9),
        load=0.7,
        seconds=3900.0,
        warm_up=900.0,
    )


def _caps() -> Scenario:
    return Scenario(
        "caps",
        "8 deployments capped at 4 jobs, bursts of 24",
        _sites(8, slots=4, cap=4),
        loads=(0.3, 0.5),
        load=0.5,
        seconds=3000.0,
        bursts=tuple(Burst(500.0 + 300.0 * index, 24) for index in range(8)),
    )


# Something does ----------------------------------------------------------------------------------


def _slow_middle() -> Scenario:
    def slow(run: Simulation) -> None:
        run.hosts["d0"].set_pace(5 * PACE)

    return Scenario(
        "slow-middle",
        "one of 6 turns 5 × slower",
        _sites(6, slots=8),
        loads=(0.3, 0.6),
        load=0.6,
        seconds=2700.0,
        changes=(Change(MIDDLE, "d0 turns slow", slow),),
        changed=("d0",),
    )


def _denied() -> Scenario:
    body = b'{"error": {"code": "invalid_api_key", "message": "Incorrect API key provided"}}'
    refusal = Refusal(401, 0.02, body=body)
    return Scenario(
        "denied",
        "one of 6 answers 401 within 20 ms",
        _sites(6, slots=8),
        loads=(0.6,),
        load=0.6,
        seconds=2400.0,
        changes=(Change(MIDDLE, "d0 answers 401", _refuse(refusal, "d0")),),
        changed=("d0",),
    )


def _black_hole() -> Scenario:
    def fail(run: Simulation) -> None:
        run.hosts["d0"].failing_after = 2.0

    return Scenario(
        "black-hole",
        "the jobs of one of 6 fail after 2 s",
        _sites(6, slots=8),
        loads=(0.6,),
        load=0.6,
        seconds=2400.0,
        changes=(Change(MIDDLE, "jobs at d0 fail", fail),),
        changed=("d0",),
    )


def _dies() -> Scenario:
    def die(run: Simulation) -> None:
        run.hosts["d0"].up, run.hosts["d0"].refusing = False, Refusal(502, 0.02)

    def come_back(run: Simulation) -> None:
        run.hosts["d0"].up, run.hosts["d0"].refusing = True, None

    return Scenario(
        "dies",
        f"one of 4 is gone for {DEAD_SECONDS:.0f} s, and comes back",
        _sites(4, slots=12),
        loads=(0.6,),
        load=0.6,
        seconds=2700.0,
        changes=(
            Change(MIDDLE, "d0 is gone", die),
            Change(MIDDLE + DEAD_SECONDS, "d0 is back", come_back),
        ),
        changed=("d0",),
        retry_on_5xx=True,
    )


def _newcomer() -> Scenario:
    def come(run: Simulation) -> None:
        run.add("new")
        run.contender.reload()

    return Scenario(
        "newcomer",
        "a 5th deployment beside 4 that have much to do",
        _sites(4, slots=12),
        loads=(0.7,),
        load=0.7,
        seconds=2700.0,
        later=(Site("new", 12),),
        changes=(Change(MIDDLE, "the new one is configured", come),),
        changed=("new",),
    )


def _throttled() -> Scenario:
    body = b'{"error": {"code": "rate_limit_exceeded", "message": "Rate limit reached"}}'
    refusal = Refusal(429, 0.05, {"retry-after": "15"}, body)
    acme = tuple(Site(f"d{index}", 8, PACE, account="acme") for index in range(2))
    return Scenario(
        "throttled",
        f"the account of 2 of 6 answers 429 for {THROTTLED_SECONDS:.0f} s",
        (*acme, *_sites(6, slots=8)[2:]),
        loads=(0.5,),
        load=0.5,
        seconds=2700.0,
        changes=(
            Change(MIDDLE, "acme answers 429", _refuse(refusal, "d0", "d1")),
            Change(MIDDLE + THROTTLED_SECONDS, "acme answers again", _refuse(None, "d0", "d1")),
        ),
        changed=("d0", "d1"),
    )


SCENARIOS: dict[str, Callable[[], Scenario]] = {
    "even": _even,
    "three-speeds": _three_speeds,
    "caps": _caps,
    "slow-middle": _slow_middle,
    "denied": _denied,
    "black-hole": _black_hole,
    "dies": _dies,
    "newcomer": _newcomer,
    "throttled": _throttled,
}


# Trials: one question each -----------------------------------------------------------------------

BURST = 40
ASKED_AT = 600.0


def _burst() -> Scenario:
    return Scenario(
        "burst",
        f"{BURST} calls at once, five times, on 4 equal and idle deployments",
        _sites(4, slots=20),
        loads=(0.2,),
        load=0.2,
        seconds=400.0,
        bursts=tuple(Burst(ASKED_AT + 300.0 * index, BURST) for index in range(5)),
    )


def _slow(name: str, title: str, act: Act, seconds: float) -> Scenario:
    return Scenario(
        name,
        title,
        _sites(4, slots=20),
        loads=(0.4,),
        load=0.4,
        seconds=seconds,
        changes=(Change(ASKED_AT, "one slow sample of d0", act),),
        changed=("d0",),
    )


def _slow_answer() -> Scenario:
    def act(run: Simulation) -> None:
        run.hosts["d0"].stall = 30.0

    return _slow("slow-answer", "one answer of one of 4 takes 30 s", act, 1250.0)


def _slow_job() -> Scenario:
    def act(run: Simulation) -> None:
        run.hosts["d0"].drag = 5.0

    return _slow("slow-job", "one job at one of 4 takes 5 × as long", act, 1900.0)


def _retry_after(name: str, seconds: int) -> Scenario:
    def act(run: Simulation) -> None:
        run.hosts["d0"].once = Refusal(429, 0.05, {"retry-after": str(seconds)})

    return Scenario(
        name,
        f"one of 4 says once that it wants to be left alone for {seconds} s",
        _sites(4, slots=20),
        loads=(0.5,),
        load=0.5,
        seconds=1000.0,
        changes=(Change(ASKED_AT, "d0 answers 429, once", act),),
        changed=("d0",),
    )


TRIALS: dict[str, Callable[[], Scenario]] = {
    "burst": _burst,
    "slow-answer": _slow_answer,
    "slow-job": _slow_job,
    "retry-after-year": lambda: _retry_after("retry-after-year", YEAR),
    "retry-after-0": lambda: _retry_after("retry-after-0", 0),
}
