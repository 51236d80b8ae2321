"""Who may serve a call: the owner of what it names, in the groups it names, and nobody else."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from routing_parts import (
    CLIP,
    THREE,
    Doors,
    FakeClock,
    account_of,
    deployment,
    fleet,
    in_process,
    native_of,
    picks,
    serving,
    written,
)

from router import (
    InvalidIdError,
    OwnershipError,
    Router,
    RouterError,
    UnknownModelError,
    UnsupportedOperationError,
)
from router.testing import SeenRequest, StandIn

URL = "http://stand-in/v1"


def three(**deployment_keys: Any) -> dict[str, Any]:
    data: dict[str, Any] = fleet(URL, *THREE, **deployment_keys)
    return data


# Ten thousand follow-ups

# Through each door; together they are the ten thousand.
FOLLOW_UPS = 5_000
RELOADS = 20


def _rewritten(rng: random.Random, number: int) -> dict[str, Any]:
    """The same three accounts, a deployment or two of each, under new names, keys and order."""
    deployments = [
        deployment(
            f"d{number}-{account}-{at}",
            account,
            api_key=f"sk-{account}-{rng.randrange(3)}",
            order=rng.choice([1, 1, 2]),
            weight=rng.choice([0, 1, 3]),
        )
        for account in THREE
        for at in range(rng.choice([1, 2]))
    ]
    # One key per account and file, or an account would seem to be two.
    rng.shuffle(deployments)
    # A stranger in the group that owns nothing here: it must never be asked.
    deployments.insert(rng.randrange(3), deployment(f"d{number}-new", "newcomer"))
    return {"deployments": deployments, "settings": {"default_model": "sora-2"}}


def _named_natives(request: SeenRequest) -> list[str]:
    """The native ids that a request names, in its path or its body."""
    parts = request.path.removeprefix("/v1/videos").strip("/").split("/")
    named = [part for part in parts if part.startswith(("video_", "char_"))]
    source = request.fields.get("video")
    named += [source["id"]] if isinstance(source, dict) else []
    return named + [one["id"] for one in request.fields.get("characters", ())]


def test_ten_thousand_follow_ups_all_reach_their_owner(
    call: Doors, tmp_path: Path, clock: FakeClock
) -> None:
    keys = {f"sk-{account}-{n}": account for account in THREE for n in range(3)}
    provider = StandIn(accounts={**keys, "sk-newcomer": "newcomer"}, seed=3, clock=clock)
    rng = random.Random(10_000)
    path = written(tmp_path / "deployments.yaml", _rewritten(rng, 0))
    router = Router.from_yaml(
        path,
        environ={},
        http_client=provider.transport,
        async_http_client=provider.transport,
        clock=clock,
        rng=random.Random(1),
    )
    videos, characters = [], []
    for account in THREE:
        for _ in range(8):
            videos.append(call(router, "video_generation", prompt="x", account=account).id)
            made = call(router, "video_create_character", name="L", video=CLIP, account=account)
            characters.append(made.id)
    owner = {native_of(router, one): account_of(router, one) for one in videos + characters}
    before = len(provider.requests)

    operations = ["status"] * 12 + ["get_character"] * 4 + ["edit", "remix", "generation", "extend"]
    for at in range(FOLLOW_UPS):
        if at % (FOLLOW_UPS // RELOADS) == 0:
            written(path, _rewritten(rng, at + 1))
            router.reload()
        video, character = rng.choice(videos), rng.choice(characters)
        match rng.choice(operations):
            case "status":
                answer = call(router, "video_status", video)
                assert answer.id == video
            case "get_character":
                assert call(router, "video_get_character", character).id == character
            case "edit":
                answer = call(router, "video_edit", video_id=video, prompt="x")
                assert answer.remixed_from_video_id == video
            case "remix":
                call(router, "video_remix", video_id=video, prompt="x")
            case "extend":
                call(router, "video_extension", video_id=video, prompt="x", seconds=4)
            case "generation":
                call(router, "video_generation", prompt="x", characters=[character])

    asked = provider.requests[before:]
    assert len(asked) == FOLLOW_UPS
    misrouted = [
        request
        for request in asked
        if request.status != 200
        or not _named_natives(request)
        or {owner[native] for native in _named_natives(request)} != {request.account}
    ]
    assert misrouted == []
    assert "newcomer" not in picks(asked)


def test_the_stand_ins_accounts_do_not_know_each_others_assets(
    call: Doors, provider: StandIn
) -> None:
    """What the test above stands on: a misrouted call would be seen."""
    router = in_process(provider, three())
    ours = call(router, "video_generation", prompt="x", account="east").id
    with pytest.raises(RouterError) as caught:
        call(router, "video_status", native_of(router, ours), account="west")
    assert caught.value.status == 404


# Native ids


def test_a_native_id_works_where_one_account_is_configured(call: Doors, provider: StandIn) -> None:
    data = {"deployments": [deployment("east-1"), deployment("east-2", model_name="sora-2-pro")]}
    router = in_process(provider, data)
    ours = call(router, "video_generation", prompt="x", model="sora-2").id
    assert call(router, "video_status", native_of(router, ours)).id == ours


def test_a_native_id_works_where_one_account_is_among_the_candidates(
    call: Doors, provider: StandIn
) -> None:
    router = serving(
        provider, deployment("east-1"), deployment("west-1", model_name="other"), settings={}
    )
    ours = call(router, "video_generation", prompt="x", model="other").id
    edited = call(router, "video_edit", video_id=native_of(router, ours), prompt="y", model="other")
    assert edited.routing.account == "west"
    assert edited.remixed_from_video_id == ours


def test_a_native_id_works_with_the_account_named(call: Doors, provider: StandIn) -> None:
    router = in_process(provider, three())
    for account in THREE:
        ours = call(router, "video_generation", prompt="x", account=account).id
        native = native_of(router, ours)
        assert call(router, "video_status", native, account=account).id == ours
        assert call(router, "video_content", native, account=account) == CLIP


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("video_status", {"video_id": "video_1"}),
        ("video_delete", {"video_id": "video_1"}),
        ("video_edit", {"video_id": "video_1", "prompt": "x"}),
        ("video_get_character", {"character_id": "char_1"}),
        ("video_generation", {"characters": ["char_1"], "prompt": "x"}),
        ("video_generation", {"input_reference": {"file_id": "file-1"}, "prompt": "x"}),
    ],
)
def test_a_native_id_that_may_live_anywhere_is_refused(
    call: Doors, provider: StandIn, method: str, arguments: dict[str, Any]
) -> None:
    router = in_process(provider, three())
    with pytest.raises(InvalidIdError) as caught:
        call(router, method, **arguments)
    for word in (*THREE, "account="):
        assert word in str(caught.value)
    assert provider.requests == []


def test_an_account_that_is_not_configured_is_an_ownership_error(
    call: Doors, provider: StandIn
) -> None:
    router = in_process(provider)
    ours = call(router, "video_generation", prompt="x", account="east").id
    sent = len(provider.requests)
    for method, named in (
        ("video_status", {"video_id": "video_1", "account": "mars"}),
        ("video_generation", {"prompt": "x", "account": "mars"}),
        ("video_status", {"video_id": ours, "account": "west"}),
    ):
        with pytest.raises(OwnershipError):
            call(router, method, **named)
    assert len(provider.requests) == sent


def test_a_call_may_name_the_account_that_shall_make_the_asset(
    call: Doors, provider: StandIn
) -> None:
    router = in_process(provider, three())
    for account in THREE * 2:
        assert call(router, "video_generation", prompt="x", account=account).routing.account == (
            account
        )


# custom_llm_provider


def _mixed(provider: StandIn) -> Router:
    return serving(
        provider,
        deployment("east-1"),
        deployment("west-1", provider="azure", base_url="http://stand-in/openai/v1"),
        deployment("north-1", provider="runwayml"),
        settings={},
    )


@pytest.mark.parametrize(
    ("named", "served"),
    [
        ("openai", {"east", "west"}),  # the dialect, which the preset speaks too
        ("azure", {"west"}),
        ("runwayml", {"north"}),
        (None, {"east", "west", "north"}),
    ],
)
def test_custom_llm_provider_keeps_that_provider_or_dialect(
    call: Doors, provider: StandIn, named: str | None, served: set[str]
) -> None:
    router = _mixed(provider)
    seen = {
        call(
            router, "video_generation", prompt="x", size="1280x720", custom_llm_provider=named
        ).routing.account
        for _ in range(30)
    }
    assert seen == served


def test_custom_llm_provider_is_ignored_where_an_id_names_the_owner(
    call: Doors, provider: StandIn
) -> None:
    router = _mixed(provider)
    ours = call(router, "video_generation", prompt="x", account="east").id
    for named in ("openai", "azure", "runwayml", "gemini"):
        assert call(router, "video_status", ours, custom_llm_provider=named).id == ours
        edited = call(router, "video_edit", video_id=ours, prompt="y", custom_llm_provider=named)
        assert edited.routing.account == "east"


def test_a_provider_that_no_candidate_has_is_refused(call: Doors, provider: StandIn) -> None:
    router = in_process(provider)
    with pytest.raises(UnsupportedOperationError):
        call(router, "video_generation", prompt="x", custom_llm_provider="gemini")
    assert provider.requests == []


# Groups


def _groups(provider: StandIn, **parts: Any) -> Router:
    return serving(
        provider,
        deployment("east-1", model_name="fast"),
        deployment("west-1", model_name=["fast", "good"]),
        deployment("north-1", model_name="good"),
        **parts,
    )


@pytest.mark.parametrize(
    ("named", "served"),
    [
        ({"model": "fast"}, {"east", "west"}),
        ({"model": "good"}, {"west", "north"}),
        ({"target_model_names": ["fast"]}, {"east", "west"}),
        ({"target_model_names": ["fast", "good"]}, {"east", "west", "north"}),
        ({"target_model_names": ("good", "good")}, {"west", "north"}),
        ({"target_model_names": "fast,good"}, {"east", "west", "north"}),
        ({"target_model_names": " fast , good ,"}, {"east", "west", "north"}),
        ({"target_model_names": "good"}, {"west", "north"}),
        # Precedence over `model`, even over one that is not known.
        ({"target_model_names": ["good"], "model": "fast"}, {"west", "north"}),
        ({"target_model_names": "good", "model": "no such"}, {"west", "north"}),
        # Nothing named by it: then `model` counts.
        ({"target_model_names": [], "model": "fast"}, {"east", "west"}),
        ({"target_model_names": "", "model": "fast"}, {"east", "west"}),
        ({"target_model_names": None, "model": "fast"}, {"east", "west"}),
    ],
)
@pytest.mark.parametrize("method", ["video_generation", "video_create_character", "video_edit"])
def test_a_call_goes_to_the_groups_it_names(
    call: Doors, provider: StandIn, method: str, named: dict[str, Any], served: set[str]
) -> None:
    router = _groups(provider)
    arguments: dict[str, Any] = {
        "video_generation": {"prompt": "x"},
        "video_create_character": {"name": "L", "video": CLIP},
        "video_edit": {"prompt": "x", "video": CLIP},
    }[method]
    seen = {call(router, method, **arguments, **named).routing.account for _ in range(30)}
    assert seen == served


def test_the_first_target_has_no_precedence_over_the_others(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    """The best of the union is picked: here the one that is not ejected."""
    router = _groups(provider, clock=clock)
    provider.fault("status", status=429, account="east", headers={"retry-after": "60"}, times=None)
    provider.fault("status", status=429, account="west", headers={"retry-after": "60"}, times=None)
    for _ in range(3):
        made = call(router, "video_generation", prompt="x", target_model_names="fast,good")
        assert made.routing.account == "north"


@pytest.mark.parametrize(
    "named",
    [
        {"model": "sora-9"},
        {"target_model_names": "sora-9"},
        {"target_model_names": ["fast", "sora-9"]},
        {"target_model_names": "sora-9,good", "model": "fast"},
        {},  # two groups, and no default_model
    ],
)
@pytest.mark.parametrize("method", ["video_generation", "video_list"])
def test_an_unknown_group_is_an_error_that_lists_the_known(
    call: Doors, provider: StandIn, method: str, named: dict[str, Any]
) -> None:
    router = _groups(provider)
    prompt = {"prompt": "x"} if method == "video_generation" else {}
    with pytest.raises(UnknownModelError) as caught:
        call(router, method, **prompt, **named)
    assert "fast" in str(caught.value)
    assert "good" in str(caught.value)
    assert provider.requests == []


def test_default_model_serves_calls_that_name_neither_group_nor_owner(
    call: Doors, provider: StandIn
) -> None:
    router = _groups(provider, settings={"default_model": "good"})
    seen = {call(router, "video_generation", prompt="x").routing.account for _ in range(12)}
    assert seen == {"west", "north"}
    # An owner is enough, in whichever group it is.
    ours = call(router, "video_generation", prompt="x", model="fast", account="east").id
    assert call(router, "video_edit", video_id=ours, prompt="y").routing.account == "east"


def test_the_only_group_needs_no_name(call: Doors, provider: StandIn) -> None:
    assert call(in_process(provider), "video_generation", prompt="x").id


# Groups and owners together


def _owners(provider: StandIn) -> Router:
    return serving(
        provider,
        deployment("east-fast", "east", model_name="fast", model="upstream-fast"),
        deployment("east-good", "east", model_name="good", model="upstream-good"),
        deployment("west-good", "west", model_name="good"),
        deployment("north-rare", "north", model_name="rare"),
        settings={"default_model": "fast"},
    )


@pytest.mark.parametrize(
    ("named", "served"),
    [
        ({}, {"east-fast", "east-good"}),
        ({"model": "good"}, {"east-good"}),
        ({"target_model_names": "good,rare"}, {"east-good"}),
        ({"target_model_names": ["fast", "good"]}, {"east-fast", "east-good"}),
    ],
)
def test_candidates_of_an_owned_call_are_the_owners_in_the_named_groups(
    call: Doors, provider: StandIn, named: dict[str, Any], served: set[str]
) -> None:
    router = _owners(provider)
    ours = call(router, "video_generation", prompt="x", account="east", model="fast").id
    seen = {
        call(router, "video_edit", video_id=ours, prompt="y", **named).routing.deployment
        for _ in range(16)
    }
    assert seen == served


@pytest.mark.parametrize("named", [{"model": "rare"}, {"target_model_names": ["rare"]}])
def test_no_owner_in_the_named_groups_is_an_ownership_error(
    call: Doors, provider: StandIn, named: dict[str, Any]
) -> None:
    router = _owners(provider)
    ours = call(router, "video_generation", prompt="x", account="east").id
    character = call(router, "video_create_character", name="L", video=CLIP, account="east").id
    sent = len(provider.requests)
    for method, arguments in (
        ("video_edit", {"video_id": ours, "prompt": "y"}),
        ("video_extension", {"video_id": ours, "prompt": "y", "seconds": 4}),
        ("video_generation", {"characters": [character], "prompt": "y"}),
    ):
        with pytest.raises(OwnershipError):
            call(router, method, **arguments, **named)
    assert len(provider.requests) == sent


def test_an_unknown_group_is_named_as_such_even_with_an_owner(
    call: Doors, provider: StandIn
) -> None:
    router = _owners(provider)
    ours = call(router, "video_generation", prompt="x").id
    sent = len(provider.requests)
    with pytest.raises(UnknownModelError):
        call(router, "video_edit", video_id=ours, prompt="y", model="sora-9")
    assert len(provider.requests) == sent


def test_an_account_gone_from_the_configuration_is_an_ownership_error(
    call: Doors, provider: StandIn
) -> None:
    ours = call(in_process(provider), "video_generation", prompt="x", account="east").id
    without = in_process(provider, fleet(URL, "west", "north"))
    sent = len(provider.requests)
    for method, arguments in (
        ("video_status", {}),
        ("video_content", {}),
        ("video_delete", {}),
        ("video_edit", {"prompt": "y"}),
    ):
        with pytest.raises(OwnershipError) as caught:
            call(without, method, video_id=ours, **arguments)
        assert "east" in str(caught.value)
    assert len(provider.requests) == sent
    assert without.describe_id(ours).known is False


def test_characters_without_a_common_holder_are_an_ownership_error(
    call: Doors, provider: StandIn
) -> None:
    router = in_process(provider, three())
    held = {
        account: call(router, "video_create_character", name="L", video=CLIP, account=account).id
        for account in THREE
    }
    sent = len(provider.requests)
    with pytest.raises(OwnershipError) as caught:
        call(router, "video_generation", prompt="x", characters=[held["east"], held["west"]])
    assert "east" in str(caught.value)
    assert "west" in str(caught.value)
    assert len(provider.requests) == sent


def test_characters_go_where_all_of_them_live(call: Doors, provider: StandIn) -> None:
    router = in_process(provider, three())
    luna = call(router, "video_create_character", name="Luna", video=CLIP, replicate=3)
    milo = call(router, "video_create_character", name="Milo", video=CLIP, account="north")
    for pair in ([luna, milo], [milo.id, {"id": luna.id}]):
        made = call(router, "video_generation", prompt="Luna, Milo", characters=pair)
        assert made.routing.account == "north"
    for _ in range(2):
        sent = provider.requests[-1].fields["characters"]
        assert {one["id"] for one in sent} == {
            router.describe_id(luna.id).copies[1].native_id,
            native_of(router, milo.id),
        }
    order = [one["id"] for one in provider.requests[-2].fields["characters"]]
    assert order[1] == native_of(router, milo.id)  # the caller's order is kept


# Weights, tiers, several groups


def test_weight_0_serves_follow_ups_and_nothing_new(call: Doors, provider: StandIn) -> None:
    before = in_process(provider)
    ours = call(before, "video_generation", prompt="x", account="west").id
    router = serving(
        provider, deployment("east-1"), deployment("west-1", weight=0), settings={"retries": 0}
    )
    for _ in range(30):
        assert call(router, "video_generation", prompt="x").routing.account == "east"
        assert (
            call(router, "video_create_character", name="L", video=CLIP).routing.account == "east"
        )
    assert call(router, "video_status", ours).routing.account == "west"
    assert call(router, "video_edit", video_id=ours, prompt="y").routing.account == "west"
    assert call(router, "video_content", ours) == CLIP
    assert {v.id for v in call(router, "video_list", limit=100).data} >= {ours}


def test_a_fleet_of_weight_0_starts_nothing(call: Doors, provider: StandIn) -> None:
    router = serving(provider, deployment("east-1", weight=0))
    with pytest.raises(RouterError):
        call(router, "video_generation", prompt="x")
    assert provider.requests == []


def test_a_higher_tier_serves_only_while_the_lower_one_is_out(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = serving(
        provider,
        deployment("east-1", order=1),
        deployment("west-1", order=2),
        deployment("north-1", order=7),
        clock=clock,
    )

    def served() -> set[str]:
        return {call(router, "video_generation", prompt="x").routing.account for _ in range(10)}

    assert served() == {"east"}
    provider.fault("status", status=429, account="east", headers={"retry-after": "30"})
    assert served() == {"west"}
    provider.fault("status", status=429, account="west", headers={"retry-after": "60"})
    assert served() == {"north"}
    clock.advance(31)
    assert served() == {"east"}


def test_a_deployment_in_several_groups_is_one_deployment(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    """What is learned of it in one group is known in the other."""
    router = _groups(provider, clock=clock)
    provider.fault("status", status=429, account="west", headers={"retry-after": "60"})
    while not any(request.status == 429 for request in provider.requests):
        call(router, "video_generation", prompt="x", model="fast")
    for _ in range(10):
        assert call(router, "video_generation", prompt="x", model="good").routing.account == "north"


def test_the_model_sent_is_the_deployments_own(call: Doors, provider: StandIn) -> None:
    router = _owners(provider)
    call(router, "video_generation", prompt="x", model="fast")
    assert provider.requests[-1].fields["model"] == "upstream-fast"
    call(router, "video_generation", prompt="x", model="good", account="east")
    assert provider.requests[-1].fields["model"] == "upstream-good"
