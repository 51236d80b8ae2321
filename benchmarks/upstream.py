"""An upstream that answers at once, in a process of its own.

A benchmark of a client needs a server that costs next to nothing: this one reads a request (its
head, then as many bytes as `Content-Length` says), answers with a canned video and keeps the
connection. No framework, no JSON, no log. `GET /_last` returns the bytes of the last POST, head and
body, so that a benchmark can prove that its contenders say the same on the wire; of a long body
only the head is kept. A `numbered` one gives each answer an id of its own, as a provider does; else
all are the same, but that a look at a video is answered with that video's id. Its `status` and the
`poll_after` that its answers advise (milliseconds) are those that it is told.

It listens on a free loopback port and ends with its parent: by `terminate`, or, should the parent
die first, at the end of its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Upstream", "upstream"]

_BODY = (
    b'{"id":"video_68d7512d07848190b3e45da0ecbebcde004da08e1e0678d5","object":"video",'
    b'"created_at":1758941485,"status":"%b","model":"sora-2","progress":0,"seconds":"8",'
    b'"size":"1280x720"}'
)
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n%bcontent-length: %d\r\n\r\n"
_ID = b"video_68d7512d07848190b3e45da0ecbebcde004da08e1e0678d5"
_LOOK = re.compile(rb"GET /v1/videos/(\w+) ")
# What is longer is counted, and not kept.
_LONG = 1 << 20
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d+)", re.IGNORECASE)


class _Connection(asyncio.Protocol):
    last = b""
    numbers = itertools.count()
    numbered = False
    answer = b""

    def __init__(self) -> None:
        self._received = b""
        self._passing = 0  # bytes of a long body that are still to come

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._passing:
            self._passing -= len(data)
            if not self._passing:
                self._transport.write(self._answer(self._received))
                self._received = b""
            return
        self._received += data
        while (head := self._received.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(self._received, 0, head)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(self._received) < end:
                if end > _LONG:
                    self._passing = end - len(self._received)
                    self._received = self._received[: head + 4]
                return
            request, self._received = self._received[:end], self._received[end:]
            self._transport.write(self._answer(request))

    @staticmethod
    def _answer(request: bytes) -> bytes:
        if request.startswith(b"GET /_last "):
            return _HEAD % (b"", len(_Connection.last)) + _Connection.last
        if look := _LOOK.match(request):
            # Ids of one length, so that the canned length stays right.
            return _Connection.answer.replace(_ID, look[1].ljust(len(_ID), b"0")[: len(_ID)])
        _Connection.last = request
        if _Connection.numbered:
            return _Connection.answer.replace(_ID, b"video_%048x" % next(_Connection.numbers))
        return _Connection.answer


def canned(status: bytes, poll_after: int) -> bytes:
    advice = b"openai-poll-after-ms: %d\r\n" % poll_after if poll_after else b""
    body = _BODY % status
    return _HEAD % (advice, len(body)) + body


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Connection, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    # The parent never writes here; a read that returns means that it has gone.
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    server.close()


class Upstream:
    """The running server, as its parent sees it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.base_url = f"http://127.0.0.1:{port}/v1"

    def last_post(self) -> tuple[dict[str, str], bytes]:
        """The headers (lower-cased names) and the body of the last POST that arrived."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", "/_last")
            head, _, body = connection.getresponse().read().partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")[1:]
        headers = dict(line.split(": ", 1) for line in lines)
        return {name.lower(): value for name, value in headers.items()}, body


@contextlib.contextmanager
def upstream(
    *, numbered: bool = False, status: str = "queued", poll_after: int = 0
) -> Iterator[Upstream]:
    """An upstream for the length of a block."""
    told = [str(int(numbered)), status, str(poll_after)]
    command = [sys.executable, str(Path(__file__).resolve()), *told]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield Upstream(int(process.stdout.readline()))
    finally:
        process.terminate()
        process.wait(timeout=5)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


if __name__ == "__main__":
    numbered, status, poll_after = sys.argv[1:]
    _Connection.numbered = bool(int(numbered))
    _Connection.answer = canned(status.encode(), int(poll_after))
    asyncio.run(_serve())
