"""A worker of `video-router demo --workers`, as a process: a router that always has calls to make.

    stdin   its orders in lines: the configuration (JSON), then go, watch, stop; its end is the end
    stdout  what it has to tell, a JSON object in each line, with Unix times in seconds

It makes jobs and follows them, some at a time, as a queue worker does. From `watch` on it looks
each millisecond or two whether the deployment that is to fail is still in rotation, by what its own
calls go by: from the moment that it tells of, none of them goes there.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from typing import Any, NoReturn

from router.errors import RouterError
from router.events import Attempted, Ejected, Event
from router.router import Router
from router.types import Operation

__all__ = ["Worker"]

TELLING_SECONDS = 0.2
FIRST_SECONDS = 1.5
# Who was chosen before the news came is still sent to, after the question for a slot.
UNDER_WAY_SECONDS = 0.5


class Worker:
    """`told` has the router's `config`, a `seed`, the `group`, how many `calls` at a time, whom to
    `watch`, and each how many seconds to `look`."""

    def __init__(self, told: dict[str, Any]) -> None:
        self._rng = random.Random(told["seed"])
        self.router = Router.from_dict(
            told["config"], environ={}, rng=self._rng, on_event=self._hear
        )
        self.stopping = False
        self._group: str = told["group"]
        self._at_a_time: int = told["calls"]
        self._watched: str = told["watch"]
        self._look_seconds: float = told["look"]
        self._exchanges = self._asked = self._made = 0
        self._running: Counter[str] = Counter()
        self._left = self._until = float("inf")
        self._served = False

    # Work ---------------------------------------------------------------------------------------

    def go(self) -> None:
        self._work = asyncio.create_task(self._all())
        self._work.add_done_callback(_ended)

    async def _all(self) -> None:
        """Make calls until it is `stopping`, and follow to its end each job that was started."""
        telling = asyncio.create_task(self._tell())
        try:
            await asyncio.gather(*(self._calls() for _ in range(self._at_a_time)))
        finally:
            telling.cancel()
            self._count()

    async def _calls(self) -> None:
        # Not in step with the others, as no users are.
        await asyncio.sleep(self._rng.random() * FIRST_SECONDS)
        while not self.stopping:
            await self._call()

    async def _call(self) -> None:
        self._asked += 1
        try:
            video = await self.router.avideo(prompt="A heron lands", model=self._group, seconds=4)
        except RouterError as error:
            say("failed", why=str(error), started=error.accepted != "no")
            await asyncio.sleep(getattr(error, "retry_after", None) or 1.0)
            return
        self._made += 1
        assert video.routing is not None
        deployment = video.routing.deployment
        self._running[deployment] += 1
        try:
            await self.router.avideo_wait(video.id, raise_on_failure=False)
        except RouterError as error:
            say("failed", why=str(error), started=True)
        finally:
            self._running[deployment] -= 1

    # Telling ------------------------------------------------------------------------------------

    async def _tell(self) -> None:
        while True:
            self._count()
            await asyncio.sleep(TELLING_SECONDS)

    def _count(self) -> None:
        running = {name: count for name, count in self._running.items() if count}
        say(
            "count",
            exchanges=self._exchanges,
            asked=self._asked,
            made=self._made,
            running=running,
        )

    def _hear(self, event: Event) -> None:
        if isinstance(event, Ejected) and event.deployment == self._watched:
            say("ejected", reason=event.reason, seconds=event.seconds)
        elif isinstance(event, Attempted):
            self._exchanges += 1
            if event.deployment == self._watched and event.operation == Operation.GENERATION:
                self._attempted(event)

    def _attempted(self, event: Attempted) -> None:
        if event.result != "success":
            say("refused", status=event.status)
        began = time.time() - event.seconds
        if began >= self._until and event.result == "success" and not self._served:
            self._served = True
            say("served")
        elif self._left + UNDER_WAY_SECONDS < began < self._until:
            say("strayed")

    # Watching -----------------------------------------------------------------------------------

    def watch(self) -> None:
        """Tell when the deployment is out for this worker; until when is all the rest."""
        while not self._is_out():
            time.sleep(self._look_seconds)
        self._left = time.time()
        say("left", at=self._left, seconds=self._until - self._left)
        # A call that was under way may make it longer.
        while self._is_out():
            time.sleep(TELLING_SECONDS / 10)

    def _is_out(self) -> bool:
        # Before it is asked, so that whatever holds this thread up makes it no later.
        now = time.time()
        ejections = self.router.statistics()[self._watched]["ejections"]
        left = max((float(one["seconds"]) for one in ejections), default=0.0)
        if left:
            self._until = now + left
        return left > 0.0


_saying = threading.Lock()


def say(what: str, **more: Any) -> None:
    line = json.dumps({"what": what, "at": time.time(), **more})
    # Nobody may be left to hear it; the end of stdin tells of that.
    with _saying, suppress(OSError):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


async def _obey() -> NoReturn:
    orders = await _stdin()
    if written := await orders.readline():
        worker = Worker(json.loads(written))
        say("ready")
        while order := (await orders.readline()).decode().strip():
            if order == "go":
                worker.go()
            elif order == "watch":
                threading.Thread(target=worker.watch, daemon=True).start()
            elif order == "stop":
                worker.stopping = True
    # Whoever gave the orders is done with it, or gone: here is nothing that would be lost.
    os._exit(0)


def _ended(work: asyncio.Task[None]) -> None:
    error = work.exception()
    if error is None:
        say("done")
    else:
        say("broken", why=f"{type(error).__name__}: {error}")


async def _stdin() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
    )
    return reader


def main() -> None:
    # What it has to tell goes by the lines; the log's own would fall in between.
    logging.getLogger("router").addHandler(logging.NullHandler())
    asyncio.run(_obey())


if __name__ == "__main__":
    main()
