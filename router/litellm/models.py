"""Which entries of LiteLLM's `model_list` are video models that we speak to.

Such a file is mostly about chat, so an entry has to show that it makes videos. The first of these
that says something decides:

1. its provider, which must be one of ours (`hosted_vllm` is our `vllm-omni`, `fal_ai` our `fal`);
2. `model_info.mode`: `video_generation`, or another;
3. the name of the model (`litellm_params.model`, `model_info.base_model`): a word of a family that
   makes videos (sora, gen4, wan2, …, or just "video"), or of one that makes something else;
4. its prices: dollars per second of video, or per token;
5. a family of videos in `model_name`: Azure's deployments may have any name;
6. RunwayML, which makes videos unless it says otherwise.

What says nothing is skipped, and told with the key that would keep it: `openai/my-model` at an
address of its own is a chat server in all but the rarest files. No model is refused for its name.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from router._reading import allowed
from router._yaml import Path
from router.litellm.conversion import Conversion, says

__all__ = ["Entry", "entries"]

_PROVIDERS = {"hosted_vllm": "vllm-omni", "fal_ai": "fal"}
_VIDEO_MODE = "video_generation"

# The families stand at the start of a word and end where a letter would go on.
_FAMILIES = re.compile(
    r"(?<![a-z])(?:sora|veo|kling|hailuo|seedance|happyhorse|aleph|pixverse|vidu|pika|mochi|skyreels"
    r"|framepack|ltxv?|wan(?=[\d._-]*\d)|ray-?[23]|dream-machine|nova-reel|gen-?[345]a?"
    r"|act_two)(?![a-z])"
)
_VIDEO_WORDS = re.compile(r"video|(?<![a-z0-9])[tirv]2v(?![a-z0-9])")
_IMAGE_OR_SOUND = re.compile(
    r"(?<![a-z])(?:images?|flux|imagen|dall-e|whisper|tts|stt|speech|voices?|sound|audio|music"
    r"|eleven|transcribe|realtime)(?![a-z])"
)
_TEXT = re.compile(
    r"(?<![a-z])(?:gpt|chatgpt|o[1345](?![a-z0-9])|claude|anthropic|llama|llava|vicuna|mistral"
    r"|mixtral|ministral|magistral|codestral|pixtral|qwen|qwq|qvq|deepseek|gemma|gemini|phi|command"
    r"|grok|kimi|glm|jamba|titan|falcon|davinci|curie|babbage|opt-\d|dbrx|nemotron|granite|minimax"
    r"|ernie|hermes|starcoder|codex|sonar|chat|instruct|embed|embeddings?|rerank|reranker|ocr"
    r"|moderation)(?![a-z])"
)

_NOT_SPOKEN = "of a provider that is not spoken here"
_NOT_VIDEO = "not a video model"
_UNTOLD = f"nothing says that it makes videos, as `model_info: {{mode: {_VIDEO_MODE}}}` would"
_WILDCARD = "a wildcard, which names no model"
_MOCKED = "has a `mock_response`; here it would be called, and paid for"


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of `model_list`, with the place of each of its parameters.

    `vendor` is LiteLLM's name of the provider, `provider` is ours.
    """

    place: Path
    name: Any
    vendor: str
    provider: str
    model: str
    params: Mapping[str, Any]
    places: Mapping[str, Path]
    info: Mapping[str, Any]
    paused: bool

    def param(self, *keys: str) -> tuple[Any, Path]:
        """The first of these that is written, and where; what is not, is none, at the entry."""
        for key in keys:
            if says(self.params.get(key)):
                return self.params[key], self.places[key]
        return None, (*self.place, "litellm_params")

    def info_place(self, key: str) -> Path:
        return (*self.place, "model_info", key)


def entries(
    written: Mapping[Any, Any], providers: Collection[str], made: Conversion
) -> Iterator[Entry]:
    listed = written.get("model_list")
    if not isinstance(listed, list | tuple) or not listed:
        made.problems.append((("model_list",), "must be a list of at least one model"))
        return
    credentials = dict(_credentials(written.get("credential_list")))
    made.entries = len(listed)
    for index, entry in enumerate(listed):
        found = _entry(("model_list", index), entry, credentials, made)
        if found is None:
            continue
        why = _why_not(found, providers)
        if why is None:
            _leftovers(found, entry, made)
            yield found
        else:
            what = str(found.params.get("model"))
            made.note(found.place, what, why)
    if made.entries == sum(note.is_entry for note in made.notes):
        reasons = collections.Counter(note.why for note in made.notes)
        told = "; ".join(f"{why} ({count} of them)" for why, count in reasons.items())
        told = f"none of its models can be taken: {told}"
        made.problems.append((("model_list",), f"{told}; {allowed(sorted(providers))}"))


def _entry(
    place: Path, entry: object, credentials: Mapping[str, tuple[Path, Any]], made: Conversion
) -> Entry | None:
    if not isinstance(entry, Mapping):
        made.problems.append((place, "must be a mapping"))
        return None
    params, info = entry.get("litellm_params"), entry.get("model_info") or {}
    for key, value in (("litellm_params", params), ("model_info", info)):
        if not isinstance(value, Mapping):
            made.problems.append(((*place, key), "must be a mapping"))
            return None
    written, places = _params(entry, place, credentials)
    model = written.get("model")
    if not isinstance(model, str) or not model:
        made.problems.append(((*place, "litellm_params", "model"), "is required: a string"))
        return None
    vendor, name = _vendor(model, written.get("custom_llm_provider"))
    return Entry(
        place,
        entry.get("model_name"),
        vendor,
        _PROVIDERS.get(vendor, vendor),
        name,
        written,
        places,
        info,
        paused=entry.get("blocked") is True or info.get("blocked") is True,
    )


def _params(
    entry: Mapping[Any, Any], place: Path, credentials: Mapping[str, tuple[Path, Any]]
) -> tuple[dict[str, Any], dict[str, Path]]:
    """An entry's parameters: its own, then those of the credential that it names.

    `rpm` may also stand beside them, or among the facts of the model.
    """
    params: dict[str, Any] = {}
    places: dict[str, Path] = {}
    named = credentials.get(str(entry["litellm_params"].get("litellm_credential_name")), ((), {}))
    info = entry.get("model_info") or {}
    limits = [
        (at, {"rpm": section["rpm"]} if says(section.get("rpm")) else {})
        for at, section in ((place, entry), ((*place, "model_info"), info))
    ]
    for at, section in (((*place, "litellm_params"), entry["litellm_params"]), named, *limits):
        for key, value in section.items():
            if str(key) not in params:
                params[str(key)], places[str(key)] = value, (*at, str(key))
    return params, places


def _credentials(listed: object) -> Iterator[tuple[str, tuple[Path, Any]]]:
    for index, one in enumerate(listed if isinstance(listed, list | tuple) else ()):
        values = one.get("credential_values") if isinstance(one, Mapping) else None
        if isinstance(values, Mapping):
            place = ("credential_list", index, "credential_values")
            yield str(one.get("credential_name")), (place, values)


def _vendor(model: str, custom: object) -> tuple[str, str]:
    """The provider of a model, and the provider's own name for it. A bare name is OpenAI's."""
    if isinstance(custom, str) and custom:
        return custom, model.removeprefix(f"{custom}/")
    prefix, slash, rest = model.partition("/")
    return (prefix, rest) if slash else ("openai", model)


def _why_not(entry: Entry, providers: Collection[str]) -> str | None:
    """Why an entry is not taken; `None` if it is. The rule stands at the top of this module."""
    if entry.provider not in providers:
        return _NOT_SPOKEN
    if "*" in entry.model or not entry.model:
        return _WILDCARD
    if entry.param("mock_response")[0] is not None:
        return _MOCKED
    for makes_videos in _signs(entry):
        if makes_videos is not None:
            return None if makes_videos else _NOT_VIDEO
    return _UNTOLD


def _signs(entry: Entry) -> Iterator[bool | None]:
    mode = entry.info.get("mode")
    yield mode == _VIDEO_MODE if says(mode) else None
    yield _by_name(f"{entry.model} {entry.info.get('base_model') or ''}".lower(), entry.provider)
    prices = {*entry.params, *entry.info}
    yield True if "output_cost_per_video_per_second" in prices else None
    yield False if any(str(key).endswith("_per_token") for key in prices) else None
    yield True if _FAMILIES.search(str(entry.name).lower()) else None
    yield True if entry.provider == "runwayml" else None


def _by_name(name: str, provider: str) -> bool | None:
    """Whether a name is that of a video model. `gen4_image` is none; `image-to-video` is one.

    RunwayML has no models for text, whatever they are called.
    """
    if _VIDEO_WORDS.search(name):
        return True
    if _IMAGE_OR_SOUND.search(name) or (provider != "runwayml" and _TEXT.search(name)):
        return False
    return True if _FAMILIES.search(name) else None


def _leftovers(entry: Entry, written: Mapping[Any, Any], made: Conversion) -> None:
    """Note what a taken entry says that has no place here."""
    taken = {"model", "custom_llm_provider", "litellm_credential_name", "api_base", "base_url"}
    taken |= {"api_key", "headers", "extra_headers", "weight", "order", "rpm", "timeout"}
    taken |= {"drop_params"}
    taken |= {"max_parallel_requests", "output_cost_per_video_per_second", "output_cost_per_second"}
    taken |= {"azure": {"api_version"}, "openai": {"organization"}}.get(entry.provider, set())
    made.unused(
        written["litellm_params"], taken, "litellm_params", (*entry.place, "litellm_params")
    )
    known = {"id", "mode", "base_model", "blocked", "rpm", "output_cost_per_second"}
    known |= {"output_cost_per_video_per_second"}
    made.unused(entry.info, known, "model_info", (*entry.place, "model_info"))
    others = {"model_name", "litellm_params", "model_info", "blocked", "rpm"}
    made.unused(written, others, "model_list", entry.place)
