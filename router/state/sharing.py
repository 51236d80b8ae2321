"""One worker's side of the sharing: what it has to tell, and one turn of telling and hearing."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Protocol

from router.observations import Batch, Ejection, Sums
from router.types import Operation

__all__ = ["Sharing", "Store"]


class Store(Protocol):
    """Where workers meet."""

    def exchange(self, worker: str, sequence: int, batch: Batch) -> Sequence[Batch]:
        """Hand in a batch, and take what other workers handed in since this worker's last turn.

        A batch that arrives twice under one sequence number counts once, and its answer, which
        may have been lost, is given again.
        """


class Sharing:
    """A worker's identity, its outbox, and its turns. Safe under threads."""

    def __init__(self, store: Store, absorb: Callable[[Batch], None]) -> None:
        self._store = store
        self._absorb = absorb
        self._lock = threading.Lock()
        self._outbox = Batch()
        self._sending: Batch | None = None
        self._sequence = 0
        self.worker = uuid.uuid4().hex

    def tell_latency(self, deployment: str, operation: Operation, epoch: int, sums: Sums) -> None:
        with self._lock:
            self._outbox.add_latency(deployment, operation, epoch, sums)

    def tell_ejection(self, deployment: str, ejection: Ejection) -> None:
        with self._lock:
            self._outbox.add_ejection(deployment, ejection)

    def after_fork(self) -> None:
        """In a child process: a worker of its own, with nothing to tell yet."""
        self._lock = threading.Lock()
        self._outbox, self._sending, self._sequence = Batch(), None, 0
        self.worker = uuid.uuid4().hex

    def step(self, now: float) -> None:
        """One turn. A store that raises leaves the batch to be sent again, under its number."""
        with self._lock:
            if self._sending is None:
                self._sending, self._outbox = self._outbox, Batch()
                self._sequence += 1
            batch, sequence = self._sending, self._sequence
        for news in self._store.exchange(self.worker, sequence, batch):
            self._absorb(news)
        with self._lock:
            self._sending = None
