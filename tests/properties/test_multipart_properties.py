"""What is sent, for all names, values, file names and bytes: the form and the URL that were meant.

The reader is not ours: Starlette's, over python-multipart, which is what many a compatible server
reads uploads with. A value that ends its part too early, or adds a header or a path segment, is a
request that the caller did not make, sent with the deployment's key.
"""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import httpx
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from shared_parts import FakeClock
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartParser

from router import InvalidIdError, Router
from router._doors import step
from router.ids import checked_native
from router.messages import (
    Body,
    FilePart,
    InvalidBody,
    Request,
    flatten,
    join_url,
    json_body,
    json_object,
    multipart_body,
)
from router.testing.forms import nested
from router.transport import BlockingTransport, Patience, Unanswered

URL = "https://host/v1/videos/characters"

texts = st.text(max_size=40) | st.sampled_from(
    ['"', "\r\n", "\r\n\r\n", '"\r\nX-Evil: 1', "--", "\0", "%22", "a;b", "\u2028", "\x85", "; x=y"]
)
# A backslash is an escape to some readers and a letter to others; RFC 7578 has no word on it. The
# names that we write have none: a file's is cut behind its last one.
names = texts.map(lambda text: text.replace("\\", "/"))


@st.composite
def boundary_like(draw: st.DrawFn) -> bytes:
    """Bytes of which a careless reader would take some for the end of their part."""
    hexes = draw(st.text("0123456789abcdef", min_size=32, max_size=32))
    bits = [b"\r\n", b"--", b"\r", b"\n", hexes.encode(), b"\0", b"\xff", b'name="x"', b": "]
    return b"".join(draw(st.lists(st.sampled_from(bits), max_size=12)))


contents = st.binary(max_size=300) | boundary_like()
content_types = st.sampled_from(["video/mp4", "image/png", "application/octet-stream"])


@dataclass
class Held:
    """A source that gives at most `most` bytes at a time, and of its size lacks `missing`."""

    data: bytes
    most: int = 1 << 30
    missing: int = 0

    @property
    def size(self) -> int:
        return len(self.data) + self.missing

    def read_at(self, offset: int, size: int) -> bytes:
        return self.data[offset : offset + min(size, self.most)]


@dataclass(frozen=True)
class SeenFile:
    filename: str
    content_type: str
    content: bytes


Seen = list[tuple[str, str | SeenFile]]


def sent(body: Body, chunk: int = 1 << 20) -> Iterator[bytes]:
    """The bytes of a body, its sources read `chunk` bytes at a time."""
    for segment in body.segments:
        if isinstance(segment, bytes):
            yield segment
        else:
            for offset in range(0, segment.size, chunk):
                yield segment.read_at(offset, min(chunk, segment.size - offset))


def read(content_type: str, chunks: list[bytes]) -> Seen:
    async def stream() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def reading() -> Seen:
        headers = Headers({"content-type": content_type})
        seen: Seen = []
        for name, value in (await MultiPartParser(headers, stream()).parse()).multi_items():
            if isinstance(value, UploadFile):
                content = await value.read()
                seen.append(
                    (name, SeenFile(value.filename or "", value.content_type or "", content))
                )
                await value.close()
            else:
                seen.append((name, value))
        return seen

    return asyncio.run(reading())


def as_named(text: str) -> str:
    """A name as a form can carry it: the HTML standard writes these three by their numbers."""
    return text.translate({0x22: "%22", 0x0D: "%0D", 0x0A: "%0A"})


fields_drawn = st.dictionaries(names, texts, max_size=4)
files_drawn = st.dictionaries(
    names, st.builds(SeenFile, names, content_types, contents), min_size=1, max_size=2
)


def form(fields: Mapping[str, Any], files: Mapping[str, SeenFile]) -> Body:
    parts = {
        name: FilePart(file.filename, file.content_type, Held(file.content))
        for name, file in files.items()
    }
    return multipart_body(fields, parts)


def expected(fields: Mapping[str, str], files: Mapping[str, SeenFile]) -> Seen:
    seen: Seen = [(as_named(name), value) for name, value in fields.items()]
    for name, file in files.items():
        given = SeenFile(as_named(file.filename), file.content_type, file.content)
        seen.append((as_named(name), given))
    return seen


# Forms


@given(fields_drawn, files_drawn)
def test_a_reader_finds_the_fields_names_and_bytes_that_were_given(
    fields: dict[str, str], files: dict[str, SeenFile]
) -> None:
    body = form(fields, files)

    assert read(body.content_type or "", list(sent(body))) == expected(fields, files)


@given(fields_drawn, files_drawn, st.integers(1, 64), st.integers(1, 64))
def test_however_a_form_is_cut_on_its_way_it_is_the_same_form(
    fields: dict[str, str], files: dict[str, SeenFile], chunk: int, cut: int
) -> None:
    body = form(fields, files)
    whole = b"".join(sent(body, chunk))

    assert whole == b"".join(sent(body))
    pieces = [whole[at : at + cut] for at in range(0, len(whole), cut)]
    assert read(body.content_type or "", pieces) == expected(fields, files)


@given(fields_drawn, files_drawn)
def test_the_length_that_is_announced_is_the_length_that_is_sent(
    fields: dict[str, str], files: dict[str, SeenFile]
) -> None:
    body = form(fields, files)

    assert body.length == len(b"".join(sent(body)))
    assert body.uploads


@given(fields_drawn, files_drawn)
def test_no_name_and_no_value_adds_a_part_or_a_header(
    fields: dict[str, str], files: dict[str, SeenFile]
) -> None:
    body = form(fields, files)
    boundary = (body.content_type or "").partition("boundary=")[2]
    delimiter = b"--" + boundary.encode()
    start, *parts, end = (b"\r\n" + b"".join(sent(body))).split(b"\r\n" + delimiter)

    assert (start, end) == (b"", b"--\r\n")
    assert len(parts) == len(fields) + len(files)
    for number, part in enumerate(parts):
        head, _, _ = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = [line.partition(b":")[0].lower() for line in head.split(b"\r\n")]
        with_type = [b"content-disposition", b"content-type"]
        assert headers == (with_type if number >= len(fields) else with_type[:1])
        assert not re.search(rb"[\r\n]", head.replace(b"\r\n", b""))


@given(fields_drawn, files_drawn)
def test_no_two_forms_have_the_same_boundary(
    fields: dict[str, str], files: dict[str, SeenFile]
) -> None:
    # Else an answer that quotes one body could end a part of the next.
    assert form(fields, files).content_type != form(fields, files).content_type


@given(texts, st.characters(categories=["Cs"]), st.sampled_from(["field", "value", "file"]))
def test_half_a_character_is_refused_as_a_value_before_anything_is_sent(
    text: str, half: str, where: str
) -> None:
    fields = {text + half: "x"} if where == "field" else {"a": text + half}
    files = {"video": SeenFile(text + half, "video/mp4", b"")} if where == "file" else {}

    with pytest.raises(ValueError, match="surrogates not allowed"):
        form({} if where == "file" else fields, files)


# Nested fields

plain_keys = st.text("abcdefghij_é", min_size=1, max_size=6)
leaves = st.text(max_size=10) | st.integers() | st.booleans()
trees = st.dictionaries(
    plain_keys,
    st.recursive(
        leaves | st.lists(leaves, min_size=1, max_size=3),
        lambda inner: st.dictionaries(plain_keys, inner, min_size=1, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


def as_text(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: as_text(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_text(item) for item in value]
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)


@given(trees)
def test_nested_fields_grow_back_into_the_tree_that_they_were(tree: dict[str, Any]) -> None:
    assert nested(flatten(tree)) == as_text(tree)


@given(trees, plain_keys)
def test_a_field_that_is_none_is_not_sent(tree: dict[str, Any], key: str) -> None:
    without = {name: value for name, value in tree.items() if name != key}

    assert list(flatten(tree | {key: None})) == list(flatten(without))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=4))
def test_a_json_body_is_read_back_as_it_was(data: dict[str, Any]) -> None:
    body = json_body(data)
    (raw,) = body.segments
    assert isinstance(raw, bytes)
    assert body.length == len(raw)
    assert not body.uploads
    assert json_object(raw) == data


@given(st.binary(max_size=60) | json_values.map(str).map(str.encode))
@example(b"[" * 100_000)
@example(b'{"a": ' + b"9" * 5000 + b"}")
def test_whatever_answers_is_an_object_or_an_invalid_body(raw: bytes) -> None:
    try:
        data = json_object(raw)
    except InvalidBody:
        return
    assert isinstance(data, dict)


# Through a whole router


@dataclass
class Slow:
    """An object of the caller's that is no file: it gives what it has bit by bit, once."""

    data: io.BytesIO
    steps: list[int]

    def read(self, size: int = -1) -> bytes:
        step = self.steps.pop() if self.steps else size
        return self.data.read(min(step, size) if size >= 0 else step)


class Recorder:
    """A provider that takes every upload in, and notes the request."""

    def __init__(self) -> None:
        self.seen: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.seen.append(request)
        return httpx.Response(200, json={"id": "char_1", "status": "queued"})


@pytest.fixture(scope="module")
def provider() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def router(provider: Recorder) -> Iterator[Router]:
    deployment = {"id": "a", "account": "a", "model_name": "m", "base_url": "https://host/v1"}
    with Router(
        deployments=[deployment | {"api_key": "sk-a"}],
        http_client=httpx.MockTransport(provider),
        clock=FakeClock(),
    ) as router:
        yield router


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


# What the caller's own checks let through as a character's name.
character_names = texts.map(lambda text: text[:80]).filter(lambda text: bool(text.strip()))
clips = contents.filter(bool)
folders = st.sampled_from(["", "clips/", "C:\\clips\\", "../", "..\\", "/home/", "\\\\host\\"])


@given(
    name=character_names,
    where=folders,
    filename=names.map(lambda name: name.replace("/", "")),
    clip=clips,
    skipped=st.integers(1, 5),
    steps=st.lists(st.integers(1, 50), max_size=20),
)
def test_an_upload_arrives_byte_for_byte_from_wherever_it_is_read(
    router: Router,
    provider: Recorder,
    folder: Path,
    name: str,
    where: str,
    filename: str,
    clip: bytes,
    skipped: int,
    steps: list[int],
) -> None:
    alone, behind = folder / "clip.mp4", folder / "behind.mp4"
    alone.write_bytes(clip)
    behind.write_bytes(b"x" * skipped + clip)
    with behind.open("rb") as opened:
        opened.seek(skipped)
        kinds = [clip, bytearray(clip), memoryview(clip), io.BytesIO(clip), alone, opened]
        for file in (*kinds, Slow(io.BytesIO(clip), steps)):
            router.video_create_character(name=name, video=(where + filename, file, "video/mp4"))
            _, uploaded = assert_arrived(provider.seen.pop(), name, clip)
            # Only the last part of a path ever leaves this machine.
            assert uploaded.filename == (as_named(filename) or uploaded.filename)
            assert not {"/", "\\"} & set(uploaded.filename)
        # From where it stands, and left standing there.
        assert opened.tell() == skipped
        assert not opened.closed


def assert_arrived(request: httpx.Request, name: str, clip: bytes) -> tuple[str, SeenFile]:
    assert int(request.headers["content-length"]) == len(request.content)
    (named, said), (field, uploaded) = read(request.headers["content-type"], [request.content])
    assert (named, said, field) == ("name", name, "video")
    assert isinstance(uploaded, SeenFile)
    assert uploaded.content == clip
    assert uploaded.content_type == "video/mp4"
    return said, uploaded


def post(provider: Recorder, request: Request) -> None:
    transport = BlockingTransport(FakeClock().monotonic, httpx.MockTransport(provider))
    step(transport.exchange(request, Patience(5.0, 5.0, 60.0), None, fresh=True))


@given(name=character_names, clip=clips, most=st.integers(1, 64))
def test_a_file_that_gives_little_at_a_time_is_sent_whole(
    provider: Recorder, name: str, clip: bytes, most: int
) -> None:
    part = FilePart("a.mp4", "video/mp4", Held(clip, most))
    request = Request("POST", URL, body=multipart_body({"name": name}, {"video": part}))
    post(provider, request)

    assert_arrived(provider.seen.pop(), name, clip)
    assert request.sent_whole


@given(clip=contents, missing=st.integers(1, 400), more=fields_drawn)
def test_a_file_that_becomes_shorter_is_surely_not_sent_whole(
    provider: Recorder, clip: bytes, missing: int, more: dict[str, str]
) -> None:
    part = FilePart("a.mp4", "video/mp4", Held(clip, missing=missing))
    request = Request("POST", URL, body=multipart_body(more, {"video": part}))

    with pytest.raises(Unanswered):
        post(provider, request)
    assert not request.sent_whole
    assert provider.seen == []


# URLs

segments = st.text(min_size=1, max_size=20) | st.sampled_from(
    ["a/b", "a?b=c", "a#b", "%2F", "%2e%2e", "a%00", "..;", "a\\b", "//", "a b", "é", "@", ":"]
)
bases = st.builds(
    "{}{}{}".format,
    st.sampled_from(["https://host", "http://127.0.0.1:4010", "https://[::1]:8443"]),
    st.sampled_from(["", "/", "/v1", "/v1/", "/openai/v1"]),
    st.sampled_from(["", "?api-version=preview", "?a=b&c=d%26e"]),
)
queries = st.dictionaries(
    st.text(min_size=1, max_size=8), st.text(max_size=10) | st.integers() | st.none(), max_size=3
)


@given(bases, st.lists(segments, max_size=4), queries)
def test_a_path_has_the_segments_that_were_given_and_no_others(
    base: str, path: list[str], query: dict[str, Any]
) -> None:
    parts = urlsplit(join_url(base, *path, query=query))
    root = [segment for segment in urlsplit(base).path.split("/") if segment]

    assert (parts.scheme, parts.netloc) == urlsplit(base)[:2]
    assert [unquote(segment) for segment in parts.path.split("/")[1:]] == root + path
    assert parts.fragment == ""
    assert re.fullmatch(r"[!-~]*", parts.path)


@given(bases, st.lists(segments, max_size=2), queries, queries)
def test_a_query_says_what_was_given_after_what_the_base_says(
    base: str, path: list[str], query: dict[str, Any], more: dict[str, Any]
) -> None:
    request = Request("GET", join_url(base, *path, query=query))
    request.add_query(more)

    said = parse_qsl(urlsplit(base).query)
    for added in (query, more):
        said += [(key, str(value)) for key, value in added.items() if value is not None]
    url = urlsplit(request.url)
    assert parse_qsl(url.query, keep_blank_values=True) == said
    assert url.path == urlsplit(join_url(base, *path)).path


@given(bases, st.text(min_size=1, max_size=30) | segments)
@example("https://host/v1", "..")
@example("https://host/v1", "a/../b")
def test_a_native_id_is_one_segment_of_what_httpx_asks_for(base: str, native: str) -> None:
    try:
        checked = checked_native(native)
    except InvalidIdError:
        assume(False)
    asked = httpx.URL(join_url(base, "videos", checked, "content")).raw_path.partition(b"?")[0]
    *root, videos, one, content = asked.decode("ascii").split("/")[1:]

    assert (videos, unquote(one), content) == ("videos", native, "content")
    assert root == [segment for segment in urlsplit(base).path.split("/") if segment]
