"""Every operation from end to end, through both doors: what goes over the wire, what comes back."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from routing_parts import (
    CLIP,
    PNG,
    THREE,
    Doors,
    FakeClock,
    deployment,
    fleet,
    in_process,
    native_of,
    serving,
)

from router import (
    BadRequestError,
    NotFoundError,
    Router,
    UnsupportedOperationError,
    Video,
    VideoNotReadyError,
)
from router.ids import Copy, IdCodec, Kind
from router.testing import SeenFile, SeenRequest, StandIn
from router.testing.media import SPRITESHEET, THUMBNAIL

URL = "http://stand-in/v1"


@pytest.fixture
def router(provider: StandIn) -> Router:
    made: Router = serving(provider, deployment("east-1", model="sora-upstream"))
    return made


def last(provider: StandIn) -> SeenRequest:
    return provider.requests[-1]


def ours(native: str, kind: Kind = Kind.VIDEO, account: str = "east") -> str:
    return IdCodec().encode(kind, [Copy(account, native)])


# The main path, over a real server


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with StandIn(accounts={f"sk-{a}": a for a in THREE}, seed=7, poll_after_ms=50) as provider:
        yield provider


@pytest.mark.parametrize("door", ["blocking", "async"])
def test_the_whole_story_over_a_real_server(server: StandIn, door: str, tmp_path: Path) -> None:
    call = Doors(door)
    router = Router.from_dict(fleet(server.base_url), environ={})
    try:
        clip = tmp_path / "luna.mp4"
        clip.write_bytes(CLIP)
        with clip.open("rb") as file:
            luna = call(router, "video_create_character", name="Luna", video=file, replicate=2)
        assert call(router, "video_get_character", luna.id).name == "Luna"
        video = call(
            router,
            "video_generation",
            prompt="Luna waves",
            characters=[luna],
            input_reference=(None, PNG),
            seconds="8",
        )
        assert video.routing.poll_after == 0.05
        assert call(router, "video_wait", video.id).done
        edited = call(router, "video_edit", video_id=video.id, prompt="at dusk")
        longer = call(router, "video_extension", video_id=video.id, prompt="on", seconds=8)
        remixed = call(router, "video_remix", video_id=video.id, prompt="again")
        uploaded = call(router, "video_edit", video=clip, prompt="at dawn")
        made = {video.id, edited.id, longer.id, remixed.id, uploaded.id}
        assert made <= {one.id for one in call(router, "video_list", limit=100).data}
        assert call(router, "video_status", longer.id).seconds == "16"
        assert call(router, "video_content", edited.id) == CLIP
        assert call(router, "video_content", video.id, to=tmp_path / "out.mp4") == (
            tmp_path / "out.mp4"
        )
        assert (tmp_path / "out.mp4").read_bytes() == CLIP
        assert call(router, "video_delete", remixed.id).deleted
        with pytest.raises(NotFoundError):
            call(router, "video_status", remixed.id)
    finally:
        call.close(router)
        call.end()


# What goes over the wire


def test_create_character_is_a_form_with_the_clip(
    call: Doors, provider: StandIn, router: Router
) -> None:
    made = call(router, "video_create_character", name="Luna ☾", video=("l.mp4", CLIP))
    request = last(provider)
    assert (request.method, request.path) == ("POST", "/v1/videos/characters")
    assert request.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert request.fields == {"name": "Luna ☾"}
    assert request.files == (SeenFile("video", "l.mp4", len(CLIP), "video/mp4"),)
    assert made.name == "Luna ☾"
    assert made.created_at


def test_get_character_is_a_get(call: Doors, provider: StandIn, router: Router) -> None:
    made = call(router, "video_create_character", name="Luna", video=CLIP)
    for named in (made.id, made):
        assert call(router, "video_get_character", named).name == "Luna"
        request = last(provider)
        native = native_of(router, made.id)
        assert (request.method, request.path) == ("GET", f"/v1/videos/characters/{native}")
    assert call(router, "video_get_character", character_id=made.id).id == made.id


@pytest.mark.parametrize("seconds", ["8", 8])
def test_generation_sends_what_was_given_and_nothing_else(
    call: Doors, provider: StandIn, router: Router, seconds: str | int
) -> None:
    made = call(
        router,
        "video_generation",
        prompt="a heron",
        model="sora-2",
        seconds=seconds,
        size="1280x720",
    )
    request = last(provider)
    assert (request.method, request.path, request.query) == ("POST", "/v1/videos", {})
    assert request.fields == {
        "model": "sora-upstream",
        "prompt": "a heron",
        "seconds": "8",
        "size": "1280x720",
    }
    assert request.files == ()
    assert isinstance(made, Video)
    assert (made.status, made.seconds, made.size) == ("queued", "8", "1280x720")
    call(router, "video_generation", prompt="only this")
    assert last(provider).fields == {"model": "sora-upstream", "prompt": "only this"}


def test_video_is_the_same_method(call: Doors, provider: StandIn, router: Router) -> None:
    assert call(router, "video", prompt="a heron").id
    assert last(provider).operation == "generation"
    assert Router.video is Router.video_generation
    assert Router.avideo is Router.avideo_generation


def test_characters_are_a_list_of_native_ids(
    call: Doors, provider: StandIn, router: Router
) -> None:
    luna, milo = (
        call(router, "video_create_character", name=name, video=CLIP) for name in ("Luna", "Milo")
    )
    natives = [{"id": native_of(router, luna.id)}, {"id": native_of(router, milo.id)}]
    for characters in (
        [luna, milo],
        [luna.id, milo.id],
        [{"id": luna.id}, {"id": milo.id}],
        (luna, {"id": milo.id}),
    ):
        call(router, "video_generation", prompt="Luna and Milo", characters=characters)
        assert last(provider).fields["characters"] == natives
    # With a file as well, which needs a form.
    call(
        router,
        "video_generation",
        prompt="Luna and Milo",
        characters=[luna, milo],
        input_reference=PNG,
    )
    assert last(provider).status == 200
    assert last(provider).fields["characters"] == natives
    assert last(provider).files[0].field == "input_reference"


class _Named(io.BytesIO):
    name = "/home/someone/private/holiday.png"


FORMS = ["bytes", "bytearray", "memoryview", "path", "text path", "file", "stream"]
FORMS += ["named stream", "tuple", "pair", "nameless", "a path as its name", "a foreign path"]


def _references(folder: Path) -> dict[str, tuple[Any, SeenFile]]:
    path = folder / "a picture.png"
    path.write_bytes(PNG)

    def seen(name: str, content_type: str = "image/png") -> SeenFile:
        return SeenFile("input_reference", name, len(PNG), content_type)

    return {
        "bytes": (PNG, seen("upload.png")),
        "bytearray": (bytearray(PNG), seen("upload.png")),
        "memoryview": (memoryview(PNG), seen("upload.png")),
        "path": (path, seen("a picture.png")),
        "text path": (str(path), seen("a picture.png")),
        "file": (path.open("rb"), seen("a picture.png")),
        "stream": (io.BytesIO(PNG), seen("upload.png")),
        "named stream": (_Named(PNG), seen("holiday.png")),
        "tuple": (("x.webp", PNG, "image/webp"), seen("x.webp", "image/webp")),
        "pair": (("x.png", io.BytesIO(PNG)), seen("x.png")),
        "nameless": ((None, PNG), seen("upload.png")),
        "a path as its name": (("/home/me/secret/x.png", PNG), seen("x.png")),
        "a foreign path": (("C:\\Users\\me\\x.png", PNG), seen("x.png")),
    }


@pytest.mark.parametrize("form", FORMS)
def test_an_input_reference_may_be_any_file(
    call: Doors, provider: StandIn, router: Router, tmp_path: Path, form: str
) -> None:
    references = _references(tmp_path)
    reference, seen = references[form]
    call(router, "video_generation", prompt="x", input_reference=reference)
    assert last(provider).files == (seen,)
    assert str(tmp_path) not in repr(provider.requests)
    references["file"][0].close()


@pytest.mark.parametrize(
    "reference",
    [{"image_url": "https://pictures.example/a.png"}, {"file_id": "file-123"}],
)
def test_an_input_reference_may_be_a_url_or_a_file_id(
    call: Doors, provider: StandIn, router: Router, reference: dict[str, str]
) -> None:
    call(router, "video_generation", prompt="x", input_reference=reference)
    assert last(provider).status == 200
    assert last(provider).fields["input_reference"] == reference


def test_a_file_id_goes_to_the_account_that_was_named(call: Doors, provider: StandIn) -> None:
    router = in_process(provider, fleet(URL, *THREE))
    for account in THREE:
        made = call(
            router,
            "video_generation",
            prompt="x",
            input_reference={"file_id": "file-1"},
            account=account,
        )
        assert made.routing.account == account


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [("video_edit", "edits", {}), ("video_extension", "extensions", {"seconds": "4"})],
)
def test_edit_and_extension_of_a_video_name_it_and_no_model(
    call: Doors,
    provider: StandIn,
    router: Router,
    method: str,
    path: str,
    more: dict[str, Any],
) -> None:
    source = call(router, "video_generation", prompt="a heron")
    native = native_of(router, source.id)
    for named in (
        {"video_id": source.id},
        {"video": {"id": source.id}},
        {"video": source},
        {"video_id": source},
    ):
        made = call(router, method, prompt="at dusk", **named, **more)
        request = last(provider)
        assert (request.method, request.path) == ("POST", f"/v1/videos/{path}")
        assert request.fields == {"video": {"id": native}, "prompt": "at dusk", **more}
        assert made.remixed_from_video_id == source.id


@pytest.mark.parametrize(
    ("method", "more"), [("video_edit", {}), ("video_extension", {"seconds": "4"})]
)
def test_edit_and_extension_of_an_upload_send_the_file_and_the_model(
    call: Doors,
    provider: StandIn,
    router: Router,
    tmp_path: Path,
    method: str,
    more: dict[str, Any],
) -> None:
    path = tmp_path / "mine.mp4"
    path.write_bytes(CLIP)
    made = call(router, method, prompt="at dusk", video=path, **more)
    request = last(provider)
    assert request.fields == {"model": "sora-upstream", "prompt": "at dusk", **more}
    assert request.files == (SeenFile("video", "mine.mp4", len(CLIP), "video/mp4"),)
    assert made.remixed_from_video_id is None


def test_remix_is_json(call: Doors, provider: StandIn, router: Router) -> None:
    source = call(router, "video_generation", prompt="a heron").id
    made = call(router, "video_remix", video_id=source, prompt="a crane")
    request = last(provider)
    assert request.path == f"/v1/videos/{native_of(router, source)}/remix"
    assert request.headers["content-type"] == "application/json"
    assert request.fields == {"prompt": "a crane"}
    assert made.remixed_from_video_id == source


def test_status_follows_the_job(call: Doors, clock: FakeClock) -> None:
    provider = StandIn(accounts={"sk-east": "east"}, job_seconds=100, clock=clock, seed=7)
    router = serving(provider, deployment("east-1"), clock=clock)
    made = call(router, "video_generation", prompt="a heron")
    seen = []
    for _ in range(4):
        answer = call(router, "video_status", made.id)
        seen.append((answer.status, answer.done, answer.failed))
        clock.advance(35)
    running = ("in_progress", False, False)
    assert seen == [("queued", False, False), running, running, ("completed", True, False)]
    assert last(provider).path == f"/v1/videos/{native_of(router, made.id)}"
    assert call(router, "video_status", video_id=made.id).progress == 100
    assert call(router, "video_status", made).id == made.id


def test_a_failed_job_is_an_answer_to_status(call: Doors, provider: StandIn) -> None:
    router = serving(provider, deployment("east-1"))
    provider.fault("job_fails", code="moderation_blocked", message="Blocked.")
    answer = call(router, "video_status", call(router, "video_generation", prompt="x").id)
    assert (answer.failed, answer.done) == (True, False)
    assert answer.error.code == "moderation_blocked"


@pytest.mark.parametrize(
    ("named", "query", "content", "content_type"),
    [
        ({}, {}, CLIP, "video/mp4"),
        ({"variant": "video"}, {}, CLIP, "video/mp4"),
        ({"variant": "thumbnail"}, {"variant": "thumbnail"}, THUMBNAIL, "image/webp"),
        ({"variant": "spritesheet"}, {"variant": "spritesheet"}, SPRITESHEET, "image/jpeg"),
    ],
)
def test_content_is_the_bytes_of_the_variant(
    call: Doors,
    provider: StandIn,
    router: Router,
    tmp_path: Path,
    named: dict[str, str],
    query: dict[str, str],
    content: bytes,
    content_type: str,
) -> None:
    made = call(router, "video_generation", prompt="a heron")
    answer = call(router, "video_content", made.id, **named)
    assert bytes(answer) == content
    assert answer.content_type == content_type
    assert answer.routing.account == "east"
    assert last(provider).path == f"/v1/videos/{native_of(router, made.id)}/content"
    assert last(provider).query == query
    # To a path, and to files of the caller's.
    path = tmp_path / "out.bin"
    for to in (path, str(path)):
        assert call(router, "video_content", made.id, to=to, **named) == path
        assert path.read_bytes() == content
        path.unlink()
    assert list(tmp_path.iterdir()) == []
    with path.open("wb") as file:
        call(router, "video_content", made.id, to=file, **named)
        assert not file.closed
    assert path.read_bytes() == content
    memory = io.BytesIO()
    call(router, "video_content", made.id, to=memory, **named)
    assert memory.getvalue() == content


def test_a_path_appears_only_when_the_file_is_complete(
    call: Doors, provider: StandIn, tmp_path: Path
) -> None:
    router = serving(provider, deployment("east-1"), settings={"retries": 0})
    made = call(router, "video_generation", prompt="a heron")
    path = tmp_path / "out.mp4"
    path.write_bytes(b"what was there before")
    provider.fault("truncated", operation="content")
    with pytest.raises(Exception, match=r".+"):
        call(router, "video_content", made.id, to=path)
    assert path.read_bytes() == b"what was there before"
    assert list(tmp_path.iterdir()) == [path]
    call(router, "video_content", made.id, to=path)
    assert path.read_bytes() == CLIP


def test_a_download_that_broke_off_starts_again(
    call: Doors, provider: StandIn, tmp_path: Path
) -> None:
    router = serving(provider, deployment("east-1"))
    made = call(router, "video_generation", prompt="a heron")
    for to in (None, tmp_path / "out.mp4", io.BytesIO()):
        provider.fault("truncated", operation="content")
        answer = call(router, "video_content", made.id, to=to)
        got = answer if to is None else to.getvalue() if hasattr(to, "getvalue") else None
        assert (got if got is not None else (tmp_path / "out.mp4").read_bytes()) == CLIP


def test_content_of_a_running_job_is_not_ready(call: Doors, clock: FakeClock) -> None:
    provider = StandIn(accounts={"sk-east": "east"}, job_seconds=100, clock=clock, seed=7)
    router = serving(provider, deployment("east-1"), clock=clock)
    made = call(router, "video_generation", prompt="a heron")
    with pytest.raises(VideoNotReadyError) as caught:
        call(router, "video_content", made.id)
    assert caught.value.retry_after > 0
    clock.advance(100)
    assert call(router, "video_content", made.id) == CLIP


def test_delete_is_a_delete(call: Doors, provider: StandIn, router: Router) -> None:
    made = call(router, "video_generation", prompt="a heron")
    answer = call(router, "video_delete", made.id)
    assert (answer.id, answer.deleted, answer.object) == (made.id, True, "video.deleted")
    request = last(provider)
    assert (request.method, request.path) == ("DELETE", f"/v1/videos/{native_of(router, made.id)}")
    with pytest.raises(NotFoundError):
        call(router, "video_delete", made.id)


# What every call takes


_EVERY = [
    ("video_create_character", {"name": "Luna", "video": CLIP}),
    ("video_get_character", {"character_id": ours("char_1", Kind.CHARACTER)}),
    ("video_generation", {"prompt": "x"}),
    ("video_generation", {"prompt": "x", "input_reference": PNG}),
    ("video_edit", {"prompt": "x", "video_id": ours("video_1")}),
    ("video_edit", {"prompt": "x", "video": CLIP}),
    ("video_extension", {"prompt": "x", "seconds": 4, "video_id": ours("video_1")}),
    ("video_extension", {"prompt": "x", "seconds": 4, "video": CLIP}),
    ("video_remix", {"prompt": "x", "video_id": ours("video_1")}),
    ("video_status", {"video_id": ours("video_1")}),
    ("video_content", {"video_id": ours("video_1")}),
    ("video_content", {"video_id": ours("video_1"), "variant": "thumbnail"}),
    ("video_list", {}),
    ("video_delete", {"video_id": ours("video_1")}),
]
EVERY = pytest.mark.parametrize(("method", "arguments"), _EVERY)
# The stand-in knows none of those ids: it is the request that counts here, not the answer.


def _send(call: Doors, router: Router, method: str, **arguments: Any) -> None:
    with contextlib.suppress(NotFoundError, BadRequestError):
        call(router, method, **arguments)


@EVERY
def test_extra_headers_and_query_are_added(
    call: Doors, provider: StandIn, router: Router, method: str, arguments: dict[str, Any]
) -> None:
    _send(
        call,
        router,
        method,
        **arguments,
        extra_headers={"X-Trace": "t-1", "User-Agent": "an app"},
        extra_query={"debug": "1", "tag": "a b&c"},
    )
    request = last(provider) if method != "video_content" else provider.requests[0]
    assert request.headers["x-trace"] == "t-1"
    assert request.headers["user-agent"] == "an app"
    assert request.headers["authorization"] == "Bearer sk-east"
    assert request.query["debug"] == "1"
    assert request.query["tag"] == "a b&c"
    variant = arguments.get("variant")
    assert request.query.get("variant") == variant


@EVERY
def test_metadata_is_never_sent(
    call: Doors, provider: StandIn, method: str, arguments: dict[str, Any]
) -> None:
    told: list[Any] = []
    router = serving(provider, deployment("east-1"), on_event=told.append)
    metadata = {"tenant": "never-on-the-wire"}
    _send(call, router, method, **arguments, metadata=metadata)
    assert provider.requests
    assert "never-on-the-wire" not in repr(provider.requests)
    assert told
    assert all(event.metadata == metadata for event in told if hasattr(event, "metadata"))


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        (m, a)
        for m, a in _EVERY
        if m
        not in (
            "video_status",
            "video_content",
            "video_list",
            "video_delete",
            "video_get_character",
        )
    ],
)
def test_extra_body_is_added_and_wins(
    call: Doors, provider: StandIn, router: Router, method: str, arguments: dict[str, Any]
) -> None:
    extra = {"quality": "high", "nested": {"a": "1", "list": ["x", "y"]}, "flag": "on"}
    _send(call, router, method, **arguments, extra_body={**extra, "prompt": "the extra one"})
    fields = last(provider).fields
    assert {key: fields[key] for key in extra} == extra
    assert fields["prompt"] == "the extra one"


def test_metadata_stands_in_the_routing(call: Doors, provider: StandIn, router: Router) -> None:
    made = call(router, "video_generation", prompt="x", metadata={"tenant": 7})
    assert made.routing.metadata == {"tenant": 7}
    listed = call(router, "video_list", metadata={"tenant": 8})
    assert listed.routing.metadata == {"tenant": 8}


@pytest.mark.parametrize(
    ("argument", "instead"),
    [
        ("api_key", "YAML"),
        ("api_base", "base_url"),
        ("num_retries", "retries"),
        ("mock_response", "StandIn"),
    ],
)
@EVERY
def test_arguments_of_other_libraries_name_their_replacement(
    call: Doors,
    provider: StandIn,
    router: Router,
    method: str,
    arguments: dict[str, Any],
    argument: str,
    instead: str,
) -> None:
    with pytest.raises(TypeError, match=instead) as caught:
        call(router, method, **arguments, **{argument: "x"})
    assert argument in str(caught.value)
    assert provider.requests == []


@EVERY
def test_arguments_nobody_knows_are_refused(
    call: Doors, provider: StandIn, router: Router, method: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(TypeError):
        call(router, method, **arguments, temperature=1)
    assert provider.requests == []


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("video_generation", {"prompt": ""}),
        ("video_generation", {"prompt": "   "}),
        ("video_generation", {"prompt": "x" * 32_001}),
        ("video_generation", {"prompt": None}),
        ("video_generation", {"prompt": "x", "seconds": "soon"}),
        ("video_generation", {"prompt": "x", "seconds": -4}),
        ("video_generation", {"prompt": "x", "characters": "char_1"}),
        ("video_generation", {"prompt": "x", "input_reference": {"url": "x"}}),
        (
            "video_generation",
            {"prompt": "x", "input_reference": {"image_url": "x", "file_id": "y"}},
        ),
        ("video_generation", {"prompt": "x", "input_reference": "no-such-file.png"}),
        ("video_generation", {"prompt": "x", "input_reference": b""}),
        ("video_create_character", {"name": "", "video": CLIP}),
        ("video_create_character", {"name": "x" * 81, "video": CLIP}),
        ("video_create_character", {"name": "L", "video": "no-such-file.mp4"}),
        ("video_create_character", {"name": "L", "video": "."}),
        ("video_create_character", {"name": "L", "video": b""}),
        ("video_create_character", {"name": "L", "video": io.StringIO("text")}),
        ("video_create_character", {"name": "L", "video": 17}),
        ("video_create_character", {"name": "L", "video": {"id": "video_1"}}),
        ("video_edit", {"prompt": "x"}),
        ("video_edit", {"prompt": "x", "video_id": "video_1", "video": CLIP}),
        ("video_edit", {"prompt": "", "video_id": "video_1"}),
        ("video_extension", {"prompt": "x", "video_id": "video_1", "seconds": None}),
        ("video_remix", {"prompt": "", "video_id": "video_1"}),
        ("video_status", {"video_id": ""}),
        ("video_status", {"video_id": 5}),
        ("video_list", {"order": "up"}),
        ("video_list", {"limit": 0}),
        ("video_list", {"limit": 101}),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_sent(
    call: Doors, provider: StandIn, router: Router, method: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(BadRequestError) as caught:
        call(router, method, **arguments)
    assert caught.value.status is None
    assert caught.value.accepted == "no"
    assert provider.requests == []


# Paths


@pytest.mark.parametrize(
    ("native", "path"),
    [
        ("a/b?c#d", "a%2Fb%3Fc%23d"),
        ("100%", "100%25"),
        ("vidéo-東", "vid%C3%A9o-%E6%9D%B1"),
        ("a;b=c&d+e", "a%3Bb%3Dc%26d%2Be"),
        ("plain-id_1.~", "plain-id_1.~"),
    ],
)
def test_ids_in_a_path_are_percent_encoded(
    call: Doors, provider: StandIn, router: Router, native: str, path: str
) -> None:
    for text in (native, ours(native)):
        for method, tail in (("video_status", ""), ("video_content", "/content")):
            sent = len(provider.requests)
            with pytest.raises(NotFoundError):
                call(router, method, text)
            assert provider.requests[sent].path == f"/v1/videos/{path}{tail}"
        with pytest.raises(NotFoundError):
            call(router, "video_remix", video_id=text, prompt="x")
        assert last(provider).path == f"/v1/videos/{path}/remix"
    with pytest.raises(NotFoundError):
        call(router, "video_get_character", native)
    assert last(provider).path == f"/v1/videos/characters/{path}"


AZURE = "https://my-resource.openai.azure.com"


@pytest.mark.parametrize(
    ("base_url", "query"),
    [
        (AZURE, {}),
        (f"{AZURE}/", {}),
        (f"{AZURE}/openai/v1", {}),
        (f"{AZURE}/openai/v1/", {}),
        (f"{AZURE}/openai/v1?api-version=preview", {"api-version": "preview"}),
        (f"{AZURE}/openai/v1/?api-version=preview", {"api-version": "preview"}),
        (f"{AZURE}?api-version=preview", {"api-version": "preview"}),
    ],
)
@EVERY
def test_azure_keeps_its_path_key_header_and_query_for_every_operation(
    call: Doors,
    provider: StandIn,
    base_url: str,
    query: dict[str, str],
    method: str,
    arguments: dict[str, Any],
) -> None:
    told = deployment("east-1", provider="azure", base_url=base_url, model="my-deployment")
    router = serving(provider, told)
    _send(call, router, method, **arguments)
    request = provider.requests[0]
    assert request.path.startswith("/openai/v1/videos")
    assert "?" not in request.path
    assert {k: v for k, v in request.query.items() if k == "api-version"} == query
    assert request.headers["host"] == "my-resource.openai.azure.com"
    assert request.headers["api-key"] == "sk-east"
    assert "authorization" not in request.headers
    assert request.account == "east"
    if "model" in request.fields:
        assert request.fields["model"] == "my-deployment"


def test_azure_takes_a_bearer_token_as_well(call: Doors, provider: StandIn) -> None:
    told = deployment("east-1", provider="azure", base_url=AZURE)
    del told["api_key"]
    router = serving(provider, {**told, "headers": {"Authorization": "Bearer sk-east"}})
    call(router, "video_generation", prompt="x")
    assert "api-key" not in last(provider).headers
    assert last(provider).account == "east"


@pytest.mark.parametrize("base_url", ["http://host", "http://host/", "http://host/v1/"])
def test_a_bare_host_of_the_openai_dialect_is_its_v1(
    call: Doors, provider: StandIn, base_url: str
) -> None:
    router = serving(provider, deployment("east-1", base_url=base_url))
    call(router, "video_list")
    assert last(provider).path == "/v1/videos"


def test_a_deployments_headers_go_with_every_call(call: Doors, provider: StandIn) -> None:
    told = deployment("east-1", headers={"OpenAI-Project": "p-1"})
    router = serving(provider, told)
    call(router, "video_generation", prompt="x")
    call(router, "video_list")
    assert [request.headers["openai-project"] for request in provider.requests] == ["p-1", "p-1"]


def test_operations_not_listed_are_not_asked_for(call: Doors, provider: StandIn) -> None:
    router = serving(
        provider,
        deployment("east-1", operations=["generation", "status"]),
        deployment("west-1", operations=["edit", "list"]),
    )
    for _ in range(5):
        assert call(router, "video_generation", prompt="x").routing.account == "east"
        assert call(router, "video_edit", prompt="x", video=CLIP).routing.account == "west"
    made = call(router, "video_generation", prompt="x")
    sent = len(provider.requests)
    for method, arguments in (
        ("video_content", {"video_id": made.id}),
        ("video_edit", {"video_id": made.id, "prompt": "x"}),
        ("video_create_character", {"name": "L", "video": CLIP}),
    ):
        with pytest.raises(UnsupportedOperationError):
            call(router, method, **arguments)
    assert len(provider.requests) == sent
