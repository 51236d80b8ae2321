"""`status`: the fleet as its workers see it, without being one of them."""

from __future__ import annotations

import json
import signal
import socket

import pytest
from cli_fleet import EAST, WEST, Fleet, rows
from cli_processes import PATIENCE, Start

from router import RouterError

LIMITED = {
    "max_parallel_jobs": 2,
    "max_parallel_requests": 8,
    "rpm": 25,
    "read_rpm": 100,
}


def test_the_table_tells_health_times_and_what_is_taken_of_the_limits(fleet: Fleet) -> None:
    fleet.provider.fault("never_ends", times=None)
    fleet.configure({**EAST, **LIMITED}, accounts={"east": {"max_parallel_jobs": 4}})
    worker = fleet.worker()
    video = worker.video(prompt="x")
    worker.video_status(video.id)
    worker.share()
    told = fleet.tell("status")
    first, second, *_ = told.splitlines()
    assert first == "1 worker alive, 1 of 1 deployment in rotation, 1 job running"
    assert second.endswith(f"redis://127.0.0.1:{fleet.port}/0, namespace {fleet.namespace}")
    table = rows(told, "deployment")
    assert table[""][:4] == ["deployment", "account", "state", "busiest"]
    east = table["east-1"]
    assert east[:3] == ["east-1", "east", "up"]
    assert east[-4:] == ["1/2", "0/8", "1/25", "1/100"]
    assert rows(told, "account")["east"] == ["east", "1/4"]


def test_job_times_are_per_second_of_video(fleet: Fleet) -> None:
    worker = fleet.worker()
    worker.video_wait(worker.video(prompt="x", seconds=4, account="east").id)
    worker.share()
    (east,) = (d for d in json.loads(fleet.tell("status", "--json"))["deployments"] if d["latency"])
    assert east["job_time"]["generation"]["count"] == 1
    assert east["latency"]["generation"]["p95"] > 0
    assert "job p95" in fleet.tell("status")


def test_what_was_spent_today_is_told_where_costs_are_known(fleet: Fleet) -> None:
    priced, account = {**EAST, "cost_per_second": 0.1}, {"east": {"max_cost_per_day": 2.5}}
    fleet.configure(priced, WEST, accounts=account)
    workers = [fleet.worker() for _ in range(2)]
    for worker in workers:
        worker.video(prompt="x", seconds=4, account="east")
        worker.share()
    workers[0].video(prompt="x", seconds=4, account="west")
    told = fleet.tell("status")
    table = rows(told, "deployment")
    assert table[""][-2:] == ["spent", "today"]
    assert table["east-1"][-1] == "$0.80"
    assert "$" not in " ".join(table["west-1"])
    assert rows(told, "account")["east"][-1] == "$0.80/$2.5"
    seen = json.loads(fleet.tell("status", "--json"))
    east, west = seen["deployments"]
    (day,) = east["spent_by_day"]
    assert east["spent_by_day"] == {day: 0.8}
    assert (east["spent_today"], west["spent_today"], west["spent_by_day"]) == (0.8, None, {})
    accounts = [(one["spent_today"], one["cost_per_day"]) for one in seen["accounts"]]
    assert accounts == [(0.8, 2.5), (None, None)]


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 200])
def test_it_is_as_wide_as_the_terminal(
    fleet: Fleet, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.configure({**EAST, **LIMITED}, {**WEST, **LIMITED})
    worker = fleet.worker()
    worker.video_wait(worker.video(prompt="x").id)
    worker.share()
    monkeypatch.setenv("COLUMNS", str(columns))
    _, _, _, *table = fleet.tell("status").splitlines()
    if columns >= 60:
        assert max(len(line.rstrip()) for line in table) <= columns
    for words in ("east-1", "west-1", "/25", "/100"):
        assert words in "\n".join(table)


def test_who_is_out_is_told_with_the_reason_and_how_long(fleet: Fleet) -> None:
    worker = fleet.worker()
    throttle = {"retry-after": "60"}
    fleet.provider.fault("status", status=429, account="east", headers=throttle)
    with pytest.raises(RouterError):
        worker.video(prompt="x", account="east")
    worker.drain("west-1", 7200)
    worker.share()
    told = fleet.tell("status")
    assert "0 of 2 deployments in rotation" in told
    assert "no submits" in told
    assert "drained 2 h" in told
    *_, east, west = told.splitlines()
    assert east.startswith("east-1: no submits for ")
    assert "429" in east
    assert west == "west-1: drained for 2 h more: drained by an operator"


def test_who_looks_is_no_worker(fleet: Fleet) -> None:
    assert fleet.tell("status").startswith("0 workers alive")
    worker = fleet.worker()
    worker.share()
    for _ in range(3):
        assert fleet.tell("status").startswith("1 worker alive")
    assert len(worker.overview().workers) == 1


def test_without_redis_there_is_nothing_to_see(fleet: Fleet) -> None:
    fleet.configure(redis_url=None)
    (line,) = fleet.tell("status", code=1).splitlines()
    assert line.startswith("video-router: deployments.yaml sets no redis_url: state stays in each")


@pytest.mark.parametrize(
    "command", [["status"], ["jobs"], ["drain", "east-1"], ["restore", "east-1"], ["release", "x"]]
)
def test_a_redis_out_of_reach_is_one_line(fleet: Fleet, command: list[str]) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        fleet.configure(redis_url=f"redis://me:redis-secret@127.0.0.1:{port}/0")
        (line,) = fleet.tell(*command, code=1).splitlines()
    assert line.startswith("video-router: the shared state is out of reach: ")


def test_another_file_is_named_by_an_option_or_the_environment(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = fleet.tell("status", "--config", "nowhere.yaml", code=1)
    assert line == "video-router: nowhere.yaml: there is no such file\n"
    monkeypatch.setenv("ROUTER_CONFIG", "elsewhere.yaml")
    assert "elsewhere.yaml" in fleet.tell("status", code=1)


def test_seconds_are_for_watching(fleet: Fleet) -> None:
    assert "SECONDS needs --watch" in fleet.tell("status", "5", code=2)
    assert "0.1" in fleet.tell("status", "--watch", "0", code=2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_watched_it_goes_on_until_it_is_told_to_end(
    fleet: Fleet, start: Start, number: int
) -> None:
    process = start("status", "--watch", "0.1", "--json")
    assert process.stdout is not None
    lines = [json.loads(process.stdout.readline()) for _ in range(2)]
    fleet.worker().share()
    while not json.loads(process.stdout.readline())["workers"]:
        pass
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (0, "")
    assert [line["workers"] for line in lines] == [[], []]
    assert lines[1]["at"] > lines[0]["at"]
