"""The thread that turns: when it starts, what it survives, what it says, how it ends."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from shared_parts import FakeClock

from router.leases import Acquire, Need, Release
from router.observations import Cause, Ejection, Sums
from router.state import Keeper, MemoryStore, News, Picture, Sharing, Told, Turn
from router.state import keeper as module

SOON = 5.0
"""Seconds after which what was to happen at once has not."""
SUMS = ("http", "east", "generation", 7)


class Watched:
    """A store whose turns can be waited for."""

    def __init__(self) -> None:
        self.inner = MemoryStore(FakeClock().time)
        self.turns: queue.Queue[Turn] = queue.Queue()
        self.fails: BaseException | None = None
        self.closed = False

    def turn(self, turn: Turn) -> News:
        self.turns.put(turn)
        if self.fails is not None:
            raise self.fails
        return self.inner.turn(turn)

    def picture(self, resources: tuple[str, ...]) -> Picture:
        return self.inner.picture(resources)

    def close(self) -> None:
        self.closed = True

    def next(self) -> Turn:
        return self.turns.get(timeout=SOON)

    def skip(self) -> None:
        while not self.turns.empty():
            self.turns.get()


class Telling(Watched):
    """One that can tell when a sibling has news."""

    def __init__(self) -> None:
        super().__init__()
        self.said: queue.Queue[Told | Exception | None] = queue.Queue()
        self.listening = queue.Queue[bool]()

    def listen(self) -> Generator[Told, None, None]:
        self.listening.put(True)
        while (said := self.said.get()) is not None:
            if isinstance(said, Exception):
                raise said
            yield said

    def hush(self) -> None:
        self.said.put(None)


@pytest.fixture
def store() -> Watched:
    return Watched()


@pytest.fixture
def sharing(store: Watched) -> Sharing:
    return Sharing(store, lambda news: None)


@pytest.fixture
def keeper(sharing: Sharing, monkeypatch: pytest.MonkeyPatch) -> Iterator[Keeper]:
    # Nothing turns by itself, but what fails is tried again soon.
    monkeypatch.setattr(module, "TURN_SECONDS", 600.0)
    monkeypatch.setattr(module, "FIRST_RETRY", 0.002)
    monkeypatch.setattr(module, "LONGEST_RETRY", 0.004)
    keeper = Keeper(sharing, "redis://host:6379/0")
    yield keeper
    keeper.stop()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "router"]


_before: set[threading.Thread] = set()


@pytest.fixture(autouse=True)
def _threads_of_others() -> None:
    _before.clear()
    _before.update(threading.enumerate())


def ours() -> list[str]:
    """The threads that were started here."""
    return [thread.name for thread in threading.enumerate() if thread not in _before]


def test_it_has_no_thread_until_it_is_started_and_then_one(store: Watched, keeper: Keeper) -> None:
    assert ours() == []
    for _ in range(3):
        keeper.start()
    store.next()
    assert ours() == ["router-state"]
    assert store.turns.empty()


def test_many_threads_that_start_it_start_one(store: Watched, keeper: Keeper) -> None:
    ready = threading.Barrier(8)

    def start() -> None:
        ready.wait()
        keeper.start()

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.next()
    assert ours() == ["router-state"]


@pytest.mark.parametrize("what", ["ejection", "order", "ask"])
def test_what_rings_is_turned_at_once(
    store: Watched, sharing: Sharing, keeper: Keeper, what: str
) -> None:
    keeper.start()
    store.next()
    if what == "ejection":
        ejection = Ejection("submits", 9.0, Cause.THROTTLED, "429")
        sharing.tell_ejection("east", ejection, None)
        assert store.next().batch.ejections
    elif what == "order":
        order = Release("x", ("jobs:account:acme",))
        sharing.order(order)
        assert store.next().commands == (order,)
    else:
        future = sharing.ask(Acquire("t", ((Need("jobs:deployment:east", 1),),), 5.0))
        assert future.result(SOON).index == 0


def test_it_turns_by_itself_from_time_to_time(
    store: Watched, sharing: Sharing, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TURN_SECONDS", 0.005)
    keeper.start()
    for _ in range(3):
        store.next()
    sharing.tell_sums(SUMS, Sums(1.0, 1.0, 1.0, 1))
    while not store.next().batch:
        pass


@pytest.mark.parametrize(
    "exc",
    [ConnectionError("refused"), TimeoutError(), ValueError("odd"), KeyError("x"), MemoryError()],
    ids=lambda exc: type(exc).__name__,
)
def test_it_survives_whatever_the_store_raises_and_says_so_once(
    store: Watched,
    sharing: Sharing,
    keeper: Keeper,
    exc: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "router")
    store.fails = exc
    keeper.start()
    for _ in range(4):
        store.next()
    (line,) = lines(caplog)
    assert line.startswith("shared state at redis://host:6379/0 is out of reach")
    assert (str(exc) or type(exc).__name__) in line
    store.fails = None
    store.skip()
    sharing.ask(Acquire("t", ((),), 5.0))
    wait_until(lambda: len(lines(caplog)) == 2)
    assert lines(caplog)[1] == "shared state at redis://host:6379/0 is back"
    store.fails = exc
    sharing.ask(Acquire("t", ((),), 5.0))
    wait_until(lambda: len(lines(caplog)) == 3)


def wait_until(true: Callable[[], bool]) -> None:
    moment = threading.Event()
    for _ in range(int(SOON / 0.002)):
        if true():
            return
        moment.wait(0.002)
    pytest.fail("it did not happen")


def test_what_rings_does_not_hurry_a_store_that_is_away(
    store: Watched, sharing: Sharing, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_RETRY", 600.0)
    store.fails = ConnectionError("gone")
    keeper.start()
    store.next()
    wait_until(lambda: sharing.away is not None)
    for _ in range(100):
        sharing.ring()
    assert store.turns.empty()


def test_stopping_tells_what_is_untold(store: Watched, sharing: Sharing, keeper: Keeper) -> None:
    keeper.start()
    store.next()
    sharing.tell_sums(SUMS, Sums(1.0, 1.0, 1.0, 1))
    keeper.stop()
    assert ours() == []
    assert store.next().batch.sums[SUMS].count == 1


def test_stopping_tells_what_was_learned_after_an_answer_was_lost(
    store: Watched, sharing: Sharing, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn that tells the unanswered batch again has no room for it; another follows."""
    monkeypatch.setattr(module, "FIRST_RETRY", 600.0)
    keeper.start()
    store.next()
    sharing.tell_sums(SUMS, Sums(1.0, 1.0, 1.0, 1))
    store.fails = ConnectionError("cut off")
    sharing.ring()
    unanswered = store.next()
    wait_until(lambda: sharing.away is not None)
    sharing.tell_sums(SUMS, Sums(1.0, 1.0, 1.0, 2))
    store.fails = None
    keeper.stop()
    left = [store.next() for _ in range(store.turns.qsize())]
    again, rest = (turn for turn in left if turn.batch)
    assert (again.sequence, again.batch) == (unanswered.sequence, unanswered.batch)
    assert rest.sequence > again.sequence
    assert rest.batch.sums[SUMS].count == 2


def test_stopping_does_not_wait_for_a_store_that_is_away(
    store: Watched, keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_RETRY", 600.0)
    store.fails = ConnectionError("gone")
    keeper.start()
    store.next()
    keeper.stop()
    assert ours() == []


def test_stopping_what_never_started_is_no_harm_and_starting_again_works(
    store: Watched, keeper: Keeper
) -> None:
    keeper.stop()
    assert store.turns.empty()
    keeper.start()
    store.next()
    keeper.stop()
    keeper.stop()
    store.skip()
    keeper.start()
    store.next()
    assert ours() == ["router-state"]


def test_its_own_connection_is_closed_also_where_the_thread_never_ran(sharing: Sharing) -> None:
    """A look at the whole fleet asks by itself, and connects for that."""
    closed: list[bool] = []
    own: Any = SimpleNamespace(close=lambda: closed.append(True), after_fork=lambda: None)
    keeper = Keeper(sharing, "redis://host:6379/0", own)
    keeper.stop()
    assert closed == [True]
    keeper.start()
    keeper.stop()
    assert closed == [True, True]


def test_a_child_process_starts_its_own(store: Watched, sharing: Sharing, keeper: Keeper) -> None:
    """As after a fork, which leaves the thread behind and copies what it stood on."""
    keeper.start()
    store.next()
    parents, parents_life = sharing.worker, keeper._life
    sharing.after_fork()
    keeper.after_fork()
    sharing.ring()  # nobody is there to hear it
    keeper.start()
    assert store.next().worker == sharing.worker != parents
    assert parents_life is not None
    parents_life.stop(1.0)  # in one process both are there


def test_news_that_say_what_they_are_are_taken_in_without_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a whole fleet would come to ask, at the very moment when something is wrong."""
    monkeypatch.setattr(module, "TURN_SECONDS", 600.0)
    store = Telling()
    sharing = Sharing(store, lambda news: None)
    overheard = queue.Queue[News]()
    sharing.overhear = overheard.put
    keeper = Keeper(sharing, "there")
    news = News(0.0, "", 0, restored={"east": 7.0})
    try:
        keeper.start()
        store.next()
        store.said.put(Told(sharing.worker, news))
        store.said.put(Told("a sibling", news))
        assert overheard.get(timeout=SOON) is news
        assert overheard.empty()
        assert store.turns.empty()
        store.said.put(Told("a sibling of another release"))
        store.next()
    finally:
        keeper.stop()


def test_a_siblings_news_ring_and_ones_own_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_SECONDS", 600.0)
    monkeypatch.setattr(module, "FIRST_RETRY", 0.002)
    store = Telling()
    sharing = Sharing(store, lambda news: None)
    keeper = Keeper(sharing, "there")
    try:
        keeper.start()
        store.next()
        assert sorted(ours()) == ["router-news", "router-state"]
        store.said.put(Told("a sibling"))
        store.next()
        store.said.put(Told(sharing.worker))
        store.said.put(ConnectionError("cut off"))  # it listens again
        store.listening.get(timeout=SOON)
        store.listening.get(timeout=SOON)
        assert store.turns.empty()
        store.said.put(Told("another sibling"))
        store.next()
    finally:
        keeper.stop()
    assert ours() == []


class Ends(BaseException):
    """As KeyboardInterrupt and SystemExit are."""


def test_the_thread_outlives_whatever_somebody_raises_who_is_told(
    store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_RETRY", 0.002)
    told = [Ends(), SystemExit(3)]

    def absorb(news: News) -> None:
        if told:
            raise told.pop()

    keeper = Keeper(Sharing(store, absorb), "redis://host:6379/0")
    keeper.start()
    for _ in range(3):
        store.next()
    assert ours() == ["router-state"]
    keeper.stop()


def test_it_may_be_stopped_by_somebody_who_is_told_in_its_own_thread(store: Watched) -> None:
    stopped = queue.Queue[Exception | None]()

    def absorb(news: News) -> None:
        try:
            keeper.stop()
        except RuntimeError as exc:
            stopped.put(exc)
        stopped.put(None)

    keeper = Keeper(Sharing(store, absorb), "redis://host:6379/0")
    keeper.start()
    assert stopped.get(timeout=SOON) is None
    for thread in threading.enumerate():
        if thread.name == "router-state":
            thread.join(SOON)
    assert ours() == []
