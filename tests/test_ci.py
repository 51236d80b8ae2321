"""What CI promises: the README's command word for word, that nothing was left out unseen, and that
the core runs under other versions.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
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


CORE = (ROOT / ".ci" / "core").read_text()


def said(script: str, **environment: str) -> str:
    """What a script of CI's prints."""
    command = [sys.executable, str(ROOT / ".ci" / script)]
    told = {**os.environ, **environment}
    ended = subprocess.run(
        command, env=told, capture_output=True, text=True, timeout=120, check=True
    )
    return ended.stdout


def test_ci_runs_the_core_under_the_newest_python_and_the_lowest_versions() -> None:
    assert '.ci/lowest >"$tree/lowest.txt"' in RUN
    assert 'python3 --constraint "$tree/lowest.txt"' in RUN
    assert '.ci/core "$tree/newest" "$newest"' in RUN
    # Where there is none, it says so, and where one of the runs fails, CI does.
    assert "No Python newer than" in RUN
    assert '[ "$newer" = 0 ] && [ "$older" = 0 ] ||' in RUN


def test_the_lowest_versions_are_those_that_are_declared() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = declared["optional-dependencies"]
    lowest = dict(line.split("==") for line in said("lowest").splitlines())
    for requirement in [*declared["dependencies"], *extras["cli"], *extras["test"]]:
        name, _, rest = requirement.partition(">=")
        if rest:
            assert lowest[name.partition("[")[0]] == rest.split(",")[0]
    assert "video-router" not in lowest


def test_what_the_core_names_exists() -> None:
    named = re.findall(r"tests/[\w/.:]+", CORE)
    assert {"tests/test_config.py", "tests/routing", "tests/outcomes", "tests/state"} <= set(named)
    for path, _, function in (one.partition("::") for one in named):
        assert (ROOT / path).exists(), path
        if function:
            assert f"def {function}(" in (ROOT / path).read_text()


def python(folder: Path, name: str, version: str) -> None:
    """Something that says to be a Python of this version."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\necho {version}\n")
    (folder / name).chmod(0o755)


def test_the_newest_python_is_sought_on_the_path_and_where_pyenv_and_uv_keep_theirs(
    tmp_path: Path,
) -> None:
    bare = {"HOME": str(tmp_path), "PYENV_ROOT": "", "PATH": str(tmp_path / "bin")}
    assert said("newest", **bare) == ""
    python(tmp_path / "bin", "python3.11", "3 11 final")
    python(tmp_path / "bin", "python3.98", "3 98 alpha")
    # As pyenv's names on the PATH do for a version that is not chosen.
    python(tmp_path / "bin", "python3.99", "no such command >&2; exit 127")
    assert said("newest", **bare) == ""
    python(tmp_path / "bin", "python3.40", "3 40 final")
    assert said("newest", **bare) == f"{tmp_path}/bin/python3.40\n"
    python(tmp_path / ".pyenv/versions/3.41.2/bin", "python3.41", "3 41 final")
    assert said("newest", **bare) == f"{tmp_path}/.pyenv/versions/3.41.2/bin/python3.41\n"
    python(tmp_path / ".local/share/uv/python/cpython-3.42.0/bin", "python3.42", "3 42 final")
    assert "cpython-3.42.0" in said("newest", **bare)
