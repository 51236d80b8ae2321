"""Files inside JSON, in base64: encoded piece by piece as they are sent, never as a whole."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from router.messages import Body, Source, json_body
from router.operations import Upload

__all__ = ["inline_body"]


def inline_body(
    upload: Upload, write: Callable[[str], Mapping[str, Any]], *, bare: bool = False
) -> Body:
    """The JSON that `write` makes, with the file where it puts the string that it is given.

    The file stands there as a data URL, or `bare`, as its base64 and nothing else. Where `write`
    has no use for the string, since the caller's own fields take its place, no file is sent.
    """
    mark = secrets.token_hex(16)
    # The type is the caller's word, and a JSON string's to escape.
    whole = json_body(write(mark if bare else f"data:{upload.content_type};base64,{mark}"))
    (written,) = whole.segments
    assert isinstance(written, bytes)
    before, found, after = written.partition(mark.encode())
    if not found:
        return whole
    file = _Base64(upload.source)
    length = len(before) + file.size + len(after)
    return Body("application/json", (before, file, after), length)


class _Base64:
    """A source in base64."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.size = (source.size + 2) // 3 * 4

    def read_at(self, offset: int, size: int) -> bytes:
        # Whole groups of three bytes around the piece, then the piece.
        first, last = offset // 4 * 3, (offset + size + 3) // 4 * 3
        wanted = min(last, self._source.size) - first
        encoded = base64.b64encode(self._source.read_at(first, wanted))
        skip = offset - first // 3 * 4
        return encoded[skip : skip + size]
