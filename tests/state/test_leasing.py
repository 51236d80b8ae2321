"""Asking a store for room that is slow, frozen or gone: nobody waits long, nothing is leaked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest
from shared_parts import FakeClock
from state_parts import a_job, choice, seen

from router import leasing as module
from router._doors import AsyncDoor, BlockingDoor, step
from router.leases import Grant, Lease, Need
from router.leasing import Asking, Leasing
from router.limits import Later
from router.observations import Batch
from router.operations import Demand
from router.state import MemoryStore, News, Sharing, Turn
from router.types import Operation

JOBS, RPM = "jobs:deployment:east", "rpm:deployment:east"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.01)


def a_member(
    needs: Mapping[Operation, tuple[Need, ...]], budget: Need | None = None
) -> SimpleNamespace:
    budgets = () if budget is None else (budget,)
    needs_of = lambda demand: (*needs[demand.operation], *budgets)  # noqa: E731
    return SimpleNamespace(needs_of=needs_of, job_ttl=900.0)


class Bench:
    """A worker whose turns come when the test says so, as those of a slow store do."""

    def __init__(self, limit: int = 1, budget: Need | None = None) -> None:
        self.clock = FakeClock()
        self.inner = MemoryStore(self.clock.time)
        self.loses: Exception | None = None
        self.gone = False
        self.sharing = Sharing(self, lambda news: None)  # type: ignore[arg-type]
        self.leasing = Leasing(self.sharing, self.clock.time)
        needs = {Operation.GENERATION: choice(JOBS, RPM, limit=limit)}
        self.members: Any = [a_member(needs, budget)]
        self.blocking: Any = SimpleNamespace(door=BlockingDoor(self.clock))
        self.awaiting: Any = SimpleNamespace(door=AsyncDoor(self.clock))

    def turn(self, turn: Turn) -> News:
        if self.gone:
            raise ConnectionError("gone")
        news = self.inner.turn(turn)
        if self.loses is not None:
            raise self.loses
        return news

    def asking(self, seconds: float = 300.0, *, waits: bool = False) -> Asking:
        demand = Demand(Operation.GENERATION)
        return Asking(lambda one: one.needs_of(demand), seconds, waits, self.members)

    def ask(self) -> tuple[Grant, Lease | None]:
        return step(self.leasing.ask(self.blocking, self.asking()))

    def held(self) -> int:
        return self.inner.picture((JOBS,)).held[JOBS]


def late(bench: Bench) -> tuple[Grant, Lease | None]:
    """Ask while a turn takes too long, in which the question is put; then the turn comes back."""
    taken: list[Any] = []
    hear = bench.blocking.door.hear

    async def hear_late(future: Any, seconds: float) -> Any:
        taken.append(bench.sharing._take())
        return await hear(future, seconds)

    bench.blocking.door.hear = hear_late
    answer = bench.ask()
    bench.blocking.door.hear = hear
    ((turn, asked),) = taken
    for (_, future), grant in zip(asked.leases, bench.turn(turn).grants, strict=True):
        future.set_result(grant)
    bench.sharing._sending = None
    return answer


def test_a_grant_that_comes_too_late_is_given_back_and_what_was_taken_instead_counts() -> None:
    bench = Bench()
    grant, lease = late(bench)  # the store said nothing; this worker decided for itself
    assert grant.index == 0
    assert lease is not None
    assert bench.held() == 1
    bench.sharing.step()
    holders = bench.inner.picture((JOBS,)).holders[JOBS]
    assert list(holders) == [lease.token]
    bench.leasing.settle(lease, "no")
    bench.sharing.step()
    assert bench.held() == 0


def test_a_question_that_was_not_put_in_time_is_not_put_any_more() -> None:
    bench = Bench(limit=5)
    _, lease = bench.ask()
    assert lease is not None
    bench.sharing.step()
    assert list(bench.inner.picture((JOBS,)).holders[JOBS]) == [lease.token]


def test_what_is_given_back_late_is_not_what_an_ambiguous_submit_keeps() -> None:
    bench = Bench()
    _, lease = late(bench)
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
    _, lease = late(bench)
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
        asked.leases[0][1].set_result(news.grants[0])
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
    assert bench.sharing._asked.futures == []


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


# Waiting -----------------------------------------------------------------------------------------


def put(bench: Bench, asking: Asking) -> Grant:
    return step(bench.leasing.ask(bench.blocking, asking))[0]


def places(bench: Bench) -> int:
    return sum(len(queue) for queue in bench.inner._queues.values())


@pytest.mark.parametrize("how", ["refused", "cancelled", "out of time"])
def test_who_gives_up_leaves_the_queue(how: str) -> None:
    endings = {"cancelled": asyncio.CancelledError(), "out of time": TimeoutError()}
    bench = Bench()
    bench.sharing.inline = True
    bench.ask()
    with (
        suppress(asyncio.CancelledError, TimeoutError),
        bench.leasing.waiting(bench.asking(waits=True)) as asking,
    ):
        assert put(bench, asking).index is None
        assert places(bench) == 1
        if how in endings:
            raise endings[how]
    bench.sharing.step()
    assert places(bench) == 0


def test_who_is_served_at_once_has_nothing_to_leave_and_who_waited_leaves_all() -> None:
    bench = Bench()
    bench.sharing.inline = True
    with bench.leasing.waiting(bench.asking(waits=True)) as asking:
        assert put(bench, asking).index == 0
    assert not bench.sharing.has_to_tell
    with bench.leasing.waiting(bench.asking(waits=True)) as asking:
        put(bench, asking)
        # Of two deployments, both full, one is put out of rotation meanwhile.
        other: Any = a_member({Operation.GENERATION: choice("jobs:x:y")})
        asking.members = [other]
        assert put(bench, asking).index == 0
    bench.sharing.step()
    assert places(bench) == 0


def test_who_gives_up_while_the_question_is_put_leaves_after_it() -> None:
    bench = Bench()
    bench.sharing.inline = True
    bench.ask()
    bench.sharing.inline = False
    asking = bench.asking(waits=True)
    bench.asking = lambda: asking  # type: ignore[method-assign, assignment]
    with bench.leasing.waiting(asking):
        late(bench)
    assert places(bench) == 1  # the question came before the leave
    bench.sharing.step()
    assert places(bench) == 0


def test_while_the_store_is_away_who_came_first_in_a_worker_is_served_first() -> None:
    bench = Bench()
    bench.members = [a_member({Operation.GENERATION: choice(JOBS)})]
    bench.sharing.away = "gone"
    _, lease = bench.ask()
    first, second = bench.asking(waits=True), bench.asking(waits=True)
    assert [put(bench, asking).index for asking in (first, second)] == [None, None]
    bench.leasing.settle(lease, "no")
    assert put(bench, second).index is None
    with bench.leasing.waiting(first):
        pass  # gives up
    assert put(bench, second).index == 0


# What others see ---------------------------------------------------------------------------------


def test_a_job_that_another_worker_saw_end_counts_here_no_more() -> None:
    bench = Bench()
    bench.sharing = Sharing(bench, bench_absorbs(bench), inline=True)  # type: ignore[arg-type]
    bench.leasing = Leasing(bench.sharing, bench.clock.time)
    _, lease = bench.ask()
    bench.leasing.settle(lease, "yes", a_job())
    bench.sharing.step()
    need = choice(JOBS)
    assert bench.leasing.lacking(need) is not None
    bench.inner.turn(
        Turn("other", 1, Batch(), commands=(seen(a_job(), [JOBS], "completed", 900.0),))
    )
    bench.sharing.step()
    assert bench.leasing.lacking(need) is None
    bench.sharing.away = "gone"
    bench.clock.advance(61)
    assert bench.ask()[0].index == 0
    assert bench.sharing.register() != []


def bench_absorbs(bench: Bench) -> Callable[[News], None]:
    return lambda news: bench.leasing.absorb(news)


def test_of_many_jobs_each_is_asked_after_in_turn() -> None:
    bench = Bench(limit=1000)
    bench.sharing.away = "gone"
    jobs = [a_job(f"video_{n}") for n in range(2 * module.ASKED_AFTER + 5)]
    for job in jobs:
        bench.leasing.settle(bench.ask()[1], "yes", job)
    asked = [bench.sharing.running() for _ in range(3)]
    assert {len(some) for some in asked} == {module.ASKED_AFTER}
    assert {holder for some in asked for holder in some} == {job.holder for job in jobs}


# Coming back -------------------------------------------------------------------------------------


def test_who_was_told_to_come_back_is_counted_until_then() -> None:
    bench = Bench()
    for seconds, resource in ((10.0, JOBS), (20.0, JOBS), (20.0, "jobs:deployment:west")):
        bench.leasing.told(Later(seconds, (resource,)))
    start = bench.clock.time()
    assert bench.leasing.ahead([JOBS], start + 15) == 1
    assert bench.leasing.ahead([JOBS, "jobs:deployment:west"], start + 25) == 3
    bench.leasing.workers = 4  # the others have refused about as many
    assert bench.leasing.ahead([JOBS], start + 25) == 8
    bench.clock.advance(11)
    assert bench.leasing.ahead([JOBS], start + 25) == 4
    bench.leasing.after_fork()
    assert bench.leasing.ahead([JOBS], start + 25) == 0


# Money ------------------------------------------------------------------------------------------

COST = "cost:account:acme"


def spender(limit: int = 1000, amount: int = 100) -> Bench:
    bench = Bench(limit=100, budget=Need(COST, limit, amount))
    bench.sharing.inline = True
    return bench


def spent(bench: Bench) -> int:
    return bench.inner.picture((COST,)).held[COST]


def has_no_store(bench: Bench) -> None:
    bench.gone = True
    with pytest.raises(ConnectionError):
        bench.sharing.step()


def is_back(bench: Bench) -> None:
    bench.gone, bench.loses = False, None
    while bench.sharing.step():
        pass


@pytest.mark.parametrize(("accepted", "left"), [("no", 0), ("yes", 100), ("unknown", 100)])
def test_money_comes_back_only_where_surely_nothing_was_accepted(accepted: Any, left: int) -> None:
    bench = spender()
    _, lease = bench.ask()
    assert spent(bench) == 100
    for _ in range(2):
        bench.leasing.settle(lease, accepted)
        bench.sharing.step()
    assert spent(bench) == left
    assert bench.leasing._own.taken((COST,)) == {COST: left}


def test_without_its_store_a_worker_spends_what_is_left_of_its_share_and_tells_of_it_once() -> None:
    bench = spender()
    bench.ask()
    bench.leasing.workers = 2
    has_no_store(bench)
    asked = [bench.ask() for _ in range(6)]
    # Half of the limit, less what it had spent before.
    assert [grant.index for grant, _ in asked] == [0, 0, 0, 0, None, None]
    assert asked[-1][0].full[0][0] == COST
    bench.leasing.settle(asked[0][1], "no")
    bench.leasing.settle(asked[1][1], "yes")
    is_back(bench)
    assert spent(bench) == 400
    # What is registered anew, as after each turn without an answer, is not spent anew.
    has_no_store(bench)
    is_back(bench)
    assert spent(bench) == 400


def test_what_was_spent_without_a_store_counts_once_where_answers_get_lost() -> None:
    bench = spender()
    bench.ask()
    has_no_store(bench)
    bench.ask()
    bench.gone = False
    bench.loses = ConnectionError("lost")  # it carries out what it is told, but does not answer
    for _ in range(3):
        with pytest.raises(ConnectionError):
            bench.sharing.step(at_last=True)
    assert spent(bench) == 200
    is_back(bench)
    assert spent(bench) == 200


def test_what_a_slow_store_granted_too_late_is_not_spent() -> None:
    bench = Bench(limit=100, budget=Need(COST, 1000, 100))
    grant, lease = late(bench)
    assert grant.index == 0
    while bench.sharing.step():
        pass
    assert spent(bench) == 100  # once, by what this worker granted itself
    bench.leasing.settle(lease, "no")
    bench.sharing.step()
    assert spent(bench) == 0


def test_a_grant_whose_answer_was_lost_is_not_spent() -> None:
    bench = spender()
    bench.loses = ConnectionError("lost")
    grant, lease = bench.ask()
    assert grant.index == 0
    bench.leasing.settle(lease, "yes")
    bench.loses = None
    while bench.sharing.step():
        pass
    assert spent(bench) == 100


def test_what_was_spent_yesterday_and_told_today_is_yesterdays() -> None:
    bench = spender()
    has_no_store(bench)
    bench.ask()
    bench.clock.advance(86_400 - bench.clock.time() % 86_400)
    bench.ask()
    is_back(bench)
    assert spent(bench) == 100


@pytest.mark.parametrize("amount", [0, 40, 100, 250])
@pytest.mark.parametrize("gone", [False, True])
def test_the_days_sum_becomes_what_is_accepted_costs(gone: bool, amount: int) -> None:
    bench = spender()
    if gone:
        has_no_store(bench)
    _, lease = bench.ask()
    bench.leasing.settle(lease, "yes", a_job())
    for _ in range(2):
        bench.leasing.costs(lease, Need(COST, 1000, amount))
    is_back(bench)
    assert spent(bench) == amount
    assert bench.leasing._own.taken((COST,)) == {COST: amount}


def test_where_nothing_was_reserved_all_that_it_costs_is_spent() -> None:
    bench = spender()
    bench.leasing.costs(None, Need(COST, 1000, 70))
    bench.leasing.costs(None, Need(COST, 1000, 70))
    is_back(bench)
    assert spent(bench) == 140


def is_emptied(bench: Bench) -> None:
    bench.inner = MemoryStore(bench.clock.time)


def test_an_emptied_store_is_told_anew_what_was_spent_and_once() -> None:
    bench = spender()
    refused, accepted = bench.ask()[1], bench.ask()[1]
    bench.leasing.settle(accepted, "yes", a_job())
    bench.leasing.costs(accepted, Need(COST, 1000, 30))
    bench.sharing.step()
    for _ in range(2):
        is_emptied(bench)
        bench.ask()  # before it knows
        is_back(bench)
    assert spent(bench) == 330
    has_no_store(bench)
    is_back(bench)
    assert spent(bench) == 330
    bench.leasing.settle(refused, "no")
    is_back(bench)
    assert spent(bench) == 230


def test_what_is_under_way_while_the_store_is_emptied_counts_once() -> None:
    bench = spender()
    refused, accepted = bench.ask()[1], bench.ask()[1]
    is_emptied(bench)
    # To a store that knows of neither.
    bench.leasing.settle(accepted, "yes", a_job())
    bench.leasing.costs(accepted, Need(COST, 1000, 30))
    bench.leasing.settle(refused, "no")
    is_back(bench)
    assert spent(bench) == 30


def test_a_store_that_was_away_and_comes_back_empty_is_told_all() -> None:
    bench = spender()
    bench.ask()
    has_no_store(bench)
    bench.ask()
    is_emptied(bench)
    bench.gone, bench.loses = False, ConnectionError("lost")
    for _ in range(3):
        with pytest.raises(ConnectionError):
            bench.sharing.step()
    is_back(bench)
    assert spent(bench) == 200


def test_whoever_breaks_in_on_the_telling_all_is_told_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("router.state.sharing.MOST_AT_ONCE", 2)
    bench = spender()
    for _ in range(7):
        bench.ask()
    is_emptied(bench)
    for _ in range(4):
        bench.sharing.step()
        has_no_store(bench)
        bench.gone = False
    is_back(bench)
    assert spent(bench) == 700


def test_yesterdays_money_is_not_told_anew() -> None:
    bench = spender()
    bench.ask()
    bench.clock.advance(86_400)
    is_emptied(bench)
    is_back(bench)
    assert spent(bench) == 0


def test_of_very_many_sums_the_older_ones_are_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.state.budgets.MOST_TOKENS", 3)
    bench = spender()
    for _ in range(8):
        bench.ask()
    for _ in range(2):
        is_emptied(bench)
        is_back(bench)
        assert spent(bench) == 800
        has_no_store(bench)
        is_back(bench)
    assert len(bench.sharing.spent("older")) == 4


def test_each_worker_tells_an_emptied_store_of_its_own() -> None:
    bench, other = spender(), spender()
    other.inner, other.clock = bench.inner, bench.clock
    for one in (bench, other, other):
        one.ask()
    is_emptied(bench)
    other.inner = bench.inner
    for one in (bench, other):
        is_back(one)
    assert spent(bench) == 300
