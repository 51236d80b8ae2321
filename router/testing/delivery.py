"""How an answer travels: whole and at once, or in one of the ways networks spoil it.

A `Delivery` is a value. The faults make it out of an answer; the listener acts it out on a socket,
the in-process transport with httpx's exceptions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Literal

from router.testing.messages import Answer

__all__ = ["Delivery", "Ending"]

Ending = Literal["whole", "cut", "reset", "never"]
"""After the body's last byte: all is well; closed too early; connection reset; there is none."""


@dataclass(frozen=True)
class Delivery:
    answer: Answer
    pause: float = 0.0
    """Seconds of silence before the first byte."""
    lost: bool = False
    """The connection is reset where the answer should have come."""
    piece: int | None = None
    """Bytes sent at a time; None sends the body at once."""
    gap: float = 0.0
    """Seconds of silence after each piece."""
    ending: Ending = "whole"

    @property
    def status(self) -> int | None:
        """What the client gets to see."""
        return None if self.lost else self.answer.status

    def pieces(self) -> Iterator[bytes]:
        """The body as it goes out; without end when there is none."""
        body = self.answer.body
        if self.ending == "never":
            yield from repeat(body)
        if self.ending in ("cut", "reset"):
            body = body[: len(body) // 2]
        step = self.piece or len(body) or 1
        for start in range(0, len(body), step):
            yield body[start : start + step]

    def headers(self) -> list[tuple[str, str]]:
        """The headers as they go out, with the promise that the body may then break."""
        headers = list(self.answer.headers.items())
        named = {name.lower() for name, _ in headers}
        if self.answer.content_type is not None and "content-type" not in named:
            headers.append(("content-type", self.answer.content_type))
        if self.ending == "never":
            headers.append(("transfer-encoding", "chunked"))
        elif self.answer.status != 204:
            # A body that breaks off must promise at least one byte, or nothing would be missing.
            least = 0 if self.ending == "whole" else 1
            headers.append(("content-length", str(max(least, len(self.answer.body)))))
        return headers
