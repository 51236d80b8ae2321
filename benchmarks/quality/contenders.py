"""Who serves the calls: what routers have in common, and the reference that no router can be."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from benchmarks.quality.provider import Job, Refusal
from benchmarks.quality.simulation import Simulation
from benchmarks.quality.traffic import Call

__all__ = ["GIVES_UP", "Central", "Choice", "Later", "Routed"]

RETRIES = 2
GIVES_UP = 1200.0
"""Seconds after which a call that found no room is given up."""


@dataclass(frozen=True, slots=True)
class Later:
    """Nobody can take the call now; it is to come again in so many seconds."""

    seconds: float


class Choice(Protocol):
    """A router's pick, to be told what became of it."""

    @property
    def host(self) -> str: ...

    def accepted(self, job: Job) -> None: ...

    def failed(self, refusal: Refusal) -> float | None:
        """Whether the call may be made again: `None` for never, else the seconds after which.

        0: another attempt may follow at once, but when there are no more, the call is lost.
        """


class Routed:
    """What a caller does with any router: pick, send, report, and try again where it may.

    A refused submit is followed by two further attempts at most, each a pick of its own. A router
    that has a queue for calls without room is let wait (ours has, by `max_wait`); a call that is
    refused all the same, or was throttled to the end, comes again when the router says so, as a
    queue worker would have it. All of that time counts.
    """

    def __init__(self, run: Simulation, workers: int) -> None:
        self.run = run
        self.workers = workers

    def pick(self, call: Call, worker: int, then: Callable[[Choice | Later], object]) -> None:
        """Choose the next attempt's deployment, maybe after a wait; `then` is called with it."""
        raise NotImplementedError

    def arrive(self, call: Call) -> None:
        self._attempt(call, int(call.lot * self.workers), 1)

    def _attempt(self, call: Call, worker: int, attempt: int) -> None:
        self.pick(call, worker, partial(self._chosen, call, worker, attempt))

    def _chosen(self, call: Call, worker: int, attempt: int, choice: Choice | Later) -> None:
        if isinstance(choice, Later):
            self._again(call, worker, choice.seconds)
            return
        answered = partial(self._answered, call, worker, attempt, choice)
        self.run.submit(call, worker, choice.host, answered)

    def _answered(
        self, call: Call, worker: int, attempt: int, choice: Choice, answer: Job | Refusal
    ) -> None:
        if isinstance(answer, Job):
            choice.accepted(answer)
            return
        again = choice.failed(answer)
        if again is None:
            self.run.lost(call)
        elif attempt <= RETRIES:
            self._attempt(call, worker, attempt + 1)
        elif again:
            self._again(call, worker, again)
        else:
            self.run.lost(call)

    def _again(self, call: Call, worker: int, seconds: float) -> None:
        if self.run.timeline.now + seconds > call.at + GIVES_UP:
            self.run.lost(call)
        else:
            self.run.timeline.after(seconds, self._attempt, call, worker, 1)


@dataclass(slots=True)
class _Reserved:
    """A slot that a submit under way is going to take."""

    host: str
    until: float


class Central:
    """The reference: one queue for the whole fleet, which knows the true speeds and free slots.

    Each job goes to where it will be done first, and waits, in the order of arrival, where that is
    a slot which is still taken. It knows when the running jobs are going to end and which host is
    well, at once; not how lucky a job that has not started will be.
    """

    def __init__(self, run: Simulation) -> None:
        self._run = run
        self._queue: deque[Call] = deque()
        self._reserved: list[_Reserved] = []

    def begin(self) -> None:
        """Nothing happens of its own accord."""

    def reload(self) -> None:
        """It sees all there is."""

    def arrive(self, call: Call) -> None:
        self._queue.append(call)
        self._assign()

    def ended(self, job: Job) -> None:
        self._assign()

    def changed(self) -> None:
        self._assign()

    def _assign(self) -> None:
        now = self._run.timeline.now
        free = {host.name: self._free(host.name) for host in self._run.served if host.well}
        paces = {name: self._run.hosts[name].pace for name in free}
        kept: deque[Call] = deque()
        while self._queue and any(slots[0] <= now for slots in free.values()):
            call = self._queue.popleft()
            done = {n: max(slots[0], now) + call.length * paces[n] for n, slots in free.items()}
            # Of equals, the emptiest: an even fleet is to be loaded evenly.
            best = min(done, key=lambda name: (done[name], sum(at > now for at in free[name])))
            begins = heapq.heapreplace(free[best], done[best])
            if begins <= now:
                self._send(call, best)
            else:
                kept.append(call)
        kept.extend(self._queue)
        self._queue = kept

    def _free(self, name: str) -> list[float]:
        """When each slot of a host becomes free, as a heap."""
        host = self._run.hosts[name]
        taken = host.ends() + [r.until for r in self._reserved if r.host == name]
        slots = taken + [0.0] * (host.site.slots - len(taken))
        heapq.heapify(slots)
        return slots

    def _send(self, call: Call, name: str) -> None:
        pace = self._run.hosts[name].pace
        reserved = _Reserved(name, self._run.timeline.now + call.length * pace)
        self._reserved.append(reserved)

        def answered(answer: Job | Refusal) -> None:
            self._reserved.remove(reserved)
            if isinstance(answer, Refusal):  # it went wrong while the submit was under way
                self._queue.appendleft(call)
                self._assign()

        self._run.submit(call, 0, name, answered)
