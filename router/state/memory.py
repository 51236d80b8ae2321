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
        # By worker: the sequence number of its last turn, and the numbers between which it read.
        self._turns: dict[str, tuple[int, int, int]] = {}

    def exchange(self, worker: str, sequence: int, batch: Batch) -> Sequence[Batch]:
        with self._lock:
            last, since, up_to = self._turns.get(worker, (0, 0, 0))
            if last != sequence:
                # Asking anew says that the last answer arrived; until then it is given again.
                since = up_to
                if batch:
                    self._number += 1
                    self._log.append((self._number, worker, batch))
            self._turns[worker] = (sequence, since, self._number)
            return [b for number, author, b in self._log if number > since and author != worker]
