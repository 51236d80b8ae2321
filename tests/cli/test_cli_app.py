"""The command line as a whole: help, wrong usage, exit codes, and life without its extra."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_processes import Run, python

import router
from router.cli import app

WITHOUT = """
import runpy, sys
sys.modules[{missing!r}] = None
sys.argv = ["video-router", "demo"]
runpy.run_module("router", run_name="__main__")
"""


def test_help_names_the_commands_and_the_exit_codes(run: Run) -> None:
    told = run("--help")
    assert told.returncode == 0
    assert all(f" {command} " in told.stdout for command in ("check", "demo", "stand-in"))
    assert "Exit codes: 0 all is well, 1 problems" in told.stdout
    assert max(map(len, told.stdout.splitlines())) <= 80


def test_no_command_is_answered_with_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run([]) == 2
    assert "Usage: video-router" in capsys.readouterr().out


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["--version"]) == 0
    assert capsys.readouterr().out == f"video-router {router.__version__}\n"


def test_each_command_explains_its_options_and_exit_codes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert app.run(["stand-in", "--help"]) == 0
    told = capsys.readouterr().out
    options = ("--host", "--port", "--account", "--job-seconds", "--latency", "--rpm", "--fault")
    assert all(option in told for option in (*options, "--max-running-jobs"))
    assert "Exit codes" in told
    assert "never_ends" in told, "the kinds of faults are listed"


def test_wrong_usage_ends_with_exit_code_2(run: Run) -> None:
    told = run("chek")
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr.startswith("video-router: No such command 'chek'")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["convert"], "Missing argument"),
        (["demo", "--sed", "1"], "--sed"),
        (["demo", "--job-seconds", "-1"], "--job-seconds"),
        (["stand-in", "--port", "70000"], "--port"),
        (["stand-in", "--account", "sk-east"], "'sk-east' is not KEY=NAME"),
        (["stand-in", "--fault", "explode"], "unknown kind 'explode'"),
    ],
)
def test_wrong_usage_is_told_in_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(arguments) == 2
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert line.startswith("video-router: ")
    assert said in line
    assert line.endswith(f"see `video-router {arguments[0]} --help`")
    assert told.out == ""


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_one_line_says_how_to_get_it(tmp_path: Path, missing: str) -> None:
    told = python(tmp_path, "-c", WITHOUT.format(missing=missing))
    assert (told.returncode, told.stdout) == (2, "")
    (line,) = told.stderr.splitlines()
    assert "pip install 'video-router[cli]'" in line


def test_the_router_does_not_import_the_command_line(tmp_path: Path) -> None:
    # Not rich: httpx brings it in by itself where it is installed.
    look = "import sys, router; print([m for m in ('typer', 'router.cli') if m in sys.modules])"
    assert python(tmp_path, "-c", look).stdout == "[]\n"
