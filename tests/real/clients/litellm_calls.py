"""Calls of every video operation by the installed `litellm`, pointed at a server of its dialect.

    python litellm_calls.py BASE_URL KEY CLIP

On stdout comes one line of JSON: what went wrong of each call, `null` where nothing did.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import os
import sys
import traceback
import warnings
from pathlib import Path

# Else its import fetches a price list from the network.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
warnings.simplefilter("ignore")

import litellm  # noqa: E402  (after its settings)

BASE_URL, KEY, CLIP = sys.argv[1], sys.argv[2], Path(sys.argv[3])
THERE = {"api_base": BASE_URL, "api_key": KEY, "custom_llm_provider": "openai"}
litellm.telemetry = False
litellm.suppress_debug_info = True


def ready(blocking: bool) -> str:
    """The id of a video that is ready, as the client gives it."""
    video = litellm.video_generation(prompt="A heron lands", model="openai/sora-2", **THERE)
    assert litellm.video_status(video_id=video.id, **THERE).status == "completed"
    return str(video.id)


def blocking_calls() -> dict[str, object]:
    video = ready(True)

    def listed() -> None:
        assert litellm.video_list(limit=5, **THERE)

    def character() -> None:
        made = litellm.video_create_character(name="Luna", video=CLIP.read_bytes(), **THERE)
        assert litellm.video_get_character(character_id=made.id, **THERE).id == made.id

    def content() -> None:
        assert litellm.video_content(video_id=video, **THERE)[4:8] == b"ftyp"

    return {
        "video_generation": lambda: litellm.video_generation(
            prompt="x", model="openai/sora-2", seconds="4", size="720x1280", **THERE
        ),
        "video_status": lambda: litellm.video_status(video_id=video, **THERE),
        "video_content": content,
        "video_remix": lambda: litellm.video_remix(video_id=video, prompt="x", **THERE),
        "video_list": listed,
        "video_create_character, video_get_character": character,
        "video_edit": lambda: litellm.video_edit(video_id=video, prompt="x", **THERE),
        "video_extension": lambda: litellm.video_extension(
            video_id=video, prompt="x", seconds="4", **THERE
        ),
    }


async def asynchronous_calls() -> dict[str, str | None]:
    clip = await asyncio.to_thread(CLIP.read_bytes)
    video = (await litellm.avideo_generation(prompt="x", model="openai/sora-2", **THERE)).id

    async def content() -> None:
        await litellm.avideo_status(video_id=video, **THERE)
        assert (await litellm.avideo_content(video_id=video, **THERE))[4:8] == b"ftyp"

    async def character() -> None:
        made = await litellm.avideo_create_character(name="Luna", video=clip, **THERE)
        found = await litellm.avideo_get_character(character_id=made.id, **THERE)
        assert found.id == made.id
        answer = await litellm.avideo_generation(
            prompt="Luna waves",
            model="openai/sora-2",
            extra_body={"characters": [{"id": made.id}]},
            **THERE,
        )
        assert answer.id

    named = {
        "avideo_status": litellm.avideo_status(video_id=video, **THERE),
        "avideo_content": content(),
        "avideo_remix": litellm.avideo_remix(video_id=video, prompt="x", **THERE),
        "avideo_list": litellm.avideo_list(limit=5, **THERE),
        "avideo_create_character, and a video with it": character(),
        "avideo_edit": litellm.avideo_edit(video_id=video, prompt="x", **THERE),
        "avideo_extension": litellm.avideo_extension(
            video_id=video, prompt="x", seconds="4", **THERE
        ),
    }
    found = {}
    for name, call in named.items():
        try:
            await call
            found[name] = None
        except Exception:
            found[name] = traceback.format_exc()[-2000:]
    return found


def main() -> None:
    found: dict[str, str | None] = {}
    for name, call in blocking_calls().items():
        try:
            call()
            found[name] = None
        except Exception:
            found[name] = traceback.format_exc()[-2000:]
    found.update(asyncio.run(asynchronous_calls()))
    version = importlib.metadata.version("litellm")
    print(json.dumps({"version": version, "found": found}))  # noqa: T201


main()
