"""`video-router drain`, `restore` and `release`: an operator's word to the whole fleet."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from router.cli import look
from router.cli.onlooker import DEFAULT_FILE, AsJson, File, looking
from router.cli.status import FOR_EVER_SECONDS, out_words
from router.inspection import DeploymentView, Hold, Overview
from router.router import DRAIN_SECONDS

__all__ = ["drain", "release", "restore"]

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)?")

Id = Annotated[str, typer.Argument(metavar="ID", help="The deployment.")]


def duration(text: str) -> float:
    """Seconds in `90`, `90s`, `5m`, `2h`, `1h30m`, `3d`."""
    found = _TIME.findall(text)
    seconds = sum(float(number) * _UNITS[unit or "s"] for number, unit in found)
    if not 0 < seconds < math.inf or _TIME.sub("", text).strip():
        raise typer.BadParameter(f"'{text}' is no time; write 90s, 5m, 2h or 1d")
    return seconds


def drain(
    deployment: Id,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--for",
            metavar="TIME",
            parser=duration,
            help="90s, 5m, 2h, 1d; by default no end.",
        ),
    ] = None,
    config: File = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Take a deployment out of rotation for new work, in the whole fleet.

    What lives there it still serves: status, content, deletes, and edits of its videos.
    """
    with looking(config) as onlooker:
        before = onlooker.router.overview()  # and the shared time with it
        onlooker.router.drain(deployment, DRAIN_SECONDS if seconds is None else seconds)
        after = onlooker.router.overview()
    one = _the(after, deployment)
    left = max(out.seconds for out in one.out if out.cause == "drained")
    was = max((o.seconds for o in _the(before, deployment).out if o.cause == "drained"), default=0)
    longer = was > min(seconds or DRAIN_SECONDS, DRAIN_SECONDS) + 1
    alone = list(_left_alone(after, one))
    if as_json:
        look.show_json(
            {
                "deployment": deployment,
                "drained_until": after.at + left if left < FOR_EVER_SECONDS else None,
                "was_drained_longer": longer,
                "workers": len(after.workers),
                "groups_without_deployment": alone,
            }
        )
        return
    until = f"for {look.lasting(left)}" if left < FOR_EVER_SECONDS else "until it is restored"
    still = "still drained" if longer else "drained"
    _say(deployment, f"is {still} {until}: new work goes elsewhere", after)
    if longer:
        _warn("it was drained for longer than that before; restore it first to shorten it")
    for group in alone:
        _warn(f"nobody else serves new work of {group}")


def restore(deployment: Id, config: File = DEFAULT_FILE, as_json: AsJson = False) -> None:
    """Bring a deployment back into rotation, in the whole fleet, whatever keeps it out.

    Only who retires stays out for new work: that takes another `retires_on`, and a reload.
    """
    with looking(config) as onlooker:
        before = onlooker.router.overview()
        onlooker.router.restore(deployment)
        after = onlooker.router.overview()
    left = [out for out in _the(after, deployment).out if out.cause == "retired"]
    was = [out for out in _the(before, deployment).out if out.cause != "retired"]
    if as_json:
        told = {"was_out": [asdict(out) for out in was], "is_out": [asdict(out) for out in left]}
        look.show_json({"deployment": deployment, **told, "workers": len(after.workers)})
        return
    what = "is in rotation again" if was else "was in rotation, and is"
    _say(deployment, "stays out" if left else what, after)
    out = look.stdout()
    for one in was:
        out.print(Text(f"    before: {out_words(one)}"), soft_wrap=True)
    for one in left:
        _warn(f"it is {out_words(one)}: only another date in the configuration brings it back")
    if not _the(after, deployment).weight:
        _warn("its weight is 0 in the configuration: it serves follow-ups only")


def release(
    name: Annotated[
        str, typer.Argument(metavar="ID_OR_TOKEN", help="A job, or a token that `jobs` shows.")
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    config: File = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Give back the slot that a job holds: one that has ended, and nobody saw it.

    The provider is not asked, and nothing there is cancelled. While the job does run, the fleet
    would start one too many.
    """
    with looking(config) as onlooker:
        held = onlooker.router.holds(name)
        if held and not yes:
            yes = _confirmed(held, onlooker.router.overview())
        given_back = onlooker.router.release(name) if held and yes else ()
    if as_json:
        look.show_json({"released": [asdict(hold) for hold in given_back]})
    else:
        what = f"gave back {_slots(given_back)}" if given_back else "still holds what it held"
        said = Text.assemble((name, "bold"), f" {what if held else 'holds nothing'}")
        look.stdout().print(said, soft_wrap=True)
    if held and not given_back:
        raise typer.Exit(1)


def _confirmed(held: Sequence[Hold], seen: Overview) -> bool:
    err = look.stderr()
    left = look.lasting(max(hold.seconds for hold in held))
    err.print(Text(f"This holds {_slots(held)}, for {left} more."), soft_wrap=True)
    for job in seen.jobs:
        if job.id in {hold.job for hold in held}:
            ago = look.lasting(seen.at - job.seen_at)
            err.print(Text(f"Its job was {job.status} when it was seen last, {ago} ago."))
    err.print("Give it back? [y/N] ", end="", markup=False)
    answer = sys.stdin.readline()
    if not answer:
        raise look.CommandError("nobody is there to be asked; say --yes")
    return answer.strip().lower() in ("y", "yes")


def _slots(holds: Sequence[Hold]) -> str:
    """A slot of deployment east-1 and one of account east."""
    of = [" ".join(hold.resource.split(":", 2)[1:]) for hold in holds]
    return f"a slot of {' and one of '.join(of)}"


def _the(seen: Overview, deployment: str) -> DeploymentView:
    return next(one for one in seen.deployments if one.id == deployment)


def _left_alone(seen: Overview, drained: DeploymentView) -> Iterator[str]:
    """The groups of this deployment in which nobody else takes new work now."""
    others = [
        one
        for one in seen.deployments
        if one.id != drained.id
        and one.weight
        and not any(out.scope in ("both", "submits") for out in one.out)
    ]
    for group in drained.model_names:
        if not any(group in one.model_names for one in others):
            yield group


def _say(deployment: str, what: str, seen: Overview) -> None:
    told = f"{look.plural(len(seen.workers), 'worker')} alive to hear it"
    text = Text.assemble((deployment, "bold"), f" {what} ({told})")
    look.stdout().print(text, soft_wrap=True)


def _warn(what: str) -> None:
    look.stderr().print(Text.assemble(("warning ", "bold yellow"), what), soft_wrap=True)
