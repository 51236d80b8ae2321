"""Limits hold over many workers, also when these die at work.

The scenarios are those of `benchmarks.shared_state`, with small numbers. Here calls wait for Redis
as long as it takes: what workers do without its answer is another matter, and on a machine that is
busy with other things a tenth of a second is soon over.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from real_redis import SERVER, needs_redis

# Installed without the sources around it, as on a fresh machine, `benchmarks` is found only there.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks.sharing import caps, deaths

pytestmark = [pytest.mark.real, needs_redis]

PATIENCE = 30.0


@pytest.mark.parametrize("of_account", [False, True], ids=["deployment", "account"])
def test_never_more_jobs_run_than_the_limit(tmp_path: Path, *, of_account: bool) -> None:
    assert SERVER is not None
    found = caps.play_jobs(SERVER, tmp_path, 80, of_account=of_account, patience=PATIENCE)
    assert found.unanswered == 0
    assert found.running == caps.CAP
    assert found.accepted == found.submits == 80
    assert found.refused > 0
    assert found.held == 0


def test_requests_per_minute_are_exact_when_they_are_granted(tmp_path: Path) -> None:
    assert SERVER is not None
    found = caps.play_rate(SERVER, tmp_path, 40, 4.0, patience=PATIENCE)
    assert found.unanswered == 0
    assert len(found.times) == found.accepted == found.most == 40


def test_slots_of_the_dead_are_free_in_time_and_never_given_twice(tmp_path: Path) -> None:
    assert SERVER is not None
    found = deaths.play(SERVER, tmp_path, 8, job_ttl=3.0)
    assert found.kills == 8 + deaths.WORKERS
    assert found.accepted > 0
    assert found.running <= deaths.CAP
    assert found.held_most <= deaths.CAP
    assert found.overdue <= 0
    assert found.negative == 0
    assert found.free_after <= 3.0
    assert found.taken_again == deaths.CAP
