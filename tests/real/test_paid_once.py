"""A call is paid once: what `benchmarks.paid_once` measures of this router, with small numbers.

LiteLLM's side is played there only.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from real_redis import SERVER, needs_redis

# Installed without the sources around it, as on a fresh machine, `benchmarks` is found only there.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks.paying import calls, crashes
from benchmarks.paying.contenders import KEYED, OURS, UNKEYED, Contender
from benchmarks.paying.scenarios import DELIVERIES, SCENARIOS

pytestmark = pytest.mark.real

TASKS = 2
# On a machine that is busy with other things a second may be over before Redis had its turn.
PATIENCE = 30.0
CLAIM_SECONDS = 2.0

both = pytest.mark.parametrize("contender", OURS, ids=["without a key", "under a key"])


@both
@pytest.mark.parametrize(
    "name",
    [
        f"{which}{what}"
        for what in ("reset", "reset-edit", "slow", "500", "broken")
        for which in ("", "all-")
    ]
    + ["cut"],
)
def test_a_job_whose_answer_is_lost_is_paid_once_and_found(name: str, contender: Contender) -> None:
    found = calls.play(SCENARIOS[name], contender, TASKS)
    assert [one.jobs for one in found.outcomes] == [1] * TASKS
    assert found.answered == 0
    assert found.resumed == TASKS
    assert found.errors == {"AmbiguousSubmitError": TASKS}


@both
@pytest.mark.parametrize("name", ["none", "429", "503-later", "refused"])
def test_who_surely_refused_costs_no_call(name: str, contender: Contender) -> None:
    found = calls.play(SCENARIOS[name], contender, TASKS)
    assert [one.jobs for one in found.outcomes] == [1] * TASKS
    assert found.answered == TASKS


@both
def test_a_503_that_says_nothing_is_not_sent_again_by_itself(contender: Contender) -> None:
    found = calls.play(SCENARIOS["503"], contender, TASKS)
    assert found.jobs == found.answered == found.resumed == 0


@pytest.mark.parametrize("name", ["again-done", "again-reset", "again-slow", "again-all-reset"])
def test_under_a_key_a_task_is_one_job_however_often_it_is_delivered(name: str) -> None:
    found = calls.play(SCENARIOS[name], KEYED, TASKS)
    assert [one.calls for one in found.outcomes] == [DELIVERIES] * TASKS
    assert [one.jobs for one in found.outcomes] == [1] * TASKS
    assert found.answered + found.resumed == TASKS


def test_without_a_key_each_delivery_is_a_call_of_its_own() -> None:
    found = calls.play(SCENARIOS["again-done"], UNKEYED, TASKS)
    assert [one.jobs for one in found.outcomes] == [DELIVERIES] * TASKS
    assert found.most_for_a_call == 1


@needs_redis
def test_two_workers_with_one_task_make_one_job_and_both_have_it() -> None:
    assert SERVER is not None
    found = crashes.at_once(KEYED, 5, SERVER, patience=PATIENCE)
    assert [one.jobs for one in found.outcomes] == [1] * 5
    assert found.answered == 5
    assert found.errors == {}


@needs_redis
def test_a_killed_workers_task_is_never_paid_twice() -> None:
    assert SERVER is not None
    found = crashes.killed(KEYED, TASKS, SERVER, claim_seconds=CLAIM_SECONDS, patience=PATIENCE)
    late, early = found[crashes.KILLED_LATE], found[crashes.KILLED_EARLY]
    assert [one.jobs for one in late.outcomes] == [1] * TASKS
    # A kill that comes late on a busy machine may find that all has been said.
    assert late.answered + late.resumed == TASKS
    assert early.most_for_a_task <= 1
    # Whatever was begun for it is found.
    assert early.answered + early.resumed == early.jobs
