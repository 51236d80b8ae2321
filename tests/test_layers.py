"""Imports go downwards only: the table of the design's layout, kept by reading the files."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import router

PACKAGE = Path(router.__file__).parent

# Unit by unit: a file, or a folder with all that is in it. `__init__` shows what the faces have.
LAYERS: dict[int, set[str]] = {
    1: {"types", "errors", "_begun", "_doors", "_logs", "_yaml", "_reading"},
    2: {
        "operations",
        "characters",
        "claims",
        "clips",
        "config",
        "events",
        "ids",
        "leases",
        "litellm",
        "observations",
        "outcomes",
        "messages",
        "proxy_settings",
        "tenants",
        "redis_url",
    },
    3: {
        "selection",
        "balancing",
        "health",
        "limits",
        "retry",
        "spending",
        "transport",
        "providers",
        "state",
        "polling",
    },
    4: {
        "advising",
        "engine",
        "fleet",
        "learning",
        "leasing",
        "choosing",
        "claiming",
        "once",
        "resuming",
        "retiring",
        "ownership",
        "replicas",
        "listing",
        "downloads",
        "waiting",
        "picking",
        "inspection",
        "reporting",
        "trip",
    },
    5: {"router", "sdk", "cli", "proxy", "telemetry", "__main__", "__init__"},
}
LAYER = {unit: layer for layer, units in LAYERS.items() for unit in units}
BESIDE = "testing"
# Who may import the stand-in: the command that starts one.
MAY_TEST = {"cli"}


def unit_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def module_of(path: Path) -> list[str]:
    parts = ["router", *path.relative_to(PACKAGE).with_suffix("").parts]
    return parts[:-1] if parts[-1] == "__init__" else parts


def imported(path: Path) -> Iterator[str]:
    """The names of our own modules that a file imports, lazily or for its types included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = module_of(path) if path.name == "__init__.py" else module_of(path)[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "router")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: len(package) - node.level + 1], base]).rstrip(".")
            if base == "router":
                yield from (f"router.{alias.name}" for alias in node.names)
            elif base.startswith("router."):
                yield base


def units_imported(path: Path) -> set[str]:
    """The units a file imports; a name of the package itself is its `__init__`."""
    units = set()
    for name in imported(path):
        first = name.split(".")[1] if "." in name else "__init__"
        known = (PACKAGE / first).is_dir() or (PACKAGE / f"{first}.py").exists()
        units.add(first if known else "__init__")
    return units - {unit_of(path)}


FILES = sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)
NAMES = [str(path.relative_to(PACKAGE)) for path in FILES]


def test_every_file_has_its_layer() -> None:
    units = {unit_of(path) for path in FILES}
    assert units - set(LAYER) == {BESIDE}


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_imports_go_downwards_only(path: Path) -> None:
    unit, others = unit_of(path), units_imported(path)
    if unit == BESIDE:
        assert others == set(), "the stand-in is no mirror of the package: it imports none of it"
        return
    if unit not in MAY_TEST:
        assert BESIDE not in others
    upwards = {other for other in others - {BESIDE} if LAYER[other] > LAYER[unit]}
    assert upwards == set()


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_parts_do_not_import_each_other(path: Path) -> None:
    if LAYER.get(unit_of(path)) == 3:
        assert units_imported(path) & LAYERS[3] == set()


def test_no_imports_go_round() -> None:
    graph: dict[str, set[str]] = {}
    for path in FILES:
        graph.setdefault(unit_of(path), set()).update(units_imported(path))
    done: set[str] = set()

    def visit(unit: str, way: tuple[str, ...]) -> None:
        assert unit not in way, " → ".join((*way, unit))
        if unit not in done:
            for other in sorted(graph[unit]):
                visit(other, (*way, unit))
            done.add(unit)

    for unit in sorted(graph):
        visit(unit, ())


def fresh(code: str) -> str:
    """What a new interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


HEAVY = {
    "redis",
    "rich",
    "typer",
    "click",
    "openai",
    "litellm",
    "runwayml",
    "openrouter",
    "fastapi",
    "celery",
    "opentelemetry",
    "prometheus_client",
    "starlette",
    "uvicorn",
    "python_multipart",
}


@pytest.mark.parametrize("module", ["router", "router.testing"])
def test_an_import_stays_light(module: str) -> None:
    # httpx loads a command line of its own where rich and click are installed; that is not ours.
    loaded = fresh(
        "import sys, httpx, pydantic, tenacity, yaml; before = set(sys.modules)\n"
        f"import {module}; print(*(set(sys.modules) - before))"
    ).split()
    assert module in loaded
    assert HEAVY & {name.partition(".")[0] for name in loaded} == set()


def test_an_import_starts_no_thread() -> None:
    assert fresh("import threading, router; print(threading.active_count())").strip() == "1"
