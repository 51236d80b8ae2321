"""One run: calls come, a contender serves them, the provider makes the videos, and all is noted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.quality.provider import Host, Job, Refusal
from benchmarks.quality.scenarios import Scenario
from benchmarks.quality.timeline import Timeline
from benchmarks.quality.traffic import Call, calls

__all__ = ["Attempt", "Contender", "Out", "Result", "Simulation"]

AFTERMATH = 3600.0
"""Seconds after the last call, when a run ends though jobs are still waiting or running."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A submit: when it was sent and answered, of which call, by whom, where to, and what with.

    `status` is 200 where a job came of it, however that ended.
    """

    at: float
    answered_at: float
    call: int
    worker: int
    host: str
    status: int


@dataclass(frozen=True, slots=True)
class Out:
    """A worker took a deployment out of rotation."""

    at: float
    until: float
    host: str
    worker: int
    cause: str


@dataclass(slots=True)
class Result:
    """What came of a run.

    `done` has the time at which each call had its video; `None` for those that were `lost`, and
    for those that were not served before the run ended. `ended` has the end of each job by its
    call, and whether it failed.
    """

    calls: list[Call]
    done: list[float | None]
    lost: set[int] = field(default_factory=set)
    attempts: list[Attempt] = field(default_factory=list)
    outs: list[Out] = field(default_factory=list)
    ended: dict[int, tuple[float, bool]] = field(default_factory=dict)


class Contender(Protocol):
    """Who serves the calls."""

    def begin(self) -> None:
        """The run begins: plan what is to be done of its own accord."""

    def arrive(self, call: Call) -> None:
        """A call has come."""

    def ended(self, job: Job) -> None:
        """A job has ended; only the reference hears of it, and of what changes, by itself."""

    def changed(self) -> None:
        """A host has changed."""

    def reload(self) -> None:
        """There are other hosts now: take up the configuration again."""


class Simulation:
    """The world of one run. Contenders `submit` to it, and hear of nothing but the answer."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self.scenario = scenario
        self.timeline = Timeline()
        self.hosts: dict[str, Host] = {}
        for site in scenario.sites:
            self.add(site.name)
        traffic = calls(scenario.rate, scenario.seconds, scenario.bursts, seed)
        self.result = Result(traffic, [None] * len(traffic))
        self._open = set(range(len(traffic)))
        self.contender: Contender

    @property
    def served(self) -> list[Host]:
        return list(self.hosts.values())

    def add(self, name: str) -> None:
        """A host of the scenario is there from now on."""
        site = next(s for s in (*self.scenario.sites, *self.scenario.later) if s.name == name)
        self.hosts[name] = Host(self.timeline, site, self._ended)

    def run(self, contender: Contender) -> Result:
        self.contender = contender
        for change in self.scenario.changes:
            self.timeline.at(change.at, self._change, change.act)
        for call in self.result.calls:
            self.timeline.at(call.at, contender.arrive, call)
        contender.begin()
        until = self.scenario.seconds + AFTERMATH
        self.timeline.run(lambda: bool(self._open) and self.timeline.now < until)
        return self.result

    def _change(self, act: Callable[[Simulation], object]) -> None:
        act(self)
        self.contender.changed()

    def submit(
        self, call: Call, worker: int, host: str, answered: Callable[[Job | Refusal], object]
    ) -> None:
        """Send a call to a host; `answered` is called when the answer is there."""
        at = self.timeline.now
        seconds, refusal = self.hosts[host].answers(call)

        def arrived() -> None:
            answer = refusal or self.hosts[host].accept(call)
            status = answer.status if isinstance(answer, Refusal) else 200
            now = self.timeline.now
            self.result.attempts.append(Attempt(at, now, call.number, worker, host, status))
            answered(answer)

        self.timeline.after(seconds, arrived)

    def lost(self, call: Call) -> None:
        """Nothing will come of this call."""
        self._open.discard(call.number)
        self.result.lost.add(call.number)

    def _ended(self, job: Job) -> None:
        number, now = job.call.number, self.timeline.now
        self.result.ended[number] = now, job.failed
        if job.failed:
            self.lost(job.call)
        else:
            self.result.done[number] = now
            self._open.discard(number)
        self.contender.ended(job)
