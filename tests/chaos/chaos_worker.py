"""One worker of the fleet: a router that threads and tasks call through both doors.

    chaos_worker.py <what it is, as JSON>

It writes each call down before and after it (`w<number>.<life>.jsonl`), and what the router told
meanwhile. What it made it posts on a board that all workers read: so a video is followed, edited
and downloaded by others than who made it, and a key is used again by others, also after a crash. A
key is posted before its first use.

SIGTERM ends it: calls under way go on to their end, and then it writes down what is left of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import faulthandler
import gc
import json
import os
import random
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from chaos_journal import Journal, Line
from chaos_mutations import MUTATIONS
from chaos_plan import DEADLINE, GROUP, LANES, WAIT_TIMEOUT

from router import Router, RouterError
from router.events import Attempted, Ejected, Event, Restored
from router.leases import Acquire, Grant
from router.testing.media import CLIP

__all__ = ["Lane", "Worker", "main"]

MEETING_SECONDS = 10.0
KNOWN = 200
"""What a worker remembers of the board."""
CALL: contextvars.ContextVar[str | None] = contextvars.ContextVar("call", default=None)


class Board:
    """What all workers know of: videos, characters, and keys with what they were used for."""

    def __init__(self, folder: Path) -> None:
        self._journal = Journal(folder / "board.jsonl")
        self._lines = (folder / "board.jsonl").open("rb")
        self._lock = threading.Lock()
        self._rest = b""
        self._known: dict[str, deque[Line]] = {
            what: deque(maxlen=KNOWN) for what in ("video", "character", "key")
        }

    def post(self, what: str, **about: Any) -> None:
        self._journal.write(what, **about)

    def some(
        self, rng: random.Random, what: str, *, least_age: float = 0.0, newest: int = KNOWN
    ) -> Line | None:
        """One of the newest so many that are known, and not younger than that."""
        with self._lock:
            *lines, self._rest = (self._rest + self._lines.read()).split(b"\n")
            for line in map(json.loads, lines):
                self._known[line["what"]].append(line)
            latest = time.monotonic() - least_age
            old_enough = [line for line in self._known[what] if line["at"] <= latest]
        return rng.choice(old_enough[-newest:]) if old_enough else None


class Worker:
    """A router, its journal and its lanes."""

    def __init__(self, told: Line) -> None:
        self.name = f"w{told['number']}.{told['life']}"
        self.seed = f"{told['seed']} {self.name}"
        folder = Path(told["folder"])
        self.journal = Journal(folder / f"{self.name}.jsonl")
        self.board = Board(folder)
        self.pause = told["pause"]
        self.ending = threading.Event()
        self.descriptors = len(os.listdir("/proc/self/fd"))
        self.router = Router.from_dict(told["configuration"], environ={}, on_event=self._hear)
        self.mutation = MUTATIONS.get(told["mutation"])
        self._note_grants()

    def _hear(self, event: Event) -> None:
        if isinstance(event, Attempted):
            metadata = event.metadata or {}
            self.journal.write(
                "attempted",
                call=metadata.get("call"),
                operation=event.operation,
                deployment=event.deployment,
                status=event.status,
                result=event.result,
                accepted=event.accepted,
                took=round(event.seconds, 3),
            )
        elif isinstance(event, Ejected | Restored) and not event.shared:
            what = type(event).__name__.lower()
            self.journal.write(what, deployment=event.deployment, why=event.reason)

    def _note_grants(self) -> None:
        """Write down who was given a slot for a job, and whether without Redis' answer.

        No event tells that; and what may run at most depends on it.
        """
        leasing = self.router._engine.leasing
        granted = leasing._granted

        async def noting(side: Any, acquire: Acquire) -> tuple[Acquire, Grant]:
            answered, grant = await granted(side, acquire)
            if grant.index is not None:
                for need in answered.choices[grant.index]:
                    if need.resource.startswith("jobs:account:"):
                        self.journal.write(
                            "granted",
                            call=CALL.get(),
                            account=need.resource.rpartition(":")[2],
                            local=answered.token != acquire.token,
                            workers=leasing.workers,
                        )
            return answered, grant

        leasing._granted = noting  # type: ignore[method-assign]

    def meet(self) -> None:
        """Take the first turn, as who is in a fleet has: who has not knows of nobody else."""
        assert self.router._keeper is not None
        assert self.router._learning.sharing is not None
        self.router._keeper.start()
        met = self.router._learning.sharing.met.wait(MEETING_SECONDS)
        self.journal.write("met", met=met)
        sys.stdout.write("ready\n")
        sys.stdout.flush()

    def run(self) -> None:
        self.meet()
        threads = [
            threading.Thread(target=self._blocking, args=(f"b{number}",))
            for number in range(LANES["blocking"])
        ]
        threads.append(threading.Thread(target=lambda: asyncio.run(self._tasks())))
        for thread in threads:
            thread.start()
        while not self.ending.wait(1.0):
            self._vitals("vitals")
        for thread in threads:
            thread.join()
        self.router.close()
        gc.collect()
        time.sleep(0.1)
        if self.mutation is not None:
            self.mutation.at_end(self)
        own = {threading.main_thread(), *threads}
        left = [thread.name for thread in threading.enumerate() if thread not in own]
        flights = {name: facts["in_flight"] for name, facts in self.router.statistics().items()}
        self._vitals("closed", left=left, baseline=self.descriptors, in_flight=flights)

    def _blocking(self, name: str) -> None:
        lane = Lane(self, name, blocking=True)
        # A blocking lane never suspends: stepped once, it has come to its end.
        with contextlib.suppress(StopIteration):
            lane.work().send(None)

    async def _tasks(self) -> None:
        lanes = [Lane(self, f"a{n}", blocking=False) for n in range(LANES["async"])]
        await asyncio.gather(*(lane.work() for lane in lanes))
        await self.router.aclose()
        await asyncio.sleep(0)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        self.journal.write("loop ends", tasks=[repr(task.get_coro()) for task in others])

    def _vitals(self, what: str, **more: Any) -> None:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        self.journal.write(
            what,
            resident=pages * os.sysconf("SC_PAGE_SIZE"),
            descriptors=len(os.listdir("/proc/self/fd")),
            threads=threading.active_count(),
            **more,
        )


class Lane:
    """One thread, or one task, and what it has in mind: errands, each of one call or some."""

    def __init__(self, worker: Worker, name: str, *, blocking: bool) -> None:
        self.worker = worker
        self._name = f"{worker.name}.{name}"
        self.blocking = blocking
        self.rng = random.Random(f"{worker.seed} {name}")
        self._number = 0

    async def work(self) -> None:
        errands = {
            self._make: 30,
            self._follow: 22,
            self._look: 8,
            self._download: 6,
            self._cast: 7,
            self._repeat: 14,
            self._list: 2,
        }
        await self._cast()
        while not self.worker.ending.is_set():
            (errand,) = self.rng.choices(list(errands), list(errands.values()))
            await errand()
            await self._rest(self.rng.expovariate(1 / self.worker.pause))

    async def _rest(self, seconds: float) -> None:
        if self.blocking:
            self.worker.ending.wait(seconds)
        else:
            await asyncio.sleep(seconds)

    # Errands ------------------------------------------------------------------------------------

    async def _make(self) -> None:
        """Start a job, of one kind or another; most are followed by who started them."""
        told = self._some_submit()
        keyed = self.rng.random() < 0.4
        key = f"key-{self._name}.{self._number}" if keyed else None
        if key is not None:
            self.worker.board.post("key", key=key, told=told)
        made = await self._submit(told, key)
        if made is not None and self.rng.random() < 0.6:
            await self._follow(made.id)

    def _some_submit(self) -> Line:
        """What a submit asks for, as plain values that another worker can ask for again."""
        kind = self.rng.choices(
            ["generation", "edit", "extension", "remix"], weights=[60, 20, 10, 10]
        )[0]
        seconds = self.rng.choice(["4", "8"])
        known = self.worker.board.some(self.rng, "video", least_age=4.0)
        if kind == "edit" and (known is None or self.rng.random() < 0.3):
            return {"method": "video_edit", "clip": True, "model": GROUP}
        if kind != "generation" and known is not None:
            more = {"seconds": seconds} if kind == "extension" else {}
            return {"method": f"video_{kind}", "video_id": known["id"], **more}
        told: Line = {"method": "video_generation", "seconds": seconds, "model": GROUP}
        luna = self.worker.board.some(self.rng, "character")
        if luna is not None and self.rng.random() < 0.3:
            told["characters"] = [luna["id"]]
        return told

    async def _submit(self, told: Line, key: str | None) -> Any:
        """`told` may be another's, whose key is used again."""
        arguments = dict(told)
        method = arguments.pop("method")
        if arguments.pop("clip", False):
            arguments["video"] = ("clip.mp4", CLIP, "video/mp4")
        named = "name" if method == "video_create_character" else "prompt"
        max_wait = self.rng.choice([0.0, 0.0, 0.5, 2.0])
        return await self.call(method, key=key, named=named, max_wait=max_wait, **arguments)

    async def _cast(self) -> None:
        told = {"method": "video_create_character", "clip": True, "model": GROUP}
        await self._submit(told, None)

    async def _repeat(self) -> None:
        """Use a key again that somebody has used, or was about to when he was killed."""
        newest = self.rng.choice([3, 30, KNOWN])
        known = self.worker.board.some(self.rng, "key", newest=newest)
        if known is not None:
            told = dict(known["told"])
            if self.rng.random() < 0.05 and "seconds" in told:
                told["seconds"] = "12"
            await self._submit(told, known["key"])

    async def _follow(self, video_id: str | None = None) -> None:
        found = video_id or self._found(0.0)
        if found is None:
            return
        video = await self.call("video_wait", video_id=found, wait_timeout=WAIT_TIMEOUT)
        if video is not None and self.rng.random() < 0.3:
            await self.call("video_content", video_id=found)

    async def _look(self) -> None:
        found = self._found(0.0)
        if found is not None:
            await self.call("video_status", video_id=found)

    async def _download(self) -> None:
        found = self._found(4.0)
        if found is not None:
            await self.call("video_content", video_id=found)

    async def _list(self) -> None:
        await self.call("video_list", model=GROUP, limit=5)

    def _found(self, least_age: float) -> str | None:
        known = self.worker.board.some(self.rng, "video", least_age=least_age)
        return known["id"] if known else None

    # Calls --------------------------------------------------------------------------------------

    async def call(
        self, method: str, *, key: str | None = None, named: str | None = None, **arguments: Any
    ) -> Any:
        """One call, written down before and after; `None` where it ended in an error.

        `named` is the argument that is to bear the call's mark: the key where it has one, so that
        what is asked for under a key is always the same.
        """
        self._number += 1
        call = f"{self._name}.{self._number}"
        CALL.set(call)
        if named is not None:
            arguments[named] = f"{key or call}: a heron lands"
        if key is not None:
            arguments["idempotency_key"] = key
        about = {n: v for n, v in arguments.items() if isinstance(v, str | float | list)}
        self.worker.journal.write("begins", call=call, do=method, key=key, **about)
        arguments |= {"metadata": {"call": call}, "extra_headers": {"x-call": call}}
        arguments["deadline"] = DEADLINE
        began = time.monotonic()
        ended: Line = {"how": "cancelled"}
        answer = None
        try:
            if self.worker.mutation is None:
                answer = await self.send(method, **arguments)
            else:
                answer = await self.worker.mutation.send(self, method, arguments)
            ended = self._answered(method, answer)
        except asyncio.CancelledError:
            pass
        except Exception as error:  # noqa: BLE001  (whatever it is, the checker has to see it)
            ended = _failed(error)
        took = time.monotonic() - began
        self.worker.journal.write("ended", call=call, do=method, key=key, took=took, **ended)
        return answer

    async def send(self, method: str, **arguments: Any) -> Any:
        """The call itself, through this lane's door; a task's is cancelled now and then."""
        if self.blocking:
            return getattr(self.worker.router, method)(**arguments)
        coming: Coroutine[Any, Any, Any] = getattr(self.worker.router, f"a{method}")(**arguments)
        if self.rng.random() > 0.04:
            return await coming
        task = asyncio.create_task(coming)
        await asyncio.wait({task}, timeout=self.rng.uniform(0.0, 0.05))
        task.cancel()
        return await task

    def _answered(self, method: str, answer: Any) -> Line:
        if method == "video_content":
            return {"how": "answer", "whole": bytes(answer) == CLIP}
        if method == "video_list":
            return {"how": "answer"}
        copies = self.worker.router.describe_id(answer.id).copies
        made = [[copy.account, copy.native_id] for copy in copies]
        if method == "video_create_character":
            self.worker.board.post("character", id=answer.id)
        elif method not in ("video_wait", "video_status"):
            self.worker.board.post("video", id=answer.id)
        status = getattr(answer, "status", None)
        return {"how": "answer", "id": answer.id, "copies": made, "status": status}


def _failed(error: Exception) -> Line:
    return {
        "how": "error",
        "error": type(error).__name__,
        "ours": isinstance(error, RouterError),
        "accepted": getattr(error, "accepted", None),
        "status": getattr(error, "status", None),
        "message": str(error)[:300],
    }


def main() -> None:
    worker = Worker(json.loads(sys.argv[1]))
    signal.signal(signal.SIGTERM, lambda *_: worker.ending.set())
    # Who asks a worker that hangs where it does so finds the answer in its log.
    faulthandler.register(signal.SIGUSR1)
    worker.run()


if __name__ == "__main__":
    main()
