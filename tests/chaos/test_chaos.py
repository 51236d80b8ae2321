"""Real processes, a real Redis, real sockets, and somebody who breaks them.

    pytest -m real tests/chaos --chaos-seconds 600 --chaos-seed 7

Four workers make, follow, edit and download videos for a minute. Meanwhile one of them after the
other is killed or stopped, Redis is frozen, flushed and restarted, connections are cut, and the
provider throttles, fails, loses answers and is late. What each process wrote down is compared with
the provider's books.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chaos_checker import Figures, Run, check, told
from chaos_fleet import BINARIES, fleet, until
from chaos_gremlin import rage
from chaos_plan import CAPS, WORKERS, Plan, drawn
from chaos_story import Story

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not any(BINARIES.values()), reason="no redis-server, here or in a wheel"),
]


def played(folder: Path, plan: Plan) -> Run:
    """Let a plan happen."""
    with fleet(folder, plan) as one:
        rage(one)
        one.finish()
    return Run(plan, Story(folder))


def test_what_must_hold_holds_in_chaos(
    tmp_path: Path, chaos_seconds: float, chaos_seed: int, figures: list[str]
) -> None:
    run = played(tmp_path, drawn(chaos_seed, chaos_seconds))
    wrong, found = check(run), Figures(run.story)
    figures.append(f"seed {chaos_seed}, {chaos_seconds:g} s, journals in {tmp_path}\n{found}")
    assert not wrong, told(run, wrong)
    # A fleet that stood still would break nothing either.
    assert found.answered > 2 * chaos_seconds
    assert found.jobs > chaos_seconds


CARELESS = {
    "resubmits": {"paid once"},
    "forgets": {"true accepted"},
    "asks another account": {"asks the owner"},
    "ignores caps": {"caps hold"},
}
THE_REST = {
    "drops keys": {"one job per key"},
    "dawdles": {"ends in time"},
    "leaks": {"leaves nothing"},
    "": set[str](),
}
FOLLOWS = {"resubmits": {"nothing lost", "true accepted", "one job per key"}}
"""What else is wrong then: who is accepted twice hears of one of the two, or of none."""
AT_THE_END = {"leaves nothing"}
"""What shows when a worker has ended."""
LONGEST = 60.0
"""Seconds until all are found; it takes some, but chance decides who meets what."""

Blame = tuple[str, str]
"""What is wrong, and whose calls it is about."""


@pytest.mark.parametrize(
    ("crew", "caps", "faults"),
    [
        # Each lost answer keeps a slot; where both are many and few, soon nobody gets one.
        pytest.param(CARELESS, dict.fromkeys(CAPS, 3), 6.0, id="careless"),
        pytest.param(THE_REST, CAPS, 1.0, id="the rest"),
    ],
)
def test_who_does_wrong_is_found_and_nobody_else_is_blamed(
    tmp_path: Path, crew: dict[str, set[str]], caps: dict[str, int], faults: float
) -> None:
    """Each worker of a crew does wrong in its own way, and in some seconds is found out."""
    mutations = dict(enumerate(crew))
    plan = Plan(5, LONGEST, faults=faults, pause=0.1, mutations=mutations, caps=dict(caps))
    theirs = {(name, f"w{number}") for number, m in mutations.items() for name in crew[m]}
    also = {(name, f"w{n}") for n, m in mutations.items() for name in FOLLOWS.get(m, ())}
    at_once = {(name, who) for name, who in theirs if name not in AT_THE_END}

    def are_found() -> bool:
        time.sleep(1.0)
        return at_once <= set().union(*blamed(Run(plan, Story(tmp_path))))

    with fleet(tmp_path, plan) as one:
        until(are_found, LONGEST, "all are found")
        one.finish()
    run = Run(plan, Story(tmp_path))
    assert theirs <= set().union(*blamed(run)), told(run, check(run))
    assert all(blame & (theirs | also) for blame in blamed(run)), told(run, check(run))


def blamed(run: Run) -> list[set[Blame]]:
    """For each thing that is wrong, the workers that it may be about."""
    return [
        {(name, about.partition(".")[0]) for about in one.about}
        for name, wrong in check(run).items()
        for one in wrong
    ]


KILLED = """
import sys, time
from pathlib import Path
from chaos_fleet import fleet
from chaos_plan import Plan
with fleet(Path(sys.argv[1]), Plan(1, 60.0)) as one:
    one.stop_worker(0)
    one.freeze_redis()
    print(*one.watched, flush=True)
    time.sleep(60)
"""


def test_nothing_outlives_a_test_that_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    here = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=here) as process:
        assert process.stdout is not None
        started = [int(pid) for pid in process.stdout.readline().split()]
        held = [os.pidfd_open(pid) for pid in started]
        process.kill()
    assert len(held) == WORKERS + 3
    for descriptor in held:
        # It becomes readable when its process has ended.
        ended, _, _ = select.select([descriptor], [], [], 10.0)
        os.close(descriptor)
        assert ended
