"""`drain`, `restore`, `release`: an operator's word, heard by the whole fleet."""

from __future__ import annotations

import datetime
import io
import json
import queue
import sys

import pytest
from cli_fleet import EAST, WEST, Fleet

from router import AmbiguousSubmitError, CapacityError, Router
from router.events import Ejected, Event, Restored


def verdicts(worker: Router) -> dict[str, str]:
    worker.share()
    return {one.deployment: one.verdict for one in worker.explain().candidates}


def test_a_drained_deployment_gets_no_new_work_until_it_is_restored(fleet: Fleet) -> None:
    worker = fleet.worker()
    worker.share()
    told = fleet.tell("drain", "east-1")
    assert told == (
        "east-1 is drained until it is restored: new work goes elsewhere "
        "(1 worker alive to hear it)\n"
    )
    assert verdicts(worker) == {"east-1": "drained", "west-1": "picked"}
    told = fleet.tell("restore", "east-1")
    assert told.splitlines() == [
        "east-1 is in rotation again (1 worker alive to hear it)",
        "    before: drained until it is restored: drained by an operator",
    ]
    assert "drained" not in verdicts(worker).values()
    assert fleet.tell("restore", "east-1").startswith("east-1 was in rotation, and is")


def test_a_workers_hook_ends_no_thread_that_hears_of_operators(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    heard = queue.Queue[str]()

    def on_event(event: Event) -> None:
        if isinstance(event, Ejected | Restored):
            heard.put(type(event).__name__)
            raise SystemExit(3)

    fleet.worker(on_event).video_list()
    for command, event in (("drain", "Ejected"), ("restore", "Restored"), ("drain", "Ejected")):
        fleet.tell(command, "east-1")
        assert heard.get(timeout=10) == event
    assert "out of reach" not in caplog.text


def test_who_retired_stays_out_whatever_an_operator_says(fleet: Fleet) -> None:
    today = str(datetime.datetime.now(datetime.UTC).date())
    fleet.configure({**EAST, "retires_on": today}, WEST)
    worker = fleet.worker()
    worker.share()
    assert fleet.tell("drain", "east-1").startswith("east-1 is drained until it is restored")
    assert f"east-1: retired: its retires_on is {today}" in fleet.tell("status")
    said = fleet.tell("restore", "east-1", "--json")
    assert [out["cause"] for out in json.loads(said)["was_out"]] == ["drained"]
    assert [out["cause"] for out in json.loads(said)["is_out"]] == ["retired"]
    assert fleet.tell("restore", "east-1") == "east-1 stays out (1 worker alive to hear it)\n"
    assert fleet.warned == (
        f"warning it is retired: its retires_on is {today}: only another date in the configuration"
        " brings it back\n"
    )
    assert verdicts(worker) == {"east-1": "drained", "west-1": "picked"}


def test_a_drain_ends_by_itself_where_it_is_told_to(fleet: Fleet) -> None:
    worker = fleet.worker()
    assert "drained for 2 h:" in fleet.tell("drain", "east-1", "--for", "1h60m")
    assert verdicts(worker)["east-1"] == "drained"
    (ejection,) = worker.statistics()["east-1"]["ejections"]
    assert 7190 < ejection["seconds"] <= 7200
    assert "still drained for 2 h" in fleet.tell("drain", "east-1", "--for", "90")
    assert json.loads(fleet.tell("drain", "east-1", "--for", "5m", "--json"))["was_drained_longer"]


def test_a_drain_of_a_thousand_years_is_one_without_an_end(fleet: Fleet) -> None:
    fleet.worker().share()
    told = fleet.tell("drain", "east-1", "--for", "999999d")
    assert told.startswith("east-1 is drained until it is restored: ")


def test_who_leaves_a_group_alone_is_told(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.configure(EAST, {**WEST, "model_name": ["sora-2", "films"]})
    found = json.loads(fleet.tell("drain", "west-1", "--json"))
    assert found["groups_without_deployment"] == ["films"]
    assert found["drained_until"] is None
    found = json.loads(fleet.tell("drain", "east-1", "--for", "1d", "--json"))
    assert found["groups_without_deployment"] == ["sora-2"]


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["drain", "north"], 1, "no deployment 'north'; there are east-1, west-1"),
        (["restore", "north"], 1, "no deployment 'north'; there are east-1, west-1"),
        (["drain", "east-1", "--for", "soon"], 2, "'soon' is no time; write 90s, 5m, 2h or 1d"),
        (["drain", "east-1", "--for", "2x"], 2, "'2x' is no time"),
        (["drain", "east-1", "--for", "0s"], 2, "is no time"),
        (["drain", "east-1", "--for", "9" * 400 + "d"], 2, "is no time"),
        (["drain"], 2, "Missing argument"),
        (["release", "video_vr1AAAA"], 1, "was altered"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    fleet: Fleet, command: list[str], code: int, said: str
) -> None:
    (line,) = fleet.tell(*command, code=code).splitlines()
    assert said in line


def test_a_released_slot_is_anybodys(fleet: Fleet) -> None:
    fleet.configure({**EAST, "max_parallel_jobs": 1}, accounts={"east": {"max_parallel_jobs": 3}})
    fleet.provider.fault("never_ends", times=None)
    worker = fleet.worker()
    video = worker.video(prompt="x")
    with pytest.raises(CapacityError):
        worker.video(prompt="x")
    told = fleet.tell("release", video.id, "--yes")
    assert told.startswith(f"{video.id} gave back a slot of ")
    assert "deployment east-1" in told
    assert "account east" in told
    assert worker.video(prompt="x").routing is not None
    assert fleet.tell("release", video.id, "--yes") == f"{video.id} holds nothing\n"


def test_a_token_is_released_too(fleet: Fleet) -> None:
    fleet.configure({**EAST, "max_parallel_jobs": 1})
    fleet.provider.fault("reset", operation="generation", after=True)
    worker = fleet.worker()
    with pytest.raises(AmbiguousSubmitError):
        worker.video(prompt="x")
    worker.share()
    (loose,) = json.loads(fleet.tell("jobs", "--json"))["loose"]
    released = json.loads(fleet.tell("release", loose["holder"], "--yes", "--json"))["released"]
    assert [hold["resource"] for hold in released] == ["jobs:deployment:east-1"]
    assert worker.video(prompt="x").routing is not None


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [("y\n", 0, "gave back a slot of"), ("\n", 1, "still holds"), ("", 1, "say --yes")],
)
def test_it_asks_before(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, answer: str, code: int, said: str
) -> None:
    fleet.configure({**EAST, "max_parallel_jobs": 1})
    worker = fleet.worker()
    native = worker.describe_id(worker.video(prompt="x").id).copies[0].native_id
    worker.share()
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    assert said in fleet.tell("release", native, code=code)
