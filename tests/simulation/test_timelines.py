"""A whole fleet under one clock: what must hold, holds in every timeline.

`--timelines N` plays more of them, `--seed S` plays one again and, where it fails, tells it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sim_plan import BLOWS, FATES, FAULTS, READ_FAULTS
from simulation import run
from timelines import Tally, played, retold

TIMELINES = 150
HERE = Path(__file__).parent
SOME = (77, 78, 79, 80)
DOORS = ("async", "blocking")
OF_KEYS = (
    *("cancelled", "killed", "worker died", "in doubt", "store emptied"),
    *("without sending: answer", "without sending: ConflictError"),
    *("without sending: AmbiguousSubmitError", "without sending: StateUnavailableError"),
    "without sending: DeadlineExceededError",
)
OF_BOTH_DOORS = ("refused", "late", "drip", "truncated", "server_error")


def test_what_must_hold_holds_in_every_timeline(tally: Tally, pytestconfig: pytest.Config) -> None:
    seed = pytestconfig.getoption("--seed")
    if seed is not None:
        wrong, tally.story = retold(seed)
        assert wrong == []
        return
    many = pytestconfig.getoption("--timelines") or TIMELINES
    for some in played(range(many)):
        tally.add(some)
    assert tally.timelines == many
    if tally.wrong:
        _, tally.story = retold(next(iter(tally.wrong)))
        told = "\n".join(f"seed {s}: {w[0]}" for s, w in list(tally.wrong.items())[:20])
        pytest.fail(told, pytrace=False)
    # A timeline in which nothing goes wrong shows nothing: every kind of trouble was there.
    troubles = {*FAULTS, *FATES, *BLOWS, "cancelled in a call", "killed in a call"}
    assert {kind for kind in troubles if not tally.struck[kind]} == set()
    # Nor does one that strikes only where it is harmless.
    met = {(which, fault) for which, fault in tally.met if tally.met[which, fault]}
    assert {("content", fault) for fault in READ_FAULTS} - met == set()
    assert {(door, fault) for door in DOORS for fault in OF_BOTH_DOORS} - met == set()
    assert tally.endings["answer"] > tally.calls / 3
    # Under keys there were callers of every kind, and who repeated came to every end.
    assert set(OF_KEYS) - {what for what, count in tally.keys_met.items() if count} == set()
    assert tally.most_per_key == 1


def test_a_timeline_follows_from_its_seed_alone() -> None:
    code = (
        "import sys; from simulation import run; "
        "print(*(run(int(seed)).history.told() for seed in sys.argv[1:]), sep='\\n')"
    )
    told = []
    for hash_seed in ("1", "2"):
        environ = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(HERE)}
        done = subprocess.run(
            [sys.executable, "-c", code, *map(str, SOME)],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        told.append(done.stdout)
    assert told[0] == told[1]
    assert told[0] == "".join(f"{run(seed).history.told()}\n" for seed in SOME)
    assert told[0].count("\n") > 100


def test_other_seeds_are_other_timelines() -> None:
    assert len({run(seed).history.told() for seed in range(5)}) == 5
