"""Bad input is an error of the tree, and nothing is sent."""

from __future__ import annotations

import base64
import contextlib
import functools
import gzip
import io
from pathlib import Path
from typing import Any

import pytest
from outcome_parts import (
    CLIP,
    URL,
    ejected,
    fleet,
    in_process,
    made_video,
    seeded,
)

from router import Router, errors
from router.ids import Copy, IdCodec, Kind
from router.testing import StandIn

NATIVE = "video_68f10985d6c4819097007665bdcfba5f"


def refused(call: Any, provider: StandIn, router: Any, method: str, **arguments: Any) -> Any:
    """The error of a call that must not have sent anything, nor changed anything."""
    seen = len(provider.requests)
    with pytest.raises(errors.RouterError) as caught:
        call(router, method, **arguments)
    assert len(provider.requests) == seen
    assert caught.value.accepted == "no"
    assert caught.value.status is None
    assert ejected(router) == {}
    assert {facts["in_flight"] for facts in router.statistics().values()} == {0}
    return caught.value


# Arguments of a wrong kind: method, arguments, error

B, C, U = errors.BadRequestError, errors.ConfigError, errors.UnknownModelError
MAKE = {"prompt": "a cat"}
LUNA: dict[str, Any] = {"name": "Luna", "video": CLIP}
WRONG: dict[str, tuple[str, dict[str, Any], type[errors.RouterError]]] = {
    "empty prompt": ("video_generation", {"prompt": ""}, B),
    "blank prompt": ("video_generation", {"prompt": " \n\t"}, B),
    "endless prompt": ("video_generation", {"prompt": "x" * 32_001}, B),
    "no prompt": ("video_generation", {"prompt": None}, B),
    "number for a prompt": ("video_generation", {"prompt": 5}, B),
    "bytes for a prompt": ("video_generation", {"prompt": b"a cat"}, B),
    "half a character in a prompt": ("video_generation", {"prompt": "a \ud800 cat"}, B),
    "empty prompt of an edit": ("video_edit", {"prompt": "", "video_id": NATIVE}, B),
    "empty prompt of a remix": ("video_remix", {"prompt": "", "video_id": NATIVE}, B),
    "empty prompt of an extension": (
        "video_extension",
        {"prompt": "", "video_id": NATIVE, "seconds": 4},
        B,
    ),
    "unknown model": ("video_generation", {**MAKE, "model": "sora-9"}, U),
    "number for a model": ("video_generation", {**MAKE, "model": 5}, errors.RouterError),
    "list for a model": ("video_generation", {**MAKE, "model": ["sora-2"]}, errors.RouterError),
    "unknown target": ("video_generation", {**MAKE, "target_model_names": ["sora-2", "x"]}, U),
    "unknown target in a string": ("video_generation", {**MAKE, "target_model_names": "a,b"}, U),
    "number for targets": ("video_generation", {**MAKE, "target_model_names": 5}, B),
    "number as a target": ("video_generation", {**MAKE, "target_model_names": [5]}, B),
    "unknown model in a list": ("video_list", {"model": "sora-9"}, U),
    "unknown provider": (
        "video_generation",
        {**MAKE, "custom_llm_provider": "x"},
        errors.UnsupportedOperationError,
    ),
    "list for a provider": (
        "video_generation",
        {**MAKE, "custom_llm_provider": ["openai"]},
        errors.RouterError,
    ),
    "unknown account": (
        "video_generation",
        {**MAKE, "account": "south"},
        errors.OwnershipError,
    ),
    "number for an account": ("video_generation", {**MAKE, "account": 5}, errors.RouterError),
    "no seconds": ("video_extension", {**MAKE, "video_id": NATIVE, "seconds": None}, B),
    "zero seconds": ("video_generation", {**MAKE, "seconds": 0}, B),
    "seconds less than none": ("video_generation", {**MAKE, "seconds": -4}, B),
    "words for seconds": ("video_generation", {**MAKE, "seconds": "four"}, B),
    "true for seconds": ("video_generation", {**MAKE, "seconds": True}, B),
    "infinite seconds": ("video_generation", {**MAKE, "seconds": "inf"}, B),
    "list for seconds": ("video_generation", {**MAKE, "seconds": [4]}, B),
    "text for characters": ("video_generation", {**MAKE, "characters": NATIVE}, B),
    "number for characters": ("video_generation", {**MAKE, "characters": 5}, B),
    "number as a character": ("video_generation", {**MAKE, "characters": [5]}, B),
    "no id of a character": ("video_generation", {**MAKE, "characters": [{}]}, B),
    "empty reference": ("video_generation", {**MAKE, "input_reference": {}}, B),
    "reference of two kinds": (
        "video_generation",
        {**MAKE, "input_reference": {"image_url": "http://a", "file_id": "f"}},
        B,
    ),
    "reference by an id": ("video_generation", {**MAKE, "input_reference": {"id": NATIVE}}, B),
    "number for a reference": ("video_generation", {**MAKE, "input_reference": 5}, B),
    "nothing to edit": ("video_edit", MAKE, B),
    "two things to edit": ("video_edit", {**MAKE, "video_id": NATIVE, "video": CLIP}, B),
    "no id in a mapping": ("video_edit", {**MAKE, "video": {}}, B),
    "number for a video": ("video_edit", {**MAKE, "video": 5}, B),
    "number for an id": ("video_status", {"video_id": 5}, B),
    "nothing for an id": ("video_status", {"video_id": None}, B),
    "empty id": ("video_status", {"video_id": ""}, B),
    "empty name": ("video_create_character", {**LUNA, "name": ""}, B),
    "blank name": ("video_create_character", {**LUNA, "name": "  "}, B),
    "long name": ("video_create_character", {**LUNA, "name": "L" * 81}, B),
    "number for a name": ("video_create_character", {**LUNA, "name": 5}, B),
    "id for a clip": ("video_create_character", {**LUNA, "video": {"id": NATIVE}}, B),
    "no clip": ("video_create_character", {**LUNA, "video": None}, B),
    "no copies": ("video_create_character", {**LUNA, "replicate": 0}, B),
    "nine copies": ("video_create_character", {**LUNA, "replicate": 9}, B),
    "words for copies": ("video_create_character", {**LUNA, "replicate": "two"}, B),
    "true for copies": ("video_create_character", {**LUNA, "replicate": True}, B),
    "list for a variant": ("video_content", {"video_id": NATIVE, "variant": ["video"]}, B),
    "number for a target file": ("video_content", {"video_id": NATIVE, "to": 5}, B),
    "empty page": ("video_list", {"limit": 0}, B),
    "endless page": ("video_list", {"limit": 101}, B),
    "words for a limit": ("video_list", {"limit": "20"}, B),
    "unknown order": ("video_list", {"order": "sideways"}, B),
    "a character for a cursor": (
        "video_list",
        {"after": IdCodec().encode(Kind.CHARACTER, [Copy("east", "char_1")])},
        errors.InvalidIdError,
    ),
    "number for a cursor": ("video_list", {"after": 5}, errors.RouterError),
    "no time": ("video_generation", {**MAKE, "timeout": 0}, B),
    "time less than none": ("video_generation", {**MAKE, "timeout": -1}, B),
    "words for a time": ("video_generation", {**MAKE, "timeout": "5"}, B),
    "true for a time": ("video_generation", {**MAKE, "timeout": True}, B),
    "infinite time": ("video_generation", {**MAKE, "timeout": float("inf")}, B),
    "no number for a time": ("video_generation", {**MAKE, "timeout": float("nan")}, B),
    "no deadline": ("video_status", {"video_id": NATIVE, "deadline": 0}, B),
    "words for a deadline": ("video_status", {"video_id": NATIVE, "deadline": "5"}, B),
    "retries less than none": ("video_generation", {**MAKE, "retries": -1}, B),
    "words for retries": ("video_generation", {**MAKE, "retries": "2"}, B),
    "half a retry": ("video_generation", {**MAKE, "retries": 0.5}, B),
    "true for retries": ("video_generation", {**MAKE, "retries": True}, B),
    "text for extra headers": ("video_generation", {**MAKE, "extra_headers": "x: 1"}, B),
    "number in extra headers": ("video_generation", {**MAKE, "extra_headers": {"x": 5}}, B),
    "number names an extra header": ("video_generation", {**MAKE, "extra_headers": {5: "x"}}, B),
    "no ASCII in extra headers": (
        "video_generation",
        {**MAKE, "extra_headers": {"x-city": "Łódź"}},
        B,
    ),
    "list for an extra body": ("video_generation", {**MAKE, "extra_body": [1]}, B),
    "unwritable extra body": (
        "video_edit",
        {**MAKE, "video_id": NATIVE, "extra_body": {"x": object()}},
        B,
    ),
    "text for an extra query": ("video_status", {"video_id": NATIVE, "extra_query": "a=b"}, B),
    "list for metadata": ("video_generation", {**MAKE, "metadata": [1]}, B),
    "words for a wait": ("video_wait", {"video_id": NATIVE, "wait_timeout": "soon"}, B),
    "no number for a wait": ("video_wait", {"video_id": NATIVE, "wait_timeout": float("nan")}, B),
    "number for on_progress": ("video_wait", {"video_id": NATIVE, "on_progress": 5}, B),
    "variant that a provider lacks": (
        "video_content",
        {"video_id": NATIVE, "variant": ""},
        B,
    ),
}


@pytest.mark.parametrize(("method", "arguments", "error"), WRONG.values(), ids=WRONG)
def test_a_wrong_argument_is_refused_before_anything_is_sent(
    call: Any,
    provider: StandIn,
    clock: Any,
    method: str,
    arguments: dict[str, Any],
    error: type[errors.RouterError],
) -> None:
    router = seeded(provider, clock, fleet(URL, "east"))  # one account: native ids are clear

    assert isinstance(refused(call, provider, router, method, **arguments), error)


def test_an_unknown_model_error_lists_the_known(call: Any, provider: StandIn) -> None:
    data = fleet(URL)
    data["deployments"][1]["model_name"] = "sora-2-pro"
    router = in_process(provider, data)

    for arguments in ({"model": "sora-9"}, {"target_model_names": "sora-9"}, {}):
        error = refused(call, provider, router, "video_generation", prompt="a cat", **arguments)
        assert isinstance(error, errors.UnknownModelError)
        assert "sora-2, sora-2-pro" in str(error)


REPLACED = {
    "api_key": "YAML",
    "api_base": "base_url",
    "num_retries": "retries",
    "mock_response": "StandIn",
}


@pytest.mark.parametrize(("name", "instead"), REPLACED.items())
@pytest.mark.parametrize("method", ["video_generation", "video_status", "video_wait", "video_list"])
def test_other_libraries_arguments_are_a_type_error_that_names_the_replacement(
    call: Any, provider: StandIn, name: str, instead: str, method: str
) -> None:
    arguments = {
        "video_generation": MAKE,
        "video_status": {"video_id": NATIVE},
        "video_wait": {"video_id": NATIVE},
        "video_list": {},
    }[method]
    router = in_process(provider)

    with pytest.raises(TypeError, match=instead) as caught:
        call(router, method, **arguments, **{name: "sk-secret"})

    assert name in str(caught.value)
    assert "sk-secret" not in str(caught.value)
    assert provider.requests == []


@pytest.mark.parametrize("value", [None, 0, "sora-2", ["sora-2"], {"sora-2": ["pro"]}])
def test_fallbacks_are_allowed_or_not_and_named_in_the_settings_only(
    call: Any, provider: StandIn, value: object
) -> None:
    router = in_process(provider)

    error = refused(call, provider, router, "video_generation", prompt="a cat", fallbacks=value)

    assert isinstance(error, errors.BadRequestError)
    assert "fallbacks" in str(error)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("video_edit", {"prompt": "x"}),
        ("video_extension", {"prompt": "x", "seconds": 4}),
        ("video_remix", {"prompt": "x"}),
        ("video_status", {}),
    ],
)
def test_only_a_generation_has_fallbacks(
    call: Any, provider: StandIn, method: str, arguments: dict[str, Any]
) -> None:
    with pytest.raises(TypeError, match="fallbacks"):
        call(in_process(provider), method, video_id=NATIVE, **arguments, fallbacks=False)
    assert provider.requests == []


@pytest.mark.parametrize("name", ["redis", "redis_url", "namespace"])
def test_what_is_a_setting_is_no_argument_of_a_call(
    call: Any, provider: StandIn, name: str
) -> None:
    with pytest.raises(TypeError, match=name):
        call(in_process(provider), "video_generation", prompt="a cat", **{name: "x"})
    assert provider.requests == []


@pytest.mark.parametrize("value", [-1, "soon", True, float("nan"), [1], 10**400])
def test_a_wait_that_is_no_number_of_seconds_is_refused_before_sending(
    call: Any, provider: StandIn, value: object
) -> None:
    router = in_process(provider)

    error = refused(call, provider, router, "video_generation", prompt="a cat", max_wait=value)

    assert isinstance(error, errors.BadRequestError)
    assert "max_wait" in str(error)


@pytest.mark.parametrize("value", [None, 0, 0.0, 5, 1.5])
def test_a_wait_may_be_none_or_any_number_of_seconds(
    call: Any, provider: StandIn, value: object
) -> None:
    call(in_process(provider), "video_generation", prompt="a cat", max_wait=value)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), "60", True, None])
def test_a_drain_takes_a_number_of_seconds(provider: StandIn, seconds: Any) -> None:
    with in_process(provider) as router:
        with pytest.raises(errors.BadRequestError, match="positive number of seconds"):
            router.drain("east-1", seconds)
        assert ejected(router) == {}
        router.drain("east-1", 1e30)
        (ejection,) = router.statistics()["east-1"]["ejections"]
    assert ejection["seconds"] == pytest.approx(10 * 365 * 86_400, rel=1e-6)


class Awaited:
    async def __call__(self, event: object) -> None: ...


async def awaited(event: object) -> None: ...


@pytest.mark.parametrize(
    "hook",
    ["print", [print], awaited, Awaited(), functools.partial(awaited)],
    ids=["its name", "a list", "a coroutine function", "an awaited object", "a partial"],
)
def test_a_hook_that_could_never_be_called_is_refused_at_once(provider: StandIn, hook: Any) -> None:
    with pytest.raises(errors.ConfigError, match="`on_event` is"):
        in_process(provider, on_event=hook)


@pytest.mark.parametrize(
    "named",
    [
        {"characters": 5},
        {"characters": "char_1"},
        {"characters": {"id": "char_1"}},
        {"characters": [5]},
        {"size": 5},
        {"seconds": "long"},
    ],
    ids=str,
)
def test_a_pick_and_an_explanation_refuse_what_the_call_would(
    provider: StandIn, named: dict[str, Any]
) -> None:
    with in_process(provider) as router:
        for asks in (router.explain, router.pick, router.apick):
            with pytest.raises(errors.BadRequestError):
                asks("generation", **named)


@pytest.mark.parametrize(
    "url", ["redis+sentinel://host", "redis://h:port", "redis://h/db", "redis+cluster://"]
)
def test_a_redis_url_that_cannot_be_understood_is_a_config_error(
    provider: StandIn, url: str
) -> None:
    written = url.replace("://", "://user:pa55-word@")
    data = fleet("http://stand-in/v1") | {"settings": {"redis_url": written}}
    with pytest.raises(errors.ConfigError, match="redis_url") as caught:
        in_process(provider, data).close()
    assert "pa55-word" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_misspelt_argument_is_a_type_error(call: Any, provider: StandIn) -> None:
    with pytest.raises(TypeError, match="promt"):
        call(in_process(provider), "video_generation", prompt="a cat", promt="a dog")
    assert provider.requests == []


# Ids

TRAVELLING = [
    "../videos",
    "..",
    ".",
    "../../admin",
    "a/../b",
    "a/..",
    "./a",
    "..\\..\\a",
    "a\\..\\b",
    "video_1/..",
    "video 1",
    " video_1",
    "video_1\n",
    "video_1\r\nx-header: 1",
    "video_1\0",
    "video\t1",
    "\u202evideo_1",
    "x" * 513,
    "x" * 5_000,
]


@pytest.mark.parametrize("text", TRAVELLING, ids=repr)
@pytest.mark.parametrize("account", [None, "east"])
def test_an_id_that_is_a_path_or_no_id_goes_nowhere(
    call: Any, provider: StandIn, text: str, account: str | None
) -> None:
    router = in_process(provider, fleet(URL, "east"))

    for method, arguments in (
        ("video_status", {"video_id": text}),
        ("video_content", {"video_id": text}),
        ("video_delete", {"video_id": text}),
        ("video_edit", {"video_id": text, "prompt": "a cat"}),
        ("video_edit", {"video": {"id": text}, "prompt": "a cat"}),
        ("video_remix", {"video_id": text, "prompt": "a cat"}),
        ("video_get_character", {"character_id": text}),
        ("video_generation", {"characters": [text], "prompt": "a cat"}),
        ("video_wait", {"video_id": text}),
    ):
        error = refused(call, provider, router, method, account=account, **arguments)
        assert isinstance(error, errors.InvalidIdError), method
    with pytest.raises(errors.InvalidIdError):
        call(router, "locate", text)
    assert provider.requests == []


def test_what_may_stand_in_a_path_is_percent_encoded(call: Any, provider: StandIn) -> None:
    router = in_process(provider, fleet(URL, "east"))

    for native in ("a/b", "a?b", "a#b", "%2e%2e", "a%2fb", "ü", "a&b=c", "a;b"):
        with pytest.raises(errors.NotFoundError):
            call(router, "video_status", native)
        sent = provider.requests[-1]
        assert sent.path.startswith("/v1/videos/")
        assert sent.path.count("/") == 3
        assert sent.query == {}
        assert (sent.operation, sent.status) == ("status", 404)


@pytest.mark.parametrize("position", [-1, -9, 12, 20, 30])
def test_an_altered_id_is_refused(call: Any, provider: StandIn, position: int) -> None:
    video = made_video(provider)
    router = in_process(provider)
    letter = "A" if video[position] != "A" else "B"
    altered = video[:position] + letter + (video[position + 1 :] if position != -1 else "")

    error = refused(call, provider, router, "video_status", video_id=altered)

    assert isinstance(error, errors.InvalidIdError)


@pytest.mark.parametrize(
    "alter",
    [
        lambda text: text[:-4],
        lambda text: text + "A",
        lambda text: text + "=",
        lambda text: text.upper(),
        lambda text: "video" + text.removeprefix("video_vr1"),
        lambda text: "Video_vr1" + text.removeprefix("video_vr1"),
        lambda text: "character_vr1" + text.removeprefix("video_vr1"),
        lambda text: "video_vr1",
        lambda text: "video_vr1!!!",
        lambda text: text + "/../x",
    ],
)
def test_a_cut_or_dressed_up_id_is_refused(call: Any, provider: StandIn, alter: Any) -> None:
    video = made_video(provider)
    router = in_process(provider)

    error = refused(call, provider, router, "video_status", video_id=alter(video))

    assert isinstance(error, errors.InvalidIdError)


def test_an_id_signed_elsewhere_is_refused(call: Any, provider: StandIn) -> None:
    signed = IdCodec(["their secret"]).encode(Kind.VIDEO, [Copy("east", NATIVE)])
    plain = IdCodec().encode(Kind.VIDEO, [Copy("east", NATIVE)])
    ours = {"id_secrets": ["our secret"], "accept_unsigned_ids": False}

    for settings, text in (({}, signed), (ours, signed), (ours, plain), (ours, NATIVE)):
        router = in_process(provider, {**fleet(URL, "east"), "settings": settings})
        error = refused(call, provider, router, "video_status", video_id=text)
        assert isinstance(error, errors.InvalidIdError)


def test_an_id_of_an_account_that_is_not_configured_is_an_ownership_error(
    call: Any, provider: StandIn
) -> None:
    foreign = IdCodec().encode(Kind.VIDEO, [Copy("south", NATIVE)])
    router = in_process(provider)

    for method, arguments in (
        ("video_status", {}),
        ("video_edit", {"prompt": "a cat"}),
        ("video_wait", {}),
    ):
        error = refused(call, provider, router, method, video_id=foreign, **arguments)
        assert isinstance(error, errors.OwnershipError)
        assert "south" in str(error)


def test_an_id_of_the_other_kind_is_refused(call: Any, provider: StandIn) -> None:
    router = in_process(provider)
    video = made_video(provider)
    luna = call(in_process(provider), "video_create_character", **LUNA).id

    for method, arguments in (
        ("video_status", {"video_id": luna}),
        ("video_edit", {"video_id": luna, "prompt": "a cat"}),
        ("video_get_character", {"character_id": video}),
        ("video_generation", {"prompt": "a cat", "characters": [video]}),
    ):
        error = refused(call, provider, router, method, **arguments)
        assert isinstance(error, errors.InvalidIdError)


def test_a_native_id_of_nobody_in_particular_is_refused(call: Any, provider: StandIn) -> None:
    error = refused(call, provider, in_process(provider), "video_status", video_id=NATIVE)

    assert isinstance(error, errors.InvalidIdError)
    assert "east, west" in str(error)


def test_litellms_id_of_an_unknown_deployment_is_refused(call: Any, provider: StandIn) -> None:
    plain = f"litellm:custom_llm_provider:openai;model_id:sora-2;video_id:{NATIVE}"
    theirs = "video_" + base64.b64encode(plain.encode()).decode()

    error = refused(call, provider, in_process(provider), "video_status", video_id=theirs)

    assert isinstance(error, errors.InvalidIdError)


def test_characters_without_a_common_holder_are_an_ownership_error(
    call: Any, provider: StandIn
) -> None:
    router = in_process(provider)
    luna = call(router, "video_create_character", **LUNA, account="east")
    sol = call(router, "video_create_character", name="Sol", video=CLIP, account="west")

    error = refused(
        call, provider, router, "video_generation", prompt="Luna, Sol", characters=[luna, sol]
    )

    assert isinstance(error, errors.OwnershipError)
    assert "east" in str(error)
    assert "west" in str(error)


def test_an_owner_outside_the_named_groups_is_an_ownership_error(
    call: Any, provider: StandIn
) -> None:
    data = fleet(URL)
    data["deployments"][1]["model_name"] = "sora-2-pro"
    video = made_video(provider, "east")

    error = refused(
        call,
        provider,
        in_process(provider, data),
        "video_edit",
        prompt="a cat",
        video_id=video,
        model="sora-2-pro",
    )

    assert isinstance(error, errors.OwnershipError)


# Files


def files(folder: Path) -> dict[str, Any]:
    empty = folder / "empty.mp4"
    empty.write_bytes(b"")
    clip = folder / "luna.mp4"
    clip.write_bytes(CLIP)
    return {
        "missing": folder / "nowhere.mp4",
        "missing, as text": str(folder / "nowhere.mp4"),
        "directory": folder,
        "empty": empty,
        "empty bytes": b"",
        "empty stream": io.BytesIO(),
        "in a missing folder": folder / "no" / "luna.mp4",
        "through a file": clip / "luna.mp4",
        "NUL in a path": "luna\0.mp4",
        "text stream": io.StringIO("not a clip"),
        "list": [CLIP],
        "tuple of one": (CLIP,),
        "tuple of four": ("luna.mp4", CLIP, "video/mp4", {}),
        "tuple without a file": ("luna.mp4", None),
        "name with a number": ("luna.mp4", 5),
    }


NO_FILES = (
    "missing",
    "missing, as text",
    "directory",
    "empty",
    "empty bytes",
    "empty stream",
    "in a missing folder",
    "through a file",
    "NUL in a path",
    "text stream",
    "list",
    "tuple of one",
    "tuple of four",
    "tuple without a file",
    "name with a number",
)


@pytest.mark.parametrize("name", NO_FILES)
@pytest.mark.parametrize("method", ["video_create_character", "video_edit", "video_generation"])
def test_what_is_no_file_is_refused_and_its_folder_not_named(
    call: Any, provider: StandIn, tmp_path: Path, name: str, method: str
) -> None:
    given = files(tmp_path)[name]
    arguments = {
        "video_create_character": {"name": "Luna", "video": given},
        "video_edit": {"prompt": "a cat", "video": given},
        "video_generation": {"prompt": "a cat", "input_reference": given},
    }[method]

    error = refused(call, provider, in_process(provider), method, **arguments)

    assert isinstance(error, errors.BadRequestError)
    assert str(tmp_path.parent) not in str(error)


OPENED = {
    "text mode": lambda path: path.open(encoding="utf-8"),
    "write mode": lambda path: path.with_suffix(".out").open("wb"),
    "unbuffered write mode": lambda path: path.open("ab", buffering=0),
    "closed": lambda path: _closed(path.open("rb")),
    "closed, in memory": lambda path: _closed(io.BytesIO(CLIP)),
    "at its end": lambda path: _at_its_end(path.open("rb")),
    "gzip of something else": lambda path: gzip.open(path, "rb"),  # noqa: SIM115
}


def _closed(file: Any) -> Any:
    file.close()
    return file


def _at_its_end(file: Any) -> Any:
    file.seek(0, io.SEEK_END)
    return file


@pytest.mark.parametrize("opened", OPENED.values(), ids=OPENED)
def test_a_file_that_cannot_be_read_is_refused(
    call: Any, provider: StandIn, tmp_path: Path, opened: Any
) -> None:
    path = tmp_path / "luna.mp4"
    path.write_bytes(b"not UTF-8: \xff, nor gzip")

    with contextlib.closing(opened(path)) as file:
        error = refused(
            call, provider, in_process(provider), "video_create_character", name="L", video=file
        )

    assert isinstance(error, errors.BadRequestError)


class Raising:
    """A caller's own reader that fails."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def read(self, size: int = -1, /) -> bytes:
        raise self.error


def test_a_reader_that_fails_with_an_os_error_is_the_callers_fault(
    call: Any, provider: StandIn
) -> None:
    error = refused(
        call,
        provider,
        in_process(provider),
        "video_create_character",
        name="Luna",
        video=Raising(OSError(5, "Input/output error")),
    )

    assert isinstance(error, errors.BadRequestError)


def test_a_folder_or_nowhere_is_no_place_for_a_download(
    call: Any, provider: StandIn, tmp_path: Path
) -> None:
    video = made_video(provider)

    for to in (tmp_path, tmp_path / "no" / "video.mp4", ""):
        error = refused(
            call, provider, in_process(provider), "video_content", video_id=video, to=to
        )
        assert isinstance(error, errors.BadRequestError)


# What nobody can do


def runway() -> dict[str, Any]:
    data = fleet(URL, "east")
    data["deployments"][0] |= {"provider": "runwayml", "base_url": "http://stand-in"}
    return data


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("video_create_character", LUNA),
        ("video_get_character", {"character_id": "char_1", "account": "east"}),
        ("video_edit", {"prompt": "a cat", "video": CLIP}),
        ("video_edit", {"prompt": "a cat", "video_id": "x", "account": "east"}),
        ("video_extension", {"prompt": "a cat", "seconds": 4, "video_id": "x"}),
        ("video_remix", {"prompt": "a cat", "video_id": "x"}),
        ("video_list", {}),
        ("video_content", {"video_id": "x", "variant": "thumbnail"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_provider_cannot_do_is_not_implemented(
    call: Any, provider: StandIn, method: str, arguments: dict[str, Any]
) -> None:
    router = in_process(provider, runway())

    error = refused(call, provider, router, method, **arguments)

    assert isinstance(error, errors.UnsupportedOperationError)
    assert isinstance(error, NotImplementedError)


def test_a_deployment_that_may_not_do_it_is_no_candidate_while_another_can(
    call: Any, provider: StandIn
) -> None:
    data = fleet(URL)
    data["deployments"][0]["operations"] = ["status", "content"]
    router = in_process(provider, data)

    for _ in range(6):
        made = call(router, "video_generation", prompt="a cat")
        assert made.routing.deployment == "west-1"

    data["deployments"][1]["operations"] = ["status"]
    error = refused(call, provider, in_process(provider, data), "video_generation", prompt="a")
    assert isinstance(error, errors.UnsupportedOperationError)


# What is only found on the way to the socket


@pytest.mark.parametrize(
    "headers",
    [{"x-a": "b\r\nx-c: d"}, {"x-a\r\nx-c": "d"}, {"x-a": "\0"}, {"x a": "b"}, {"": "b"}],
    ids=repr,
)
def test_headers_that_would_break_the_request_are_refused(
    call: Any, server: StandIn, headers: dict[str, str]
) -> None:
    router = Router.from_dict(fleet(server.base_url, "east"), environ={})

    with pytest.raises(errors.BadRequestError) as caught:
        call(router, "video_generation", prompt="a cat", extra_headers=headers)

    assert caught.value.accepted == "no"
    assert server.requests == []
    assert ejected(router) == {}
    call.close(router)


def test_a_refusal_says_nothing_to_the_provider_even_of_many_copies(
    call: Any, provider: StandIn
) -> None:
    router = in_process(provider)

    for arguments in ({"video": b""}, {"extra_headers": {"x": 5}}, {"name": "a \ud800"}):
        given = {**LUNA, "replicate": "all", **arguments}
        refused(call, provider, router, "video_create_character", **given)
