"""Asking a store for room that is slow, frozen or gone: nobody waits long, nothing is leaked."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from shared_parts import FakeClock
from state_parts import a_job, choice

from router import leasing as module
from router._doors import AsyncDoor, BlockingDoor, step
from router.leases import Grant, Lease
from router.leasing import Asking, Leasing
from router.state import MemoryStore, News, Sharing, Turn
from router.types import Operation

JOBS, RPM = "jobs:deployment:east", "rpm:deployment:east"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)


class Bench:
    """A worker whose turns come when the test says so, as those of a slow store do."""

    def __init__(self, limit: int = 1) -> None:
        self.clock = FakeClock()
        self.inner = MemoryStore(self.clock.time)
        self.loses: Exception | None = None
        self.sharing = Sharing(self, lambda news: None)  # type: ignore[arg-type]
        self.leasing = Leasing(self.sharing, self.clock.time)
        needs = {Operation.GENERATION: choice(JOBS, RPM, limit=limit)}
        self.members: Any = [SimpleNamespace(needs=needs, job_ttl=900.0)]
        self.blocking: Any = SimpleNamespace(door=BlockingDoor(self.clock))
        self.awaiting: Any = SimpleNamespace(door=AsyncDoor(self.clock))

    def turn(self, turn: Turn) -> News:
        news = self.inner.turn(turn)
        if self.loses is not None:
            raise self.loses
        return news

    def asking(self, seconds: float = 300.0) -> Asking:
        return Asking(Operation.GENERATION, seconds, False, self.members)

    def ask(self) -> tuple[Grant, Lease | None]:
        return step(self.leasing.ask(self.blocking, self.asking()))

    def held(self) -> int:
        return self.inner.picture((JOBS,)).held[JOBS]


def test_a_grant_that_comes_too_late_is_given_back() -> None:
    bench = Bench()
    grant, lease = bench.ask()  # the store says nothing; this worker decides for itself
    assert grant.index == 0
    assert lease is not None
    bench.sharing.step()
    assert bench.held() == 1
    bench.sharing.step()
    assert bench.held() == 0


def test_what_is_given_back_late_is_not_what_an_ambiguous_submit_keeps() -> None:
    bench = Bench()
    _, lease = bench.ask()
    bench.leasing.settle(lease, "maybe")
    for _ in range(3):
        bench.sharing.step()
    assert bench.held() == 1
    bench.clock.advance(899)
    assert bench.held() == 1
    bench.clock.advance(2)
    assert bench.held() == 0


def test_what_is_given_back_late_is_not_what_a_job_took_over() -> None:
    bench = Bench()
    _, lease = bench.ask()
    bench.leasing.settle(lease, "yes", a_job())
    for _ in range(3):
        bench.sharing.step()
    assert bench.held() == 1


def test_a_grant_whose_answer_was_lost_is_given_back() -> None:
    bench = Bench()
    bench.sharing.inline = True
    bench.loses = ConnectionError("lost")
    grant, lease = bench.ask()
    assert grant.index == 0  # by what this worker knows
    assert bench.held() == 1  # by what the store has granted, and nobody heard
    bench.loses = None
    bench.sharing.step()
    assert bench.held() == 1  # what this worker holds, registered; the other one is given back
    bench.leasing.settle(lease, "no")
    bench.sharing.step()
    assert bench.held() == 0


def test_who_was_cancelled_while_asking_gives_the_grant_back() -> None:
    async def main() -> None:
        bench = Bench()
        task = asyncio.create_task(bench.leasing.ask(bench.awaiting, bench.asking()))
        await asyncio.sleep(0)
        # The turn is under way: the question cannot be taken back any more.
        turn, asked = bench.sharing._take()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        news = bench.turn(turn)
        asked[0][1].set_result(news.grants[0])
        assert bench.held() == 1
        bench.sharing._sending = None
        bench.sharing.step()
        assert bench.held() == 0

    asyncio.run(main())


def test_who_was_cancelled_before_the_question_was_put_takes_it_back() -> None:
    async def main() -> None:
        bench = Bench()
        task = asyncio.create_task(bench.leasing.ask(bench.awaiting, bench.asking()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        bench.sharing.step()
        assert bench.held() == 0

    asyncio.run(main())


def test_of_the_calls_that_meet_a_frozen_store_only_the_first_waits() -> None:
    bench = Bench(limit=100)
    waited: list[float] = []
    original = bench.blocking.door.hear

    async def hear(future: Any, seconds: float) -> Any:
        waited.append(seconds)
        return await original(future, seconds)

    bench.blocking.door.hear = hear
    for _ in range(20):
        assert bench.ask()[0].index == 0
    assert len(waited) == 1
    bench.sharing.step()  # it answers again
    bench.ask()
    assert len(waited) == 2


def test_a_store_known_to_be_away_is_not_asked() -> None:
    bench = Bench(limit=2)
    bench.loses = ConnectionError("gone")
    with pytest.raises(ConnectionError):
        bench.sharing.step()
    bench.leasing.workers = 2
    assert [bench.ask()[0].index for _ in range(2)] == [0, None]
    assert bench.sharing._asks == []


@pytest.mark.parametrize("exc", [ValueError("odd"), KeyError("x"), RuntimeError("y")])
def test_whatever_goes_wrong_with_the_store_is_no_error_of_the_call(exc: Exception) -> None:
    bench = Bench()
    bench.sharing.inline = True
    bench.loses = exc
    assert bench.ask()[0].index == 0


def test_a_child_process_holds_none_of_its_parents_leases() -> None:
    bench = Bench()
    bench.sharing.away = "gone"
    assert bench.ask()[0].index == 0
    bench.sharing.after_fork()
    bench.leasing.after_fork()
    assert bench.sharing.register() == []
    bench.sharing.away = "gone"
    assert bench.ask()[0].index == 0


def test_a_lease_is_settled_once() -> None:
    bench = Bench(limit=5)
    bench.sharing.inline = True
    _, lease = bench.ask()
    bench.leasing.settle(lease, "no")
    bench.leasing.settle(lease, "maybe")
    bench.leasing.settle(lease, "yes", a_job())
    bench.sharing.step()
    assert bench.held() == 0


def test_without_a_store_a_worker_has_its_limits_to_itself() -> None:
    bench = Bench()
    alone = Leasing(None, bench.clock.time)
    grants = [step(alone.ask(bench.blocking, bench.asking())) for _ in range(2)]
    assert [grant.index for grant, _ in grants] == [0, None]
    alone.settle(grants[0][1], "yes", a_job())
    assert [job.native_id for job in alone.picture(()).jobs] == ["video_1"]
    assert alone.picture((JOBS,)).held == {JOBS: 1}
