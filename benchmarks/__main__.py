"""All benchmarks by one command: `python -m benchmarks`.

Each runs in a process of its own, so that nobody's heap burdens another, and leaves NAME.json and
NAME.png in a folder. At the end stands which goals were met, and which were not.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks import chart
from benchmarks.catalogue import BENCHMARKS
from benchmarks.page import Run, page, runs

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    listed = "\n".join(f"  {name:16} {one.what}" for name, one in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="What the router costs and what it is good for, in tables, JSON and charts.",
        epilog=f"benchmarks (a quick run without names leaves out the last four):\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="these alone")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, under two minutes")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, metavar="DIR", help="where JSON and charts go"
    )
    parser.add_argument(
        "--page",
        action="store_true",
        help="write README.md from the JSON files; alone, it runs nothing",
    )
    told = parser.parse_args(given)
    if unknown := [name for name in told.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    return told


def chosen(told: argparse.Namespace) -> list[str]:
    names, quick = told.names, told.quick
    if names or (told.page and not quick):
        return list(names)
    return [name for name, one in BENCHMARKS.items() if one.short or not quick]


def run(name: str, out: Path, *, quick: bool) -> bool:
    """Whether it ran to its end."""
    file, picture = out / f"{name}.json", out / f"{name}.png"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(file)]
    command += ["--quick"] * quick
    if BENCHMARKS[name].draws:
        command += ["--png", str(picture)]
    print(f"\n━━ {name}: {BENCHMARKS[name].what}", flush=True)
    # Some end with 1 where a goal was missed; who wrote no file broke off.
    before = time.time()
    code = subprocess.run(command, cwd=HERE.parent, check=False).returncode
    done = code in (0, 1) and file.exists() and file.stat().st_mtime >= before - 1
    if done and not BENCHMARKS[name].draws:
        try:
            chart.draw(name, runs(out)[name], picture)
        except ImportError:
            print(chart.HOW_TO_INSTALL)
    return done


def summary(found: dict[str, Run], broken: Sequence[str]) -> str:
    lines, met, all_of_them = [], 0, 0
    for name, run in found.items():
        for one in run["figures"]:
            if one["target"] is None:
                continue
            all_of_them += 1
            met += one["verdict"] == "met"
            if one["verdict"] == "missed":
                sign = "≥" if one.get("at_least") else "≤"
                lines.append(
                    f"  {name}: {one['name']}: {one['value']:.4g}, goal {sign} {one['target']:g}"
                )
    head = f"{met} of {all_of_them} goals met" + (", missed:" if lines else "")
    broke = [f"broke off: {', '.join(broken)}"] if broken else []
    return "\n".join([head, *lines, *broke])


def main(given: Sequence[str] | None = None) -> int:
    told = arguments(given)
    out = told.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    names = chosen(told)
    broken = [name for name in names if not run(name, out, quick=told.quick)]
    found = {name: one for name, one in runs(out).items() if name in names and name not in broken}
    if names:
        print(f"\n{summary(found, broken)}\nin {time.monotonic() - started:.0f} s; see {out}")
    if told.page:
        text = page(runs(out), out, HERE)
        (HERE / "README.md").write_text(text, encoding="utf-8")
        print(f"{HERE / 'README.md'} written")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
