"""What CI promises: the README's command word for word, and that nothing was left out unseen."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent
RUN = (ROOT / ".ci" / "run").read_text()

MADE = """
import pytest

def test_that_passes():
    pass

@pytest.mark.skipif(True, reason="there is no such thing here")
def test_that_is_left_out():
    pass

@pytest.mark.xfail(reason="known", strict=True)
def test_that_is_known_to_fail():
    assert False
"""
ABSENT = "import pytest\npytest.importorskip('no_such_module', reason='no such module here')\n"


def session(folder: Path, skip: str) -> subprocess.CompletedProcess[str]:
    """What is tested in a folder, in a session of its own, under the rule of this suite."""
    shutil.copy(HERE / "conftest.py", folder)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -q\n")
    told = {**os.environ, "ROUTER_TESTS_SKIP": skip}
    told["PYTHONPATH"] = os.pathsep.join([str(HERE), *sys.path])
    told.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(folder)]
    return subprocess.run(
        command, cwd=folder, env=told, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def skipping(tmp_path: Path) -> Path:
    """Where one test is skipped, and one file as a whole."""
    (tmp_path / "test_absent.py").write_text(ABSENT)
    (tmp_path / "test_made.py").write_text(MADE)
    return tmp_path


NAMED = (
    "test_made.py::test_that_is_left_out: Skipped: there is no such thing here",
    "test_absent.py: Skipped: no such module here",
)


def test_a_session_of_ci_fails_by_what_it_skips_and_names_it(skipping: Path) -> None:
    ended = session(skipping, skip="fail")
    assert ended.returncode == pytest.ExitCode.TESTS_FAILED, ended.stdout
    assert [name for name in NAMED if name not in ended.stdout] == []


def test_elsewhere_a_test_may_do_without(skipping: Path) -> None:
    ended = session(skipping, skip="")
    assert ended.returncode == pytest.ExitCode.OK, ended.stdout
    assert [name for name in NAMED if name in ended.stdout] == []


def test_a_session_of_ci_without_skips_passes(tmp_path: Path) -> None:
    (tmp_path / "test_made.py").write_text(MADE.replace("skipif(True", "skipif(False"))
    ended = session(tmp_path, skip="fail")
    assert ended.returncode == pytest.ExitCode.OK, ended.stdout
    assert "2 passed, 1 xfailed" in ended.stdout


def test_ci_runs_the_readmes_test_command_word_for_word() -> None:
    blocks = re.findall(r"^```console\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)
    (command,) = [block.strip() for block in blocks if "pytest" in block]
    assert "\n" not in command
    # In parentheses: without them bash forgives whatever fails before the last `&&`.
    assert f"({command})" in RUN.splitlines()


def test_ci_forbids_skips_and_measures_nothing() -> None:
    words = [line for line in RUN.splitlines() if line and not line.startswith("#")]
    assert "export ROUTER_TESTS_SKIP=fail" in words
    assert not [line for line in words if "benchmarks" in line]
