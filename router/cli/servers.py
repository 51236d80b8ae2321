"""Processes of this command's own: started, waited for, and always ended.

Each has a pipe for its stdin that nobody else holds. However this process dies, SIGKILL included,
the pipe ends with it, and that is what each child takes for its own end.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import httpx

import router
from router.cli.look import CommandError
from router.types import Operation

__all__ = [
    "Server",
    "accepted",
    "ended_by_signals",
    "ends_at_eof",
    "mend",
    "module",
    "processes",
    "running",
    "spoil",
]

# Generous, for machines that have something else to do.
START_SECONDS = 60.0
END_SECONDS = 5.0


@dataclass(frozen=True)
class Server:
    """A stand-in with one account of its own name. `latency` and `job_seconds` are in seconds,
    `faults` as `video-router stand-in --fault` takes them."""

    name: str
    latency: float
    job_seconds: float
    faults: tuple[str, ...] = ()
    max_running_jobs: int | None = None

    @property
    def key(self) -> str:
        return f"sk-{self.name}"

    def arguments(self) -> list[str]:
        faults = [part for fault in self.faults for part in ("--fault", fault)]
        most = self.max_running_jobs
        return [
            *("--until-eof", "--port", "0", "--account", f"{self.key}={self.name}"),
            *("--latency", str(self.latency), "--job-seconds", str(self.job_seconds)),
            *(() if most is None else ("--max-running-jobs", str(most))),
            *faults,
        ]


@contextmanager
def running(servers: Iterable[Server]) -> Iterator[Mapping[str, str]]:
    """Start them side by side; gives each one's base URL by name. All are gone afterwards.

    A SIGTERM or SIGHUP counts as Ctrl-C, so that this one sees them end.
    """
    every = tuple(servers)
    commands = [module("router", "stand-in", *one.arguments()) for one in every]
    with ended_by_signals(), processes(commands) as started:
        names = [one.name for one in every]
        yield {name: _base_url(name, one) for name, one in zip(names, started, strict=True)}


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module of this very package."""
    # -P: an app's own router.py lies where people run commands.
    return [sys.executable, "-P", "-m", name, *arguments]


@contextmanager
def processes(commands: Iterable[Sequence[str]]) -> Iterator[list[subprocess.Popen[str]]]:
    """A process for each command while the block lasts; stderr comes with stdout.

    Ctrl-C does not reach them: the end of their stdin is what they are told to end by.
    """
    started: list[subprocess.Popen[str]] = []
    try:
        for command in commands:
            started += [_started(command)]  # each is known from its first moment
        yield started
    finally:
        _end(started)


def _started(command: Sequence[str]) -> subprocess.Popen[str]:
    home = str(Path(router.__file__).parents[1])
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )


def _end(processes: Sequence[subprocess.Popen[str]]) -> None:
    """All at once, since each takes a moment; those that do not end are ended."""
    ends = time.monotonic() + END_SECONDS
    try:
        for one in processes:
            assert one.stdin is not None
            with suppress(OSError):  # it has ended before it read all
                one.stdin.close()
        for one in processes:
            with suppress(subprocess.TimeoutExpired):
                one.wait(max(ends - time.monotonic(), 0.0))
    finally:
        # Reached by an impatient second Ctrl-C as well.
        for one in processes:
            one.kill()
            one.wait()
            assert one.stdout is not None
            one.stdout.close()


def ends_at_eof() -> None:
    """In such a process, where stdin is for nothing else: from now on it ends with it, at once."""
    threading.Thread(target=_end_at_eof, daemon=True, name="until-eof").start()


def _end_at_eof() -> NoReturn:
    # Not through sys.stdin, whose lock a thread that reads would hold while Python shuts down.
    with suppress(OSError):
        while os.read(0, 4096):
            pass
    os._exit(0)


def _base_url(name: str, process: subprocess.Popen[str]) -> str:
    """Read what the process says until it says where it listens."""
    assert process.stdout is not None
    impatience = threading.Timer(START_SECONDS, process.kill)
    impatience.start()
    said = ""
    try:
        for said in process.stdout:
            if found := re.search(r"http://\S+", said):
                return found[0]
    finally:
        impatience.cancel()
    why = said.strip() or f"it said nothing within {START_SECONDS:g} s"
    raise CommandError(f"the stand-in server {name} did not start: {why}")


# While they run ----------------------------------------------------------------------------------


def accepted(urls: Iterable[str]) -> int:
    """How many jobs the servers took on, by their own books."""
    books = [submit for url in urls for submit in _control("GET", url, "accepted")]
    return sum(Operation(submit["operation"]).starts_job for submit in books)


def spoil(url: str, **fault: Any) -> None:
    """From now on this goes wrong: the arguments of `StandIn.fault()`."""
    _control("POST", url, "faults", fault)


def mend(url: str) -> None:
    """Nothing goes wrong any more."""
    _control("DELETE", url, "faults")


def _control(method: str, url: str, what: str, told: object = None) -> list[dict[str, Any]]:
    where = f"{url.removesuffix('/v1')}/_stand_in/{what}"
    try:
        with httpx.Client(trust_env=False) as client:
            answer = client.request(method, where, json=told).raise_for_status()
    except httpx.HTTPError as error:
        raise CommandError(f"the stand-in server at {url} is gone: {error}") from error
    found: list[dict[str, Any]] = answer.json().get("data", []) if answer.content else []
    return found


# Signals ----------------------------------------------------------------------------------------


def _interrupt(number: int, frame: FrameType | None) -> None:
    # As Ctrl-C would: asyncio takes that in by a handler of its own, which lets tasks end in order.
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """A SIGTERM or SIGHUP counts as Ctrl-C."""
    numbers = [one for one in signal.Signals if one.name in ("SIGTERM", "SIGHUP")]
    before = {number: signal.getsignal(number) for number in numbers}
    # What nohup has taught to be ignored stays ignored.
    heard = {number: old for number, old in before.items() if old is not signal.SIG_IGN}
    for number in heard:
        signal.signal(number, _interrupt)
    try:
        yield
    finally:
        for number, old in heard.items():
            signal.signal(number, old)
