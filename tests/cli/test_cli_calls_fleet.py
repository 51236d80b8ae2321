"""One call from the shell where a fleet shares a Redis: it knows, and tells, what the others do."""

from __future__ import annotations

import json

import pytest
from cli_fleet import EAST, WEST, Fleet

from router import RouterError


def test_what_a_command_started_the_fleet_knows(fleet: Fleet) -> None:
    fleet.provider.fault("never_ends")
    fleet.configure({**EAST, "max_parallel_jobs": 1})
    made = fleet.tell("generate", "x").strip()
    (job,) = fleet.worker().overview().jobs
    assert (job.id, job.deployment, job.running) == (made, "east-1", True)
    assert "no room for generation" in fleet.tell("generate", "y", code=3)
    assert "  jobs 1/1  " in fleet.tell("explain")
    assert fleet.warned.startswith("warning east-1 has no room now")
    assert json.loads(fleet.tell("explain", "--json"))["candidates"][0]["full"] == "jobs 1/1"
    assert "jobs" not in fleet.tell("explain", "status", "--video", made).split("why")[1]


def test_a_key_is_known_to_the_next_command(fleet: Fleet) -> None:
    first = fleet.tell("generate", "x", "--idempotency-key", "order-7").strip()
    assert fleet.tell("generate", "x", "--idempotency-key", "order-7").strip() == first
    assert len(fleet.provider.accepted) == 1
    line = fleet.tell("generate", "z", "--idempotency-key", "order-7", code=1)
    assert "take another key for another video" in line


def test_a_lost_answer_under_a_key_is_never_sent_again(fleet: Fleet) -> None:
    fleet.provider.fault("reset", after=True, operation="generation")
    asked = ("generate", "x", "--idempotency-key", "order-8")
    fleet.tell(*asked, code=4)
    line = fleet.tell(*asked, code=4)
    assert "router.resume" not in line
    assert "look for it with `video-router list --account " in line
    made = fleet.tell(*asked, "--wait").strip()
    assert json.loads(fleet.tell("status", made, "--json"))["status"] == "completed"
    assert fleet.tell(*asked).strip() == made, "it was found, and the key stands for it from now on"
    assert len(fleet.provider.accepted) == 1


def test_explain_knows_what_the_fleet_knows(fleet: Fleet) -> None:
    fleet.configure(EAST, WEST)
    worker = fleet.worker()
    fleet.provider.fault("status", status=401, account="east")
    with pytest.raises(RouterError):
        worker.video(prompt="x", account="east")
    worker.share()
    told = json.loads(fleet.tell("explain", "--json"))
    assert told["picked"] == "west-1"
    (east,) = (one for one in told["candidates"] if one["deployment"] == "east-1")
    assert "401" in east["reason"]
    before = len(worker.overview().workers)
    fleet.tell("explain")
    assert len(worker.overview().workers) == before, "who only looks is no worker"


def test_a_call_goes_round_who_is_out(fleet: Fleet) -> None:
    worker = fleet.worker()
    worker.drain("west-1", 600)
    worker.share()
    for _ in range(3):
        told = json.loads(fleet.tell("generate", "x", "--json"))
        assert told["routing"]["deployment"] == "east-1"
