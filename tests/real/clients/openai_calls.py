"""Calls of every video operation by the installed `openai`, in each way that it has of calling.

    python openai_calls.py BASE_URL KEY CLIP

On stdout comes one line of JSON: what went wrong of each call, `null` where nothing did. The calls
are those of the client's own tests of its videos, with ids of videos that there are in place of
invented ones; where the client cannot send what its own types allow, as its users send it.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

import openai
from openai import AsyncOpenAI, OpenAI
from openai.types import Video, VideoCreateCharacterResponse, VideoDeleteResponse

BASE_URL, KEY, CLIP = sys.argv[1], sys.argv[2], Path(sys.argv[3])
# `video={"id": …}` ends in a RuntimeError within the client, before anything is sent.
BY_JSON = {"Content-Type": "application/json"}


def made(client: OpenAI) -> str:
    """The id of a video that is ready."""
    video = client.videos.create(prompt="A heron lands")
    assert client.videos.retrieve(video.id).status == "completed"
    return video.id


def calls(client: OpenAI) -> dict[str, tuple[str, dict[str, object], object]]:
    """Name: the method, its arguments, and what comes of it. `client` makes what they name."""
    video = made(client)
    character = client.videos.create_character(name="Luna", video=CLIP.read_bytes()).id
    image = ("image.png", b"\x89PNG\r\n\x1a\n0000", "image/png")
    source = {"video": openai.omit, "extra_body": {"video": {"id": video}}}
    with_luna = {"characters": [{"id": character}]}
    return {
        "create": ("create", {"prompt": "x"}, Video),
        "create, all parameters": (
            "create",
            {
                "prompt": "x",
                "input_reference": image,
                "model": "string",
                "seconds": "4",
                "size": "720x1280",
            },
            Video,
        ),
        "create, several groups": (
            "create",
            {"prompt": "x", "extra_body": {"target_model_names": ["sora-2", "string"]}},
            Video,
        ),
        "create, a character in a form": (
            "create",
            {"prompt": "Luna", "model": "sora-2", "extra_body": with_luna},
            Video,
        ),
        "create, a character in JSON": (
            "create",
            {"prompt": "Luna", "extra_body": with_luna, "extra_headers": BY_JSON},
            Video,
        ),
        "create and poll": ("create_and_poll", {"prompt": "x"}, Video),
        "poll": ("poll", {"video_id": video}, Video),
        "retrieve": ("retrieve", {"video_id": video}, Video),
        "list": ("list", {}, "page"),
        "list, all parameters": (
            "list",
            # Over several accounts, what a page names last; a video's own id only over one.
            {"after": lambda: client.videos.list(limit=1).last_id, "limit": 0, "order": "asc"},
            "page",
        ),
        "list, pages": ("list", {"limit": 2, "order": "desc"}, "page"),
        "delete": ("delete", {"video_id": lambda: made(client)}, VideoDeleteResponse),
        "create_character, bytes": (
            "create_character",
            {"name": "Luna", "video": CLIP.read_bytes()},
            VideoCreateCharacterResponse,
        ),
        "create_character, a file": (
            "create_character",
            {"name": "Luna", "video": CLIP},
            VideoCreateCharacterResponse,
        ),
        "get_character": ("get_character", {"character_id": character}, "character"),
        "download_content": ("download_content", {"video_id": video}, "content"),
        "download_content, all parameters": (
            "download_content",
            {"video_id": video, "variant": "thumbnail"},
            "content",
        ),
        "edit, by id in a form": ("edit", {"prompt": "x", **source}, Video),
        "edit, by id in JSON": ("edit", {"prompt": "x", **source, "extra_headers": BY_JSON}, Video),
        "edit, of a file": (
            "edit",
            {"prompt": "x", "video": CLIP, "extra_body": {"model": "sora-2"}},
            Video,
        ),
        "extend, by id in a form": ("extend", {"prompt": "x", "seconds": "4", **source}, Video),
        "extend, by id in JSON": (
            "extend",
            {"prompt": "x", "seconds": "4", **source, "extra_headers": BY_JSON},
            Video,
        ),
        "extend, of a file": (
            "extend",
            {
                "prompt": "x",
                "seconds": "4",
                "video": lambda: io.BytesIO(CLIP.read_bytes()),
                "extra_body": {"model": "sora-2"},
            },
            Video,
        ),
        "remix": ("remix", {"video_id": video, "prompt": "x"}, Video),
    }


# These exist on the client only, made of other calls.
PLAIN_ONLY = {"create_and_poll", "poll"}


def check(found: object, wanted: object) -> None:
    """Whether this is what the call is to bring. A strict client has checked each field."""
    if isinstance(wanted, type):
        assert isinstance(found, wanted), found
        assert found.id
    elif wanted == "page":
        assert found.object == "list", found
        assert all(one.id and one.object == "video" for one in found.data)
    elif wanted == "character":
        assert found.id.startswith("character_"), found
    else:
        content = found if isinstance(found, bytes) else found.content
        assert content[:4] == b"RIFF" or content[4:8] == b"ftyp", content[:20]


def ready(arguments: dict[str, object]) -> dict[str, object]:
    return {name: one() if callable(one) else one for name, one in arguments.items()}


def blocking(client: OpenAI, way: str, method: str, arguments: dict[str, object]) -> object:
    if way == "plain":
        return getattr(client.videos, method)(**arguments)
    if way == "raw":
        response = getattr(client.videos.with_raw_response, method)(**arguments)
        assert response.is_closed is True
        assert response.request_id
        return response.parse()
    with getattr(client.videos.with_streaming_response, method)(**arguments) as response:
        assert not response.is_closed
        found = response.parse()
    assert response.is_closed
    return found


async def awaited(client: AsyncOpenAI, way: str, method: str, arguments: dict[str, object]):
    if way == "plain":
        return await getattr(client.videos, method)(**arguments)
    if way == "raw":
        response = await getattr(client.videos.with_raw_response, method)(**arguments)
        assert response.is_closed is True
        assert response.request_id
        return response.parse()
    with_streaming = client.videos.with_streaming_response
    async with getattr(with_streaming, method)(**arguments) as response:
        assert not response.is_closed
        found = await response.parse()
    assert response.is_closed
    return found


def file_of(client: OpenAI, video: str) -> None:
    """A download that is written as it comes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        with client.videos.with_streaming_response.download_content(video) as response:
            response.stream_to_file(path)
        assert path.read_bytes() == client.videos.download_content(video).content


def refusals(client: OpenAI, video: str) -> None:
    """Errors are the client's own types, and an empty path parameter is refused by itself."""
    for call in (client.videos.retrieve, client.videos.delete, client.videos.download_content):
        try:
            call("")
        except ValueError as error:
            assert "non-empty" in str(error)
        else:
            raise AssertionError("an empty id was taken")
    try:
        client.videos.retrieve(video + "x")
    except openai.NotFoundError as error:
        assert error.code
        assert error.request_id
    stranger = client.with_options(api_key="pk-wrong", max_retries=0)
    try:
        stranger.videos.retrieve(video)
    except openai.AuthenticationError as error:
        assert error.status_code == 401
    else:
        raise AssertionError("a wrong key was taken")


def told(call) -> str | None:
    try:
        call()
    except Exception:
        return traceback.format_exc()
    return None


def main() -> None:
    warnings.simplefilter("ignore")
    found: dict[str, str | None] = {}
    for strict in (False, True):
        given = {
            "base_url": BASE_URL,
            "api_key": KEY,
            "_strict_response_validation": strict,
            "max_retries": 0,
            "timeout": 60,
        }
        kind = "strict" if strict else "loose"
        with OpenAI(**given) as client:
            table = calls(client)
            for name, (method, arguments, wanted) in table.items():
                ways = ("plain",) if method in PLAIN_ONLY else ("plain", "raw", "streaming")
                for way in ways:
                    found[f"{name} ({way}, blocking, {kind})"] = told(
                        lambda w=way, m=method, a=arguments, x=wanted: check(
                            blocking(client, w, m, ready(a)), x
                        )
                    )
                    found[f"{name} ({way}, async, {kind})"] = told(
                        lambda g=given, w=way, m=method, a=arguments, x=wanted: asyncio.run(
                            asynchronous(g, w, m, ready(a), x)
                        )
                    )
            video = made(client)
            found[f"to a file ({kind})"] = told(lambda v=video: file_of(client, v))
            found[f"refusals ({kind})"] = told(lambda v=video: refusals(client, v))
            listed = [one.id for one in client.videos.list(limit=3)]
            assert len(listed) == len(set(listed)) > 3, "the pages do not follow each other"
            models = {one.id for one in client.models.list()}
            assert models == {"sora-2", "string"}, models
    print(json.dumps({"version": openai.__version__, "found": found}))  # noqa: T201


async def asynchronous(given, way, method, arguments, wanted) -> None:
    async with AsyncOpenAI(**given) as client:
        check(await awaited(client, way, method, arguments), wanted)


main()
