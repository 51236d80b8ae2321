"""One worker's side of the sharing: what it has to tell, what it asks, and one turn of both.

    calls ──tell──► outbox ─┐                          ┌─► absorb (what changed elsewhere)
    calls ──order─► orders ─┼── turn ── store ── news ─┼─► grants, to who asked
    calls ──ask───► asks ───┘                          └─► the store's time

A turn is one exchange with the store. Who turns it (the keeper's thread, a simulation, a test) is
not its business.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from router.leases import Acquire, Command, Grant, Job
from router.observations import Batch, Change, CountKey, Ejection, EjectionKey, Sums, SumsKey

__all__ = ["News", "Picture", "Sharing", "Store", "Turn"]


@dataclass(frozen=True, slots=True)
class Turn:
    """What a worker hands in, and up to where it has heard.

    A batch that arrives twice under one sequence number counts once; commands may be repeated
    without harm. An `onlooker` serves no calls, and is not counted among the workers.
    """

    worker: str
    sequence: int
    batch: Batch
    since: int = 0
    generation: str = ""
    commands: tuple[Command, ...] = ()
    acquires: tuple[Acquire, ...] = ()
    onlooker: bool = False


@dataclass(frozen=True, slots=True)
class News:
    """What changed in the store since then: all that is known under each changed name.

    `now` is the store's time. Another `generation` than the last one means that it was emptied.
    `more` says that there is more to hear at once.
    """

    now: float
    generation: str
    up_to: int
    more: bool = False
    workers: int = 1
    sums: dict[SumsKey, Sums] = field(default_factory=dict)
    counts: dict[CountKey, int] = field(default_factory=dict)
    ejections: dict[EjectionKey, Ejection] = field(default_factory=dict)
    restored: dict[str, float] = field(default_factory=dict)
    grants: tuple[Grant, ...] = ()


@dataclass(frozen=True, slots=True)
class Picture:
    """The store as a whole, for people: who is there, what runs, what changed last."""

    now: float
    workers: dict[str, float]
    held: dict[str, int]
    jobs: list[Job]
    changes: list[Change]
    # Of the resources that jobs hold: who does, and for how many seconds more.
    holders: dict[str, dict[str, float]] = field(default_factory=dict)


class Store(Protocol):
    """Where workers meet."""

    def turn(self, turn: Turn) -> News:
        """One exchange. Raises `OSError` where the store is out of reach."""

    def picture(self, resources: tuple[str, ...]) -> Picture:
        """Everything at a glance; `held` tells of these resources."""

    def close(self) -> None: ...


MOST_ORDERS = 10_000


class Sharing:
    """A worker's identity, its outbox, and its turns. Safe under threads."""

    def __init__(
        self,
        store: Store,
        absorb: Callable[[News], None],
        *,
        inline: bool = False,
        onlooker: bool = False,
    ) -> None:
        self.store = store
        self._absorb = absorb
        # Whether who asks turns at once by itself, as one may whose store is at hand.
        self.inline = inline
        self.onlooker = onlooker
        # What this worker holds, to be told before anything else when the store is back.
        self.register: Callable[[], list[Command]] = list
        # Rung when something is not to wait for the next turn.
        self.ring: Callable[[], object] = lambda: None
        self._begin()

    def _begin(self) -> None:
        self.worker = uuid.uuid4().hex
        self._lock = threading.Lock()
        self._turning = threading.Lock()
        self._outbox = Batch()
        self._sending: Batch | None = None
        self._sequence = 0
        self._since, self._generation = 0, ""
        self._orders: list[Command] = []
        # Of the orders of a turn the first so many are a registration, made anew for the next.
        self._registered = 0
        self._emptied = False
        # How many turns went well.
        self.turns = 0
        # Why the store is out of reach, while it is.
        self.away: str | None = None
        self._asks: list[tuple[Acquire, Future[Grant]]] = []

    def after_fork(self) -> None:
        """In a child process: a worker of its own, with nothing to tell yet."""
        self._begin()

    # Telling ------------------------------------------------------------------------------------

    def tell_sums(self, key: SumsKey, sums: Sums) -> None:
        with self._lock:
            self._outbox.add_sums(key, sums)

    def tell_count(self, key: CountKey, count: int = 1) -> None:
        with self._lock:
            self._outbox.add_count(key, count)

    def tell_ejection(self, deployment: str, ejection: Ejection, change: Change | None) -> None:
        with self._lock:
            self._outbox.add_ejection(deployment, ejection)
            if change is not None:
                self._outbox.changes.append(change)
        self.ring()

    def tell_restored(self, deployment: str, at: float, change: Change) -> None:
        with self._lock:
            self._outbox.add_restored(deployment, at)
            self._outbox.changes.append(change)
        self.ring()

    def order(self, command: Command) -> None:
        """Have a command carried out in the next turn, after those ordered before.

        What gives room back is not to wait for it; all else is.
        """
        with self._lock:
            self._orders.append(command)
        if command.gives_back:
            self.ring()

    def ask(self, acquire: Acquire) -> Future[Grant]:
        """Ask for a lease; the grant comes with the next turn."""
        future: Future[Grant] = Future()
        with self._lock:
            self._asks.append((acquire, future))
        if self.inline:
            with contextlib.suppress(Exception):  # which the future tells
                self.step()
        self.ring()
        return future

    def untold(self, key: SumsKey) -> Sums:
        """What the store does not count yet of these sums."""
        with self._lock:
            return self._outbox.sums.get(key, Sums())

    def uncounted(self, key: CountKey) -> int:
        with self._lock:
            return self._outbox.counts.get(key, 0)

    # Turns --------------------------------------------------------------------------------------

    def step(self) -> bool:
        """One turn; whether there is more to hear at once.

        A store that raises leaves the batch to be sent again under its number, and the orders to
        be given again; who asked for a lease hears that there is no answer.
        """
        with self._turning:
            turn, asked = self._take()
            try:
                news = self.store.turn(turn)
            except BaseException as exc:
                self.away = str(exc) or type(exc).__name__
                self._put_back(turn)
                for _, future in asked:
                    future.set_exception(exc)
                raise
            with self._lock:
                self._sending, self.away = None, None
                emptied = self._generation not in ("", news.generation)
                self._since, self._generation = news.up_to, news.generation
                self._emptied = emptied
                self.turns += 1
            try:
                self._absorb(news)
            finally:
                for (_, future), grant in zip(asked, news.grants, strict=True):
                    future.set_result(grant)
            return news.more or emptied

    def _take(self) -> tuple[Turn, list[tuple[Acquire, Future[Grant]]]]:
        with self._lock:
            if self._sending is None:
                self._sending, self._outbox = self._outbox, Batch()
                self._sequence += 1
            orders, self._orders = self._orders, []
            held = self.register() if self._emptied or self.away is not None else []
            self._registered = len(held)
            orders[:0] = held
            # Whoever gave up waiting for an answer has cancelled the question.
            asked = [(a, f) for a, f in self._asks if f.set_running_or_notify_cancel()]
            self._asks = []
            turn = Turn(
                self.worker,
                self._sequence,
                self._sending,
                self._since,
                self._generation,
                tuple(orders),
                tuple(acquire for acquire, _ in asked),
                self.onlooker,
            )
        return turn, asked

    def _put_back(self, turn: Turn) -> None:
        with self._lock:
            self._orders[:0] = turn.commands[self._registered :]
            # While the store is away for long, only so much is remembered for it.
            del self._orders[:-MOST_ORDERS]
