"""Forms as clients write them, as fields."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.requests import Request

from router.proxy.forms import nested, received
from router.proxy_settings import ProxySettings


@pytest.mark.parametrize(
    ("pairs", "fields"),
    [
        ([("prompt", "x"), ("seconds", "4")], {"prompt": "x", "seconds": "4"}),
        ([("video[id]", "a")], {"video": {"id": "a"}}),
        ([("c[][id]", "a"), ("c[][id]", "b")], {"c": [{"id": "a"}, {"id": "b"}]}),
        (
            [("c[][id]", "a"), ("c[][name]", "A"), ("c[][id]", "b")],
            {"c": [{"id": "a", "name": "A"}, {"id": "b"}]},
        ),
        ([("c[10][id]", "b"), ("c[9][id]", "a")], {"c": [{"id": "a"}, {"id": "b"}]}),
        ([("n[]", "a"), ("n[]", "b")], {"n": ["a", "b"]}),
        ([("n[0]", "a"), ("n[]", "b")], {"n": ["a", "b"]}),
        ([("a[b][c][]", "x")], {"a": {"b": {"c": ["x"]}}}),
        ([("target_model_names", "a"), ("target_model_names", "b")], {"target_model_names": "a,b"}),
    ],
)
def test_names_nest(pairs: list[tuple[str, str]], fields: dict[str, Any]) -> None:
    assert nested(pairs) == fields


async def test_files_are_gone_when_the_call_is_over() -> None:
    request = httpx.Request("POST", "http://x", files={"video": ("a.mp4", b"clip")})
    body = request.read()

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", request.headers["content-type"].encode())]
    asked = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    async with received(asked, ProxySettings()) as fields:
        file = fields["video"].file
        assert file.read() == b"clip"
    assert file.closed
