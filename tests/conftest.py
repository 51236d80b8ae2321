"""What the tests share as fixtures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from shared_parts import KEYS, Doors, FakeClock

from router.testing import StandIn


def pytest_addoption(parser: pytest.Parser) -> None:
    simulation = parser.getgroup("simulation")
    simulation.addoption("--timelines", type=int, help="play so many simulated timelines")
    simulation.addoption("--seed", type=int, help="play the timeline of this seed, and tell it")


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
