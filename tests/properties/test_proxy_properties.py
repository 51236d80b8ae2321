"""What callers of the proxy send, however it is written and in whatever pieces it arrives."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterator
from typing import Any

import httpx
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from router.messages import flatten
from router.proxy.answers import Refusal
from router.proxy.arguments import generation
from router.proxy.forms import Part, json_in, nested, received
from router.proxy_settings import ProxySettings

words = st.text("abcdefgh_", min_size=1, max_size=6)
values = st.recursive(
    st.text(max_size=8),
    lambda inner: st.one_of(
        st.lists(st.text(max_size=8), min_size=1, max_size=3),
        st.dictionaries(words, inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)


@given(st.dictionaries(words, values, max_size=4))
def test_what_is_flattened_as_clients_do_nests_again(fields: dict[str, Any]) -> None:
    assert nested(flatten(fields)) == fields


async def read(body: bytes, kind: str, cuts: list[int]) -> dict[str, Any]:
    """The fields of a body that arrives in pieces; a file as its name and its bytes."""
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    pieces = iter([body[a:b] for a, b in itertools.pairwise(edges)])
    left = len(edges) - 1

    async def receive() -> Any:
        nonlocal left
        left -= 1
        return {"type": "http.request", "body": next(pieces), "more_body": left > 0}

    headers = [(b"content-type", kind.encode())]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
    async with received(request, ProxySettings()) as fields:
        return {
            name: (value.filename, value.file.read()) if isinstance(value, Part) else value
            for name, value in fields.items()
        }


@given(
    prompt=st.text(max_size=50).filter(lambda text: text.isprintable()),
    clip=st.binary(max_size=3000),
    cuts=st.lists(st.integers(0, 10_000), max_size=30),
)
def test_a_form_may_arrive_in_any_pieces(prompt: str, clip: bytes, cuts: list[int]) -> None:
    request = httpx.Request(
        "POST",
        "http://x",
        data={"prompt": prompt, "characters[][id]": ["a", "b"]},
        files={"video": ("heron.mp4", clip)},
    )
    kind = request.headers["content-type"]

    fields = asyncio.run(read(request.read(), kind, cuts))

    assert fields == {
        "prompt": prompt,
        "characters": [{"id": "a"}, {"id": "b"}],
        "video": ("heron.mp4", clip),
    }


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Nothing is raised but a refusal of what was sent."""
    try:
        yield
    except Refusal as refusal:
        if refusal.status != 400:
            raise


@given(st.text(max_size=200))
def test_a_text_is_json_or_refused(text: str) -> None:
    with _refusing():
        json_in(text)


def shapes() -> st.SearchStrategy[Any]:
    leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
        max_leaves=8,
    )


NAMES = [
    "prompt", "model", "target_model_names", "seconds", "size", "input_reference", "characters",
    "fallbacks", "max_cost", "metadata", "user", "video", "x",
]  # fmt: skip


@given(st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=5)), shapes()))
def test_any_fields_are_arguments_or_refused(fields: dict[str, Any]) -> None:
    with _refusing():
        found = generation(fields)
        assert not {"video", "account", "extra_headers", "api_key"} & found.keys()
        assert all("[" not in name for name in found.get("extra_body", {}))
