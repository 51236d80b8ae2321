"""The bytes the stand-in hands out, and what it can tell about those it is given.

The clip is a real MP4 of three seconds, as characters are best made of; the two pictures are the
smallest a decoder accepts. What a job is asked for never changes what it yields: nobody tests an
app against the stand-in's taste.
"""

from __future__ import annotations

from base64 import b64decode
from importlib.resources import files

__all__ = ["CLIP", "SPRITESHEET", "THUMBNAIL", "clip_seconds", "is_clip"]

CLIP = files("router.testing").joinpath("clip.mp4").read_bytes()

THUMBNAIL = b64decode("UklGRiQAAABXRUJQVlA4IBgAAAAwAQCdASoBAAEAAgA0JaQAA3AA/vuUAAA=")
"""One pixel of WebP."""

SPRITESHEET = b64decode(
    "/9j/2wBDAAEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEB"
    "AQEBAQH/wAALCAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAAP/EABQQAQAAAAAAAAAAAAAAAAAAAAD/2gAI"
    "AQEAAD8AP//Z"
)
"""One grey block of JPEG."""


def is_clip(content: bytes) -> bool:
    """Whether this is an MP4, by its first box: file names and part types prove nothing."""
    return content[4:8] == b"ftyp"


def clip_seconds(content: bytes) -> int:
    """Length of an MP4 by its movie header (ISO/IEC 14496-12, 8.2.2); 0 when it has none."""
    start = content.find(b"mvhd") + 4
    if start < 4 or len(content) < start + 32:
        return 0
    # Version 1 widens the two dates before the time scale, and the duration after it, to 64 bits.
    wide = content[start] == 1
    at = start + (20 if wide else 12)
    scale = int.from_bytes(content[at : at + 4])
    duration = int.from_bytes(content[at + 4 : at + (12 if wide else 8)])
    return round(duration / scale) if scale else 0
