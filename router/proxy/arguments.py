"""A request's fields as the arguments of one of the Router's methods. Pure.

Nothing a caller sends may choose a deployment's address or key, add a header upstream, or name a
file of this machine: a text is never a path here, though the Router's methods take one for that.
What no method knows goes to the provider as it is, which may know it; of a tenant's, only what the
operator lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from router.proxy.answers import Refusal
from router.proxy.forms import Fields, Part, json_in, nested

__all__ = [
    "NAMING",
    "NOT_THE_CALLERS",
    "PLAIN",
    "character",
    "edit",
    "extension",
    "generation",
    "listing",
    "remix",
]

# Whose call it is, where it goes and how often: the operator's to say.
NOT_THE_CALLERS = frozenset(
    {
        "api_key", "api_base", "api_version", "base_url", "organization", "headers",
        "extra_headers", "extra_body", "extra_query", "account", "tenant", "timeout", "deadline",
        "retries", "num_retries", "max_retries", "max_wait", "mock_response", "to",
        "idempotency_key", "drop_params",
    }
)  # fmt: skip
_ROUTING = ("model", "target_model_names", "custom_llm_provider", "user", "metadata", "max_cost")
# These name what exists, by our ids. Where an operation does not take one, it must not get past.
NAMING = frozenset(
    {"video", "video_id", "characters", "character_id", "input_reference", "file_id"}
)
# These name nothing, and some servers take them where we know of none that needs them.
PLAIN = frozenset({"seconds", "size"})
_SCHEMES = re.compile(r"(?:https?://|data:)", re.IGNORECASE)


_MOST_NAMES = 100


def generation(fields: Fields) -> dict[str, Any]:
    """The arguments of `video_generation`."""
    own = ("prompt", "seconds", "size", "input_reference", "characters", "fallbacks")
    found = _arguments(fields, own)
    found["prompt"] = fields.get("prompt", "")
    found["input_reference"] = _reference(fields.get("input_reference"))
    found["characters"] = _characters(fields.get("characters"))
    if "fallbacks" in found:
        found["fallbacks"] = _flag("fallbacks", found["fallbacks"])
    return found


def edit(fields: Fields) -> dict[str, Any]:
    """The arguments of `video_edit`."""
    found = _arguments(fields, ("prompt", "video", "video_id"))
    return {**found, "prompt": fields.get("prompt", ""), **_source(fields)}


def extension(fields: Fields) -> dict[str, Any]:
    """The arguments of `video_extension`."""
    found = _arguments(fields, ("prompt", "seconds", "video", "video_id"))
    prompt, seconds = fields.get("prompt", ""), fields.get("seconds")
    return {**found, "prompt": prompt, "seconds": seconds, **_source(fields)}


def remix(video_id: str, fields: Fields) -> dict[str, Any]:
    """The arguments of `video_remix`. Its model is the video's."""
    found = _arguments(fields, ("prompt",))
    found.pop("model", None)
    found.pop("target_model_names", None)
    return {**found, "video_id": video_id, "prompt": fields.get("prompt", "")}


def character(fields: Fields) -> dict[str, Any]:
    """The arguments of `video_create_character`."""
    found = _arguments(fields, ("name", "video", "replicate"))
    clip = fields.get("video")
    if not isinstance(clip, Part):
        raise _wrong("video", "expected a file, in multipart/form-data")
    copies = found.get("replicate", 1)
    if isinstance(copies, str) and copies.isdecimal() and len(copies) < 4:
        copies = int(copies)
    return {**found, "name": fields.get("name", ""), "video": _file(clip), "replicate": copies}


def listing(query: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The arguments of `video_list`, from a query. A `limit` of 0 is told apart by the caller."""
    known = ("model", "target_model_names", "after", "order", "custom_llm_provider", "limit")
    fields = nested((name, value) for name, value in query if name.partition("[")[0] in known)
    found = {name: value for name, value in fields.items() if value}
    if "target_model_names" in found:
        found["target_model_names"] = _names(found["target_model_names"])
    limit = found.get("limit")
    if limit is not None:
        if not isinstance(limit, str) or not re.fullmatch(r"\d{1,9}", limit, re.ASCII):
            raise _wrong("limit", "expected a whole number")
        found["limit"] = int(limit)
    return found


def _arguments(fields: Fields, own: tuple[str, ...]) -> dict[str, Any]:
    """What of the fields all operations take, and `own`; the rest is for the provider."""
    known = {*own, *_ROUTING}
    found = {name: fields[name] for name in known if fields.get(name) is not None}
    if not isinstance(found.get("model"), str | None):
        raise _wrong("model", "expected the name of a model group")
    if "target_model_names" in found:
        found["target_model_names"] = _names(found["target_model_names"])
    if "metadata" in found:
        found["metadata"] = _mapping("metadata", found["metadata"])
    if "max_cost" in found:
        found["max_cost"] = _number("max_cost", found["max_cost"])
    rest = {name: value for name, value in fields.items() if name not in known}
    _check_rest(rest)
    return {**found, "extra_body": rest} if rest else found


def _check_rest(rest: Fields) -> None:
    for name, value in rest.items():
        if name in NOT_THE_CALLERS:
            raise _wrong(name, "this is not the caller's to say")
        if name in NAMING:
            raise _wrong(name, "this operation does not take it")
        # In a form it would nest, and so become another field.
        if not name or re.search(r"[\[\]\x00-\x1f\x7f]", name) or len(name) > 200:
            raise _wrong(name[:80], "a field has an odd name")
        if isinstance(value, Part):
            raise _wrong(name, "no file is taken by this name")


def _source(fields: Fields) -> dict[str, Any]:
    """What an edit or extension starts from: a file that was sent, or an id; never a path."""
    video, named = fields.get("video"), fields.get("video_id")
    if isinstance(video, str):
        video = _parsed("video", video)
    if isinstance(video, Part):
        return {"video": _file(video), **({} if named is None else {"video_id": named})}
    if isinstance(video, str):
        video = {"id": video}
    if video is None and named is None:
        raise _wrong("video", "expected a file, or the id of a video", "missing_required_parameter")
    if video is not None and named is not None:
        raise _wrong("video", "there is a `video_id` as well")
    source = {"id": named} if video is None else video
    if not isinstance(source, dict) or not isinstance(source.get("id"), str) or len(source) != 1:
        raise _wrong("video", "expected a file, or an object with an `id`")
    return {"video_id": source["id"], "video": None}


def _reference(given: Any) -> Any:
    """An image that was sent, or where the provider finds one."""
    if isinstance(given, Part):
        return _file(given)
    if given is None or given == "":
        return None
    reference = _parsed("input_reference", given) if isinstance(given, str) else given
    if not isinstance(reference, dict):
        raise _wrong("input_reference", "expected a file, but got something else instead")
    url = reference.get("image_url")
    # The provider fetches it. Of what is not the web's, it might find something of its own.
    if url is not None and (not isinstance(url, str) or not _SCHEMES.match(url)):
        raise _wrong("input_reference", "an image_url is https://, http:// or data:")
    if len(reference) != 1 or not {"image_url", "file_id"} & reference.keys():
        raise _wrong("input_reference", "expected a file, an image_url or a file_id")
    return reference


def _characters(given: Any) -> list[Any] | None:
    listed = _parsed("characters", given) if isinstance(given, str) else given
    if listed is None or listed == "":
        return None
    listed = [listed] if isinstance(listed, (str, dict)) else listed
    if not isinstance(listed, list) or len(listed) > _MOST_NAMES:
        raise _wrong("characters", f"expected a list of {{'id': …}}, of {_MOST_NAMES} at most")
    ids = [one.get("id") if isinstance(one, dict) else one for one in listed]
    if not all(isinstance(one, str) and one for one in ids):
        raise _wrong("characters", "expected a list of {'id': …}")
    return ids


def _names(given: Any) -> Any:
    """Groups, as a list or with commas, also where the list is JSON within a text."""
    listed = _parsed("target_model_names", given) if isinstance(given, str) else given
    listed = [listed] if isinstance(listed, str) else listed
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise _wrong("target_model_names", "expected a list of names")
    if sum(one.count(",") + 1 for one in listed) > _MOST_NAMES:
        raise _wrong("target_model_names", f"expected {_MOST_NAMES} names at most")
    return [name for one in listed for name in one.split(",")]


def _parsed(name: str, given: str) -> Any:
    """The JSON in a text, where it is some; else the text."""
    return json_in(given, name) if given.lstrip()[:1] in ("{", "[") else given


def _mapping(name: str, given: Any) -> Any:
    found = _parsed(name, given) if isinstance(given, str) else given
    if not isinstance(found, dict):
        raise _wrong(name, "expected an object")
    return found


def _number(name: str, given: Any) -> float:
    try:
        return float(given)
    except (TypeError, ValueError, OverflowError):
        raise _wrong(name, "expected a number") from None


def _flag(name: str, given: Any) -> bool:
    words = {"true": True, "false": False}
    found = words.get(given) if isinstance(given, str) else given
    if not isinstance(found, bool):
        raise _wrong(name, "expected true or false")
    return found


def _file(part: Part) -> tuple[str, Any]:
    return part.filename, part.file


def _wrong(name: str, why: str, code: str = "invalid_value") -> Refusal:
    return Refusal(400, f"Invalid value for {name!r}: {why}.", code=code, param=name)
