"""From a method's arguments to a `Call`, or to an error that says what is wrong with them.

These functions are the signatures of the public methods: `Router` pairs each with its two doors.
They look at values only; what needs the configuration, an id's meaning or a file comes later.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any, NoReturn, Unpack

from router.errors import BadRequestError, ConfigError
from router.operations.call import MOST_COPIES, Call, Options, SubmitOptions
from router.tenants import Tenant
from router.types import (
    AsyncWritable,
    Character,
    CharacterRef,
    Content,
    FileInput,
    ImageInput,
    Names,
    Operation,
    Video,
    VideoDeleted,
    VideoInput,
    VideoPage,
)

__all__ = [
    "content",
    "create_character",
    "delete",
    "edit",
    "extension",
    "generation",
    "get_character",
    "id_in",
    "listing",
    "remix",
    "routing_only",
    "status",
]

# The published bounds: a prompt of 1 to 32,000 characters, a name of 1 to 80, pages of at most 100.
_LONGEST_PROMPT = 32_000
_LONGEST_NAME = 80
_LONGEST_PAGE = 100
_LONGEST_KEY = 256

# Arguments that other libraries have for what is written elsewhere here.
_REPLACED = {
    "api_key": "deployments take their key from the YAML (`api_key:`)",
    "api_base": "deployments take their address from the YAML (`base_url:`)",
    "num_retries": "the argument is called `retries`",
    "idempotency_key": "submits take it; reads may be repeated, and a pick is sent by its caller",
    "mock_response": "test against `router.testing.StandIn`",
}


# Another key would make a job that its id does not lead to; another length, another request.
_OWN_HEADERS = frozenset(
    {"authorization", "api-key", "host", "content-length", "transfer-encoding", "connection"}
)


def create_character(
    *,
    name: str,
    video: FileInput,
    model: str | None = None,
    target_model_names: Names | None = None,
    replicate: int | str = 1,
    **options: Unpack[SubmitOptions],
) -> Call[Character]:
    """Make a reusable character from a clip.

    `replicate=n` (at most 8, or `"all"`) uploads to the best n accounts at once; the one id
    returned holds all copies. Raises the last error only when every copy failed.
    """
    if not isinstance(name, str) or not 1 <= len(name.strip()) <= _LONGEST_NAME:
        _refuse(f"a character's name has 1 to {_LONGEST_NAME} characters")
    if video is None or isinstance(video, (Video, Mapping)):
        _refuse("a character is made from a clip (bytes, a path, an open file), not from an id")
    return Call(
        operation=Operation.CREATE_CHARACTER,
        models=_models(model, target_model_names),
        name=name,
        upload=video,
        replicate=_copies(replicate),
        **_submit(options),
    )


def get_character(character_id: str | Character, **options: Unpack[Options]) -> Call[Character]:
    """Look up a character where it lives."""
    return Call(operation=Operation.GET_CHARACTER, ids=(id_in(character_id),), **_checked(options))


def generation(
    *,
    prompt: str,
    model: str | None = None,
    target_model_names: Names | None = None,
    seconds: str | int | None = None,
    size: str | None = None,
    input_reference: ImageInput | None = None,
    characters: Sequence[CharacterRef] | None = None,
    fallbacks: bool = True,
    **options: Unpack[SubmitOptions],
) -> Call[Video]:
    """Start a video from a prompt.

    With `characters` it goes to an account that holds all of them. `input_reference` is a file,
    `{"image_url": …}` or `{"file_id": …}`; `seconds` and `size` are sent as they are, since what
    is allowed differs between providers. With `fallbacks=False` it goes to no group but those it
    names, whatever the settings say.
    """
    reference = input_reference if isinstance(input_reference, Mapping) else None
    if reference is not None and len({"image_url", "file_id"} & set(reference)) != 1:
        _refuse("input_reference is a file, {'image_url': …} or {'file_id': …}")
    if reference is not None and not all(isinstance(value, str) for value in reference.values()):
        _refuse("input_reference names its url or file id by a string")
    return Call(
        operation=Operation.GENERATION,
        models=_models(model, target_model_names),
        ids=_characters(characters),
        prompt=_prompt(prompt),
        seconds=_seconds(seconds),
        size=_size(size),
        upload=None if isinstance(input_reference, Mapping) else input_reference,
        upload_field="input_reference",
        reference=reference,
        fallbacks=_flag("fallbacks", fallbacks),
        **_submit(options),
    )


def edit(
    *,
    prompt: str,
    video_id: str | None = None,
    video: VideoInput | None = None,
    model: str | None = None,
    target_model_names: Names | None = None,
    **options: Unpack[SubmitOptions],
) -> Call[Video]:
    """Change a video by a prompt: one that exists (`video_id`), or one sent along (`video`)."""
    source, upload = _source(video_id, video)
    return Call(
        operation=Operation.EDIT,
        models=_models(model, target_model_names),
        ids=source,
        prompt=_prompt(prompt),
        upload=upload,
        **_submit(options),
    )


def extension(
    *,
    prompt: str,
    seconds: str | int,
    video_id: str | None = None,
    video: VideoInput | None = None,
    model: str | None = None,
    target_model_names: Names | None = None,
    **options: Unpack[SubmitOptions],
) -> Call[Video]:
    """Continue a video by `seconds`: one that exists (`video_id`), or one sent along (`video`)."""
    source, upload = _source(video_id, video)
    if seconds is None:
        _refuse("an extension needs `seconds`")
    return Call(
        operation=Operation.EXTENSION,
        models=_models(model, target_model_names),
        ids=source,
        prompt=_prompt(prompt),
        seconds=_seconds(seconds),
        upload=upload,
        **_submit(options),
    )


def remix(*, video_id: str, prompt: str, **options: Unpack[SubmitOptions]) -> Call[Video]:
    """Make a video again with another prompt."""
    return Call(
        operation=Operation.REMIX,
        ids=(id_in(video_id),),
        prompt=_prompt(prompt),
        **_submit(options),
    )


def status(video_id: str | Video, **options: Unpack[Options]) -> Call[Video]:
    """What has become of a video, asked once. `video_wait` asks until the job ends."""
    return Call(operation=Operation.STATUS, ids=(id_in(video_id),), **_checked(options))


def content(
    video_id: str | Video,
    *,
    variant: str = "video",
    to: str | os.PathLike[str] | IO[bytes] | AsyncWritable | None = None,
    **options: Unpack[Options],
) -> Call[Content]:
    """Download a finished video, or its `thumbnail` or `spritesheet`.

    Returns the bytes; with `to`, a path (which appears only when the file is complete) or a
    writable file, nothing is held in memory and the path is returned.
    """
    if not isinstance(variant, str) or not variant:
        _refuse("variant is 'video', 'thumbnail' or 'spritesheet'")
    return Call(
        operation=Operation.CONTENT,
        ids=(id_in(video_id),),
        variant=variant,
        to=to,
        **_checked(options),
    )


def listing(
    *,
    model: str | None = None,
    target_model_names: Names | None = None,
    limit: int = 20,
    after: str | None = None,
    order: str = "desc",
    **options: Unpack[Options],
) -> Call[VideoPage]:
    """The videos of all accounts among the candidates, merged. `after` is a page's `last_id`."""
    if not isinstance(after, str | None):
        _refuse("`after` is a page's `last_id`")
    if order not in ("asc", "desc"):
        _refuse("order is 'asc' or 'desc'")
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= _LONGEST_PAGE:
        _refuse(f"limit is 1 to {_LONGEST_PAGE}")
    return Call(
        operation=Operation.LIST,
        models=_models(model, target_model_names),
        limit=limit,
        after=after,
        order=order,
        **_checked(options),
    )


def delete(video_id: str | Video, **options: Unpack[Options]) -> Call[VideoDeleted]:
    """Delete a video."""
    return Call(operation=Operation.DELETE, ids=(id_in(video_id),), **_checked(options))


def routing_only(
    operation: Operation | str,
    *,
    model: str | None = None,
    target_model_names: Names | None = None,
    video_id: str | None = None,
    character_id: str | None = None,
    characters: Sequence[CharacterRef] | None = None,
    video: VideoInput | None = None,
    input_reference: ImageInput | None = None,
    seconds: str | int | None = None,
    size: str | None = None,
    variant: str = "video",
    fallbacks: bool = True,
    max_cost: float | None = None,
    **options: Unpack[Options],
) -> Call[Any]:
    """A call for `pick`: only what routing depends on. The caller sends it, and opens its files."""
    try:
        chosen = Operation(operation)
    except ValueError:
        raise ConfigError(f"no operation {operation!r}; there are {', '.join(Operation)}") from None
    source = video if isinstance(video, (Mapping, Video)) else None
    named = (id_in(one) for one in (video_id, source, character_id) if one is not None)
    files = (one for one in (video, input_reference) if not isinstance(one, (Mapping, Video)))
    return Call(
        operation=chosen,
        models=_models(model, target_model_names),
        ids=(*named, *_characters(characters)),
        upload=next((one for one in files if one is not None), None),
        reference=input_reference if isinstance(input_reference, Mapping) else None,
        variant=variant,
        seconds=_seconds(seconds),
        size=_size(size),
        fallbacks=_flag("fallbacks", fallbacks),
        max_cost=_dollars(max_cost),
        **_checked(options),
    )


def _refuse(why: str) -> NoReturn:
    raise BadRequestError(why)


def _models(model: str | None, targets: Names | None) -> tuple[str, ...] | None:
    # `target_model_names` takes precedence, as a list or as a string with commas.
    if model is not None and not isinstance(model, str):
        _refuse("model is the name of a group")
    listed = targets.split(",") if isinstance(targets, str) else targets
    if not isinstance(listed, Iterable | None) or not all(isinstance(n, str) for n in listed or ()):
        _refuse("target_model_names is a list of names, or a string with commas")
    names = tuple(dict.fromkeys(name.strip() for name in listed or () if name.strip()))
    return names or ((model,) if model else None)


def _prompt(prompt: str) -> str:
    if not isinstance(prompt, str) or not prompt.strip():
        _refuse("the prompt is empty")
    if len(prompt) > _LONGEST_PROMPT:
        _refuse(f"the prompt has {len(prompt)} characters; {_LONGEST_PROMPT} are allowed")
    return prompt


def _seconds(seconds: str | int | None) -> str | None:
    if seconds is None:
        return None
    try:
        length = float(seconds) if not isinstance(seconds, bool) else 0.0
    except (TypeError, ValueError, OverflowError):
        length = 0.0
    if not 0 < length < float("inf"):
        _refuse(f"seconds is a positive number, not {seconds!r}")
    return str(seconds)


def _size(size: str | None) -> str | None:
    if not isinstance(size, str | None):
        _refuse("size is a string such as '1280x720'")
    return size


def _characters(characters: Sequence[CharacterRef] | None) -> tuple[str, ...]:
    single = isinstance(characters, (str, Character, Mapping))
    if single or not isinstance(characters, Iterable | None):
        _refuse("characters is a list; each one a Character, an id or {'id': …}")
    return tuple(id_in(character) for character in characters or ())


def _flag(name: str, value: object) -> bool:
    # A list of groups, which other libraries take here, would be true and mean nothing.
    if not isinstance(value, bool):
        _refuse(f"{name} is true or false; the groups stand in the settings")
    return value


def id_in(named: object) -> str:
    """The id in what a caller names: an id, an answer, or `{"id": …}`."""
    found = named
    if not isinstance(named, str):
        found = named.get("id") if isinstance(named, Mapping) else getattr(named, "id", named)
    if not isinstance(found, str) or not found:
        _refuse(f"an id is a string, not {found!r}"[:200])
    return found


def _source(
    video_id: str | None, video: VideoInput | None
) -> tuple[tuple[str, ...], FileInput | None]:
    """What an edit or extension starts from: an id, or a file."""
    if (video_id is None) == (video is None):
        _refuse("give either `video_id`, or `video` (a file to upload, or {'id': …})")
    if isinstance(video, (Video, Mapping)):
        return (id_in(video),), None
    return ((), video) if video_id is None else ((id_in(video_id),), None)


def _copies(replicate: int | str) -> int | None:
    if replicate == "all":
        return None
    if isinstance(replicate, bool) or not isinstance(replicate, int):
        _refuse('replicate is a number, or "all"')
    if not 1 <= replicate <= MOST_COPIES:
        _refuse(f"replicate is 1 to {MOST_COPIES}")
    return replicate


def _checked(options: Mapping[str, Any]) -> Options:
    """`options`, when each is one of ours and within its bounds; else an error that names it."""
    if not options:
        return {}
    for name, value in options.items():
        if name in _REPLACED:
            raise TypeError(f"`{name}` is not an argument here: {_REPLACED[name]}")
        if name not in Options.__annotations__:
            raise TypeError(f"unexpected argument {name!r}")
        if value is not None and name in ("timeout", "deadline"):
            _seconds_or_refuse(name, value)
    if options.get("max_wait"):
        _seconds_or_refuse("max_wait", options["max_wait"])
    retries = options.get("retries")
    if retries is not None and (
        isinstance(retries, bool) or not isinstance(retries, int) or retries < 0
    ):
        _refuse("retries is a whole number, 0 or more")
    for name in ("custom_llm_provider", "account", "user"):
        if not isinstance(options.get(name), str | None):
            _refuse(f"{name} is a string")
    if not isinstance(options.get("tenant"), Tenant | None):
        _refuse("tenant is a Tenant")
    for name in ("extra_headers", "extra_body", "extra_query", "metadata"):
        if not isinstance(options.get(name, None) or {}, Mapping):
            _refuse(f"{name} is a mapping")
    for name, value in (options.get("extra_headers") or {}).items():
        if str(name).lower() in _OWN_HEADERS:
            _refuse(f"the header {name!r} is not the caller's: it says whose call this is")
        if not _is_header(name, value):
            _refuse(f"the extra header {str(name)[:40]!r} is not one line of printable ASCII")
    return options  # type: ignore[return-value]  # each name was just found in Options


def _submit(options: Mapping[str, Any]) -> SubmitOptions:
    """`options` of a submit, when each is one of ours and within its bounds."""
    if not options:
        return {}
    key, cost = options.get("idempotency_key"), options.get("max_cost")
    if key is not None and (not isinstance(key, str) or not 1 <= len(key) <= _LONGEST_KEY):
        _refuse(f"idempotency_key is a string of 1 to {_LONGEST_KEY} characters")
    own = SubmitOptions.__annotations__.keys() - Options.__annotations__.keys()
    checked = _checked({name: value for name, value in options.items() if name not in own})
    return {**checked, "idempotency_key": key, "max_cost": _dollars(cost)}


def _dollars(cost: Any) -> float | None:
    if cost is not None and not _is_number(cost):
        _refuse("max_cost is a positive number of dollars")
    found: float | None = cost
    return found


def _is_number(value: object) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 < value < 1e9  # type: ignore[operator]  # a number by now


def _is_header(name: object, value: object) -> bool:
    if not isinstance(name, str) or not isinstance(value, str) or not name:
        return False
    return all(text.isascii() and text.isprintable() for text in (name, value))


def _seconds_or_refuse(name: str, value: object) -> None:
    if not _is_number(value):
        _refuse(f"{name} is a positive number of seconds")
