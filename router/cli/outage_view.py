"""How `video-router demo --workers` looks: two tables that move, or a line now and then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.text import Text

from router.cli import look, status
from router.cli.crew import Worker
from router.inspection import DeploymentView, Overview
from router.types import Operation

__all__ = ["Scene", "brief", "line", "milliseconds", "paragraph", "picture"]


@dataclass(frozen=True)
class Scene:
    """A moment of it. `seen` is the fleet by its Redis, or why that does not answer; `first` is
    when the first worker left the failing deployment, in Unix seconds."""

    passed: float
    seconds: float
    seen: Overview | str
    workers: Sequence[Worker]
    names: Sequence[str]
    failing: str
    first: float | None


def line(out: Console, passed: float, told: Text) -> Text:
    """Something that happened; what is too long for a line goes on under its own beginning."""
    when = f"{passed:5.1f} s  "
    return Text.assemble((when, "dim"), paragraph(out, told, indent=len(when)))


def paragraph(out: Console, told: Text, indent: int = 0) -> Text:
    """As wide as the terminal; in a file no line ends in blanks."""
    lines = told.wrap(out, max(out.width - indent, 20))
    for one in lines:
        one.rstrip()
    return Text("\n" + " " * indent).join(lines)


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def brief(scene: Scene) -> Text:
    """The moment in a line, for what does not move."""
    if isinstance(scene.seen, str):
        return Text(scene.seen)
    told = Text(", ").join(map(_in_words, scene.seen.deployments))
    return told.append(f"; {look.plural(_made(scene), 'job')} made")


def _in_words(one: DeploymentView) -> Text:
    numbers = f" {_running(one)} {_latency(one, 'p50')}".rstrip()
    return Text.assemble((one.id, "bold"), " ", status.state_of(one), numbers)


def _made(scene: Scene) -> int:
    return sum(worker.made for worker in scene.workers)


# The picture ------------------------------------------------------------------------------------


def picture(out: Console, scene: Scene) -> RenderableType:
    parts: list[RenderableType] = ["", _headline(scene), ""]
    if isinstance(scene.seen, str):
        parts.append(Text(scene.seen, "red"))
    else:
        parts += [_deployments(out, scene.seen), _reason(scene.seen)]
    parts += ["", _workers(out, scene)]
    return Group(*parts)


def _headline(scene: Scene) -> Text:
    running = sum(sum(worker.running.values()) for worker in scene.workers)
    return Text.assemble(
        (f"{scene.passed:.1f} s", "bold"),
        (f" of {scene.seconds:g}", "dim"),
        f"   {look.plural(len(scene.workers), 'worker')}, {look.plural(_made(scene), 'job')} made, "
        f"{running} running",
    )


def _deployments(out: Console, seen: Overview) -> RenderableType:
    every = seen.deployments
    columns = (
        look.Column("deployment", [Text(one.id, "bold") for one in every]),
        look.Column("state", [_wide(status.state_of(one)) for one in every]),
        look.Column("jobs", [_running(one) for one in every], right=True),
        look.Column("p50", [_latency(one, "p50") for one in every], right=True, spare=1),
        look.Column("p95", [_latency(one, "p95") for one in every], right=True, spare=2),
        look.Column("calls", [_count(one) for one in every], right=True, spare=3),
    )
    table = look.fitted(out, columns)
    if table is not None:
        return table
    return Text("\n").join(map(_in_words, every))


def _wide(state: Text) -> Text:
    """Of one width, so that nothing jumps when the state changes."""
    return Text.assemble(state, " " * (18 - len(state)))


def _running(one: DeploymentView) -> str:
    for room in one.rooms:
        if room.kind == "jobs":
            return f"{room.taken}/{room.limit}"
    return str(one.running)


def _generation(one: DeploymentView) -> dict[str, float] | None:
    found: dict[str, float] | None = one.known["latency"].get(str(Operation.GENERATION))
    return found


def _latency(one: DeploymentView, share: str) -> str:
    known = _generation(one)
    return "" if known is None else look.seconds(known[share])


def _count(one: DeploymentView) -> str:
    known = _generation(one)
    return "" if known is None else f"{known['count']:.0f}"


def _reason(seen: Overview) -> Text:
    """Why somebody is out; an empty line holds its place."""
    told = [
        Text.assemble((", ".join(names), "bold"), f": {status.out_words(out)}")
        for names, out in status.ejections(seen)
    ]
    return Text("\n").join(told) if told else Text(" ")


def _workers(out: Console, scene: Scene) -> RenderableType:
    every = scene.workers
    running = [
        look.Column(
            f"in {name}",
            [_share(worker.running.get(name, 0)) for worker in every],
            right=True,
            spare=1,
        )
        for name in scene.names
    ]
    columns = (
        look.Column("worker", [Text(str(worker.number), "bold") for worker in every]),
        look.Column("pid", [str(worker.process.pid) for worker in every], right=True, spare=3),
        look.Column("calls", [str(worker.exchanges) for worker in every], right=True, spare=2),
        look.Column("jobs", [str(worker.made) for worker in every], right=True),
        *running,
        look.Column(f"left {scene.failing}", [_left(scene, worker) for worker in every]),
    )
    table = look.fitted(out, columns)
    if table is not None:
        return table
    return Text("\n").join(
        [Text(f"{worker.number}: {worker.made} jobs {_left(scene, worker)}") for worker in every]
    )


def _share(count: int) -> Text:
    return Text(str(count)) if count else Text("·", "dim")


def _left(scene: Scene, worker: Worker) -> str:
    if worker.left is None or scene.first is None:
        return " " * len("+000.0 ms")
    after = worker.left - scene.first
    return f"+{milliseconds(after)}" if after else "first"
