"""When a job is looked at again: few looks, one of them soon, and its end noticed in time."""

from __future__ import annotations

import itertools

import pytest

from router.polling import pause


def looks(lasts: float, usual: float | None) -> list[float]:
    """Seconds after its acceptance at which a job is looked at, the last look seeing its end."""
    at = [0.0]
    while at[-1] < lasts:
        at.append(at[-1] + pause(at[-1], usual))
    return at[1:]


@pytest.mark.parametrize("usual", [20.0, 100.0, 600.0])
@pytest.mark.parametrize("luck", [0.85, 1.0, 1.3, 3.0])
def test_an_end_is_noticed_within_a_twentieth(usual: float, luck: float) -> None:
    lasts = usual * luck
    assert looks(lasts, usual)[-1] - lasts <= 0.05 * max(lasts, usual) + 0.001


@pytest.mark.parametrize("usual", [40.0, 100.0, 600.0])
def test_some_ten_looks_are_enough_for_a_usual_job(usual: float) -> None:
    assert 7 <= len(looks(usual, usual)) <= 12


@pytest.mark.parametrize("usual", [None, 10.0, 100.0, 3600.0])
def test_what_fails_at_once_or_is_queued_is_seen_soon(usual: float | None) -> None:
    assert looks(2.0, usual)[-1] <= 3.0


def test_where_nobody_knows_how_long_it_takes_looks_become_fewer() -> None:
    found = looks(200.0, None)
    pauses = [later - at for at, later in itertools.pairwise(found)]
    assert pauses == sorted(pauses)
    assert (found[0], pauses[-1]) == (1.0, 15.0)
