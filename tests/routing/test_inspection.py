"""Looking in: explanations, statistics, ids described and located, and the reload."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import httpx
import pytest
from routing_parts import (
    CLIP,
    THREE,
    Doors,
    FakeClock,
    account_of,
    deployment,
    litellm_id,
    native_of,
    picks,
    serving,
    written,
)

from router import (
    AuthenticationError,
    ConfigError,
    InvalidIdError,
    NoDeploymentAvailableError,
    NotFoundError,
    OwnershipError,
    Router,
    RouterError,
    UnknownModelError,
)
from router.ids import Copy, IdCodec, Kind
from router.testing import StandIn


def three(provider: StandIn, **parts: Any) -> Router:
    return serving(provider, *[deployment(f"{account}-1") for account in THREE], **parts)


# explain


def verdicts(router: Router, *args: Any, **named: Any) -> dict[str, str]:
    return {c.deployment: c.verdict for c in router.explain(*args, **named).candidates}


def test_every_verdict_is_given_with_its_reason(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = serving(
        provider,
        deployment("east-1"),
        deployment("east-2", api_key="sk-east"),
        deployment("west-1"),
        deployment("east-other", model_name="other"),
        deployment("north-runway", provider="runwayml", base_url="http://runway/v1"),
        deployment("north-0", weight=0),
        deployment("north-2", order=2),
        clock=clock,
    )
    provider.fault("status", status=429, account="west", headers={"retry-after": "60"}, times=None)
    call(router, "video_create_character", name="L", video=CLIP, account="east", model="sora-2")
    with pytest.raises(RouterError):
        call(router, "video_create_character", name="L", video=CLIP, account="west", model="sora-2")
    found = verdicts(router, "create_character", model="sora-2")
    picked = [name for name, verdict in found.items() if verdict == "picked"]
    assert len(picked) == 1
    assert picked[0] in ("east-1", "east-2")
    lost = {"east-1": "east-2", "east-2": "east-1"}[picked[0]]
    assert found == {
        picked[0]: "picked",
        lost: "lost",
        "west-1": "ejected",
        "east-other": "not-named",
        "north-runway": "unsupported",
        "north-0": "drained",
        "north-2": "tier",
    }
    explanation = router.explain("create_character", model="sora-2")
    assert explanation.operation == "create_character"
    assert explanation.picked in ("east-1", "east-2")
    for candidate in explanation.candidates:
        assert candidate.reason
        assert candidate.facts["account"] in THREE
    ejected = next(c for c in explanation.candidates if c.verdict == "ejected")
    assert "60" in ejected.reason or "59" in ejected.reason
    assert ejected.facts["ejections"][0]["scope"] == "submits"


def test_others_than_the_owner_are_not_owner(call: Doors, provider: StandIn) -> None:
    router = three(provider)
    ours = call(router, "video_generation", prompt="x", account="west").id
    expected = {"east-1": "not-owner", "west-1": "picked", "north-1": "not-owner"}
    assert verdicts(router, "edit", video_id=ours, prompt="y") == expected
    assert verdicts(router, "edit", video={"id": ours}, prompt="y") == expected
    assert verdicts(router, "status", video_id=ours) == expected
    assert verdicts(router, "content", video_id=ours, variant="thumbnail") == expected
    luna = call(router, "video_create_character", name="L", video=CLIP, account="west")
    assert verdicts(router, "generation", prompt="x", characters=[luna]) == expected
    assert verdicts(router, "get_character", character_id=luna.id) == expected
    assert verdicts(router, "generation", prompt="x", account="west") == expected


def test_an_explanation_takes_a_calls_arguments(provider: StandIn) -> None:
    router = three(provider)
    arguments = {"prompt": "x", "seconds": "8", "size": "1280x720", "input_reference": b"x"}
    options = {"timeout": 5.0, "metadata": {"t": 1}, "extra_headers": {"a": "b"}, "user": "u"}
    explanation = router.explain(model="sora-2", **arguments, **options)
    assert explanation.operation == "generation"
    assert explanation.picked in ("east-1", "west-1", "north-1")
    assert router.explain("edit", prompt="x", video=CLIP).picked
    assert router.explain("list", limit=5, order="asc").picked
    assert router.explain("create_character", name="L", video=CLIP, replicate=2).picked


def test_an_explanation_sends_and_learns_nothing(provider: StandIn) -> None:
    router = three(provider)
    before = router.statistics()
    for _ in range(5):
        router.explain("generation")
    assert provider.requests == []
    assert router.statistics() == before


@pytest.mark.parametrize(
    ("operation", "named", "error"),
    [
        ("generation", {"model": "sora-9"}, UnknownModelError),
        ("edit", {"video_id": "video_1", "prompt": "x"}, InvalidIdError),
        ("status", {"video_id": "video_1", "account": "mars"}, OwnershipError),
        ("dance", {}, ConfigError),
        ("generation", {"num_retries": 1}, TypeError),
    ],
)
def test_an_explanation_raises_what_the_call_would(
    provider: StandIn, operation: str, named: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        three(provider).explain(operation, **named)


def test_where_all_are_out_nobody_is_picked(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = three(provider, clock=clock)
    provider.fault("status", status=429, headers={"retry-after": "60"}, times=3)
    with pytest.raises(RouterError):
        call(router, "video_generation", prompt="x")
    assert router.explain("generation").picked is None
    assert set(verdicts(router, "generation").values()) == {"ejected"}
    assert router.explain("list").picked  # reads are judged apart


# statistics


def test_statistics_are_plain_values(call: Doors, provider: StandIn, clock: FakeClock) -> None:
    router = three(provider, clock=clock)
    provider.fault("status", status=401, account="west")
    for account in THREE:
        for _ in range(2):
            try:
                call(router, "video_generation", prompt="x", account=account)
            except (AuthenticationError, NoDeploymentAvailableError):
                continue
    known = json.loads(json.dumps(router.statistics()))
    assert set(known) == {"east-1", "west-1", "north-1"}
    assert known["east-1"]["account"] == "east"
    assert known["east-1"]["model_names"] == ["sora-2"]
    assert known["east-1"]["latency"]["generation"]["count"] == 2
    assert known["east-1"]["in_flight"] == 0
    assert known["east-1"]["ejections"] == []
    (ejection,) = known["west-1"]["ejections"]
    assert ejection["scope"] == "both"
    assert ejection["seconds"] == pytest.approx(300)
    assert "sk-" not in json.dumps(known)


# describe_id


def test_an_id_is_described(call: Doors, provider: StandIn) -> None:
    router = three(provider)
    made = call(router, "video_generation", prompt="x", account="west")
    described = router.describe_id(made.id)
    assert described.kind == "video"
    assert described.copies == (("west", native_of(router, made.id)),)
    assert (described.signed, described.known) == (False, True)
    luna = call(router, "video_create_character", name="L", video=CLIP, replicate="all")
    described = router.describe_id(luna.id)
    assert described.kind == "character"
    assert [copy.account for copy in described.copies] == sorted(THREE)
    elsewhere = IdCodec().encode(Kind.VIDEO, [Copy("mars", "video_1")])
    assert router.describe_id(elsewhere).known is False


@pytest.mark.parametrize("text", ["video_1", "", "x", litellm_id(Kind.VIDEO, "east-1", "v")])
def test_ids_of_others_are_not_described(provider: StandIn, text: str) -> None:
    with pytest.raises(InvalidIdError):
        three(provider).describe_id(text)


# locate


def test_locate_asks_each_account_once_and_gives_our_id(call: Doors, provider: StandIn) -> None:
    router = three(provider)
    video = call(router, "video_generation", prompt="x", account="north").id
    luna = call(router, "video_create_character", name="L", video=CLIP, account="west").id
    for ours, operation, kind in (
        (video, "status", Kind.VIDEO),
        (luna, "get_character", Kind.CHARACTER),
    ):
        native = native_of(router, ours)
        for text in (native, litellm_id(kind, "sora-2", native), litellm_id(kind, "", native)):
            sent = len(provider.requests)
            assert call(router, "locate", text) == ours
            asked = provider.requests[sent:]
            assert sorted(picks(asked)) == sorted(THREE)
            assert {request.operation for request in asked} == {operation}
            assert {request.method for request in asked} == {"GET"}


def test_locate_gives_our_own_ids_back_unasked(call: Doors, provider: StandIn) -> None:
    router = three(provider)
    ours = call(router, "video_generation", prompt="x").id
    sent = len(provider.requests)
    assert call(router, "locate", ours) == ours
    assert len(provider.requests) == sent


def test_locate_asks_one_deployment_of_an_account(call: Doors, provider: StandIn) -> None:
    router = serving(
        provider, deployment("east-1"), deployment("east-2", model_name="b"), deployment("west-1")
    )
    ours = call(router, "video_generation", prompt="x", account="west", model="sora-2").id
    sent = len(provider.requests)
    assert call(router, "locate", native_of(router, ours)) == ours
    assert sorted(picks(provider.requests[sent:])) == ["east", "west"]


def test_what_no_account_has_is_not_found(call: Doors, provider: StandIn) -> None:
    router = three(provider)
    for text in ("video_1", "char_1"):
        sent = len(provider.requests)
        with pytest.raises(NotFoundError):
            call(router, "locate", text)
        assert len(provider.requests) == sent + 3
    # A look-up of nothing is no fault of anybody's.
    assert all(not known["ejections"] for known in router.statistics().values())


@pytest.mark.parametrize("down", THREE)
def test_locate_with_an_account_down(
    call: Doors, provider: StandIn, clock: FakeClock, down: str
) -> None:
    router = three(provider, clock=clock, settings={"retries": 0})
    held = {a: call(router, "video_generation", prompt="x", account=a).id for a in THREE}
    provider.fault("status", status=500, account=down, times=None)
    for account, ours in held.items():
        if account != down:
            assert call(router, "locate", native_of(router, ours)) == ours
            continue
        # Nobody else has it, and who may have it cannot be asked: that is no "not found".
        with pytest.raises(RouterError) as caught:
            call(router, "locate", native_of(router, ours))
        assert not isinstance(caught.value, NotFoundError)
        assert caught.value.account == down


def test_locate_passes_by_those_who_have_no_such_read(call: Doors, provider: StandIn) -> None:
    router = serving(
        provider,
        deployment("north-1", provider="runwayml", base_url="http://runway/v1"),
        deployment("east-1"),
    )
    luna = call(router, "video_create_character", name="L", video=CLIP).id
    assert call(router, "locate", native_of(router, luna)) == luna
    task = call(
        router, "video_generation", prompt="x", size="1280x720", custom_llm_provider="runwayml"
    ).id
    assert call(router, "locate", native_of(router, task)) == task


# reload


def from_file(provider: StandIn, path: Path, *deployments: dict[str, Any], **parts: Any) -> Router:
    written(path, {"deployments": list(deployments)})
    transport = parts.pop("transport", provider.transport)
    return Router.from_yaml(
        path,
        environ={},
        http_client=transport,
        async_http_client=transport,
        rng=random.Random(1),
        **{"clock": FakeClock(), **parts},
    )


def test_a_reload_takes_the_new_file(call: Doors, provider: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "deployments.yaml"
    router = from_file(provider, path, deployment("east-1"))
    assert call(router, "video_generation", prompt="x").routing.deployment == "east-1"
    written(path, {"deployments": [deployment("west-1", model_name="new")]})
    router.reload()
    assert call(router, "video_generation", prompt="x", model="new").routing.account == "west"
    with pytest.raises(UnknownModelError):
        call(router, "video_generation", prompt="x", model="sora-2")
    assert set(router.statistics()) == {"west-1"}


@pytest.mark.parametrize(
    "text",
    ["deployments: [", "deployments: []", "nonsense: 1", "deployments: [{id: east-1}]", "\0", ""],
)
def test_a_broken_file_keeps_the_old(
    call: Doors, provider: StandIn, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "deployments.yaml"
    router = from_file(provider, path, deployment("east-1"), deployment("west-1"))
    ours = call(router, "video_generation", prompt="x").id
    before = router.statistics()
    path.write_text(text)
    for _ in range(2):
        with pytest.raises(ConfigError):
            router.reload()
    assert router.statistics() == before
    assert call(router, "video_status", ours).id == ours
    path.unlink()
    with pytest.raises(ConfigError):
        router.reload()
    assert call(router, "video_status", ours).id == ours


def test_what_was_learned_is_kept_by_the_deployments_id(
    call: Doors, provider: StandIn, tmp_path: Path, clock: FakeClock
) -> None:
    path = tmp_path / "deployments.yaml"
    told = [deployment("east-1"), deployment("west-1")]
    router = from_file(provider, path, *told, clock=clock)
    provider.fault("status", status=429, account="east", headers={"retry-after": "60"})
    with pytest.raises(RouterError):
        call(router, "video_generation", prompt="x", account="east")
    written(path, {"deployments": [deployment("north-1"), *told[::-1]]})
    router.reload()
    known = router.statistics()
    assert known["east-1"]["ejections"]
    assert not known["west-1"]["ejections"]
    served = {call(router, "video_generation", prompt="x").routing.account for _ in range(20)}
    assert served == {"west", "north"}


def test_a_new_key_lifts_the_ejection_of_its_account(
    call: Doors, tmp_path: Path, clock: FakeClock
) -> None:
    provider = StandIn(accounts={"sk-east-new": "east"}, seed=7)
    path = tmp_path / "deployments.yaml"
    old = [deployment("east-1", api_key="sk-old"), deployment("east-2", api_key="sk-old")]
    router = from_file(provider, path, *old, clock=clock)
    with pytest.raises(AuthenticationError):
        call(router, "video_generation", prompt="x")
    assert all(known["ejections"] for known in router.statistics().values())
    router.reload()  # nothing new
    with pytest.raises(NoDeploymentAvailableError):
        call(router, "video_generation", prompt="x")
    new = [{**told, "api_key": "sk-east-new"} for told in old]
    written(path, {"deployments": new})
    router.reload()
    assert call(router, "video_generation", prompt="x").routing.account == "east"


class ReloadsInBetween(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Hands on to the stand-in, and does something of ours before the first answer returns."""

    def __init__(self, provider: StandIn) -> None:
        self._transport = provider.transport
        self.do: Any = None

    def _meanwhile(self) -> None:
        do, self.do = self.do, None
        if do is not None:
            do()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._meanwhile()
        return self._transport.handle_request(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self._meanwhile()
        return await self._transport.handle_async_request(request)


def test_a_call_under_way_keeps_its_fleet(call: Doors, provider: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "deployments.yaml"
    transport = ReloadsInBetween(provider)
    told = [deployment("east-1", order=1), deployment("west-1", order=2)]
    router = from_file(provider, path, *told, transport=transport)

    def swap() -> None:
        written(path, {"deployments": [deployment("north-1")]})
        router.reload()

    transport.do = swap
    provider.fault("status", status=429, account="east")
    made = call(router, "video_generation", prompt="x")
    assert made.routing.account == "west"  # which the new file does not know
    assert picks(provider.requests) == ["east", "west"]
    assert account_of(router, made.id) == "west"
    assert call(router, "video_generation", prompt="x").routing.account == "north"
    with pytest.raises(OwnershipError):
        call(router, "video_status", made.id)


def test_new_secrets_sign_after_a_reload(call: Doors, provider: StandIn, tmp_path: Path) -> None:
    path = tmp_path / "deployments.yaml"
    router = from_file(provider, path, deployment("east-1"))
    unsigned = call(router, "video_generation", prompt="x").id
    settings = {"id_secrets": ["a secret"]}
    written(path, {"deployments": [deployment("east-1")], "settings": settings})
    router.reload()
    signed = call(router, "video_generation", prompt="x").id
    assert router.describe_id(signed).signed
    assert not router.describe_id(unsigned).signed
    for ours in (unsigned, signed):
        assert call(router, "video_status", ours).done


def test_a_router_from_data_reloads_the_data_it_was_given(provider: StandIn) -> None:
    router = three(provider)
    router.reload()
    assert set(router.statistics()) == {"east-1", "west-1", "north-1"}
    assert "3 deployments" in repr(router)
    assert "sk-" not in repr(router)
