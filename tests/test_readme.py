"""The README is true: its programs run, its YAML loads. Its test command is CI's: test_ci."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import router.sdk
from router import Router
from router.cli.app import app
from router.errors import AmbiguousSubmitError, AuthenticationError
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


def test_a_lost_answer_is_looked_for_and_found(folder: Path) -> None:
    names: dict[str, Any] = {}
    exec(program("def make("), names)
    with StandIn(accounts={"sk-east": "east"}) as provider:
        account = {"base_url": provider.base_url, "api_key": "sk-east"}
        one = {"id": "east", "model_name": "sora-2", "account": "east"}
        with Router(deployments=[one], accounts={"east": account}, environ={}) as working:
            provider.fault("reset", after=True)
            made = names["make"](working, "A heron lands")
            assert working.video_status(made).done
            assert len(provider.accepted) == 1


def test_a_task_that_is_delivered_twice_is_one_video(folder: Path) -> None:
    names: dict[str, Any] = {}
    exec(program("def make_video("), names)
    with Router.from_yaml("deployments.yaml") as working:
        made = {names["make_video"](working, "task-7", "A heron lands") for _ in range(3)}
        assert len(made) == 1


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


def test_the_metrics_are_scraped(folder: Path) -> None:
    # In a process of its own: the client's own registry and the port are for good.
    assert "start_http_server(9464)" in program("start_http_server")
    program_here = program("start_http_server").replace(
        "start_http_server(9464)", 'server, _ = start_http_server(0, addr="127.0.0.1")'
    )
    scrape = """
import urllib.request
with router:
    router.video_generation(prompt="A heron lands", model="sora-2")
print(urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/").read().decode())
"""
    done = subprocess.run(
        [sys.executable, "-c", program_here + scrape],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    counted = re.findall(r"^video_router_attempts_total\{(.*)\} 1.0$", done.stdout, re.MULTILINE)
    (labels,) = counted
    assert 'operation="generation"' in labels
    assert 'result="success"' in labels
    assert "video_router_ejected_until_timestamp_seconds" in done.stdout


def test_the_hook_that_does_more_wakes_somebody(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[str, Any] = {}
    monkeypatch.setenv("EAST_KEY", "sk-revoked")
    exec(program("wake somebody"), names)
    with names["router"] as working, pytest.raises(AuthenticationError):
        working.video_generation(prompt="A heron lands", model="sora-2", account="east")
    assert capsys.readouterr().out == "wake somebody: east refuses its key or its bill\n"


def test_every_python_block_is_run_here() -> None:
    assert len(blocks("python")) == 7


def test_the_yaml_loads() -> None:
    for block in blocks("yaml"):
        keys, data = {"ACME_KEY": "sk-1", "BETA_KEY": "sk-2"}, yaml.safe_load(block)
        with Router.from_dict(data, environ=keys) as loaded:
            ours = data.get("deployments") or [data["model_list"][0]["model_info"]]
            assert set(loaded.statistics()) == {written["id"] for written in ours}


def test_the_on_call_page_names_every_command_and_no_other() -> None:
    known = {command.name for command in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    table = README.partition("By symptom:")[2].partition("\n## ")[0]
    named = {name for name in re.findall(r"`([a-z]+)\b[^`]*`", table) if name in known}
    assert named == {"status", "jobs", "doctor", "drain", "restore", "release"}
    assert set(re.findall(r"video-router ([a-z][a-z-]*)", README)) <= known


def test_the_operation_table_names_methods_that_exist() -> None:
    named = set(re.findall(r"\b(video_\w+)\(", README))
    assert named >= {"video_wait", "video_content", "video_list"}
    for name in named:
        assert callable(getattr(Router, name))
        assert callable(getattr(Router, f"a{name}"))
