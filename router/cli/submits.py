"""`video-router character`, `generate`, `edit`, `extend`, `remix`: what starts something, once."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from router.cli import look
from router.cli.calling import (
    Account,
    Deadline,
    Follow,
    MaxCost,
    Model,
    Models,
    Output,
    Seconds,
    Session,
    Size,
    Timeout,
    WaitTimeout,
    answer_data,
    calling,
    number,
)
from router.cli.onlooker import DEFAULT_FILE, AsJson, File, filled
from router.errors import AmbiguousSubmitError
from router.router import Router
from router.types import Routing, Video

__all__ = ["character", "edit", "extend", "generate", "remix"]


def _copies(text: str) -> int | str:
    if text == "all":
        return text
    if not text.isdecimal() or not 1 <= int(text) <= 8:
        raise typer.BadParameter(f"'{text}' is neither a number from 1 to 8 nor all")
    return int(text)


def _reference(text: str) -> Any:
    """A file, or the address of a picture."""
    if text.startswith(("http://", "https://", "data:")):
        return {"image_url": text}
    return _file(text)


def _file(text: str) -> Path:
    path = Path(text)
    if not path.is_file():
        raise typer.BadParameter(f"there is no file '{text}'")
    return path


def _source(text: str) -> dict[str, Any]:
    """A video that exists, by its id, or one to upload."""
    if Path(filled(text)).is_file():
        return {"video": Path(text)}
    # An id that a provider gave may be anything, but hardly looks like this.
    if os.sep in text or Path(text).suffix:
        raise typer.BadParameter(f"'{text}' is no file, and no id of a video")
    return {"video_id": text}


Prompt = Annotated[str, typer.Argument(metavar="PROMPT", parser=filled, help="What is to be seen.")]
Source = Annotated[
    Any, typer.Argument(metavar="ID|FILE", parser=_source, help="A video: its id, or a clip.")
]
Key = Annotated[
    str | None,
    typer.Option(
        "--idempotency-key",
        metavar="KEY",
        parser=filled,
        help="However often it is asked for under this key, it is made once (needs a redis_url).",
    ),
]
Wait = Annotated[bool, typer.Option("--wait", "-w", help="Wait until the job has ended.")]


def character(
    name: Annotated[str, typer.Argument(metavar="NAME", parser=filled, help="As prompts call it.")],
    clip: Annotated[
        Path, typer.Argument(metavar="CLIP", parser=_file, help="A short video of it.")
    ],
    replicate: Annotated[
        str,
        typer.Option(metavar="N|all", parser=_copies, help="In how many accounts it shall live."),
    ] = "1",
    model: Model = None,
    target_model_names: Models = None,
    account: Account = None,
    idempotency_key: Key = None,
    timeout: Timeout = None,
    deadline: Deadline = None,
    config: File = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Make a reusable character from a clip; its id comes on stdout."""
    with calling(config, as_json) as session:
        _check_key(session, idempotency_key)
        made = session.router.video_create_character(
            name=name,
            video=clip,
            replicate=replicate,
            model=model,
            target_model_names=target_model_names,
            account=account,
            idempotency_key=idempotency_key,
            timeout=timeout,
            deadline=deadline,
        )
        routing = made.routing
        assert routing is not None
        session.tell(made.id)
        session.end(answer_data(made), made.id)
        copies = sorted(routing.copies or (routing.account,))
        where = f"account{'s' if len(copies) > 1 else ''} {look.listed(copies)}"
        session.note(f"{look.plain(name)} in the {where}, after {look.took(routing.seconds)}")
        for warning in routing.warnings:
            session.warn(warning)
        for failed, why in routing.failures.items():
            look.warn(f"not in the account {failed}: {why}")


def generate(
    prompt: Prompt,
    model: Model = None,
    target_model_names: Models = None,
    seconds: Seconds = None,
    size: Size = None,
    character: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID",
            parser=filled,
            help="Who is in it; the prompt names them. Can be repeated.",
        ),
    ] = None,
    input_reference: Annotated[
        str | None,
        typer.Option(metavar="FILE|URL", parser=_reference, help="A picture to begin with."),
    ] = None,
    wait: Wait = False,
    output: Output = None,
    wait_timeout: WaitTimeout = None,
    account: Account = None,
    idempotency_key: Key = None,
    max_cost: MaxCost = None,
    timeout: Timeout = None,
    deadline: Deadline = None,
    config: File = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Start a video from a prompt; its id comes on stdout.

    With `--wait` it stays until the job has ended, with `--output` it downloads the video too.
    Ctrl-C then ends the waiting and not the job, and says how to go on.
    """
    asked = {
        "prompt": prompt,
        "seconds": seconds,
        "size": size,
        "characters": character,
        "input_reference": input_reference,
        "model": model,
        "target_model_names": target_model_names,
        "account": account,
        "idempotency_key": idempotency_key,
        "max_cost": max_cost,
        "timeout": timeout,
        "deadline": deadline,
    }
    follow = Follow(wait, output, wait_timeout)
    with calling(config, as_json) as session:
        _submit(session, Router.video_generation, asked, follow)


def edit(
    source: Source,
    prompt: Prompt,
    model: Model = None,
    target_model_names: Models = None,
    wait: Wait = False,
    output: Output = None,
    wait_timeout: WaitTimeout = None,
    account: Account = None,
    idempotency_key: Key = None,
    max_cost: MaxCost = None,
    timeout: Timeout = None,
    deadline: Deadline = None,
    config: File = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Change a video by a prompt; the new one's id comes on stdout.

    A video that exists is edited where it lives; a clip goes to whom `--model` names.
    """
    asked = {
        **source,
        "prompt": prompt,
        "model": model,
        "target_model_names": target_model_names,
        "account": account,
        "idempotency_key": idempotency_key,
        "max_cost": max_cost,
        "timeout": timeout,
        "deadline": deadline,
    }
    follow = Follow(wait, output, wait_timeout)
    with calling(config, as_json) as session:
        _submit(session, Router.video_edit, asked, follow)


def extend(
    source: Source,
    prompt: Prompt,
    seconds: Annotated[
        str, typer.Option("--seconds", metavar="S", parser=number, help="By how many it goes on.")
    ],
    model: Model = None,
    target_model_names: Models = None,
    wait: Wait = False,
    output: Output = None,
    wait_timeout: WaitTimeout = None,
    account: Account = None,
    idempotency_key: Key = None,
    max_cost: MaxCost = None,
    timeout: Timeout = None,
    deadline: Deadline = None,
    config: File = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Continue a video; the new one's id comes on stdout.

    A video that exists is extended where it lives; a clip goes to whom `--model` names.
    """
    asked = {
        **source,
        "prompt": prompt,
        "seconds": seconds,
        "model": model,
        "target_model_names": target_model_names,
        "account": account,
        "idempotency_key": idempotency_key,
        "max_cost": max_cost,
        "timeout": timeout,
        "deadline": deadline,
    }
    follow = Follow(wait, output, wait_timeout)
    with calling(config, as_json) as session:
        _submit(session, Router.video_extension, asked, follow)


def remix(
    video: Annotated[str, typer.Argument(metavar="ID", parser=filled, help="The video.")],
    prompt: Prompt,
    wait: Wait = False,
    output: Output = None,
    wait_timeout: WaitTimeout = None,
    account: Account = None,
    idempotency_key: Key = None,
    max_cost: MaxCost = None,
    timeout: Timeout = None,
    deadline: Deadline = None,
    config: File = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Make a video again with another prompt; the new one's id comes on stdout."""
    asked = {
        "video_id": video,
        "prompt": prompt,
        "account": account,
        "idempotency_key": idempotency_key,
        "max_cost": max_cost,
        "timeout": timeout,
        "deadline": deadline,
    }
    follow = Follow(wait, output, wait_timeout)
    with calling(config, as_json) as session:
        _submit(session, Router.video_remix, asked, follow)


def _submit(
    session: Session, method: Callable[..., Video], asked: dict[str, Any], follow: Follow
) -> None:
    """Start a job, tell its id, and follow it where that is wanted."""
    _check_key(session, asked["idempotency_key"])
    router, served = session.router, None
    try:
        video = method(router, **asked)
    except AmbiguousSubmitError as lost:
        if not follow.wanted:
            raise
        session.note(f"the answer was lost; looking for the job in the account {lost.account}")
        video = session.follow(partial(router.resume, lost), follow)
    else:
        served = video.routing
        session.known(video.id, follow)
        _introduce(session, video)
        if follow.wanted:
            video = session.follow(partial(router.video_wait, video.id), follow)
    more: dict[str, Any] = {}
    if follow.output is not None:
        more["output"] = str(session.save(video.id, follow.output))
    session.end(answer_data(video, served, **more), video.id)


def _introduce(session: Session, video: Video) -> None:
    routing = video.routing
    assert routing is not None
    session.note(", ".join(_facts(video, routing)))
    for warning in routing.warnings:
        session.warn(warning)


def _facts(video: Video, routing: Routing) -> list[str]:
    """`queued on east`, `4 s of 1280x720`, `$0.40`."""
    account = f" (account {routing.account})" if routing.account != routing.deployment else ""
    facts = [f"{look.plain(video.status)} on {routing.deployment}{account}"]
    length = f"{video.seconds} s" if video.seconds else ""
    facts.append(look.plain(" of ".join(part for part in (length, video.size or "") if part)))
    if routing.cost is not None:
        facts.append(f"${routing.cost:.2f}")
    return [fact for fact in facts if fact]


def _check_key(session: Session, key: str | None) -> None:
    assert session.config is not None
    if key is not None and session.config.settings.redis_url is None:
        look.warn(
            f"{session.shell.file} sets no redis_url: the next command will not know this "
            "idempotency key"
        )
