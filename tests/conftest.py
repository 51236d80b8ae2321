"""What the tests share as fixtures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from shared_parts import KEYS, TOLD, Doors, FakeClock, Told

from router.testing import StandIn


def pytest_addoption(parser: pytest.Parser) -> None:
    simulation = parser.getgroup("simulation")
    simulation.addoption("--timelines", type=int, help="play so many simulated timelines")
    simulation.addoption("--seed", type=int, help="play the timeline of this seed, and tell it")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """The whole default suite takes every core.

    A part of it runs in one process, where a debugger works; so does what is `real`, since clusters
    and browsers want the machine for themselves.
    """
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return None if whole and config.option.markexpr == "not real" else 0


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """One of several processes has ended: what it tells of the timelines that it played.

    It stands here since the process that reports loads no other folder's.
    """
    told = getattr(node, "workeroutput", {}).get("simulation")
    if told is not None:
        known = node.config.stash.get(TOLD, Told())
        node.config.stash[TOLD] = max(Told(*told), known)  # of who played most


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where `ROUTER_TESTS_SKIP` is `fail`, as `.ci/run` says, what was skipped is not fine.

    Elsewhere a test may do without what a machine lacks; there, nothing would ever test it.
    """
    if _skipped(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    told = config.stash.get(TOLD, Told())
    for title, text in (("simulation", told.summary), ("the timeline", told.story)):
        if text:
            terminalreporter.section(title)
            terminalreporter.write_line(text)
    skipped = _skipped(config)
    if skipped:
        terminalreporter.section("skipped, and nothing may be", red=True)
        for report in skipped:
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
            terminalreporter.write_line(f"{report.nodeid}: {why}")


def _skipped(config: pytest.Config) -> list[pytest.TestReport | pytest.CollectReport]:
    """What counts against the session; the expected failures are not among it."""
    if os.environ.get("ROUTER_TESTS_SKIP") != "fail":
        return []
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    # One of several processes: the one that reports has them all.
    return [] if reporter is None else list(reporter.stats.get("skipped", ()))


@pytest.fixture(params=["blocking", "async"])
def call(request: pytest.FixtureRequest) -> Iterator[Doors]:
    """`call(router, "video_edit", …)`: the operation, through the blocking or the async door."""
    doors = Doors(request.param)
    yield doors
    doors.end()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def provider() -> StandIn:
    """A stand-in with the accounts east, west and north, in process: no server is started."""
    return StandIn(accounts=KEYS, seed=7)
