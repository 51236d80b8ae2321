"""Commands that run to their end, and commands that go on until the test ends them."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from cli_fleet import KEYS, Fleet, serving_redis
from cli_processes import Run, Start, python, started

from router.testing import StandIn


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


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with serving_redis(tmp_path_factory.mktemp("redis")) as port:
        yield port


@pytest.fixture
def fleet(
    redis_port: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Fleet]:
    """A namespace of its own in a real Redis, and a stand-in server; in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    with StandIn(accounts=KEYS) as provider:
        made = Fleet(redis_port, f"test-{uuid.uuid4().hex[:8]}", provider, capsys)
        yield made
        made.end()
