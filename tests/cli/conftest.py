"""Commands that run to their end, and commands that go on until the test ends them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cli_processes import Run, Start, python, started


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run("check", "x.yaml", columns=200)`, in an empty folder."""
    return lambda *arguments, columns=80: python(
        tmp_path, "-m", "router", *arguments, columns=columns
    )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start("stand-in")`: killed with the test, if it has not ended by then."""
    with ExitStack() as stack:

        def begin(*arguments: str) -> subprocess.Popen[str]:
            process = started(tmp_path, arguments)
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield begin
