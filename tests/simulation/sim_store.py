"""The store that the workers share, and what can befall it."""

from __future__ import annotations

from collections.abc import Callable

from sim_history import History

from router.state import MemoryStore, News, Picture, Turn

__all__ = ["SharedStore", "StoreAwayError", "WorkersView"]


class StoreAwayError(ConnectionError):
    """The store does not answer."""


class SharedStore:
    """One store, with its troubles; `view` is what a worker sees of it."""

    def __init__(self, now: Callable[[], float], history: History, starts: float) -> None:
        self._now = now
        self._history = history
        self._starts = starts
        self.frozen_until = 0.0
        self.deaf_until = 0.0
        self.emptied = False
        self.store = MemoryStore(self._time)

    def _time(self) -> float:
        """The store's own clock, which is the true one."""
        return self._starts + self._now()

    def freeze(self, seconds: float) -> None:
        self.frozen_until = max(self.frozen_until, self._now() + seconds)

    def lose_answers(self, seconds: float) -> None:
        self.deaf_until = max(self.deaf_until, self._now() + seconds)

    def flush(self) -> None:
        self.store, self.emptied = MemoryStore(self._time), True

    def heal(self) -> None:
        self.frozen_until = self.deaf_until = 0.0

    def turn(self, number: int, turn: Turn) -> News:
        if self._now() < self.frozen_until:
            raise StoreAwayError("frozen")
        news = self.store.turn(turn)
        if self._now() < self.deaf_until:
            raise StoreAwayError("the answer was lost")
        for (deployment, scope, cause), known in news.ejections.items():
            self._history.note(
                "heard",
                worker=number,
                deployment=deployment,
                scope=scope,
                cause=cause.value,
                seconds=known.until - self._time(),
                unshown={
                    "until": known.until,
                    "decided": known.at,
                    "credential": known.credential,
                },
            )
        for (deployment, side), returned in news.returned.items():
            self._history.note(
                "heard back",
                worker=number,
                deployment=deployment,
                side=side,
                unshown={"returned": returned},
            )
        return news


class WorkersView:
    """The store, as one worker holds it in hand; what the dead still do does not reach it."""

    def __init__(self, shared: SharedStore, number: int, alive: Callable[[], bool]) -> None:
        self._shared = shared
        self._number = number
        self._alive = alive

    def turn(self, turn: Turn) -> News:
        if not self._alive():
            raise StoreAwayError("this worker is dead")
        return self._shared.turn(self._number, turn)

    def picture(self, resources: tuple[str, ...]) -> Picture:
        return self._shared.store.picture(resources)

    def close(self) -> None:
        """Nothing is open."""
