"""What is known of characters goes from worker to worker with the news, in every store."""

from __future__ import annotations

import pytest
from state_parts import Meeting, Worker

from router.characters import CHARACTER_SECONDS, MOST_CHARACTERS, CharacterFacts
from router.ids import Copy
from router.observations import Batch
from router.state import Sharing

LUNA = CharacterFacts("Luna", 1280, 720)


def told(**by_native: CharacterFacts) -> Batch:
    batch = Batch()
    for native, facts in by_native.items():
        batch.add_character(Copy("east", native), facts)
    return batch


def all_heard_by(worker: Worker) -> dict[Copy, CharacterFacts]:
    heard: dict[Copy, CharacterFacts] = {}
    while True:
        news = worker.turn()
        heard |= news.characters
        if not news.more:
            return heard


def test_what_one_worker_made_the_others_know_also_those_that_come_later(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    other.hear()
    one.turn(told(char_1=LUNA))
    assert other.turn().characters == {Copy("east", "char_1"): LUNA}
    assert meeting.worker().turn().characters == {Copy("east", "char_1"): LUNA}


def test_it_is_news_once(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    one.turn(told(char_1=LUNA))
    other.hear()
    assert other.turn().characters == {}


def test_a_batch_that_arrives_again_is_no_news(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    one.turn(told(char_1=LUNA), sequence=1)
    other.hear()
    one.turn(told(char_1=LUNA), sequence=1)
    assert other.turn().characters == {}


@pytest.mark.parametrize("name", ["Zoë 🦊", 'a "b" \\ c', "{x}:*[?", "0", " ", "\0", "名前"])
def test_a_name_is_text_and_stays_as_it_is(meeting: Meeting, name: str) -> None:
    facts = CharacterFacts(name, 0, 0)
    meeting.worker().turn(told(**{name: facts}))
    assert meeting.worker().turn().characters == {Copy("east", name): facts}


def test_what_was_told_last_holds(meeting: Meeting) -> None:
    one, other = meeting.workers(2)
    one.turn(told(char_1=CharacterFacts("Luna")))
    other.turn(told(char_1=LUNA))
    assert all_heard_by(meeting.worker()) == {Copy("east", "char_1"): LUNA}


def test_after_thirty_days_nobody_knows_it(meeting: Meeting) -> None:
    meeting.worker().turn(told(char_1=LUNA))
    meeting.advance(CHARACTER_SECONDS - 60)
    assert all_heard_by(meeting.worker()) == {Copy("east", "char_1"): LUNA}
    meeting.advance(120)
    assert all_heard_by(meeting.worker()) == {}


def test_of_too_many_the_oldest_are_forgotten(meeting: Meeting) -> None:
    worker = meeting.worker()
    for start in range(0, MOST_CHARACTERS + 30, 290):
        worker.turn(told(**{f"char_{n}": LUNA for n in range(start, start + 290)}))
    heard = all_heard_by(meeting.worker())
    assert len(heard) == MOST_CHARACTERS
    last = start + 290
    assert set(heard) == {Copy("east", f"char_{n}") for n in range(last - MOST_CHARACTERS, last)}


def test_a_worker_waits_with_only_so_many_for_a_store_that_is_away(meeting: Meeting) -> None:
    sharing = Sharing(meeting.backend.store(), lambda news: None)
    for n in range(MOST_CHARACTERS + 5):
        sharing.tell_character(Copy("east", f"char_{n}"), LUNA)
    assert sharing.has_to_tell
    sharing.step()
    assert not sharing.has_to_tell
    heard = all_heard_by(meeting.worker())
    assert len(heard) == MOST_CHARACTERS
    assert Copy("east", "char_4") not in heard
