"""How many timelines are played, which one is replayed, and what they came to."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from timelines import Tally

TALLY = pytest.StashKey[Tally]()
TOLD = pytest.StashKey[tuple[int, str, str]]()


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    # Some thousand routers say at once who is out of rotation.
    log = logging.getLogger("router")
    log.disabled = True
    yield
    log.disabled = False


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Where the figures of this run add up; they are printed at its end."""
    return request.config.stash.setdefault(TALLY, Tally())


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where the tests run in several processes, tell the one that reports."""
    tally = session.config.stash.get(TALLY, None)
    if tally is not None and hasattr(session.config, "workeroutput"):
        session.config.workeroutput["simulation"] = _told(tally)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    told = getattr(node, "workeroutput", {}).get("simulation")
    if told is not None:
        # Of several processes that played, the one that played most.
        node.config.stash[TOLD] = max(tuple(told), node.config.stash.get(TOLD, (0, "", "")))


def _told(tally: Tally) -> tuple[int, str, str]:
    return tally.timelines, str(tally) if tally.timelines else "", tally.story


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    tally = config.stash.get(TALLY, None)
    here = (0, "", "") if tally is None else _told(tally)
    _, said, story = config.stash.get(TOLD, here)
    if said:
        terminalreporter.section("simulation")
        terminalreporter.write_line(said)
    if story:
        terminalreporter.section("the timeline")
        terminalreporter.write_line(story)
