"""A way to others that is cut at times: a process that passes on what it is given.

    chaos_proxy.py <port> …        a way to each of these ports of the loopback

It says the ports that lead there. A line of input, `<way> <now or half>`, cuts that way: all of its
connections are reset, at once or in the middle of what they carry next.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys

__all__ = ["main"]

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class Way:
    """One way, and the connections that stand on it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: set[asyncio.StreamWriter] = set()
        self._dying: set[asyncio.StreamWriter] = set()

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            _reset(writer)
            return
        ends = {writer, far_writer}
        self._open |= ends
        ways = [
            asyncio.create_task(self._one_way(reader, far_writer)),
            asyncio.create_task(self._one_way(far_reader, writer)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._open -= ends
            for end in ends:
                _reset(end) if end in self._dying else end.close()
            self._dying -= ends

    async def _one_way(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                if writer in self._dying:
                    writer.write(data[: len(data) // 2])
                    await writer.drain()
                    return
                writer.write(data)
                await writer.drain()

    def cut(self, how: str) -> None:
        self._dying |= self._open
        if how == "now":
            for end in self._open:
                _reset(end)


def _reset(writer: asyncio.StreamWriter) -> None:
    wire = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    writer.transport.abort()


async def serve(ports: list[int]) -> None:
    ways = [Way(port) for port in ports]
    servers = [await asyncio.start_server(way.pass_on, "127.0.0.1", 0) for way in ways]
    sys.stdout.write(" ".join(str(s.sockets[0].getsockname()[1]) for s in servers) + "\n")
    sys.stdout.flush()
    while line := await asyncio.to_thread(sys.stdin.readline):
        number, how = line.split()
        ways[int(number)].cut(how)


def main() -> None:
    asyncio.run(serve([int(port) for port in sys.argv[1:]]))


if __name__ == "__main__":
    main()
