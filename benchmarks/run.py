"""One run of one benchmark: what it is told, what it prints first and last, the file it leaves."""

from __future__ import annotations

import argparse
import faulthandler
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import Figure, Report, machine, table

__all__ = ["play", "told"]

Measure = Callable[..., None]


def play(
    measure: Measure,
    *,
    doc: str | None,
    name: str,
    versions: Sequence[str],
    seconds: tuple[float, float],
    given: Sequence[str] | None = None,
) -> None:
    """Parse, measure into a report, tell the sum of it.

    `measure(report, quick=…)` prints its tables. `seconds` are those of a quick run and of a whole
    one, after which it is ended with every thread's stack, since nothing here may hang.
    """
    about_it = (doc or "").partition("\n")[0].partition(":")[0]
    parser = argparse.ArgumentParser(prog=f"benchmarks.{name}", description=f"{about_it}.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds of the same")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there too")
    told_to = parser.parse_args(given)
    faulthandler.dump_traceback_later(seconds[0 if told_to.quick else 1], exit=True)
    started = time.monotonic()
    about = machine(["video-router", *versions])
    report = Report({**about, "quick": told_to.quick})
    head(about)
    measure(report, quick=told_to.quick)
    print(f"\n{report.summary()} in {time.monotonic() - started:.0f} s")
    faulthandler.cancel_dump_traceback_later()
    if told_to.json is not None:
        told_to.json.write_text(json.dumps(report.as_json(), indent=1), encoding="utf-8")


def head(about: dict[str, Any]) -> None:
    print(f"{about['processor']}, {about['cores']} cores, {about['system']}")
    print(f"{about['python']}, {about['event_loop']}")
    print(f"load {about['load_before']}, sum(range(100_000)) takes {about['loop_ms']} ms")
    print(", ".join(f"{name} {version}" for name, version in about["versions"].items()), flush=True)


def told(report: Report, title: str, figures: Sequence[Figure], note: str = "") -> None:
    """Add figures to the report, and print them as a table of their own."""
    report.add(*figures)
    rows = [[f.name, f"{f.value:,.2f}", f.unit, f.bound, f.verdict, f.spread] for f in figures]
    columns = ("", "", "", "goal", "", "lowest–highest round")
    print(table(title, columns, rows, note), flush=True)
