"""Who may send under an idempotency key: one suite over memory, fakeredis and each real server."""

from __future__ import annotations

import dataclasses
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from shared_parts import FakeClock
from state_parts import InMemory, Meeting, Worker, choice

from router.claims import (
    ACCEPTED,
    FREE,
    RECORD_SECONDS,
    SENDING,
    UNKNOWN,
    Claim,
    Claimed,
    Conclude,
    Record,
    Renew,
)
from router.leases import Acquire, Settle
from router.state import MemoryStore, Sharing
from router.state.records import MOST_RECORDS

KEY = "0a1b"
FACTS = {"operation": "generation", "deployment": "east-1", "account": "east"}
JOBS = "jobs:deployment:east"


def ended(
    state: str, token: str = "one", key: str = KEY, at: float = 5.5, **facts: str
) -> Conclude:
    return Conclude(key, token, "f", state, at, **facts)


def renewed(token: str = "one", seconds: float = 30.0, at: float = 5.5, **facts: str) -> Renew:
    return Renew(KEY, token, "f", seconds, at, **facts)


def standing(meeting: Meeting) -> Claimed:
    """What somebody hears who only looks."""
    return meeting.worker().claim(KEY, "looks", seconds=0.0)


# Claiming ---------------------------------------------------------------------------------------


def test_who_comes_first_sends_and_the_others_hear_of_it(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    first = one.claim(KEY, "one", fingerprint="f1")
    assert first.mine
    assert first.record.at == pytest.approx(meeting.now(), abs=1)
    assert first.record == Record("f1", "one", SENDING, first.record.at)
    for _ in range(2):
        assert other.claim(KEY, "other", fingerprint="f2") == Claimed(False, first.record)


def test_two_keys_have_nothing_to_do_with_each_other(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    assert one.claim("a", "one").mine
    assert other.claim("b", "other").mine


def test_of_several_claims_in_one_turn_the_first_is_the_owner(meeting: Meeting) -> None:
    claims = [Claim(KEY, f"t{n}", "f", 30.0) for n in range(3)]
    claimed = meeting.worker().turn(claims=claims).claimed
    assert [one.mine for one in claimed] == [True, False, False]
    assert {one.record.token for one in claimed} == {"t0"}


def test_a_turn_whose_answer_was_lost_does_no_harm_when_it_is_repeated(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    claims = [Claim(KEY, "one", "f", 30.0)]
    answers = [one.turn(claims=claims, sequence=1).claimed for _ in range(3)]
    assert answers[0][0].mine
    assert answers[1:] == answers[:2]
    assert not other.claim(KEY, "other").mine


def test_a_look_writes_nothing(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    assert one.claim(KEY, "looks", seconds=0.0).mine
    assert other.claim(KEY, "other").mine
    looked = one.claim(KEY, "looks", seconds=0.0)
    assert (looked.mine, looked.record.token) == (False, "other")


def test_orders_are_carried_out_before_claims_of_their_turn_are_answered(meeting: Meeting) -> None:
    one = meeting.worker()
    one.claim(KEY, "one")
    (claimed,) = one.turn(None, ended(FREE), claims=[Claim(KEY, "two", "f", 30.0)]).claimed
    assert claimed.mine


@pytest.mark.parametrize("_again", range(3))
def test_of_fifty_threads_over_twenty_sharings_one_is_the_owner(
    meeting: Meeting, _again: int
) -> None:
    sharings = [Sharing(meeting.backend.store(), lambda news: None, inline=True) for _ in range(20)]
    together = threading.Barrier(50)

    def claims(number: int) -> Claimed:
        together.wait()
        claim = Claim(KEY, f"token-{number}", "f", 30.0)
        return sharings[number % 20].claim(claim).result(timeout=30)

    with ThreadPoolExecutor(50) as threads:
        answers = list(threads.map(claims, range(50)))
    (owner,) = [answer.record.token for answer in answers if answer.mine]
    assert {answer.record.token for answer in answers} == {owner}
    assert all(answer.record.state == SENDING for answer in answers)


# Lapse and renewal ------------------------------------------------------------------------------


def test_who_sends_and_says_nothing_for_too_long_leaves_a_doubt_and_no_free_key(
    meeting: Meeting,
) -> None:
    one, other = meeting.workers(2)
    one.claim(KEY, "one", seconds=30)
    meeting.advance(29)
    assert other.claim(KEY, "other").record.state == SENDING
    meeting.advance(2)
    for worker, token in ((other, "other"), (one, "one"), (other, "next")):
        claimed = worker.claim(KEY, token)
        assert (claimed.mine, claimed.record.state) == (False, UNKNOWN)
        assert claimed.record.token == "one"
    meeting.advance(RECORD_SECONDS - 100)
    assert not other.claim(KEY, "other").mine
    meeting.advance(101)
    assert other.claim(KEY, "other").mine


def test_a_renewal_extends_the_claim_and_says_where_it_is_sent_to(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    at = one.claim(KEY, "one", seconds=30).record.at
    for _ in range(4):
        meeting.advance(25)
        one.order(renewed(at=at, **FACTS))
        one.order(renewed(at=at, **FACTS))  # again, where an answer was lost
    claimed = other.claim(KEY, "other")
    assert claimed == Claimed(False, Record("f", "one", SENDING, at, **FACTS))
    assert one.claim(KEY, "one").mine


def test_a_renewal_changes_nothing_that_is_anothers_or_has_ended(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    one.claim(KEY, "one")
    known = standing(meeting)
    other.order(renewed("other", **FACTS))
    assert standing(meeting) == known
    for state in (UNKNOWN, ACCEPTED):
        one.order(ended(state, id="video_1"))
        known = standing(meeting)
        one.order(renewed(**FACTS))
        assert standing(meeting) == known
        assert known.record.state == state


def test_a_claim_that_lapsed_and_is_renewed_stands_again(meeting: Meeting) -> None:
    one = meeting.worker()
    one.claim(KEY, "one", seconds=5)
    meeting.advance(10)
    one.order(renewed())
    assert standing(meeting).record.state == SENDING
    assert not meeting.worker().claim(KEY, "other").mine


def test_a_store_that_was_emptied_learns_of_who_sends_by_the_renewal(meeting: Meeting) -> None:
    one = meeting.worker()
    at = one.claim(KEY, "one").record.at
    meeting.backend.empty()
    one.store = meeting.backend.store()
    one.order(renewed(at=at, **FACTS))
    assert meeting.worker().claim(KEY, "other") == Claimed(
        False, Record("f", "one", SENDING, at, **FACTS)
    )


# The end ----------------------------------------------------------------------------------------


def test_an_acceptance_is_known_to_all_for_a_day(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    at = one.claim(KEY, "one").record.at
    end = ended(ACCEPTED, at=at, id="video_ours", **FACTS)
    one.order(end)
    one.order(end)  # again, where an answer was lost
    record = Record("f", "one", ACCEPTED, at, "video_ours", **FACTS)
    meeting.advance(RECORD_SECONDS - 60)
    for worker, token in ((other, "other"), (one, "one")):
        assert worker.claim(KEY, token) == Claimed(False, record)
    meeting.advance(61)
    assert other.claim(KEY, "other").mine


def test_a_doubt_may_still_become_an_acceptance_and_never_the_other_way(meeting: Meeting) -> None:
    one = meeting.worker()
    one.claim(KEY, "one")
    for state, stands in ((UNKNOWN, UNKNOWN), (ACCEPTED, ACCEPTED), (UNKNOWN, ACCEPTED)):
        one.order(ended(state, id="video_1" if state == ACCEPTED else ""))
        assert standing(meeting).record.state == stands
    one.order(ended(FREE))
    assert standing(meeting).record == Record("f", "one", ACCEPTED, 5.5, "video_1")


@pytest.mark.parametrize("state", [ACCEPTED, UNKNOWN])
def test_the_end_is_written_also_where_the_claim_has_lapsed_or_is_gone(
    meeting: Meeting, state: str
) -> None:
    one = meeting.worker()
    one.claim(KEY, "one", seconds=5)
    meeting.advance(6)
    one.order(ended(state, **FACTS))
    assert standing(meeting).record == Record("f", "one", state, 5.5, **FACTS)
    meeting.backend.empty()
    one.store = meeting.backend.store()
    one.order(ended(state, **FACTS))
    assert standing(meeting).record == Record("f", "one", state, 5.5, **FACTS)


@pytest.mark.parametrize("state", [ACCEPTED, UNKNOWN, FREE])
def test_an_end_is_never_written_over_anothers_record(meeting: Meeting, state: str) -> None:
    one, other = meeting.workers(2)
    one.claim(KEY, "one")
    known = standing(meeting)
    other.order(ended(state, "other"))
    assert standing(meeting) == known


def test_what_was_surely_refused_frees_the_key(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    one.claim(KEY, "one")
    one.order(ended(FREE))
    assert other.claim(KEY, "other").mine
    one.order(ended(FREE))  # again, where an answer was lost
    assert not one.claim(KEY, "next").mine
    assert standing(meeting).record.token == "other"


def test_a_claim_and_its_renewals_that_come_after_it_was_given_up_are_none(
    meeting: Meeting,
) -> None:
    """As from behind a frozen connection, whose turn is carried out when nobody waits for it."""
    one, other = meeting.workers(2)
    one.order(ended(FREE))
    late = one.claim(KEY, "one")
    assert (late.mine, late.record.state) == (False, UNKNOWN)
    one.order(renewed())
    assert other.claim(KEY, "other").mine


# What is kept -----------------------------------------------------------------------------------


def test_words_of_all_sorts_come_back_as_they_were(meeting: Meeting) -> None:
    odd = 'quo"ted östlich {tag} back\\slash'
    record = Record(odd, "one", ACCEPTED, 1_800_000_000.123456, odd, odd, odd, odd)
    one = meeting.worker()
    one.order(Conclude(KEY, "one", odd, ACCEPTED, record.at, odd, odd, odd, odd))
    assert standing(meeting).record == record


def test_of_a_key_and_what_was_asked_for_under_it_there_are_only_digests() -> None:
    """A store has what it is handed, so it is the values that have no place for anything else."""
    fields = {f.name for one in (Claim, Renew, Conclude) for f in dataclasses.fields(one)}
    assert fields == {
        *("key", "token", "fingerprint", "seconds", "state", "at"),
        *("id", "operation", "deployment", "account"),
    }


def test_memory_keeps_only_so_many_and_forgets_what_is_concluded_first() -> None:
    clock = FakeClock()
    worker = Worker(MemoryStore(clock.time), "worker")
    assert worker.claim("first", "first", seconds=1e6).mine
    for number in range(MOST_RECORDS):
        key = f"k{number}"
        worker.turn(None, ended(ACCEPTED, key, key, id=key))
    assert worker.claim("first", "first").mine
    assert worker.claim("k0", "again").mine
    assert not worker.claim("k5", "again").mine


def test_memory_forgets_after_a_day() -> None:
    clock = FakeClock()
    store = MemoryStore(clock.time)
    worker = Worker(store, "worker")
    for number in range(50):
        worker.claim(f"k{number}", f"t{number}")
        worker.order(ended((ACCEPTED, UNKNOWN, FREE)[number % 3], f"t{number}", f"k{number}"))
        clock.advance(10)
    clock.advance(RECORD_SECONDS)
    worker.turn()
    records = store._records
    assert (len(records._sending), len(records._concluded), len(records._freed)) == (0, 0, 0)


# A worker's side --------------------------------------------------------------------------------


def test_a_claim_is_answered_with_the_next_turn_and_one_given_up_is_not_put() -> None:
    backend = InMemory()
    shares = Sharing(backend.store(), lambda news: None)
    rung: list[int] = []
    shares.ring = lambda: rung.append(1)
    waits = shares.claim(Claim(KEY, "one", "f", 30.0))
    left = shares.claim(Claim("b", "two", "f", 30.0))
    assert rung == [1, 1]
    assert left.cancel()
    assert not waits.done()
    shares.step()
    assert waits.result(timeout=0).mine
    assert Worker(backend.store(), "other").claim("b", "other").mine


class Failing:
    """A store that loses turns, or their answers."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.gone, self.lost = inner, False, False

    def turn(self, turn: Any) -> Any:
        if self.gone:
            raise ConnectionError("gone")
        news = self.inner.turn(turn)
        if self.lost:
            raise ConnectionError("lost")
        return news


def failing(meeting: Meeting) -> tuple[Failing, Sharing]:
    store = Failing(meeting.backend.store())
    shares = Sharing(store, lambda news: None)  # type: ignore[arg-type]
    shares.step()
    return store, shares


def fails(shares: Sharing) -> None:
    with pytest.raises(ConnectionError):
        shares.step()


def test_who_claims_of_a_store_that_is_away_hears_why(meeting: Meeting) -> None:
    store, shares = failing(meeting)
    store.gone = True
    claims: list[Future[Claimed]] = []
    for _ in range(2):
        claims.append(shares.claim(Claim(KEY, "one", "f", 30.0)))
        fails(shares)
    for claim in claims:
        with pytest.raises(ConnectionError, match="gone"):
            claim.result(timeout=0)
    store.gone = False
    shares.step()
    assert meeting.worker().claim(KEY, "other").mine  # nobody asks again in its place


def test_a_claim_whose_answer_was_lost_is_given_up(meeting: Meeting) -> None:
    store, shares = failing(meeting)
    store.lost = True
    claim = shares.claim(Claim(KEY, "one", "f", 30.0))
    fails(shares)
    assert isinstance(claim.exception(timeout=0), ConnectionError)
    assert not meeting.worker().claim(KEY, "early").mine
    shares.order(ended(FREE))
    store.lost = False
    shares.step()
    assert meeting.worker().claim(KEY, "other").mine


def test_the_end_survives_an_outage_and_is_told_before_the_next_claim(meeting: Meeting) -> None:
    store, shares = failing(meeting)
    claim = shares.claim(Claim(KEY, "one", "f", 30.0))
    shares.step()
    assert claim.result(timeout=0).mine
    store.gone = True
    shares.order(ended(ACCEPTED, id="video_1"))
    for _ in range(3):
        fails(shares)
    store.gone = False
    again = shares.claim(Claim(KEY, "two", "f", 30.0))
    shares.step()
    assert again.result(timeout=0).record.id == "video_1"


def test_claims_are_renewed_about_once_in_a_second_and_anew_where_a_turn_went_wrong() -> None:
    clock = FakeClock()
    store = Failing(MemoryStore(clock.time))
    shares = Sharing(store, lambda news: None)  # type: ignore[arg-type]
    asked: list[float] = []

    def renewing() -> list[Renew]:
        asked.append(clock.time())
        return [renewed(seconds=5.0)]

    shares.renewing = renewing
    shares.step()
    for _ in range(100):
        clock.advance(0.1)
        shares.step()
    assert 8 <= len(asked) <= 21
    assert Worker(store.inner, "other").claim(KEY, "other").record.state == SENDING
    store.lost = True
    for _ in range(3):
        before = len(asked)
        with pytest.raises(ConnectionError):
            shares.step(at_last=True)
    assert len(asked) == before + 1
    assert shares.unordered() == []  # what renews is no order: nothing of it is kept for later


def test_a_renewal_goes_before_the_end_that_is_told_in_the_same_turn(meeting: Meeting) -> None:
    _, shares = failing(meeting)
    claim = shares.claim(Claim(KEY, "one", "f", 30.0))
    shares.step()
    assert claim.result(timeout=0).mine
    shares.renewing = lambda: [renewed()]
    shares.order(ended(FREE))
    for _ in range(3):
        shares._renewed = 0.0
        shares.step()  # later renewals of what was given up are none
    assert meeting.worker().claim(KEY, "other").mine


def test_claims_wait_until_what_is_held_is_registered() -> None:
    clock = FakeClock()
    store = Failing(MemoryStore(clock.time))
    shares = Sharing(store, lambda news: None)  # type: ignore[arg-type]
    shares.step()
    store.gone = True
    fails(shares)
    store.gone = False
    shares.register = lambda: [Settle(f"t{n}", (), (JOBS,), 30.0) for n in range(600)]
    claim = shares.claim(Claim(KEY, "one", "f", 30.0))
    turns = 0
    while not claim.done():
        assert store.inner.picture((JOBS,)).held[JOBS] < 600
        shares.step()
        turns += 1
    assert turns == 3
    assert claim.result(timeout=0).mine


def test_leases_and_claims_of_one_turn_have_their_own_answers(meeting: Meeting) -> None:
    shares = Sharing(meeting.backend.store(), lambda news: None)
    lease = shares.ask(Acquire("t", (choice(JOBS),), 30.0))
    claim = shares.claim(Claim(KEY, "one", "f", 30.0))
    shares.step()
    assert lease.result(timeout=0).index == 0
    assert claim.result(timeout=0).mine
