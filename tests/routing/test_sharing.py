"""Two workers in one process: what one learns, the other knows after its next exchange."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
from routing_parts import Doors, FakeClock, deployment, serving
from sharing_parts import MEETINGS, Meet

from router import Router, RouterError, StateUnavailableError, events
from router.observations import Batch, Cause, Ejection, Sums, epoch_of, sample
from router.state import STORES, MemoryStore, News, Picture, Store, Turn
from router.testing import StandIn

EVERY_STORE = pytest.mark.parametrize("store", MEETINGS.values(), ids=MEETINGS)


def test_every_store_there_is_is_met_in() -> None:
    assert MEETINGS.keys() == STORES.keys()


def workers(
    provider: StandIn, clock: FakeClock, store: Store, count: int = 2, **parts: Any
) -> list[Router]:
    told = [deployment("east-1"), deployment("west-1")]
    return [
        serving(provider, *told, clock=clock, store=store, rng=random.Random(n), **parts)
        for n in range(count)
    ]


def exchanged(*routers: Router, turns: int = 2) -> None:
    for _ in range(turns):
        for router in routers:
            router.share()


def latency(router: Router, name: str) -> dict[str, float]:
    known: dict[str, float] = router.statistics()[name]["latency"].get("generation", {})
    return known


def took(router: Router, clock: FakeClock, account: str, seconds: float) -> None:
    """One generation at this account, which took so long."""
    with router.pick("generation", account=account) as attempt:
        clock.advance(seconds)
        attempt.accepted("video_1")


@EVERY_STORE
def test_latencies_merge_exactly_once(provider: StandIn, clock: FakeClock, store: Meet) -> None:
    one, other = workers(provider, clock, store(clock))
    alone, _ = workers(provider, clock, store(clock))
    lasted = [1.0, 4.0, 2.0, 7.0, 3.0, 3.0]
    starts = clock.passed
    for at, seconds in enumerate(lasted):
        took((one, other)[at % 2], clock, "east", seconds)
    clock.passed = starts
    for seconds in lasted:  # the same at the same times, seen by a single worker
        took(alone, clock, "east", seconds)
    exchanged(one, other, turns=5)  # however often they meet
    expected = latency(alone, "east-1")
    for router in (one, other):
        found = latency(router, "east-1")
        assert found["count"] == len(lasted)
        assert found["mean"] == pytest.approx(expected["mean"])
        assert found["deviation"] == pytest.approx(expected["deviation"])
        assert latency(router, "west-1") == {}


@EVERY_STORE
def test_three_workers_agree(provider: StandIn, clock: FakeClock, store: Meet) -> None:
    routers = workers(provider, clock, store(clock), 3)
    rng = random.Random(9)
    for _ in range(60):
        took(rng.choice(routers), clock, rng.choice(["east", "west"]), rng.uniform(0.1, 3))
        if rng.random() < 0.2:
            rng.choice(routers).share()
    exchanged(*routers)
    for name in ("east-1", "west-1"):
        views = [latency(router, name) for router in routers]
        assert len({view["count"] for view in views}) == 1
        for view in views:
            assert view["mean"] == pytest.approx(views[0]["mean"])
    assert sum(latency(routers[0], name)["count"] for name in ("east-1", "west-1")) == 60


@EVERY_STORE
def test_an_ejection_is_seen_by_the_others(
    call: Doors, provider: StandIn, clock: FakeClock, store: Meet
) -> None:
    one, other = workers(provider, clock, store(clock))
    provider.fault("status", status=429, account="east", headers={"retry-after": "60"})
    with pytest.raises(RouterError):
        call(one, "video_generation", prompt="x", account="east")
    assert other.statistics()["east-1"]["ejections"] == []
    exchanged(one, other)
    (ejection,) = other.statistics()["east-1"]["ejections"]
    assert ejection["seconds"] == pytest.approx(60)
    for _ in range(10):
        assert call(other, "video_generation", prompt="x").routing.account == "west"
    clock.advance(61)
    served = {call(other, "video_generation", prompt="x").routing.account for _ in range(40)}
    assert served == {"east", "west"}


@EVERY_STORE
def test_both_ejections_of_one_deployment_arrive(
    call: Doors, provider: StandIn, clock: FakeClock, store: Meet
) -> None:
    """A short one for all by its key, and a long one for one operation, between two turns."""
    one, other = workers(provider, clock, store(clock))
    provider.fault("status", status=501, account="east")
    provider.fault("status", status=429, account="east", headers={"retry-after": "30"})
    for method, more in (("video_edit", {"video": b"x"}), ("video_generation", {})):
        with pytest.raises(RouterError):
            call(one, method, prompt="x", account="east", **more)
    exchanged(one, other)
    own, heard = (
        sorted((e["scope"], round(e["seconds"])) for e in r.statistics()["east-1"]["ejections"])
        for r in (one, other)
    )
    assert heard == own == [("edit", 300), ("submits", 30)]


@EVERY_STORE
def test_an_ejection_only_ever_extends(provider: StandIn, clock: FakeClock, store: Meet) -> None:
    one, other = workers(provider, clock, store(clock))

    def throttled(router: Router, seconds: int) -> None:
        with router.pick("generation", account="east") as attempt:
            attempt.failed(429, {"retry-after": str(seconds)})

    with other.pick("generation", account="east") as slow:
        throttled(one, 100)
        slow.failed(429, {"retry-after": "10"})  # it had been under way
    exchanged(one, other, turns=3)
    for router in (one, other):
        (ejection,) = router.statistics()["east-1"]["ejections"]
        assert ejection["seconds"] == pytest.approx(100)


def test_a_router_without_a_store_exchanges_nothing(provider: StandIn) -> None:
    serving(provider, deployment("east-1")).share()


def test_news_of_deployments_nobody_has_here_are_no_harm(
    provider: StandIn, clock: FakeClock
) -> None:
    store = MemoryStore(clock.time)
    one = serving(provider, deployment("east-1"), clock=clock, store=store)
    other = serving(provider, deployment("west-1"), clock=clock, store=store)
    took(one, clock, "east", 1.0)
    exchanged(one, other)
    assert set(other.statistics()) == {"west-1"}
    assert latency(other, "west-1") == {}


class LosesAnswers:
    """A store whose first answers are lost after it took the batch in."""

    def __init__(self, store: Store, losses: int) -> None:
        self._store, self._losses = store, losses

    def turn(self, turn: Turn) -> News:
        news = self._store.turn(turn)
        if self._losses:
            self._losses -= 1
            raise ConnectionError("the answer was lost")
        return news

    def picture(self, resources: tuple[str, ...]) -> Picture:
        return self._store.picture(resources)

    def close(self) -> None:
        self._store.close()


@EVERY_STORE
def test_a_batch_that_arrives_twice_counts_once(
    provider: StandIn, clock: FakeClock, store: Meet
) -> None:
    shared = store(clock)
    (one,) = workers(provider, clock, LosesAnswers(shared, losses=2), 1)
    (other,) = workers(provider, clock, shared, 1)
    took(one, clock, "east", 2.0)
    for _ in range(2):
        with pytest.raises(StateUnavailableError):
            one.share()
        took(one, clock, "east", 2.0)  # what comes meanwhile waits for its own turn
    exchanged(one, other, turns=3)
    assert latency(other, "east-1")["count"] == 3
    assert latency(other, "east-1")["mean"] == pytest.approx(2.0)


@EVERY_STORE
def test_news_whose_answer_was_lost_are_told_again(
    provider: StandIn, clock: FakeClock, store: Meet
) -> None:
    shared = store(clock)
    (one,) = workers(provider, clock, shared, 1)
    (other,) = workers(provider, clock, LosesAnswers(shared, losses=2), 1)
    took(one, clock, "east", 2.0)
    one.share()
    for _ in range(2):
        with pytest.raises(StateUnavailableError):
            other.share()
    exchanged(other, one, turns=3)
    assert latency(other, "east-1")["count"] == 1


@EVERY_STORE
def test_a_rejected_key_is_no_news_to_a_worker_with_another(
    provider: StandIn, clock: FakeClock, store: Meet
) -> None:
    shared = store(clock)
    (old, same) = workers(provider, clock, shared)
    told = [deployment("east-1", api_key="sk-new"), deployment("west-1")]
    new = serving(provider, *told, clock=clock, store=shared)
    with old.pick("generation", account="east") as attempt:
        attempt.failed(401)
    exchanged(old, same, new)
    assert same.statistics()["east-1"]["ejections"] != []
    assert new.statistics()["east-1"]["ejections"] == []


# The values that are exchanged


def test_sums_add_in_any_order() -> None:
    rng = random.Random(4)
    now = 1_800_000_000.0
    told = [
        (("http", rng.choice(["a", "b"]), "generation", epoch_of(now)), sample(seconds, now))
        for seconds in (rng.uniform(0, 9) for _ in range(40))
    ]

    def merged(order: Sequence[Any]) -> dict[Any, Sums]:
        total = Batch()
        for key, sums in order:
            total.add_sums(key, sums)
        return total.sums

    first = merged(told)
    for _ in range(10):
        rng.shuffle(told)
        for key, sums in merged(told).items():
            assert sums.count == first[key].count
            assert sums.total == pytest.approx(first[key].total)
            assert sums.squares == pytest.approx(first[key].squares)


def test_ejections_and_restorations_merge_in_any_order_of_workers() -> None:
    """Of two batches the longer ejection stands, and the later restoration."""
    short, long = (
        Ejection("submits", until, Cause.THROTTLED, "429", at=1.0) for until in (5.0, 9.0)
    )
    for order in ((short, long), (long, short)):
        batch = Batch()
        for ejection in order:
            batch.add_ejection("a", ejection)
        assert list(batch.ejections.values()) == [long]
    for times in ((1.0, 2.0), (2.0, 1.0)):
        batch = Batch()
        for at in times:
            batch.add_restored("a", at)
        assert batch.restored == {"a": 2.0}


def test_a_batch_grows_with_what_is_known_and_not_with_calls() -> None:
    batch = Batch()
    assert not batch
    for at in range(1000):
        batch.add_sums(("http", "a", "generation", 7), sample(1.0, 7 * 3600.0 + at % 60))
        batch.add_count(("http", "a", "generation", 7, "3"))
    assert len(batch.sums) == len(batch.counts) == 1
    assert batch


def test_ejections_are_announced_with_an_event_by_who_decided(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    told: list[events.Event] = []
    one, other = workers(provider, clock, MemoryStore(clock.time), on_event=told.append)
    provider.fault("status", status=429, account="east", headers={"retry-after": "60"})
    with pytest.raises(RouterError):
        call(one, "video_generation", prompt="x", account="east")
    exchanged(one, other)
    ejected = [event for event in told if isinstance(event, events.Ejected)]
    assert [event.shared for event in ejected] == [False, True]
    assert ejected[0].deployment == "east-1"
    assert (ejected[0].scope, ejected[0].cause) == ("submits", "throttled")


ACCOUNT = "acme"


def of_one_account(provider: StandIn, clock: FakeClock, store: Store, *keys: str) -> Router:
    """Deployments of one account, each with its key; of the last one the host is another."""
    told = [deployment(f"d{n}", ACCOUNT, api_key=key) for n, key in enumerate(keys)]
    told[-1]["base_url"] = "http://stand-in.eu/v1"
    return serving(provider, *told, clock=clock, store=store)


def out_of(router: Router) -> list[str]:
    return [name for name, known in router.statistics().items() if known["ejections"]]


class OfLater:
    """A store in which workers of a later release share a series that this one does not have."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def turn(self, turn: Turn) -> News:
        news = self._store.turn(turn)
        news.sums["queueing", "east-1", "generation", 7] = Sums(1.0, 1.0, 1.0, 1)
        return news

    def picture(self, resources: tuple[str, ...]) -> Picture:
        return self._store.picture(resources)

    def close(self) -> None:
        self._store.close()


@EVERY_STORE
@pytest.mark.parametrize(
    ("status", "body", "out"),
    [
        (401, {}, ["d0", "d2"]),
        (429, {"error": {"code": "insufficient_quota"}}, ["d0", "d1", "d2"]),
    ],
    ids=["a key", "a bill"],
)
def test_a_refused_key_puts_out_who_has_it_and_an_unpaid_bill_the_account(
    provider: StandIn,
    clock: FakeClock,
    store: Meet,
    status: int,
    body: dict[str, Any],
    out: list[str],
) -> None:
    shared = store(clock)
    one, other = (of_one_account(provider, clock, shared, "old", "new", "old") for _ in range(2))
    while True:
        with one.pick("generation") as attempt:
            refused = attempt.deployment == "d0"
            attempt.failed(status, body=body) if refused else attempt.accepted("video_1")
        if refused:
            break
    exchanged(one, other)
    assert out_of(one) == out_of(other) == out


@EVERY_STORE
def test_what_a_later_release_shares_is_passed_by_with_one_line(
    provider: StandIn, clock: FakeClock, store: Meet, caplog: pytest.LogCaptureFixture
) -> None:
    shared = store(clock)
    (one,) = workers(provider, clock, OfLater(shared), 1)
    batch = Batch()
    epoch = epoch_of(clock.time())
    batch.add_sums(("http", "east-1", "generation", epoch), sample(2.0, clock.time()))
    batch.add_count(("budget", "east-1", "generation", epoch, "spent"))
    batch.add_count(("http", "east-1", "generation", epoch, "p99"))
    batch.add_count(("http", "east-1", "transcode", epoch, "3"))
    shared.turn(Turn("later", 1, batch))
    for _ in range(2):
        one.share()
    assert latency(one, "east-1")["count"] == 1
    assert len([r for r in caplog.records if "does not know" in r.getMessage()]) == 1
    took(one, clock, "west", 1.0)  # and all else goes on
    exchanged(one)
    assert latency(one, "west-1")["count"] == 1


@EVERY_STORE
def test_ejections_by_different_causes_do_not_hide_each_other(
    provider: StandIn, clock: FakeClock, store: Meet
) -> None:
    """An owner's read ignores failures, but waits out a throttle: it has to hear of the shorter."""
    one, other = workers(provider, clock, store(clock))
    named = {"video_id": "video_1", "account": "east"}
    for status, headers in [(500, {})] * 3 + [(429, {"retry-after": "2"})]:
        with one.pick("status", **named) as attempt:
            attempt.failed(status, headers)
    exchanged(one, other)
    own, heard = (
        {e["reason"].partition(":")[0] for e in r.statistics()["east-1"]["ejections"]}
        for r in (one, other)
    )
    assert len(own) == 2
    assert heard == own


def histogram(router: Router, name: str) -> dict[str, float]:
    """The percentiles of generations, as the statistics tell them."""
    return {k: v for k, v in latency(router, name).items() if k.startswith("p")}


@EVERY_STORE
def test_a_drained_deployment_gets_nothing_new_from_anybody_and_serves_what_it_owns(
    call: Doors, provider: StandIn, clock: FakeClock, store: Meet
) -> None:
    one, other = workers(provider, clock, store(clock))
    made = call(other, "video_generation", prompt="x", account="east")
    one.drain("east-1", 600)
    exchanged(one, other)
    for router in (one, other):
        for _ in range(10):
            assert call(router, "video_generation", prompt="x").routing.account == "west"
        assert call(router, "video_status", made.id).routing.account == "east"
        edited = call(router, "video_edit", prompt="x", video_id=made.id)
        assert edited.routing.account == "east"
    (verdict,) = [
        c.verdict for c in other.explain("generation").candidates if c.deployment == "east-1"
    ]
    assert verdict == "drained"
    clock.advance(601)
    served = {call(other, "video_generation", prompt="x").routing.account for _ in range(40)}
    assert served == {"east", "west"}


@EVERY_STORE
def test_a_restoration_brings_back_whatever_kept_it_out_everywhere(
    call: Doors, provider: StandIn, clock: FakeClock, store: Meet
) -> None:
    told: list[events.Event] = []
    one, other = workers(provider, clock, store(clock), on_event=told.append)
    provider.fault("status", status=401, account="east")
    with pytest.raises(RouterError):
        call(one, "video_generation", prompt="x", account="east")
    one.drain("east-1")
    exchanged(one, other)
    assert len(other.statistics()["east-1"]["ejections"]) == 2
    clock.advance(1)
    other.restore("east-1")
    exchanged(other, one)
    for router in (one, other):
        assert router.statistics()["east-1"]["ejections"] == []
        assert call(router, "video_generation", prompt="x", account="east")
    back = [event for event in told if isinstance(event, events.Restored)]
    assert [event.shared for event in back] == [False, True]
    # What is decided from here on counts again.
    clock.advance(1)
    other.drain("east-1", 60)
    exchanged(other, one)
    assert len(one.statistics()["east-1"]["ejections"]) == 1


class FarAhead(FakeClock):
    """The clock of a machine that is set an hour ahead of the store's."""

    def time(self) -> float:
        return super().time() + 3600.0


@EVERY_STORE
@pytest.mark.parametrize("act", ["drain", "restore"])
def test_an_operators_first_act_counts_by_the_stores_time(
    provider: StandIn, clock: FakeClock, store: Meet, act: str
) -> None:
    """Told by a machine's own clock, it would void for an hour what workers decide after it."""
    shared = store(clock)
    ahead = FarAhead()
    told = [deployment("east-1"), deployment("west-1")]
    operator = serving(provider, *told, clock=ahead, store=shared)
    one, _ = workers(provider, clock, shared)
    operator.drain("east-1", 60) if act == "drain" else operator.restore("east-1")
    exchanged(operator, one)
    if act == "drain":
        (ejection,) = one.statistics()["east-1"]["ejections"]
        assert ejection["seconds"] == pytest.approx(60, abs=1)
    else:
        clock.advance(1)
        one.drain("east-1", 60)
        exchanged(one, operator)
        assert out_of(one) == out_of(operator) == ["east-1"]


def test_an_operator_acts_though_the_store_is_away(provider: StandIn, clock: FakeClock) -> None:
    goes = LosesAnswers(MemoryStore(clock.time), losses=2)
    (one,) = workers(provider, clock, goes, 1)
    one.drain("east-1", 60)
    assert out_of(one) == ["east-1"]
    one.restore("east-1")
    assert out_of(one) == []


def test_of_who_was_in_rotation_no_line_says_that_it_is_back(
    provider: StandIn, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    (one,) = workers(provider, clock, MemoryStore(clock.time), 1)
    one.restore("east-1")
    assert [record.getMessage() for record in caplog.records] == []
    one.drain("east-1")
    clock.advance(1)
    one.restore("east-1")
    out, back = (record.getMessage() for record in caplog.records)
    assert "until it is restored" in out
    assert back.startswith("back in rotation")


def test_who_is_not_configured_is_neither_drained_nor_restored(provider: StandIn) -> None:
    router = serving(provider, deployment("east-1"))
    for act in (router.drain, router.restore):
        with pytest.raises(RouterError, match="west-1"):
            act("west-1")


@EVERY_STORE
def test_who_joins_late_knows_what_the_others_learned(
    provider: StandIn, clock: FakeClock, store: Meet
) -> None:
    shared = store(clock)
    one, other = workers(provider, clock, shared)
    for seconds in (1.0, 2.0, 4.0):
        took(one, clock, "east", seconds)
    one.drain("west-1", 600)
    exchanged(one, other)
    (late,) = workers(provider, clock, shared, 1)
    late.share()
    assert latency(late, "east-1")["mean"] == pytest.approx(latency(one, "east-1")["mean"])
    assert histogram(late, "east-1") == histogram(one, "east-1")
    assert late.statistics()["west-1"]["ejections"] != []


@EVERY_STORE
def test_the_jobs_of_the_fleet_are_known_to_each_worker(
    call: Doors, provider: StandIn, clock: FakeClock, store: Meet
) -> None:
    one, other = workers(provider, clock, store(clock))
    first = call(one, "video_generation", prompt="a secret cat", account="east")
    clock.advance(1)
    call(other, "video_generation", prompt="a secret dog", account="west")
    call(other, "video_status", first.id)
    exchanged(one, other)
    for router in (one, other):
        jobs = router.jobs()
        assert [(job.account, job.deployment, job.status) for job in jobs] == [
            ("west", "west-1", "queued"),
            ("east", "east-1", "completed"),
        ]
        assert jobs[0].worker != jobs[1].worker
        assert "secret" not in repr(jobs)
        assert "sk-" not in repr(jobs)
