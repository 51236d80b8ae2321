"""What the stand-in's own tests share."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

import pytest
from stand_in_fakes import ACCOUNTS, FakeClock

from router.testing import StandIn


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def provider() -> Iterator[StandIn]:
    with StandIn(accounts=ACCOUNTS, poll_after_ms=1, seed=7) as provider:
        yield provider


@pytest.fixture(scope="session")
def clip() -> bytes:
    return files("router.testing").joinpath("clip.mp4").read_bytes()
