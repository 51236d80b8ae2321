"""The picture of a run, from its JSON file: the goals on one scale, and the curves."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["HOW_TO_INSTALL", "draw"]

HOW_TO_INSTALL = "matplotlib is not installed; `pip install 'video-router[bench]'` adds it"
MET, MISSED, PLAIN = "#1b7837", "#b35806", "#404040"
WIDTH = 12.0
LEAST = 1e-2
MOST_BARS = 40


def draw(name: str, run: Mapping[str, Any], path: Path) -> None:
    """Write the chart. Raises `ImportError` without matplotlib."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")  # no screen is needed
    plots: Any = importlib.import_module("matplotlib.pyplot")
    figures = run["figures"]
    judged = [one for one in figures if one["target"] is not None]
    curves = _by_unit([one for one in figures if one["curve"]])
    bars = judged or [one for one in figures if not one["curve"]]
    heights = [0.28 * min(len(bars), MOST_BARS) + 1.2] * bool(bars) + [3.6] * len(curves)
    figure, axes = plots.subplots(
        len(heights),
        1,
        figsize=(WIDTH, sum(heights) + 0.6),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    free = iter(axes.flat)
    if judged:
        _goals(next(free), judged[:MOST_BARS])
    elif bars:
        _values(next(free), bars[:MOST_BARS])
    for unit, points in curves.items():
        _curves(next(free), unit, points)
    versions = ", ".join(f"{k} {v}" for k, v in run["versions"].items())
    figure.suptitle(f"{name}\n{run['processor']}, {run['cores']} cores; {versions}", fontsize=9)
    figure.savefig(path, dpi=90)
    plots.close(figure)


def _by_unit(points: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for one in points:
        found.setdefault(one["unit"], []).append(one)
    return found


def _goals(axis: Any, judged: Sequence[Mapping[str, Any]]) -> None:
    """How much of what is allowed each figure takes; of what is to be reached, the reverse."""
    for row, one in enumerate(judged):
        value, target = one["value"], one["target"]
        share = _share(target, value) if one["at_least"] else _share(value, target)
        axis.barh(row, share, color=MET if one["verdict"] == "met" else MISSED)
    _labelled(axis, judged)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_xscale("log")
    lowest, highest = axis.get_xlim()
    axis.set_xlim(min(lowest, 0.2), max(highest, 2))
    for ticks in (axis.xaxis.set_major_formatter, axis.xaxis.set_minor_formatter):
        ticks("{x:g}")
    axis.tick_params(axis="x", which="both", labelsize=6)
    axis.set_title("left of the line: goal met", fontsize=8)


def _share(part: float, whole: float) -> float:
    if not whole or not math.isfinite(part / whole):
        return LEAST if part <= whole else 1 / LEAST
    return min(max(part / whole, LEAST), 1 / LEAST)


def _values(axis: Any, figures: Sequence[Mapping[str, Any]]) -> None:
    for row, one in enumerate(figures):
        axis.barh(row, max(one["value"], LEAST), color=PLAIN)
    _labelled(axis, figures)
    axis.set_xscale("log")


def _labelled(axis: Any, figures: Sequence[Mapping[str, Any]]) -> None:
    labels = [f"{one['name']}: {one['value']:,.4g} {one['unit']}" for one in figures]
    axis.set_yticks(range(len(labels)), labels, fontsize=7)
    axis.invert_yaxis()
    axis.grid(axis="x", linewidth=0.3)


def _curves(axis: Any, unit: str, points: Sequence[Mapping[str, Any]]) -> None:
    for name in dict.fromkeys(one["curve"] for one in points):
        of = sorted((one["at"], one["value"]) for one in points if one["curve"] == name)
        axis.plot(*zip(*of, strict=True), "o-", label=name, linewidth=1, markersize=3)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_ylabel(unit, fontsize=8)
    axis.grid(linewidth=0.3)
    axis.legend(fontsize=7)
