"""What every store does: one suite over memory, fakeredis and each real server that is there."""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
from state_parts import InMemory, Meeting, Worker, a_job, choice, seen, taken_over

from router.leases import WINDOW, Acquire, Leave, Need, Release, Seen, Settle
from router.observations import (
    BOTH,
    READS,
    SUBMITS,
    Batch,
    Cause,
    Change,
    Ejection,
    Latency,
    Sums,
    epoch_of,
    sample,
)
from router.state import MemoryStore, News, Turn

# An epoch of this is part of the keys; the weights are those of its last second, the largest.
NOW = 1_800_003_599.0
SUMS = ("http", "east", "generation", epoch_of(NOW))
COUNT = ("http", "east", "generation", epoch_of(NOW), "-3")


def measured(*seconds: float, key: tuple[str, str, str, int] = SUMS) -> Batch:
    batch = Batch()
    for one in seconds:
        batch.add_sums(key, sample(one, NOW))
    return batch


def counted(count: int, key: tuple[str, str, str, int, str] = COUNT) -> Batch:
    batch = Batch()
    batch.add_count(key, count)
    return batch


def ejecting(ejection: Ejection, deployment: str = "east") -> Batch:
    batch = Batch()
    batch.add_ejection(deployment, ejection)
    return batch


def restoring(at: float, deployment: str = "east") -> Batch:
    batch = Batch()
    batch.add_restored(deployment, at)
    return batch


def out(at: float, until: float, cause: Cause = Cause.THROTTLED, **more: str) -> Ejection:
    return Ejection(SUBMITS, until, cause, more.pop("reason", "429"), 2, at=at, **more)


def known(news: News) -> list[Ejection]:
    return list(news.ejections.values())


# What is learned --------------------------------------------------------------------------------


def test_what_one_worker_learned_the_others_hear(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    one.turn(measured(2.0))
    (sums,) = other.hear().sums.values()
    assert sums.count == 1
    assert sums.total / sums.weight == pytest.approx(2.0)


def test_a_batch_counts_once_under_its_number_also_where_the_answer_was_lost(
    meeting: Meeting,
) -> None:
    one, other = meeting.workers(2)
    batch = measured(1.0, 3.0)
    batch.add_count(COUNT, 2)
    for _ in range(3):  # the same turn again and again: its answers were lost
        one.turn(batch, sequence=1)
    one.turn(measured(8.0), sequence=2)
    one.turn(measured(99.0), sequence=1)  # late, from before
    news = other.hear()
    assert news.sums[SUMS].count == 3
    assert news.sums[SUMS].total / news.sums[SUMS].weight == pytest.approx(4.0)
    assert news.counts[COUNT] == 2


def test_two_workers_number_their_turns_apart(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    one.turn(counted(1), sequence=7)
    other.turn(counted(1), sequence=7)
    assert one.hear().counts[COUNT] == 2


def test_sums_add_exactly_over_thousands_of_samples_of_several_workers(meeting: Meeting) -> None:
    """The mean within 1e-9 of the exact one, as of a single worker that had seen all."""
    workers, rng = meeting.workers(4), random.Random(4)
    samples = [(rng.lognormvariate(1, 1), NOW - rng.uniform(0, 3000)) for _ in range(4000)]
    pending = {worker.name: Batch() for worker in workers}
    for at, (seconds, when) in enumerate(samples):
        worker = workers[rng.randrange(4)]
        pending[worker.name].add_sums(SUMS, sample(seconds, when))
        pending[worker.name].add_count(COUNT)
        if at % 20 == 0:
            worker.turn(pending[worker.name])
            pending[worker.name] = Batch()
    for worker in workers:
        worker.turn(pending[worker.name])
    news = meeting.worker().hear()
    weights = [math.exp((when - NOW) / 60) for _, when in samples]
    exact = math.fsum(
        w * seconds for w, (seconds, _) in zip(weights, samples, strict=True)
    ) / math.fsum(weights)
    heard = Latency()
    heard.put(SUMS[3], news.sums[SUMS])
    assert news.sums[SUMS].count == news.counts[COUNT] == 4000
    assert heard.mean == pytest.approx(exact, rel=1e-9)


def test_names_of_all_sorts_come_back_as_they_were(meeting: Meeting) -> None:
    names = ["a:b", "a b", 'quo"ted', "{tag}", "östlich", "back\\slash", "", "1", "*?[x]"]
    batch = Batch()
    for name in names:
        batch.add_sums(("job", name, "generation", 50_000), Sums(1.5, 2.5, 3.5, 4))
        batch.add_count(("health", name, "reads", 180_000_000, "f"), 3)
        batch.add_ejection(name, out(NOW, meeting.now() + 60, reason=name))
    meeting.worker().turn(batch)
    news = meeting.worker().hear()
    assert {key[1] for key in news.sums} == {key[1] for key in news.counts} == set(names)
    assert all(sums == Sums(1.5, 2.5, 3.5, 4) for sums in news.sums.values())
    assert {key[0]: ejection.reason for key, ejection in news.ejections.items()} == {
        name: name for name in names
    }


# Health -----------------------------------------------------------------------------------------


def test_an_ejection_arrives_whole(meeting: Meeting) -> None:
    now = meeting.now()
    told = Ejection(
        BOTH, now + 60.125, Cause.DENIED, "401: no", step=3, credential="c1", at=now + 0.0625
    )
    meeting.worker().turn(ejecting(told))
    assert meeting.worker().hear().ejections == {("east", BOTH, Cause.DENIED): told}


def test_ejections_only_extend(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    now = meeting.now()
    one.turn(ejecting(out(now, now + 100)))
    other.turn(ejecting(out(now, now + 10)))  # it had been under way
    assert [e.until for e in known(meeting.worker().hear())] == [now + 100]
    other.turn(ejecting(out(now + 1, now + 200)))
    assert [e.until for e in known(meeting.worker().hear())] == [now + 200]


def test_ejections_of_one_deployment_stand_side_by_side(meeting: Meeting) -> None:
    now = meeting.now()
    batch = ejecting(out(now, now + 100))
    batch.add_ejection("east", out(now, now + 5, Cause.FAILURES))
    batch.add_ejection("east", Ejection(READS, now + 9, Cause.THROTTLED, "429", at=now))
    batch.add_ejection("west", out(now, now + 7))
    meeting.worker().turn(batch)
    assert meeting.worker().hear().ejections == batch.ejections


def test_a_restoration_voids_what_was_decided_before(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    now = meeting.now()
    one.turn(ejecting(out(now, now + 300)))
    one.turn(restoring(now + 10))
    other.turn(ejecting(out(now + 11, now + 20)))  # shorter, and decided after
    news = meeting.worker().hear()
    assert news.restored == {"east": now + 10}
    assert [e.until for e in known(news)] == [now + 20]


def test_what_was_decided_before_a_restoration_and_comes_late_hides_nothing(
    meeting: Meeting,
) -> None:
    one, slow = meeting.workers(2)
    now = meeting.now()
    one.turn(restoring(now + 10))
    one.turn(ejecting(out(now + 11, now + 20)))
    slow.turn(ejecting(out(now + 9, now + 300)))
    assert now + 20 in [e.until for e in known(meeting.worker().hear())]


def test_what_was_decided_after_a_restoration_stands_when_the_restoration_is_told_later(
    meeting: Meeting,
) -> None:
    one, other = meeting.workers(2)
    now = meeting.now()
    one.turn(ejecting(out(now + 11, now + 20)))
    other.turn(restoring(now + 10))
    news = meeting.worker().hear()
    assert news.restored == {"east": now + 10}
    assert [e.until for e in known(news)] == [now + 20]


def test_the_latest_restoration_counts(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    one.turn(restoring(NOW + 10))
    other.turn(restoring(NOW + 5))
    assert meeting.worker().hear().restored == {"east": NOW + 10}


def test_what_is_said_of_another_credential_replaces(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    now = meeting.now()
    one.turn(ejecting(out(now, now + 300, Cause.DENIED, credential="old")))
    other.turn(ejecting(out(now + 1, now + 60, Cause.DENIED, credential="new")))
    (ejection,) = known(meeting.worker().hear())
    assert (ejection.credential, ejection.until) == ("new", now + 60)


# What changed -----------------------------------------------------------------------------------


def test_what_changed_is_told_once(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    one.turn(measured(1.0))
    assert list(other.hear().sums) == [SUMS]
    assert other.hear().sums == {}
    one.turn(measured(1.0))
    assert other.hear().sums[SUMS].count == 2  # all that is known, and not what was added


def test_of_a_thousand_names_only_the_ten_that_change_are_told(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    keys = [("http", f"deployment-{n}", "generation", SUMS[3]) for n in range(1000)]
    whole = Batch()
    for key in keys:
        whole.add_sums(key, sample(1.0, NOW))
    one.turn(whole)
    assert len(other.hear().sums) == 1000
    for _ in range(3):
        few = Batch()
        for key in keys[500:510]:
            few.add_sums(key, sample(1.0, NOW))
        one.turn(few)
        news = other.turn()
        assert not news.more
        assert set(news.sums) == set(keys[500:510])


def test_who_joins_late_hears_everything(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    now = meeting.now()
    one.turn(measured(1.0))
    other.turn(counted(5))
    one.turn(ejecting(out(now, now + 60)))
    other.turn(restoring(NOW, "west"))
    news = meeting.worker().hear()
    assert (len(news.sums), news.counts[COUNT], len(news.ejections)) == (1, 5, 1)
    assert news.restored == {"west": NOW}


@pytest.fixture
def _few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.state.redis.MOST_NAMES", 100)


@pytest.mark.usefixtures("_few_at_a_time")
def test_more_than_one_turn_gives_out_comes_in_further_turns(meeting: Meeting) -> None:
    batch = Batch()
    for n in range(450):
        batch.add_count((*COUNT[:1], f"d{n}", *COUNT[2:]), n + 1)
    meeting.worker().turn(batch)
    late = meeting.worker()
    heard: dict[str, int] = {}
    for _ in range(10):
        news = late.turn()
        fresh = {key[1]: count for key, count in news.counts.items()}
        assert not heard.keys() & fresh.keys()
        heard |= fresh
        if not news.more:
            break
    assert heard == {f"d{n}": n + 1 for n in range(450)}


@pytest.mark.usefixtures("_few_at_a_time")
def test_what_changes_between_those_turns_is_not_missed(meeting: Meeting) -> None:
    one, late = meeting.workers(2)
    batch = Batch()
    for n in range(250):
        batch.add_count((*COUNT[:1], f"d{n}", *COUNT[2:]))
    one.turn(batch)
    first = late.turn()
    one.turn(counted(1, (*COUNT[:1], "d0", *COUNT[2:])))
    rest = late.hear()
    heard = {key[1]: count for key, count in (first.counts | rest.counts).items()}
    assert len(heard) == 250
    assert heard["d0"] == 2


def test_an_emptied_store_is_known_by_its_generation_and_heard_from_the_start(
    meeting: Meeting,
) -> None:
    one = meeting.worker("one")
    for _ in range(5):
        one.turn(measured(1.0))
    before = one.generation
    meeting.backend.empty()
    one.store = meeting.backend.store()
    other = meeting.worker("other")
    other.turn(counted(1))
    news = one.turn(measured(2.0))
    assert news.generation not in ("", before)
    assert news.counts == {COUNT: 1}  # though it had heard of more changes than there now are
    assert news.sums[SUMS].count == 1
    assert other.turn().generation == news.generation


def test_all_workers_see_one_generation(meeting: Meeting) -> None:
    assert len({worker.turn().generation for worker in meeting.workers(3)}) == 1


def test_the_stores_time_passes(meeting: Meeting) -> None:
    one = meeting.worker()
    first = one.turn().now
    assert first == pytest.approx(meeting.now(), abs=0.5)
    assert one.turn().now >= first


def test_workers_are_counted_while_they_take_turns(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    one.turn()
    assert other.turn().workers == 2
    meeting.advance(11)
    assert one.turn().workers == 1


# Leases -----------------------------------------------------------------------------------------

JOBS, WEST = "jobs:deployment:east", "jobs:deployment:west"
ACCOUNT = "jobs:account:acme"


def test_the_first_choice_with_room_is_granted(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    choices = choice(JOBS), choice(WEST, limit=2)
    granted = [worker.ask(*choices)[1].index for worker in (one, other, one, other)]
    assert granted == [0, 1, 1, None]
    assert meeting.held(JOBS, WEST) == [1, 2]


def test_a_refusal_names_what_had_no_room_in_each_choice(meeting: Meeting) -> None:
    one = meeting.worker()
    assert one.gets(choice(JOBS, WEST, ACCOUNT))
    _, grant = one.ask(choice(ACCOUNT, JOBS), choice("requests:deployment:west", WEST))
    assert grant.full == ((ACCOUNT, None), (WEST, None))


def test_all_needs_are_met_or_none(meeting: Meeting) -> None:
    one = meeting.worker()
    assert one.gets(choice(f"{JOBS}=5", f"{ACCOUNT}=1"))
    assert not one.gets(choice(f"{JOBS}=5", f"{ACCOUNT}=1"))
    assert meeting.held(JOBS, ACCOUNT) == [1, 1]


def test_a_choice_that_needs_nothing_is_always_granted(meeting: Meeting) -> None:
    one = meeting.worker()
    assert one.gets(choice(JOBS))
    assert one.ask(choice(JOBS), ())[1].index == 1


def test_a_cap_holds_whoever_asks(meeting: Meeting) -> None:
    workers = meeting.workers(4)
    granted = [workers[n % 4].gets(choice(JOBS, limit=3)) for n in range(12)]
    assert granted == [True] * 3 + [False] * 9


def test_several_who_ask_in_one_turn_are_served_in_order(meeting: Meeting) -> None:
    one = meeting.worker()
    asks = [Acquire(f"t{n}", (choice(JOBS, limit=2),), 30.0) for n in range(4)]
    assert [grant.index for grant in one.turn(asks=asks).grants] == [0, 0, None, None]


def test_a_lapsed_holder_holds_nothing(meeting: Meeting) -> None:
    one = meeting.worker()
    assert one.gets(choice(JOBS), seconds=20)
    meeting.advance(19)
    assert not one.gets(choice(JOBS))
    meeting.advance(2)
    assert one.gets(choice(JOBS))


def test_a_holder_lapses_by_the_stores_own_clock(meeting: Meeting) -> None:
    one = meeting.worker()
    assert one.gets(choice(JOBS), seconds=0.1)
    assert not one.gets(choice(JOBS))
    time.sleep(0.12)
    meeting.advance(0.12)
    assert one.gets(choice(JOBS))


def test_what_a_token_holds_is_given_back(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    token, _ = one.ask(choice(JOBS, ACCOUNT))
    other.order(Settle(token, (JOBS, ACCOUNT)))
    assert meeting.held(JOBS, ACCOUNT) == [0, 0]
    one.order(Settle(token, (JOBS, ACCOUNT)))  # again, without harm
    assert other.gets(choice(JOBS, ACCOUNT))
    one.order(Settle(token, (JOBS, ACCOUNT)))
    assert meeting.held(JOBS, ACCOUNT) == [1, 1]


def test_orders_of_a_turn_come_before_what_it_asks_for(meeting: Meeting) -> None:
    one = meeting.worker()
    token, _ = one.ask(choice(JOBS))
    asks = [Acquire("next", (choice(JOBS),), 30.0)]
    (grant,) = one.turn(None, Settle(token, (JOBS,)), asks=asks).grants
    assert grant.index == 0


def test_an_ambiguous_submit_keeps_its_slot_for_its_seconds(meeting: Meeting) -> None:
    one = meeting.worker()
    token, _ = one.ask(choice(JOBS, "requests:account:acme"), seconds=5)
    one.order(Settle(token, ("requests:account:acme",), (JOBS,), 100.0))
    meeting.advance(99)
    assert meeting.held(JOBS, "requests:account:acme") == [1, 0]
    assert not one.gets(choice(JOBS))
    meeting.advance(2)
    assert one.gets(choice(JOBS))


# Jobs -------------------------------------------------------------------------------------------


def test_a_job_takes_the_slot_over_from_its_token(meeting: Meeting) -> None:
    one = meeting.worker()
    token, _ = one.ask(choice(JOBS, ACCOUNT, "requests:account:acme"), seconds=5)
    settle = Settle(token, ("requests:account:acme",), (JOBS, ACCOUNT), 60.0, a_job())
    one.order(settle)
    one.order(settle)  # again, where an answer was lost
    meeting.advance(50)  # the token would have lapsed long ago
    assert meeting.held(JOBS, ACCOUNT, "requests:account:acme") == [1, 1, 0]
    one.order(Settle(token, (JOBS, ACCOUNT)))  # the token has nothing to give back any more
    assert meeting.held(JOBS, ACCOUNT) == [1, 1]


def test_a_job_takes_the_slot_over_also_where_the_token_had_lapsed(meeting: Meeting) -> None:
    one = meeting.worker()
    token, _ = one.ask(choice(JOBS), seconds=5)
    meeting.advance(6)
    one.order(taken_over(token, a_job(), JOBS))
    assert not one.gets(choice(JOBS))


def test_a_job_that_is_seen_holds_on_and_one_that_nobody_sees_lapses(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    job = a_job()
    token, _ = one.ask(choice(JOBS))
    one.order(taken_over(token, job, JOBS, seconds=30))
    for _ in range(4):
        meeting.advance(25)
        other.order(seen(job, [ACCOUNT, JOBS, WEST], seconds=30))
    assert meeting.held(ACCOUNT, JOBS, WEST) == [0, 1, 0]  # where it held nothing it takes nothing
    meeting.advance(31)
    assert meeting.held(JOBS) == [0]


def test_a_job_seen_ended_gives_back_whichever_deployment_held_it(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    for resource, native_id in ((JOBS, "video_1"), (WEST, "video_2")):
        token, _ = one.ask(choice(resource, f"{ACCOUNT}=2"))
        one.order(taken_over(token, a_job(native_id), resource, ACCOUNT))
    other.order(seen(a_job("video_2"), [ACCOUNT, JOBS, WEST], "failed"))
    assert meeting.held(JOBS, WEST, ACCOUNT) == [1, 0, 1]
    other.order(seen(a_job("video_1"), [ACCOUNT, JOBS, WEST], "completed"))
    other.order(seen(a_job("video_1"), [ACCOUNT, JOBS, WEST], "completed"))
    assert meeting.held(JOBS, WEST, ACCOUNT) == [0, 0, 0]


def test_an_acceptance_told_after_the_end_was_seen_holds_nothing(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    job = a_job()
    token, _ = one.ask(choice(JOBS, ACCOUNT))
    other.order(seen(job, [ACCOUNT, JOBS], "completed"))
    assert meeting.held(JOBS, ACCOUNT) == [1, 1]
    one.order(taken_over(token, job, JOBS, ACCOUNT))
    assert meeting.held(JOBS, ACCOUNT) == [0, 0]


def test_what_is_registered_again_after_its_end_was_seen_holds_nothing(meeting: Meeting) -> None:
    """Who accepted a job does not hear that another worker saw it end; it may tell of it late."""
    one, other = meeting.workers(2)
    job = a_job()
    token, _ = one.ask(choice(JOBS))
    one.order(taken_over(token, job, JOBS, seconds=900))
    other.order(Seen(job.holder, (JOBS,), "completed", ended=True, at=meeting.now(), seconds=900))
    meeting.advance(800)
    one.order(Settle(job.holder, (), (JOBS,), 100.0, job))
    assert meeting.held(JOBS) == [0]
    assert one.store.picture(()).jobs[0].status == "completed"


def test_what_one_store_holds_another_can_be_brought_to_hold(meeting: Meeting) -> None:
    own = InMemory()
    worker = Worker(own.store(), "worker")
    token, _ = worker.ask(choice(JOBS, RPM, limit=9), seconds=50)
    worker.order(taken_over(token, a_job(), JOBS, seconds=100))
    worker.ask(choice(WEST), seconds=20)
    own.advance(10)
    other = meeting.worker()
    assert isinstance(worker.store, MemoryStore)
    other.order(*worker.store.held())
    assert meeting.held(JOBS, WEST, RPM) == [1, 1, 0]
    assert other.store.picture(()).jobs == [a_job()]  # so that it can be asked after
    meeting.advance(15)
    assert meeting.held(JOBS, WEST) == [1, 0]
    meeting.advance(80)
    assert meeting.held(JOBS) == [0]


def test_an_acceptance_told_twice_hides_no_later_sight(meeting: Meeting) -> None:
    one = meeting.worker()
    for job in (a_job("video_1"), a_job("video_2")):
        one.order(Settle("", job=job))
    one.order(seen(a_job("video_1"), [], "in_progress"))
    one.order(seen(a_job("video_2"), [], "failed"))
    one.order(Settle("", job=a_job("video_1")), Settle("", job=a_job("video_2")))
    statuses = {job.native_id: job.status for job in one.store.picture(()).jobs}
    assert statuses == {"video_1": "in_progress", "video_2": "failed"}


def test_the_same_native_id_in_another_account_is_another_job(meeting: Meeting) -> None:
    one = meeting.worker()
    token, _ = one.ask(choice(JOBS))
    one.order(taken_over(token, a_job(), JOBS))
    one.order(seen(a_job(account="other"), [JOBS], "completed"))
    assert meeting.held(JOBS) == [1]


def test_an_operator_gives_back_what_a_job_or_a_token_holds(meeting: Meeting) -> None:
    one = meeting.worker()
    job = a_job()
    token, _ = one.ask(choice(JOBS, f"{ACCOUNT}=2"))
    one.order(taken_over(token, job, JOBS, ACCOUNT))
    lost, _ = one.ask(choice(WEST, f"{ACCOUNT}=2"))
    one.order(Release(job.holder, (ACCOUNT, JOBS, WEST)))
    assert meeting.held(JOBS, WEST, ACCOUNT) == [0, 1, 1]
    one.order(Release(lost, (ACCOUNT, JOBS, WEST)))
    assert meeting.held(JOBS, WEST, ACCOUNT) == [0, 0, 0]


def test_a_job_without_a_slot_is_remembered_all_the_same(meeting: Meeting) -> None:
    one = meeting.worker()
    one.order(Settle("", job=a_job()))
    assert one.store.picture(()).jobs == [a_job()]


# Requests per minute ----------------------------------------------------------------------------

RPM = "rpm:account:acme"


def test_requests_in_any_sixty_seconds_are_exact_at_grant(meeting: Meeting) -> None:
    """Against a count by hand, at random times; giving back does not help."""
    one, rng = meeting.worker(), random.Random(6)
    granted: list[float] = []
    now = 0.0
    for _ in range(60):
        step = rng.choice([0.25, 3.0, 11.0])
        meeting.advance(step)
        now += step
        room = len([at for at in granted if at > now - WINDOW]) < 4
        token, grant = one.ask(choice(RPM, limit=4), seconds=1)
        assert (grant.index == 0) is room
        if grant.index == 0:
            granted.append(now)
            one.order(Settle(token, ()))
    assert len(granted) > 12


def test_a_full_window_says_when_it_opens(meeting: Meeting) -> None:
    one = meeting.worker()
    need = choice(RPM, limit=2)
    assert one.gets(need)
    meeting.advance(20)
    assert one.gets(need)
    meeting.advance(10)
    _, grant = one.ask(need)
    ((resource, opens),) = grant.full
    assert resource == RPM
    assert opens == pytest.approx(30, abs=0.5)
    meeting.advance(29)
    assert not one.gets(need)
    meeting.advance(1)
    assert one.gets(need)
    _, grant = one.ask(need)
    assert grant.full[0][1] == pytest.approx(20, abs=0.5)


def test_who_waits_behind_others_for_a_window_hears_when_it_opens_for_him(
    meeting: Meeting,
) -> None:
    one = meeting.worker()
    need = choice(RPM, limit=2)
    for _ in range(2):
        assert one.gets(need)
        meeting.advance(5)
    opens = [one.ask(need, ticket=ticket)[1].full[0][1] for ticket in ("first", "second")]
    assert opens == [pytest.approx(50, abs=0.5), pytest.approx(55, abs=0.5)]


_numbers = itertools.count()


def told(worker: Worker, *choices: Any) -> list[float | None]:
    """What somebody hears who is refused, and will come back."""
    token = f"told-{next(_numbers)}"
    (grant,) = worker.turn(asks=[Acquire(token, choices, 30.0, last=True)]).grants
    return [opens for _, opens in grant.full]


def test_those_who_are_told_to_come_back_are_told_of_one_opening_each(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    need = choice(RPM, limit=2)
    for _ in range(2):
        assert one.gets(need)
        meeting.advance(5)
    asks = [Acquire(f"t{n}", (need,), 30.0, last=True) for n in range(2)]
    heard = [grant.full[0][1] for grant in one.turn(asks=asks).grants]
    heard += told(other, need) + told(one, need)  # when those two will have filled it anew
    assert heard == [pytest.approx(seconds, abs=0.5) for seconds in (50, 55, 110, 115)]
    meeting.advance(50.2)
    assert one.gets(need)
    meeting.advance(1)
    # Who was told to come has had its moment; the other three have not.
    assert told(other, need) == [pytest.approx(119, abs=1)]


def test_who_only_waits_takes_no_opening_from_those_who_come_back(meeting: Meeting) -> None:
    one = meeting.worker()
    need = choice(RPM)
    assert one.gets(need)
    for _ in range(3):
        assert not one.gets(need)
    assert told(one, need) == [pytest.approx(60, abs=0.5)]


def test_of_several_windows_one_comes_back_for_the_first_that_opens(meeting: Meeting) -> None:
    one = meeting.worker()
    west = "rpm:account:west"
    assert one.gets(choice(RPM))
    assert one.gets(choice(JOBS))
    meeting.advance(10)
    assert one.gets(choice(west))
    choices = choice(west), choice(RPM), choice(JOBS)
    assert told(one, *choices) == [pytest.approx(60, abs=0.5), pytest.approx(50, abs=0.5), None]
    assert told(one, *choices)[:2] == [pytest.approx(60, abs=0.5), pytest.approx(110, abs=0.5)]


def test_a_choice_without_a_slot_says_also_when_its_window_opens(meeting: Meeting) -> None:
    one = meeting.worker()
    assert one.gets(choice(JOBS, RPM))
    _, grant = one.ask(choice(JOBS, RPM))
    assert grant.full == ((JOBS, pytest.approx(60, abs=0.5)),)


def test_a_lowered_limit_holds_for_what_was_granted_before(meeting: Meeting) -> None:
    one = meeting.worker()
    for _ in range(3):
        assert one.gets(choice(RPM, limit=3))
        meeting.advance(10)
    _, grant = one.ask(choice(RPM, limit=1))
    assert grant.full == ((RPM, pytest.approx(50, abs=0.5)),)  # when all three have left it


# Waiting ----------------------------------------------------------------------------------------


def test_who_came_first_is_served_first(meeting: Meeting) -> None:
    workers = meeting.workers(3)
    token, _ = workers[0].ask(choice(JOBS))
    # In an order that no sorting of the names gives.
    waiting = list(zip(["c", "a", "b"], workers, strict=True))
    for ticket, worker in waiting:
        assert not worker.gets(choice(JOBS), ticket=ticket)
    while waiting:
        (ticket, first), *waiting = waiting
        first.order(Settle(token, (JOBS,)))
        for later, worker in reversed(waiting):
            assert not worker.gets(choice(JOBS), ticket=later)
        token, grant = first.ask(choice(JOBS), ticket=ticket)
        assert grant.index == 0


def test_first_come_first_served_also_among_those_of_one_turn(meeting: Meeting) -> None:
    one = meeting.worker()
    token, _ = one.ask(choice(JOBS))
    tickets = ["z", "m", "a", "q", "b"]
    asks = [Acquire(f"t-{t}", (choice(JOBS),), 30.0, t) for t in tickets]
    one.turn(asks=asks)
    served = []
    for _ in tickets:
        one.order(Settle(token, (JOBS,)))
        grants = one.turn(asks=sorted(asks, key=lambda a: a.token)).grants
        ((token, ticket),) = [
            (a.token, a.ticket)
            for a, g in zip(sorted(asks, key=lambda a: a.token), grants, strict=True)
            if g.index == 0
        ]
        served.append(ticket)
        asks = [a for a in asks if a.ticket != ticket]
    assert served == tickets


def test_nobody_without_a_ticket_overtakes(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    need = choice(JOBS, limit=2)
    first, _ = one.ask(need)
    second, _ = one.ask(need)
    assert not one.gets(need, ticket="waits")
    one.order(Settle(first, (JOBS,)))
    assert not other.gets(need)
    one.order(Settle(second, (JOBS,)))
    assert other.gets(need)  # two are free, and one of them is waited for
    assert not other.gets(need)
    assert one.gets(need, ticket="waits")


def test_who_waits_for_one_choice_may_take_another(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    assert one.gets(choice(JOBS))
    taken, _ = one.ask(choice(WEST))
    both = choice(JOBS), choice(WEST)
    assert not one.gets(*both, ticket="waits")
    one.order(Settle(taken, (WEST,)))
    assert one.ask(*both, ticket="waits")[1].index == 1
    one.order(Release("nobody", (JOBS,)))
    meeting.advance(31)
    assert other.gets(choice(JOBS))  # the place in the other queue was given up with it


def test_who_stops_asking_loses_the_place(meeting: Meeting) -> None:
    one = meeting.worker()
    token, _ = one.ask(choice(JOBS))
    assert not one.gets(choice(JOBS), ticket="gone")
    meeting.advance(2)
    assert not one.gets(choice(JOBS), ticket="stays")
    meeting.advance(2)
    assert not one.gets(choice(JOBS), ticket="stays")
    one.order(Settle(token, (JOBS,)))
    assert one.gets(choice(JOBS), ticket="stays")


def test_who_gives_up_stands_in_nobodys_way_any_longer(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    token, _ = one.ask(choice(JOBS, ACCOUNT))
    assert not other.gets(choice(JOBS, ACCOUNT), ticket="gives up")
    assert not one.gets(choice(JOBS), ticket="stays")
    other.order(Leave("gives up", (JOBS, ACCOUNT)))
    other.order(Leave("gives up", (JOBS, ACCOUNT)), Leave("nobody", (WEST,)))  # without harm
    one.order(Settle(token, (JOBS, ACCOUNT)))
    assert not other.gets(choice(JOBS))  # the other one still waits, and is next
    assert one.gets(choice(JOBS), ticket="stays")
    assert other.gets(choice(ACCOUNT))


def test_who_gives_up_and_asks_again_stands_behind(meeting: Meeting) -> None:
    one = meeting.worker()
    token, _ = one.ask(choice(JOBS))
    for ticket in ("first", "second"):
        assert not one.gets(choice(JOBS), ticket=ticket)
    one.order(Leave("first", (JOBS,)))
    assert not one.gets(choice(JOBS), ticket="first")
    one.order(Settle(token, (JOBS,)))
    assert not one.gets(choice(JOBS), ticket="first")
    assert one.gets(choice(JOBS), ticket="second")


@pytest.mark.parametrize("workers", [2, 4])
def test_over_all_workers_nobody_is_overtaken_more_often_than_once_by_each(
    meeting: Meeting, workers: int
) -> None:
    """Each worker asks for its waiting calls in turn; some of them give up on the way."""
    rng, there = random.Random(workers), meeting.workers(workers)
    tokens = [there[0].ask(choice(JOBS, limit=2))[0] for _ in range(2)]
    queue = [(f"t{n}", there[n % workers]) for n in range(12)]
    for ticket, worker in queue:
        assert not worker.gets(choice(JOBS, limit=2), ticket=ticket)
    came, overtaken = [ticket for ticket, _ in queue], dict.fromkeys(dict(queue), 0)
    while queue:
        if rng.random() < 0.3:
            ticket, worker = queue.pop(rng.randrange(len(queue)))
            worker.order(Leave(ticket, (JOBS,)))
            continue
        there[0].order(Settle(tokens.pop(0), (JOBS,)))
        for ticket, worker in rng.sample(queue, len(queue)):
            token, grant = worker.ask(choice(JOBS, limit=2), ticket=ticket)
            if grant.index is not None:
                tokens.append(token)
                queue.remove((ticket, worker))
                for waiting, _ in queue:
                    overtaken[waiting] += came.index(waiting) < came.index(ticket)
        assert len(tokens) == 2 or not queue
    assert max(overtaken.values()) <= workers - 1


def test_who_asks_on_keeps_the_place_whatever_stands_in_the_way(meeting: Meeting) -> None:
    """First one resource is full, then another: the place in the first queue stays."""
    one = meeting.worker()
    needs = choice(JOBS, ACCOUNT)
    job, _ = one.ask(choice(JOBS))
    assert not one.gets(needs, ticket="first")
    one.order(Settle(job, (JOBS,)))
    account, _ = one.ask(choice(ACCOUNT))
    for _ in range(3):
        meeting.advance(2)
        assert not one.gets(needs, ticket="first")
        assert not one.gets(needs, ticket="second")
    one.order(Settle(account, (ACCOUNT,)))
    assert not one.gets(needs, ticket="second")
    assert not one.gets(choice(JOBS))
    assert one.gets(needs, ticket="first")


# Asking after jobs ------------------------------------------------------------------------------


def running(meeting: Meeting, worker: Worker, count: int, resource: str = JOBS) -> Iterator[str]:
    """Jobs that hold all of a resource, the first one seen longest ago."""
    for n in range(count):
        token, _ = worker.ask(choice(resource, limit=count))
        at = meeting.now()
        worker.order(taken_over(token, a_job(f"video_{n}", at), resource, seconds=600))
        meeting.advance(1)
        yield f"video_{n}"


def test_the_longest_unseen_jobs_are_given_to_one_worker_at_a_time(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    jobs = list(running(meeting, one, 5))
    one.order(seen(a_job(jobs[0]), [JOBS], seconds=600))
    meeting.advance(1)
    _, grant = other.ask(choice(JOBS, limit=5))
    assert [job.native_id for job in grant.unseen] == ["video_1", "video_2", "video_3"]
    _, again = one.ask(choice(JOBS, limit=5))
    assert again.unseen == ()
    assert len(again.holding) == 5
    meeting.advance(2.1)
    assert one.ask(choice(JOBS, limit=5))[1].unseen != ()


def test_a_refusal_says_when_the_jobs_in_the_way_were_accepted(meeting: Meeting) -> None:
    one = meeting.worker()
    job = a_job(at=1_800_000_000.125)
    token, _ = one.ask(choice(JOBS))
    one.order(taken_over(token, job, JOBS))
    _, grant = one.ask(choice(JOBS))
    assert grant.holding == (1_800_000_000.125,)
    assert [(u.holder, u.accepted_at) for u in grant.unseen] == [(job.holder, job.accepted_at)]


def test_a_job_that_stands_in_the_way_twice_is_asked_after_once(meeting: Meeting) -> None:
    one = meeting.worker()
    token, _ = one.ask(choice(JOBS, ACCOUNT))
    one.order(taken_over(token, a_job(), JOBS, ACCOUNT))
    _, grant = one.ask(choice(JOBS), choice(ACCOUNT))
    assert [job.native_id for job in grant.unseen] == ["video_1"]
    assert len(grant.holding) == 1


# Jobs that others saw end -------------------------------------------------------------------------


def test_a_worker_hears_which_of_its_jobs_others_saw_end(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    jobs = [a_job(f"video_{n}") for n in range(3)]
    for job in jobs:
        one.order(Settle("", job=job))
    other.order(seen(jobs[1], [], "completed"), seen(jobs[2], [], "in_progress"))
    running = tuple(job.holder for job in jobs)
    news = one.store.turn(Turn(one.name, 0, Batch(), running=running))
    assert news.ended == (jobs[1].holder,)
    # Again, since an answer may be lost.
    assert one.store.turn(Turn(one.name, 0, Batch(), running=running)).ended == news.ended


# What is forgotten --------------------------------------------------------------------------------


def everything(meeting: Meeting, worker: Worker) -> None:
    now = meeting.now()
    batch = ejecting(out(now, now + 30))
    batch.add_sums(SUMS, sample(1.0, NOW))
    batch.add_sums(("job", *SUMS[1:]), sample(1.0, NOW))
    batch.add_count(COUNT)
    batch.add_count(("health", "east", READS, 180_000_000, "s"))
    batch.add_restored("west", now)
    batch.changes.append(Change(now, "w", "east", "out", "429"))
    token, _ = worker.ask(choice(JOBS, RPM))
    worker.turn(batch, taken_over(token, a_job(), JOBS, seconds=100))
    assert not worker.gets(choice(JOBS), ticket="waits")


def test_what_nobody_needs_any_more_is_forgotten_in_its_time(meeting: Meeting) -> None:
    everything(meeting, meeting.worker())

    def left(seconds: float) -> tuple[int, ...]:
        meeting.advance(seconds)
        news = meeting.worker().hear()
        return len(news.sums), len(news.counts), len(news.ejections), len(news.restored)

    assert left(0) == (2, 2, 1, 1)
    assert left(85) == (2, 2, 1, 1)
    assert left(10) == (2, 2, 0, 1)  # a minute after its deadline
    assert left(510) == (2, 1, 0, 1)  # sixty buckets of health
    assert left(7200) == (1, 0, 0, 1)  # two epochs of an hour
    assert left(64_800) == (0, 0, 0, 1)  # two of ten hours: none of it is left
    assert left(20_000) == (0, 0, 0, 0)


def test_a_name_that_is_learned_of_again_is_kept_longer(meeting: Meeting) -> None:
    one = meeting.worker()
    for _ in range(4):
        one.turn(measured(1.0))
        meeting.advance(7000)
    assert meeting.worker().hear().sums[SUMS].count == 4
    meeting.advance(300)
    one.turn(measured(1.0))
    assert meeting.worker().hear().sums[SUMS].count == 1  # anew


def test_jobs_and_changes_are_kept_for_a_day_and_a_week(meeting: Meeting) -> None:
    one = meeting.worker()
    everything(meeting, one)
    meeting.advance(80_000)
    one.order(seen(a_job(), [JOBS]))
    meeting.advance(80_000)
    one.order(Settle("", job=a_job("video_2")))
    assert len(one.store.picture(()).jobs) == 2  # seen within a day
    meeting.advance(50_000)
    one.order(Settle("", job=a_job("video_3")))
    jobs = {job.native_id for job in one.store.picture(()).jobs}
    assert jobs == {"video_2", "video_3"}
    assert len(one.store.picture(()).changes) == 1
    meeting.advance(7 * 86_400)
    one.turn()
    assert one.store.picture(()).changes == []
    assert one.store.picture(()).jobs == []


def test_a_sequence_is_forgotten_with_its_worker(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    one.turn(counted(1), sequence=7)
    meeting.advance(86_400 + 10)
    other.turn()
    one.turn(counted(1), sequence=1)
    assert other.hear().counts == {COUNT: 1}


def test_a_memory_of_many_lives_does_not_grow() -> None:
    backend = InMemory()
    meeting = Meeting(backend)
    sizes = []
    for day in range(6):
        for n in range(40):
            worker = meeting.worker(f"worker-{day}-{n}")
            batch = measured(1.0, key=("http", "east", "generation", day * 100 + n))
            batch.add_count((*COUNT[:3], day * 100 + n, "1"))
            batch.add_ejection(f"east-{day}-{n}", out(backend.now(), backend.now() + 5))
            batch.add_restored(f"west-{day}-{n}", backend.now())
            resource = f"jobs:deployment:{day}-{n}"
            token, _ = worker.ask(choice(resource))
            worker.turn(batch, taken_over(token, a_job(f"video_{day}_{n}"), resource))
            worker.ask(choice(resource), ticket=f"ticket-{day}-{n}")
            worker.order(seen(a_job(f"video_{day}_{n}"), [resource], "completed"))
            meeting.advance(86_400 / 40)
        kept = vars(backend.store()).values()
        sizes.append(sum(len(one) for one in kept if isinstance(one, dict)))
    assert max(sizes[2:]) <= 1.05 * sizes[1]


# At a glance ------------------------------------------------------------------------------------


def test_a_picture_shows_who_is_there_what_runs_and_what_changed(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    batch = Batch()
    batch.changes.append(Change(NOW, one.name, "east", "out for 5 s", "429"))
    batch.changes.append(Change(NOW + 1, one.name, "east", "restored", "by an operator"))
    token, _ = one.ask(choice(JOBS, RPM, limit=3))
    one.turn(batch, taken_over(token, a_job("video_1"), JOBS))
    other.order(Settle("", job=a_job("video_2", 1_800_000_009.5)))
    other.order(seen(a_job("video_1"), [JOBS], "in_progress"))
    picture = other.store.picture((JOBS, RPM, "requests:account:none"))
    assert picture.now == pytest.approx(meeting.now(), abs=0.5)
    assert set(picture.workers) == {one.name, other.name}
    assert picture.held == {JOBS: 1, RPM: 1, "requests:account:none": 0}
    assert [job.native_id for job in picture.jobs] == ["video_2", "video_1"]  # newest first
    assert picture.jobs[1].status == "in_progress"
    assert picture.jobs[1].seen_at == pytest.approx(meeting.now(), abs=0.5)
    assert [change.what for change in picture.changes] == ["restored", "out for 5 s"]
    meeting.advance(61)
    assert other.store.picture((RPM,)).held == {RPM: 0}
    assert other.store.picture(()).workers == {}


def test_the_last_two_hundred_changes_of_state_are_kept(meeting: Meeting) -> None:
    one = meeting.worker()
    for n in range(25):
        batch = Batch()
        batch.changes += [Change(NOW, "w", "east", f"{n * 10 + k}", "x") for k in range(10)]
        one.turn(batch)
    changes = [int(change.what) for change in one.store.picture(()).changes]
    assert changes == list(range(249, 49, -1))


def test_a_need_knows_its_kind() -> None:
    kinds = {
        name: Need(name, 1) for name in ("jobs:a:b", "requests:a:b", "rpm:a:b", "read_rpm:a:b")
    }
    assert [n.for_job for n in kinds.values()] == [True, False, False, False]
    assert [n.in_window for n in kinds.values()] == [False, False, True, True]
