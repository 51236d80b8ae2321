"""One timeline: a fleet of workers over one provider, under one clock and one seed.

    plan ── workers (real routers) ── network ── provider (the stand-in)
                    └──────── store ───────┘

`run` plays a plan to its end and then to rest: the storms are over, the jobs of callers that still
wait go on, the workers exchange what is left to tell. What it returns is checked by
`sim_invariants`.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import random
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import httpx
from sim_history import History
from sim_network import Network, World
from sim_plan import GROUPS, Blow, Errand, Plan, drawn
from sim_store import SharedStore, StoreAwayError, WorkersView
from virtual_time import Killed, Stuck, Turns, VirtualLoop, struck

from router import Router, RouterError, events
from router._doors import BlockingDoor
from router.testing import StandIn
from router.testing.media import CLIP
from router.trip import Side

__all__ = ["Timeline", "Worker", "marked", "run"]

UNIX = 1_800_000_000.0
TURN_SECONDS = 0.5
PATIENCE = 1000.0
"""Seconds that anybody waits for a job."""


class WorkersClock:
    """The clock of one worker's machine: it runs like the others, and may be set wrong."""

    def __init__(self, world: World, turns: Turns, alive: Callable[[], bool]) -> None:
        self._world = world
        self._turns = turns
        self._alive = alive
        self.skew = 0.0

    def monotonic(self) -> float:
        return self._world.now()

    def time(self) -> float:
        return UNIX + self._world.now() + self.skew

    def sleep(self, seconds: float) -> None:
        self._turns.sleep(seconds)
        if not self._alive():
            self._turns.park()

    async def asleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        if not self._alive():
            await asyncio.Event().wait()


class ProvidersClock:
    """The clock of the provider; what blocks on it gives its turn away."""

    def __init__(self, loop: VirtualLoop, turns: Turns) -> None:
        self.monotonic = loop.time
        self.sleep = turns.sleep

    def time(self) -> float:
        return UNIX + self.monotonic()


@dataclass(eq=False)
class Worker:
    """One process of the service, as far as the router is concerned."""

    number: int
    data: dict[str, Any]
    router: Router = field(init=False)
    clock: WorkersClock = field(init=False)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    alive: bool = True
    offset: float = 0.0
    """From the one clock to what the worker took for the time when it began."""


@dataclass(eq=False)
class Timeline:
    """A timeline that has been played, and all that there is to know of it."""

    plan: Plan
    world: World
    history: History
    store: SharedStore
    workers: list[Worker]
    made: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    """What exists at the provider: our id of it, and its copies by account and native id."""
    left: list[str] = field(default_factory=list)
    """What was still there when all had come to rest."""


def run(seed: int, plan: Plan | None = None) -> Timeline:
    """Play the timeline of a seed, or a plan."""
    loop = VirtualLoop()
    player = _Player(loop, plan or drawn(seed))
    try:
        loop.run_until_complete(player.play())
        loop.run_until_complete(loop.shutdown_asyncgens())
    except Stuck as stuck:
        player.timeline.left.append(str(stuck))
    finally:
        loop.close()
    return player.timeline


class _Player:
    def __init__(self, loop: VirtualLoop, plan: Plan) -> None:
        self._loop = loop
        self._plan = plan
        self._turns = Turns(loop)
        self._rng = random.Random(f"{plan.seed}/provider")
        provider = StandIn(
            accounts=plan.keys,
            job_seconds=self._job_seconds,
            clock=ProvidersClock(loop, self._turns),
            seed=plan.seed,
            **plan.limits,
        )
        history = History(loop.time)
        rng = random.Random(f"{plan.seed}/network")
        self._world = World(plan, provider, history, self._turns, loop.time, rng)
        self._store = SharedStore(loop.time, history)
        self.timeline = Timeline(plan, self._world, history, self._store, [])
        self._made = self.timeline.made
        self._stand_ins: dict[int, Worker] = {}
        """Who has the place of each worker of the plan now."""

    def _job_seconds(self, operation: str, account: str) -> float:
        return self._rng.choice((0.0, 30.0, 100.0, 300.0))

    # The course of a timeline -------------------------------------------------------------------

    async def play(self) -> None:
        for place in range(self._plan.workers):
            self._hire(place)
        errands = [asyncio.create_task(self._errand(errand)) for errand in self._plan.errands]
        blows = [asyncio.create_task(self._blow(blow)) for blow in self._plan.blows]
        await asyncio.gather(*errands, *blows)
        self._world.calm = True
        self._store.heal()
        # Two turns bring everybody's last words to everybody.
        await asyncio.sleep(4 * TURN_SECONDS)
        await self._rest()

    async def _rest(self) -> None:
        left = self.timeline.left
        for worker in self.timeline.workers:
            sharing = [task for task in worker.tasks if task.get_name() == "sharing"]
            if worker.alive:
                left += [f"task {t.get_name()}" for t in worker.tasks if t not in sharing]
            # What a dead worker was doing is of no consequence; it only must not be left behind.
            for task in worker.tasks:
                task.cancel()
            await asyncio.gather(*worker.tasks, return_exceptions=True)
        living = {w.number for w in self.timeline.workers if w.alive}
        if not any(not w.alive for w in self.timeline.workers):
            left += [f"thread {thread.work}" for thread in self._turns.threads]
        self._turns.end()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        left += [f"task {task.get_coro()}" for task in others]
        left += [
            f"connection of w{e.worker} to {e.deployment}"
            for e in self._world.exchanges
            if not e.closed and e.worker in living
        ]

    # Workers ------------------------------------------------------------------------------------

    def _hire(self, place: int) -> Worker:
        number = len(self.timeline.workers)
        worker = Worker(number, copy.deepcopy(self._plan.data))
        self._current_keys(worker)

        def alive() -> bool:
            return worker.alive

        network = Network(self._world, number, alive)
        worker.clock = WorkersClock(self._world, self._turns, alive)
        worker.clock.skew = self._plan.skews[place]
        worker.offset = UNIX + worker.clock.skew
        worker.router = Router.from_dict(
            worker.data,
            environ={},
            http_client=network,
            async_http_client=network,
            on_event=functools.partial(self._event, worker),
            clock=worker.clock,
            rng=random.Random(f"{self._plan.seed}/worker/{number}"),
            store=WorkersView(self._store, number),
        )
        # The only thread pool of the package must take turns with everything else.
        door = BlockingDoor(worker.clock, self._turns.pool)
        worker.router._blocking = Side(door, worker.router._sending)
        self.timeline.workers.append(worker)
        self._stand_ins[place] = worker
        self._task(worker, self._share(worker), "sharing")
        self._note("hired", worker, place=place, unshown={"credentials": _credentials(worker)})
        return worker

    def _task(self, worker: Worker, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.create_task(work, name=name)
        worker.tasks.add(task)
        return task

    async def _share(self, worker: Worker) -> None:
        while worker.alive:
            await asyncio.sleep(TURN_SECONDS)
            if worker.alive:
                try:
                    worker.router.share()
                except StoreAwayError as away:
                    self._note("alone", worker, why=str(away))

    def _kill(self, place: int) -> None:
        worker = self._stand_ins[place]
        self._note("killed", worker)
        worker.alive = False
        self._hire(place)

    def _note(self, what: str, worker: Worker, call: int | None = None, **about: Any) -> None:
        if worker.alive:
            self.timeline.history.note(what, worker=worker.number, call=call, **about)

    def _event(self, worker: Worker, event: events.Event) -> None:
        metadata = getattr(event, "metadata", None) or {}
        about = {
            name: getattr(event, name) for name in event.__slots__ if name not in ("metadata", "at")
        }
        told_at = {"their_time": event.at}
        self._note(type(event).__name__, worker, metadata.get("call"), **about, **told_at)

    # Blows --------------------------------------------------------------------------------------

    async def _blow(self, blow: Blow) -> None:
        await asyncio.sleep(blow.at)
        worker = self._stand_ins[blow.worker]
        self._world.struck[blow.kind] += 1
        self.timeline.history.note(
            "blow", worker=worker.number, kind=blow.kind, lasts=blow.lasts, amount=blow.amount
        )
        if blow.kind == "kill":
            self._kill(blow.worker)
        elif blow.kind == "freeze":
            self._store.freeze(blow.lasts)
        elif blow.kind == "flush":
            self._store.flush()
        elif blow.kind == "lose_answers":
            self._store.lose_answers(blow.lasts)
        elif blow.kind == "skew":
            worker.clock.skew += blow.amount
        elif blow.kind == "rotate_key":
            await self._rotate_key(blow)
        elif blow.kind == "reload_broken":
            self._reload_broken(worker)
        else:
            self._change(worker, random.Random(f"{self._plan.seed}/{blow.at}"))
            self._reload(worker)

    async def _rotate_key(self, blow: Blow) -> None:
        """The old key is void at once; the workers hear of the new one when the blow is over."""
        rng = random.Random(f"{self._plan.seed}/{blow.at}")
        account = rng.choice(sorted(self._plan.data["accounts"]))
        old = [k for k, a in self._plan.keys.items() if a == account]
        new = f"sk-{account}-{len(old)}"
        self._plan.keys[new] = account
        self._world.provider._provider.studio._keys[new] = account
        self._world.revoked.update(old)
        await asyncio.sleep(blow.lasts)
        for worker in self.timeline.workers:
            if worker.alive:
                self._current_keys(worker)
                self._reload(worker)

    def _current_keys(self, worker: Worker) -> None:
        for key, account in self._plan.keys.items():
            if key not in self._world.revoked:
                worker.data["accounts"][account]["api_key"] = key

    def _change(self, worker: Worker, rng: random.Random) -> None:
        deployments = worker.data["deployments"]
        change = rng.choice(("weight", "drop", "restore"))
        # The first serves the default group, and stays.
        some = rng.choice(deployments)
        if change == "weight":
            some["weight"] = rng.choice((0.5, 2))
        elif change == "drop" and some is not deployments[0]:
            deployments.remove(some)
        elif change == "restore":
            worker.data["deployments"] = copy.deepcopy(self._plan.data["deployments"])
            deployments[:] = worker.data["deployments"]

    def _reload(self, worker: Worker) -> None:
        before = _credentials(worker)
        worker.router.reload()
        after = _credentials(worker)
        renewed = sorted(name for name in before if before[name] != after.get(name))
        self._note("reloaded", worker, renewed=renewed, unshown={"credentials": after})

    def _reload_broken(self, worker: Worker) -> None:
        worker.data["deployments"].append({"id": "broken"})
        try:
            worker.router.reload()
        except RouterError as error:
            self._note("refused", worker, error=error)
        worker.data["deployments"].pop()

    # Errands ------------------------------------------------------------------------------------

    async def _errand(self, errand: Errand) -> None:
        await asyncio.sleep(errand.at)
        worker = self._stand_ins[errand.worker]
        work = self._attended(worker, errand)
        task = self._task(worker, work, f"call {errand.number}")
        over = asyncio.ensure_future(asyncio.wait([task]))
        # Nobody hears of a call whose worker died.
        while not over.done() and worker.alive:
            await asyncio.wait([over], timeout=5.0)
        over.cancel()
        if worker.alive:
            worker.tasks.discard(task)
            task.result()  # what it raises is a fault of the simulation's

    async def _attended(self, worker: Worker, errand: Errand) -> None:
        """One call, and what became of it."""
        started = self._loop.time()
        told: dict[str, Any] = {}
        try:
            doing = self._do(worker, errand, told)
            if errand.cut is not None:
                doing = struck(doing, errand.cut[1], self._cutting(worker, errand))
            answer = await doing
        except asyncio.CancelledError:
            ended: dict[str, Any] = {"how": "cancelled"}
        except Killed:
            raise
        except BaseException as error:  # noqa: BLE001  (whether it may be raised is the question)
            ended = {"how": "error", "error": error}
        else:
            ended = {"how": "answer", "answer": answer}
            self._remember(worker, answer)
        seconds = self._loop.time() - started
        self._note("ended", worker, errand.number, **ended, seconds=seconds, unshown=told)

    def _cutting(self, worker: Worker, errand: Errand) -> Callable[[], object]:
        kind, at_await = errand.cut or ("", 0)
        task = asyncio.current_task()
        assert task is not None

        def strike() -> None:
            if not worker.alive:
                return
            self._note("cut", worker, errand.number, kind=kind, at_await=at_await)
            how = "cancelled" if kind == "cancel" else "killed"
            self._world.struck[f"{how} in a call"] += 1
            if kind == "cancel":
                self._loop.call_soon(task.cancel)
            else:
                self._kill(next(p for p, w in self._stand_ins.items() if w is worker))

        return strike

    async def _do(self, worker: Worker, errand: Errand, told: dict[str, Any]) -> Any:
        rng = random.Random(errand.chance)
        what, method, arguments = self._drawn(errand, rng)
        told.update(errand=what, arguments=arguments, fleet=worker.router._engine.fleet)
        self._note("begins", worker, errand.number, errand=what, door=errand.door, **arguments)
        if {"video_id", "character_id", "characters"} & arguments.keys():
            self._world.naming.add(errand.number)
        if what == "pick":
            return await self._pick(worker, errand, arguments, rng)
        if what == "observe":
            return worker.router.observe(**arguments)
        arguments = {
            **errand.options,
            **arguments,
            "metadata": {"call": errand.number},
            "extra_headers": {"x-call": str(errand.number)},
        }
        if method == "locate":
            arguments = {"text": arguments["text"]}
        if errand.door == "async":
            return await getattr(worker.router, f"a{method}")(**arguments)
        return await self._turns.run(functools.partial(getattr(worker.router, method), **arguments))

    async def _pick(
        self, worker: Worker, errand: Errand, arguments: dict[str, Any], rng: random.Random
    ) -> str:
        """A caller with a client of its own: what it reports is what it saw."""
        metadata = {"call": errand.number}
        async with worker.router.apick("generation", **arguments, metadata=metadata) as attempt:
            client = Network(self._world, worker.number, lambda: worker.alive)
            request = httpx.Request(
                "POST",
                f"{attempt.base_url}/videos",
                headers={**attempt.headers, "x-call": str(errand.number)},
                json={"prompt": _mark(errand.number), "model": attempt.model},
                extensions={"timeout": {"connect": 5.0, "read": 30.0, "pool": 5.0}},
            )
            try:
                async with asyncio.timeout(30.0):
                    response = await client.handle_async_request(request)
                    try:
                        body = await response.aread()
                    finally:
                        await response.aclose()
            except (httpx.HTTPError, TimeoutError):
                raise attempt.failed(None) from None
            if response.status_code != 200:
                raise attempt.failed(response.status_code, dict(response.headers), body)
            try:
                native = response.json()["id"]
            except (ValueError, KeyError):
                native = None
            if not isinstance(native, str):
                raise attempt.failed(200, dict(response.headers), body)
            return attempt.accepted(native)

    def _drawn(self, errand: Errand, rng: random.Random) -> tuple[str, str, dict[str, Any]]:
        """What this errand comes to, now that it is known what there is: method and arguments."""
        mark = _mark(errand.number)
        video = self._some("video", rng)
        character = self._some("character", rng)
        what = errand.what
        if what in ("remix", "status", "wait", "content", "delete", "observe", "locate"):
            what = what if video is not None else "generation"
        if what == "get_character" and character is None:
            what = "create_character"
        method = f"video_{what}" if what not in ("locate", "pick", "observe") else what
        arguments: dict[str, Any] = {}
        if what in ("generation", "pick", "create_character") or (
            what in ("edit", "extension") and video is None
        ):
            arguments = self._named(rng)
        if what == "generation":
            arguments["prompt"] = mark
            if character is not None and rng.random() < 0.3:
                arguments["characters"] = [character]
        elif what in ("edit", "extension"):
            arguments["prompt"] = mark
            arguments |= {"video_id": video} if video else {"video": CLIP}
            arguments |= {"seconds": 4} if what == "extension" else {}
        elif what == "remix" and video is not None:
            arguments = {"prompt": mark, "video_id": video}
        elif what == "create_character":
            arguments |= {"name": mark, "video": CLIP}
            if rng.random() < 0.3:
                arguments["replicate"] = rng.choice((2, 3, "all"))
        elif what == "get_character" and character is not None:
            arguments = {"character_id": character}
        elif what == "wait" and video is not None:
            arguments = {"video_id": video, "wait_timeout": rng.choice((10.0, 200.0, PATIENCE))}
        elif what in ("status", "content", "delete") and video is not None:
            arguments = {"video_id": video}
            if rng.random() < 0.2:
                account, native = self._made[video][0]
                arguments = {"video_id": native, "account": account}
        elif what == "observe" and video is not None:
            status = rng.choice(("completed", "failed", "in_progress", "what is this"))
            arguments = {"video_id": video, "status": status}
        elif what == "locate" and video is not None:
            arguments = {"text": self._made[video][0][1]}
        elif what == "mistake":
            return "mistake", *self._mistake(rng, mark, video)
        return what, method, arguments

    def _mistake(
        self, rng: random.Random, mark: str, video: str | None
    ) -> tuple[str, dict[str, Any]]:
        """What a caller gets wrong; no deployment is to suffer by it."""
        wrong: list[tuple[str, dict[str, Any]]] = [
            ("video_generation", {"prompt": mark, "model": "no such group"}),
            ("video_generation", {"prompt": ""}),
            ("video_status", {"video_id": "video_vr1nonsense"}),
            ("video_status", {"video_id": "../../secrets", "account": "east"}),
            ("video_edit", {"prompt": mark, "video_id": "video_unknown", "account": "nobody"}),
        ]
        if video is not None:
            others = [a for a in self._plan.data["accounts"] if a != self._made[video][0][0]]
            altered = video[:-9] + ("a" if video[-9] != "a" else "b") + video[-8:]
            wrong.append(("video_status", {"video_id": altered}))
            wrong += [("video_status", {"video_id": video, "account": a}) for a in others]
            # The right account, and something that it has never made.
            native = {"video_id": "video_unknown", "account": self._made[video][0][0]}
            wrong.append(("video_status", native))
        return rng.choice(wrong)

    def _named(self, rng: random.Random) -> dict[str, Any]:
        draw = rng.random()
        if draw < 0.5:
            return {}
        if draw < 0.75:
            return {"model": rng.choice(GROUPS)}
        return {"target_model_names": rng.choice((list(GROUPS), "sora-2-pro,sora-2", ["sora-2"]))}

    def _some(self, kind: str, rng: random.Random) -> str | None:
        found = [made for made in self._made if made.startswith(kind)]
        return rng.choice(found) if found else None

    def _remember(self, worker: Worker, answer: Any) -> None:
        text = answer if isinstance(answer, str) else getattr(answer, "id", None)
        if not isinstance(text, str) or not text.startswith(("video_", "character_")):
            return
        copies = worker.router.describe_id(text).copies
        self._made[text] = tuple((copy.account, copy.native_id) for copy in copies)


def _credentials(worker: Worker) -> dict[str, str]:
    return {name: m.credential for name, m in worker.router._engine.fleet.members.items()}


_MARK = re.compile(r"\bcall (\d+)\b")


def _mark(number: int) -> str:
    return f"call {number}: a fox runs"


def marked(text: str | None) -> int | None:
    """The number of the call that a prompt, or a character's name, belongs to."""
    found = _MARK.search(text or "")
    return int(found[1]) if found else None
