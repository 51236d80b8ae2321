"""One call from the shell as a process: pipes, signals, completion, and life without the extra."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from cli_processes import PATIENCE, Run, Start, environment, python, until

from router.testing import StandIn
from router.testing.media import CLIP

ROOT = Path(__file__).parents[2]
SIGNALS = (signal.SIGINT, signal.SIGTERM)
WITHOUT = """
import runpy, sys
sys.modules["typer"] = None
sys.argv = ["video-router", "generate", "x"]
runpy.run_module("router", run_name="__main__")
"""


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[StandIn]:
    with StandIn(accounts={"sk-east": "east"}) as made:
        written = {
            "accounts": {"east": {"api_key": "sk-east", "base_url": made.base_url}},
            "deployments": [{"id": "east-1", "model_name": "sora-2", "account": "east"}],
        }
        (tmp_path / "deployments.yaml").write_text(yaml.safe_dump(written))
        yield made


def shell(folder: Path, line: str) -> subprocess.CompletedProcess[bytes]:
    """A line of a shell, in which `vr` is the command."""
    script = f'set -o pipefail\nvr() {{ "{sys.executable}" -m router "$@"; }}\n{line}'
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment(), capture_output=True, timeout=PATIENCE
    )


def on_a_terminal(folder: Path, *arguments: str, stdout_too: bool) -> tuple[str, str]:
    """What a command prints on its stdout, and what it shows on a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    told = subprocess.Popen(
        [sys.executable, "-m", "router", *arguments],
        cwd=folder,
        env={**environment(80), "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs if stdout_too else subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = bytearray()
    with suppress(OSError):  # how a terminal ends
        while read := os.read(ours, 65536):
            shown += read
    os.close(ours)
    out, _ = told.communicate(timeout=PATIENCE)
    assert told.returncode == 0
    return (out or b"").decode(), shown.decode()


def test_from_nothing_to_a_file_in_a_shell(provider: StandIn, tmp_path: Path) -> None:
    line = "id=$(vr generate 'Luna waves') && vr wait $id >/dev/null && vr content $id > a.mp4"
    told = shell(tmp_path, line)
    assert told.returncode == 0, told.stderr
    assert told.stdout == b""
    assert (tmp_path / "a.mp4").read_bytes() == CLIP


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("as_json", [True, False])
def test_interrupted_it_says_the_id_and_how_to_go_on(
    provider: StandIn, start: Start, number: int, as_json: bool
) -> None:
    provider.fault("never_ends")
    more = ["--json"] if as_json else []
    process = start("generate", "x", "--output", "a.mp4", *more)
    until(lambda: any(one.method == "GET" for one in provider.requests))
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    *_, line = err.splitlines()
    before, _, command = line.partition("`")
    assert before == "video-router: interrupted; the job goes on, follow it with "
    _, _, made, *rest = command.rstrip("`").split()
    assert made.startswith("video_vr1")
    assert rest == ["--output", "a.mp4"]
    assert out == ("" if as_json else f"{made}\n"), "told as soon as it was known"
    assert len(provider.accepted) == 1


@pytest.mark.parametrize("number", SIGNALS)
def test_interrupted_before_the_answer_it_says_what_may_be_running(
    provider: StandIn, start: Start, number: int
) -> None:
    provider.fault("delay", seconds=30.0, operation="generation")
    process = start("generate", "x", "--wait")
    until(lambda: provider.accepted)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, "")
    (line,) = err.splitlines()
    assert "interrupted before the answer came; a job may be there, in the account east" in line
    assert "`video-router list --account east`" in line


def test_interrupted_before_it_was_sent_nothing_was_started(
    provider: StandIn, start: Start, tmp_path: Path
) -> None:
    again = {"retry-after": "60"}
    provider.fault("status", status=429, times=None, headers=again, operation="list")
    process = start("list")
    until(lambda: provider.requests)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, "")
    assert err == "video-router: interrupted; nothing was started\n"


@pytest.mark.parametrize("command", ["list", "list --json", "explain", "status $id", "check d*"])
def test_a_reader_that_has_enough_is_no_scandal(
    provider: StandIn, tmp_path: Path, command: str
) -> None:
    told = shell(tmp_path, f"id=$(vr generate x 2>/dev/null); vr {command} | true")
    assert told.returncode in (0, 1)
    assert told.stderr == b""


def test_an_id_that_nobody_reads_is_told_all_the_same(provider: StandIn, tmp_path: Path) -> None:
    for more in ("", "--json"):
        told = shell(tmp_path, f"(sleep 0.2; vr generate x {more}) | true")
        assert told.returncode == 1
        assert b"the id is video_vr1" in told.stderr
    full = shell(tmp_path, "vr generate x --wait > /dev/full")
    assert full.returncode == 1
    assert b"warning stdout took nothing (No space left on device); the id is video_" in full.stderr
    assert b"completed" in full.stderr, "what was asked for goes on"


@pytest.mark.parametrize(
    "command", ["list", "list --json", "explain", "status $id", "check d*", "ids locate $id"]
)
def test_an_answer_that_finds_no_stdout_is_no_success(
    provider: StandIn, tmp_path: Path, command: str
) -> None:
    told = shell(tmp_path, f"id=$(vr generate x 2>/dev/null); vr {command} >&-")
    assert told.returncode == 1
    (line,) = told.stderr.decode().splitlines()
    assert line.startswith("video-router: stdout is closed")


def test_a_full_disk_says_what_to_do(provider: StandIn, tmp_path: Path) -> None:
    told = shell(tmp_path, "id=$(vr generate x --wait 2>/dev/null); vr content $id > /dev/full")
    assert told.returncode == 1
    (line,) = told.stderr.decode().splitlines()
    assert line.endswith("No space left on device; make room there, or name a file on another disk")


def test_bytes_that_are_no_text_end_no_list_of_ids(provider: StandIn, tmp_path: Path) -> None:
    made = shell(tmp_path, "vr generate x").stdout.decode().strip()
    for setting in ("PYTHONUTF8=1", "LC_ALL=C"):
        lines = rf"printf '\xff\xfea\n{made}\n' | {setting} vr ids locate"
        told = shell(tmp_path, f"export {setting}; {lines}")
        assert told.stdout.decode() == f"{made}\t{made}\n"
        (line,) = told.stderr.decode().splitlines()
        assert line == r"video-router: \udcff\udcfea: it has characters that no id has"


@pytest.mark.parametrize("both", [True, False])
def test_an_id_is_told_whole_beside_a_bar_that_moves(
    provider: StandIn, tmp_path: Path, both: bool
) -> None:
    made = shell(tmp_path, "vr generate x").stdout.decode().strip()
    out, terminal = on_a_terminal(tmp_path, "wait", made, stdout_too=both)
    assert "asking" in terminal
    assert (f"\x1b[2K{made}\r\n" in terminal) == both, "above the bar, and not wrapped"
    assert out == ("" if both else f"{made}\n")


INTERRUPTED = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
AS_INSTALLED = "import sys; sys.argv[0] = 'video-router'; from router.__main__ import main; main()"


@pytest.mark.parametrize("module", ["pydantic", "httpx", "typer"])
@pytest.mark.parametrize("begin", [("-m", "router", "list"), ("-c", AS_INSTALLED)])
def test_interrupted_while_it_is_imported_it_ends_in_one_line(
    tmp_path: Path, module: str, begin: tuple[str, ...]
) -> None:
    (tmp_path / f"{module}.py").write_text(INTERRUPTED)
    told = subprocess.run(
        [sys.executable, *begin],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert (told.returncode, told.stdout) == (130, "")
    assert told.stderr == "video-router: interrupted\n"


def test_a_program_that_imports_the_router_keeps_its_ctrl_c(tmp_path: Path) -> None:
    look = "import sys, router; print(sys.excepthook is sys.__excepthook__)"
    assert python(tmp_path, "-c", look).stdout == "True\n"


def test_ids_come_on_stdin_and_go_on_stdout(provider: StandIn, tmp_path: Path) -> None:
    made = shell(tmp_path, "vr generate x")
    ours = made.stdout.decode().strip()
    told = shell(tmp_path, f"printf '{ours}\\n\\n{ours}\\n' | vr ids locate | cut -f2")
    assert told.stdout.decode().split() == [ours, ours]


def test_without_the_extra_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    told = python(tmp_path, "-c", WITHOUT)
    assert (told.returncode, told.stdout) == (2, "")
    assert told.stderr == "the command line needs an extra: pip install 'video-router[cli]'\n"


def test_shells_complete_commands_and_options(tmp_path: Path) -> None:
    asked = {"_VIDEO_ROUTER_COMPLETE": "complete_bash", "COMP_WORDS": "video-router ge"}
    for words, found in (("video-router ge", "generate"), ("video-router list --or", "--order")):
        asked |= {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
        told = subprocess.run(
            [sys.executable, "-m", "router"],
            cwd=tmp_path,
            env={**environment(), **asked},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert told.stdout.split() == [found]


def test_a_router_py_that_hides_the_package_is_warned_of(provider: StandIn, tmp_path: Path) -> None:
    (tmp_path / "router.py").write_text("app = None")
    # As the installed command starts: without the working folder on the path.
    begin = "import sys; sys.path.pop(0); from router.__main__ import main; main()"
    told = python(tmp_path, "-c", begin, "check", "deployments.yaml")
    assert told.returncode == 0
    assert "warning router.py: this file hides the package `router`" in told.stdout
    found = json.loads(python(tmp_path, "-c", begin, "check", "deployments.yaml", "--json").stdout)
    assert [one for one in found["warnings"] if one.startswith("router.py: ")]


def test_help_of_all_has_headings_and_every_command(run: Run) -> None:
    told = run("--help").stdout
    for words in ("A call", "The fleet", "generate", "extend", "explain", " ids "):
        assert words in told


def test_the_transcript_in_the_readme_is_true(tmp_path: Path) -> None:
    section = (ROOT / "README.md").read_text().partition("## From the shell")[2]
    (block,) = re.findall(r"^```console\n(.*?)^```", section.partition("\n## ")[0], re.M | re.S)
    typed = [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]
    (tmp_path / "luna.mp4").write_bytes(CLIP)
    (tmp_path / "deployments.yaml").write_bytes((ROOT / "deployments.yaml").read_bytes())
    with StandIn(accounts={"sk-east": "east", "sk-west": "west"}) as both:
        told = shell(
            tmp_path,
            "\n".join(
                [
                    f"export EAST_URL={both.base_url} WEST_URL={both.base_url}",
                    f'video-router() {{ "{sys.executable}" -m router "$@"; }}',
                    "exec 2>&1",
                    *(f"echo {shlex.quote(f'$ {line}')}\n{line}" for line in typed),
                ]
            ),
        )
    assert told.returncode == 0
    assert _alike(told.stdout.decode()) == _alike(block)


def _alike(told: str) -> list[str]:
    """Without what is another each time: ids, times, and which of two equals was drawn."""
    told = re.sub(r"video_vr1[\w-]+", "ID", told)
    told = re.sub(r"(waited|after) [\d.]+ m?s", r"\1 T", told)
    told = re.sub(r"(queued on|served by) (?:east|west)", r"\1 D", told)
    kept = [line for line in told.splitlines() if "in_progress" not in line]
    before = kept.index(next(line for line in kept if line.startswith("deployment ")))
    # Whose the video is decides what stands in the rows.
    head, rule, *rows = kept[before:]
    return [*kept[:before], head.rstrip(), rule, *(row.split(" ")[0] for row in rows)]
