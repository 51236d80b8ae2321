"""What a deployment cannot take of a call: told before sending, or dropped where that is wanted."""

from __future__ import annotations

from typing import Any

import pytest
from routing_parts import CLIP, PNG, Doors, FakeClock, deployment, serving

from router import (
    BadRequestError,
    NoDeploymentAvailableError,
    RateLimitError,
    Router,
    UnsupportedOperationError,
)
from router.config import Deployment
from router.operations import Call
from router.providers import PROVIDERS, Lack
from router.providers.runwayml import RunwayML
from router.testing import StandIn

RUNWAY = {"provider": "runwayml", "base_url": "https://api.dev.runwayml.com/v1"}
VLLM = {"provider": "vllm-omni", "base_url": "http://stand-in/vllm-omni/v1"}


def runway(name: str = "north-1", **more: Any) -> dict[str, Any]:
    return deployment(name, **{**RUNWAY, "model": "gen4_turbo", **more})


def vllm(name: str = "west-1", **more: Any) -> dict[str, Any]:
    return deployment(name, **{**VLLM, "model": "wan", **more})


def generate(call: Doors, router: Router, **more: Any) -> Any:
    return call(router, "video_generation", **{"prompt": "a heron", "size": "1280x720", **more})


def accounts(provider: StandIn) -> set[str | None]:
    return {request.account for request in provider.requests}


# Who is a candidate ------------------------------------------------------------------------------


def test_in_a_mixed_group_a_call_goes_to_who_can_take_it(call: Doors, provider: StandIn) -> None:
    router = serving(provider, runway(), vllm(), deployment("east-1"))
    for _ in range(8):
        made = generate(call, router, input_reference={"file_id": "file-1"})
        assert made.routing.account == "east"
    # It is sent as it is to who may take it, and is its server's to refuse.
    for _ in range(8):
        with pytest.raises(BadRequestError) as caught:
            generate(call, router, seconds="2.5")
        assert (caught.value.status, caught.value.account) == (400, "east")
    assert accounts(provider) == {"east"}
    untouched = router.statistics()
    for name in ("north-1", "west-1"):
        assert (untouched[name]["latency"], untouched[name]["ejections"]) == ({}, [])


def test_explain_says_who_cannot_take_a_call_and_what_would_work(provider: StandIn) -> None:
    router = serving(provider, runway(), vllm(), deployment("east-1"))
    explained = router.explain("generation", prompt="x", seconds="2.5")
    assert explained.picked == "east-1"
    reasons = {c.deployment: c.reason for c in explained.candidates if c.verdict == "unsupported"}
    assert reasons == {
        "north-1": "runwayml takes whole seconds; the nearest to 2.5 is 2",
        "west-1": "vllm-omni takes whole seconds; the nearest to 2.5 is 2",
    }
    plain = router.explain("generation", prompt="x")
    assert {c.verdict for c in plain.candidates} == {"picked", "lost"}


def test_explain_knows_files_and_variants(provider: StandIn) -> None:
    router = serving(provider, runway(), deployment("east-1"))
    fine = router.explain("generation", prompt="x", input_reference=PNG)
    assert "unsupported" not in {c.verdict for c in fine.candidates}
    variant = router.explain("content", variant="thumbnail")
    verdicts = {c.deployment: c.verdict for c in variant.candidates}
    assert verdicts == {"north-1": "unsupported", "east-1": "picked"}


def test_the_error_names_every_advice_once(call: Doors, provider: StandIn) -> None:
    router = serving(provider, runway("north-1"), runway("north-2"), vllm())
    with pytest.raises(BadRequestError) as caught:
        generate(call, router, seconds="2.5")
    text = str(caught.value)
    assert text.count("runwayml takes whole seconds; the nearest to 2.5 is 2") == 1
    assert text.count("vllm-omni takes whole seconds") == 1
    assert (caught.value.status, caught.value.accepted, caught.value.operation) == (
        None,
        "no",
        "generation",
    )
    assert provider.requests == []


def test_an_argument_that_is_unknown_as_such_is_an_unsupported_operation(
    call: Doors, provider: StandIn
) -> None:
    router = serving(provider, runway())
    with pytest.raises(UnsupportedOperationError, match="no characters") as caught:
        generate(call, router, characters=["char_1"])
    assert isinstance(caught.value, NotImplementedError)
    # Another length alone would not help.
    with pytest.raises(UnsupportedOperationError, match=r"no characters.*whole seconds"):
        generate(call, router, characters=["char_1"], seconds="2.5")
    assert provider.requests == []


def test_who_cannot_take_it_is_no_way_out_either(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = serving(provider, runway(order=2), deployment("east-1"), clock=clock)
    provider.fault("status", status=429, account="east", headers={"retry-after": "60"}, times=None)
    reference = {"file_id": "file-1"}
    with pytest.raises((RateLimitError, NoDeploymentAvailableError)):
        generate(call, router, input_reference=reference, deadline=5)
    assert accounts(provider) == {"east"}
    assert generate(call, router).routing.account == "north"


def test_a_fallback_that_cannot_take_it_is_none(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    settings = {"fallbacks": {"sora-2": ["other"]}, "default_model": "sora-2"}
    first, second = deployment("east-1"), runway(model_name="other")
    router = serving(provider, first, second, clock=clock, settings=settings)
    provider.fault("status", status=429, account="east", headers={"retry-after": "60"}, times=None)
    with pytest.raises(RateLimitError):
        generate(call, router, input_reference={"file_id": "file-1"})
    assert accounts(provider) == {"east"}
    assert generate(call, router).routing.account == "north"


def test_what_nobody_of_a_group_can_take_is_its_callers_error_and_goes_to_no_fallback(
    call: Doors, provider: StandIn
) -> None:
    settings = {"fallbacks": {"sora-2": ["other"]}, "default_model": "sora-2"}
    router = serving(
        provider, runway(), deployment("east-1", model_name="other"), settings=settings
    )
    with pytest.raises(BadRequestError, match="whole seconds"):
        generate(call, router, seconds="2.5")
    assert provider.requests == []


def test_an_owner_that_cannot_take_it_is_not_left_for_another(
    call: Doors, provider: StandIn
) -> None:
    router = serving(provider, runway(), deployment("east-1"))
    made = generate(call, router, account="north")
    with pytest.raises(UnsupportedOperationError, match="variants"):
        call(router, "video_content", made.id, variant="thumbnail")
    assert [request.operation for request in provider.requests] == ["generation"]


def test_a_pick_is_of_those_who_can_take_it(call: Doors, provider: StandIn) -> None:
    router = serving(provider, runway(), deployment("east-1"))
    for _ in range(6):
        with router.pick("generation", seconds="2.5") as attempt:
            assert attempt.deployment == "east-1"
            attempt.failed(400)
    with (
        pytest.raises(BadRequestError, match="whole seconds"),
        router.pick("generation", account="north", model="sora-2", seconds="2.5"),
    ):
        pass


# Dropping ----------------------------------------------------------------------------------------


def test_what_cannot_be_taken_is_dropped_where_that_is_wanted_and_the_answer_says_so(
    call: Doors, provider: StandIn
) -> None:
    router = serving(provider, runway(drop_params=True))
    reference = {"file_id": "file-1"}
    made = generate(call, router, seconds="2.5", input_reference=reference, account="north")
    (request,) = provider.requests
    assert request.path == "/v1/text_to_video"
    assert request.fields == {
        "model": "gen4_turbo",
        "promptText": "a heron",
        "ratio": "1280:720",
    }
    assert made.routing.warnings == (
        "input_reference was dropped: runwayml takes an image as a file or as {'image_url': …}",
        "seconds was dropped: runwayml takes whole seconds; the nearest to 2.5 is 2",
    )


def test_what_can_be_taken_is_not_dropped(call: Doors, provider: StandIn) -> None:
    router = serving(provider, runway(drop_params=True))
    made = generate(call, router, seconds="5")
    assert provider.requests[0].fields["duration"] == 5
    assert made.routing.warnings == ()


def test_each_attempt_drops_what_its_own_deployment_cannot_take(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    first, second = vllm(drop_params=True), deployment("east-1", order=2)
    router = serving(provider, first, second, clock=clock)
    provider.fault("status", status=429, account="west", headers={"retry-after": "60"})
    with pytest.raises(BadRequestError):
        generate(call, router, seconds="2.5")
    west, east = provider.requests
    assert "seconds" not in west.fields
    assert east.fields["seconds"] == "2.5"


def test_characters_variants_and_sources_are_never_dropped(call: Doors, provider: StandIn) -> None:
    router = serving(provider, runway(drop_params=True))
    made = generate(call, router)
    with pytest.raises(UnsupportedOperationError, match="characters"):
        generate(call, router, characters=["char_1"], seconds="2.5")
    with pytest.raises(UnsupportedOperationError, match="variants"):
        call(router, "video_content", made.id, variant="thumbnail")
    with pytest.raises(UnsupportedOperationError):
        call(router, "video_edit", prompt="x", video=CLIP)
    assert len(provider.requests) == 1


def test_a_length_that_was_dropped_has_no_price(call: Doors, provider: StandIn) -> None:
    router = serving(provider, runway(drop_params=True, cost_per_second=0.1))
    assert generate(call, router, seconds="5").routing.cost == pytest.approx(0.5)
    # How long the video is that the provider makes of its own accord, nobody said.
    assert generate(call, router, seconds="2.5").routing.cost is None


def test_a_pick_says_what_to_leave_out(provider: StandIn) -> None:
    router = serving(provider, runway(drop_params=True))
    with router.pick("generation", seconds="2.5") as attempt:
        assert attempt.dropped == ("seconds",)
        attempt.failed(400)
    with router.pick("generation", seconds="5") as attempt:
        assert attempt.dropped == ()
        attempt.failed(400)


def test_only_who_drops_is_a_candidate_for_what_must_be_dropped(
    call: Doors, provider: StandIn
) -> None:
    router = serving(provider, runway("north-1"), runway("west-1", drop_params=True))
    served = {generate(call, router, seconds="2.5").routing.account for _ in range(6)}
    assert served == {"west"}
    verdicts = {c.deployment: c.verdict for c in router.explain(seconds="2.5").candidates}
    assert verdicts == {"north-1": "unsupported", "west-1": "picked"}


# What it costs ----------------------------------------------------------------------------------


class _Counting(RunwayML):
    def __init__(self) -> None:
        self.asked: list[str] = []

    def lacks(self, call: Call[Any], deployment: Deployment) -> tuple[Lack, ...]:
        self.asked.append(deployment.model)
        return super().lacks(call, deployment)


def test_providers_are_asked_once_for_a_model_and_not_of_calls_that_carry_nothing(
    call: Doors, provider: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    counting = _Counting()
    monkeypatch.setitem(PROVIDERS, "runwayml", counting)
    many = [runway(f"north-{i}", model=f"gen{i % 2}") for i in range(50)]
    router = serving(provider, *many)
    call(router, "video_generation", prompt="a heron", extra_body={"ratio": "1280:720"})
    assert counting.asked == []
    generate(call, router, seconds="5")
    assert counting.asked == ["gen0", "gen1"]
