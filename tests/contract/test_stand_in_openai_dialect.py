"""What the stand-in takes and refuses in OpenAI's dialect, by plain httpx and without a socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from stand_in_fakes import ACCOUNTS, FakeClock

from router.testing import StandIn


@pytest.fixture
def stand_in(clock: FakeClock) -> StandIn:
    return StandIn(accounts=ACCOUNTS, clock=clock, seed=7)


@pytest.fixture
def east(stand_in: StandIn) -> Iterator[httpx.Client]:
    with _client(stand_in, "sk-east") as client:
        yield client


@pytest.fixture
def west(stand_in: StandIn) -> Iterator[httpx.Client]:
    with _client(stand_in, "sk-west") as client:
        yield client


def _client(stand_in: StandIn, key: str) -> httpx.Client:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.Client(transport=stand_in.transport, base_url="https://any/v1", headers=headers)


def _video(client: httpx.Client, **fields: Any) -> str:
    return str(client.post("/videos", json={"prompt": "x", **fields}).json()["id"])


def _character(client: httpx.Client, clip: bytes) -> str:
    files = {"video": ("clip.mp4", clip, "video/mp4")}
    answer = client.post("/videos/characters", data={"name": "Tom"}, files=files)
    return str(answer.json()["id"])


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "prompt", "missing_required_parameter"),
        ({"prompt": ""}, "prompt", "empty_string"),
        ({"prompt": 5}, "prompt", "invalid_type"),
        ({"prompt": "x" * 32_001}, "prompt", "string_above_max_length"),
        ({"prompt": "x", "seconds": "5"}, "seconds", "invalid_value"),
        ({"prompt": "x", "seconds": 4}, "seconds", "invalid_type"),
        ({"prompt": "x", "size": "1x1"}, "size", "invalid_value"),
        ({"prompt": "x", "characters": [{"id": "c"}] * 3}, "characters", "array_above_max_length"),
        ({"prompt": "x", "characters": [{"id": "c"}]}, "characters", "character_not_found"),
        ({"prompt": "x", "characters": ["c"]}, "characters", "invalid_type"),
        ({"prompt": "x", "characters": {"id": "c"}}, "characters", "invalid_type"),
        ({"prompt": "x", "input_reference": "cat.png"}, "input_reference", "invalid_type"),
        ({"prompt": "x", "input_reference": {}}, "input_reference", "invalid_value"),
        (
            {"prompt": "x", "input_reference": {"file_id": "f", "image_url": "u"}},
            "input_reference",
            "invalid_value",
        ),
    ],
)
def test_a_bad_request_names_what_is_wrong(
    east: httpx.Client, stand_in: StandIn, body: dict[str, Any], param: str, code: str
) -> None:
    answer = east.post("/videos", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert stand_in.accepted == []


@pytest.mark.parametrize("reference", [{"file_id": "file-1"}, {"image_url": "data:,"}])
def test_an_input_reference_may_be_an_object(east: httpx.Client, reference: dict[str, str]) -> None:
    fields = {"prompt": "x", "input_reference": reference}
    assert east.post("/videos", json=fields).status_code == 200
    ((key, value),) = reference.items()
    form = {"prompt": "x", f"input_reference[{key}]": value}
    assert east.post("/videos", data=form).status_code == 200
    assert (
        east.post(
            "/videos", files={"prompt": (None, "x"), f"input_reference[{key}]": (None, value)}
        ).status_code
        == 200
    )


def test_models_are_free_until_they_are_given() -> None:
    with _client(StandIn(ACCOUNTS), "sk-east") as client:
        assert client.post("/videos", json={"prompt": "x", "model": "any"}).status_code == 200
    with _client(StandIn(ACCOUNTS, models=["sora-2"]), "sk-east") as client:
        answer = client.post("/videos", json={"prompt": "x", "model": "any"})
        assert answer.status_code == 400
        assert answer.json()["error"]["message"] == (
            "Invalid value: 'any'. Supported values are: 'sora-2'."
        )


def test_a_video_is_edited_however_its_id_is_sent(east: httpx.Client) -> None:
    id = _video(east)
    requests: list[dict[str, Any]] = [
        {"json": {"prompt": "x", "video": {"id": id}}},
        {"data": {"prompt": "x", "video[id]": id}},
        {"files": {"prompt": (None, "x"), "video[id]": (None, id)}},
        {"files": {"prompt": (None, "x"), "video": (None, json.dumps({"id": id}))}},
        {"data": {"prompt": "x", "video": json.dumps({"id": id})}},
    ]
    for request in requests:
        answer = east.post("/videos/edits", **request)
        assert answer.json()["remixed_from_video_id"] == id


@pytest.mark.parametrize("key", ["characters[][id]", "characters[0][id]"])
def test_characters_are_understood_however_they_are_sent(
    east: httpx.Client, clip: bytes, key: str
) -> None:
    id = _character(east, clip)
    assert east.post("/videos", files={"prompt": (None, "x"), key: (None, id)}).status_code == 200
    assert east.post("/videos", data={"prompt": "x", key: "char_0"}).status_code == 400
    as_text = {"prompt": "x", "characters": json.dumps([{"id": id}])}
    assert east.post("/videos", data=as_text).status_code == 200


def test_a_source_must_be_completed(stand_in: StandIn, east: httpx.Client) -> None:
    stand_in.fault("never_ends")
    id = _video(east)
    source = {"prompt": "x", "video": {"id": id}}
    answers = [
        east.post("/videos/edits", json=source),
        east.post("/videos/extensions", json={**source, "seconds": "4"}),
        east.post(f"/videos/{id}/remix", json={"prompt": "x"}),
    ]
    assert [answer.status_code for answer in answers] == [400, 400, 400]
    content = east.get(f"/videos/{id}/content")
    assert content.status_code == 404
    assert content.json()["error"]["message"] == (
        "Video is not ready yet, use GET /v1/videos/{video_id} to check status"
    )
    assert east.delete(f"/videos/{id}").status_code == 409


def test_an_extension_wants_its_seconds_and_has_an_end(east: httpx.Client) -> None:
    id = _video(east, seconds="20")
    source = {"prompt": "x", "video": {"id": id}}
    assert east.post("/videos/extensions", json=source).json()["error"]["param"] == "seconds"
    for total in ("40", "60", "80", "100", "120"):
        body = {"prompt": "x", "seconds": "20", "video": {"id": id}}
        video = east.post("/videos/extensions", json=body).json()
        assert video["seconds"] == total
        id = video["id"]
    body = {"prompt": "x", "seconds": "4", "video": {"id": id}}
    assert east.post("/videos/extensions", json=body).status_code == 400


def test_characters_are_created_by_multipart_only(east: httpx.Client, clip: bytes) -> None:
    answer = east.post("/videos/characters", json={"name": "Tom", "video": "x"})
    assert answer.status_code == 400
    for name in ("", "x" * 81):
        files = {"name": (None, name), "video": ("c.mp4", clip)}
        assert east.post("/videos/characters", files=files).json()["error"]["param"] == "name"
    missing = east.post("/videos/characters", files={"name": (None, "Tom")})
    assert missing.json()["error"]["param"] == "video"


def test_a_video_that_is_put_there_is_one_like_any_other(
    stand_in: StandIn, east: httpx.Client
) -> None:
    stand_in.put_video("video_123", account="east")
    video = east.get("/videos/video_123").json()
    assert video["status"] == "completed"
    assert video.keys() == east.get(f"/videos/{_video(east)}").json().keys()
    assert east.get("/videos/video_123/content").content[4:8] == b"ftyp"
    assert east.post("/videos/video_123/remix", json={"prompt": "x"}).status_code == 200
    assert [submit.operation for submit in stand_in.accepted] == ["generation", "remix"]
    for _ in range(2):
        assert east.delete("/videos/video_123").status_code == 200
        assert east.get("/videos/video_123").status_code == 404
        stand_in.put_video("video_123", account="east")
    assert east.get("/videos", params={"after": "video_123"}).status_code == 200


def test_a_character_that_is_put_there_may_appear(stand_in: StandIn, east: httpx.Client) -> None:
    stand_in.put_character("char_123", account="east")
    assert east.get("/videos/characters/char_123").json()["id"] == "char_123"
    asked = {"prompt": "x", "characters": [{"id": "char_123"}]}
    assert east.post("/videos", json=asked).status_code == 200


def test_the_only_account_need_not_be_named(clock: FakeClock) -> None:
    alone = StandIn({"sk-east": "east", "sk-spare": "east"}, clock=clock)
    alone.put_video("video_123")
    with _client(alone, "sk-spare") as client:
        assert client.get("/videos/video_123").status_code == 200
    with pytest.raises(ValueError, match="one of east, not 'west'"):
        alone.put_video("video_123", account="west")


def test_a_video_put_in_a_running_ones_place_frees_its_slot(clock: FakeClock) -> None:
    busy = StandIn({"sk-east": "east"}, clock=clock, job_seconds=100, max_running_jobs=1)
    with _client(busy, "sk-east") as client:
        busy.put_video(_video(client))
        assert client.post("/videos", json={"prompt": "x"}).status_code == 200
        assert client.post("/videos", json={"prompt": "x"}).status_code == 429


def test_any_bytes_are_a_clip_where_that_is_wished() -> None:
    files = {"video": ("clip.mp4", b"no clip", "video/mp4")}
    for any_clip, status in ((False, 400), (True, 200)):
        with _client(StandIn({"sk-east": "east"}, any_clip=any_clip), "sk-east") as client:
            for path, fields in (
                ("characters", {"name": "Tom"}),
                ("edits", {"prompt": "x", "model": "sora-2"}),
                ("extensions", {"prompt": "x", "model": "sora-2", "seconds": "4"}),
            ):
                answer = client.post(f"/videos/{path}", data=fields, files=files)
                assert answer.status_code == status
            inline = {"prompt": "x", "model": "any", "video": {"url": "data:video/mp4;base64,bm8="}}
            answer = client.post("https://any/xai/v1/videos/edits", json=inline)
            assert answer.status_code == status


def test_accounts_do_not_know_each_others_assets(
    east: httpx.Client, west: httpx.Client, clip: bytes
) -> None:
    video, character = _video(east), _character(east, clip)
    for answer in (
        west.get(f"/videos/{video}"),
        west.get(f"/videos/{video}/content"),
        west.delete(f"/videos/{video}"),
        west.post(f"/videos/{video}/remix", json={"prompt": "x"}),
        west.post("/videos/edits", json={"prompt": "x", "video": {"id": video}}),
    ):
        assert answer.status_code == 404
        assert answer.json()["error"]["message"] == f"Video with id '{video}' not found."
    other = west.get(f"/videos/characters/{character}")
    assert other.status_code == 404
    assert other.json()["error"]["message"] == f"Character with id '{character}' not found."
    with_character = {"prompt": "x", "characters": [{"id": character}]}
    assert west.post("/videos", json=with_character).status_code == 400
    assert west.get("/videos").json()["data"] == []
    assert east.get(f"/videos/{video}").status_code == 200


def test_keys_of_one_account_share_everything(stand_in: StandIn, east: httpx.Client) -> None:
    id = _video(east)
    with _client(stand_in, "sk-east-2") as other_key:
        assert other_key.get(f"/videos/{id}").status_code == 200


def test_the_last_page_and_the_empty_one(east: httpx.Client) -> None:
    empty = {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert east.get("/videos").json() == empty
    ids = [_video(east) for _ in range(3)]
    page = east.get("/videos", params={"limit": 2, "after": ids[2]}).json()
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[1], ids[0], False)
    assert east.get("/videos", params={"limit": 0}).json()["has_more"]
    assert east.get("/videos", params={"limit": 101}).status_code == 400
    assert east.get("/videos", params={"after": "video_0"}).status_code == 404
    assert east.get("/videos", params={"order": "up"}).status_code == 400


@pytest.mark.parametrize("prefix", ["/v1", "/openai/v1", ""])
@pytest.mark.parametrize("key", [{"api-key": "sk-east"}, {"authorization": "Bearer sk-east"}])
def test_azure_is_the_same_language(stand_in: StandIn, prefix: str, key: dict[str, str]) -> None:
    with httpx.Client(transport=stand_in.transport, headers=key) as client:
        url = f"https://x.openai.azure.com{prefix}/videos?api-version=preview"
        id = client.post(url, json={"prompt": "x"}).json()["id"]
        status = client.get(f"https://x{prefix}/videos/{id}?api-version=preview").json()["status"]
        assert status == "completed"


@pytest.mark.parametrize("header", [{}, {"authorization": "Bearer sk-wrong-and-quite-long"}])
def test_a_key_is_needed_and_never_told(stand_in: StandIn, header: dict[str, str]) -> None:
    with httpx.Client(transport=stand_in.transport, headers=header) as client:
        answer = client.post("https://any/v1/videos", json={"prompt": "x"})
    assert answer.status_code == 401
    assert "wrong-and-quite" not in answer.text
    (request,) = stand_in.requests
    assert (request.operation, request.account, request.status) == ("generation", None, 401)


def test_nobody_lives_at_an_unknown_address(east: httpx.Client) -> None:
    for method, path in (("GET", "/models"), ("PUT", "/videos"), ("POST", "/videos/x/content")):
        answer = east.request(method, path)
        assert answer.status_code == 404
        assert "Invalid URL" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content_type", "content"),
    [
        ("application/json", b"{"),
        ("application/json", b"[]"),
        ("application/json", b"\xff"),
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=b", b"--b\r\nnot closed"),
    ],
)
def test_a_body_nobody_can_read(east: httpx.Client, content_type: str, content: bytes) -> None:
    answer = east.post("/videos", content=content, headers={"content-type": content_type})
    assert answer.status_code == 400
    assert "could not parse" in answer.json()["error"]["message"]


def test_the_records_show_what_was_sent(stand_in: StandIn, east: httpx.Client) -> None:
    files = {"input_reference": ("my cat.png", b"12345", "image/png")}
    answer = east.post("/videos?x=1", data={"prompt": "x"}, files=files, headers={"X-A": "b"})
    (request,) = stand_in.requests
    assert (request.operation, request.account, request.method) == ("generation", "east", "POST")
    assert (request.path, request.query, request.status) == ("/v1/videos", {"x": "1"}, 200)
    assert request.headers["x-a"] == "b"
    assert request.fields == {"prompt": "x"}
    (file,) = request.files
    assert (file.field, file.name, file.size) == ("input_reference", "my cat.png", 5)
    assert file.content_type == "image/png"
    (submit,) = stand_in.accepted
    assert (submit.native_id, submit.prompt) == (answer.json()["id"], "x")
    stand_in.reset()
    assert (stand_in.requests, stand_in.accepted) == ([], [])
    assert east.get(f"/videos/{submit.native_id}").status_code == 404


def test_a_seed_makes_the_same_ids() -> None:
    def first_id(seed: int) -> str:
        with _client(StandIn(ACCOUNTS, seed=seed), "sk-east") as client:
            return _video(client)

    assert first_id(1) == first_id(1) != first_id(2)
