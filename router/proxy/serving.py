"""The process around the application: from its socket to its last answer.

    serve ──► one process, or a supervisor with workers that share the socket
                 SIGTERM, SIGINT   not ready any more; what is under way ends; then the process
                 the same again    what is under way is cut off
                 SIGHUP            the configuration is read again; so it is when its file changes

A supervisor looks after the file and its workers, and passes signals on; it serves nothing. Workers
end with it, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import signal
import socket
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any, NoReturn

import uvicorn
from starlette.middleware import Middleware

from router import _logs
from router.config import Config, load_file
from router.errors import ConfigError, RouterWarning
from router.events import Event, OnEvent
from router.proxy.app import application
from router.proxy.connections import Connection
from router.proxy.console import Console
from router.proxy.gate import Gate
from router.router import VOCABULARY, Router

__all__ = ["Plan", "StartError", "bound", "is_loopback", "open_to_all", "serve"]

log = logging.getLogger("router")

LOOK_SECONDS = 1.0
"""Between two looks at the configuration's file, and at the workers."""
START_SECONDS = 60.0
# Beyond the grace, for what is cut off to say so, and to tell the others what it learned.
END_SECONDS = 5.0
# Longer than load balancers keep theirs, so that none of them sends into a connection that ends.
IDLE_SECONDS = 75
BACKLOG = 2048


class StartError(Exception):
    """The process cannot serve; the text says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is served: the configuration's file, on which host, by how many `workers`.

    `grace` is in seconds: how long what is under way may take once the end is asked for.
    """

    file: str
    host: str
    workers: int = 1
    grace: float = 25.0

    def loaded(self) -> Config:
        """The configuration as it stands; raises `ConfigError`, also where it opens the door."""
        config = load_file(self.file, environ=os.environ, vocabulary=VOCABULARY)
        if open_to_all(self.host, config):
            raise ConfigError(
                f"{self.file}: proxy.keys: without keys, whoever reaches {self.host} could start "
                "paid jobs: add a key (`video-router keys new` makes one), or listen on 127.0.0.1"
            )
        return config


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches this address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def open_to_all(host: str, config: Config) -> bool:
    """Whether anybody may call who reaches the host, and others than this machine do."""
    return not config.proxy.keys and not is_loopback(host)


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens; raises `OSError`."""
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family, backlog=BACKLOG)


def serve(plan: Plan, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until a signal says to end; `ready` is called once, when calls are answered.

    Only for the main thread, which is where signals arrive. Raises `StartError`.
    """
    # Advice on prompts is for who writes them; here it would go to the operator's log.
    warnings.simplefilter("ignore", RouterWarning)
    if plan.workers == 1:
        asyncio.run(_Worker(plan, listening).run(ready, File(plan.file)))
        return
    with _metrics_of_all():
        _Supervisor(plan, listening).run(ready)


class File:
    """A file that may change: by its time and its size, or by being another one."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen = self._look()

    def changed(self) -> bool:
        """Whether it is another one than at the last look. One that is gone has not changed."""
        seen = self._look()
        if seen in (None, self._seen):
            return False
        self._seen = seen
        return True

    def _look(self) -> tuple[int, int, int] | None:
        try:
            stat = os.stat(self._path)
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


# A process that serves --------------------------------------------------------------------------


class _Server(uvicorn.Server):
    """The server, told by its owner when to end; signals are the owner's."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:  # type: ignore[override]
        return contextlib.nullcontext()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()


class _Worker:
    """One process that answers calls."""

    def __init__(self, plan: Plan, listening: socket.socket) -> None:
        self._plan, self._listening = plan, listening

    async def run(
        self, ready: Callable[[], None], file: File | None, lifeline: int | None = None
    ) -> None:
        """Serve until the end is asked for, or the other end of the `lifeline` is closed."""
        console = Console()
        self._router = Router.from_yaml(self._plan.file, on_event=_hooks(console))
        self._started_with = self._router.config
        app = application(self._router, self._router.config.proxy, console)
        self._access, self._readiness = app.state.access, app.state.readiness
        self._gate = Gate(self._access, self._readiness)
        # The innermost: what it refuses bears an id as all answers do.
        app.user_middleware.append(Middleware(self._gate.before))
        self._server = _Server(_told(app), ready)
        self._stop, self._again = asyncio.Event(), asyncio.Event()
        again = self._reload if file is not None else self._swap
        watching = asyncio.create_task(self._watch(file)) if file is not None else None
        with _heard(asyncio.get_running_loop(), self._asked_to_stop, again, lifeline):
            await self._served()
        if watching is not None:
            watching.cancel()
        await self._router.aclose()

    async def _served(self) -> None:
        serving = asyncio.create_task(self._server.serve([self._listening]))
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait({serving, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not serving.done():
            await self._emptied()
            self._server.should_exit = True
        await serving

    async def _emptied(self) -> None:
        """What is under way ends: by itself, else with the grace or at the second word."""
        if not len(self._gate):
            return
        said = "asked to end: %d under way, for at most %g s"
        log.info(said, len(self._gate), self._plan.grace, extra=_logs.fields("stopping"))
        ends = [
            asyncio.create_task(self._gate.emptied()),
            asyncio.create_task(self._again.wait()),
        ]
        await asyncio.wait(ends, timeout=self._plan.grace, return_when=asyncio.FIRST_COMPLETED)
        for task in ends:
            task.cancel()
        if left := len(self._gate):
            log.warning("%d cut off at the end", left, extra=_logs.fields("cut-off"))
            self._gate.cut()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._gate.emptied()

    def _asked_to_stop(self) -> None:
        self._readiness.stopping = True
        (self._again if self._stop.is_set() else self._stop).set()

    async def _watch(self, file: File) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if file.changed():
                self._reload()

    def _reload(self) -> None:
        """For who has nobody to look after the file."""
        if _is_good(self._plan, self._started_with):
            self._swap()

    def _swap(self) -> None:
        """Take the configuration into force as it stands now, all of it or nothing."""
        try:
            self._router.reload()
        except ConfigError as error:  # it has changed once more since it was looked at
            _keeps(error)
            return
        config = self._router.config
        if not open_to_all(self._plan.host, config):
            self._access.renew(config.proxy)


def _told(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=1,  # the grace is over by then
        backlog=BACKLOG,
    )


def _hooks(console: Console) -> OnEvent:
    # Late, since the client decides at its import whether it is one process of several.
    from router.telemetry.prometheus import Prometheus

    figures = Prometheus()

    def hear(event: Event) -> None:
        console(event)
        figures(event)

    return hear


def _is_good(plan: Plan, started_with: Config) -> bool:
    """Whether the configuration, as it stands now, may be taken into force; the log says it."""
    try:
        config = plan.loaded()
    except ConfigError as error:
        _keeps(error)
        return False
    log.info("%s is read again", plan.file, extra=_logs.fields("reloaded"))
    before, now = started_with.settings, config.settings
    if (before.redis_url, before.namespace) != (now.redis_url, now.namespace):
        said = "redis_url and namespace stay as they were until the process is started anew"
        log.warning(said, extra=_logs.fields("not-reloaded"))
    return True


def _keeps(error: ConfigError) -> None:
    more = f" (the first of {len(error.problems)} problems)" if len(error.problems) > 1 else ""
    said = "the configuration stays as it was: %s%s"
    log.error(said, error.problems[0], more, extra=_logs.fields("not-reloaded"))


@contextlib.contextmanager
def _heard(
    loop: asyncio.AbstractEventLoop,
    stop: Callable[[], None],
    reload: Callable[[], None],
    lifeline: int | None,
) -> Iterator[None]:
    """While the block lasts, signals are heard in the loop."""

    def hear(number: int, _: FrameType | None) -> None:
        loop.call_soon_threadsafe(reload if number == _HANG_UP else stop)

    with _signals(hear):
        if lifeline is not None:
            # Ctrl-C reaches all processes of a terminal; the supervisor's word is what counts.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            loop.add_reader(lifeline, _orphaned, loop, lifeline, stop)
        try:
            yield
        finally:
            if lifeline is not None:
                loop.remove_reader(lifeline)


def _orphaned(loop: asyncio.AbstractEventLoop, lifeline: int, stop: Callable[[], None]) -> None:
    loop.remove_reader(lifeline)
    stop()


# Signals ----------------------------------------------------------------------------------------

_HANG_UP = getattr(signal, "SIGHUP", None)
_ENDING = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def _signals(hear: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    numbers = [*_ENDING, *([_HANG_UP] if _HANG_UP is not None else [])]
    before = {number: signal.signal(number, hear) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# Several ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Hired:
    """A worker: its process, and where it says that it answers calls."""

    pid: int
    ready: int


class _Supervisor:
    """Workers that share one socket. One that ends by itself is replaced."""

    def __init__(self, plan: Plan, listening: socket.socket) -> None:
        self._plan, self._listening = plan, listening
        self._config = plan.loaded()
        self._workers: dict[int, _Hired] = {}
        self._lifeline, self._held = os.pipe()

    def run(self, ready: Callable[[], None]) -> None:
        heard: SimpleQueue[int] = SimpleQueue()
        with _signals(lambda number, _: heard.put(number)):
            file = File(self._plan.file)
            try:
                for _ in range(self._plan.workers):
                    self._hire()
                for worker in self._workers.values():
                    _await_ready(worker)
                ready()
                self._look_after(heard, file)
            finally:
                self._end(heard)

    def _hire(self) -> None:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._work(reading, writing)
        os.close(writing)
        self._workers[pid] = _Hired(pid, reading)

    def _work(self, reading: int, writing: int) -> NoReturn:
        code = 1
        try:
            os.close(reading)
            os.close(self._held)
            for other in self._workers.values():
                os.close(other.ready)
            work = _Worker(self._plan, self._listening)
            asyncio.run(work.run(lambda: _say(writing), None, self._lifeline))
            code = 0
        except BaseException:
            log.exception("a worker cannot go on", extra=_logs.fields("worker-ended"))
        finally:
            os._exit(code)

    def _look_after(self, heard: SimpleQueue[int], file: File) -> None:
        """Until a signal says to end."""
        while True:
            number = _next(heard, LOOK_SECONDS)
            if number in _ENDING:
                return
            if (number == _HANG_UP or file.changed()) and _is_good(self._plan, self._config):
                assert _HANG_UP is not None
                self._tell(_HANG_UP)
            for pid, code in self._ended():
                said = "a worker (%d) ended by itself (%d); another takes its place"
                log.error(said, pid, code, extra=_logs.fields("worker-ended"))
                self._hire()

    def _end(self, heard: SimpleQueue[int]) -> None:
        """All end: by themselves, else by force."""
        self._tell(signal.SIGTERM)
        ends = time.monotonic() + self._plan.grace + END_SECONDS
        while self._workers and time.monotonic() < ends:
            if _next(heard, 0.05) in _ENDING:
                self._tell(signal.SIGTERM)
            for _ in self._ended():
                pass
        if self._workers:
            self._tell(signal.SIGKILL)
            for pid in self._workers:
                os.waitpid(pid, 0)
        self._listening.close()

    def _tell(self, number: int) -> None:
        for pid in self._workers:
            os.kill(pid, number)  # one that has ended is not yet waited for, so it is still it

    def _ended(self) -> Iterator[tuple[int, int]]:
        for pid in list(self._workers):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                os.close(self._workers.pop(pid).ready)
                yield pid, os.waitstatus_to_exitcode(status)


def _next(heard: SimpleQueue[int], seconds: float) -> int | None:
    try:
        return heard.get(timeout=seconds)
    except Empty:
        return None


def _say(writing: int) -> None:
    os.write(writing, b"1")
    os.close(writing)


def _await_ready(worker: _Hired) -> None:
    # A worker that fails closes its end, which ends the wait as well.
    if not os.read(worker.ready, 1):
        raise StartError("a worker did not start; the log says why")


# Figures of all workers -------------------------------------------------------------------------


@contextlib.contextmanager
def _metrics_of_all() -> Iterator[None]:
    """Where the workers keep their figures, so that each of them can tell those of all."""
    name = "PROMETHEUS_MULTIPROC_DIR"
    if os.environ.get(name):
        yield
        return
    with tempfile.TemporaryDirectory(prefix="video-router-") as folder:
        os.environ[name] = folder
        try:
            yield
        finally:
            del os.environ[name]
