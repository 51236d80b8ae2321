"""Clips for tests: three real ones of other shapes, and small ones made box by box."""

from __future__ import annotations

from pathlib import Path

from router.testing.media import CLIP

__all__ = ["CLIP", "TOO_LONG", "Held", "box", "movie"]

TOO_LONG = (Path(__file__).parent / "clips" / "toolong_10s_320x240.mp4").read_bytes()
"""Ten seconds of 320x240, whose header stands behind its pictures."""

_STRAIGHT = (1, 0, 0, 0, 1, 0, 0, 0, 0x4000)
TURNED = (0, 1, 0, -1, 0, 0, 1080, 0, 0x4000)


class Held:
    """Bytes to read by position, which counts how much of them is read."""

    def __init__(self, data: bytes, size: int | None = None) -> None:
        self._data = data
        self.size = len(data) if size is None else size
        self.reads = self.bytes_read = 0

    def read_at(self, offset: int, size: int) -> bytes:
        self.reads += 1
        found = self._data[offset : offset + size]
        self.bytes_read += len(found)
        return found


def box(name: bytes, *contents: bytes, wide: bool = False) -> bytes:
    inside = b"".join(contents)
    if wide:
        return (1).to_bytes(4) + name + (len(inside) + 16).to_bytes(8) + inside
    return (len(inside) + 8).to_bytes(4) + name + inside


def movie(
    width: int = 1280,
    height: int = 720,
    seconds: float | None = 3.0,
    *,
    version: int = 0,
    turned: bool = False,
    handler: bytes = b"vide",
    before: bytes = b"",
) -> bytes:
    """A clip without pictures: only what says how long and how large it is."""
    number = 8 if version else 4
    unknown = (1 << 8 * number) - 1
    length = unknown if seconds is None else round(seconds * 1000)
    head = bytes([version, 0, 0, 0])
    dates = bytes(2 * number)
    mvhd = box(b"mvhd", head, dates, (1000).to_bytes(4), length.to_bytes(number), bytes(80))
    matrix = b"".join((n << 16).to_bytes(4, signed=True) for n in (TURNED if turned else _STRAIGHT))
    shown = (width << 16).to_bytes(4) + (height << 16).to_bytes(4)
    tkhd = box(b"tkhd", head, dates, bytes(8), length.to_bytes(number), bytes(16), matrix, shown)
    hdlr = box(b"hdlr", bytes(8), handler, bytes(13))
    trak = box(b"trak", tkhd, box(b"mdia", box(b"mdhd", bytes(24)), hdlr))
    return box(b"ftyp", b"isom", bytes(4)) + before + box(b"moov", mvhd, trak)
