"""What an account may spend in a day, and what was spent: one suite over every store."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from shared_parts import DAY, FakeClock
from state_parts import Meeting, Worker, a_job, choice, taken_over

from router.leases import Acquire, Need, Settle, Spend
from router.observations import MICROS, SPEND, Batch
from router.state import MemoryStore, News
from router.state.budgets import MOST_TOKENS

COST, WEST = "cost:account:acme", "cost:account:west"
JOBS = "jobs:deployment:east"
LIMIT = 1000


def cost(amount: int, limit: int = LIMIT, resource: str = COST) -> tuple[Need, ...]:
    return (Need(resource, limit, amount),)


def given_back(token: str, resource: str = COST) -> Settle:
    return Settle(token, (resource,))


@pytest.fixture
def meeting(meeting: Meeting) -> Meeting:
    meeting.clear_of_midnight()
    return meeting


# The limit --------------------------------------------------------------------------------------


def test_there_is_room_up_to_the_last_millionth_of_a_dollar(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    amounts = [600, 401, 400, 1, 0]
    granted = [worker.gets(cost(a)) for worker, a in zip([one, other] * 3, amounts, strict=False)]
    assert granted == [True, False, True, False, True]
    assert meeting.held(COST) == [1000]


def test_whoever_asks_in_whatever_order_no_more_is_spent_than_may_be(meeting: Meeting) -> None:
    workers, rng = meeting.workers(8), random.Random(8)
    amounts = [[rng.randrange(1, 90) for _ in range(20)] for _ in workers]

    def asks(worker: Worker, mine: list[int]) -> int:
        return sum(amount for amount in mine if worker.gets(cost(amount)))

    with ThreadPoolExecutor(8) as threads:
        spent = sum(threads.map(asks, workers, amounts))
    assert [spent] == meeting.held(COST)
    assert LIMIT - 90 < spent <= LIMIT


def test_all_needs_are_met_or_nothing_is_spent(meeting: Meeting) -> None:
    one = meeting.worker()
    assert one.gets((*choice(JOBS), *cost(100)))
    assert not one.gets((*choice(JOBS), *cost(100)))
    assert not one.gets((*choice("jobs:deployment:west"), *cost(901)))
    assert meeting.held(JOBS, "jobs:deployment:west", COST) == [1, 0, 100]


def test_the_first_choice_with_money_is_granted_and_no_other_pays(meeting: Meeting) -> None:
    one = meeting.worker()
    choices = cost(600), cost(600, resource=WEST)
    assert [one.ask(*choices)[1].index for _ in range(3)] == [0, 1, None]
    assert meeting.held(COST, WEST) == [600, 600]


def test_who_lacks_money_hears_that_midnight_brings_some(meeting: Meeting) -> None:
    one = meeting.worker()
    assert one.gets((*choice(JOBS, "rpm:account:acme"), *cost(1000)))
    # Though nothing else has room either: none of it would help.
    _, grant = one.ask((*choice("rpm:account:acme", JOBS), *cost(1)))
    ((resource, opens),) = grant.full
    assert resource == COST
    assert opens == pytest.approx(DAY - meeting.now() % DAY, abs=2)
    assert (grant.unseen, grant.holding) == ((), ())


def test_a_lowered_limit_holds_for_what_was_spent_before(meeting: Meeting) -> None:
    one = meeting.worker()
    assert one.gets(cost(500))
    assert not one.gets(cost(1, limit=400))
    assert one.gets(cost(500))


def test_a_new_day_brings_new_money(meeting: Meeting) -> None:
    one = meeting.worker()
    assert one.gets(cost(1000))
    assert not one.gets(cost(1))
    meeting.advance(DAY)
    assert meeting.held(COST) == [0]
    assert one.gets(cost(1000))


# Giving back ------------------------------------------------------------------------------------


def test_what_surely_led_to_nothing_is_given_back_once_however_often_it_is_told(
    meeting: Meeting,
) -> None:
    one, other = meeting.workers(2)
    token, _ = one.ask(cost(300))
    other.ask(cost(200))
    for worker in (one, other, one):
        worker.turn(None, given_back(token), given_back(token))
    assert meeting.held(COST) == [200]


@pytest.mark.parametrize("job", [None, a_job()])
def test_what_was_accepted_or_may_have_been_stays_spent(meeting: Meeting, job: object) -> None:
    one = meeting.worker()
    token, _ = one.ask((*choice(JOBS), *cost(300)))
    settle = taken_over(token, a_job(), JOBS) if job else Settle(token, (), (JOBS,), 60.0)
    one.turn(None, settle, settle)
    assert meeting.held(COST) == [300]


def test_a_lease_that_lapses_stays_spent(meeting: Meeting) -> None:
    one = meeting.worker()
    one.ask((*choice(JOBS), *cost(300)), seconds=5)
    meeting.advance(10)
    assert meeting.held(JOBS, COST) == [0, 300]


def test_what_is_given_back_after_midnight_brings_the_new_day_nothing(meeting: Meeting) -> None:
    one = meeting.worker()
    token, _ = one.ask(cost(300))
    meeting.advance(DAY)
    one.ask(cost(100))
    one.order(given_back(token), given_back(token))
    assert meeting.held(COST) == [100]


def test_what_was_never_spent_gives_nothing_back_and_is_not_spent_when_it_comes_late(
    meeting: Meeting,
) -> None:
    one = meeting.worker()
    one.ask(cost(100))
    one.order(given_back("late"))
    assert one.gets(cost(300), token="late")
    assert meeting.held(COST) == [100]


def test_an_emptied_store_gives_nothing_back_that_it_does_not_know_of(meeting: Meeting) -> None:
    one = meeting.worker()
    token, _ = one.ask(cost(300))
    meeting.backend.empty()
    one.store = meeting.backend.store()
    one.ask(cost(50))
    one.order(given_back(token))
    assert meeting.held(COST) == [50]


def test_sums_are_exact_in_any_order(meeting: Meeting) -> None:
    workers, rng = meeting.workers(3), random.Random(3)
    owed, tokens = 0, list[str]()
    for _ in range(60):
        amount = rng.choice([1, 333_333, 10**9])
        token, _ = rng.choice(workers).ask(cost(amount, limit=10**14))
        if rng.random() < 0.5:
            tokens.append(token)
        else:
            owed += amount
    rng.shuffle(tokens)
    for token in tokens:
        rng.choice(workers).order(given_back(token))
    assert meeting.held(COST) == [owed]


# Told afterwards --------------------------------------------------------------------------------


def test_what_was_spent_without_asking_counts_once_also_beyond_the_limit(meeting: Meeting) -> None:
    one = meeting.worker()
    one.ask(cost(900))
    spend = Spend("t", COST, 300, meeting.now())
    for _ in range(3):
        one.turn(None, spend, spend)
    assert meeting.held(COST) == [1200]
    assert not one.gets(cost(1))
    one.order(given_back("t"))
    one.order(spend)
    assert meeting.held(COST) == [900]


def test_what_was_spent_on_a_day_that_is_over_counts_no_more(
    meeting: Meeting,
) -> None:
    one = meeting.worker()
    now = meeting.now()
    old = [Spend(f"t{days}", COST, 100, now - days * DAY) for days in (1, 2, 40)]
    ahead = Spend("ahead", COST, 7, now + DAY)  # by a clock that is fast
    one.order(*old, ahead)
    assert meeting.held(COST) == [7]
    one.order(given_back("t1"))
    assert meeting.held(COST) == [7]


# Corrected --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("amount", "left"), [(300, 800), (-300, 200), (-500, 0)])
def test_what_was_reserved_is_corrected_once_however_often_it_is_told(
    meeting: Meeting, amount: int, left: int
) -> None:
    one, other = meeting.workers(2)
    token, _ = one.ask(cost(500))
    told = Spend(f"{token}:costs", COST, amount, meeting.now(), token)
    for worker in (one, other, one):
        worker.turn(None, told, told)
    assert meeting.held(COST) == [left]
    assert not other.gets(cost(LIMIT - left + 1))
    assert other.gets(cost(LIMIT - left))


def test_less_than_nothing_counts_only_where_so_much_stands_under_its_token(
    meeting: Meeting,
) -> None:
    one = meeting.worker()
    one.ask(cost(400))
    token, _ = one.ask(cost(100))
    gone, _ = one.ask(cost(200))
    now = meeting.now()
    one.order(given_back(gone))
    for of in (token, gone, "nobody", ""):
        one.order(Spend(f"{of}:costs", COST, -101, now, of))
    assert meeting.held(COST) == [500]
    meeting.advance(DAY)
    one.order(Spend(f"{token}:late", COST, -50, now + DAY, token))
    assert meeting.held(COST) == [0]


def test_a_correction_is_given_back_like_all_money(meeting: Meeting) -> None:
    one = meeting.worker()
    token, _ = one.ask(cost(500))
    one.order(Spend("c", COST, -300, meeting.now(), token))
    for _ in range(2):
        one.order(given_back("c"))
    assert meeting.held(COST) == [500]


# Waiting ----------------------------------------------------------------------------------------


def test_who_lacks_money_has_no_place_in_a_queue(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    token, _ = one.ask((*choice(JOBS), *cost(500)))
    # It waits for a slot; then the money is gone, and others have some of what is left.
    assert not one.gets((*choice(JOBS), *cost(400)), ticket="first")
    assert other.gets(cost(300))
    assert not one.gets((*choice(JOBS), *cost(400)), ticket="first")
    one.order(Settle(token, (JOBS,)))
    assert other.gets((*choice(JOBS), *cost(100)), ticket="second")


def test_who_lacks_money_in_one_account_keeps_its_place_in_another(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    west = "jobs:deployment:west"
    token, _ = one.ask(choice(JOBS))
    assert one.gets(cost(1000, resource=WEST))
    choices = choice(JOBS), (*choice(west), *cost(1, resource=WEST))
    assert not one.gets(*choices, ticket="first")
    assert not other.gets(choice(JOBS), ticket="second")
    one.order(Settle(token, (JOBS,)))
    assert not other.gets(choice(JOBS), ticket="second")
    assert one.gets(*choices, ticket="first")


def test_money_is_nobodys_to_wait_for(meeting: Meeting) -> None:
    one = meeting.worker()
    assert one.gets(cost(800))
    assert not one.gets(cost(300), ticket="first")
    assert one.gets(cost(200), ticket="second")
    asks = [Acquire(f"t{n}", (cost(300),), 30.0, "first", last=True) for n in range(2)]
    opens = [grant.full[0][1] for grant in one.turn(asks=asks).grants]
    assert opens[0] == opens[1] == pytest.approx(DAY - meeting.now() % DAY, abs=2)


# For people -------------------------------------------------------------------------------------


def paid(micros: int, deployment: str = "east", account: str = "acme", day: int = 20_000) -> Batch:
    batch = Batch()
    batch.add_spend(deployment, account, day, micros)
    return batch


def of_money(news: News) -> dict[tuple[str, str, int], int]:
    return {key[1:4]: n for key, n in news.counts.items() if (key[0], key[4]) == (SPEND, MICROS)}


def test_what_is_spent_is_heard_by_all_exactly_and_once(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    for _ in range(3):
        one.turn(paid(333_333), sequence=1)  # the same turn again and again: its answers were lost
    other.turn(paid(10**12))
    other.turn(paid(5, "west", "ä:b", 20_001))
    assert of_money(meeting.worker().hear()) == {
        ("east", "acme", 20_000): 10**12 + 333_333,
        ("west", "ä:b", 20_001): 5,
    }


def test_what_was_spent_is_known_for_35_days_also_where_nobody_is_there_meanwhile(
    meeting: Meeting,
) -> None:
    meeting.worker().turn(paid(7))
    meeting.advance(34 * DAY)
    assert of_money(meeting.worker().hear()) == {("east", "acme", 20_000): 7}
    meeting.advance(2 * DAY)
    assert of_money(meeting.worker().hear()) == {}


# In memory --------------------------------------------------------------------------------------


def test_memory_remembers_so_many_tokens_and_the_rest_stays_spent() -> None:
    clock = FakeClock()
    store = MemoryStore(clock.time)
    worker = Worker(store, "worker")
    for number in range(MOST_TOKENS + 10):
        worker.ask(cost(1, limit=10**9), token=f"t{number}")
    worker.order(given_back("t5"), given_back("t500"))
    assert store.taken((COST,)) == {COST: MOST_TOKENS + 9}
    assert len(store._budgets._tokens) <= MOST_TOKENS
    clock.advance(3 * DAY)
    worker.ask(cost(1))
    assert (len(store._budgets._tokens), store._budgets._total) == (1, {COST: 1})
