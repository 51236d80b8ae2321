"""What sharing costs Redis: how often it is spoken to, and how much it has to say.

Commands and bytes are counted here, which are the same on any machine; the time that it takes is
measured in `benchmarks.sharing.costs`, which plays the same scenarios at length.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest
from real_redis import SERVER, needs_redis

# Installed without the sources around it, as on a fresh machine, `benchmarks` is found only there.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks.sharing import costs
from benchmarks.sharing.stage import Redis, redis_server

pytestmark = [pytest.mark.real, needs_redis]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Redis]:
    assert SERVER is not None
    with redis_server(SERVER, tmp_path) as running:
        yield running


def test_an_idle_worker_sends_a_few_commands_a_second(store: Redis) -> None:
    found = costs.idling(store, seconds=4)
    assert found.sent["evalsha"] >= 2  # both are there all the time
    assert found.total / found.seconds / 2 <= costs.IDLE_COMMANDS


def test_without_limits_many_calls_share_a_command(store: Redis) -> None:
    calls = 1000
    with costs.worker(store, 8) as router:
        found, _ = costs.working(router, store, calls)
        accepted = [job for job in router.jobs() if job.operation == "generation"]
    assert len(accepted) >= calls / 2  # all of it has been told
    assert found.sent["evalsha"] >= 1
    assert found.total <= costs.COMMANDS_A_CALL * calls


def test_a_turn_costs_what_changed_whatever_there_is(store: Redis) -> None:
    fleets = [costs.Turns(store, count) for count in (costs.FEW, costs.MANY)]
    few, many = ([fleet.turn(costs.CHANGED) for _ in range(5)] for fleet in fleets)
    assert min(turn.received for turn in (*few, *many)) > 1000  # ten deployments are heard of
    for cost in ("received", "called"):
        base, large = (median(getattr(turn, cost) for turn in turns) for turns in (few, many))
        assert large <= costs.BYTES_RATIO * base, cost
    for turn in (fleet.turn(0) for fleet in fleets):  # and without news next to nothing
        assert turn.received < 500
        assert turn.called < min(seen.called for seen in few) / 2
