"""Advice on clips and prompts: warned of before sending, in `.routing.warnings`, never an error."""

from __future__ import annotations

import asyncio
import concurrent.futures
import io
import re
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clip_parts import CLIP, TOO_LONG, movie
from routing_parts import PNG, THREE, Doors, FakeClock, deployment, serving
from sharing_parts import MEETINGS, Fleet

import router as package
from router import Router, RouterWarning
from router.advising import Advising
from router.characters import MOST_CHARACTERS, CharacterFacts
from router.errors import RouterError
from router.ids import Copy
from router.state import News
from router.testing import StandIn

LONG = "10 s long"


@pytest.fixture
def router(provider: StandIn) -> Router:
    return serving(provider, *[deployment(f"{account}-1") for account in THREE])


@pytest.fixture
def told() -> Iterator[Callable[[], list[str]]]:
    """The advice since it was asked for last, in the order in which it came."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")

        def new() -> list[str]:
            assert all(issubclass(one.category, RouterWarning) for one in seen)
            found = [str(one.message) for one in seen]
            seen.clear()
            return found

        yield new


Told = Callable[[], list[str]]


def make(call: Doors, router: Router, video: Any = CLIP, **more: Any) -> Any:
    return call(router, "video_create_character", **{"name": "Luna", "video": video, **more})


# Clips ------------------------------------------------------------------------------------------


def test_nothing_is_said_of_a_good_clip(call: Doors, router: Router, told: Told) -> None:
    made = make(call, router)
    assert told() == []
    assert made.routing.warnings == ()


def test_a_clip_of_another_kind_is_warned_of_and_sent(
    call: Doors, router: Router, provider: StandIn, told: Told
) -> None:
    made = make(call, router, TOO_LONG)
    warned = told()
    assert [LONG in warned[0], "320x240" in warned[1], "distorted" in warned[2]] == [True] * 3
    assert made.routing.warnings == tuple(warned)
    assert len(provider.accepted) == 1


def test_whatever_a_clip_is_read_from_it_is_read_and_sent_whole(
    call: Doors, router: Router, provider: StandIn, told: Told, tmp_path: Path
) -> None:
    path = tmp_path / "luna.mp4"
    path.write_bytes(TOO_LONG)
    with path.open("rb") as file:
        for video in (TOO_LONG, path, io.BytesIO(TOO_LONG), file, ("a.mp4", TOO_LONG)):
            make(call, router, video)
            assert len(told()) == 3
        assert file.tell() == 0
    sizes = {request.files[0].size for request in provider.requests}
    assert sizes == {len(TOO_LONG)}


@pytest.mark.parametrize("replicate", [2, 3, "all"])
def test_of_copies_it_is_said_once(
    call: Doors, router: Router, told: Told, replicate: int | str
) -> None:
    made = make(call, router, TOO_LONG, replicate=replicate)
    warned = told()
    assert len(warned) == 3
    assert made.routing.warnings == tuple(warned)


def test_beside_the_advice_stands_what_else_there_is_to_know(
    call: Doors, router: Router, told: Told
) -> None:
    made = make(call, router, TOO_LONG, replicate=5)
    assert made.routing.warnings[:3] == tuple(told())
    assert len(made.routing.warnings) == 4


@pytest.mark.parametrize("data", [TOO_LONG[:5000], movie(0, 0), b"\0\0\0\x18ftypisom" + b"\1" * 99])
def test_an_odd_file_is_the_providers_business(
    call: Doors, router: Router, told: Told, data: bytes
) -> None:
    make(call, router, data)
    assert told() == []


def test_a_picture_to_begin_with_is_no_clip(call: Doors, router: Router, told: Told) -> None:
    call(router, "video_generation", prompt="A heron", model="sora-2", input_reference=PNG)
    assert told() == []


@pytest.mark.parametrize("operation", ["video_edit", "video_extension"])
def test_other_clips_than_of_characters_have_any_length_and_size(
    call: Doors, router: Router, told: Told, operation: str
) -> None:
    more = {"seconds": 4} if operation == "video_extension" else {}
    call(router, operation, prompt="on", model="sora-2", video=TOO_LONG, **more)
    assert told() == []


def test_under_an_idempotency_key_it_is_said_by_the_call_that_sends(
    call: Doors, router: Router, told: Told
) -> None:
    for times in (3, 0):
        make(call, router, TOO_LONG, idempotency_key="luna")
        assert len(told()) == times


def test_as_an_error_it_ends_the_call_before_anything_is_sent(
    call: Doors, provider: StandIn
) -> None:
    router = serving(provider, deployment("east-1", max_parallel_requests=1, rpm=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for key in (None, "luna"):
            with pytest.raises(RouterWarning, match=LONG):
                make(call, router, TOO_LONG, idempotency_key=key)
    assert provider.requests == []
    # No slot, no request of the minute's and no key is held by what was not sent.
    assert make(call, router, idempotency_key="luna").name == "Luna"


def test_a_disk_that_does_not_answer_costs_a_call_its_advice_only(
    provider: StandIn, router: Router, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.advising.READ_SECONDS", 0.05)
    monkeypatch.setattr("router.advising.read_clip", lambda source: time.sleep(0.3))
    made = asyncio.run(router.avideo_create_character(name="Luna", video=TOO_LONG))
    assert told() == []
    assert made.name == "Luna"


# Where it points --------------------------------------------------------------------------------


def test_it_points_at_the_line_that_called(router: Router, tmp_path: Path) -> None:
    path = tmp_path / "luna.mp4"
    path.write_bytes(TOO_LONG)

    async def mine(**more: Any) -> None:
        await router.avideo_create_character(name="Luna", video=path, **more)

    def where(seen: pytest.WarningsRecorder) -> set[tuple[str, int]]:
        assert len(seen) == 3
        return {(one.filename, one.lineno) for one in seen}

    before = mine.__code__.co_firstlineno
    for more in ({}, {"replicate": 2}, {"idempotency_key": "luna"}):
        with pytest.warns(RouterWarning) as seen:
            asyncio.run(mine(**more))
        assert where(seen) == {(__file__, before + 1)}
    with pytest.warns(RouterWarning) as seen:
        router.video_create_character(name="Luna", video=path, replicate=2)
    ((file, _),) = where(seen)
    assert file == __file__


# Prompts ----------------------------------------------------------------------------------------


def generate(call: Doors, router: Router, prompt: str, *characters: Any, **more: Any) -> Any:
    return call(router, "video_generation", prompt=prompt, characters=list(characters), **more)


@pytest.mark.parametrize("prompt", ["Luna waves", "see Luna.", "Lunar light"])
def test_a_prompt_with_the_name_is_fine(
    call: Doors, router: Router, told: Told, prompt: str
) -> None:
    luna = make(call, router)
    assert generate(call, router, prompt, luna).routing.warnings == ()
    assert told() == []


@pytest.mark.parametrize("prompt", ["She waves", "luna waves", "LUNA", "Lu na"])
def test_a_prompt_without_the_name_verbatim_is_warned_of(
    call: Doors, router: Router, told: Told, prompt: str
) -> None:
    luna = make(call, router)
    video = generate(call, router, prompt, luna)
    (warned,) = told()
    assert "'Luna' verbatim" in warned
    assert video.routing.warnings == (warned,)


def test_each_of_two_characters_is_looked_for(call: Doors, router: Router, told: Told) -> None:
    luna = make(call, router, account="east")
    milo = make(call, router, name=" Milo ", account="east")
    generate(call, router, "Luna and Milo", luna, milo)
    assert told() == []
    generate(call, router, "Luna", luna.id, {"id": milo.id})
    assert "'Milo'" in told()[0]


def test_a_native_id_is_known_as_well(call: Doors, router: Router, told: Told) -> None:
    luna = make(call, router, account="east")
    native = router.describe_id(luna.id).copies[0].native_id
    generate(call, router, "She waves", native, account="east")
    assert len(told()) == 1


def test_any_copy_is_enough(call: Doors, router: Router, told: Told) -> None:
    luna = make(call, router, replicate="all")
    generate(call, router, "She waves", luna)
    assert len(told()) == 1


@pytest.mark.parametrize(
    ("video", "size", "fits"),
    [
        (CLIP, "1280x720", True),
        (CLIP, "1920x1080", True),
        (CLIP, "1792x1024", True),
        (CLIP, None, True),
        (CLIP, "720x1280", False),
        (movie(720, 1280), "720x1280", True),
        (movie(1920, 1080, turned=True), "720x1280", True),
        (movie(1080, 1080), "1280x720", False),
    ],
)
def test_another_shape_than_the_clips_is_warned_of(
    call: Doors, router: Router, told: Told, video: bytes, size: str | None, fits: bool
) -> None:
    luna = make(call, router, video)
    generate(call, router, "Luna waves", luna, size=size)
    assert len(told()) == (0 if fits else 1)


def test_of_what_is_not_known_nothing_is_said_and_nobody_is_asked(
    call: Doors, provider: StandIn, router: Router, told: Told
) -> None:
    luna = make(call, router)
    stranger = serving(provider, *[deployment(f"{account}-1") for account in THREE])
    before = len(provider.requests)
    generate(call, stranger, "She waves", luna, size="720x1280")
    assert told() == []
    assert len(provider.requests) == before + 1


def test_a_clip_that_nothing_could_be_read_of_leaves_the_name(
    call: Doors, router: Router, told: Told
) -> None:
    luna = make(call, router, b"\0\0\0\x18ftypisom" + bytes(99))
    generate(call, router, "Luna waves", luna, size="720x1280")
    assert told() == []
    generate(call, router, "She waves", luna)
    assert len(told()) == 1


def test_a_character_that_was_refused_is_not_remembered(
    call: Doors, provider: StandIn, router: Router
) -> None:
    provider.fault("status", status=400)
    with pytest.raises(RouterError):
        make(call, router)
    assert not router._engine.advising._known


# Other workers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", MEETINGS)
def test_what_one_worker_made_another_warns_of(
    call: Doors, provider: StandIn, clock: FakeClock, told: Told, kind: str
) -> None:
    fleet = Fleet(kind, provider, clock)
    one, other = fleet(deployment("east-1"))
    luna = make(call, one)
    fleet.meet()
    asked = len(provider.requests)
    generate(call, other, "She waves", luna, size="720x1280")
    assert len(told()) == 2
    assert len(provider.requests) == asked + 1


def test_a_generation_asks_the_store_nothing_for_it(
    call: Doors, provider: StandIn, clock: FakeClock, told: Told
) -> None:
    fleet = Fleet("memory", provider, clock)
    one, _ = fleet(deployment("east-1"))
    luna = make(call, one)
    fleet.meet()
    sharing = one._learning.sharing
    assert sharing is not None
    before = sharing.turns
    generate(call, one, "She waves", luna)
    assert len(told()) == 1
    assert sharing.turns == before


def test_a_worker_remembers_only_so_many() -> None:
    advising = Advising(None)
    known = {Copy("east", f"char_{n}"): CharacterFacts("Luna") for n in range(MOST_CHARACTERS + 9)}
    advising.absorb(News(0.0, "", 0, characters=known))
    assert len(advising._known) == MOST_CHARACTERS
    assert Copy("east", "char_8") not in advising._known


def test_threads_that_make_characters_lose_none(provider: StandIn, router: Router) -> None:
    call = Doors("blocking")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: make(call, router, name=f"Luna {n}"), range(64)))
    assert len(router._engine.advising._known) == 64


# The guide --------------------------------------------------------------------------------------


def test_the_program_in_the_guide_sends_nothing_that_it_was_warned_of(
    provider: StandIn, router: Router, tmp_path: Path
) -> None:
    page = (Path(package.__file__).parent / "docs" / "characters.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(program, names)
    good, long = tmp_path / "luna.mp4", tmp_path / "long.mp4"
    good.write_bytes(CLIP)
    long.write_bytes(TOO_LONG)
    assert names["make"](router, str(good), "Luna waves").startswith("video_")
    sent = len(provider.accepted)
    with pytest.raises(RouterWarning, match=LONG):
        names["make"](router, str(long), "Luna waves")
    assert len(provider.accepted) == sent
    with pytest.raises(RouterWarning, match="verbatim"):
        names["make"](router, str(good), "She waves")
    assert len(provider.accepted) == sent + 2  # both copies of her, and no video
