"""`.routing.cost`: the dollars of the job that a call started, as far as they can be known."""

from __future__ import annotations

from typing import Any

import pytest
from routing_parts import CLIP, Doors, deployment, serving

from router import Video
from router.testing import StandIn

BY_SIZE = {"720x1280": 0.25, "1280x720": 0.25, "1024x1792": 0.5}
RUNWAY = {"provider": "runwayml", "base_url": "https://api.dev.runwayml.com/v1"}


def cost(answer: Any) -> float | None:
    assert answer.routing is not None
    found: float | None = answer.routing.cost
    return found


def test_a_generation_costs_its_seconds(call: Doors, provider: StandIn) -> None:
    with serving(provider, deployment("east-1", cost_per_second=0.25)) as router:
        video = call(router, "video_generation", prompt="x", seconds=8, size="1280x720")
        assert cost(video) == 2.0


def test_what_a_job_costs_goes_by_its_size(call: Doors, provider: StandIn) -> None:
    with serving(provider, deployment("east-1", cost_per_second=BY_SIZE)) as router:
        small = call(router, "video_generation", prompt="x", seconds="8", size="1280x720")
        large = call(router, "video_generation", prompt="x", seconds="8", size="1024x1792")
        other = call(router, "video_generation", prompt="x", seconds="8", size="1792x1024")
        assert (cost(small), cost(large), cost(other)) == (2.0, 4.0, None)


def test_what_the_call_leaves_open_the_answer_says(call: Doors, provider: StandIn) -> None:
    with serving(provider, deployment("east-1", cost_per_second=BY_SIZE)) as router:
        video = call(router, "video_generation", prompt="x")
        assert (video.seconds, video.size) == ("4", "720x1280")
        assert cost(video) == 1.0


def test_what_is_made_counts_and_not_what_was_asked_for(call: Doors, provider: StandIn) -> None:
    with serving(provider, deployment("east-1", cost_per_second=BY_SIZE)) as router:
        body = {"id": "video_1", "status": "queued", "seconds": "5", "size": "1024x1792"}
        provider.fault("wrong_types", body=body)
        video = call(router, "video_generation", prompt="x", seconds=8, size="1280x720")
        assert cost(video) == 2.5


@pytest.mark.parametrize("told", ["soon", "", "0", "-4", "nan", "inf", "1e999", None])
def test_what_is_no_length_leaves_the_one_that_was_asked_for(
    call: Doors, provider: StandIn, told: str | None
) -> None:
    with serving(provider, deployment("east-1", cost_per_second=0.25)) as router:
        body = {"id": "video_1", "status": "queued", "seconds": told}
        provider.fault("wrong_types", body=body, times=2)
        assert cost(call(router, "video_generation", prompt="x", seconds=8)) == 2.0
        assert cost(call(router, "video_generation", prompt="x")) is None


def test_a_remix_and_an_edit_cost_what_they_are_made_from(call: Doors, provider: StandIn) -> None:
    with serving(provider, deployment("east-1", cost_per_second=0.25)) as router:
        video = call(router, "video_generation", prompt="x", seconds=12)
        assert cost(call(router, "video_remix", video_id=video.id, prompt="y")) == 3.0
        assert cost(call(router, "video_edit", video_id=video.id, prompt="y")) == 3.0


def test_an_extension_costs_what_is_new_and_not_the_stitched_whole(
    call: Doors, provider: StandIn
) -> None:
    with serving(provider, deployment("east-1", cost_per_second=0.25)) as router:
        video = call(router, "video_generation", prompt="x", seconds=12)
        longer = call(router, "video_extension", video_id=video.id, prompt="y", seconds=8)
        assert longer.seconds == "20"
        assert cost(longer) == 2.0


def test_what_starts_no_job_costs_nothing_that_is_known(call: Doors, provider: StandIn) -> None:
    with serving(provider, deployment("east-1", cost_per_second=0.25)) as router:
        made = call(router, "video_create_character", name="Luna", video=CLIP)
        video = call(router, "video_generation", prompt="x")
        answers = [made, call(router, "video_status", video.id), call(router, "video_list")]
        answers += [call(router, "video_content", video.id), call(router, "video_wait", video.id)]
        assert [cost(answer) for answer in answers] == [None] * 5


def test_it_is_by_the_price_of_who_served(call: Doors, provider: StandIn) -> None:
    with serving(
        provider,
        deployment("east-1", cost_per_second=0.5),
        deployment("west-1", cost_per_second=0.25, order=2),
        deployment("north-1", order=3),
    ) as router:
        costs = []
        for _ in range(3):
            video = call(router, "video_generation", prompt="x", seconds=4)
            costs.append((video.routing.deployment, cost(video)))
            router.drain(video.routing.deployment)
        assert costs == [("east-1", 2.0), ("west-1", 1.0), ("north-1", None)]


def test_a_provider_that_says_nothing_of_the_video_is_believed_to_make_what_was_asked_for(
    call: Doors, provider: StandIn
) -> None:
    with serving(provider, deployment("east-1", cost_per_second=0.25, **RUNWAY)) as router:
        video = call(router, "video_generation", prompt="x", seconds=5, size="1280x720")
        assert cost(video) == 1.25


def test_it_stands_in_no_dump(call: Doors, provider: StandIn) -> None:
    with serving(provider, deployment("east-1", cost_per_second=0.25)) as router:
        video: Video = call(router, "video_generation", prompt="x", seconds=8)
        assert cost(video) == 2.0
        for written in (str(video.model_dump()), video.model_dump_json(), repr(video)):
            assert "cost" not in written
