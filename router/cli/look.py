"""The one look of all commands: tables, colours, progress bars, errors of one line.

Colour is for telling things apart, never the only bearer of a meaning: it is gone under NO_COLOR,
in a file and in a pipe. What moves (bars) is for terminals alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from rich import box
from rich.console import Console
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
    "CommandError",
    "complain",
    "listed",
    "plural",
    "seconds",
    "show_json",
    "stderr",
    "stdout",
    "table",
]

PROGRAM = "video-router"


class CommandError(Exception):
    """A command cannot go on; its text is all that the user is told."""


def stdout() -> Console:
    return Console(highlight=False)


def stderr() -> Console:
    return Console(stderr=True, highlight=False)


def complain(message: object) -> None:
    """Say on stderr, in one line however long, what is wrong."""
    words = "; ".join(line.strip() for line in str(message).splitlines() if line.strip())
    text = Text.assemble((f"{PROGRAM}: ", "bold red"), words)
    stderr().print(text, soft_wrap=True)


def show_json(value: object) -> None:
    """Print for a program: plain JSON, in colour on a terminal."""
    stdout().print_json(json.dumps(value, ensure_ascii=False))


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


class Bars:
    """Jobs under way, a bar for each. They vanish when all is done; elsewhere than on a terminal
    there are none."""

    def __init__(self, out: Console) -> None:
        # Not `is_terminal`, which is true as well where a build server forces colour into a file.
        moving = out.file.isatty() and not out.is_dumb_terminal
        self._progress = Progress(
            TextColumn("  {task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=out,
            transient=True,
            disable=not moving,
        )

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def add(self, label: str) -> Callable[[Video], None]:
        """A new bar; returns what `video_wait` takes as `on_progress`."""
        task = self._progress.add_task(label, total=100)

        def report(video: Video) -> None:
            done = 100.0 if video.done else float(video.progress or 0)
            self._progress.update(task, completed=done)

        return report
