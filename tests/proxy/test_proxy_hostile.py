"""What a caller sends chooses no address, key, header or path, and no file of this machine."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from proxy_parts import facing, tenants, told
from shared_parts import fleet

from router.testing import StandIn

CLIP = b"\0\0\0\x18ftypmp42" + bytes(64)
HARMLESS = {"prompt": "x"}


@pytest.mark.parametrize(
    "name",
    [
        "api_key", "api_base", "base_url", "api_version", "headers", "extra_headers", "extra_body",
        "extra_query", "account", "tenant", "timeout", "deadline", "retries", "num_retries",
        "max_wait", "mock_response", "idempotency_key", "to", "drop_params",
    ],
)  # fmt: skip
@pytest.mark.parametrize("manner", ["json", "data", "files"])
async def test_what_is_not_the_callers_to_say_is_refused(
    provider: StandIn, name: str, manner: str
) -> None:
    fields: dict[str, Any] = {**HARMLESS, name: "http://elsewhere/v1"}
    if manner == "files":
        fields = {key: (None, value) for key, value in fields.items()}

    async with facing(provider) as face:
        answer = await face.post("/v1/videos", **{manner: fields})

    assert answer.status_code == 400
    assert told(answer)["param"] == name
    assert provider.requests == []


async def test_a_nested_one_is_refused_too(provider: StandIn) -> None:
    async with facing(provider) as face:
        answer = await face.post("/v1/videos", data={**HARMLESS, "extra_headers[host]": "evil"})

    assert answer.status_code == 400


async def test_headers_of_the_caller_stay_here(provider: StandIn) -> None:
    mine = {
        "x-forwarded-for": "10.0.0.1",
        "openai-organization": "org-1",
        "x-api-base": "http://elsewhere",
        "authorization": "Bearer anything",
        "cookie": "a=b",
    }
    async with facing(provider) as face:
        await face.post("/v1/videos", json=HARMLESS, headers=mine)

    (seen,) = provider.requests
    assert (
        not {"x-forwarded-for", "openai-organization", "x-api-base", "cookie"} & seen.headers.keys()
    )
    assert seen.headers["authorization"] != "Bearer anything"


async def test_queries_of_the_caller_stay_here(provider: StandIn) -> None:
    async with facing(provider) as face:
        video = await face.make()
        await face.get(f"/v1/videos/{video}?api_base=http://elsewhere&x=1")
        await face.get(f"/v1/videos/{video}/content?variant=thumbnail&api_key=1")

    assert [dict(seen.query) for seen in provider.requests[1:]] == [{}, {"variant": "thumbnail"}]


@pytest.mark.parametrize("path", ["edits", "extensions"])
@pytest.mark.parametrize("manner", ["json", "data", "files"])
async def test_a_text_is_never_a_path(
    provider: StandIn, tmp_path: Path, path: str, manner: str
) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(CLIP)
    fields: dict[str, Any] = {
        "prompt": "x",
        "seconds": "4",
        "video": str(secret),
        "model": "sora-2",
    }
    if manner == "files":
        fields = {key: (None, value) for key, value in fields.items()}

    async with facing(provider, fleet("http://stand-in/v1", "east")) as face:
        answer = await face.post(f"/v1/videos/{path}", **{manner: fields})

    assert answer.status_code == 404
    assert all(seen.files == () for seen in provider.requests)
    assert provider.accepted == []


@pytest.mark.parametrize(
    "video",
    [
        "/etc/passwd",
        ["/etc/passwd"],
        {"id": "video_1", "path": "/etc/passwd"},
        {"path": "/etc/passwd"},
        {"id": ["x"]},
        {"id": 5},
        5,
        True,
        '{"id": 5}',
        '{"id"',
        "",
        None,
    ],
    ids=repr,
)
async def test_a_clip_that_is_no_file_is_refused(provider: StandIn, video: Any) -> None:
    async with facing(provider, fleet("http://stand-in/v1", "east")) as face:
        answers = [
            await face.post("/v1/videos/characters", json={"name": "Luna", "video": video}),
            await face.post("/v1/videos/edits", json={"prompt": "x", "video": video}),
        ]

    assert answers[0].status_code == 400
    assert answers[1].status_code in (400, 404)
    assert provider.accepted == []
    assert "root:" not in answers[0].text + answers[1].text


@pytest.mark.parametrize(
    "reference",
    [
        {"image_url": "file:///etc/passwd"},
        {"image_url": " file:///etc/passwd"},
        {"image_url": "/etc/passwd"},
        {"image_url": "ftp://host/x.png"},
        {"image_url": "https://a/x.png", "file_id": "file-1"},
        {"image_url": "https://a/x.png", "detail": "high"},
        {"image_url": {"url": "https://a/x.png"}},
        {"path": "/etc/passwd"},
        {},
        "/etc/passwd",
        ["/etc/passwd"],
        7,
    ],
    ids=json.dumps,
)
async def test_an_image_is_a_file_or_on_the_web(provider: StandIn, reference: Any) -> None:
    async with facing(provider) as face:
        answer = await face.post("/v1/videos", json={**HARMLESS, "input_reference": reference})

    assert answer.status_code == 400
    assert told(answer)["param"] == "input_reference"
    assert provider.requests == []


PATHS = [
    "a%2Fcontent", "a%2fremix", "characters%2Fchar_1", "%2E%2E", "..%2F..%2Fmodels",
    "%2e%2e%2fmodels", "a%00b", "a%0d%0aHost:%20evil", "%ff%fe", "a%3Fx=1", "a%23b", "%20",
    "a;b", "a%5C..%5Cb", "x" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("signed", [True, False], ids=["tenants", "open"])
async def test_an_id_in_a_path_is_one_segment(provider: StandIn, path: str, signed: bool) -> None:
    data = fleet("http://stand-in/v1", "east")
    async with facing(provider, tenants(data) if signed else data) as face:
        answers = [
            await face.get(f"/v1/videos/{path}", key="pk-web"),
            await face.ask("DELETE", f"/v1/videos/{path}", key="pk-web"),
            await face.get(f"/v1/videos/{path}/content", key="pk-web"),
            await face.get(f"/v1/videos/characters/{path}", key="pk-web"),
        ]

    assert all(answer.status_code in (404, 405) for answer in answers), answers
    assert all(told(answer) for answer in answers)
    for seen in provider.requests:
        assert seen.path.startswith("/v1/videos/")
        assert seen.operation in ("status", "delete", "content", "get_character")
        assert dict(seen.query) == {}


async def test_a_native_id_with_a_slash_goes_out_as_one_segment(provider: StandIn) -> None:
    async with facing(provider, fleet("http://stand-in/v1", "east")) as face:
        await face.get("/v1/videos/operations%2F7")

    assert provider.requests[-1].operation == "status"


DEEP = "[" * 100 + "]" * 100
DEEPEST = "[" * 200_000
BODIES = [
    b"{", b"", b"null", b"[]", b'"x"', b"5", b"\xff\xfe", b'{"prompt": "\xc3\x28"}',
    b'{"prompt": "x", "prompt": "y"}', b'{"prompt": "x", "a": {"b": 1, "b": 2}}',
    b'{"prompt": "x", "a": NaN}', b'{"prompt": "x", "a": -Infinity}',
    b'{"prompt": "x", "a": 1e999}', b'{"prompt": "x", "a": ' + b"9" * 5000 + b"}",
    b'{"prompt": "x", "a": "\\ud800"}', b'{"prompt": "\\udc00"}', b'{"\\ud800": 1, "prompt": "x"}',
    f'{{"prompt": "x", "a": {DEEP}}}'.encode(), f'{{"prompt": "x", "a": {DEEPEST}}}'.encode(),
    b'\xef\xbb\xbf{"prompt": "x"}', b'{"prompt": "x"} trailing',
    b'{"prompt": 5}', b'{"prompt": ["x"]}', b'{"prompt": null}', b'{"prompt": "x", "seconds": []}',
    b'{"prompt": "x", "seconds": true}', b'{"prompt": "x", "seconds": -4}',
    b'{"prompt": "x", "size": 5}', b'{"prompt": "x", "model": 5}', b'{"prompt": "x", "model": {}}',
    b'{"prompt": "x", "characters": 5}', b'{"prompt": "x", "characters": [5]}',
    b'{"prompt": "x", "characters": [{"name": "a"}]}', b'{"prompt": "x", "characters": [[]]}',
    b'{"prompt": "x", "characters": "[{"}', b'{"prompt": "x", "target_model_names": 5}',
    b'{"prompt": "x", "target_model_names": [5]}', b'{"prompt": "x", "target_model_names": {}}',
    b'{"prompt": "x", "custom_llm_provider": 5}', b'{"prompt": "x", "user": {}}',
    b'{"prompt": "x", "metadata": 5}', b'{"prompt": "x", "max_cost": "much"}',
    b'{"prompt": "x", "max_cost": -1}', b'{"prompt": "x", "fallbacks": "sora-2-pro"}',
    b'{"prompt": "x", "fallbacks": {}}', b'{"prompt": "x", "video": {"id": "video_1"}}',
    b'{"prompt": "x", "video_id": "video_1"}', b'{"prompt": "x", "characters[][id]": "char_1"}',
    b'{"prompt": "x", "": 1}', b'{"prompt": "x", "a\\r\\nb": 1}',
    json.dumps({"prompt": "x" * 32_001}).encode(),
    json.dumps({"prompt": "x", "a": [0] * 100_001}).encode(),
    json.dumps({"prompt": "x", "a": [{}] * 50_001}).encode(),
    json.dumps({"prompt": "x", "characters": ["char_1"] * 101}).encode(),
    json.dumps({"prompt": "x", "target_model_names": ["sora-2"] * 101}).encode(),
    json.dumps({"prompt": "x", "target_model_names": "sora-2," * 101}).encode(),
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES, ids=lambda body: repr(body[:60]))
async def test_a_body_that_is_none_is_400(provider: StandIn, body: bytes) -> None:
    async with facing(provider) as face:
        answer = await face.post(
            "/v1/videos", content=body, headers={"content-type": "application/json"}
        )

    assert answer.status_code == 400, answer.text
    assert told(answer)["message"]
    assert provider.requests == []


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/xml", "video/mp4", "multipart/mixed", "", "x/y/z"]
)
async def test_other_media_types_are_415(provider: StandIn, content_type: str) -> None:
    async with facing(provider) as face:
        answer = await face.post(
            "/v1/videos", content=b"prompt=x", headers={"content-type": content_type}
        )

    assert answer.status_code == 415
    assert provider.requests == []


async def test_a_body_that_is_packed_is_415(provider: StandIn) -> None:
    packed = {"content-type": "application/json", "content-encoding": "gzip"}
    async with facing(provider) as face:
        answer = await face.post(
            "/v1/videos", content=gzip.compress(b'{"prompt": "x"}'), headers=packed
        )

    assert answer.status_code == 415
    assert told(answer)["code"] == "unsupported_content_encoding"


def form(*parts: bytes, end: bytes = b"--B--\r\n") -> bytes:
    return b"".join(b"--B\r\n" + part + b"\r\n" for part in parts) + end


def field(name: bytes, value: bytes = b"x", more: bytes = b"") -> bytes:
    return b'Content-Disposition: form-data; name="' + name + b'"' + more + b"\r\n\r\n" + value


PROMPT = field(b"prompt")
FORMS = {
    "nothing": b"",
    "no boundary in it": b"hello",
    "no end": form(PROMPT, end=b""),
    "cut off in a header": b"--B\r\nContent-Dispo",
    "a part without a name": form(PROMPT, b"Content-Disposition: form-data\r\n\r\nx"),
    "a part without headers": form(PROMPT, b"\r\nx"),
    "an attachment": form(PROMPT, b'Content-Disposition: attachment; name="a"\r\n\r\nx'),
    "a name that is no text": form(PROMPT, field(b"\xff\xfe")),
    "a value that is no text": form(field(b"prompt", b"\xff\xfe")),
    "a field twice": form(PROMPT, PROMPT),
    "a name and a nested one": form(PROMPT, field(b"a"), field(b"a[b]")),
    "a nested one and a name": form(PROMPT, field(b"a[b]"), field(b"a")),
    "brackets without a name": form(PROMPT, field(b"[id]")),
    "brackets that do not end": form(PROMPT, field(b"a[b")),
    "brackets in brackets": form(PROMPT, field(b"a[[b]]")),
    "deep brackets": form(PROMPT, field(b"a" + b"[b]" * 50)),
    "too many parts": form(PROMPT, *(field(b"a[]") for _ in range(1500))),
    "a long header": form(PROMPT, field(b"a" * 10_000)),
    "a file by an odd name": form(PROMPT, field(b"attachment", CLIP, b'; filename="a.mp4"')),
    "a file as the prompt": form(field(b"prompt", CLIP, b'; filename="a.mp4"')),
    "a file within a field": form(PROMPT, field(b"a[b]", CLIP, b'; filename="a.mp4"')),
    "two files": form(
        PROMPT,
        field(b"input_reference", CLIP, b'; filename="a.png"'),
        field(b"input_reference", CLIP, b'; filename="b.png"'),
    ),
    "a file in every field": form(
        PROMPT, *(field(b"f%d" % n, b"x", b'; filename="a"') for n in range(500))
    ),
    "a part of many options": form(PROMPT, field(b"a", more=b";" * 3000)),
    "an empty file": form(PROMPT, field(b"input_reference", b"", b'; filename="a.png"')),
}


@pytest.mark.parametrize("body", FORMS.values(), ids=FORMS.keys())
async def test_a_form_that_is_none_is_400(provider: StandIn, body: bytes) -> None:
    async with facing(provider) as face:
        answer = await face.post(
            "/v1/videos",
            content=body,
            headers={"content-type": "multipart/form-data; boundary=B"},
        )

    assert answer.status_code == 400, answer.text
    assert told(answer)["message"]
    assert provider.accepted == []


async def test_a_file_in_every_field_opens_few_of_ours(
    provider: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, true = 0, tempfile.TemporaryFile

    def counted() -> Any:
        nonlocal opened
        opened += 1
        return true()

    monkeypatch.setattr(tempfile, "TemporaryFile", counted)
    async with facing(provider) as face:
        await face.post(
            "/v1/videos",
            content=FORMS["a file in every field"],
            headers={"content-type": "multipart/form-data; boundary=B"},
        )

    assert 0 < opened < 10


async def test_where_a_file_cannot_be_kept_it_is_said(
    provider: StandIn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    async with facing(provider) as face:
        answer = await face.post(
            "/v1/videos", data=HARMLESS, files={"input_reference": b"\x89PNG" + bytes(8)}
        )

    assert (answer.status_code, told(answer)["code"]) == (503, "no_room")
    assert "gone" not in answer.text
    assert provider.requests == []


@pytest.mark.parametrize("boundary", ["", "; boundary=", "; boundary=" + "b" * 500, "; boundary=é"])
async def test_a_boundary_that_is_none_is_400(provider: StandIn, boundary: str) -> None:
    kind = f"multipart/form-data{boundary}".encode("latin-1")
    async with facing(provider) as face:
        answer = await face.post("/v1/videos", content=form(PROMPT), headers={"content-type": kind})

    assert answer.status_code == 400


async def test_a_filename_is_no_path_and_ends_no_header(provider: StandIn) -> None:
    name = b'; filename="../../etc/a\\"\r\nX-Evil: 1.png"'.replace(b"\r\n", b"%0D%0A")
    body = form(PROMPT, field(b"input_reference", b"\x89PNG" + bytes(8), name))

    async with facing(provider) as face:
        answer = await face.post(
            "/v1/videos",
            content=body,
            headers={"content-type": "multipart/form-data; boundary=B"},
        )

    assert answer.status_code == 200, answer.text
    (sent,) = provider.requests[-1].files
    assert "/" not in sent.name
    assert sent.field == "input_reference"


@pytest.mark.parametrize("operation", ["edits", "extensions", "remix"])
@pytest.mark.parametrize("name", ["characters", "input_reference", "file_id", "character_id"])
async def test_an_operation_takes_no_ids_that_are_not_its_own(
    provider: StandIn, operation: str, name: str
) -> None:
    """They would reach the provider as they are: native ids, of whichever tenant."""
    async with facing(provider, tenants(fleet("http://stand-in/v1", "east"))) as face:
        video = await face.make(key="pk-web")
        path = f"/v1/videos/{video}/remix" if operation == "remix" else f"/v1/videos/{operation}"
        body = {"prompt": "x", "seconds": "4", name: [{"id": "char_of_another"}]}
        if operation != "remix":
            body["video"] = {"id": video}
        answer = await face.post(path, key="pk-web", json=body)

    assert answer.status_code == 400
    assert told(answer)["param"] == name
    assert len(provider.accepted) == 1


async def test_a_remix_names_no_model(provider: StandIn) -> None:
    async with facing(provider) as face:
        video = await face.make()
        await face.post(f"/v1/videos/{video}/remix", json={"prompt": "x", "model": "gpt-9"})

    assert "model" not in provider.requests[-1].fields


@pytest.mark.parametrize("limit", ["-1", "101", "1e3", "x", "٣", "1" * 30])
async def test_a_limit_is_a_number(provider: StandIn, limit: str) -> None:
    async with facing(provider) as face:
        answer = await face.get("/v1/videos", params={"limit": limit})

    assert answer.status_code == 400


@pytest.mark.parametrize(
    "query",
    [
        {"order": "up"},
        {"after": "page_vr1AAAA"},
        {"after": "x y"},
        {"after": ["a", "b"]},
        {"limit": ["1", "2"]},
        {"limit[]": "1"},
        {"model[x]": "sora-2"},
        {"target_model_names": "[5]"},
    ],
)
async def test_an_odd_query_is_refused(provider: StandIn, query: dict[str, Any]) -> None:
    async with facing(provider, fleet("http://stand-in/v1", "east")) as face:
        answer = await face.get("/v1/videos", params=query)

    assert answer.status_code in (400, 404)
    assert provider.requests == []


@pytest.mark.parametrize("key", ["", "k" * 257])
async def test_an_idempotency_key_is_short_and_not_empty(provider: StandIn, key: str) -> None:
    async with facing(provider) as face:
        answer = await face.post("/v1/videos", json=HARMLESS, headers={"idempotency-key": key})

    assert answer.status_code == 400
    assert provider.accepted == []


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"content": b" " * 2000, "headers": {"content-type": "application/json"}}, 413),
        ({"data": {"prompt": "x" * 2000}}, 413),
        ({"files": {"input_reference": b"x" * 2000}, "data": {"prompt": "x"}}, 413),
    ],
)
@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_has_a_limit(
    provider: StandIn, given: dict[str, Any], status: int, announced: bool
) -> None:
    async with facing(
        provider, {**fleet("http://stand-in/v1"), "proxy": {"max_body": 1000}}
    ) as face:
        request = face._client.build_request("POST", "/v1/videos", **given)
        if not announced:
            del request.headers["content-length"]
        answer = await face._client.send(request)

    assert answer.status_code == status
    assert told(answer)["code"] == "too_large"
    assert provider.requests == []


@pytest.mark.parametrize("path", ["/v1/videos?after=video_none", "/v1/videos"])
async def test_nobody_takes_a_deployment_out_by_naming_what_is_not_there(
    provider: StandIn, path: str
) -> None:
    missing = {"error": {"message": "No such file.", "type": "x", "param": None, "code": None}}
    image = {"prompt": "x", "input_reference": {"file_id": "file_none"}}
    async with facing(provider, fleet("http://stand-in/v1", "east")) as face:
        if "after" not in path:
            provider.fault("status", operation="generation", status=404, body=missing)
        answers = [
            await face.get(path) if "after" in path else await face.post(path, json=image),
            await face.get("/v1/videos"),
            await face.post("/v1/videos", json=HARMLESS),
        ]

    assert [answer.status_code for answer in answers] == [404, 200, 200]


@pytest.mark.parametrize(
    "native", ["model_not_found", "no-such-model:unknown.model", "DeploymentNotFound"]
)
async def test_nobody_takes_a_deployment_out_by_what_it_is_called(
    provider: StandIn, native: str
) -> None:
    """Providers quote the id that they do not find, and what they say of models is believed."""
    async with facing(provider, fleet("http://stand-in/v1", "east")) as face:
        video = await face.make()
        answers = [
            await face.get(f"/v1/videos/{native}"),
            await face.get("/v1/videos", params={"after": native}),
            await face.get(f"/v1/videos/{video}"),
            await face.get("/v1/videos"),
        ]

    assert [answer.status_code for answer in answers] == [404, 404, 200, 200]
    assert native in told(answers[0])["message"]
