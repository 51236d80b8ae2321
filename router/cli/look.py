"""The one look of all commands: tables, colours, progress bars, errors of one line.

Colour is for telling things apart, never the only bearer of a meaning: it is gone under NO_COLOR,
in a file and in a pipe. What moves (bars) is for terminals alone.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TextIO

from rich import box
from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from router.types import Video

__all__ = [
    "PROGRAM",
    "Bars",
    "Column",
    "CommandError",
    "closed",
    "complain",
    "fits",
    "fitted",
    "indented",
    "lasting",
    "listed",
    "moves",
    "note",
    "plain",
    "plural",
    "say",
    "seconds",
    "show_json",
    "size",
    "stderr",
    "stdout",
    "table",
    "took",
    "warn",
]

PROGRAM = "video-router"


class CommandError(Exception):
    """A command cannot go on; its text is all that the user is told, `code` how it ends."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class _Console(Console):
    def on_broken_pipe(self) -> None:
        # Called while it is handled. Rich would end the process; who prints may have an id to tell.
        raise


def stdout() -> Console:
    """Where the answer of a command goes; one that cannot be told is no success."""
    if sys.stdout is None:
        raise CommandError("stdout is closed, and there is nowhere to print to: leave it open")
    return _Console(highlight=False)


# Where bars move now: what is said meanwhile goes above them.
_moving: list[Console] = []


def stderr() -> Console:
    return _moving[-1] if _moving else _Console(stderr=True, highlight=False)


def say(line: str) -> None:
    """A line on stdout that scripts read: at once, and never wrapped."""
    if _moving and sys.stdout.isatty():
        _moving[-1].print(Text(line), soft_wrap=True)
    else:
        print(line, flush=True)  # noqa: T201


def closed(stream: TextIO) -> None:
    """Nobody reads this any more: what is still in its buffer goes nowhere, without a word."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def plain(text: object) -> str:
    """In one line, without what would move a terminal's cursor: some words are a provider's."""
    line = " ".join(str(text).split())
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


def complain(message: object) -> None:
    """Say on stderr, in one line however long, what is wrong."""
    words = "; ".join(plain(line) for line in str(message).splitlines() if line.strip())
    text = Text.assemble((f"{PROGRAM}: ", "bold red"), words)
    stderr().print(text, soft_wrap=True)


def note(what: str | Text) -> None:
    """Say on stderr, beside what the command is for, how things are."""
    text = Text(what) if isinstance(what, str) else what
    stderr().print(Text.assemble("    ", text), soft_wrap=True)


def warn(what: str) -> None:
    """Say on stderr what the user may want to mend, while the command goes on."""
    stderr().print(Text.assemble(("warning ", "bold yellow"), plain(what)), soft_wrap=True)


def show_json(value: object) -> None:
    """Print for a program: plain JSON, in colour on a terminal.

    And nowhere else, also where a build server forces colour: what reads a pipe is a program.
    """
    out, told = stdout(), json.dumps(value, ensure_ascii=False, indent=2)
    if out.file.isatty():
        out.print_json(told)
    else:
        print(told, file=out.file, flush=True)


def table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    """An empty table; the columns named in `right` hold numbers."""
    made = Table(
        box=box.SIMPLE_HEAD,
        header_style="bold",
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold")
    return made


def fits(out: Console, what: RenderableType) -> bool:
    """Whether this can be shown without being squeezed."""
    unbounded = out.options.update(width=10_000)
    return Measurement.get(out, unbounded, what).maximum <= out.width


@dataclass(frozen=True)
class Column:
    """A column with its cells. Where it is too narrow, those with the highest `spare` go first;
    0 stays. `right` is for numbers."""

    name: str
    cells: Sequence[str | Text]
    right: bool = False
    spare: int = 0

    @property
    def says_something(self) -> bool:
        return any(str(cell).strip() for cell in self.cells)


def fitted(out: Console, columns: Sequence[Column]) -> Table | None:
    """A table of the columns that have something to say and find room; `None` where what must not
    be spared does not fit."""
    left = [column for column in columns if column.says_something]
    while True:
        made = table(*[c.name for c in left], right=tuple(c.name for c in left if c.right))
        for row in zip(*[column.cells for column in left], strict=True):
            made.add_row(*[Text(cell) if isinstance(cell, str) else cell for cell in row])
        if fits(out, made):
            return made
        spared = max(left, key=lambda column: column.spare)
        if not spared.spare:
            return None
        left.remove(spared)


def indented(text: Text) -> Text:
    """Each line moved to the right; a line that is too long is the terminal's to wrap."""
    return Text("\n").join(Text("    ").append_text(line) for line in text.split("\n"))


def listed(names: Iterable[str]) -> str:
    """One, two and three."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def seconds(value: float) -> str:
    """For people: 52 ms, 0.41 s, 6.2 s."""
    if value < 0.1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.2f} s" if value < 1 else f"{value:.1f} s"


def lasting(value: float) -> str:
    """For people, of longer times: 42 s, 12 min, 2 h 5 min, 3 d."""
    whole = max(round(value), 0)
    if whole < 90:
        return f"{whole} s"
    minutes = round(value / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return _two(minutes // 60, "h", minutes % 60, "min")
    hours = round(value / 3600)
    return _two(hours // 24, "d", hours % 24, "h")


def took(value: float) -> str:
    """For people, of what may be short or long: 0.41 s, 6.2 s, 12 min."""
    return seconds(value) if value < 90 else lasting(value)


def _two(many: int, unit: str, few: int, lesser: str) -> str:
    return f"{many} {unit} {few} {lesser}" if few else f"{many} {unit}"


def size(count: int) -> str:
    """For people: 812 B, 38 kB, 4.2 MB."""
    if count < 1000:
        return f"{count} B"
    return f"{count / 1000:.0f} kB" if count < 1_000_000 else f"{count / 1e6:.1f} MB"


def moves(out: Console) -> bool:
    """Whether what moves may be shown here."""
    # Not `is_terminal`, which is true as well where a build server forces colour into a file.
    return out.file.isatty() and not out.is_dumb_terminal


class Bars:
    """Jobs under way, a bar for each. They vanish when all is done; elsewhere than on a terminal
    there are none."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=out,
            transient=True,
            # What is for a pipe stays out of the terminal; `say` knows better.
            redirect_stdout=False,
            disable=not moves(out),
        )

    def __enter__(self) -> Bars:
        self._progress.start()
        _moving.append(self._out)
        return self

    def __exit__(self, *_: object) -> None:
        _moving.remove(self._out)
        self._progress.stop()

    def add(self, label: str | None = None) -> Callable[[Video], None]:
        """A new bar; returns what `video_wait` takes as `on_progress`.

        Without a label it tells the job's status. Where nobody says how far the job is, the bar
        only shows that it lives.
        """
        task = self._progress.add_task(label or _status("asking"), total=None)

        def report(video: Video) -> None:
            if video.progress is not None or video.done:
                done = 100.0 if video.done else float(video.progress or 0)
                self._progress.update(task, completed=done, total=100.0)
            if label is None:
                self._progress.update(task, description=_status(video.status))

        return report


def _status(status: str) -> str:
    # As wide as the longest usual one, so that the bar stays where it is.
    return plain(status).ljust(len("in_progress"))
