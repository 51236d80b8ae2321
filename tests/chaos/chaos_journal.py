"""What processes write down for who judges them: a line of JSON for each thing that happens.

A line is written whole, in one call of the system, before and after what it tells of. So a process
that is killed leaves its story behind, up to that moment. Times are of the monotonic clock, which
all processes of a machine have in common, and which goes on while one of them is stopped.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["Journal", "read"]

Line = dict[str, Any]


class Journal:
    """Appends to a file. Safe under threads, and for several processes on one file."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, what: str, **about: Any) -> None:
        line = json.dumps({"at": time.monotonic(), "what": what, **about})
        os.write(self._file, f"{line}\n".encode())


def read(path: Path) -> Iterator[Line]:
    """The lines of a file, in order. A last one that is not whole has never been said."""
    with path.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield json.loads(line)
