"""Connections to Redis that lose answers: what was asked is done, and nobody hears of it.

A process passes everything on, from a port for each worker. Now and then it waits for Redis's
answer to a turn, which proves that the turn was carried out, and cuts the connection in place of
passing it on; every other time after the first half of the answer. A worker loses two answers in a
row at most, so that it gets through in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.sharing.stage import Redis, Wire, Worker, forked

__all__ = ["Cutting", "cutting"]

MOST_IN_A_ROW = 2
_TURN = re.compile(rb"\r\n(EVALSHA|EVAL)\r\n")


class Cutting:
    """A URL for each worker, and how many answers were lost so far."""

    def __init__(self, process: Worker, ports: Sequence[int]) -> None:
        self._process = process
        self.urls = [f"redis://127.0.0.1:{port}/0" for port in ports]

    def lost(self) -> int:
        self._process.tell()
        count: int = self._process.hear()
        return count


@contextmanager
def cutting(server: Redis, workers: int, share: float, seed: int) -> Iterator[Cutting]:
    """Lose about this share of the answers to turns while the block lasts."""
    with forked(_cut, server.port, workers, share, seed) as process:
        yield Cutting(process, process.hear())


def _cut(wire: Wire, port: int, workers: int, share: float, seed: int) -> None:
    asyncio.run(_serve(wire, [_Way(port, share, seed + number) for number in range(workers)]))


async def _serve(wire: Wire, ways: Sequence[_Way]) -> None:
    servers = [await asyncio.start_server(way.pass_on, "127.0.0.1", 0) for way in ways]
    wire.say([server.sockets[0].getsockname()[1] for server in servers])
    while True:
        await asyncio.to_thread(wire.hear)
        wire.say(sum(way.lost for way in ways))


class _Way:
    """One worker's way to Redis."""

    def __init__(self, port: int, share: float, seed: int) -> None:
        self._port = port
        self._share = share
        self._rng = random.Random(seed)
        self._in_a_row = 0
        self.lost = 0

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        asked = asyncio.Event()
        ways = [
            asyncio.create_task(self._there(reader, far_writer, asked)),
            asyncio.create_task(self._back(far_reader, writer, asked)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for end in (writer, far_writer):
                end.close()

    async def _there(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: asyncio.Event
    ) -> None:
        while data := await reader.read(1 << 16):
            if _TURN.search(data):
                asked.set()
            writer.write(data)
            await writer.drain()

    async def _back(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: asyncio.Event
    ) -> None:
        while data := await reader.read(1 << 16):
            if asked.is_set() and self._is_lost():
                if self.lost % 2:
                    writer.write(data[: len(data) // 2])
                    with contextlib.suppress(OSError):
                        await writer.drain()
                return
            asked.clear()
            writer.write(data)
            await writer.drain()

    def _is_lost(self) -> bool:
        lost = self._in_a_row < MOST_IN_A_ROW and self._rng.random() < self._share
        self._in_a_row = self._in_a_row + 1 if lost else 0
        self.lost += lost
        return lost
