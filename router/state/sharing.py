"""One worker's side of the sharing: what it has to tell, what it asks, and one turn of both.

    calls ──tell──► outbox ─┐                          ┌─► absorb (what changed elsewhere)
    calls ──order─► orders ─┼── turn ── store ── news ─┼─► grants, to who asked
    calls ──ask───► asks ───┤                          ├─► who may send, to who claimed
    calls ──claim─► claims ─┘                          └─► the store's time

A turn is one exchange with the store. Who turns it (the keeper's thread, a simulation, a test) is
not its business.
"""

from __future__ import annotations

import contextlib
import math
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from router.characters import CharacterFacts
from router.claims import Claim, Claimed
from router.ids import Copy
from router.leases import Acquire, Command, Grant, Job
from router.observations import (
    SPEND,
    SPEND_DAYS,
    Batch,
    Change,
    CountKey,
    Ejection,
    EjectionKey,
    Scope,
    Sums,
    SumsKey,
)

__all__ = ["News", "Picture", "Running", "Sharing", "Store", "Told", "Turn"]


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
    # Jobs that this worker takes for running, and would hear of if they have ended.
    running: tuple[str, ...] = ()
    # Answered after the commands were carried out, as the questions for leases are.
    claims: tuple[Claim, ...] = ()


MOST_RUNNING = 32
"""Jobs that a deployment's news tells of one by one."""
SIGHT_SECONDS = 10.0


def is_telling(before: Job, now: Job) -> bool:
    """Whether a sight of a job is news to others: another status, or much older than before.

    A job is looked at some ten times, and each time who runs jobs there would be told anew.
    """
    ages = [(job.seen_at - job.accepted_at) // SIGHT_SECONDS for job in (before, now)]
    return before.status != now.status or ages[0] != ages[1]


@dataclass(frozen=True, slots=True)
class Running:
    """What runs at a deployment: `count` jobs in all, and those that have run for longest."""

    jobs: tuple[Job, ...]
    count: int


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
    returned: dict[tuple[str, Scope], float] = field(default_factory=dict)
    running: dict[str, Running] = field(default_factory=dict)
    characters: dict[Copy, CharacterFacts] = field(default_factory=dict)
    grants: tuple[Grant, ...] = ()
    # Of the jobs that were asked after, those that somebody saw end.
    ended: tuple[str, ...] = ()
    claimed: tuple[Claimed, ...] = ()


@dataclass(frozen=True, slots=True)
class Told:
    """What a worker tells the others at once: who is out of rotation, or back in it.

    Of `news` only that is filled. It is `None` where nobody says what the news are.
    """

    worker: str = ""
    news: News | None = None


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
MOST_AT_ONCE = 250
"""Orders in one turn. A long turn holds up this worker's calls, with whom it shares an interpreter,
and every other worker, since a store does one thing at a time."""
RENEW_SECONDS = 0.5
"""Turns come in quick succession where calls do; claims need not be renewed in each."""
LEAST_AT_ONCE = 25
"""Orders that go with each turn, however many claims are renewed in it."""


class _Asked(NamedTuple):
    """What is asked of a turn, and who waits for the answers."""

    leases: list[tuple[Acquire, Future[Grant]]]
    claims: list[tuple[Claim, Future[Claimed]]]

    @property
    def futures(self) -> list[Future[Any]]:
        return [*(future for _, future in self.leases), *(future for _, future in self.claims)]


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
        # What it spent today, in the same way, where the store was emptied; of what is known by no
        # token any more, under the one that it is given.
        self.spent: Callable[[str], list[Command]] = lambda token: []
        # Some of the jobs that it takes for running: others may have seen them end.
        self.running: Callable[[], tuple[str, ...]] = tuple
        # What renews the claims that this worker holds: it goes with a turn about once in a second,
        # before all orders, and is made anew where a turn went wrong. It is called while the
        # sharing is locked, so it may not call the sharing.
        self.renewing: Callable[[], Sequence[Command]] = tuple
        # Rung when something is not to wait for the next turn.
        self.ring: Callable[[], object] = lambda: None
        # Takes in what a sibling tells at once, where that need not wait for a turn.
        self.overhear: Callable[[News], object] | None = None
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
        # What is still to be registered; of the commands of a turn the first so many are of it, or
        # renew claims, and are made anew where the turn goes wrong.
        self._registering: list[Command] = []
        self._registered = 0
        # Whether a turn had no room for all the orders.
        self._behind = False
        self._emptied = False
        # Whether the store was emptied, and has not been told anew yet of all that was spent.
        self._forgot = False
        # All the money that this worker counted for people.
        self._counted: dict[CountKey, int] = {}
        # Whether the last turn went wrong.
        self._lost = False
        # How many turns went well, and whether any did: before that the shared time is a guess.
        self.turns = 0
        self.met = threading.Event()
        # Why the store is out of reach, until it has answered and knows what it missed.
        self.away: str | None = None
        self._asked = _Asked([], [])
        # The store's time, as of the last turn, and what it was when claims were renewed.
        self._store_time = self._renewed = -math.inf

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
            if key[0] == SPEND:
                if key not in self._counted:
                    for old in [k for k in self._counted if k[3] <= key[3] - SPEND_DAYS]:
                        del self._counted[old]
                self._counted[key] = self._counted.get(key, 0) + count

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

    def tell_returned(self, deployment: str, scope: Scope, at: float, change: Change) -> None:
        with self._lock:
            self._outbox.add_returned(deployment, scope, at)
            self._outbox.changes.append(change)
        self.ring()

    def tell_character(self, copy: Copy, facts: CharacterFacts) -> None:
        with self._lock:
            self._outbox.add_character(copy, facts)

    def unordered(self) -> list[Command]:
        """The orders that the store has not been given yet."""
        with self._lock:
            return list(self._orders)

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
            self._asked.leases.append((acquire, future))
        self._hurry(future)
        return future

    def claim(self, claim: Claim) -> Future[Claimed]:
        """Ask to be the one who sends under a key; the answer comes with the next turn.

        Where that turn goes wrong the future raises what it raised, and the claim may stand all the
        same: who does not send is to give it up, with a `Conclude`.
        """
        future: Future[Claimed] = Future()
        with self._lock:
            self._asked.claims.append((claim, future))
        self._hurry(future)
        return future

    def _hurry(self, future: Future[Any]) -> None:
        """Somebody waits for what a turn will answer."""
        if self.inline:
            with contextlib.suppress(Exception):  # which the future tells
                while not future.done():
                    self.step()
        self.ring()

    def hear(self, told: Told) -> None:
        """A sibling has news. They are taken in as they are told, or else asked for.

        Deadlines only extend, so it does no harm to hear of them again in the next turn, or late.
        """
        if told.worker == self.worker:
            return
        if told.news is not None and self.overhear is not None:
            self.overhear(told.news)
        else:
            self.ring()

    def untold(self, key: SumsKey) -> Sums:
        """What the store does not count yet of these sums."""
        with self._lock:
            return self._outbox.sums.get(key, Sums())

    def uncounted(self, key: CountKey) -> int:
        with self._lock:
            return self._outbox.counts.get(key, 0)

    @property
    def has_to_tell(self) -> bool:
        """Whether there is something that the store has not answered to."""
        with self._lock:
            orders = self._registering or self._orders
            return bool(self._outbox or self._sending or orders)

    # Turns --------------------------------------------------------------------------------------

    def step(self, *, at_last: bool = False) -> bool:
        """One turn; whether there is more to hear at once.

        A store that was away is first asked whether it is back, unless the worker is `at_last`
        ending: then only a few tries are left, and each is to tell all.

        A store that raises leaves the batch to be sent again under its number, and the orders to
        be given again; who asked for a lease hears that there is no answer.
        """
        with self._turning:
            turn, asked = None, _Asked([], [])
            try:
                if self._lost and not at_last:
                    self._knock()
                turn, asked = self._take()
                news = self.store.turn(turn)
            except BaseException as exc:
                late = self._failed(exc, turn)
                for future in (*asked.futures, *late.futures):
                    future.set_exception(exc)
                raise
            with self._lock:
                emptied = self._generation not in ("", news.generation)
                self._forgot = emptied or (self._forgot and bool(self._registering))
                if emptied:
                    self._count_anew()
                self._sending, self._lost = None, False
                if not self._behind:
                    self.away = None
                self._since, self._generation = news.up_to, news.generation
                self._store_time = news.now
                self._emptied = emptied
                self.turns += 1
            try:
                self._absorb(news)
                self.met.set()
            finally:
                for (_, future), grant in zip(asked.leases, news.grants, strict=True):
                    future.set_result(grant)
                for (_, who), claimed in zip(asked.claims, news.claimed, strict=True):
                    who.set_result(claimed)
            return news.more or emptied or self._behind

    def _knock(self) -> None:
        """Does a store that was away answer? Raises what it raises.

        The longer it is away, the more there is to tell it: to write all that down for each try
        would slow down the calls that are to go on.
        """
        knock = Turn(self.worker, 0, Batch(), self._since, self._generation, onlooker=self.onlooker)
        generation = self.store.turn(knock).generation
        if generation != self._generation:
            # Emptied meanwhile: read anew, as all that is held is registered anew.
            with self._lock:
                if self._generation:
                    self._forgot = True
                    self._count_anew()
                self._since, self._generation = 0, generation

    def _count_anew(self) -> None:
        """The store was emptied: it counts what is being sent, and what was counted before is lost.

        So what this worker counted of money is told again, but for what is still to be told.
        """
        for key, count in self._counted.items():
            told = self._outbox.counts.get(key, 0)
            told += self._sending.counts.get(key, 0) if self._sending is not None else 0
            if count > told:
                self._outbox.add_count(key, count - told)

    def _take(self) -> tuple[Turn, _Asked]:
        with self._lock:
            if self._sending is None:
                self._sending, self._outbox = self._outbox, Batch()
                self._sequence += 1
            if self._emptied or self._lost:
                spent = self.spent(f"{self.worker}:{self._generation}") if self._forgot else ()
                self._registering = [*self.register(), *spent]
            held, self._registering = _parted(self._registering, MOST_AT_ONCE)
            # Before the orders, which may end what is renewed here.
            missed = self._emptied or self._lost
            if missed or self._store_time >= self._renewed + RENEW_SECONDS:
                held.extend(self.renewing())
                self._renewed = self._store_time
            place = 0 if self._registering else max(MOST_AT_ONCE - len(held), LEAST_AT_ONCE)
            orders, self._orders = _parted(self._orders, place)
            self._registered = len(held)
            self._behind = bool(self._registering or self._orders)
            # What is held, and what was given back, is to be known before anything is granted.
            asked = _Asked([], []) if self._behind else self._questions()
            turn = Turn(
                self.worker,
                self._sequence,
                self._sending,
                self._since,
                self._generation,
                (*held, *orders),
                tuple(acquire for acquire, _ in asked.leases),
                self.onlooker,
                self.running(),
                tuple(claim for claim, _ in asked.claims),
            )
        return turn, asked

    def _questions(self) -> _Asked:
        """All that is asked; whoever gave up waiting for an answer has cancelled the question."""
        asked, self._asked = self._asked, _Asked([], [])
        return _Asked(
            [(a, f) for a, f in asked.leases if f.set_running_or_notify_cancel()],
            [(c, f) for c, f in asked.claims if f.set_running_or_notify_cancel()],
        )

    def _failed(self, exc: BaseException, turn: Turn | None) -> _Asked:
        """A turn went wrong, or did not come about: what was asked meanwhile, to be refused."""
        with self._lock:
            self.away, self._lost = str(exc) or type(exc).__name__, True
            if turn is not None:
                self._orders[:0] = turn.commands[self._registered :]
            # While the store is away for long, only so much is remembered for it.
            del self._orders[:-MOST_ORDERS]
            self._registering = []
            return self._questions()


def _parted(commands: list[Command], place: int) -> tuple[list[Command], list[Command]]:
    return commands[:place], commands[place:]
