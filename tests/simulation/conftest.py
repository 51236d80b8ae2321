"""How many timelines are played, which one is replayed, and what they came to."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from timelines import Tally

TALLY = pytest.StashKey[Tally]()


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


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    tally = config.stash.get(TALLY, None)
    if tally is not None and tally.timelines:
        terminalreporter.section("simulation")
        terminalreporter.write_line(str(tally))
    if tally is not None and tally.story:
        terminalreporter.section("the timeline")
        terminalreporter.write_line(tally.story)
