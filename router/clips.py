"""What a clip says of itself, and whether characters are made of such clips.

MP4 and MOV are boxes in boxes (ISO/IEC 14496-12, 4.2): a length, a name, and what is in it. Length
and size stand in three of them, which are found by hopping from box to box:

    moov ─┬─ mvhd            how long
          └─ trak ─┬─ tkhd   how large as shown, and how it is turned
                   └─ mdia ── hdlr   whether it is pictures

So a clip of any length costs some dozen reads of a few bytes. A library that reads everything was
tried and is not taken: uploads are strangers' files, and a damaged clip of 0.1 MB made it ask for
gigabytes, in the process that has paid jobs under way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from router.messages import Source

__all__ = ["Clip", "advice_on_clip", "read_clip", "same_shape", "size_in"]

MOST_BOXES = 200
"""Boxes looked at in one clip. A real one has a dozen before its length and size are known."""

# What the published guide says of characters' clips. Lengths are rounded to frames of picture and
# sound, sizes to the blocks of a codec.
SHORTEST, LONGEST = 2.0, 4.0
SOME_FRAMES = 0.1
LEAST_SIDE, MOST_SIDE = 720, 1080
A_BLOCK = 8
SHAPES = {"16:9": 16 / 9, "9:16": 9 / 16, "1:1": 1.0}
SAME_SHAPE = 0.03
"""Shapes that differ by less are one: 1024x1792 is sold as 9:16."""


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip as it is shown: pixels, and seconds, which are `None` where it does not say."""

    width: int
    height: int
    seconds: float | None = None

    @property
    def size(self) -> str:
        return f"{self.width}x{self.height}"


# Reading ------------------------------------------------------------------------------------------


def read_clip(source: Source) -> Clip | None:
    """The clip behind `source`; `None` for what is no MP4 or MOV, is damaged, or shows nothing.

    It may block, as reading a file does, and reads some kilobytes at most.
    """
    try:
        return _Boxes(source).clip()
    except (ValueError, OSError):
        return None


class _Boxes:
    """Hops through a file. Raises `ValueError` where it is none of boxes, or one of too many."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._left = MOST_BOXES

    def clip(self) -> Clip | None:
        for name, begin, end in self._within(0, self._source.size):
            if name == b"moov":
                return self._movie(begin, end)
        return None

    def _movie(self, begin: int, end: int) -> Clip | None:
        seconds: float | None = None
        shown: list[tuple[int, int]] = []
        for name, start, stop in self._within(begin, end):
            if name == b"mvhd":
                seconds = self._length(start)
            elif name == b"trak":
                shown += self._track(start, stop)
        if not shown:
            return None
        width, height = max(shown, key=lambda size: size[0] * size[1])
        return Clip(width, height, seconds)

    def _track(self, begin: int, end: int) -> list[tuple[int, int]]:
        """The size of a track of pictures, once; nothing of sound, texts and time codes."""
        size, pictures = (0, 0), False
        for name, start, stop in self._within(begin, end):
            if name == b"tkhd":
                size = self._shown(start)
            elif name == b"mdia":
                inner = {child: at for child, at, _ in self._within(start, stop)}
                pictures = b"hdlr" in inner and self._bytes(inner[b"hdlr"] + 8, 4) == b"vide"
        return [size] if pictures and min(size) > 0 else []

    def _length(self, at: int) -> float | None:
        # Version 1 widens the two dates before the time scale, and the duration after it.
        wide = self._number(at, 1) == 1
        at += 20 if wide else 12
        width = 8 if wide else 4
        scale, length = self._number(at, 4), self._number(at + 4, width)
        # None, or all ones: nobody knows, as while it is recorded or where it is in fragments.
        known = scale > 0 and 0 < length < (1 << 8 * width) - 1
        return length / scale if known else None

    def _shown(self, at: int) -> tuple[int, int]:
        at += 52 if self._number(at, 1) == 1 else 40
        size = self._number(at + 36, 4) >> 16, self._number(at + 40, 4) >> 16
        # A matrix whose diagonal is empty turns by 90 degrees: so telephones film upright.
        turned = self._number(at, 4) == 0 and self._number(at + 16, 4) == 0
        return (size[1], size[0]) if turned else size

    def _within(self, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
        """Each box's name, and where its contents begin and end."""
        while at + 8 <= end:
            self._left -= 1
            if self._left < 0:
                raise ValueError("more boxes than a clip has")
            size, name, begin = self._number(at, 4), self._bytes(at + 4, 4), at + 8
            if size == 1:
                size, begin = self._number(at + 8, 8), at + 16
            elif size == 0:
                size = end - at
            if size < begin - at:
                raise ValueError("a box that is shorter than its head")
            yield name, begin, min(at + size, end)
            at += size

    def _number(self, at: int, size: int) -> int:
        return int.from_bytes(self._bytes(at, size))

    def _bytes(self, at: int, size: int) -> bytes:
        # Beyond the end there may be nothing to ask for.
        found = self._source.read_at(at, size) if at + size <= self._source.size else b""
        if len(found) != size:
            raise ValueError("it ends too early")
        return found


# Advice -------------------------------------------------------------------------------------------


def advice_on_clip(clip: Clip) -> list[str]:
    """What speaks against making a character of this clip."""
    advice = []
    seconds = clip.seconds
    if seconds is not None and not SHORTEST - SOME_FRAMES <= seconds <= LONGEST + SOME_FRAMES:
        advice.append(
            f"the clip is {seconds:.3g} s long: characters are best made of {SHORTEST:g} to "
            f"{LONGEST:g} s"
        )
    if not LEAST_SIDE - A_BLOCK <= min(clip.width, clip.height) <= MOST_SIDE + A_BLOCK:
        advice.append(
            f"the clip is {clip.size}: characters are best made of {LEAST_SIDE}p to {MOST_SIDE}p"
        )
    shape = clip.width / clip.height
    if not any(same_shape(shape, good) for good in SHAPES.values()):
        advice.append(
            f"the clip is {clip.size}: characters are best made of {', '.join(SHAPES)}, and may "
            "come out distorted"
        )
    return advice


def same_shape(one: float, other: float) -> bool:
    """Whether two ratios of width to height look the same."""
    return abs(one - other) <= SAME_SHAPE * min(one, other)


def size_in(written: str | None) -> tuple[int, int] | None:
    """The pixels of `1280x720`; `None` for what is no such size."""
    found = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", written or "", re.ASCII)
    return (int(found[1]), int(found[2])) if found else None
