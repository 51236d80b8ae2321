"""`video-router explain`: who would serve a call now, and why the others would not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.text import Text

from router.balancing.choice import LAST
from router.cli import look
from router.cli.calling import (
    Account,
    MaxCost,
    Model,
    Models,
    Seconds,
    Session,
    Size,
    calling,
)
from router.cli.onlooker import DEFAULT_FILE, AsJson, File, filled
from router.errors import StateUnavailableError
from router.inspection import Explained, Explanation
from router.operations import USUAL_LENGTH
from router.types import Operation, length_in

__all__ = ["explain"]

_COLOURS = {"picked": "green", "lost": "", "tier": ""}


# The commands are called otherwise than what they ask for.
_COMMANDS = {
    "character": Operation.CREATE_CHARACTER,
    "generate": Operation.GENERATION,
    "extend": Operation.EXTENSION,
    "wait": Operation.STATUS,
}
_NAMES = {**_COMMANDS, **{str(operation): operation for operation in Operation}}


def _operation(text: str) -> Operation:
    if text not in _NAMES:
        raise typer.BadParameter(f"'{text}' is no operation; there are {look.listed(_NAMES)}")
    return _NAMES[text]


def explain(
    operation: Annotated[
        Operation,
        typer.Argument(
            metavar="OPERATION",
            parser=_operation,
            autocompletion=lambda: list(_NAMES),
            help="As its command, or as in the YAML: generate or generation, edit, status…",
        ),
    ] = Operation.GENERATION,
    model: Model = None,
    target_model_names: Models = None,
    seconds: Seconds = None,
    size: Size = None,
    video: Annotated[
        str | None,
        typer.Option(metavar="ID", parser=filled, help="The video that the call is about."),
    ] = None,
    character: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", parser=filled, help="Who is in it. Can be repeated."),
    ] = None,
    max_cost: MaxCost = None,
    account: Account = None,
    config: File = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Show who would serve a call now, and why the others would not; nothing is sent.

    With a redis_url it knows what the fleet knows, without one nothing but the configuration. The
    exit code is 1 where nobody would serve it.
    """
    alone = operation is Operation.GET_CHARACTER and character
    named: dict[str, Any] = {"character_id": character[0]} if alone and character else {}
    if character and not alone:
        named["characters"] = character
    with calling(config, as_json, onlooker=True) as session:
        explanation = session.router.explain(
            operation,
            model=model,
            target_model_names=target_model_names,
            video_id=video,
            seconds=seconds,
            size=size,
            max_cost=max_cost,
            account=account,
            **named,
        )
        full = _full(session, operation)
        if as_json:
            look.show_json(_data(explanation, full))
        else:
            _show(look.stdout(), explanation, full)
            _say_what_is_compared(session, operation, length_in(seconds))
            if full.get(explanation.picked or ""):
                look.warn(f"{explanation.picked} has no room now: the call would wait, or go on")
    if explanation.picked is None:
        raise typer.Exit(1)


def _full(session: Session, operation: Operation) -> dict[str, str]:
    """By deployment, the limits that the fleet has reached, its account's included.

    The router's own verdict goes by what this process holds, and that is nothing.
    """
    assert session.config is not None
    if session.config.settings.redis_url is None:
        return {}
    try:
        seen = session.router.overview()
    except StateUnavailableError:
        return {}  # it was told that this goes on without
    kinds = {"requests", "rpm" if operation.is_submit else "read_rpm"}
    kinds |= {"jobs"} if operation.starts_job else set()
    accounts = {one.id: one.rooms for one in seen.accounts}
    return {
        one.id: ", ".join(
            f"{room.kind} {room.taken}/{room.limit}"
            for room in (*one.rooms, *accounts[one.account])
            if room.kind in kinds and room.taken >= room.limit
        )
        for one in seen.deployments
    }


def _show(out: Console, explanation: Explanation, full: Mapping[str, str]) -> None:
    picked = explanation.picked
    who = Text(picked, "bold green") if picked else Text("nobody", "bold red")
    head = Text.assemble((explanation.operation, "bold"), " would be served by ", who)
    out.print(head, "", _table(out, explanation.candidates, full), sep="\n", soft_wrap=True)


def _say_what_is_compared(session: Session, operation: Operation, length: float | None) -> None:
    """Where a score is two things, one after the other."""
    assert session.config is not None
    if session.config.settings.strategy == "lowest-cost" and operation.is_submit:
        session.note(
            f"lowest-cost compares the price of {length or USUAL_LENGTH:g} s first, then in how "
            "many seconds the video is likely to be there"
        )


def _table(out: Console, every: Sequence[Explained], full: Mapping[str, str]) -> RenderableType:
    """With the reasons as a column, or where they find no room as lines below."""
    columns = (
        look.Column("deployment", [Text(one.deployment, "bold") for one in every]),
        look.Column("verdict", [Text(one.verdict, _colour(one)) for one in every]),
        look.Column("full", [Text(full.get(one.deployment, ""), "yellow") for one in every]),
        look.Column("account", [one.facts["account"] for one in every], spare=2),
        look.Column("order", [str(one.facts["order"]) for one in every], right=True, spare=1),
        look.Column("jobs", [str(one.facts["running"]) for one in every], right=True, spare=3),
        look.Column("cost", [_dollars(one.facts["cost"]) for one in every], right=True, spare=4),
        look.Column("score", [_score(one.facts["score"]) for one in every], right=True, spare=5),
    )
    reasons = [one.reason for one in every]
    wide = look.fitted(out, (*columns, look.Column("why", reasons, spare=9)))
    if wide is not None and wide.columns[-1].header == "why":
        return wide
    lines = [Text.assemble((f"{one.deployment}: ", "bold"), one.reason) for one in every]
    below = Text("\n").join(lines)
    return below if wide is None else Group(wide, "", below)


def _colour(one: Explained) -> str:
    return _COLOURS.get(one.verdict, "yellow")


def _score(score: float | None) -> str:
    # What is put on top of a score is for comparing, and the reason tells it.
    return "" if score is None else f"{score % LAST:.3g}"


def _dollars(cost: float | None) -> str:
    return "" if cost is None else f"${cost:.2f}"


def _data(explanation: Explanation, full: Mapping[str, str]) -> dict[str, Any]:
    return {
        "operation": explanation.operation,
        "picked": explanation.picked,
        "candidates": [
            {**one._asdict(), "full": full.get(one.deployment) or None}
            for one in explanation.candidates
        ],
    }
