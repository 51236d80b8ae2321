"""The Containerfile, as far as it can be checked without building it: what it names is there."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml
from serving_parts import Serve
from shared_parts import fleet

from router.cli import app

ROOT = Path(__file__).parents[2]
FILE = ROOT / "router" / "proxy" / "Containerfile"
INSTRUCTIONS = [
    tuple(line.split(None, 1))
    for line in re.sub(
        r"\\\n", " ", re.sub(r"^#.*\n", "", FILE.read_text(), flags=re.M)
    ).splitlines()
    if line.strip()
]


def given(instruction: str) -> list[str]:
    """The arguments of each instruction of this name."""
    return [argument for name, argument in INSTRUCTIONS if name == instruction]


def variables() -> dict[str, str]:
    return dict(word.split("=", 1) for words in given("ENV") for word in shlex.split(words))


def test_it_installs_the_project_with_extras_that_there_are() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (run,) = given("RUN")
    (extras,) = re.findall(r"pip install --no-cache-dir '\.\[([\w,]+)\]'", run)
    assert set(extras.split(",")) == {"cli", "proxy"}
    assert {"cli", "proxy"} <= declared["project"]["optional-dependencies"].keys()


def test_all_that_the_build_reads_is_copied() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = declared["project"]
    read = {"pyproject.toml", project["readme"], *project["license-files"]}
    read |= set(declared["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    copied = {word for one in given("COPY") if "--from" not in one for word in one.split()[:-1]}
    assert copied == read
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_its_python_is_one_that_is_supported() -> None:
    classified = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    bases = given("FROM")
    assert len({base.split()[0] for base in bases}) == 1
    version = re.search(r"python:(\d\.\d+)-slim", bases[0])
    assert version is not None
    assert f"Programming Language :: Python :: {version[1]}" in classified


def test_it_runs_as_nobody_in_particular() -> None:
    (user,) = given("USER")
    assert all(int(number) >= 1000 for number in user.split(":"))
    names = [name for name, _ in INSTRUCTIONS]
    assert names.index("USER") < names.index("ENTRYPOINT")


def test_its_entry_point_is_the_command_and_without_keys_it_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    (entry,) = map(json.loads, given("ENTRYPOINT"))
    assert entry[0] in scripts
    file = tmp_path / "deployments.yaml"
    file.write_text(yaml.safe_dump(fleet("http://127.0.0.1:9/v1")))
    assert variables()["ROUTER_CONFIG"].endswith("/deployments.yaml")
    monkeypatch.setenv("ROUTER_CONFIG", str(file))
    assert app.run(entry[1:]) == 1
    assert "`video-router keys new` makes one" in capsys.readouterr().err


def test_its_health_check_passes_where_it_serves_and_fails_where_nothing_does(
    tmp_path: Path,
) -> None:
    (check,) = given("HEALTHCHECK")
    words = json.loads(check[check.index("CMD") + len("CMD") :])
    (entry,) = map(json.loads, given("ENTRYPOINT"))
    port = entry[entry.index("--port") + 1]
    assert given("EXPOSE") == [port]
    assert words[:2] == ["python", "-c"]
    code = words[2]
    assert f"127.0.0.1:{port}/" in code
    file = tmp_path / "deployments.yaml"
    file.write_text(yaml.safe_dump(fleet("http://127.0.0.1:9/v1")))
    served = Serve(file)
    try:
        exec(code.replace(f":{port}/", f":{served.port}/"), {})
    finally:
        served.close()
    with pytest.raises(OSError, match="refused"):
        exec(code.replace(f":{port}/", f":{served.port}/"), {})
