"""The store in this process: a log that each worker reads from where it left off.

It serves a single worker, which finds nothing new in it, and several routers of one process.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence

from router.observations import Batch

__all__ = ["MemoryStore"]

# A worker that stayed away for longer than this many batches of the others has missed some; what
# they said has faded by then.
KEEP_BATCHES = 10_000


class MemoryStore:
    """Batches in the order of their arrival, numbered. Safe under threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._log: deque[tuple[int, str, Batch]] = deque(maxlen=KEEP_BATCHES)
        self._number = 0
        self._read_up_to: dict[str, int] = {}
        self._sequences: dict[str, int] = {}

    def exchange(self, worker: str, sequence: int, batch: Batch) -> Sequence[Batch]:
        with self._lock:
            if batch and self._sequences.get(worker) != sequence:
                self._number += 1
                self._log.append((self._number, worker, batch))
            self._sequences[worker] = sequence
            since = self._read_up_to.get(worker, 0)
            self._read_up_to[worker] = self._number
            return [b for number, author, b in self._log if number > since and author != worker]
