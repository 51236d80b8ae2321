"""For how long chaos is made, by which seed, and what it came to."""

from __future__ import annotations

import pytest

FIGURES = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    chaos = parser.getgroup("chaos")
    chaos.addoption("--chaos-seconds", type=float, help="make chaos for so long (default: 55)")
    chaos.addoption("--chaos-seed", type=int, help="what goes wrong, and when (default: 1)")


@pytest.fixture
def chaos_seconds(request: pytest.FixtureRequest) -> float:
    # Named without this folder, pytest reads this file after the command line.
    return float(request.config.getoption("chaos_seconds", None) or 55.0)


@pytest.fixture
def chaos_seed(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("chaos_seed", None) or 1)


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> list[str]:
    """What is to stand at the end of the run."""
    return request.config.stash.setdefault(FIGURES, [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    told = config.stash.get(FIGURES, None)
    if told:
        terminalreporter.section("chaos")
        for text in told:
            terminalreporter.write_line(text)
