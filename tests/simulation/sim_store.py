"""The store that the workers share, and what can befall it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from sim_history import History

from router.state import MemoryStore, News, Picture, Turn

__all__ = ["Asked", "SharedStore", "Step", "StoreAwayError", "WorkersView"]


class StoreAwayError(ConnectionError):
    """The store does not answer."""


@dataclass(frozen=True, slots=True)
class Step:
    """One worker's turn: at which place of the history, when, and what came of it."""

    place: int
    at: float
    done: bool
    """The store did what it was told, and it was told all."""
    heard: bool
    """The worker heard so."""
    workers: int = 0
    """How many there are, as the worker heard."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The store's answer to a claim: whose the key is now."""

    place: int
    at: float
    worker: int
    key: str
    mine: bool


class SharedStore:
    """One store, with its troubles; `view` is what a worker sees of it."""

    def __init__(self, now: Callable[[], float], history: History, starts: float) -> None:
        self._now = now
        self._history = history
        self._starts = starts
        self.frozen_until = 0.0
        self.deaf_until = 0.0
        self.emptied = False
        self.steps: dict[int, list[Step]] = defaultdict(list)
        """By worker."""
        self.claims: list[Asked] = []
        self.flushes: list[int] = []
        """At which places of the history the store forgot all."""
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
        self.flushes.append(self._place)

    def heal(self) -> None:
        self.frozen_until = self.deaf_until = 0.0

    @property
    def _place(self) -> int:
        return len(self._history.entries)

    def turn(self, number: int, turn: Turn) -> News:
        at, steps = self._now(), self.steps[number]
        if at < self.frozen_until:
            steps.append(Step(self._place, at, done=False, heard=False))
            raise StoreAwayError("frozen")
        news = self.store.turn(turn)
        heard = at >= self.deaf_until
        # Who only knocks tells nothing.
        done = turn.sequence > 0
        steps.append(Step(self._place, at, done=done, heard=heard, workers=news.workers))
        for claim, claimed in zip(turn.claims, news.claimed, strict=True):
            self.claims.append(Asked(self._place, at, number, claim.key, claimed.mine))
        if not heard:
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
