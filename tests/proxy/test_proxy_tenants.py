"""No spelling of what another tenant holds leads to it, in whichever field it is sent."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from proxy_parts import Face, facing, tenants, told
from shared_parts import fleet

from router.testing import StandIn

CLIP = b"\0\0\0\x18ftypmp42" + bytes(64)
DATA = tenants(fleet("http://stand-in/v1", "east"))


class Held:
    """What the tenant `web` holds: ids and native ids of a video and a character, and a cursor."""

    def __init__(self, video: str, character: str, page: str, provider: StandIn) -> None:
        self.video, self.character, self.page = video, character, page
        self.native_video = native_in(video)
        assert self.native_video == provider.accepted[0].native_id
        self.native_character = native_in(character)


def native_in(id_: str) -> str:
    """What whoever reads an id may learn from it."""
    body = id_.partition("_vr1")[2]
    raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    account = raw[1]
    start = 2 + account
    return raw[start + 1 : start + 1 + raw[start]].decode()


async def held(face: Face, provider: StandIn) -> Held:
    video = await face.make(key="pk-web")
    await face.make(key="pk-web")
    await face.get(f"/v1/videos/{video}", key="pk-web")
    luna = await face.post(
        "/v1/videos/characters", key="pk-web", data={"name": "Luna"}, files={"video": CLIP}
    )
    page = await face.get("/v1/videos", params={"limit": 1}, key="pk-web")
    assert page.json()["has_more"]
    return Held(video, luna.json()["id"], page.json()["last_id"], provider)


def litellms(kind: str, native: str) -> str:
    plain = f"litellm:custom_llm_provider:openai;model_id:east-1;{kind}_id:{native}"
    return f"{kind}_{base64.b64encode(plain.encode()).decode().rstrip('=')}"


SPELLINGS: Mapping[str, Callable[[Held], str]] = {
    "as it is": lambda it: it.video,
    "the character": lambda it: it.character,
    "the cursor": lambda it: it.page,
    "native": lambda it: it.native_video,
    "the character's native": lambda it: it.native_character,
    "LiteLLM's": lambda it: litellms("video", it.native_video),
    "LiteLLM's of the character": lambda it: litellms("character", it.native_character),
    "in capitals": lambda it: it.video.upper(),
    "its kind in capitals": lambda it: it.video.replace("video_", "VIDEO_"),
    "cut": lambda it: it.video[:-1],
    "cut in front": lambda it: it.video[1:],
    "without its kind": lambda it: it.video.partition("_vr1")[2],
    "as the other kind": lambda it: it.video.replace("video_", "char_"),
    "the character as a video": lambda it: it.character.replace("char_", "video_"),
    "padded": lambda it: it.video + "=",
    "with a blank": lambda it: it.video + " ",
    "with a line's end": lambda it: "\n" + it.video,
    "with a zero": lambda it: it.video + "\0",
    "twice": lambda it: it.video * 2,
    "quoted twice": lambda it: quote(it.video.replace("_", "%5F")),
    "in a path": lambda it: f"x/../{it.native_video}",
}


def video_calls(face: Face, key: str, id_: str) -> list[Any]:
    """All calls that name a video or a file, in every encoding that they have."""
    quoted, prompt = quote(id_, safe=""), {"prompt": "x", "seconds": "4"}
    by_id = {**prompt, "video": {"id": id_}}
    calls = [
        face.get(f"/v1/videos/{quoted}", key=key),
        face.ask("DELETE", f"/v1/videos/{quoted}", key=key),
        face.get(f"/v1/videos/{quoted}/content", key=key),
        face.get(f"/v1/videos/{quoted}/content?variant=thumbnail", key=key),
        face.post(f"/v1/videos/{quoted}/remix", key=key, json={"prompt": "x"}),
        face.get("/v1/videos", params={"after": id_}, key=key),
        face.post("/v1/videos", key=key, json={"prompt": "x", "input_reference": {"file_id": id_}}),
        face.post("/v1/videos", key=key, data={"prompt": "x", "input_reference[file_id]": id_}),
    ]
    for path in ("/v1/videos/edits", "/v1/videos/extensions"):
        calls += [
            face.post(path, key=key, json=by_id),
            face.post(path, key=key, json={**prompt, "video": id_}),
            face.post(path, key=key, json={**prompt, "video": json.dumps({"id": id_})}),
            face.post(path, key=key, json={**prompt, "video_id": id_}),
            face.post(path, key=key, data={**prompt, "video[id]": id_}),
            face.post(path, key=key, data={**prompt, "video_id": id_}, files={"video": CLIP}),
        ]
    return calls


def character_calls(face: Face, key: str, id_: str) -> list[Any]:
    """All calls that name a character."""
    prompt = {"prompt": "Luna waves"}
    return [
        face.get(f"/v1/videos/characters/{quote(id_, safe='')}", key=key),
        face.post("/v1/videos", key=key, json={**prompt, "characters": [{"id": id_}]}),
        face.post("/v1/videos", key=key, json={**prompt, "characters": [id_]}),
        face.post("/v1/videos", key=key, data={**prompt, "characters": json.dumps([id_])}),
        face.post("/v1/videos", key=key, data={**prompt, "characters[][id]": id_}),
        face.post("/v1/videos", key=key, data={**prompt, "characters[0][id]": id_}),
    ]


@pytest.mark.parametrize("spelled", SPELLINGS.values(), ids=SPELLINGS.keys())
async def test_no_spelling_of_anothers_id_is_one(
    provider: StandIn, spelled: Callable[[Held], str]
) -> None:
    async with facing(provider, DATA) as face:
        it = await held(face, provider)
        before = len(provider.requests)
        id_ = spelled(it)
        calls = [*video_calls(face, "pk-batch", id_), *character_calls(face, "pk-batch", id_)]
        answers: list[httpx.Response] = [await call for call in calls]

    assert {answer.status_code for answer in answers} <= {400, 404}
    assert len(provider.requests) == before
    said = " ".join(told(answer)["message"] for answer in answers)
    assert it.native_video not in said or it.native_video in id_


async def test_the_cursor_of_another_is_none_and_ones_own_is(provider: StandIn) -> None:
    async with facing(provider, DATA) as face:
        it = await held(face, provider)
        await face.make(key="pk-batch")
        others = await face.get("/v1/videos", params={"after": it.page}, key="pk-batch")
        own = await face.get("/v1/videos", params={"after": it.page}, key="pk-web")

    assert (others.status_code, own.status_code) == (404, 200)
    assert len(own.json()["data"]) == 1


@pytest.mark.parametrize("status", [401, 429, 503])
async def test_what_a_provider_said_to_one_tenant_is_not_told_to_another(
    provider: StandIn, status: int
) -> None:
    """It puts a deployment out, which the other hears of, and may quote what it was asked."""
    said = {"error": {"message": "Not now: Luna crosses a bridge", "type": "x", "code": None}}
    provider.fault(
        "status", operation="generation", status=status, body=said, headers={"retry-after": "60"}
    )
    async with facing(provider, DATA) as face:
        body = {"prompt": "Luna crosses a bridge"}
        first = await face.post("/v1/videos", key="pk-web", json=body)
        other = await face.post("/v1/videos", key="pk-batch", json={"prompt": "x"})
        shown = await face.get("/operator/state", key="pk-ops")

    assert first.status_code >= 429
    assert (other.status_code, told(other)["code"]) == (503, "no_deployment_available")
    assert "Luna" not in other.text
    assert int(other.headers["retry-after"]) > 30
    assert "Not now" in shown.text
