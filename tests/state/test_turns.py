"""A worker's side of the sharing: what waits to be told, asked and ordered, and one turn of it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable

import pytest
from shared_parts import FakeClock
from state_parts import a_job, choice, taken_over

from router.leases import Acquire, Command, Grant, Job, Release, Seen, Settle
from router.observations import Cause as Why
from router.observations import Change, Ejection, Sums
from router.state import MemoryStore, News, Sharing, Turn
from router.state.sharing import MOST_AT_ONCE, MOST_ORDERS

JOBS = "jobs:deployment:east"
SUMS = ("http", "east", "generation", 7)
ONE = Sums(1.0, 2.0, 4.0, 1)


class Recording:
    """A memory store that tells what it was handed, and fails as long as it is told to."""

    def __init__(self) -> None:
        self.inner = MemoryStore(FakeClock().time)
        self.turns: list[Turn] = []
        self.fails: Exception | None = None
        self.loses_answers = False
        self.meanwhile: Callable[[], object] = lambda: None
        self.closed = False

    def turn(self, turn: Turn) -> News:
        self.turns.append(turn)
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        if self.fails is not None and not self.loses_answers:
            raise self.fails
        news = self.inner.turn(turn)
        if self.fails is not None:
            raise self.fails
        return news

    def picture(self, resources: tuple[str, ...]) -> object:
        return self.inner.picture(resources)

    def close(self) -> None:
        self.closed = True

    @property
    def commands(self) -> list[tuple[Command, ...]]:
        """Turn by turn, without the tries to reach a store that was away."""
        return [turn.commands for turn in self.turns if turn.sequence]


def sharing(
    store: Recording, absorb: Callable[[News], None] = lambda news: None, *, inline: bool = False
) -> Sharing:
    return Sharing(store, absorb, inline=inline)  # type: ignore[arg-type]


def asking(token: str = "t", limit: int = 1) -> Acquire:
    return Acquire(token, (choice(JOBS, limit=limit),), 30.0)


def fails(shares: Sharing) -> None:
    with pytest.raises(ConnectionError):
        shares.step()


def test_what_comes_while_a_turn_is_under_way_waits_for_the_next() -> None:
    store = Recording()
    shares = sharing(store)
    shares.tell_sums(SUMS, ONE)
    store.meanwhile = lambda: shares.tell_sums(SUMS, ONE)
    shares.step()
    assert shares.untold(SUMS) == ONE
    shares.step()
    assert [turn.batch.sums[SUMS].count for turn in store.turns] == [1, 1]
    assert [turn.sequence for turn in store.turns] == [1, 2]
    assert shares.untold(SUMS) == Sums()


def test_a_turn_without_an_answer_is_sent_again_under_its_number() -> None:
    store, heard = Recording(), list[News]()
    shares = sharing(store, heard.append)
    shares.tell_sums(SUMS, ONE)
    store.fails, store.loses_answers = ConnectionError("lost"), True
    fails(shares)
    shares.tell_sums(SUMS, ONE)
    fails(shares)
    assert shares.away == "lost"
    store.fails = None
    shares.step()
    shares.step()
    # A second try only asks whether the store is there again.
    assert [turn.sequence for turn in store.turns] == [1, 0, 0, 1, 2]
    assert heard[-1].sums[SUMS].count == 2
    assert shares.away is None


def test_orders_are_given_again_and_in_their_order_when_the_store_raises() -> None:
    store = Recording()
    shares = sharing(store)
    orders = [Release(str(n), (JOBS,)) for n in range(4)]
    shares.order(orders[0])
    shares.order(orders[1])
    store.fails = ConnectionError("gone")
    store.meanwhile = lambda: shares.order(orders[2])
    fails(shares)
    shares.order(orders[3])
    store.fails = None
    shares.step()
    shares.step()
    assert store.commands == [tuple(orders[:2]), tuple(orders), ()]


def test_who_asked_hears_the_reason_and_asks_no_more() -> None:
    store = Recording()
    shares = sharing(store)
    future = shares.ask(asking())
    store.fails = ConnectionError("gone")
    fails(shares)
    with pytest.raises(ConnectionError, match="gone"):
        future.result(0)
    store.fails = None
    shares.step()
    assert store.turns[-1].acquires == ()


def test_a_question_that_was_taken_back_is_not_put() -> None:
    store = Recording()
    shares = sharing(store)
    shares.ask(asking()).cancel()
    other = shares.ask(asking("other"))
    shares.step()
    assert [acquire.token for acquire in store.turns[0].acquires] == ["other"]
    assert other.result(0) == Grant(0)


def test_each_grant_goes_to_who_asked() -> None:
    shares = sharing(Recording())
    futures = [shares.ask(asking(str(n), limit=2)) for n in range(3)]
    shares.step()
    assert [future.result(0).index for future in futures] == [0, 0, None]


def test_who_asks_inline_turns_at_once_and_hears_what_went_wrong() -> None:
    store = Recording()
    shares = sharing(store, inline=True)
    assert shares.ask(asking()).result(0).index == 0
    store.fails = ConnectionError("gone")
    future = shares.ask(asking())
    assert isinstance(future.exception(0), ConnectionError)


def test_after_an_outage_what_is_held_is_registered_before_all_else() -> None:
    store = Recording()
    shares = sharing(store)
    held: list[Command] = [Settle("token", (), (JOBS,), 20.0)]
    shares.register = lambda: list(held)
    shares.step()
    assert store.commands == [()]  # nothing was lost yet
    store.fails = ConnectionError("gone")
    shares.order(Release("x", (JOBS,)))
    for _ in range(5):
        fails(shares)
    held[:] = [Settle("token", (), (JOBS,), 10.0)]  # time has passed
    future = shares.ask(asking("mine"))
    store.fails = None
    shares.step()
    # Once, as of now, however often it was tried.
    assert store.commands[-1] == (held[0], Release("x", (JOBS,)))
    assert future.result(0).index is None  # what is held is counted before anything is granted
    shares.step()
    assert store.commands[-1] == ()


def test_what_is_held_is_registered_with_a_store_that_was_emptied() -> None:
    store = Recording()
    shares = sharing(store)
    shares.register = lambda: [taken_over("token", a_job(), JOBS)]
    assert shares.step() is False
    store.inner = MemoryStore(FakeClock().time)
    assert shares.step() is True  # there is more to do at once
    shares.step()
    assert store.inner.picture((JOBS,)).held == {JOBS: 1}
    shares.step()
    assert store.commands[-1] == ()


def test_only_so_many_orders_are_remembered_for_a_store_that_is_away() -> None:
    store = Recording()
    shares = sharing(store)
    store.fails = ConnectionError("gone")
    for n in range(MOST_ORDERS + 50):
        shares.order(Release(str(n), (JOBS,)))
    fails(shares)
    store.fails = None
    while shares.step():
        assert shares.away is not None  # until the store has been told all
    assert shares.away is None
    kept = [command for commands in store.commands[1:] for command in commands]
    assert len(kept) == MOST_ORDERS
    assert kept[-1] == Release(str(MOST_ORDERS + 49), (JOBS,))  # the latest


def test_a_store_that_is_away_is_asked_whether_it_is_back_and_told_nothing_until_then() -> None:
    store = Recording()
    shares = sharing(store)
    store.fails = ConnectionError("gone")
    fails(shares)
    written = 0

    def register() -> list[Command]:
        nonlocal written
        written += 1
        return [Settle("token", (), (JOBS,), 10.0)]

    shares.register = register
    shares.order(Release("x", (JOBS,)))
    shares.tell_sums(SUMS, ONE)
    future = shares.ask(asking())
    fails(shares)
    assert isinstance(future.exception(0), ConnectionError)  # who asked does not wait for it
    fails(shares)
    assert (store.turns[-1].commands, store.turns[-1].batch.sums, written) == ((), {}, 0)
    store.fails = None
    shares.step()
    assert (len(store.turns[-1].commands), written) == (2, 1)


def test_many_orders_are_told_in_parts_and_all_of_them_before_anything_is_granted() -> None:
    store = Recording()
    shares = sharing(store)
    orders: list[Command] = [Release(str(n), (JOBS,)) for n in range(2 * MOST_AT_ONCE + 1)]
    for order in orders:
        shares.order(order)
    future = shares.ask(asking())
    assert shares.step() is True
    assert shares.step() is True
    assert not future.done()
    assert shares.step() is False
    assert future.result(0).index == 0
    assert [len(commands) for commands in store.commands] == [MOST_AT_ONCE, MOST_AT_ONCE, 1]
    assert [command for commands in store.commands for command in commands] == orders


def test_the_outbox_of_a_long_outage_is_bounded_by_what_there_is_to_know() -> None:
    store = Recording()
    shares = sharing(store)
    store.fails = ConnectionError("gone")
    fails(shares)
    for _ in range(1000):
        shares.tell_sums(SUMS, ONE)
        shares.tell_count((*SUMS, "3"))
    store.fails = None
    shares.step()
    shares.step()
    assert len(store.turns[-1].batch.sums) == len(store.turns[-1].batch.counts) == 1
    assert store.turns[-1].batch.sums[SUMS].count == 1000


def test_a_grant_reaches_its_asker_also_where_the_news_are_not_understood() -> None:
    def puzzled(news: News) -> None:
        raise KeyError("a series of a later release")

    shares = sharing(Recording(), puzzled)
    future = shares.ask(asking())
    with pytest.raises(KeyError):
        shares.step()
    assert future.result(0).index == 0
    assert shares.away is None


def test_what_is_not_to_wait_rings() -> None:
    shares, rung = sharing(Recording()), list[str]()
    shares.ring = lambda: rung.append("!")
    shares.tell_sums(SUMS, ONE)
    shares.tell_count((*SUMS, "3"))
    assert rung == []
    ejection = Ejection("submits", 9.0, Why.THROTTLED, "429")
    shares.tell_ejection("east", ejection, None)
    shares.tell_restored("east", 1.0, Change(1.0, "w", "east", "restored", "x"))
    shares.order(Release("x", (JOBS,)))
    shares.ask(asking())
    assert len(rung) == 4


def test_an_order_that_gives_nothing_back_waits_for_the_next_turn() -> None:
    shares, rung = sharing(Recording()), list[str]()
    shares.ring = lambda: rung.append("!")
    job = Job("acme", "video_1", "east", "generation", "w", 1.0, 1.0, "queued")
    shares.order(Settle("", job=job))
    shares.order(Seen(job.holder, (JOBS,), "in_progress", False, 1.0, 900.0))
    shares.order(Seen(job.holder, (), "completed", True, 1.0, 900.0))
    assert rung == []
    shares.order(Seen(job.holder, (JOBS,), "completed", True, 1.0, 900.0))
    assert rung == ["!"]


def test_a_child_process_is_a_worker_of_its_own_with_nothing_to_tell() -> None:
    store = Recording()
    shares = sharing(store)
    shares.step()
    shares.tell_sums(SUMS, ONE)
    shares.order(Release("x", (JOBS,)))
    left = shares.ask(asking())
    parent = shares.worker
    shares.after_fork()
    shares.step()
    turn = store.turns[-1]
    assert turn.worker == shares.worker != parent
    assert (turn.sequence, turn.since, turn.generation) == (1, 0, "")
    assert not turn.batch
    assert (turn.commands, turn.acquires) == ((), ())
    assert not left.done()  # the parent's thread hears it


def test_many_threads_tell_and_turn_at_once_and_nothing_is_lost_or_doubled() -> None:
    store = Recording()
    shares = sharing(store)

    def work() -> None:
        for n in range(200):
            shares.tell_sums(SUMS, ONE)
            shares.tell_count((*SUMS, "3"))
            if n % 10 == 0:
                shares.step()

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shares.step()
    late = dataclasses.replace(store.turns[0], worker="late", sequence=1, since=0)
    news = store.inner.turn(dataclasses.replace(late, batch=type(late.batch)()))
    assert news.sums[SUMS].count == news.counts[(*SUMS, "3")] == 1200
