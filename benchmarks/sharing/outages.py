"""What calls feel of it when Redis goes, and how soon all is shared again.

**The outages.** Redis is frozen (SIGSTOP) for 20 s, killed and started again empty after 8 s, and
absent when its workers start. There are two Redis servers with two workers each. In a round one of
the servers goes while the other one stays, and in the next round it is the other way about: what
the machine does meanwhile falls on both. What is added is the 99th percentile of the workers whose
server goes, less that of the workers whose server stays, over the outage and the two seconds after
it, in which they tell and hear what was missed.

**The traffic.** Of a server's workers one is without limits and one with (so many running jobs,
requests in flight and requests per minute that no call is refused), each in a process of its own.
Each starts 25 generations a second on 8 deployments, half of them as tasks of one event loop and
half in threads, against an upstream that answers at once; of each video it is told a little later
that it is finished. A call's time runs from the moment at which it was due, so one that keeps
others waiting counts with them, and so does an event loop that stands. A process' first calls and
a second are in no figure: what it opens and imports for the first time would hide the rest.

**With limits** a call has to ask Redis. Of those that meet a silent one the first ones wait, 100 ms
at most, and the others go by what the worker knows. So what counts there is the longest wait: what
the slowest call of the outage's first half second took beyond the median of Redis up. Beside it
stands how many calls took more than 80 ms, in that half second and later.

**Processor time of sharing** is that of the two threads that own Redis: what an outage costs a
worker beside its calls, and what a busy machine changes least.

**Whole again** is a worker when an ejection that somebody tells Redis reaches it, and when Redis
grants its leases; counted from the moment at which the server is thawed, or is started.

**Construction** is `Router.from_dict` with 30 deployments in a fresh interpreter that has imported
`router`: where nobody listens on Redis' port, where somebody accepts and never answers, and without
Redis. The import of redis-py, which stands beside it, is part of it where there is a Redis to come.

Not measured: slow networks, a Redis that loses packets, sentinels and clusters.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from benchmarks.measure import Figure, percentile
from benchmarks.sharing.stage import Wire, Worker
from benchmarks.upstream import upstream
from router import Router

__all__ = ["RedisServer", "fleet", "free_port", "measure"]

ADDED_MILLISECONDS = 5.0
LONGEST_MILLISECONDS = 100.0
CONSTRUCTION_SECONDS = 0.2
WHOLE_SECONDS = 3.0
SLOW_SECONDS = 0.08
FIRST_SECONDS = 0.5
LONGEST_RETURN = 20.0

ROOT = Path(__file__).resolve().parents[2]
GROUP = "sora-2"
OUT = "d0"
DEPLOYMENTS = 8
RATE = 25
LANES = 2
WARM_CALLS = 5
WARM_SECONDS = 1.0
AFTER_SECONDS = 2.0
LIMITS = {"max_parallel_jobs": 400, "max_parallel_requests": 400, "rpm": 1_000_000}


@dataclass(frozen=True)
class Effort:
    """How often and how long: rounds of each outage, seconds of each, fresh interpreters."""

    rounds: int
    frozen: float
    killed: float
    absent: float
    interpreters: int


FULL = Effort(rounds=4, frozen=20, killed=8, absent=8, interpreters=7)
QUICK = Effort(rounds=1, frozen=4, killed=3, absent=3, interpreters=3)


def measure(binary: str, folder: Path, *, quick: bool) -> Iterator[Figure]:
    """The figures, each as soon as it is known. `folder` takes what the servers log."""
    effort = QUICK if quick else FULL
    yield from constructions(effort.interpreters)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(upstream(numbered=True))
        stores = [stack.enter_context(RedisServer(binary, folder)) for _ in range(2)]
        for what, seconds in (
            ("frozen", effort.frozen),
            ("killed", effort.killed),
            ("absent at start", effort.absent),
        ):
            outage = Outage(what, seconds, server.base_url, stores)
            yield from told(what, list(outage.rounds(effort.rounds)))


# Redis --------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """A redis-server on a free port of the loopback, which keeps nothing, while a block lasts."""

    def __init__(self, binary: str, folder: Path) -> None:
        self._command = [binary, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.port = free_port()
        self._log = folder / f"redis-{self.port}.log"
        self.url = f"redis://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RedisServer:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, socket_timeout=5, decode_responses=True)

    def start(self) -> None:
        """Start it where it stood; returns when it answers."""
        command = [*self._command, "--port", str(self.port), "--dir", str(self._log.parent)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        ends = time.monotonic() + 10
        while time.monotonic() < ends and self._process.poll() is None:
            with contextlib.suppress(redis.RedisError), self.client() as client:
                # Another's server on that port has another process id.
                if client.info("server")["process_id"] == self._process.pid:
                    return
            time.sleep(0.01)
        raise RuntimeError(f"redis-server does not start; its log is {self._log}")

    def freeze(self) -> None:
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once, frozen or not."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(10)


# A worker -----------------------------------------------------------------------------------------


def fleet(
    base_url: str, url: str, namespace: str, count: int = DEPLOYMENTS, **limits: int
) -> dict[str, Any]:
    """A configuration of `count` deployments, each in an account of its own."""
    return {
        "settings": {"redis_url": url, "namespace": namespace},
        "deployments": [
            {
                "id": f"d{index}",
                "model_name": GROUP,
                "account": f"a{index}",
                "base_url": base_url,
                "api_key": f"sk-{index}",
                **limits,
            }
            for index in range(count)
        ],
    }


@dataclass(frozen=True)
class Made:
    """One call: when it was due, by a clock that all processes share, and how it went."""

    due: float
    seconds: float
    error: str | None


class Traffic:
    """Calls at a steady rate, as long as the process lives."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._began = 0.0
        self._warm = threading.Barrier(LANES + 2, self._begin, timeout=60)
        self.made: list[Made] = []
        works = [lambda: asyncio.run(self._tasks())]
        works += [functools.partial(self._lane, 2 * n + 1) for n in range(LANES)]
        for work in works:
            threading.Thread(target=work, daemon=True).start()
        self._warm.wait()

    def _begin(self) -> None:
        self.made.clear()
        self._began = time.monotonic()

    def _due(self, first: int, step: int) -> Iterator[float]:
        """The moments of every `step`th call."""
        return (self._began + number / RATE for number in itertools.count(first, step))

    def _note(self, due: float, error: BaseException | None) -> None:
        self.made.append(Made(due, time.monotonic() - due, error and repr(error)))

    def _lane(self, first: int) -> None:
        running: deque[str] = deque()
        for _ in range(WARM_CALLS):
            self._one(time.monotonic(), running)
        self._warm.wait()
        for due in self._due(first, 2 * LANES):
            time.sleep(max(due - time.monotonic(), 0))
            self._one(due, running)
            self._finish(running)

    def _one(self, due: float, running: deque[str]) -> None:
        error = None
        try:
            running.append(self._router.video_generation(prompt="x", model=GROUP).id)
        except Exception as exc:  # noqa: BLE001  (that there is none is what is shown)
            error = exc
        self._note(due, error)

    async def _tasks(self) -> None:
        running: deque[str] = deque()
        tasks: set[asyncio.Task[None]] = set()
        for _ in range(WARM_CALLS):
            await self._aone(time.monotonic(), running)
        self._warm.wait()
        for due in self._due(0, 2):
            await asyncio.sleep(max(due - time.monotonic(), 0))
            task = asyncio.create_task(self._aone(due, running))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            self._finish(running)

    async def _aone(self, due: float, running: deque[str]) -> None:
        error = None
        try:
            video = await self._router.avideo_generation(prompt="x", model=GROUP)
            running.append(video.id)
        except Exception as exc:  # noqa: BLE001  (as above)
            error = exc
        self._note(due, error)

    def _finish(self, running: deque[str]) -> None:
        """What a webhook would tell of a video that was begun some calls ago."""
        while len(running) > 5:
            self._router.observe(running.popleft(), "completed")


def play(wire: Wire, configuration: Mapping[str, Any]) -> None:
    """A worker: it calls from the first word on, and answers each of the others."""
    router = Router.from_dict(configuration, environ={})
    wire.hear()
    traffic = Traffic(router)
    worked = _worked()
    wire.say()
    while True:
        if wire.hear() == "sees":
            wire.say(_sees(router, OUT))
        else:
            since, worked = worked, _worked()
            made, traffic.made = traffic.made, []
            wire.say((made, worked - since))


def _worked() -> float:
    """Processor seconds of the threads that own Redis, so far."""
    found = 0.0
    for thread in threading.enumerate():
        if thread.name.startswith("router-") and thread.ident is not None:
            found += time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    return found


def _sees(router: Router, name: str) -> float:
    """When a deployment is out of rotation: waits until it is."""
    ends = time.monotonic() + LONGEST_RETURN
    while time.monotonic() < ends:
        if router.statistics()[name]["ejections"]:
            return time.monotonic()
        time.sleep(0.01)
    return float("inf")


# An outage ----------------------------------------------------------------------------------------

FREE, CAPPED = "without limits", "with limits"
NAMESPACES = {FREE: "free", CAPPED: "capped"}


@dataclass
class Half:
    """The calls of one worker in a round that began at `began`."""

    made: list[Made]
    began: float
    ended: float
    worked: float

    @property
    def share(self) -> float:
        """Processor time that sharing took, in milliseconds a second."""
        return 1e3 * self.worked / (self.ended - self.began)

    def at(self, share: float) -> float:
        return percentile([call.seconds for call in self.made], share)

    @property
    def failed(self) -> int:
        return sum(call.error is not None for call in self.made)

    @property
    def longest(self) -> float:
        return max(call.seconds for call in self.made)

    @property
    def longest_at_first(self) -> float:
        return max(call.seconds for call in self.made if self._is_first(call))

    def slow(self, *, at_first: bool) -> int:
        """How many calls took long, of those of the first moments or of all later ones."""
        return sum(
            call.seconds > SLOW_SECONDS and self._is_first(call) == at_first for call in self.made
        )

    def _is_first(self, call: Made) -> bool:
        return call.due < self.began + FIRST_SECONDS


@dataclass
class Round:
    """What one round found, by kind of worker; `whole` in seconds after Redis' return."""

    up: dict[str, Half] = field(default_factory=dict)
    out: dict[str, Half] = field(default_factory=dict)
    whole: dict[str, float] = field(default_factory=dict)


class Side:
    """One of the two servers, and its workers."""

    def __init__(self, store: RedisServer, base_url: str) -> None:
        self.store = store
        self._base_url = base_url
        self.workers: dict[str, Worker] = {}

    def configuration(self, kind: str) -> dict[str, Any]:
        limits = LIMITS if kind == CAPPED else {}
        return fleet(self._base_url, self.store.url, NAMESPACES[kind], **limits)

    def hire(self) -> None:
        self.workers = {kind: Worker(play, self.configuration(kind)) for kind in NAMESPACES}

    def begin(self) -> None:
        self._all("call")

    def forget(self) -> None:
        """What the workers did until now is in no figure."""
        self._all("made")

    def calls(self, began: float, ended: float) -> dict[str, Half]:
        """What the workers did in between."""
        return {
            kind: Half([call for call in made if began <= call.due < ended], began, ended, worked)
            for kind, (made, worked) in self._all("made").items()
        }

    def _all(self, order: str) -> dict[str, Any]:
        for worker in self.workers.values():
            worker.tell(order)
        return {kind: worker.hear() for kind, worker in self.workers.items()}

    def dismiss(self) -> None:
        for worker in self.workers.values():
            worker.kill()
        self.workers = {}

    def whole(self) -> dict[str, float]:
        """The moments at which this side's workers share again."""
        for worker in self.workers.values():
            worker.tell("sees")
        with contextlib.ExitStack() as stack:
            operators = []
            for kind in self.workers:
                # It takes its turns in the store when it is told to, and in no thread.
                told = self.configuration(kind)
                operator = stack.enter_context(Router.from_dict(told, environ={}, onlooker=True))
                operator.drain(OUT, 60.0)
                _shared(operator)
                operators.append(operator)
            granted = _granted(self.store, NAMESPACES[CAPPED])
            found = {kind: float(worker.hear()) for kind, worker in self.workers.items()}
            found[CAPPED] = max(found[CAPPED], granted)
            for operator in operators:
                operator.restore(OUT)
                _shared(operator)
        return found


def _shared(operator: Router) -> None:
    ends = time.monotonic() + LONGEST_RETURN
    while time.monotonic() < ends:
        with contextlib.suppress(OSError):
            operator.share()
            return
        time.sleep(0.01)


def _granted(store: RedisServer, namespace: str) -> float:
    """When Redis granted something from now on: only a grant of its own enters a window."""
    with store.client() as client:
        seconds, micros = client.time()
        windows = [f"{{{namespace}}}:v1:rpm:deployment:d{n}" for n in range(DEPLOYMENTS)]
        ends = time.monotonic() + LONGEST_RETURN
        while time.monotonic() < ends:
            if any(client.zcount(window, seconds + micros / 1e6, "+inf") for window in windows):
                return time.monotonic()
            time.sleep(0.01)
    return float("inf")


@dataclass
class Outage:
    """One way to go, in rounds in which the two servers take turns at it."""

    what: str
    seconds: float
    base_url: str
    stores: Sequence[RedisServer]

    def rounds(self, count: int) -> Iterator[Round]:
        sides = [Side(store, self.base_url) for store in self.stores]
        try:
            for number in range(count):
                out, up = sides if number % 2 == 0 else sides[::-1]
                if self.what == "absent at start":
                    self._begin_without(sides, out)
                elif number == 0:
                    self._begin(sides)
                time.sleep(WARM_SECONDS)
                yield self._round(out, up)
        finally:
            for side in sides:
                side.dismiss()

    def _begin(self, sides: Sequence[Side]) -> None:
        for side in sides:
            side.hire()
        for side in sides:
            side.begin()

    def _begin_without(self, sides: Sequence[Side], out: Side) -> None:
        for side in sides:
            side.dismiss()
        out.store.kill()
        self._begin(sides)

    def _round(self, out: Side, up: Side) -> Round:
        for side in (out, up):
            side.forget()
        began = time.monotonic()
        if self.what == "frozen":
            out.store.freeze()
        elif self.what == "killed":
            out.store.kill()
        time.sleep(self.seconds)
        back = time.monotonic()
        if self.what == "frozen":
            out.store.thaw()
        else:
            out.store.start()
        whole = {kind: at - back for kind, at in out.whole().items()}
        time.sleep(max(back + AFTER_SECONDS - time.monotonic(), 0))
        ended = time.monotonic()
        return Round(up.calls(began, ended), out.calls(began, ended), whole)


def told(what: str, found: Sequence[Round]) -> Iterator[Figure]:
    """An outage's figures, over its rounds."""
    for who in (FREE, CAPPED):
        ups, outs = [one.up[who] for one in found], [one.out[who] for one in found]
        name = f"Redis {what}, {who}"
        failed = [float(half.failed) for half in outs]
        yield Figure(f"{name}: failed calls", sum(failed), "calls", 0, failed)
        added = [1e3 * (out.at(0.99) - up.at(0.99)) for up, out in zip(ups, outs, strict=True)]
        judged = ADDED_MILLISECONDS if who == FREE else None
        yield Figure.median(f"{name}: added at the 99th percentile", added, "ms", judged)
        if who == CAPPED:
            waits = [
                1e3 * (out.longest_at_first - up.at(0.5)) for up, out in zip(ups, outs, strict=True)
            ]
            yield Figure.median(f"{name}: longest wait", waits, "ms", LONGEST_MILLISECONDS)
        for when, halves in (("Redis up", ups), ("outage", outs)):
            at = [1e3 * half.at(0.99) for half in halves]
            yield Figure.median(f"{name}: 99th percentile, {when}", at, "ms")
            for moments, at_first in (("at first", True), ("later", False)):
                slow = [float(half.slow(at_first=at_first)) for half in halves]
                yield Figure.median(f"{name}: calls over 80 ms {moments}, {when}", slow, "calls")
            longest = [1e3 * half.longest for half in halves]
            yield Figure.median(f"{name}: longest call, {when}", longest, "ms")
            shares = [half.share for half in halves]
            yield Figure.median(f"{name}: processor time of sharing, {when}", shares, "ms/s")
        whole = [one.whole[who] for one in found]
        yield Figure(f"{name}: whole again", max(whole), "s", WHOLE_SECONDS, whole)


# Construction -------------------------------------------------------------------------------------

CONSTRUCT = """
import json, sys, time
from router import Router
configuration = json.loads(sys.argv[1])
began = imported = time.perf_counter()
if configuration["settings"]["redis_url"]:
    import redis, redis.cluster, redis.sentinel
    imported = time.perf_counter()
Router.from_dict(configuration, environ={})
print(time.perf_counter() - began, imported - began)
"""


def constructions(times: int) -> Iterator[Figure]:
    """How long building a router takes, where its Redis is not there or never answers."""
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", 0))
        hole.listen(64)
        ports = {"Redis absent": free_port(), "Redis silent": hole.getsockname()[1]}
        urls = {what: f"redis://127.0.0.1:{port}" for what, port in ports.items()}
        seen: dict[str, list[float]] = {what: [] for what in (*urls, "without Redis")}
        imports = []
        for _ in range(times):
            for what, found in seen.items():
                took, imported = _constructed(urls.get(what, ""))
                found.append(took)
                imports += [imported] if imported else []
    for what, found in seen.items():
        judged = CONSTRUCTION_SECONDS if what in urls else None
        yield Figure.median(f"construction, {what}", found, "s", judged)
    yield Figure.median("construction: of it, importing redis-py", imports, "s")


def _constructed(url: str) -> tuple[float, float]:
    """Seconds to a router in a fresh interpreter, and of them those of importing redis-py."""
    configuration = fleet("http://127.0.0.1:9/v1", url, "video-router", 30)
    command = [sys.executable, "-c", CONSTRUCT, json.dumps(configuration)]
    found = subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=ROOT)
    took, imported = map(float, found.stdout.split())
    return took, imported
