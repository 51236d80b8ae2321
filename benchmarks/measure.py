"""Measuring so that the noise of a machine falls on every contender alike.

Contenders take turns, A B A B …, in many short rounds; a figure is the median over the rounds, and
a comparison is the ratio of two such medians. What a machine does for a while (another process, a
lower clock) hits neighbours in time, so it hits both. Before each turn a contender makes some calls
that are not measured: connections are open, caches and branch predictors are warm. The garbage
collector stays on, as it does in a service.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import os
import platform
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    "Figure",
    "Report",
    "Turn",
    "atogether",
    "machine",
    "percentile",
    "ratio",
    "rounds",
    "table",
    "together",
]

FEWEST_ROUNDS = 5


def rounds(most: int, seconds: float) -> Iterator[int]:
    """Count rounds: at most so many, and none begins when the time is up and five are done."""
    until = time.monotonic() + seconds
    for number in range(most):
        if number >= FEWEST_ROUNDS and time.monotonic() > until:
            return
        yield number


@dataclass(frozen=True)
class Turn:
    """One contender's turn: seconds a call by the wall and by the processor, and each latency.

    `wall` is, one at a time, the median of the latencies, which a neighbour that takes the
    processor away for some calls does not move. With n at once it is the time of the turn over its
    calls: the reciprocal of calls a second, and not what one call waits. `processor` is the mean,
    over all threads of this process; what is rare and dear (a full collection) is in it.
    """

    wall: float
    processor: float
    latencies: Sequence[float]


async def atogether(call: Callable[[], Awaitable[object]], *, at_once: int, calls: int) -> Turn:
    """`calls` calls, `at_once` of them under way at any time, each task one after the other."""
    latencies: list[float] = []

    async def one_after_the_other() -> None:
        for _ in range(max(calls // at_once, 1)):
            started = time.perf_counter()
            await call()
            latencies.append(time.perf_counter() - started)

    await asyncio.gather(*(call() for _ in range(at_once)))
    started, processor = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))
    return _turn(started, processor, latencies, at_once)


def together(call: Callable[[], object], *, at_once: int, calls: int) -> Turn:
    """The same with threads."""
    latencies: list[float] = []
    gate = threading.Barrier(at_once + 1, timeout=30)

    def one_after_the_other() -> None:
        call()
        gate.wait()
        for _ in range(max(calls // at_once, 1)):
            started = time.perf_counter()
            call()
            latencies.append(time.perf_counter() - started)

    with ThreadPoolExecutor(at_once) as pool:
        running = [pool.submit(one_after_the_other) for _ in range(at_once)]
        gate.wait()
        started, processor = time.perf_counter(), time.process_time()
        for future in running:
            future.result()
        return _turn(started, processor, latencies, at_once)


def _turn(started: float, processor: float, latencies: Sequence[float], at_once: int) -> Turn:
    wall = time.perf_counter() - started
    processor = time.process_time() - processor
    typical = statistics.median(latencies) if at_once == 1 else wall / len(latencies)
    return Turn(typical, processor / len(latencies), latencies)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of all stay under."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


@dataclass(frozen=True)
class Figure:
    """One measured number. `rounds` are the values that `value` is the median of, or comes from.

    A target is an upper bound, or with `at_least` a lower one. A point of a curve has its place in
    `at`, and the name of the curve in `curve`.
    """

    name: str
    value: float
    unit: str
    target: float | None = None
    rounds: Sequence[float] = ()
    at_least: bool = False
    curve: str = ""
    at: float | None = None

    @classmethod
    def median(
        cls, name: str, rounds: Sequence[float], unit: str, target: float | None = None
    ) -> Figure:
        return cls(name, statistics.median(rounds), unit, target, tuple(rounds))

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        met = self.value >= self.target if self.at_least else self.value <= self.target
        return "met" if met else "missed"

    @property
    def bound(self) -> str:
        """The target as it is written."""
        return "" if self.target is None else f"{'≥' if self.at_least else '≤'} {self.target:g}"

    @property
    def spread(self) -> str:
        """The lowest and the highest round: how far to trust the value."""
        return f"{min(self.rounds):.2f}–{max(self.rounds):.2f}" if self.rounds else ""

    def told(self) -> str:
        """The value beside its target."""
        if self.target is None:
            return f"{self.value:.2f}"
        return f"{self.value:.2f} {self.bound} {self.verdict}"


@dataclass
class Report:
    """What one run found: printed as it comes, and kept for a file."""

    about: Mapping[str, Any]
    figures: list[Figure] = field(default_factory=list)

    def add(self, *figures: Figure) -> None:
        self.figures += figures

    def summary(self) -> str:
        judged = [figure for figure in self.figures if figure.target is not None]
        missed = [f"  {f.name}: {f.told()}" for f in judged if f.verdict == "missed"]
        head = f"{len(judged) - len(missed)} of {len(judged)} targets met"
        return "\n".join([head + (", missed:" if missed else ""), *missed])

    def as_json(self) -> dict[str, Any]:
        figures = [
            {
                "name": f.name,
                "value": f.value,
                "unit": f.unit,
                "target": f.target,
                "at_least": f.at_least,
                "verdict": f.verdict or None,
                "rounds": list(f.rounds),
                "curve": f.curve or None,
                "at": f.at,
            }
            for f in self.figures
        ]
        return {**self.about, "figures": figures}


def ratio(
    name: str,
    base: Sequence[float],
    ours: Sequence[float],
    target: float | None = None,
    *,
    at_least: bool = False,
) -> Figure:
    """The ratio of the medians; its rounds are the ratios of neighbours in time."""
    paired = [b / a for a, b in zip(base, ours, strict=True)]
    value = statistics.median(ours) / statistics.median(base)
    return Figure(name, value, "×", target, paired, at_least)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> str:
    """Text in columns, the first to the left, the rest to the right."""
    lines = [list(columns), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    told = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    told.insert(1, "─" * len(told[0]))
    return "\n".join([f"\n{title}", "", *told, *([f"\n{note}"] if note else [])])


def machine(distributions: Sequence[str]) -> dict[str, Any]:
    """What a figure depends on: processor, system, Python, versions of what was measured."""
    versions = {}
    for name in distributions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "event_loop": _event_loop(),
        "load_before": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "loop_ms": round(_loop_milliseconds(), 2),
        "versions": versions,
    }


def _loop_milliseconds() -> float:
    """What a loop of 100,000 additions takes: a yardstick for absolute figures of other runs."""
    seen = []
    for _ in range(15):
        started = time.perf_counter()
        sum(range(100_000))
        seen.append((time.perf_counter() - started) * 1e3)
    return statistics.median(seen)


def _event_loop() -> str:
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        return f"{type(loop).__module__}.{type(loop).__qualname__}"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
