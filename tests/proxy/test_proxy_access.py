"""Who may call, and what one caller sees of another: nothing, where keys are tenants."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pytest
from proxy_parts import KEYS, SECRET, Face, facing, tenants, told
from shared_parts import fleet, in_process
from starlette.requests import Request

from router import Router
from router.errors import (
    BadRequestError,
    ConflictError,
    InvalidIdError,
    RouterError,
    UnknownModelError,
)
from router.proxy.answers import Refusal
from router.proxy_settings import ProxySettings
from router.state import MemoryStore
from router.tenants import Tenant
from router.testing import StandIn

CLIP = b"\0\0\0\x18ftypmp42" + bytes(64)
DATA = fleet("http://stand-in/v1")


def with_keys(*keys: Mapping[str, Any], **data: Any) -> dict[str, Any]:
    return {**fleet("http://stand-in/v1"), **data, "proxy": {"keys": list(keys)}}


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "missing_api_key"),
        ({"authorization": "Bearer "}, 401, "missing_api_key"),
        ({"authorization": "Bearer pk-nobody"}, 401, "invalid_api_key"),
        ({"authorization": "Basic cGstd2Vi"}, 401, "missing_api_key"),
        ({"authorization": "Bearer " + "k" * 5000}, 401, "invalid_api_key"),
        ({"authorization": "Bearer pk-web"}, 200, None),
        ({"authorization": "bearer   pk-web"}, 200, None),
        ({"api-key": "pk-web"}, 200, None),
        ({"authorization": b"Bearer \xff\xfe"}, 401, "invalid_api_key"),
    ],
)
async def test_a_call_needs_a_key(
    provider: StandIn, headers: Any, status: int, code: str | None
) -> None:
    async with facing(provider, with_keys(*KEYS)) as face:
        answer = await face.get("/v1/models", headers=headers)

    assert answer.status_code == status
    if code is not None:
        assert told(answer)["code"] == code
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_who_has_no_key_sends_no_body(provider: StandIn) -> None:
    async with facing(provider, with_keys(*KEYS)) as face:
        answer = await face.post("/v1/videos", content=b"{broken")

    assert answer.status_code == 401


async def test_without_keys_anybody_may_call(provider: StandIn) -> None:
    async with facing(provider) as face:
        assert (await face.get("/v1/models")).status_code == 200


async def test_a_key_may_stand_in_the_file_as_its_digest(provider: StandIn) -> None:
    digest = hashlib.sha256(b"pk-web").hexdigest()

    async with facing(provider, with_keys({"name": "web", "sha256": digest})) as face:
        assert (await face.get("/v1/models", key="pk-web")).status_code == 200
        assert (await face.get("/v1/models", key=digest)).status_code == 401


async def test_keys_may_be_changed_while_it_serves(provider: StandIn) -> None:
    async with facing(provider, tenants(DATA)) as face:
        video = await face.make(key="pk-web")
        renewed = Router.from_dict(
            {**DATA, "proxy": {"keys": [{"name": "web", "key": "pk-new"}]}}, environ={}
        ).config.proxy
        face.app.state.access.renew(renewed)
        old = await face.get(f"/v1/videos/{video}", key="pk-web")
        new = await face.get(f"/v1/videos/{video}", key="pk-new")
        face.app.state.access.renew(ProxySettings())

    assert (old.status_code, new.status_code) == (401, 200)


# Requests a minute -------------------------------------------------------------------------------


async def test_a_key_makes_so_many_requests_a_minute(provider: StandIn, clock: Any) -> None:
    keys = ({"name": "web", "key": "pk-web", "rpm": 2}, {"name": "batch", "key": "pk-batch"})

    async with facing(provider, with_keys(*keys), clock=clock) as face:
        first = [(await face.get("/v1/models", key="pk-web")).status_code for _ in range(2)]
        clock.advance(20)
        over = await face.get("/v1/models", key="pk-web")
        other = await face.get("/v1/models", key="pk-batch")
        clock.advance(41)
        later = await face.get("/v1/models", key="pk-web")

    assert first == [200, 200]
    assert over.status_code == 429
    assert (told(over)["type"], told(over)["code"]) == ("requests", "rate_limit_exceeded")
    assert 40 <= int(over.headers["retry-after"]) <= 41
    assert (other.status_code, later.status_code) == (200, 200)


async def test_workers_count_together(provider: StandIn, clock: Any) -> None:
    data = with_keys({"name": "web", "key": "pk-web", "rpm": 3})
    store = MemoryStore(clock.time)

    async with (
        facing(provider, data, clock=clock, store=store) as one,
        facing(provider, data, clock=clock, store=store) as two,
    ):
        statuses = [
            (await face.get("/v1/models", key="pk-web")).status_code
            for face in (one, two, one, two, one)
        ]

    assert statuses == [200, 200, 200, 429, 429]


# Model groups ------------------------------------------------------------------------------------


def grouped(**settings: Any) -> dict[str, Any]:
    """Group sora-2 at east, and sora-2-pro at west; a key for the one and a key for both."""
    data = with_keys(
        {"name": "web", "key": "pk-web", "models": ["sora-2"]}, {"name": "all", "key": "pk-all"}
    )
    data["deployments"][1]["model_name"] = "sora-2-pro"
    return {**data, "settings": settings}


@pytest.mark.parametrize("settings", [{}, {"id_secrets": [SECRET]}], ids=["shared", "tenants"])
@pytest.mark.parametrize(
    "named",
    [
        {"model": "sora-2-pro"},
        {"target_model_names": ["sora-2-pro"]},
        {"target_model_names": "sora-2,sora-2-pro"},
    ],
)
async def test_a_key_uses_its_own_groups_only(
    provider: StandIn, settings: dict[str, Any], named: dict[str, Any]
) -> None:
    async with facing(provider, grouped(**settings)) as face:
        answer = await face.post("/v1/videos", key="pk-web", json={"prompt": "x", **named})

    assert answer.status_code == 404
    assert told(answer)["message"].endswith("there are sora-2")
    assert provider.requests == []


async def test_a_key_sees_its_own_groups_only(provider: StandIn) -> None:
    async with facing(provider, grouped()) as face:
        own = await face.get("/v1/models", key="pk-web")
        every = await face.get("/v1/models", key="pk-all")

    assert [one["id"] for one in own.json()["data"]] == ["sora-2"]
    assert [one["id"] for one in every.json()["data"]] == ["sora-2", "sora-2-pro"]


@pytest.mark.parametrize(
    "settings",
    [{}, {"default_model": "sora-2"}, {"default_model": "sora-2-pro"}],
    ids=["none", "own", "other"],
)
async def test_who_has_one_group_need_not_name_it(
    provider: StandIn, settings: dict[str, Any]
) -> None:
    async with facing(provider, grouped(**settings)) as face:
        answer = await face.post("/v1/videos", key="pk-web", json={"prompt": "x"})

    assert answer.headers["x-router-deployment"] == "east-1"


async def test_follow_ups_stay_within_a_keys_groups(provider: StandIn) -> None:
    async with facing(provider, grouped()) as face:
        video = await face.make(key="pk-all", model="sora-2-pro")
        answers = [
            await face.get(f"/v1/videos/{video}", key="pk-web"),
            await face.get(f"/v1/videos/{video}/content", key="pk-web"),
            await face.ask("DELETE", f"/v1/videos/{video}", key="pk-web"),
            await face.post(f"/v1/videos/{video}/remix", key="pk-web", json={"prompt": "x"}),
            await face.post(
                "/v1/videos/edits", key="pk-web", json={"prompt": "x", "video": {"id": video}}
            ),
        ]
        own = await face.get(f"/v1/videos/{video}", key="pk-all")

    assert [answer.status_code for answer in answers] == [404] * 5
    assert own.status_code == 200


async def test_a_listing_stays_within_a_keys_groups(provider: StandIn) -> None:
    async with facing(provider, grouped()) as face:
        await face.make(key="pk-all", model="sora-2-pro")
        video = await face.make(key="pk-all", model="sora-2")
        listed = await face.get("/v1/videos", key="pk-web")

    assert [one["id"] for one in listed.json()["data"]] == [video]


@pytest.mark.parametrize(("key", "status"), [("pk-web", 503), ("pk-all", 200)])
async def test_fallbacks_stay_within_a_keys_groups(
    provider: StandIn, key: str, status: int
) -> None:
    provider.fault("status", account="east", status=401, times=None)

    async with facing(provider, grouped(fallbacks={"sora-2": ["sora-2-pro"]})) as face:
        body = {"prompt": "x", "model": "sora-2"}
        await face.post("/v1/videos", key="pk-web", json=body)
        answer = await face.post("/v1/videos", key=key, json=body)

    assert answer.status_code == status


# Tenants -----------------------------------------------------------------------------------------


async def every_follow_up(face: Face, key: str, video: str, character: str) -> list[int]:
    """The statuses of all calls that name a video or a character."""
    source = {"prompt": "x", "video": {"id": video}}
    answers = [
        await face.get(f"/v1/videos/{video}", key=key),
        await face.get(f"/v1/videos/{video}/content", key=key),
        await face.post(f"/v1/videos/{video}/remix", key=key, json={"prompt": "x"}),
        await face.post("/v1/videos/edits", key=key, json=source),
        await face.post("/v1/videos/extensions", key=key, json={**source, "seconds": "4"}),
        await face.get(f"/v1/videos/characters/{character}", key=key),
        await face.post(
            "/v1/videos", key=key, json={"prompt": "Luna", "characters": [{"id": character}]}
        ),
        await face.get("/v1/videos", params={"after": video}, key=key),
        await face.ask("DELETE", f"/v1/videos/{video}", key=key),
    ]
    return [answer.status_code for answer in answers]


async def made_both(face: Face, key: str) -> tuple[str, str]:
    video = await face.make(key=key)
    await face.get(f"/v1/videos/{video}", key=key)
    luna = await face.post(
        "/v1/videos/characters", key=key, data={"name": "Luna"}, files={"video": CLIP}
    )
    return video, luna.json()["id"]


async def test_what_another_tenant_made_is_not_there(provider: StandIn) -> None:
    async with facing(provider, tenants(fleet("http://stand-in/v1", "east"))) as face:
        video, character = await made_both(face, "pk-web")
        before = len(provider.requests)
        others = await every_follow_up(face, "pk-batch", video, character)
        asked = len(provider.requests) - before
        own = await every_follow_up(face, "pk-web", video, character)

    assert others == [404] * 9
    assert asked == 0
    assert own == [200] * 9


async def test_without_secrets_keys_share_ids(provider: StandIn) -> None:
    data = with_keys(*KEYS)
    async with facing(provider, data) as face:
        video = await face.make(key="pk-web")
        answer = await face.get(f"/v1/videos/{video}", key="pk-batch")
        listed = await face.get("/v1/videos", key="pk-batch")

    assert answer.status_code == 200
    assert [one["id"] for one in listed.json()["data"]] == [video]


@pytest.mark.parametrize("accept", [True, False])
async def test_a_tenants_ids_are_its_own_whatever_is_accepted_elsewhere(
    provider: StandIn, accept: bool
) -> None:
    data = tenants(fleet("http://stand-in/v1", "east"))
    data["settings"]["accept_unsigned_ids"] = accept
    unsigned = in_process(provider, fleet("http://stand-in/v1", "east"))
    signed = in_process(
        provider, {**fleet("http://stand-in/v1", "east"), "settings": {"id_secrets": [SECRET]}}
    )
    ids = [
        unsigned.video_generation(prompt="x").id,
        signed.video_generation(prompt="x").id,
        provider.accepted[0].native_id,
        "video_bGl0ZWxsbTpjdXN0b21fbGxtX3Byb3ZpZGVyOm9wZW5haTttb2RlbF9pZDplYXN0LTE7dmlkZW9faWQ6djE=",
    ]
    luna = unsigned.video_create_character(name="Luna", video=CLIP)
    before = len(provider.requests)

    async with facing(provider, data) as face:
        statuses = [(await face.get(f"/v1/videos/{one}", key="pk-web")).status_code for one in ids]
        for character in (luna.id, provider.accepted[-1].native_id):
            named = {"prompt": "Luna", "characters": [{"id": character}]}
            answer = await face.post("/v1/videos", key="pk-web", json=named)
            statuses.append(answer.status_code)
        image = {"prompt": "x", "input_reference": {"file_id": "file-1"}}
        statuses.append((await face.post("/v1/videos", key="pk-web", json=image)).status_code)

    assert statuses == [404] * 7
    assert len(provider.requests) == before
    unsigned.close()
    signed.close()


async def test_a_listing_shows_a_tenant_its_own_and_signs_no_others(provider: StandIn) -> None:
    stranger = in_process(provider, DATA)
    for _ in range(30):
        stranger.video_generation(prompt="not through the proxy")
    stranger.close()

    async with facing(provider, tenants(DATA)) as face:
        web = {await face.make(key="pk-web") for _ in range(5)}
        batch = {await face.make(key="pk-batch") for _ in range(3)}
        found: dict[str, set[str]] = {}
        for key in ("pk-web", "pk-batch", "pk-ops"):
            after: dict[str, str] = {}
            found[key] = set()
            while True:
                params = {"limit": 2, **after}
                page = (await face.get("/v1/videos", params=params, key=key)).json()
                found[key] |= {video["id"] for video in page["data"]}
                assert len(page["data"]) <= 2
                if not page["has_more"]:
                    break
                after = {"after": page["last_id"]}

    assert found == {"pk-web": web, "pk-batch": batch, "pk-ops": set()}


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_a_page_is_filled_from_behind_what_others_made(provider: StandIn, order: str) -> None:
    async with facing(provider, tenants(fleet("http://stand-in/v1", "east"))) as face:
        mine = [await face.make(key="pk-web")]
        for _ in range(120):
            await face.make(key="pk-batch")
        mine.append(await face.make(key="pk-web"))
        page = (await face.get("/v1/videos", params={"order": order}, key="pk-web")).json()

    assert {video["id"] for video in page["data"]} == set(mine)
    assert not page["has_more"]


async def test_who_made_nothing_costs_no_exchange(provider: StandIn) -> None:
    async with facing(provider, tenants(DATA)) as face:
        await face.make(key="pk-web")
        before = len(provider.requests)
        page = (await face.get("/v1/videos", key="pk-batch")).json()

    assert (page["data"], page["has_more"]) == ([], False)
    assert len(provider.requests) == before


async def test_another_worker_knows_what_a_tenant_made(provider: StandIn, clock: Any) -> None:
    store, data = MemoryStore(clock.time), tenants(DATA)

    async with (
        facing(provider, data, clock=clock, store=store) as one,
        facing(provider, data, clock=clock, store=store) as two,
    ):
        video = await one.make(key="pk-web")
        one.router.share()
        listed = await two.get("/v1/videos", key="pk-web")
        status = await two.get(f"/v1/videos/{video}", key="pk-web")

    assert [made["id"] for made in listed.json()["data"]] == [video]
    assert status.status_code == 200


@pytest.mark.parametrize("data", [tenants(DATA), with_keys(*KEYS)], ids=["tenants", "shared"])
async def test_an_idempotency_key_is_its_tenants(provider: StandIn, data: dict[str, Any]) -> None:
    header = {"Idempotency-Key": "order-7"}
    body = {"prompt": "x"}
    async with facing(provider, data) as face:
        one = await face.post("/v1/videos", key="pk-web", json=body, headers=header)
        same = await face.post("/v1/videos", key="pk-web", json=body, headers=header)
        other = await face.post("/v1/videos", key="pk-batch", json=body, headers=header)
        odd = await face.post("/v1/videos", key="pk-batch", json={"prompt": "y"}, headers=header)

    assert one.json()["id"] == same.json()["id"] != other.json()["id"]
    assert len(provider.accepted) == 2
    assert odd.status_code == 409


async def test_a_provider_sees_other_keys_for_other_tenants(provider: StandIn) -> None:
    data = tenants(fleet("http://stand-in/v1", "east", idempotency_header="idempotency-key"))
    header = {"Idempotency-Key": "order-7"}

    async with facing(provider, data) as face:
        for key in ("pk-web", "pk-batch"):
            await face.post("/v1/videos", key=key, json={"prompt": "x"}, headers=header)

    one, other = (request.headers["idempotency-key"] for request in provider.requests)
    assert one != other


async def test_names_of_characters_do_not_cross_tenants(provider: StandIn) -> None:
    """What is known of a character is told by its id, and that is another one for each tenant."""
    async with facing(provider, tenants(fleet("http://stand-in/v1", "east"))) as face:
        _, luna = await made_both(face, "pk-web")
        answer = await face.post(
            "/v1/videos", key="pk-batch", json={"prompt": "x", "characters": [{"id": luna}]}
        )

    assert answer.status_code == 404
    assert "Luna" not in answer.text


async def test_a_new_key_under_the_old_name_finds_what_it_made(provider: StandIn) -> None:
    async with facing(provider, tenants(DATA)) as face:
        video = await face.make(key="pk-web")
    renewed = tenants(DATA)
    renewed["proxy"] = {"keys": [{"name": "web", "key": "pk-rotated"}]}
    renewed["settings"] = {"id_secrets": ["a-newer-secret", SECRET]}

    async with facing(provider, renewed) as face:
        assert (await face.get(f"/v1/videos/{video}", key="pk-rotated")).status_code == 200


def asking(key: str) -> Request:
    return Request({"type": "http", "headers": [(b"authorization", f"Bearer {key}".encode())]})


@pytest.mark.parametrize(
    ("data", "allowed"),
    [
        (tenants(DATA), {"pk-ops"}),
        (with_keys(*KEYS), {"pk-web", "pk-batch", "pk-ops"}),
    ],
    ids=["tenants", "shared"],
)
async def test_where_keys_are_tenants_the_fleet_is_an_operators_to_see(
    provider: StandIn, data: dict[str, Any], allowed: set[str]
) -> None:
    async with facing(provider, data) as face:
        operator = face.app.state.access.operator
        for key in ("pk-web", "pk-batch", "pk-ops"):
            if key in allowed:
                assert operator(asking(key)).name == key.removeprefix("pk-")
                continue
            with pytest.raises(Refusal) as refused:
                operator(asking(key))
            assert refused.value.status == 403
        with pytest.raises(Refusal) as refused:
            operator(asking("pk-none"))
        assert refused.value.status == 401


async def test_operators_read_the_ids_of_all_tenants(provider: StandIn) -> None:
    async with facing(provider, tenants(fleet("http://stand-in/v1", "east"))) as face:
        video = await face.make(key="pk-web")

    described = face.router.describe_id(video)
    assert [tuple(copy) for copy in described.copies] == [("east", provider.accepted[0].native_id)]
    assert described.signed
    with pytest.raises(InvalidIdError):
        face.router.describe_id(video[:-3] + "AAA")


# Without the proxy -------------------------------------------------------------------------------


def test_an_application_may_serve_tenants_itself(provider: StandIn, call: Any) -> None:
    data = {**fleet("http://stand-in/v1", "east"), "settings": {"id_secrets": [SECRET]}}
    router = in_process(provider, data)
    one, two = Tenant("one"), Tenant("two", models=("sora-2",))
    video = call(router, "video_generation", prompt="x", idempotency_key="k", tenant=one)

    assert call(router, "video_status", video.id, tenant=one).id == video.id
    assert call(router, "video_wait", video.id, tenant=one).done
    assert [v.id for v in call(router, "video_list", tenant=one).data] == [video.id]
    assert call(router, "video_list", tenant=two).data == []
    for other in (two, None):
        with pytest.raises(InvalidIdError):
            call(router, "video_status", video.id, tenant=other)
    again = call(router, "video_generation", prompt="x", idempotency_key="k", tenant=two)
    assert again.id != video.id
    with pytest.raises(ConflictError):
        call(router, "video_generation", prompt="y", idempotency_key="k", tenant=one)
    with pytest.raises(UnknownModelError):
        call(router, "video_generation", prompt="y", tenant=Tenant("three", models=("other",)))
    call.close(router)


def test_a_lost_job_is_resumed_by_its_tenant_only(provider: StandIn, call: Any) -> None:
    data = {**fleet("http://stand-in/v1", "east"), "settings": {"id_secrets": [SECRET]}}
    router = in_process(provider, data)
    one, two = Tenant("one"), Tenant("two")
    provider.fault("reset", operation="generation", after=True)
    with pytest.raises(RouterError) as lost:
        call(router, "video_generation", prompt="x", idempotency_key="k", tenant=one)
    assert lost.value.accepted == "maybe"

    video = call(router, "resume", lost.value, tenant=one)

    assert call(router, "video_status", video.id, tenant=one).id == video.id
    assert [v.id for v in call(router, "video_list", tenant=one).data] == [video.id]
    with pytest.raises(InvalidIdError):
        call(router, "video_status", video.id, tenant=two)
    for other in (two, None):
        with pytest.raises(BadRequestError, match="another tenant"):
            call(router, "resume", lost.value, tenant=other)
    call.close(router)


# Fields that nobody here knows --------------------------------------------------------------------


@pytest.mark.parametrize("manner", ["json", "data"])
@pytest.mark.parametrize("operation", ["videos", "edits", "extensions", "remix"])
async def test_a_tenant_sends_no_field_that_might_name_what_is_anothers(
    provider: StandIn, operation: str, manner: str
) -> None:
    """An id tells whoever reads it the native one, which the account takes from all tenants."""
    async with facing(provider, tenants(fleet("http://stand-in/v1", "east"))) as face:
        own = await face.make(key="pk-batch")
        path = {"videos": "", "remix": f"/{own}/remix"}.get(operation, f"/{operation}")
        body = {"prompt": "x", "seconds": "4", "previous_job_id": provider.accepted[0].native_id}
        if operation in ("edits", "extensions"):
            body["video_id"] = own
        answer = await face.post(f"/v1/videos{path}", key="pk-batch", **{manner: body})

    assert answer.status_code == 400
    assert (told(answer)["code"], told(answer)["param"]) == ("unknown_parameter", "previous_job_id")
    assert len(provider.accepted) == 1


@pytest.mark.parametrize("manner", ["json", "data"])
async def test_a_tenant_sends_those_that_the_operator_lists(provider: StandIn, manner: str) -> None:
    data = tenants(fleet("http://stand-in/v1", "east"), extra_fields=["quality", "style"])
    body = {"prompt": "x", "quality": "high", "style": "warm"}
    async with facing(provider, data) as face:
        listed = await face.post("/v1/videos", key="pk-web", **{manner: body})
        more = await face.post("/v1/videos", key="pk-web", **{manner: {**body, "asset": "a_1"}})

    assert (listed.status_code, more.status_code) == (200, 400)
    (sent,) = provider.accepted
    assert (provider.requests[-1].fields["quality"], sent.account) == ("high", "east")


async def test_keys_that_share_ids_send_what_the_provider_may_know(provider: StandIn) -> None:
    async with facing(provider, with_keys(*KEYS)) as face:
        body = {"prompt": "x", "previous_job_id": "job_1"}
        assert (await face.post("/v1/videos", key="pk-web", json=body)).status_code == 200
    assert provider.requests[-1].fields["previous_job_id"] == "job_1"
