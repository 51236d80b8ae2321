"""`video-router status`: the fleet as all its workers see it, once or live."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from router.cli import look
from router.cli.calling import Account
from router.cli.onlooker import DEFAULT_FILE, AsJson, File, Onlooker, filled, looking
from router.cli.reads import show
from router.cli.servers import ended_by_signals
from router.errors import StateUnavailableError
from router.inspection import AccountView, DeploymentView, Out, Overview, Room

__all__ = ["FOR_EVER_SECONDS", "data", "ejections", "out_words", "status"]

WATCH_SECONDS = 2.0
# A drain that nobody gave an end.
FOR_EVER_SECONDS = 365 * 86400.0


def status(
    named: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID|SECONDS]",
            parser=filled,
            help="A video; or with --watch how often, by default 2.",
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C.")] = False,
    account: Account = None,
    config: File = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Show how one video is, or the fleet as its workers see it: health, times, jobs, limits.

    Of the fleet it reads what the workers share in Redis, and is not counted among them. Times are
    of the last hour or two, jobs' of the last ten or twenty.
    """
    seconds = _number(named)
    if named is not None and not watch and seconds is None:
        show(named, account, config, as_json)
        return
    _check(named, seconds, watch, account)
    with looking(config) as onlooker:
        if not watch:
            _show(onlooker, as_json)
            return
        every = WATCH_SECONDS if seconds is None else seconds
        # Ctrl-C is how one ends watching, and no failure.
        with suppress(KeyboardInterrupt), ended_by_signals():
            _watch(onlooker, every, as_json)


def _number(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None


def _check(named: str | None, seconds: float | None, watch: bool, account: str | None) -> None:
    if account is not None:
        raise typer.BadParameter("it is for a video's ID", param_hint="--account")
    if seconds is not None and not watch:
        raise typer.BadParameter("SECONDS needs --watch", param_hint="SECONDS")
    if named is not None and seconds is None:
        raise typer.BadParameter(
            f"'{named}' is no number of seconds; to follow a video use `{look.PROGRAM} wait`",
            param_hint="SECONDS",
        )
    if seconds is not None and not 0.1 <= seconds <= 86400:
        raise typer.BadParameter("from 0.1 to 86400", param_hint="SECONDS")


def _show(onlooker: Onlooker, as_json: bool) -> None:
    seen = onlooker.router.overview()
    if as_json:
        look.show_json(data(seen, onlooker.where))
        return
    out = look.stdout()
    out.print(_picture(out, seen, onlooker.where), soft_wrap=True)


def _watch(onlooker: Onlooker, every: float, as_json: bool) -> None:
    out = look.stdout()
    if as_json or not look.moves(out):
        for seen in _overviews(onlooker, every):
            if as_json:
                # A line each, so that a program can read along.
                said = {"error": seen} if isinstance(seen, str) else data(seen, onlooker.where)
                print(json.dumps(said, ensure_ascii=False), flush=True)  # noqa: T201
            else:
                out.print(_told(out, seen, onlooker.where), "", sep="\n", soft_wrap=True)
        return
    shown: RenderableType = ""
    try:
        with Live(console=out, screen=True, auto_refresh=False) as live:
            for seen in _overviews(onlooker, every):
                told = _told(out, seen, onlooker.where)
                # While nobody answers, what was known last stands under the reason.
                shown = Group(told, "", shown) if isinstance(seen, str) else told
                hint = Text(f"every {every:g} s; Ctrl-C ends it", "dim")
                live.update(Group(shown, "", hint), refresh=True)
                if isinstance(seen, str):
                    shown = shown.renderables[2]  # type: ignore[union-attr]
    finally:
        out.print(shown, soft_wrap=True)


def _overviews(onlooker: Onlooker, every: float) -> Iterator[Overview | str]:
    """One after the other; where the store does not answer, why."""
    while True:
        try:
            yield onlooker.router.overview()
        except StateUnavailableError as error:
            yield str(error)
        time.sleep(every)


def _told(out: Console, seen: Overview | str, where: str) -> RenderableType:
    if isinstance(seen, str):
        return Text.assemble((f"{_clock(time.time())}  ", "dim"), (f"{seen}; trying again", "red"))
    return _picture(out, seen, where)


# The picture ------------------------------------------------------------------------------------


def _picture(out: Console, seen: Overview, where: str) -> RenderableType:
    parts: list[RenderableType] = [_headline(seen, where), "", _deployments(out, seen)]
    accounts = [one for one in seen.accounts if one.rooms or one.spent_today is not None]
    if accounts:
        parts += ["", _accounts(out, accounts)]
    lines = [_reason(names, ejection) for names, ejection in ejections(seen)]
    if lines:
        parts += ["", *lines]
    return Group(*parts)


def _headline(seen: Overview, where: str) -> Text:
    total = len(seen.deployments)
    up = sum(not one.out for one in seen.deployments)
    running = sum(one.running for one in seen.accounts)
    workers = look.plural(len(seen.workers), "worker")
    return Text.assemble(
        (f"{workers} alive", "bold" if seen.workers else "bold yellow"),
        ", ",
        (
            f"{up} of {look.plural(total, 'deployment')} in rotation",
            "" if up == total else "yellow",
        ),
        f", {look.plural(running, 'job')} running",
        (f"\n{_clock(seen.at)}  {where}", "dim"),
    )


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _deployments(out: Console, seen: Overview) -> RenderableType:
    every = seen.deployments
    names = [Text(one.id, "bold") for one in every]
    columns = (
        look.Column("deployment", names),
        look.Column("account", [one.account for one in every], spare=3),
        look.Column("state", [state_of(one) for one in every]),
        look.Column("busiest", [one.busiest or "" for one in every], spare=4),
        look.Column("p50", [_latency(one, "p50") for one in every], right=True, spare=1),
        look.Column("p95", [_latency(one, "p95") for one in every], right=True),
        look.Column("job p50", [_job_time(one, "p50") for one in every], right=True, spare=2),
        look.Column("job p95", [_job_time(one, "p95") for one in every], right=True),
        *_limits(every),
        look.Column("spent today", [_spent(one) for one in every], right=True),
    )
    table = look.fitted(out, columns)
    if table is not None:
        return table
    return Group(*(part for one in every for part in _paragraph(one)))


def _accounts(out: Console, accounts: Sequence[AccountView]) -> RenderableType:
    columns = (
        look.Column("account", [Text(one.id, "bold") for one in accounts]),
        *_limits(accounts),
        look.Column("spent today", [_spent(one) for one in accounts], right=True),
    )
    table = look.fitted(out, columns)
    if table is not None:
        return table
    return Group(*(Text.assemble((one.id, "bold"), f": {_in_words(one)}") for one in accounts))


_KINDS = {"requests": "in flight", "rpm": "rpm", "read_rpm": "reads/min"}


def _limits(every: Sequence[DeploymentView] | Sequence[AccountView]) -> list[look.Column]:
    columns = [look.Column("jobs", [_jobs(one) for one in every], right=True)]
    for kind, name in _KINDS.items():
        cells = [_room(one.rooms, kind) or Text() for one in every]
        columns.append(look.Column(name, cells, right=True))
    return columns


def _jobs(one: DeploymentView | AccountView) -> Text:
    """Slots taken of how many; where there is no limit, the jobs that are known to run."""
    return _room(one.rooms, "jobs") or Text(str(one.running))


def _room(rooms: Sequence[Room], kind: str) -> Text | None:
    for room in rooms:
        if room.kind == kind:
            full = "yellow" if room.taken >= room.limit else ""
            return Text(f"{room.taken}/{room.limit}", full)
    return None


def _spent(one: DeploymentView | AccountView) -> Text:
    """Dollars since midnight UTC, as far as costs are known, of how many that may be spent."""
    if isinstance(one, DeploymentView):
        spent, at_most = one.known.get("spent_today"), None
    else:
        spent, at_most = one.spent_today, one.cost_per_day
    if spent is None:
        return Text()
    if at_most is None:
        return Text(f"${spent:.2f}")
    return Text(f"${spent:.2f}/${at_most:g}", "yellow" if spent >= at_most else "")


def _latency(one: DeploymentView, share: str) -> str:
    return "" if one.busiest is None else look.seconds(one.known["latency"][one.busiest][share])


def _job_time(one: DeploymentView, share: str) -> str:
    """Seconds for a second of video, of the operation with the most jobs."""
    known = one.known["job_time"]
    busiest = max(known, key=lambda name: known[name]["count"], default=None)
    return "" if busiest is None else f"{known[busiest][share]:.1f} s/s"


def _paragraph(one: DeploymentView) -> tuple[RenderableType, RenderableType]:
    facts = [f"account {one.account}"]
    if one.busiest is not None:
        times = f"{_latency(one, 'p50')}, 95 % within {_latency(one, 'p95')}"
        facts.append(f"{one.busiest} takes {times}")
    if one.known["job_time"]:
        times = f"{_job_time(one, 'p50')}, 95 % within {_job_time(one, 'p95')}"
        facts.append(f"jobs take {times}")
    facts.append(_in_words(one))
    title = Text.assemble((one.id, "bold"), " ", state_of(one))
    return title, look.indented(Text("\n".join(facts)))


def _in_words(one: DeploymentView | AccountView) -> str:
    rooms = ((_room(one.rooms, kind), name) for kind, name in _KINDS.items())
    told = [f"jobs {_jobs(one)}", *(f"{name} {room}" for room, name in rooms if room)]
    spent = _spent(one)
    return ", ".join([*told, f"spent today {spent}"] if spent else told)


# Health -----------------------------------------------------------------------------------------


def state_of(one: DeploymentView) -> Text:
    """In rotation, or what is kept away from it, and for how long."""
    if one.out:
        longest = max(one.out, key=lambda out: out.seconds)
        colour = "yellow" if longest.cause in ("drained", "retired") else "red"
        return Text(" ".join(filter(None, (_kept_away(longest), _for(longest)))), colour)
    if not one.weight:
        return Text("follow-ups only", "yellow")
    return Text("up", "green")


def out_words(out: Out) -> str:
    """An ejection in words: "no submits for 42 s more: answered 429"."""
    if out.cause == "retired":
        return f"retired: {out.reason}"
    until = f"for {_for(out)} more" if _for(out) else "until it is restored"
    return f"{_kept_away(out)} {until}: {out.reason or out.cause}"


def _kept_away(out: Out) -> str:
    if out.cause in ("drained", "retired"):
        return out.cause
    return "out" if out.scope == "both" else f"no {out.scope}"


def _for(out: Out) -> str:
    return look.lasting(out.seconds) if out.seconds < FOR_EVER_SECONDS else ""


def _reason(names: Sequence[str], ejection: Out) -> Text:
    return Text.assemble((", ".join(names), "bold"), f": {out_words(ejection)}")


def ejections(seen: Overview) -> list[tuple[list[str], Out]]:
    """The ejections in force, each with the deployments that it is about: often a whole account."""
    found: dict[tuple[str, ...], tuple[list[str], Out]] = {}
    for one in seen.deployments:
        for out in one.out:
            alike = (out.scope, out.cause, out.reason, _for(out))
            names, _ = found.setdefault(alike, ([], out))
            names.append(one.id)
    return list(found.values())


def data(seen: Overview, where: str) -> dict[str, Any]:
    """For programs. Times are Unix seconds of the shared clock."""
    told = asdict(seen)
    for plain, one in zip(told["deployments"], seen.deployments, strict=True):
        plain["busiest"] = one.busiest
        plain.update(plain.pop("known"))
        plain.pop("ejections")
        # This process serves nothing.
        plain.pop("in_flight")
    for left in ("jobs", "holds", "changes", "shared"):
        told.pop(left)
    return {"where": where, **told}
