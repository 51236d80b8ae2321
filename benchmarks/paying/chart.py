"""The picture of a run: jobs paid for a task, and tasks that got their video."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.paying.tasks import Counted

__all__ = ["HOW_TO_INSTALL", "draw"]

HOW_TO_INSTALL = "matplotlib is not installed; `pip install 'video-router[bench]'` adds it"
COLOURS = {
    "video-router": "#1b7837",
    "video-router, key": "#7fbf7b",
    "litellm": "#b35806",
    "litellm, as advised": "#f1a340",
}


def draw(results: Sequence[tuple[str, str, Counted]], path: Path, about: str) -> None:
    """Write the chart of (scenario, contender, found). Raises `ImportError` without matplotlib."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")  # no screen is needed
    plots: Any = importlib.import_module("matplotlib.pyplot")
    titles = list(dict.fromkeys(title for title, _, _ in results))
    names = [name for name in COLOURS if any(name == one for _, one, _ in results)]
    height = 0.8 / len(names)
    figure, axes = plots.subplots(
        1, 2, figsize=(15, 1.5 + 0.55 * len(titles)), sharey=True, layout="constrained"
    )
    for title, name, counted in results:
        row = titles.index(title) + (names.index(name) - (len(names) - 1) / 2) * height
        colour = COLOURS[name]
        axes[0].barh(row, counted.jobs / counted.tasks, height, color=colour)
        shares = (counted.answered / counted.tasks, counted.resumed / counted.tasks)
        axes[1].barh(row, shares[0], height, color=colour)
        axes[1].barh(row, shares[1], height, shares[0], color=colour, hatch="////", alpha=0.5)
    axes[0].axvline(1, color="black", linewidth=0.6)
    axes[0].set_title("jobs paid for a task, on average", fontsize=10)
    axes[1].set_title("tasks with a usable answer; hatched: by router.resume(error)", fontsize=10)
    axes[0].set_yticks(range(len(titles)), titles, fontsize=8)
    axes[0].set_ylim(len(titles) - 0.4, -0.6)
    for axis in axes:
        axis.grid(axis="x", linewidth=0.3)
    handles = [plots.Rectangle((0, 0), 1, 1, color=COLOURS[name]) for name in names]
    axes[0].legend(handles, names, fontsize=8, loc="lower right")
    figure.suptitle(f"Paid once: the same faults for both routers\n{about}", fontsize=11)
    figure.savefig(path, dpi=110)
    plots.close(figure)
