"""Stand-in servers as processes of this command's own: started, waited for, and always ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import router
from router.cli.look import CommandError

__all__ = ["Server", "ended_by_signals", "running"]

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

    @property
    def key(self) -> str:
        return f"sk-{self.name}"

    def arguments(self) -> list[str]:
        faults = [part for fault in self.faults for part in ("--fault", fault)]
        return [
            *("--port", "0", "--account", f"{self.key}={self.name}"),
            *("--latency", str(self.latency), "--job-seconds", str(self.job_seconds)),
            *faults,
        ]


@contextmanager
def running(servers: Iterable[Server]) -> Iterator[Mapping[str, str]]:
    """Start them side by side; gives each one's base URL by name. All are gone afterwards.

    A SIGTERM or SIGHUP counts as Ctrl-C, since by default it would leave them behind.
    """
    with ended_by_signals(), ExitStack() as stack:
        started = {one.name: stack.enter_context(_process(one)) for one in servers}
        yield {name: _base_url(name, process) for name, process in started.items()}


@contextmanager
def _process(server: Server) -> Iterator[subprocess.Popen[str]]:
    # -P, and the path of this very package: an app's own router.py lies where people run commands.
    home = str(Path(router.__file__).parents[1])
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "router", "stand-in", *server.arguments()],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    try:
        process.terminate()
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        # Reached by an impatient second Ctrl-C as well.
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


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
