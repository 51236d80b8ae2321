"""The same POST by several engines: `python -m benchmarks.engines`.

What carries a call: a routed `avideo_edit` over this router's own connections (h11 over asyncio), a
bare `httpx.AsyncClient.post` of the same bytes, and aiohttp's client where it is installed (LiteLLM
brings it). It answers whether another engine would pay: aiohttp parses in C, but its exceptions say
less of what went out, and each of them would have to be mapped to what may have been accepted. So
there is one engine, and this is what it costs. aiohttp's line is without any routing.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.util
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: the packages beside it are found from the folder above
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.costing.calls import BARE, Edits, Said
from benchmarks.measure import Figure, Report, Turn, atogether, ratio, rounds
from benchmarks.run import play, told
from benchmarks.upstream import upstream

AT_ONCE = (1, 16, 64)
CALLS = {1: 40, 16: 160, 64: 192}
OURS, OTHER = "routed, h11", "bare, aiohttp"


@contextlib.asynccontextmanager
async def by_aiohttp(said: Said) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    # By name, since type checkers would miss what is not installed.
    aiohttp: Any = importlib.import_module("aiohttp")
    headers = {k: v for k, v in said.headers.items() if k not in ("host", "content-length")}
    connector = aiohttp.TCPConnector(limit=100)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def post() -> object:
            async with session.post(said.url, data=said.body) as answer:
                read: object = await answer.read()
                return read

        yield post


async def turns(edits: Edits, seconds: float) -> dict[int, dict[str, list[Turn]]]:
    seen: dict[int, dict[str, list[Turn]]] = {}
    async with contextlib.AsyncExitStack() as stack:
        contenders = {
            BARE: await stack.enter_async_context(edits.abare()),
            OURS: edits.routed,
        }
        if importlib.util.find_spec("aiohttp") is not None:
            contenders[OTHER] = await stack.enter_async_context(by_aiohttp(edits.said))
        for at_once in AT_ONCE:
            seen[at_once] = {name: [] for name in contenders}
            for _ in rounds(30, seconds / len(AT_ONCE)):
                for name, call in contenders.items():
                    turn = await atogether(call, at_once=at_once, calls=CALLS[at_once])
                    seen[at_once][name].append(turn)
    await edits.router.aclose()
    return seen


def measure(report: Report, *, quick: bool) -> None:
    with upstream() as server:
        seen = asyncio.run(turns(Edits(server), 3.0 if quick else 15.0))
    figures = []
    for at_once, found in seen.items():
        walls = {name: [t.wall * 1e6 for t in of] for name, of in found.items()}
        for name, values in walls.items():
            label = f"{at_once} at once: {name}"
            figures.append(Figure.median(label, values, "µs"))
            if name != BARE:
                figures.append(ratio(f"{label}, time over bare httpx", walls[BARE], values))
    told(report, "The same POST, by what carries it", figures)


def main(given: Sequence[str] | None = None) -> None:
    play(
        measure,
        doc=__doc__,
        name="engines",
        versions=("httpx", "httpcore", "h11", "aiohttp"),
        seconds=(60, 120),
        given=given,
    )


if __name__ == "__main__":
    main()
