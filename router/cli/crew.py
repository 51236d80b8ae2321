"""The workers of `video-router demo --workers`: their processes, and what each has told so far."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

from router.cli import servers
from router.cli.look import CommandError

__all__ = ["Crew", "Told", "Worker"]

START_SECONDS = 60.0
END_SECONDS = 60.0


@dataclass(frozen=True)
class Told:
    """A line of a worker's: `what`, when in Unix seconds, and what else there is to it."""

    worker: int
    what: str
    at: float
    more: Mapping[str, Any]


@dataclass
class Worker:
    """One of them, by its own words.

    `asked` counts the jobs it asked for, `made` those that it was given, `failed` the calls that
    failed and `not_started` those of them that surely started none; `refused` and `strayed` the
    submits that the watched deployment refused, and those that went there while it was out, which
    it is since `left` for this worker. `running` is by deployment.
    """

    number: int
    process: subprocess.Popen[str]
    exchanges: int = 0
    asked: int = 0
    made: int = 0
    failed: int = 0
    not_started: int = 0
    strayed: int = 0
    refused: int = 0
    running: Mapping[str, int] = field(default_factory=dict)
    left: float | None = None
    ready: bool = False
    done: bool = False

    def take(self, told: Told) -> None:
        more = told.more
        if told.what == "count":
            self.exchanges, self.asked, self.made = more["exchanges"], more["asked"], more["made"]
            self.running = more["running"]
        elif told.what == "failed":
            self.failed += 1
            self.not_started += not more["started"]
        elif told.what in ("left", "ejected"):
            # Who ejects it knows it a moment before it looks.
            self.left = min(self.left or told.at, told.at)
        elif told.what in ("ready", "done"):
            setattr(self, told.what, True)
        elif told.what in ("strayed", "refused"):
            setattr(self, told.what, getattr(self, told.what) + 1)


class Crew:
    """All of them. `hear` gives what was told next; where one is gone that was not sent away, or
    cannot go on, it raises."""

    def __init__(self, processes: Sequence[subprocess.Popen[str]]) -> None:
        self.workers = [Worker(number, process) for number, process in enumerate(processes, 1)]
        self._told: SimpleQueue[Told] = SimpleQueue()
        for worker in self.workers:
            threading.Thread(target=self._listen, args=(worker,), daemon=True).start()

    @classmethod
    @contextmanager
    def started(cls, count: int) -> Iterator[Crew]:
        """So many processes, which wait to be told what they are."""
        command = servers.module("router.cli.demo_worker")
        with servers.processes([command] * count) as started:
            yield cls(started)

    def prepare(self, told: Mapping[str, Any]) -> None:
        """Tell each what it is, with a seed of its own, and wait until all are ready."""
        for worker in self.workers:
            _send(worker, json.dumps({**told, "seed": f"{told['seed']}-{worker.number}"}))
        for _ in self._until(lambda worker: worker.ready, START_SECONDS, "start"):
            pass

    def order(self, word: str) -> None:
        for worker in self.workers:
            _send(worker, word)

    def finish(self) -> Iterator[Told]:
        """No more calls; what is told until the last job has ended."""
        self.order("stop")
        yield from self._until(lambda worker: worker.done, END_SECONDS, "finish its calls")

    def hear(self, seconds: float) -> Told | None:
        """What is told within so many seconds."""
        try:
            told = self._told.get(timeout=max(seconds, 0.0))
        except Empty:
            return None
        if told.what in ("gone", "broken"):
            raise CommandError(f"worker {told.worker} has ended: {told.more['why']}")
        self.workers[told.worker - 1].take(told)
        return told

    def _until(self, is_so: Callable[[Worker], bool], seconds: float, what: str) -> Iterator[Told]:
        ends = time.monotonic() + seconds
        while missing := [worker for worker in self.workers if not is_so(worker)]:
            left = ends - time.monotonic()
            if left <= 0:
                raise CommandError(
                    f"worker {missing[0].number} does not {what} within {seconds:g} s"
                )
            if told := self.hear(left):
                yield told

    def _listen(self, worker: Worker) -> None:
        assert worker.process.stdout is not None
        said = "it said nothing"
        with suppress(ValueError, OSError):  # closed, at the end of it all
            for line in worker.process.stdout:
                try:
                    more = json.loads(line)
                    told = Told(worker.number, more.pop("what"), more.pop("at"), more)
                except (ValueError, AttributeError, KeyError):
                    said = line.strip() or said
                else:
                    self._told.put(told)
        self._told.put(Told(worker.number, "gone", time.time(), {"why": said}))


def _send(worker: Worker, line: str) -> None:
    assert worker.process.stdin is not None
    with suppress(OSError):  # of which its listener tells
        worker.process.stdin.write(f"{line}\n")
        worker.process.stdin.flush()
