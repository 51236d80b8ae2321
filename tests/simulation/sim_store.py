"""The store that the workers share, and what can befall it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sim_history import History

from router.observations import Batch
from router.state import MemoryStore, Store

__all__ = ["SharedStore", "StoreAwayError", "WorkersView"]


class StoreAwayError(ConnectionError):
    """The store does not answer."""


class SharedStore:
    """One store, with its troubles; `view` is what a worker sees of it."""

    def __init__(self, now: Callable[[], float], history: History, starts: float) -> None:
        self._now = now
        self._history = history
        self._starts = starts
        self.store: Store = MemoryStore()
        self.frozen_until = 0.0
        self.deaf_until = 0.0
        self.flushed = False

    def freeze(self, seconds: float) -> None:
        self.frozen_until = max(self.frozen_until, self._now() + seconds)

    def lose_answers(self, seconds: float) -> None:
        self.deaf_until = max(self.deaf_until, self._now() + seconds)

    def flush(self) -> None:
        self.store = MemoryStore()
        self.flushed = True

    def heal(self) -> None:
        self.frozen_until = self.deaf_until = 0.0

    def exchange(self, number: int, worker: str, sequence: int, batch: Batch) -> Sequence[Batch]:
        if self._now() < self.frozen_until:
            raise StoreAwayError("frozen")
        news = self.store.exchange(worker, sequence, batch)
        if self._now() < self.deaf_until:
            raise StoreAwayError("the answer was lost")
        for ejection in (e for batch in news for e in batch.ejections.items()):
            (deployment, scope, cause), known = ejection
            self._history.note(
                "heard",
                worker=number,
                deployment=deployment,
                scope=scope,
                cause=cause.value,
                seconds=known.until - self._starts - self._now(),
                unshown={"until": known.until, "credential": known.credential},
            )
        return news


class WorkersView:
    """The store, as one worker holds it in hand."""

    def __init__(self, shared: SharedStore, number: int) -> None:
        self._shared = shared
        self._number = number

    def exchange(self, worker: str, sequence: int, batch: Batch) -> Sequence[Batch]:
        return self._shared.exchange(self._number, worker, sequence, batch)
