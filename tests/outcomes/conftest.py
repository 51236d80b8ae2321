"""What the outcome tests share as fixtures."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from outcome_parts import CLIP

from router.testing import StandIn


@pytest.fixture
def clip() -> bytes:
    return CLIP


@pytest.fixture
def server() -> Iterator[StandIn]:
    """A stand-in with the same accounts behind a real socket."""
    with StandIn(accounts={"sk-east": "east", "sk-west": "west"}, seed=7) as provider:
        yield provider
