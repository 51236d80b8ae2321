"""What many workers learn adds up, whatever is lost on the way; and what one finds out all hear.

The scenarios are those of `benchmarks.shared_state`, with small numbers; their speed is measured
there.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from real_redis import SERVER, needs_redis

# Installed without the sources around it, as on a fresh machine, `benchmarks` is found only there.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks.sharing import counting, ejections

pytestmark = [pytest.mark.real, needs_redis]


def test_every_observation_counts_once_though_answers_are_lost(tmp_path: Path) -> None:
    assert SERVER is not None
    found = counting.play(SERVER, tmp_path, 800)
    assert found.noted == found.counted == found.in_histograms == 800
    assert found.wrong == 0
    assert found.mean_error <= 1e-9
    assert found.read_error <= 1e-9
    assert found.lost >= 5


@pytest.mark.parametrize("deaf", [False, True], ids=["told", "without pub/sub"])
def test_what_one_worker_ejects_all_its_siblings_see(tmp_path: Path, *, deaf: bool) -> None:
    assert SERVER is not None
    found = ejections.play(SERVER, tmp_path, 8, deaf=deaf)
    assert found.unseen == 0
    assert [len(trial) for trial in found.seconds] == [7] * 8
    # Nobody can know before it has happened.
    assert min(found.each) > 0
