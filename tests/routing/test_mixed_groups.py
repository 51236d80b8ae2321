"""One group over several vendors: `hero-video`, whoever makes it.

Whatever providers there are take part; what the stand-in speaks is found by their names.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from routing_parts import CLIP, Doors, FakeClock, serving

from router import RateLimitError, Router, UnsupportedOperationError
from router.providers import PROVIDERS
from router.testing import StandIn
from router.testing.dialects import DIALECTS
from router.types import Operation

# Where the address or the model says more than the name of the dialect.
ODD: dict[str, dict[str, str]] = {
    "azure": {"base_url": "http://stand-in/openai/v1"},
    "openai": {"base_url": "http://stand-in/v1"},
    "gemini": {"base_url": "http://stand-in/v1beta", "model": "veo-3.1-generate-preview"},
    "fal": {"base_url": "http://stand-in", "model": "fal-ai/sora-2/text-to-video"},
}
PREFIXES = {dialect.name: dialect.prefixes[0] for dialect in DIALECTS}
EVERY = sorted(PROVIDERS)
CASTING = [name for name in EVERY if Operation.CREATE_CHARACTER in PROVIDERS[name].operations]
WITHOUT_CAST = [name for name in EVERY if name not in CASTING]
# What all of them take.
HERO = {"model": "hero-video", "prompt": "a heron", "seconds": "8", "size": "1280x720"}


def at(provider: str, order: int = 1) -> dict[str, Any]:
    """A deployment of this provider, in an account of its own that is called like it."""
    told = ODD.get(provider) or {"base_url": f"http://stand-in{PREFIXES[provider]}"}
    return {
        "id": f"at-{provider}",
        "model_name": "hero-video",
        "account": provider,
        "provider": provider,
        "model": "hero-1",
        "api_key": f"sk-{provider}",
        "order": order,
        **told,
    }


@pytest.fixture
def vendors(clock: FakeClock) -> StandIn:
    accounts = {f"sk-{name}": name for name in EVERY}
    return StandIn(accounts=accounts, job_seconds=20, clock=clock, seed=7)


def group(vendors: StandIn, names: Iterable[str], clock: FakeClock, **more: Any) -> Router:
    deployments = [at(name, order) for order, name in enumerate(names, start=1)]
    return serving(vendors, *deployments, clock=clock, **more)


def asked(vendors: StandIn, since: int = 0) -> list[str | None]:
    return [request.account for request in vendors.requests[since:]]


def throttle(vendors: StandIn, *accounts: str, times: int | None = None) -> None:
    for account in accounts:
        headers = {"retry-after": "60"}
        vendors.fault("status", status=429, account=account, headers=headers, times=times)


@pytest.mark.parametrize("name", EVERY)
def test_each_makes_it_from_the_prompt_to_the_bytes(
    call: Doors, vendors: StandIn, clock: FakeClock, tmp_path: Path, name: str
) -> None:
    router = group(vendors, [name], clock)
    made = call(router, "video_generation", **HERO)
    done = call(router, "video_wait", made.id)
    assert (done.id, done.status) == (made.id, "completed")
    path = call(router, "video_content", made.id, to=tmp_path / "hero.mp4")
    assert path.read_bytes() == CLIP
    (submit,) = vendors.accepted
    assert (submit.operation, submit.account, submit.prompt) == ("generation", name, "a heron")


@pytest.mark.parametrize("last", [name for name in EVERY if name not in ("openai", "runwayml")])
def test_one_generation_fails_over_from_vendor_to_vendor_to_real_bytes(
    call: Doors, vendors: StandIn, clock: FakeClock, tmp_path: Path, last: str
) -> None:
    router = group(vendors, ["openai", "runwayml", last], clock)
    throttle(vendors, "openai", "runwayml")
    made = call(router, "video_generation", **HERO)
    assert [(one.account, one.result) for one in made.routing.attempts] == [
        ("openai", "throttled"),
        ("runwayml", "throttled"),
        (last, "success"),
    ]
    assert [submit.account for submit in vendors.accepted] == [last], "paid for once"
    sent = len(vendors.requests)
    call(router, "video_wait", made.id)
    path = call(router, "video_content", made.id, to=tmp_path / "hero.mp4")
    assert path.read_bytes() == CLIP
    assert set(asked(vendors, sent)) == {last}


def test_follow_ups_go_to_nobody_but_the_owner(
    call: Doors, vendors: StandIn, clock: FakeClock
) -> None:
    # All of one tier, so that each gets some.
    deployments = [at(name) for name in EVERY]
    router = serving(
        vendors,
        *deployments,
        clock=clock,
        rng=random.Random(3),
        settings={"strategy": "round-robin"},
    )
    videos = [call(router, "video_generation", **HERO) for _ in EVERY]
    assert {video.routing.account for video in videos} == set(EVERY)
    clock.advance(20)
    for video in videos:
        owner, sent = video.routing.account, len(vendors.requests)
        assert call(router, "video_status", video.id).done
        assert call(router, "video_content", video.id) == CLIP
        assert set(asked(vendors, sent)) == {owner}


def test_an_owner_that_is_throttled_is_waited_for_and_not_left(
    call: Doors, vendors: StandIn, clock: FakeClock
) -> None:
    router = group(vendors, ["openai", *WITHOUT_CAST], clock)
    throttle(vendors, "openai", times=1)
    made = call(router, "video_generation", **HERO)
    owner, sent = made.routing.account, len(vendors.requests)
    throttle(vendors, owner, times=1)
    assert call(router, "video_status", made.id).id == made.id
    assert set(asked(vendors, sent)) == {owner}


@pytest.mark.parametrize("holder", [name for name in CASTING if name != "azure"])
def test_characters_narrow_the_candidates_to_who_holds_them(
    call: Doors, vendors: StandIn, clock: FakeClock, tmp_path: Path, holder: str
) -> None:
    # Those who have no characters would all come first.
    router = group(vendors, [*WITHOUT_CAST, holder], clock)
    luna = call(router, "video_create_character", name="Luna", video=CLIP, model="hero-video")
    assert luna.routing.account == holder
    sent = len(vendors.requests)
    for _ in range(3):
        made = call(router, "video_generation", **{**HERO, "prompt": "Luna"}, characters=[luna])
        assert made.routing.account == holder
    call(router, "video_wait", made.id)
    path = call(router, "video_content", made.id, to=tmp_path / "luna.mp4")
    assert path.read_bytes() == CLIP
    assert set(asked(vendors, sent)) == {holder}
    without = call(router, "video_generation", **HERO)
    assert without.routing.account == WITHOUT_CAST[0]


def test_a_character_held_by_two_vendors_goes_on_while_one_is_out(
    call: Doors, vendors: StandIn, clock: FakeClock
) -> None:
    others = [name for name in CASTING if name not in ("openai", "azure")]
    router = group(vendors, ["runwayml", "openai", *others], clock)
    luna = call(
        router,
        "video_create_character",
        name="Luna",
        video=CLIP,
        model="hero-video",
        replicate="all",
    )
    assert set(luna.routing.copies) == {"openai", *others}
    throttle(vendors, "openai")
    made = call(router, "video_generation", **{**HERO, "prompt": "Luna"}, characters=[luna])
    assert made.routing.account in others


def test_where_nobody_is_left_who_holds_them_nobody_else_is_asked(
    call: Doors, vendors: StandIn, clock: FakeClock
) -> None:
    router = group(vendors, ["openai", *WITHOUT_CAST], clock)
    luna = call(router, "video_create_character", name="Luna", video=CLIP, model="hero-video")
    throttle(vendors, "openai")
    sent = len(vendors.requests)
    with pytest.raises(RateLimitError):
        call(router, "video_generation", **{**HERO, "prompt": "Luna"}, characters=[luna])
    assert set(asked(vendors, sent)) == {"openai"}


def test_what_nobody_of_the_group_can_do_is_told_before_anything_is_sent(
    call: Doors, vendors: StandIn, clock: FakeClock
) -> None:
    router = group(vendors, WITHOUT_CAST, clock)
    with pytest.raises(UnsupportedOperationError):
        call(router, "video_create_character", name="Luna", video=CLIP, model="hero-video")
    assert vendors.requests == []
