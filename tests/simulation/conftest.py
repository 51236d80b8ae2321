"""How many timelines are played, which one is replayed, and what they came to."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from shared_parts import TOLD, Told
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


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell what the timelines came to: of several processes, the one that reports."""
    tally = session.config.stash.get(TALLY, None)
    if tally is None or not tally.timelines:
        return
    told = Told(tally.timelines, str(tally), tally.story)
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["simulation"] = tuple(told)
    else:
        session.config.stash[TOLD] = told
