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
import io
import random
import tempfile
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sim_errands import Asked, Draws, mark
from sim_history import History
from sim_network import Network, Wires, World
from sim_plan import FATES, GROUPS, USED, Blow, Errand, Plan, drawn, weighted
from sim_store import SharedStore, WorkersView
from virtual_time import Killed, Stuck, Turns, VirtualLoop, struck

from router import Router, RouterError, StateUnavailableError, events
from router._doors import BlockingDoor
from router.claiming import CLAIM_SECONDS
from router.testing import StandIn
from router.trip import Side
from router.types import VideoPage

__all__ = ["Timeline", "Worker", "run"]


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
        return self._world.plan.starts + self._world.now() + self.skew

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

    def __init__(self, loop: VirtualLoop, turns: Turns, starts: float) -> None:
        self._starts = starts
        self.monotonic = loop.time
        self.sleep = turns.sleep

    def time(self) -> float:
        return self._starts + self.monotonic()


@dataclass(eq=False)
class Worker:
    """One process of the service, as far as the router is concerned."""

    number: int
    data: dict[str, Any]
    router: Router = field(init=False)
    clock: WorkersClock = field(init=False)
    network: Network = field(init=False)
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    alive: bool = True
    hook_raises: bool = False
    """Whether its `on_event` raises, each time."""


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
        player.timeline.left.append(f"{stuck}; open are {player.open_calls()}")
    finally:
        loop.close()
        player.end()
    return player.timeline


_CHANGES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "weight": ("weight", (0.5, 2)),
    "order": ("order", (1, 2, 3)),
    "group": ("model_name", ("sora-2", "sora-2-pro", list(GROUPS))),
    "operations": ("operations", (["generation", "status"], ["generation", "status", "content"])),
}

_FATES: dict[str, dict[str, str]] = {
    "job_fails": {"code": "server_error"},
    "job_refused": {"code": "moderation_blocked", "message": "against the content policy"},
}


class _Player:
    def __init__(self, loop: VirtualLoop, plan: Plan) -> None:
        self._loop = loop
        self._plan = plan
        self._turns = Turns(loop)
        self._rng = random.Random(f"{plan.seed}/provider")
        provider = StandIn(
            accounts=plan.keys,
            job_seconds=self._job_seconds,
            clock=ProvidersClock(loop, self._turns, plan.starts),
            seed=plan.seed,
            **plan.limits,
        )
        history = History(loop.time)
        rng = random.Random(f"{plan.seed}/network")
        self._world = World(plan, provider, history, self._turns, loop.time, rng)
        self._store = SharedStore(loop.time, history, plan.starts)
        self._watch(provider._provider)
        self.timeline = Timeline(plan, self._world, history, self._store, [])
        self._made = self.timeline.made
        self._secrets: list[str] = list(plan.data["settings"]["id_secrets"])
        self._draws = Draws(list(plan.data["accounts"]), self._made)
        self._folder = tempfile.TemporaryDirectory()
        self._stand_ins: dict[int, Worker] = {}
        """Who has the place of each worker of the plan now."""

    def _watch(self, provider: Any) -> None:
        """Whatever is taken on, the call is known that asked for it."""
        works, accepted = provider._work, provider.studio.accepted

        def working(arrival: Any, body: Any) -> Any:
            before = len(accepted)
            answer = works(arrival, body)
            head = arrival.head
            host = httpx.URL(head.origin).host
            self._world.attribute(accepted[before:], head.headers.get("x-call"), host)
            return answer

        answers = provider.answer

        def answering(arrival: Any, content: bytes) -> Any:
            # The body is here, all of it: until then its sender may have stopped.
            head = arrival.head
            self._world.arrived(head.headers.get("x-call"), httpx.URL(head.origin).host)
            return answers(arrival, content)

        provider._work, provider.answer = working, answering

    def _job_seconds(self, operation: str, account: str) -> float:
        self._doom(operation, account)
        # Short ones, too: there must be videos to bring and to change while calls are made.
        short = 0.1 * min(self._plan.lasts, 300.0)
        return self._rng.choice((0.0, 0.0, short, short, 30.0, 100.0, 300.0))

    def _doom(self, operation: str, account: str) -> None:
        """Decide how the job ends that is just being accepted.

        The provider asks how long it lasts right before it asks for its fate, so that no other job
        comes in between.
        """
        if self._world.calm or self._rng.random() >= self._plan.fates:
            return
        kind, doomed = self._plan.fate or weighted(self._rng, FATES), self._world.coming
        details = _FATES.get(kind, {})
        faults = self._world.provider._provider.faults
        fate = "never_ends" if kind == "never_ends" else "job_fails"
        faults.plan(fate, operation=operation, account=account, **details)
        self._world.struck[kind] += 1
        self.timeline.history.note(
            "doomed",
            worker=doomed.worker if doomed else None,
            call=doomed.call if doomed else None,
            kind=kind,
            account=account,
        )

    def _skew(self, place: int, number: int) -> float:
        # Who comes in a dead worker's place runs on another machine, with a clock of its own.
        if number < self._plan.workers:
            return self._plan.skews[place]
        return random.Random(f"{self._plan.seed}/skew/{number}").uniform(-3, 3)

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
        await asyncio.sleep(4 * self._plan.turn_seconds)
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
        for worker in self.timeline.workers:
            if worker.alive:
                await worker.router.aclose()
                open_still = [wire for wire in worker.network.wires if wire.open]
                left += [f"w{worker.number} closed, and {wire} is open" for wire in open_still]
        living = {w.number for w in self.timeline.workers if w.alive}
        if not any(not w.alive for w in self.timeline.workers):
            left += [f"thread {thread.work}" for thread in self._turns.threads]
        self._turns.end()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        left += [f"task {task.get_coro()}" for task in others]
        left += self._world.wrong
        left += [
            f"connection of w{e.worker} to {e.deployment}"
            for e in self._world.exchanges
            if not e.closed and e.worker in living
        ]

    def open_calls(self) -> str:
        """The calls that have begun and not ended, as far as anybody waits for them."""
        history = self.timeline.history
        ended = {entry.call for entry in history.of("ended")}
        dead = {worker.number for worker in self.timeline.workers if not worker.alive}
        begun = [e for e in history.of("begins") if e.call not in ended and e.worker not in dead]
        return ", ".join(f"call {e.call} ({e['errand']}, {e['door']})" for e in begun) or "none"

    def end(self) -> None:
        self._folder.cleanup()

    # Workers ------------------------------------------------------------------------------------

    def _hire(self, place: int) -> Worker:
        number = len(self.timeline.workers)
        worker = Worker(number, copy.deepcopy(self._plan.data))
        self._current_keys(worker)

        def alive() -> bool:
            return worker.alive

        network = Network(self._world, number, alive)
        worker.clock = WorkersClock(self._world, self._turns, alive)
        worker.clock.skew = self._skew(place, number)
        worker.hook_raises = random.Random(f"{self._plan.seed}/hook/{number}").random() < 0.15
        worker.network = network
        chance = random.Random(f"{self._plan.seed}/connections/{number}").random()
        given = network if chance < 0.6 else None
        worker.router = Router.from_dict(
            worker.data,
            environ={},
            http_client=given,
            async_http_client=given,
            on_event=functools.partial(self._event, worker),
            clock=worker.clock,
            rng=random.Random(f"{self._plan.seed}/worker/{number}"),
            store=WorkersView(self._store, number, alive),
        )
        if self._plan.renewed:
            # The turns are taken for it, as by the thread of a worker whose store is not at hand.
            claiming: Any = worker.router._engine.claiming
            claiming._lapse = lambda seconds: CLAIM_SECONDS
        if given is None:
            worker.router._sending.openings = worker.router._asending.openings = Wires(network)
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
        # Each at times of its own: nobody hears of anything in the moment in which it is told.
        phase = random.Random(f"{self._plan.seed}/turns/{worker.number}").random()
        await asyncio.sleep(phase * self._plan.turn_seconds)
        while worker.alive:
            await asyncio.sleep(self._plan.turn_seconds)
            if worker.alive:
                try:
                    worker.router.share()
                except StateUnavailableError as away:
                    self._note("alone", worker, why=str(away))

    def _kill(self, place: int) -> None:
        worker = self._stand_ins[place]
        self._note("killed", worker)
        worker.alive = False
        self._hire(place)

    def _note(
        self,
        what: str,
        worker: Worker,
        call: int | None = None,
        *,
        unshown: Mapping[str, Any] | None = None,
        **about: Any,
    ) -> None:
        if worker.alive:
            told = {"their_time": worker.router._engine.now(), **(unshown or {})}
            self.timeline.history.note(what, worker=worker.number, call=call, unshown=told, **about)

    def _event(self, worker: Worker, event: events.Event) -> None:
        metadata = getattr(event, "metadata", None) or {}
        about = {
            name: getattr(event, name) for name in event.__slots__ if name not in ("metadata", "at")
        }
        told_at = {"their_time": event.at}
        call = metadata.get("call")
        # What another worker decided is noted there as a decision, and as news here.
        what = "news" if about.pop("shared", False) else type(event).__name__
        self._note(what, worker, call, **about, unshown=told_at)
        if worker.hook_raises:
            raise RuntimeError("a hook that cannot cope")

    # Blows --------------------------------------------------------------------------------------

    async def _blow(self, blow: Blow) -> None:
        await asyncio.sleep(blow.at)
        worker = self._stand_ins[blow.worker]
        self._world.struck[blow.kind] += 1
        used = {name: getattr(blow, name) for name in USED.get(blow.kind, ())}
        self.timeline.history.note("blow", worker=worker.number, kind=blow.kind, **used)
        if blow.kind == "kill":
            self._kill(blow.worker)
        elif blow.kind == "freeze":
            self._store.freeze(blow.lasts)
        elif blow.kind == "flush":
            self._store.flush()
        elif blow.kind == "lose_answers":
            self._store.lose_answers(blow.lasts)
        elif blow.kind == "skew":
            # Changes nothing, since a router reads the time once: that is what it guards. One that
            # asks the clock again would take its ejections for over, or for endless.
            worker.clock.skew += blow.amount
        elif blow.kind == "rotate_key":
            await self._rotate_key(blow)
        elif blow.kind == "reload_broken":
            self._reload_broken(worker)
        else:
            rng = random.Random(f"{self._plan.seed}/{blow.at}")
            if rng.random() < 0.2:
                changed = self._new_secret()
                for one in self.timeline.workers:
                    if one.alive:
                        self._reload(one, changed)
            else:
                self._reload(worker, self._change(worker, rng))

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
                self._reload(worker, f"the key of {account}")

    def _current_keys(self, worker: Worker) -> None:
        """What all workers must agree on: the keys that are worth something, and the secrets."""
        for key, account in self._plan.keys.items():
            if key not in self._world.revoked:
                worker.data["accounts"][account]["api_key"] = key
        worker.data["settings"]["id_secrets"] = list(self._secrets)

    def _change(self, worker: Worker, rng: random.Random) -> str:
        """Change one worker's configuration, and say what was changed.

        Between two deployments of a configuration, one after another: so workers of one fleet
        differ for the rest of the timeline. The first deployment serves the default group, and
        stays as it is.
        """
        deployments = worker.data["deployments"]
        some = rng.choice(deployments)
        changes = ["settings", "weight", "restore"]
        if some is not deployments[0]:
            changes += ["drop", "group", "order", "operations"]
        change = rng.choice(changes)
        if change == "settings":
            key, value = rng.choice((("retries", 0), ("retries", 4), ("timeout", 8.0)))
            worker.data["settings"][key] = value
            return f"{key} is {value}"
        if change == "restore":
            deployments[:] = copy.deepcopy(self._plan.data["deployments"])
            return "all deployments are as they were"
        if change == "drop":
            deployments.remove(some)
            return f"{some['id']} is gone"
        key, values = _CHANGES[change]
        some[key] = rng.choice(values)
        return f"{key} of {some['id']} is {some[key]}"

    def _new_secret(self) -> str:
        """A new secret signs, the old ones still verify; all workers hear of it at once."""
        self._secrets.insert(0, f"the secret after {len(self._secrets)} others, long enough")
        for worker in self.timeline.workers:
            if worker.alive:
                self._current_keys(worker)
        return "ids are signed with a new secret"

    def _reload(self, worker: Worker, changed: str) -> None:
        before = _credentials(worker)
        worker.router.reload()
        after = _credentials(worker)
        renewed = sorted(name for name in before if before[name] != after.get(name))
        self._note(
            "reloaded",
            worker,
            changed=changed,
            renewed=renewed,
            unshown={"credentials": after, "fleet": worker.router._engine.fleet},
        )

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
            how = _how(told, answer)
            ended = {"how": how} if how == "left" else {"how": how, "answer": answer}
            self._remember(worker, errand, answer)
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
        with ExitStack() as stack:
            asked = self._draws.asked(errand, rng, stack)
            told.update(
                errand=asked.what,
                arguments=asked.arguments,
                fleet=worker.router._engine.fleet,
                expected=asked.expected,
                key=errand.key and errand.key.name,
            )
            self._begin(worker, errand, asked)
            if asked.what == "pick":
                return await self._pick(worker, errand, asked)
            if asked.what == "observe":
                return worker.router.observe(**asked.arguments)
            arguments = self._passed(worker, errand, asked)
            if asked.method == "video_content" and rng.random() < 0.4:
                target = stack.enter_context(self._target(rng, told))
                return target.brought(
                    await self._call(worker, errand, asked, to=target.to, **arguments)
                )
            return await self._call(worker, errand, asked, **arguments)

    def _begin(self, worker: Worker, errand: Errand, asked: Asked) -> None:
        shown: dict[str, Any] = {"errand": asked.what, "door": errand.door}
        shown |= {"method": asked.method} if asked.what == "mistake" else {}
        shown |= {"picks": asked.picks, "leaves": asked.leaves} if asked.what == "pick" else {}
        shown |= {"shape": asked.shape} if asked.shape else {}
        shown |= {"key": errand.key.name} if errand.key else {}
        told = {**shown, **asked.arguments, **errand.options}
        unshown = {"arguments": asked.arguments}
        self._note("begins", worker, errand.number, unshown=unshown, **told)
        if {"video_id", "character_id", "characters"} & asked.arguments.keys():
            self._world.naming.add(errand.number)
        if "seconds" in asked.arguments:
            self._world.lengths[errand.number] = float(asked.arguments["seconds"])

    def _passed(self, worker: Worker, errand: Errand, asked: Asked) -> dict[str, Any]:
        """The arguments as they are passed."""
        if asked.method == "locate":
            return asked.arguments
        arguments = {**errand.options, **asked.arguments, **asked.given}
        if asked.what == "wait" and errand.chance % 3 == 0:
            arguments["on_progress"] = self._progress(worker, errand)
        if errand.key is not None:
            arguments["idempotency_key"] = errand.key.name
        metadata = {"call": errand.number}
        return {**arguments, "metadata": metadata, "extra_headers": {"x-call": str(errand.number)}}

    def _progress(self, worker: Worker, errand: Errand) -> Callable[[Any], object]:
        def tell(video: Any) -> None:
            self._note("progress", worker, errand.number, status=video.status)

        async def atell(video: Any) -> None:
            await asyncio.sleep(0.01)
            tell(video)

        return atell if errand.door == "async" and errand.chance % 2 else tell

    async def _call(self, worker: Worker, errand: Errand, asked: Asked, **arguments: Any) -> Any:
        if errand.door == "async":
            return await getattr(worker.router, f"a{asked.method}")(**arguments)
        method = getattr(worker.router, asked.method)
        return await self._turns.run(functools.partial(method, **arguments))

    @contextmanager
    def _target(self, rng: random.Random, told: dict[str, Any]) -> Iterator[_Target]:
        """Where a download is to go; what is there when the call has ended is told."""
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        target = _Target(folder, in_memory=rng.random() < 0.3)
        try:
            yield target
        finally:
            told.update(to=target.kind, left_behind=target.left_behind(), brought=target.data())

    # Picks --------------------------------------------------------------------------------------

    async def _pick(self, worker: Worker, errand: Errand, asked: Asked) -> object:
        """A caller with a client of its own: what it reports is what it saw."""
        named = {**asked.arguments, **errand.options, "metadata": {"call": errand.number}}
        client = Network(self._world, worker.number, lambda: worker.alive)
        try:
            if errand.door == "async":
                async with worker.router.apick(asked.picks, **named) as attempt:
                    request = _own_request(attempt, errand, asked)
                    return _reported(attempt, asked, await _sent(client, request))
            return await self._turns.run(
                functools.partial(self._pick_blocking, worker, errand, asked, named, client)
            )
        except _CallersError:
            return LEFT

    def _pick_blocking(
        self,
        worker: Worker,
        errand: Errand,
        asked: Asked,
        named: dict[str, Any],
        client: Network,
    ) -> object:
        with worker.router.pick(asked.picks, **named) as attempt:
            request = _own_request(attempt, errand, asked)
            return _reported(attempt, asked, _sent_blocking(client, request, self._loop.time))

    def _remember(self, worker: Worker, errand: Errand, answer: Any) -> None:
        text = answer if isinstance(answer, str) else getattr(answer, "id", None)
        if isinstance(answer, VideoPage) and answer.last_id:
            self._draws.pages.append(answer.last_id)
        if not isinstance(text, str) or not text.startswith(("video_", "character_")):
            return
        copies = worker.router.describe_id(text).copies
        self._made[text] = tuple((copy.account, copy.native_id) for copy in copies)
        self.timeline.history.christen(text, errand.number, self._made[text])


def _credentials(worker: Worker) -> dict[str, str]:
    return {name: m.credential for name, m in worker.router._engine.fleet.members.items()}


class _Target:
    """A path that does not exist yet in a folder of its own, or a file in memory."""

    def __init__(self, folder: Path, *, in_memory: bool) -> None:
        self._path = folder / "a fox.mp4"
        self._file = io.BytesIO() if in_memory else None
        self.kind = "file" if in_memory else "path"

    @property
    def to(self) -> Any:
        return self._path if self._file is None else self._file

    def brought(self, answer: object) -> bytes:
        """What the call brought, as one that returns it would have returned it."""
        assert isinstance(answer, Path)
        return self.data() or b""

    def data(self) -> bytes | None:
        """What is at the target; `None` where there is nothing."""
        if self._file is not None:
            return self._file.getvalue()
        return self._path.read_bytes() if self._path.exists() else None

    def left_behind(self) -> list[str]:
        """What is beside the target, where nothing is to be."""
        return sorted(one.name for one in self._path.parent.iterdir() if one != self._path)


LEFT = "(left)"
"""What a pick comes to whose block was left without a word."""


def _how(told: Mapping[str, Any], answer: Any) -> str:
    """How a call ended that raised nothing: `answer`, unless what came is no plain one."""
    if answer is LEFT:
        return "left"
    if told["errand"] == "wait" and answer.failed:
        return "failed"  # `raise_on_failure=False`
    return "picture" if "variant" in told["arguments"] else "answer"


class _CallersError(Exception):
    """An error of the caller's own, in the block of a pick."""


def _own_request(attempt: Any, errand: Errand, asked: Asked) -> httpx.Request:
    if asked.leaves == "unsent":
        raise _CallersError
    headers = {**attempt.headers, "x-call": str(errand.number)}
    extensions = {"timeout": {"connect": 5.0, "read": OWN_SECONDS, "pool": 5.0}}
    if asked.picks == "status":
        url = f"{attempt.base_url}/videos/{attempt.native_id}"
        return httpx.Request("GET", url, headers=headers, extensions=extensions)
    return httpx.Request(
        "POST",
        f"{attempt.base_url}/videos",
        headers=headers,
        json={"prompt": mark(errand.number), "model": attempt.model},
        extensions=extensions,
    )


OWN_SECONDS = 30.0
OWN_LARGEST = 1 << 20
_Answer = tuple[int, dict[str, str], bytes]


async def _sent(client: Network, request: httpx.Request) -> _Answer | None:
    """What came of an exchange; `None` where that was no whole answer."""
    body = bytearray()
    try:
        async with asyncio.timeout(OWN_SECONDS):
            response = await client.handle_async_request(request)
            try:
                async for chunk in response.stream:  # type: ignore[union-attr]  # it is both
                    body += chunk
                    if len(body) > OWN_LARGEST:
                        return None
            finally:
                await response.aclose()
    except (httpx.HTTPError, TimeoutError):
        return None
    return response.status_code, dict(response.headers), bytes(body)


def _sent_blocking(
    client: Network, request: httpx.Request, now: Callable[[], float]
) -> _Answer | None:
    body, until = bytearray(), now() + OWN_SECONDS
    try:
        response = client.handle_request(request)
        try:
            for chunk in response.stream:  # type: ignore[union-attr]  # it is both
                body += chunk
                if len(body) > OWN_LARGEST or now() > until:
                    return None
        finally:
            response.close()
    except httpx.HTTPError:
        return None
    return response.status_code, dict(response.headers), bytes(body)


def _reported(attempt: Any, asked: Asked, answer: _Answer | None) -> object:
    """Say what the exchange was; or nothing, as callers do who know no better."""
    if asked.leaves == "by an error":
        raise _CallersError
    if asked.leaves == "silently" and asked.picks != "status":
        return LEFT
    if answer is None:
        raise attempt.failed(None)
    status, headers, body = answer
    if status != 200:
        raise attempt.failed(status, headers, body)
    try:
        native = httpx.Response(200, content=body).json()["id"]
    except (ValueError, KeyError, TypeError):
        native = None
    if not isinstance(native, str):
        raise attempt.failed(status, headers, body)
    if asked.leaves == "silently":
        return LEFT  # of a read that went well, which is what silence says of a read
    made = attempt.accepted(native)
    return LEFT if asked.picks == "status" else made
