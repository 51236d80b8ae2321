"""The benchmarks can be found and started; what they find is judged by people, not here."""

from __future__ import annotations

import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks
from benchmarks.catalogue import BENCHMARKS
from benchmarks.measure import Figure, Report
from benchmarks.page import page, runs

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(
    found.name
    for found in pkgutil.walk_packages(benchmarks.__path__, "benchmarks.")
    if found.name != "benchmarks.__main__"
)


def test_help_lists_every_benchmark() -> None:
    command = [sys.executable, "-m", "benchmarks", "--help"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [name for name in BENCHMARKS if f"  {name} " not in told] == []


def test_an_unknown_name_is_refused_with_those_that_are_known() -> None:
    command = [sys.executable, "-m", "benchmarks", "overheads"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "overhead, " in done.stderr


@pytest.mark.parametrize("name", MODULES)
def test_every_module_can_be_imported_without_what_the_extra_brings(name: str) -> None:
    importlib.import_module(name)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_can_be_run_by_its_name(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.{name}").main)


def test_a_lower_bound_is_met_from_above_and_an_upper_one_from_below() -> None:
    assert Figure("rate", 3.0, "×", 2.5, at_least=True).verdict == "met"
    assert Figure("rate", 2.0, "×", 2.5, at_least=True).verdict == "missed"
    assert Figure("time", 2.0, "×", 2.5).verdict == "met"
    assert Figure("time", 3.0, "×", 2.5).verdict == "missed"


def test_the_page_tells_goals_curves_and_what_one_redis_carries(tmp_path: Path) -> None:
    report = Report(
        {
            "processor": "a processor",
            "cores": 2,
            "system": "a system",
            "python": "CPython",
            "load_before": 0.1,
            "versions": {"redis": "6"},
        }
    )
    report.add(
        Figure("a pick, 1,000 over 32", 1.1, "×", 1.2),
        Figure("a pick of 4", 4.0, "µs", curve="a pick", at=4),
        Figure("an exchange, 0 calls since the last: Redis's time", 0.1, "ms"),
        Figure("an exchange, 100 calls since the last: Redis's time", 2.0, "ms"),
        Figure("a lease: Redis's time", 0.25, "ms"),
    )
    (tmp_path / "growth.json").write_text(json.dumps(report.as_json()))
    text = page(runs(tmp_path), tmp_path, tmp_path)
    assert "| a pick, 1,000 over 32 | 1.1 × | ≤ 1.2 | met |" in text
    assert "| a pick | 4 µs |" in text
    assert "500 / 0.25 = **2,000**" in text
