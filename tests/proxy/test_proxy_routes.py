"""Each route is one of the Router's methods, whichever way a client writes what it wants."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from proxy_parts import Face, facing
from shared_parts import fleet
from starlette.applications import Starlette
from starlette.routing import Mount

from router.testing import StandIn

VIDEO_KEYS = {
    "id", "object", "model", "status", "progress", "created_at", "completed_at", "expires_at",
    "prompt", "size", "seconds", "remixed_from_video_id", "error",
}  # fmt: skip
CLIP = b"\0\0\0\x18ftypmp42" + bytes(64)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(64)


async def a_character(face: Face, name: str = "Luna") -> str:
    made = await face.post("/v1/videos/characters", data={"name": name}, files={"video": CLIP})
    assert made.status_code == 200, made.text
    found: str = made.json()["id"]
    return found


@pytest.mark.parametrize("root", ["", "/v1"])
async def test_every_operation_has_its_route(provider: StandIn, root: str) -> None:
    async with facing(provider) as face:
        made = await face.post(f"{root}/videos", json={"prompt": "A heron lands", "seconds": 4})
        video = made.json()["id"]
        status = await face.get(f"{root}/videos/{video}")
        content = await face.get(f"{root}/videos/{video}/content")
        remixed = await face.post(f"{root}/videos/{video}/remix", json={"prompt": "At dusk"})
        edited = await face.post(
            f"{root}/videos/edits", json={"prompt": "B", "video": {"id": video}}
        )
        extended = await face.post(
            f"{root}/videos/extensions",
            json={"prompt": "C", "seconds": "8", "video": {"id": video}},
        )
        luna = await face.post(
            f"{root}/videos/characters", data={"name": "Luna"}, files={"video": CLIP}
        )
        known = await face.get(f"{root}/videos/characters/{luna.json()['id']}")
        listed = await face.get(f"{root}/videos")
        models = await face.get(f"{root}/models")
        gone = await face.ask("DELETE", f"{root}/videos/{video}")

    for answer in (made, status, remixed, edited, extended):
        assert answer.status_code == 200, answer.text
        assert answer.json().keys() >= VIDEO_KEYS
        assert answer.json()["object"] == "video"
    assert status.json()["id"] == video
    assert remixed.json()["remixed_from_video_id"] == video
    assert content.headers["content-type"] == "video/mp4"
    assert int(content.headers["content-length"]) == len(content.content) > 0
    assert known.json() == luna.json()
    assert {"id", "name", "created_at"} <= luna.json().keys()
    assert listed.json()["object"] == "list"
    assert {"first_id", "last_id", "has_more"} <= listed.json().keys()
    assert len(listed.json()["data"]) == 4
    assert all(one.keys() >= VIDEO_KEYS for one in listed.json()["data"])
    assert models.json()["object"] == "list"
    assert [one["id"] for one in models.json()["data"]] == ["sora-2"]
    assert gone.json() == {"id": video, "object": "video.deleted", "deleted": True}


async def test_what_a_provider_tells_besides_is_passed_on(provider: StandIn) -> None:
    odd = {"id": "v1", "status": "queued", "quality": "high", "nested": {"a": [1, None]}}
    provider.fault("wrong_types", operation="generation", body=odd)

    async with facing(provider) as face:
        answer = await face.post("/v1/videos", json={"prompt": "x"})

    assert answer.json()["quality"] == "high"
    assert answer.json()["nested"] == {"a": [1, None]}
    assert answer.json()["size"] is None


async def test_what_json_cannot_hold_is_null_or_escaped(provider: StandIn) -> None:
    odd = b'{"id": "v1", "status": "queued", "score": NaN, "word": "\\ud800", "far": [Infinity]}'
    provider.fault("garbage", operation="generation", body=odd, content_type="application/json")

    async with facing(provider) as face:
        answer = await face.post("/v1/videos", json={"prompt": "x"})

    assert answer.status_code == 200
    assert json.loads(answer.content)["score"] is None
    assert json.loads(answer.content)["far"] == [None]
    assert b"\\ud800" in answer.content


SOURCES: list[dict[str, Any]] = [
    {"json": {"video": {"id": "ID"}}},
    {"json": {"video": "ID"}},
    {"json": {"video_id": "ID"}},
    {"data": {"video[id]": "ID"}},
    {"data": {"video": "ID"}},
    {"data": {"video": '{"id": "ID"}'}},
    {"data": {"video_id": "ID"}},
    {"files": {"video[id]": (None, "ID")}},
    {"files": {"video": (None, '{"id": "ID"}')}},
    {"files": {"video": (None, "ID")}},
]


def written(source: dict[str, Any], video: str, **fields: str) -> dict[str, Any]:
    """The request that a client writes: `source` with the id, and other fields in its manner."""
    text = json.dumps(source).replace('\\"ID\\"', f'\\"{video}\\"').replace('"ID"', f'"{video}"')
    given: dict[str, Any] = json.loads(text)
    if "files" in given:
        parts = {name: (None, value[1]) for name, value in given["files"].items()}
        return {"files": {**parts, **{name: (None, value) for name, value in fields.items()}}}
    (manner,) = given
    return {manner: {**given[manner], **fields}}


@pytest.mark.parametrize("source", SOURCES, ids=json.dumps)
@pytest.mark.parametrize("path", ["edits", "extensions"])
async def test_a_source_is_named_in_any_encoding(
    provider: StandIn, path: str, source: dict[str, Any]
) -> None:
    async with facing(provider) as face:
        video = await face.make()
        given = written(source, video, prompt="Softer light", seconds="8")
        if path == "edits":
            for fields in given.values():
                del fields["seconds"]
        answer = await face.post(f"/v1/videos/{path}", **given)

    assert answer.status_code == 200, answer.text
    assert provider.requests[-1].account == provider.requests[0].account


@pytest.mark.parametrize("path", ["edits", "extensions"])
async def test_a_source_may_be_sent_along(provider: StandIn, path: str) -> None:
    async with facing(provider) as face:
        answer = await face.post(
            f"/v1/videos/{path}",
            data={"prompt": "Softer light", "seconds": "8", "model": "sora-2"},
            files={"video": ("upload", CLIP, "application/octet-stream")},
        )

    assert answer.status_code == 200, answer.text
    assert len(provider.accepted) == 1


CHARACTERS: list[dict[str, Any]] = [
    {"json": {"characters": [{"id": "ONE"}, {"id": "TWO"}]}},
    {"json": {"characters": ["ONE", "TWO"]}},
    {"data": {"characters[][id]": ["ONE", "TWO"]}},
    {"data": {"characters[1][id]": "TWO", "characters[0][id]": "ONE"}},
    {"data": {"characters": '[{"id": "ONE"}, {"id": "TWO"}]'}},
    {"files": [("characters[][id]", (None, "ONE")), ("characters[][id]", (None, "TWO"))]},
    {"files": [("characters[]", (None, "ONE")), ("characters[]", (None, "TWO"))]},
]


@pytest.mark.parametrize("named", CHARACTERS, ids=json.dumps)
async def test_characters_are_named_in_any_encoding_and_in_their_order(
    provider: StandIn, named: dict[str, Any]
) -> None:
    async with facing(provider, fleet("http://stand-in/v1", "east")) as face:
        one, two = await a_character(face, "One"), await a_character(face, "Two")
        given = json.loads(json.dumps(named).replace("ONE", one).replace("TWO", two))
        if "files" in given:
            given["files"] = [(name, (None, value[1])) for name, value in given["files"]]
            given["files"].append(("prompt", (None, "One and Two")))
        else:
            (manner,) = given
            given[manner]["prompt"] = "One and Two"
        answer = await face.post("/v1/videos", **given)

    assert answer.status_code == 200, answer.text
    asked = provider.requests[-1].fields
    natives = [made.native_id for made in provider.accepted[:2]]
    assert [character["id"] for character in asked["characters"]] == natives


TARGETS: list[dict[str, Any]] = [
    {"json": {"target_model_names": ["fast", "good"]}},
    {"json": {"target_model_names": "fast, good"}},
    {"json": {"target_model_names": '["fast", "good"]'}},
    {"data": {"target_model_names": "fast,good"}},
    {"data": {"target_model_names": ["fast", "good"]}},
    {"data": {"target_model_names[]": ["fast", "good"]}},
    {"data": {"target_model_names[0]": "fast", "target_model_names[1]": "good"}},
    {"data": {"target_model_names": '["fast", "good"]'}},
    {"files": [("target_model_names[]", (None, n)) for n in ("fast", "good")]},
]


@pytest.mark.parametrize("named", TARGETS, ids=json.dumps)
async def test_target_model_names_are_taken_in_any_encoding(
    provider: StandIn, named: dict[str, Any]
) -> None:
    data = fleet("http://stand-in/v1", "east", "west", "north")
    for one, name in zip(data["deployments"], ("fast", "good", "other"), strict=True):
        one["model_name"] = name
    given = json.loads(json.dumps(named))
    if "files" in given:
        given["files"] = [(name, (None, value[1])) for name, value in given["files"]]
        given["files"].append(("prompt", (None, "x")))
    else:
        (manner,) = given
        given[manner].update(prompt="x", model="other")

    async with facing(provider, data) as face:
        answers = [await face.post("/v1/videos", **given) for _ in range(8)]

    assert {answer.status_code for answer in answers} == {200}
    assert {answer.headers["x-router-deployment"] for answer in answers} == {"east-1", "west-1"}


@pytest.mark.parametrize(
    ("given", "wins"),
    [
        ({"headers": {"custom-llm-provider": "azure"}}, "west-1"),
        ({"params": {"custom_llm_provider": "azure"}}, "west-1"),
        ({"json": {"prompt": "x", "custom_llm_provider": "azure"}}, "west-1"),
        (
            {
                "headers": {"custom-llm-provider": "azure"},
                "params": {"custom_llm_provider": "runwayml"},
                "json": {"prompt": "x", "custom_llm_provider": "runwayml"},
            },
            "west-1",
        ),
        (
            {
                "params": {"custom_llm_provider": "azure"},
                "json": {"prompt": "x", "custom_llm_provider": "runwayml"},
            },
            "west-1",
        ),
    ],
)
async def test_a_provider_is_named_by_header_query_or_body_in_that_order(
    provider: StandIn, given: dict[str, Any], wins: str
) -> None:
    data = fleet("http://stand-in/v1")
    data["deployments"][1]["provider"] = "azure"

    async with facing(provider, data) as face:
        answers = [
            await face.post("/v1/videos", **{"json": {"prompt": "x"}, **given}) for _ in range(4)
        ]

    assert {answer.headers.get("x-router-deployment") for answer in answers} == {wins}


@pytest.mark.parametrize(
    "given",
    [
        {"json": {"input_reference": {"image_url": "https://host/heron.png"}}},
        {"data": {"input_reference[image_url]": "https://host/heron.png"}},
        {"data": {"input_reference": '{"image_url": "https://host/heron.png"}'}},
    ],
)
async def test_an_image_elsewhere_is_handed_on(provider: StandIn, given: dict[str, Any]) -> None:
    (manner,) = given
    async with facing(provider) as face:
        answer = await face.post("/v1/videos", **{manner: {**given[manner], "prompt": "x"}})

    assert answer.status_code == 200, answer.text
    assert provider.requests[-1].fields["input_reference"] == {
        "image_url": "https://host/heron.png"
    }


async def test_an_image_may_be_sent(provider: StandIn) -> None:
    async with facing(provider) as face:
        answer = await face.post(
            "/v1/videos", data={"prompt": "x"}, files={"input_reference": ("/home/me/a.png", PNG)}
        )

    assert answer.status_code == 200, answer.text
    (sent,) = provider.requests[-1].files
    assert (sent.name, sent.content_type, sent.size) == ("a.png", "image/png", len(PNG))


async def test_fields_that_nobody_here_knows_go_to_the_provider(provider: StandIn) -> None:
    async with facing(provider) as face:
        await face.post("/v1/videos", json={"prompt": "x", "quality": "high", "n": {"a": [1]}})
        asked = provider.requests[-1].fields
        await face.post("/v1/videos", data={"prompt": "x", "style[tone]": "warm"})
        nested = provider.requests[-1].fields

    assert (asked["quality"], asked["n"]) == ("high", {"a": [1]})
    assert nested["style"] == {"tone": "warm"}


async def test_an_empty_body_is_a_call_without_a_prompt(provider: StandIn) -> None:
    async with facing(provider) as face:
        answers = [
            await face.post("/v1/videos"),
            await face.post("/v1/videos", headers={"content-type": "application/json"}),
            await face.post("/v1/videos", json={}),
        ]

    assert [answer.status_code for answer in answers] == [400] * 3
    assert provider.accepted == []


async def test_a_delete_may_announce_json_and_send_none(provider: StandIn) -> None:
    async with facing(provider) as face:
        video = await face.make()
        await face.get(f"/v1/videos/{video}")
        gone = await face.ask(
            "DELETE", f"/v1/videos/{video}", headers={"content-type": "application/json"}
        )

    assert gone.json()["deleted"] is True


async def test_a_listing_goes_on_from_page_to_page(provider: StandIn) -> None:
    async with facing(provider) as face:
        made = {await face.make() for _ in range(5)}
        found: list[str] = []
        after: dict[str, str] = {}
        while True:
            answer = await face.get("/v1/videos", params={"limit": 2, "order": "asc", **after})
            page = answer.json()
            found += [video["id"] for video in page["data"]]
            if not page["has_more"]:
                break
            after = {"after": page["last_id"]}
        none = await face.get("/v1/videos?limit=0")

    assert sorted(found) == sorted(made)
    assert (none.json()["data"], none.json()["has_more"]) == ([], True)


async def test_a_listing_goes_on_after_a_video_where_there_is_one_account(
    provider: StandIn,
) -> None:
    async with facing(provider, fleet("http://stand-in/v1", "east")) as face:
        made = [await face.make() for _ in range(3)]
        ours = await face.get("/v1/videos", params={"after": made[0], "order": "asc"})
        native = provider.accepted[0].native_id
        theirs = await face.get("/v1/videos", params={"after": native, "order": "asc"})

    for answer in (ours, theirs):
        assert [video["id"] for video in answer.json()["data"]] == made[1:]


async def test_a_listing_is_of_all_groups_unless_one_is_named(provider: StandIn) -> None:
    data = fleet("http://stand-in/v1")
    data["deployments"][1]["model_name"] = "other"

    async with facing(provider, data) as face:
        one, two = await face.make(model="sora-2"), await face.make(model="other")
        every = await face.get("/v1/videos")
        some = await face.get("/v1/videos", params={"model": "other"})
        both = await face.get("/v1/videos", params={"target_model_names[]": ["other", "sora-2"]})

    assert both.json()["data"] == every.json()["data"]
    assert {video["id"] for video in every.json()["data"]} == {one, two}
    assert [video["id"] for video in some.json()["data"]] == [two]


@pytest.mark.parametrize("variant", ["thumbnail", "spritesheet"])
async def test_content_comes_in_its_variant(provider: StandIn, variant: str) -> None:
    async with facing(provider) as face:
        video = await face.make()
        await face.get(f"/v1/videos/{video}")
        answer = await face.get(f"/v1/videos/{video}/content", params={"variant": variant})

    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("image/")


async def test_an_answer_tells_when_to_look_again_and_who_served_it(clock: Any) -> None:
    provider = StandIn(
        accounts={"sk-east": "east"}, job_seconds=100, clock=clock, poll_after_ms=2500
    )
    async with facing(provider, fleet("http://stand-in/v1", "east"), clock=clock) as face:
        made = await face.post("/v1/videos", json={"prompt": "x"})
        status = await face.get(f"/v1/videos/{made.json()['id']}")
        clock.advance(101)
        done = await face.get(f"/v1/videos/{made.json()['id']}")

    assert status.headers["openai-poll-after-ms"] == "2500"
    assert "openai-poll-after-ms" not in done.headers
    assert made.headers["x-router-deployment"] == "east-1"
    assert made.headers["x-router-attempts"] == "1"


async def test_attempts_are_counted(provider: StandIn) -> None:
    provider.fault("status", operation="generation", status=429)

    async with facing(provider) as face:
        answer = await face.post("/v1/videos", json={"prompt": "x"})

    assert answer.headers["x-router-attempts"] == "2"


@pytest.mark.parametrize(
    ("given", "echoed"),
    [("req-7.a_B", True), ("a" * 129, False), ("a b", False), ("<script>", False), ("", False)],
)
async def test_a_request_has_an_id(provider: StandIn, given: str, echoed: bool) -> None:
    async with facing(provider) as face:
        answers = [
            await face.get("/v1/models", headers={"x-request-id": given}),
            await face.get("/nowhere", headers={"x-request-id": given}),
            await face.get("/v1/videos/none", headers={"x-request-id": given}),
        ]

    for answer in answers:
        (named,) = answer.headers.get_list("x-request-id")
        assert (named == given) is echoed
        assert named


async def test_a_key_makes_a_submit_one_job(provider: StandIn) -> None:
    header = {"Idempotency-Key": "order-7"}
    async with facing(provider) as face:
        first = await face.post("/v1/videos", json={"prompt": "x"}, headers=header)
        again = await face.post("/v1/videos", json={"prompt": "x"}, headers=header)
        other = await face.post("/v1/videos", json={"prompt": "y"}, headers=header)

    assert first.json()["id"] == again.json()["id"]
    assert len(provider.accepted) == 1
    assert other.status_code == 409
    assert other.headers["x-should-retry"] == "false"


async def test_an_application_may_stand_within_another(provider: StandIn) -> None:
    async with facing(provider, fleet("http://stand-in/v1", "east")) as face:
        whole = Starlette(routes=[Mount("/video", app=face.app)])
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(whole), base_url="http://site/video"
        ) as client:
            made = await client.post("/v1/videos", json={"prompt": "x"})
            status = await client.get(f"/v1/videos/{made.json()['id']}")
            slash = await client.get("/v1/videos/a%2Fcontent")

    assert status.json()["id"] == made.json()["id"]
    assert slash.status_code == 404
    assert provider.requests[-1].operation == "status"
