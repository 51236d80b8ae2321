"""What was spent, as people see it: by deployment, account and day, over all workers."""

from __future__ import annotations

import json
import random
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from shared_parts import DAY, FakeClock, fleet, in_process
from state_parts import Meeting

from router.learning import Learning
from router.observations import SPEND_DAYS, day_of
from router.spending import Spending
from router.state import MemoryStore, Sharing
from router.testing import StandIn

EAST = ("east-1", "east")
# 2027-01-15.
NOW = 1_800_000_000.0


def test_a_day_is_one_of_utc_and_sums_are_told_in_dollars() -> None:
    spending = Spending()
    today = day_of(NOW)
    spending.add(*EAST, today, 333_333)
    spending.add(*EAST, today, 1)
    spending.add("east-2", "east", today, 500_000)
    spending.add(*EAST, today - 1, 2_000_000)
    assert spending.today(NOW) == {EAST: 0.333334, ("east-2", "east"): 0.5}
    midnight = NOW - NOW % DAY
    assert spending.today(midnight - 0.001) == {EAST: 2.0}
    assert spending.today(midnight + DAY) == {}
    assert list(spending.by_day()) == ["2027-01-14", "2027-01-15"]
    assert spending.by_day()["2027-01-14"] == {EAST: 2.0}


def test_what_the_store_says_takes_the_place_of_what_was_known() -> None:
    spending = Spending()
    spending.add(*EAST, day_of(NOW), 5)
    spending.put(*EAST, day_of(NOW), 2_000_000)
    assert spending.today(NOW) == {EAST: 2.0}
    # An emptied store knows less.
    spending.put(*EAST, day_of(NOW), 1_000_000)
    assert spending.today(NOW) == {EAST: 2.0}


def test_only_so_many_days_are_kept_whatever_is_told() -> None:
    spending, today = Spending(), day_of(NOW)
    for day in range(today - 60, today + 1):
        spending.add(*EAST, day, 1)
    spending.put(*EAST, today - 50, 1)
    assert len(spending.by_day()) == SPEND_DAYS


def test_threads_lose_no_cent() -> None:
    spending = Spending()

    def adds() -> None:
        for _ in range(2000):
            spending.add(*EAST, day_of(NOW), 10_000)

    threads = [threading.Thread(target=adds) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert spending.today(NOW) == {EAST: 80.0}


# What a worker learns ---------------------------------------------------------------------------


class Worker:
    """One that learns, and shares what it learned with the others."""

    def __init__(self, store: Any, now: Any) -> None:
        fleet: Any = SimpleNamespace(members={})  # it no longer has those deployments
        self.learning = Learning(now, random.Random(0))
        self.sharing = Sharing(store, lambda news: self.learning.absorb(fleet, news))
        self.learning.sharing = self.sharing
        self.now = now

    def spends(self, dollars: float) -> None:
        self.learning.spent(*EAST, dollars, self.now())

    @property
    def today(self) -> float:
        return self.learning.spending.today(self.now()).get(EAST, 0.0)


def test_all_workers_see_what_each_of_them_spends(meeting: Meeting) -> None:
    meeting.clear_of_midnight()
    one, other = (Worker(meeting.backend.store(), meeting.now) for _ in range(2))
    one.spends(0.4)
    other.spends(0.25)
    assert (one.today, other.today) == (0.4, 0.25)
    one.sharing.step()
    one.spends(0.1)
    other.sharing.step()
    assert other.today == pytest.approx(0.65)
    one.sharing.step()
    assert one.today == pytest.approx(0.75)
    other.sharing.step()
    assert other.today == pytest.approx(0.75)


class LosesAnswers(MemoryStore):
    lost = False

    def turn(self, turn: Any) -> Any:
        news = super().turn(turn)
        if self.lost:
            raise ConnectionError("lost")
        return news


def test_what_is_told_again_since_the_answer_was_lost_counts_once() -> None:
    clock = FakeClock()
    store = LosesAnswers(clock.time)
    one, other = (Worker(store, clock.time) for _ in range(2))
    one.spends(1.0)
    store.lost = True
    for _ in range(2):
        with pytest.raises(ConnectionError):
            one.sharing.step(at_last=True)
        one.spends(0.5)
    store.lost = False
    while one.sharing.has_to_tell:
        one.sharing.step()
    other.sharing.step()
    assert (one.today, other.today) == (2.0, 2.0)


def test_an_emptied_store_hears_again_what_each_has_spent_and_forgets_only_the_dead() -> None:
    clock = FakeClock()
    store = LosesAnswers(clock.time)
    one, other, dead = (Worker(store, clock.time) for _ in range(3))
    for worker, dollars in ((one, 1.0), (other, 2.0), (dead, 4.0), (one, 0.5)):
        worker.spends(dollars)
        worker.sharing.step()
    for lost in (False, True):
        store = LosesAnswers(clock.time)
        one.sharing.store = other.sharing.store = store
        one.spends(0.25)  # before it knows
        store.lost = lost
        for _ in range(2 if lost else 0):
            with pytest.raises(ConnectionError):
                one.sharing.step(at_last=True)
        store.lost = False
        one.spends(0.25)
        for worker in (one, other, one):
            while worker.sharing.has_to_tell or worker.sharing.step():
                worker.sharing.step()
    newcomer = Worker(store, clock.time)
    newcomer.sharing.step()
    assert newcomer.today == 4.5
    assert one.today == 8.5  # it has heard of the dead one


def test_alone_a_worker_counts_for_itself_and_nothing_costs_nothing() -> None:
    clock = FakeClock()
    learning = Learning(clock.time, random.Random(0))
    learning.spent(*EAST, 0.0, clock.time())
    assert learning.spending.by_day() == {}
    learning.spent(*EAST, 0.8, clock.time())
    assert learning.spending.today(clock.time()) == {EAST: 0.8}


# What a router tells ----------------------------------------------------------------------------


def test_statistics_tell_what_was_spent_where_costs_are_known(provider: StandIn) -> None:
    data = fleet("http://stand-in/v1")
    data["deployments"][0]["cost_per_second"] = 0.1
    with in_process(provider, data, clock=FakeClock()) as router:
        known = router.statistics()
        assert (known["east-1"]["spent_today"], known["west-1"]["spent_today"]) == (0.0, None)
        for account in ("east", "east", "west"):
            router.video(prompt="x", seconds=4, account=account)
        known = json.loads(json.dumps(router.statistics()))
        east, west = known["east-1"], known["west-1"]
        assert (east["spent_today"], list(east["spent_by_day"].values())) == (0.8, [0.8])
        assert (west["spent_today"], west["spent_by_day"]) == (None, {})
