"""`jobs`: what was accepted, by whom, and how it was seen last."""

from __future__ import annotations

import json

import pytest
from cli_fleet import EAST, WEST, Fleet, rows

from router import AmbiguousSubmitError


def test_each_job_has_its_id_and_its_story(fleet: Fleet) -> None:
    fleet.configure({**EAST, "max_parallel_jobs": 2}, WEST)
    worker = fleet.worker()
    east = worker.video(prompt="a secret prompt", account="east")
    west = worker.video(prompt="a secret prompt", account="west")
    worker.video_wait(west.id)
    worker.share()
    told = fleet.tell("jobs")
    assert told.splitlines()[0] == "2 jobs, 1 running"
    table = rows(told, "id")
    assert table[""][:4] == ["id", "deployment", "account", "operation"]
    assert list(table)[1:] == [west.id, east.id], "the newest first"
    assert table[east.id][1:4] == ["east-1", "east", "generation"]
    assert "queued" in table[east.id]
    assert "completed" in table[west.id]
    assert " ".join(table[east.id]).count("15 min") == 1, "it holds its slot so long"


def test_a_narrow_terminal_gets_whole_ids(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = fleet.worker()
    video = worker.video(prompt="x", account="east")
    worker.share()
    monkeypatch.setenv("COLUMNS", "60")
    _, _, first, second, third = fleet.tell("jobs").splitlines()
    assert first == video.id
    assert second.strip().startswith("generation on east-1, accepted 0 s ago by ")
    assert third.strip() == "queued when seen 0 s ago"


def test_they_are_chosen_by_account_deployment_and_running(fleet: Fleet) -> None:
    worker = fleet.worker()
    east = worker.video(prompt="x", account="east")
    west = worker.video(prompt="x", account="west")
    worker.video_wait(west.id)
    worker.share()

    def ids(*options: str) -> list[str]:
        return [job["id"] for job in json.loads(fleet.tell("jobs", "--json", *options))["jobs"]]

    assert ids() == [west.id, east.id]
    assert ids("--running") == ids("--account", "east") == [east.id]
    assert ids("--deployment", "west-1") == [west.id]
    assert ids("--deployment", "west-1", "--running") == []
    assert "no account 'north'; there are east, west" in fleet.tell(
        "jobs", "--account", "north", code=1
    )


def test_no_jobs_are_no_failure(fleet: Fleet) -> None:
    assert fleet.tell("jobs") == "0 jobs, 0 running\n"


def test_a_slot_of_nobody_knows_what_is_told_with_its_token(fleet: Fleet) -> None:
    fleet.configure({**EAST, "max_parallel_jobs": 2})
    worker = fleet.worker()
    fleet.provider.fault("reset", operation="generation", after=True)
    with pytest.raises(AmbiguousSubmitError):
        worker.video(prompt="x")
    worker.share()
    (loose,) = json.loads(fleet.tell("jobs", "--json"))["loose"]
    assert (loose["resource"], loose["job"]) == ("jobs:deployment:east-1", None)
    told = fleet.tell("jobs")
    assert "1 slot held by no known job" in told
    assert f"{loose['holder']} in jobs:deployment:east-1, 15 min more" in told
