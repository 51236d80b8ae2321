"""`demo`: the main job on real servers, to real files, with nothing left behind."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
from cli_processes import PATIENCE, Finished, Start, listens, python, until

from router.cli import app
from router.testing.media import CLIP

SERVER = re.compile(r"^  (\w+) +http://127\.0\.0\.1:(\d+)/v1 ", re.MULTILINE)
SHORT = ("--job-seconds", "0")


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Finished, Path]:
    folder = tmp_path_factory.mktemp("demo")
    # What people have lying about: it must not be taken for the package.
    (folder / "app").mkdir()
    (folder / "app" / "router.py").write_text("raise SystemExit('the wrong router')")
    start = "import sys; sys.path.pop(0); from router.__main__ import main; main()"
    return python(folder / "app", "-c", start, "demo", *SHORT), folder / "app"


def rows(told: str) -> dict[str, list[str]]:
    """The table's rows by their first column."""
    table = told.partition("why")[2].partition("\n\n")[0]
    split = [re.split(r"  +", line.strip(), maxsplit=4) for line in table.splitlines()]
    return {cells[0]: cells[1:] for cells in split if len(cells) == 5}


def test_it_runs_to_its_end_in_clean_lines(shown: tuple[Finished, Path]) -> None:
    told, _ = shown
    assert (told.returncode, told.stderr) == (0, "")
    assert "\x1b" not in told.stdout
    assert "\r" not in told.stdout
    assert max(map(len, told.stdout.splitlines())) <= 80


def test_it_leaves_real_videos(shown: tuple[Finished, Path]) -> None:
    _, folder = shown
    files = sorted((folder / "video-router-demo").iterdir())
    names = [f"luna-{name}.mp4" for name in (*range(1, 10), "edited", "extended")]
    assert [file.name for file in files] == names
    assert all(file.read_bytes() == CLIP for file in files)


def test_the_table_tells_who_served_which_call_and_why(shown: tuple[Finished, Path]) -> None:
    table = rows(shown[0].stdout)
    generations = [table[f"generation {number}"] for number in range(1, 10)]
    assert {served for served, *_ in generations[:3]} == {"fast", "slow", "flaky"}, "all are tried"
    assert any("answered 503, went on to" in why for *_, why in generations)
    assert any(why.startswith("quickest, ") for *_, why in generations), "latency was learned"
    assert table["character"][:2] == ["all 3", "3"]
    assert table["edit"][0] == table["extension"][0] == "flaky"
    assert table["edit"][-1] == "it owns the video"
    assert table["11 x content"][1] == "12", "one failed download was made again"


def test_no_job_was_started_twice(shown: tuple[Finished, Path]) -> None:
    assert "the servers' own books show 11: nothing" in " ".join(shown[0].stdout.split())


def test_its_servers_are_gone(shown: tuple[Finished, Path]) -> None:
    servers = SERVER.findall(shown[0].stdout)
    assert [name for name, _ in servers] == ["fast", "slow", "flaky"]
    assert not any(listens(int(port)) for _, port in servers)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_it_takes_its_servers_with_it(start: Start, number: int) -> None:
    process = start("demo", "--job-seconds", "60")
    assert process.stdout is not None
    told = ""
    while "generate" not in told and (line := process.stdout.readline()):
        told += line
    servers = SERVER.findall(told)
    assert all(listens(int(port)) for _, port in servers)
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (130, "video-router: interrupted\n")
    assert len(servers) == 3
    assert not any(listens(int(port)) for _, port in servers)


def test_killed_it_takes_its_servers_with_it_as_well(start: Start) -> None:
    process = start("demo", "--job-seconds", "60")
    assert process.stdout is not None
    told = ""
    while "generate" not in told and (line := process.stdout.readline()):
        told += line
    servers = SERVER.findall(told)
    assert len(servers) == 3
    process.kill()
    until(lambda: not any(listens(int(port)) for _, port in servers))


def test_a_folder_that_cannot_be_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file")
    assert app.run(["demo", "--to", str(taken)]) == 1
    told = capsys.readouterr()
    assert told.err == f"video-router: cannot make the folder {taken}: File exists\n"
    assert told.out == ""
