"""`video-router wait`, `content`, `list`, `delete`, and `status` of one video: free to repeat."""

from __future__ import annotations

import enum
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.text import Text

from router.cli import look
from router.cli.calling import (
    Account,
    Deadline,
    Follow,
    Model,
    Models,
    Output,
    Timeout,
    WaitTimeout,
    answer_data,
    calling,
    progress_words,
    routing_data,
    routing_of,
    where_it_lives,
    writable,
)
from router.cli.onlooker import DEFAULT_FILE, AsJson, File, filled
from router.router import Router
from router.types import Video

__all__ = ["content", "delete", "list_videos", "show", "wait"]

Id = Annotated[str, typer.Argument(metavar="ID", parser=filled, help="The video.")]
_COLOURS = {"completed": "green", "failed": "red", "expired": "red", "cancelled": "red"}


class Order(enum.StrEnum):
    """Which end of a list comes first."""

    DESC = "desc"
    ASC = "asc"


def wait(
    video: Id,
    output: Output = None,
    wait_timeout: WaitTimeout = None,
    account: Account = None,
    config: File = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Wait until a job has ended, and with `--output` download its video.

    The job was paid for: looks that fail are repeated, and Ctrl-C ends the waiting only.
    """
    with calling(config, as_json) as session:
        follow = Follow(True, output, wait_timeout)
        owner = ("--account", account) if account else ()
        session.go_on = ("wait", video, *owner, *follow.to)
        ask = partial(session.router.video_wait, video, account=account)
        ended = session.follow(ask, follow)
        more: dict[str, Any] = {}
        if output is not None:
            more["output"] = str(session.save(ended.id, output))
        session.end(answer_data(ended, **more))


def content(
    video: Id,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            callback=writable,
            help="Where to; by default stdout, where that is a file or a pipe.",
        ),
    ] = None,
    variant: Annotated[
        str, typer.Option(metavar="NAME", help="video, thumbnail or spritesheet.")
    ] = "video",
    account: Account = None,
    timeout: Timeout = None,
    deadline: Deadline = None,
    config: File = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Download a finished video; the file appears when it is complete."""
    if output is None and (as_json or sys.stdout is None or sys.stdout.isatty()):
        raise typer.BadParameter("a video needs a file to go to", param_hint="--output")
    with calling(config, as_json) as session:
        to = sys.stdout.buffer if output is None else output
        session.router.video_content(
            video, to=to, variant=variant, account=account, timeout=timeout, deadline=deadline
        )
        if output is None:
            sys.stdout.flush()
            return
        size = output.stat().st_size
        told = {"id": video, "variant": variant, "output": str(output), "bytes": size}
        session.end({**told, "routing": routing_data(routing_of(session.trail.attempts))})
        session.note(f"saved {output}, {look.size(size)}")


def delete(
    video: Id,
    account: Account = None,
    timeout: Timeout = None,
    deadline: Deadline = None,
    config: File = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Delete a video, for good; some providers cancel its job."""
    with calling(config, as_json) as session:
        gone = session.router.video_delete(
            video, account=account, timeout=timeout, deadline=deadline
        )
        session.end(answer_data(gone))
        if not as_json:
            said = "is deleted" if gone.deleted else "was not deleted, says the provider"
            look.stdout().print(Text.assemble((gone.id, "bold"), f" {said}"), soft_wrap=True)


def show(video: str, account: str | None, config: str, as_json: bool) -> None:
    """How one video is: `status ID`."""
    with calling(config, as_json) as session:
        found = session.router.video_status(video, account=account)
        session.end(answer_data(found))
        if not as_json:
            out = look.stdout()
            out.print(_paragraph(session.router, found, time.time()), soft_wrap=True)


def list_videos(
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="How many at most.")] = 20,
    after: Annotated[
        str | None,
        typer.Option(metavar="CURSOR", parser=filled, help="Where the page before ended."),
    ] = None,
    order: Annotated[Order, typer.Option(help="The newest first, or the oldest.")] = Order.DESC,
    model: Model = None,
    target_model_names: Models = None,
    account: Account = None,
    timeout: Timeout = None,
    deadline: Deadline = None,
    config: File = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """List the videos of all accounts, merged."""
    with calling(config, as_json) as session:
        page = session.router.video_list(
            limit=limit,
            after=after,
            order=str(order),
            model=model,
            target_model_names=target_model_names,
            account=account,
            timeout=timeout,
            deadline=deadline,
        )
        session.end(answer_data(page))
        for name, why in (page.routing.failures if page.routing else {}).items():
            look.warn(f"the account {name} did not answer: {why}")
        if as_json:
            return
        out = look.stdout()
        if page.data:
            out.print(_videos(out, session.router, page.data, time.time()), soft_wrap=True)
        else:
            session.note("no videos")
        if page.has_more and page.last_id:
            session.note(f"there are more: --after {page.last_id}")


# The picture ------------------------------------------------------------------------------------


def _videos(out: Console, router: Router, videos: Sequence[Video], now: float) -> RenderableType:
    columns = (
        look.Column("id", [Text(one.id, "bold") for one in videos]),
        look.Column("account", [where_it_lives(router, one.id) for one in videos]),
        look.Column("model", [look.plain(one.model or "") for one in videos], spare=3),
        look.Column("status", [_status(one) for one in videos]),
        look.Column("video", [_length(one) for one in videos], right=True, spare=1),
        look.Column("made", [_ago(one.created_at, now) for one in videos], right=True),
        look.Column(
            "kept for", [_until(one.expires_at, now) for one in videos], right=True, spare=2
        ),
    )
    table = look.fitted(out, columns)
    if table is not None:
        return table
    return Group(*(_paragraph(router, one, now) for one in videos))


def _paragraph(router: Router, one: Video, now: float) -> RenderableType:
    where = where_it_lives(router, one.id)
    made = _ago(one.created_at, now)
    served = [look.plain(one.model or ""), _length(one), where and f"account {where}"]
    kept = _until(one.expires_at, now)
    times = [made and f"made {made} ago", kept and f"kept for {kept}"]
    lines = [_status(one), Text(", ".join(part for part in (*served, *times) if part))]
    if one.error is not None:
        said = (one.error.code, one.error.message)
        lines.append(Text(": ".join(look.plain(part) for part in said if part), "red"))
    if one.prompt:
        lines.append(Text(look.plain(one.prompt), "dim"))
    facts = Text("\n").join([line for line in lines if line])
    return Group(Text(one.id, "bold"), look.indented(facts))


def _status(one: Video) -> Text:
    return Text(progress_words(one), _COLOURS.get(one.status, ""))


def _length(one: Video) -> str:
    length = f"{one.seconds} s" if one.seconds else ""
    return look.plain(" of ".join(part for part in (length, one.size or "") if part))


def _ago(at: float | None, now: float) -> str:
    return "" if at is None else look.lasting(now - at)


def _until(at: float | None, now: float) -> str:
    if at is None:
        return ""
    return look.lasting(at - now)
