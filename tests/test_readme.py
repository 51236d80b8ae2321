"""The README is true: its programs run, its commands are those of CI, its YAML loads."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import router.sdk
from router import Router
from router.errors import AmbiguousSubmitError
from router.testing import StandIn

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def program(mentioning: str) -> str:
    (found,) = [block for block in blocks("python") if mentioning in block]
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder as the README's reader has it: a clip, and a deployments.yaml that works."""
    with StandIn(accounts={"sk-east": "east", "sk-west": "west"}) as provider:
        monkeypatch.setenv("EAST_URL", provider.base_url)
        monkeypatch.setenv("WEST_URL", provider.base_url)
        monkeypatch.delenv("ROUTER_CONFIG", raising=False)
        monkeypatch.setattr(router.sdk, "_router", None)
        monkeypatch.chdir(tmp_path)
        clip = ROOT / "router" / "testing" / "clip.mp4"
        (tmp_path / "luna.mp4").write_bytes(clip.read_bytes())
        (tmp_path / "deployments.yaml").write_bytes((ROOT / "deployments.yaml").read_bytes())
        yield tmp_path


def test_the_ten_lines_make_a_video(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(program("rope bridge"), {})
    assert (folder / "bridge.mp4").read_bytes()[4:8] == b"ftyp"
    assert capsys.readouterr().out.strip() in {"east", "west"}


def test_the_module_functions_edit_a_video(folder: Path) -> None:
    names: dict[str, Any] = {}
    exec(program("Make it dusk"), names)
    assert asyncio.run(names["main"]()).prompt == "Make it dusk"


def test_the_error_handling_returns_and_explains(folder: Path) -> None:
    names: dict[str, Any] = {}
    exec(program("def make("), names)
    with Router.from_yaml("deployments.yaml") as working:
        assert names["make"](working, "A heron lands").startswith("video_")
        with pytest.raises(SystemExit, match="no video") as ended:
            names["make"](_failing(working), "A heron lands")
        assert ended.value.code != 0


def _failing(working: Router) -> Any:
    class Failing:
        def video_generation(self, **arguments: Any) -> Any:
            return working.video_generation(**arguments)

        def video_wait(self, video_id: str, **arguments: Any) -> Any:
            working.video_wait(video_id)
            raise router.errors.JobFailedError("blocked", code="moderation_blocked")

    return Failing()


def test_the_application_test_passes() -> None:
    names: dict[str, Any] = {}
    exec(program("def test_a_lost_answer"), names)
    names["test_a_lost_answer_is_not_sent_again"]()


def test_the_application_test_fails_where_an_answer_is_not_lost() -> None:
    # So that the program in the README shows something.
    source = program("def test_a_lost_answer").replace("== 1", "== 2")
    names: dict[str, Any] = {}
    exec(source, names)
    with pytest.raises(AssertionError):
        names["test_a_lost_answer_is_not_sent_again"]()
    assert AmbiguousSubmitError is names["AmbiguousSubmitError"]


def test_every_python_block_is_run_here() -> None:
    assert len(blocks("python")) == 4


def test_the_yaml_loads() -> None:
    for block in blocks("yaml"):
        keys, data = {"ACME_KEY": "sk-1", "BETA_KEY": "sk-2"}, yaml.safe_load(block)
        with Router.from_dict(data, environ=keys) as loaded:
            assert set(loaded.statistics()) == {written["id"] for written in data["deployments"]}


def test_ci_runs_the_readmes_test_command() -> None:
    (command,) = [block for block in blocks("console") if "pytest" in block]
    install = command.strip().split(" && ", 2)[2]
    assert install in (ROOT / ".ci" / "run").read_text()


def test_the_operation_table_names_methods_that_exist() -> None:
    named = set(re.findall(r"\b(video_\w+)\(", README))
    assert named >= {"video_wait", "video_content", "video_list"}
    for name in named:
        assert callable(getattr(Router, name))
        assert callable(getattr(Router, f"a{name}"))
