"""A provider that offers more than anybody can take, and the answers that it offers so."""

from __future__ import annotations

import gzip
import re
import socket
import threading
import zlib
from dataclasses import dataclass

__all__ = [
    "DRIPPING",
    "ENDLESS_ERRORS",
    "LIMITED",
    "MOST",
    "NESTED",
    "PACKED",
    "SILENT",
    "SMALL",
    "Offer",
    "Offering",
    "endless_video",
    "honest",
    "packed",
]

# Where an offer stops after all, in bytes. Whoever takes it all in has no limit of its own.
MOST = 64 << 20
# What an idle call may cost, and one whose answer is as large as an answer may be: its 2 MiB, as
# they grow and once more as they are handed on.
SMALL = 4 << 20
LARGE = 24 << 20

VIDEO = b'{"id": "video_1", "object": "video", "status": "queued"'
JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
CHUNKED = JSON + b"transfer-encoding: chunked\r\n\r\n"
PACKED_JSON = JSON + b"content-encoding: gzip\r\n\r\n"


@dataclass(frozen=True)
class Offer:
    """`head` once, then `piece` again and again, each after `pause` seconds; then nothing.

    `peak` is how many bytes of memory a call may need for it.
    """

    head: bytes
    piece: bytes = b""
    pause: float = 0.0
    peak: int = SMALL


class Offering:
    """Serves connections for `outcome_servers.Server`: hears a request out, and makes its offer."""

    def __init__(self, offer: Offer) -> None:
        self.offer = offer
        self.sent = 0
        self.ended = 0  # connections that the client has closed
        self.begun = 0
        self._changed = threading.Condition()

    def __call__(self, connection: socket.socket, over: threading.Event) -> None:
        connection.settimeout(30)  # a client that keeps the connection is found out before
        with self._changed:
            self.begun += 1
        try:
            while _heard_out(connection):
                self._make(self.offer, connection, over)
        except ConnectionError:
            pass
        with self._changed:
            self.ended += 1
            self._changed.notify_all()

    def _make(self, offer: Offer, connection: socket.socket, over: threading.Event) -> None:
        self._send(connection, offer.head)
        most = self.sent + MOST
        while offer.piece and self.sent < most and not over.wait(offer.pause):
            self._send(connection, offer.piece)

    def _send(self, connection: socket.socket, data: bytes) -> None:
        connection.sendall(data)
        self.sent += len(data)

    def all_ended(self) -> bool:
        """Whether the client closes every connection that it has opened; it has ten seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: 0 < self.begun == self.ended, timeout=10)


def _heard_out(connection: socket.socket) -> bool:
    """Reads a request to its end, so that closing resets nothing; false at the connection's end."""
    request = b""
    while b"\r\n\r\n" not in request:
        chunk = connection.recv(65_536)
        if not chunk:
            return False
        request += chunk
    head, _, body = request.partition(b"\r\n\r\n")
    announced = re.search(rb"content-length: *(\d+)", head, re.IGNORECASE)
    left = (int(announced[1]) if announced else 0) - len(body)
    while left > 0:
        left -= len(connection.recv(65_536)) or left
    return True


def endless_video(pause: float = 0.0) -> Offer:
    """A video file that goes on for ever: half a mebibyte at a time."""
    return Offer(b"HTTP/1.1 200 OK\r\ncontent-type: video/mp4\r\n\r\n", bytes(1 << 19), pause)


def honest(body: bytes, *, coding: str = "identity", kind: str = "application/json") -> Offer:
    """A whole answer, and nothing wrong with it."""
    head = f"content-encoding: {coding}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}"
    return Offer(b"HTTP/1.1 200 OK\r\n" + head.encode() + b"\r\n\r\n" + body)


def packed(mebibytes: int) -> bytes:
    """Nothing but zeros, as gzip: a thousandth of what it unfolds to."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(1 << 20)
    return b"".join(packer.compress(zeros) for _ in range(mebibytes)) + packer.flush()


def _middle_of_gzip() -> bytes:
    """64 MiB of zeros as the middle of a gzip stream, which may come again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bytes(1 << 20)
    return b"".join(packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(64))


GZIP_HEAD = b"\x1f\x8b\x08\0\0\0\0\0\0\x03"

# What ends at a limit, long before any time is up.
LIMITED = {
    "JSON without end": Offer(
        JSON + b"\r\n" + VIDEO + b', "x": [', b'"padding",' * 6_553, peak=LARGE
    ),
    "spaces without end": Offer(JSON + b"\r\n", b" " * 65_536, peak=LARGE),
    "chunks without end": Offer(CHUNKED, b"10000\r\n" + bytes(65_536) + b"\r\n", peak=LARGE),
    "chunks of 4 MiB without end": Offer(
        CHUNKED, b"400000\r\n" + bytes(4 << 20) + b"\r\n", peak=LARGE
    ),
    "one chunk of many terabytes": Offer(CHUNKED + b"ffffffffffff\r\n", bytes(65_536), peak=LARGE),
    "terabytes announced and sent": Offer(
        JSON + b"content-length: 99999999999999\r\n\r\n", bytes(65_536), peak=LARGE
    ),
    "a chunk's size without end": Offer(CHUNKED, b"0" * 65_536),
    "a chunk's extension without end": Offer(CHUNKED + b"1;", b"x" * 65_536),
    "trailers without end": Offer(CHUNKED + b"0\r\n", b"x: y\r\n" * 8_000),
    "100,000 headers": Offer(
        b"HTTP/1.1 200 OK\r\n"
        + b"".join(b"x-%d: y\r\n" % number for number in range(100_000))
        + b"content-length: %d\r\n\r\n" % (len(VIDEO) + 1)
        + VIDEO
        + b"}"
    ),
    "headers without end": Offer(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 8_000),
    "one header without end": Offer(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 65_536),
    "one folded header without end": Offer(b"HTTP/1.1 200 OK\r\nx: y\r\n", b" y\r\n" * 8_000),
    "a status line without end": Offer(b"HTTP/1.1 200 ", b"K" * 65_536),
    "an interim answer without end": Offer(b"HTTP/1.1 103 Hints\r\n", b"x: y\r\n" * 8_000),
}

# What has no size that anybody could object to, so that only time ends it. In heads, and in what
# frames a body, no byte of the body is heard of meanwhile.
DRIPPING = {
    "a dripping status line": Offer(b"HTTP/1.1 200 ", b"K", 0.005),
    "a dripping header": Offer(b"HTTP/1.1 200 OK\r\nx: ", b"y", 0.005),
    "interim answers without end": Offer(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2_000),
    "a dripping chunk size": Offer(CHUNKED, b"0", 0.005),
    "a dripping body": Offer(JSON + b"content-length: 99999\r\n\r\n", b" ", 0.005),
    "a dripping body in chunks": Offer(CHUNKED, b"1\r\n \r\n", 0.005),
}
SILENT = {
    "terabytes announced and none sent": Offer(JSON + b"content-length: 99999999999999\r\n\r\n"),
    "a chunk of terabytes and none sent": Offer(CHUNKED + b"ffffffffffff\r\n"),
}

# We ask for `identity`, and get gzip all the same.
PACKED = {
    "zeros without end": Offer(PACKED_JSON + GZIP_HEAD, _middle_of_gzip(), peak=LARGE),
    "blocks of nothing without end": Offer(PACKED_JSON + GZIP_HEAD, b"\0\0\0\xff\xff" * 13_000),
    "a name without end": Offer(PACKED_JSON + b"\x1f\x8b\x08\x08\0\0\0\0\0\x03", b"x" * 65_536),
    "more without end after its end": Offer(
        PACKED_JSON + gzip.compress(VIDEO + b"}"), bytes(65_536), peak=LARGE
    ),
}
NESTED = honest(gzip.compress(packed(128)), coding="gzip, gzip")

ENDLESS_ERRORS = {
    status: Offer(b"HTTP/1.1 %d No\r\n\r\n" % status, b"no, never. " * 6_000)
    for status in (307, 400, 404, 422, 500, 503)
}
