"""The OpenAPI document against the application: its routes, its answers, what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from proxy_parts import Face, facing, tenants
from shared_parts import fleet

from router.proxy.openapi import document
from router.testing import StandIn

STAND_IN = "http://stand-in/v1"
CLIP = b"\0\0\0\x18ftypmp42" + bytes(64)
DOCUMENT = json.loads(json.dumps(document()))
METHODS = {"get", "post", "delete", "put", "patch", "head", "options", "trace"}


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """What a reference leads to."""
    while "$ref" in node:
        found: Any = DOCUMENT
        for step in node["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        node = found
    return node


def validator(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method, operation in item.items():
            assert method in METHODS
            yield path, method, operation


def operation_of(path: str, method: str) -> dict[str, Any]:
    """The operation of a real path: what is literal beats what is a parameter."""
    fitting = [
        (known.count("{"), item)
        for known, item in DOCUMENT["paths"].items()
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", known), path)
    ]
    found: dict[str, Any] = min(fitting, key=lambda one: one[0])[1][method.lower()]
    return found


def described(answer: httpx.Response) -> dict[str, Any]:
    """What the document says of an answer; an assertion that it says anything."""
    operation = operation_of(answer.request.url.path, answer.request.method)
    status = str(answer.status_code)
    known = operation["responses"]
    said = known.get(status) or known.get(f"{status[0]}XX")
    assert said is not None, f"{status} is not documented: {answer.text[:300]}"
    return resolved(said)


def hold(answer: httpx.Response) -> httpx.Response:
    """The answer, once it was found to be as the document has it."""
    said = described(answer)
    kind = answer.headers["content-type"].partition(";")[0]
    media = said["content"].get(kind) or said["content"].get("*/*")
    assert media is not None, kind
    if kind == "application/json":
        validator(media["schema"]).validate(answer.json())
    for name, header in said["headers"].items():
        given = answer.headers.get(name)
        assert given is not None or not resolved(header).get("required"), name
        if given is not None:
            schema = resolved(header)["schema"]
            value = int(given) if schema.get("type") == "integer" else given
            validator(schema).validate(value)
    return answer


async def asked(face: Face, method: str, path: str, **given: Any) -> httpx.Response:
    """An answer that is as documented, to a body that is as documented, too."""
    if "json" in given:
        body = resolved(operation_of(path, method)["requestBody"])
        validator(body["content"]["application/json"]["schema"]).validate(given["json"])
    return hold(await face.ask(method, path, **given))


# The document -----------------------------------------------------------------------------------


async def test_every_route_is_documented_and_every_documented_route_is_there(
    provider: StandIn,
) -> None:
    async with facing(provider) as face:
        real = set()
        for route in face.app.routes:
            path = re.sub(r"\{(\w+)(:\w+)?\}", r"{\1}", route.path)  # type: ignore[attr-defined]
            for method in METHODS - {"head"}:
                answer = await face.ask(method.upper(), path.replace("{id}", "x"))
                if answer.status_code != 405:
                    real.add((path, method))
    assert {(path, method) for path, method, _ in operations()} == real


def test_every_operation_has_a_name_of_its_own() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names)


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if "$ref" in node:
                assert resolved(node)
            if "schema" in node:
                Draft202012Validator.check_schema(node["schema"])
            for inner in node.values():
                walk(inner)
        elif isinstance(node, list):
            for inner in node:
                walk(inner)

    walk(DOCUMENT)
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_parameter_of_a_path_is_described() -> None:
    for path, _, operation in operations():
        named = {resolved(one)["name"] for one in operation.get("parameters", ())}
        assert set(re.findall(r"\{(\w+)\}", path)) <= named


async def test_it_is_served_without_a_key(provider: StandIn) -> None:
    async with facing(provider, tenants(fleet(STAND_IN))) as face:
        answer = await face.get("/openapi.json")
    assert answer.json() == DOCUMENT


# Answers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("root", ["", "/v1"])
async def test_what_is_answered_is_as_documented(provider: StandIn, root: str) -> None:
    async with facing(provider) as face:
        made = await asked(
            face,
            "POST",
            f"{root}/videos",
            json={
                "prompt": "A heron lands",
                "target_model_names": ["sora-2"],
                "seconds": "4",
                "size": "1280x720",
                "metadata": {"order": "1"},
                "of_a_provider": True,
            },
            headers={"idempotency-key": "one"},
        )
        video = made.json()["id"]
        luna = await asked(
            face,
            "POST",
            f"{root}/videos/characters",
            data={"name": "Luna"},
            files={"video": CLIP},
        )
        assert luna.status_code == 200, luna.text
        answers = [
            made,
            luna,
            await asked(face, "GET", f"{root}/videos/{video}"),
            await asked(face, "GET", f"{root}/videos/{video}/content"),
            await asked(face, "GET", f"{root}/videos", params={"limit": 1, "order": "asc"}),
            await asked(face, "GET", f"{root}/videos/characters/{luna.json()['id']}"),
            await asked(face, "POST", f"{root}/videos/{video}/remix", json={"prompt": "B"}),
            await asked(
                face, "POST", f"{root}/videos/edits", json={"prompt": "C", "video": {"id": video}}
            ),
            await asked(
                face,
                "POST",
                f"{root}/videos/extensions",
                json={"prompt": "D", "seconds": 8, "video_id": video},
            ),
            await asked(
                face,
                "POST",
                f"{root}/videos",
                json={"prompt": "Luna", "characters": [{"id": luna.json()["id"]}]},
            ),
            await asked(face, "GET", f"{root}/models"),
            await asked(face, "DELETE", f"{root}/videos/{video}"),
        ]
    assert [answer.status_code for answer in answers] == [200] * len(answers)


OPERATING = [
    "/",
    "/health/live",
    "/health/ready",
    "/metrics",
    "/openapi.json",
    "/operator/state",
    "/operator/page.css",
    "/operator/page.js",
    "/operator/icon.svg",
]


@pytest.mark.parametrize("path", OPERATING)
async def test_what_an_operator_is_answered_is_as_documented(provider: StandIn, path: str) -> None:
    async with facing(provider) as face:
        assert (await asked(face, "GET", path)).status_code == 200
        assert (await asked(face, "GET", path)).headers["x-request-id"]


async def test_what_goes_wrong_is_as_documented(provider: StandIn) -> None:
    async with facing(provider, tenants(fleet(STAND_IN), max_body=2000)) as face:
        key = {"key": "pk-web"}
        provider.fault("reset", after=True)
        ambiguous = await asked(face, "POST", "/videos", json={"prompt": "A"}, **key)
        same = {"headers": {"idempotency-key": "one"}, **key}
        provider.fault("never_ends", times=None)
        await asked(face, "POST", "/videos", json={"prompt": "A"}, **same)
        found = [
            ambiguous,
            await asked(face, "POST", "/videos", json={"prompt": "B"}, **same),
            await asked(face, "POST", "/videos", json={"prompt": "A"}),
            hold(await face.post("/videos", json={"prompt": ""}, **key)),
            hold(await face.post("/videos", content=b"A heron", **key)),
            hold(await face.post("/videos", content=bytes(3000), **key)),
            await asked(face, "POST", "/videos", json={"prompt": "A", "model": "veo"}, **key),
            await asked(face, "GET", "/videos/video_none", **key),
            await asked(face, "GET", "/videos", params={"limit": "x"}, **key),
            await asked(face, "GET", "/operator/state", **key),
            await asked(face, "GET", "/metrics"),
        ]
        provider.fault("status", status=422)
        found.append(await asked(face, "POST", "/videos", json={"prompt": "A"}, **key))
        face.app.state.readiness.stopping = True
        found.append(await asked(face, "GET", "/health/ready"))
    statuses = [answer.status_code for answer in found]
    assert statuses == [502, 409, 401, 400, 415, 413, 404, 404, 400, 403, 401, 422, 503]
    assert found[0].json()["error"]["accepted"] == "maybe"
    assert found[0].headers["x-should-retry"] == "false"


async def test_what_is_full_or_cannot_be_done_is_as_documented(provider: StandIn) -> None:
    provider.fault("never_ends", times=None)
    data = fleet(STAND_IN, "east", max_parallel_jobs=1, operations=["generation", "status"])
    async with facing(provider, data) as face:
        video = await face.make()
        full = await asked(face, "POST", "/videos", json={"prompt": "A"})
        cannot = await asked(face, "POST", f"/videos/{video}/remix", json={"prompt": "A"})
    assert (full.status_code, cannot.status_code) == (429, 501)
    assert int(full.headers["retry-after"]) >= 1


# Requests ---------------------------------------------------------------------------------------

BAD = [
    ("/videos", {}),
    ("/videos", {"prompt": ""}),
    ("/videos", {"prompt": " "}),
    ("/videos", {"prompt": 5}),
    ("/videos", {"prompt": "x" * 32_001}),
    ("/videos", {"prompt": "A", "seconds": 0}),
    ("/videos", {"prompt": "A", "seconds": "soon"}),
    ("/videos", {"prompt": "A", "size": 720}),
    ("/videos", {"prompt": "A", "model": 5}),
    ("/videos", {"prompt": "A", "target_model_names": [5]}),
    ("/videos", {"prompt": "A", "target_model_names": {"a": "b"}}),
    ("/videos", {"prompt": "A", "characters": [{"name": "Luna"}]}),
    ("/videos", {"prompt": "A", "characters": 5}),
    ("/videos", {"prompt": "A", "input_reference": {"image_url": "file:///etc/passwd"}}),
    ("/videos", {"prompt": "A", "input_reference": {}}),
    ("/videos", {"prompt": "A", "metadata": "x"}),
    ("/videos", {"prompt": "A", "max_cost": 0}),
    ("/videos", {"prompt": "A", "max_cost": "much"}),
    ("/videos", {"prompt": "A", "user": 5}),
    ("/videos", {"prompt": "A", "fallbacks": "perhaps"}),
    ("/videos", {"prompt": "A", "api_base": "http://elsewhere"}),
    ("/videos", {"prompt": "A", "video_id": "x"}),
    ("/videos", {"prompt": "A", "a[b]": "x"}),
    ("/videos/edits", {"prompt": "A"}),
    ("/videos/edits", {"prompt": "A", "video": {"id": 5}}),
    ("/videos/edits", {"prompt": "A", "video": {"id": "x"}, "video_id": "x"}),
    ("/videos/extensions", {"prompt": "A", "video_id": "x"}),
    ("/videos/x/remix", {"prompt": ""}),
]


@pytest.mark.parametrize(("path", "body"), BAD, ids=[json.dumps(one)[:60] for one in BAD])
async def test_what_the_document_forbids_is_refused(
    provider: StandIn, path: str, body: dict[str, Any]
) -> None:
    schema = operation_of(path, "POST")["requestBody"]["content"]["application/json"]["schema"]
    assert not validator(schema).is_valid(body)
    async with facing(provider) as face:
        answer = hold(await face.post(path, json=body))
    assert 400 <= answer.status_code < 500
    assert provider.accepted == []
