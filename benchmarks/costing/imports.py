"""An import: `import router` over its five dependencies alone, each in a fresh interpreter."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.measure import Figure, Report, ratio, table

__all__ = ["fresh", "imports"]

ROOT = Path(__file__).resolve().parent.parent.parent
DEPENDENCIES = ("httpx", "pydantic", "redis", "tenacity", "yaml")
TIME_RATIO = 1.05
MEGABYTES = 5.0

_CHILD = """
import json, time
def resident():
    try:
        import os
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource, sys
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
resident()
before, started, processor = resident(), time.perf_counter(), time.process_time()
import {modules}
seconds, processor = time.perf_counter() - started, time.process_time() - processor
print(json.dumps([seconds * 1e3, processor * 1e3, (resident() - before) / 1e6]))
"""


def fresh(modules: str) -> tuple[float, float, float]:
    """Milliseconds, processor milliseconds and megabytes of an import in a new interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the network
    done = subprocess.run(
        [sys.executable, "-c", _CHILD.format(modules=modules)],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
        timeout=60,
    )
    wall, processor, megabytes = json.loads(done.stdout.splitlines()[-1])
    return wall, processor, megabytes


def imports(report: Report, rounds: int) -> None:
    """Import time and memory, over the dependencies alone.

    Time is the processor's: an import waits for nothing, and what neighbours take is not its own.
    """
    base, ours = ", ".join(DEPENDENCIES), "router"
    seen: dict[str, list[tuple[float, float, float]]] = {base: [], ours: []}
    for modules in seen:
        fresh(modules)  # writes the byte code
    for _ in range(rounds):
        for modules, turns in seen.items():
            turns.append(fresh(modules))
    columns = {name: list(zip(*turns, strict=True)) for name, turns in seen.items()}
    rows = []
    for modules, (walls, processors, sizes) in columns.items():
        figures = [
            Figure.median(f"import {modules}, time", walls, "ms"),
            Figure.median(f"import {modules}, processor time", processors, "ms"),
            Figure.median(f"import {modules}, memory", sizes, "MB"),
        ]
        report.add(*figures)
        rows.append([modules, *(f"{figure.value:.1f}" for figure in figures)])
    name = "import router, processor time over the dependencies"
    over = ratio(name, columns[base][1], columns[ours][1], TIME_RATIO)
    more = [b - a for a, b in zip(columns[base][2], columns[ours][2], strict=True)]
    beyond = Figure(
        "import router, memory beyond the dependencies",
        statistics.median(more),
        "MB",
        MEGABYTES,
        more,
    )
    report.add(over, beyond)
    rows.append(["router over the dependencies", "", f"× {over.told()}", f"+ {beyond.told()}"])
    note = f"median of {rounds} fresh interpreters each, in turns; memory: resident growth"
    head = ("import", "ms", "processor, ms", "MB")
    print(table("An import", head, rows, note), flush=True)
