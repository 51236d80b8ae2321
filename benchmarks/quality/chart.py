"""The picture of a run: how long callers waited, and who got which share after a change."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.quality.figures import sent, shares
from benchmarks.quality.judged import Records
from benchmarks.quality.play import JUDGED, REFERENCE, scenario_of
from benchmarks.quality.scenarios import SCENARIOS

__all__ = ["HOW_TO_INSTALL", "draw"]

HOW_TO_INSTALL = "matplotlib is not installed; `pip install 'video-router[bench]'` adds it"
COLUMNS = 3
OVER_TIME = ("slow-middle", "dies", "newcomer")
STEP = 60.0
TICKS = (60, 100, 150, 200, 300, 500, 1_000, 2_000, 4_000)
COLOURS = {"ours": "#1b7837", "others": "#7fbf7b", "peer": "#b35806", "reference": "#404040"}
PEER_SHOWN = ("litellm simple-shuffle", "litellm latency-based-routing")


def draw(records: Records, path: Path, about: str) -> None:
    """Write the chart. Raises `ImportError` without matplotlib."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")  # no screen is needed
    plots: Any = importlib.import_module("matplotlib.pyplot")
    names = [name for name in SCENARIOS if records.loads(name)]
    timed = [name for name in OVER_TIME if records.loads(name)]
    lines = math.ceil(len(names) / COLUMNS) + math.ceil(len(timed) / COLUMNS)
    figure, axes = plots.subplots(
        lines, COLUMNS, figsize=(18, 4.2 * lines), squeeze=False, layout="constrained"
    )
    free = iter(axes.flat)
    for name in names:
        _waits(next(free), records, name)
    for _ in range(-len(names) % COLUMNS):
        next(free).set_axis_off()
    for name in timed:
        _shares(next(free), records, name)
    for axis in free:
        axis.set_axis_off()
    figure.suptitle(f"From the call to the video: p50, p95, p99 (seconds)\n{about}", fontsize=12)
    figure.savefig(path, dpi=110)
    plots.close(figure)


def _kind(contender: str) -> str:
    if contender == REFERENCE:
        return "reference"
    if contender.startswith("litellm "):
        return "peer"
    return "ours" if contender == JUDGED else "others"


def _main_load(records: Records, name: str) -> float:
    """The load that most contenders played."""
    return max(records.loads(name), key=lambda load: len(records.contenders(name, load)))


def _ordered(records: Records, name: str, load: float) -> Iterator[tuple[str, int]]:
    order = ("reference", "ours", "others", "peer")
    found = records.contenders(name, load)
    yield from sorted(found, key=lambda who: (order.index(_kind(who[0])), who))


def _waits(axis: Any, records: Records, name: str) -> None:
    load = _main_load(records, name)
    labels = []
    for row, (contender, workers) in enumerate(_ordered(records, name, load)):
        waits = records.waits(name, load, contender, workers)
        colour = COLOURS[_kind(contender)]
        known = [value for value in (waits.p50, waits.p95, waits.p99) if math.isfinite(value)]
        if known:
            axis.plot([known[0], known[-1]], [row, row], color=colour, linewidth=2, zorder=1)
        for value, marker in zip((waits.p50, waits.p95, waits.p99), "|o>", strict=True):
            if math.isfinite(value):
                axis.scatter([value], [row], color=colour, marker=marker, s=36, zorder=2)
        if contender == REFERENCE:
            axis.axvline(waits.p95, color=colour, linewidth=0.8, linestyle=":")
        missing = f" ({waits.without_video} without)" if waits.without_video else ""
        count = f" ×{workers}" if workers else ""
        labels.append(f"{contender.replace('litellm ', 'LiteLLM ')}{count}{missing}")
    axis.set_yticks(range(len(labels)), labels, fontsize=7)
    axis.invert_yaxis()
    axis.set_xscale("log")
    axis.set_xticks([tick for tick in TICKS if _within(axis, tick)], minor=False)
    axis.xaxis.set_major_formatter("{x:.0f}")
    axis.xaxis.set_minor_formatter("")
    axis.grid(axis="x", linewidth=0.3)
    axis.set_title(f"{name}, {load:.0%}\n{scenario_of(name).title}", fontsize=8)


def _within(axis: Any, value: float) -> bool:
    lowest, highest = axis.get_xlim()
    return bool(lowest <= value <= highest)


def _shares(axis: Any, records: Records, name: str) -> None:
    """What part of the submits went to who changed, by the minute."""
    scenario, load = scenario_of(name), _main_load(records, name)
    ours = max(records.workers(name, load, JUDGED), default=0)
    shown = [(REFERENCE, 0), (JUDGED, 8 if 8 in records.workers(name, load, JUDGED) else ours)]
    shown += [(peer, 0) for peer in PEER_SHOWN]
    begins = scenario.changes[0].at - 300.0
    starts = [begins + STEP * n for n in range(int((scenario.seconds - begins) // STEP))]
    for contender, workers in shown:
        results = records.results(name, load, contender, workers)
        if not results:
            continue
        line = [shares(sent(results, at, at + STEP)).get(scenario.changed[0], 0.0) for at in starts]
        style = "--" if contender == PEER_SHOWN[0] else "-"
        axis.plot(starts, line, style, label=contender, color=COLOURS[_kind(contender)])
    for change in scenario.changes:
        axis.axvline(change.at, color="black", linewidth=0.6)
        axis.text(
            change.at,
            0.5,
            f" {change.what}",
            fontsize=7,
            rotation=90,
            transform=axis.get_xaxis_transform(),
            va="center",
            ha="right",
        )
    axis.set_title(f"{name}, {load:.0%}: the share of {scenario.changed[0]}", fontsize=9)
    axis.set_xlabel("seconds", fontsize=8)
    axis.legend(fontsize=7)
