"""`video-router jobs`: what was accepted in the last day, by whom, and how it was seen last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.text import Text

from router.cli import look
from router.cli.onlooker import DEFAULT_FILE, AsJson, File, Onlooker, looking
from router.inspection import Hold, JobView, Overview

__all__ = ["jobs"]


def jobs(
    account: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only those of this account.")
    ] = None,
    deployment: Annotated[
        str | None, typer.Option(metavar="ID", help="Only those of this deployment.")
    ] = None,
    running: Annotated[
        bool, typer.Option("--running", help="Only those that nobody has seen to end.")
    ] = False,
    config: File = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """List what the fleet's workers got accepted in the last day, newest first.

    And below it the slots that are held by no known job: calls under way, and submits whose answer
    was lost.
    """
    with looking(config) as onlooker:
        seen = onlooker.router.overview()
        _check(onlooker, seen, account, deployment)
    chosen = [
        job
        for job in seen.jobs
        if account in (None, job.account)
        and deployment in (None, job.deployment)
        and (job.running or not running)
    ]
    loose = [hold for hold in seen.holds if hold.job is None]
    if as_json:
        told = [asdict(job) for job in chosen]
        look.show_json({"at": seen.at, "jobs": told, "loose": [asdict(hold) for hold in loose]})
        return
    out = look.stdout()
    out.print(_headline(chosen, of=len(seen.jobs)))
    if chosen:
        out.print()
        out.print(_jobs(out, chosen, seen.at), soft_wrap=True)
    if loose and account is None and deployment is None:
        out.print()
        out.print(_loose(loose), soft_wrap=True)


def _check(onlooker: Onlooker, seen: Overview, account: str | None, deployment: str | None) -> None:
    """What is neither configured nor has a job is a slip of the pen."""
    configured = onlooker.config.deployments
    for what, name, known in (
        ("account", account, {d.account for d in configured} | {j.account for j in seen.jobs}),
        ("deployment", deployment, {d.id for d in configured} | {j.deployment for j in seen.jobs}),
    ):
        if name is not None and name not in known:
            there = ", ".join(sorted(known))
            raise look.CommandError(f"no {what} {name!r}; there are {there}")


def _headline(chosen: Sequence[JobView], of: int) -> Text:
    count = look.plural(len(chosen), "job")
    running = sum(job.running for job in chosen)
    others = f" of {of}" if of > len(chosen) else ""
    return Text.assemble((f"{count}{others}", "bold"), f", {running} running")


def _jobs(out: Console, chosen: Sequence[JobView], now: float) -> RenderableType:
    columns = (
        look.Column("id", [Text(job.id, "bold") for job in chosen]),
        look.Column("deployment", [job.deployment for job in chosen]),
        look.Column("account", [job.account for job in chosen], spare=2),
        look.Column("operation", [job.operation for job in chosen]),
        look.Column("accepted", [_ago(job.accepted_at, now) for job in chosen], right=True),
        look.Column("last seen", [_seen(job) for job in chosen]),
        look.Column("when", [_ago(job.seen_at, now) for job in chosen], right=True),
        look.Column("slot", [_slot(job) for job in chosen], right=True, spare=1),
        look.Column("worker", [job.worker[:8] for job in chosen], spare=3),
    )
    table = look.fitted(out, columns)
    if table is not None:
        return table
    return Group(*(part for job in chosen for part in _paragraph(job, now)))


def _paragraph(job: JobView, now: float) -> tuple[RenderableType, RenderableType]:
    slot = f", holds its slot for {_slot(job)}" if job.slot is not None else ""
    facts = Text.assemble(
        f"{job.operation} on {job.deployment}, accepted {_ago(job.accepted_at, now)} ago "
        f"by {job.worker[:8]}\n",
        _seen(job),
        f" when seen {_ago(job.seen_at, now)} ago{slot}",
    )
    return Text(job.id, "bold"), look.indented(facts)


def _seen(job: JobView) -> Text:
    colours = {"completed": "green", "failed": "red", "expired": "red"}
    lost = not job.running and job.status in ("queued", "in_progress")
    return Text(f"{job.status}, lost" if lost else job.status, colours.get(job.status, ""))


def _slot(job: JobView) -> str:
    return "" if job.slot is None else look.lasting(job.slot)


def _ago(at: float, now: float) -> str:
    return look.lasting(now - at)


def _loose(loose: Sequence[Hold]) -> RenderableType:
    count = look.plural(len(loose), "slot")
    lines = [
        Text.assemble(
            "    ", (hold.holder, "bold"), f" in {hold.resource}, {look.lasting(hold.seconds)} more"
        )
        for hold in loose
    ]
    first = Text(
        f"{count} held by no known job: a call under way, or a submit whose answer was lost."
    )
    last = Text("If nothing runs there at the provider: video-router release TOKEN", "dim")
    return Group(first, *lines, last)
