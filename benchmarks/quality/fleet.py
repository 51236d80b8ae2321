"""Our contender: N workers with real routers, which share through one store.

Each worker is a `Router` of its own, with its own random generator, on the virtual clock. A worker
picks by `router.pick`, reports what the provider answered, follows the jobs that it submitted with
the spacing of `video_wait`, and passes on by `router.observe` what it sees. What workers know of
each other goes through the real sharing: a turn each second, and a few milliseconds after a worker
rings, as the keeper's thread does with a Redis; who is out, or back, wakes the others.
"""

from __future__ import annotations

import random
import types
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import Executor, Future
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import httpx

from benchmarks.quality.contenders import GIVES_UP, Choice, Later, Routed
from benchmarks.quality.provider import Job, Refusal
from benchmarks.quality.simulation import Out, Simulation
from benchmarks.quality.timeline import BEGINS
from benchmarks.quality.traffic import Call
from router import Router, errors, events
from router._doors import BlockingDoor
from router.ids import Copy
from router.picking import Attempt, Picking
from router.state import MemoryStore
from router.state.keeper import TURN_SECONDS
from router.types import Video

__all__ = ["GROUP", "Fleet"]

GROUP = "sora-2"
RUNG_SECONDS = 0.005
"""From a ring to the turn: the thread wakes, and the store answers."""
HEARD_SECONDS = 0.01
"""From what one worker announces to the turn of the others."""

T = TypeVar("T")


class Fleet(Routed):
    """N workers of the product, under one of its strategies."""

    def __init__(self, run: Simulation, strategy: str, workers: int, seed: int) -> None:
        super().__init__(run, workers)
        settings: dict[str, Any] = {"strategy": strategy}
        if any(host.site.cap for host in run.served):
            settings |= {"max_wait": GIVES_UP, "deadline": GIVES_UP}
        self._data: dict[str, Any] = {"settings": settings, "deployments": []}
        self._configure()
        self._jobs: dict[str, Job] = {}
        store = MemoryStore(run.timeline.time)
        self._workers = [_Worker(self, index, store, seed) for index in range(workers)]

    def _configure(self) -> None:
        retried = self.run.scenario.retry_on_5xx
        sites = [host.site for host in self.run.served]
        self._data["deployments"] = [
            {
                "id": site.name,
                "model_name": GROUP,
                "account": site.account or f"a-{site.name}",
                "base_url": f"http://{site.account or site.name}.test/v1",
                "api_key": f"sk-{site.account or site.name}",
                **({"max_parallel_jobs": site.cap} if site.cap else {}),
                **({"cost_per_second": site.price} if site.price else {}),
                **({"retry_on_5xx": True} if retried else {}),
            }
            for site in sites
        ]

    @property
    def data(self) -> dict[str, Any]:
        """The configuration; `reload` reads it again."""
        return self._data

    def begin(self) -> None:
        for worker in self._workers:
            worker.begin()

    def reload(self) -> None:
        self._configure()
        for worker in self._workers:
            worker.router.reload()

    def ended(self, job: Job) -> None:
        """Nobody tells a router; it has to look."""

    def changed(self) -> None:
        """Nobody tells a router; it has to find out."""

    def pick(self, call: Call, worker: int, then: Callable[[Choice | Later], object]) -> None:
        self._workers[worker].pick(call, then)

    def took(self, job: Job) -> None:
        self._jobs[job.name] = job

    def looked_up(self, request: httpx.Request) -> httpx.Response:
        """A status read of the router's own: it asks after jobs that keep others from a slot."""
        job = self._jobs[request.url.path.rpartition("/")[2]]
        if not self.run.hosts[job.host].up:
            return httpx.Response(502, json={})
        return httpx.Response(200, json={"id": job.name, "object": "video", **video(job)})

    def told(self, worker: _Worker, event: events.Event) -> None:
        """An event of a worker's. Who is out, and who is back, is announced to the others."""
        if not isinstance(event, events.Ejected | events.Restored):
            return
        if isinstance(event, events.Ejected):
            now = self.run.timeline.now
            out = Out(now, now + event.seconds, event.deployment, worker.index, event.cause)
            self.run.result.outs.append(out)
        for other in self._workers:
            if other is not worker:
                other.turn_soon(HEARD_SECONDS)


@types.coroutine
def _passing(seconds: float) -> Generator[float, None, None]:
    """Tell who carries the coroutine on to let so much time pass first."""
    yield seconds


class _Door(BlockingDoor):
    """The blocking side, but for waits: they are events, and others go on meanwhile."""

    async def sleep(self, seconds: float) -> None:
        await _passing(seconds)


class _OneByOne(Executor):
    """In place of a pool of threads, whose order would be a matter of luck."""

    def __init__(self, workers: int) -> None:
        """However many are wanted, there is one."""

    def submit(self, work: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        future.set_result(work(*args, **kwargs))
        return future


class _Worker:
    """One worker: its router, its turns of sharing, and the jobs that it follows."""

    def __init__(self, fleet: Fleet, index: int, store: MemoryStore, seed: int) -> None:
        self.index = index
        self._fleet = fleet
        self._timeline = fleet.run.timeline
        self._turns = 0
        self._soon: float | None = None
        self._phase = random.Random(f"{seed} {index} turn").random() * TURN_SECONDS
        self.router = Router.from_dict(
            fleet.data,
            environ={},
            clock=self._timeline,
            rng=random.Random(f"{seed} {index}"),
            store=store,
            http_client=httpx.MockTransport(fleet.looked_up),
            on_event=partial(fleet.told, self),
        )
        # There is no public way to these: how a pick waits, when the keeper's thread is rung, how
        # several reads of the router's own are made at once, and (below) when a job is to be looked
        # at again, which is told by the answers to reads alone.
        sharing = self.router._learning.sharing
        assert sharing is not None
        sharing.ring = partial(self.turn_soon, RUNG_SECONDS)
        door = _Door(self._timeline, pool=_OneByOne)
        self.router._blocking = replace(self.router._blocking, door=door)

    def begin(self) -> None:
        self._plan(self._phase)

    # Turns --------------------------------------------------------------------------------------

    def turn_soon(self, seconds: float) -> None:
        """Turn before the second is over, unless that is planned already."""
        if self._soon is None or self._soon > self._timeline.now + seconds:
            self._plan(seconds)
            self._soon = self._timeline.now + seconds

    def _plan(self, seconds: float) -> None:
        # The turn that was planned before is void.
        self._turns += 1
        self._timeline.after(seconds, self._turn, self._turns)

    def _turn(self, number: int) -> None:
        if number == self._turns:
            self._soon = None
            self.router.share()
            if self._soon is None:
                self._plan(TURN_SECONDS)

    # Calls --------------------------------------------------------------------------------------

    def pick(self, call: Call, then: Callable[[Choice | Later], object]) -> None:
        picking = self.router.pick("generation", model=GROUP, seconds=call.length)
        self._enter(picking, picking._enter(), then)

    def _enter(
        self,
        picking: Picking,
        entering: Coroutine[float, None, Attempt],
        then: Callable[[Choice | Later], object],
    ) -> None:
        """Carry the pick on to its end, or to where it waits for room."""
        try:
            seconds = entering.send(None)
        except StopIteration as ended:
            then(_Picked(self, picking, ended.value))
        except errors.TryLaterError as exc:
            then(Later(exc.retry_after))
        else:
            self._timeline.after(seconds, self._enter, picking, entering, then)

    def follow(self, video_id: str, job: Job) -> None:
        self._fleet.took(job)
        self._look_later(video_id, job)

    def _look_later(self, video_id: str, job: Job) -> None:
        engine = self.router._engine
        member = engine.fleet.members[job.host]
        copy = Copy(member.deployment.account, job.name)
        pause = engine.learning.pause(member, copy, Video.tolerant({"id": job.name, **video(job)}))
        self._timeline.after(pause, self._look, video_id, job)

    def _look(self, video_id: str, job: Job) -> None:
        if self._fleet.run.hosts[job.host].up:
            self.router.observe(video_id, video(job))
            if job.ended_at is not None:
                return
        self._look_later(video_id, job)


def video(job: Job) -> dict[str, Any]:
    """What the provider answers when it is asked how a job is; times are whole seconds."""
    failed = {"error": {"code": "server_error", "message": "The job failed"}}
    return {
        "status": job.status,
        "seconds": str(job.call.length),
        "created_at": int(BEGINS + job.created_at),
        "completed_at": int(BEGINS + job.ended_at) if job.ended_at is not None else None,
        **(failed if job.failed else {}),
    }


class _Picked:
    """A real attempt of a real router."""

    def __init__(self, worker: _Worker, picking: Any, attempt: Any) -> None:
        self._worker, self._picking, self._attempt = worker, picking, attempt
        self.host: str = attempt.deployment

    def accepted(self, job: Job) -> None:
        video_id = self._attempt.accepted(job.name)
        self._leave()
        self._worker.follow(video_id, job)

    def failed(self, refusal: Refusal) -> float | None:
        error = self._attempt.failed(refusal.status, refusal.headers, refusal.body)
        self._leave()
        if error.accepted != "no" or isinstance(error, errors.BadRequestError):
            return None
        return error.retry_after if isinstance(error, errors.TryLaterError) else 0.0

    def _leave(self) -> None:
        self._picking.__exit__(None, None, None)
