"""The README and its pages are true: programs run, YAML loads, commands exist, links lead on.

The README's test command is CI's: test_ci. The programs of two pages have
tests of their own: fastapi-celery.md in test_recipe, characters.md in routing/test_advice.
"""

from __future__ import annotations

import ast
import asyncio
import gc
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import openai
import pytest
import typer
import yaml
from openai.resources.videos import Videos
from serving_parts import serving

import router.sdk
from router import Router, _logs
from router.cli.app import app
from router.errors import AmbiguousSubmitError, AuthenticationError
from router.testing import StandIn

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "router" / "docs"
PAGES = {
    path.name: path.read_text("utf-8") for path in [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
}

# What each program is known by here; the tests that run it name it so.
TEN_LINES = "print(longer.routing.deployment)"
FUNCTIONS = "Make it dusk"
ERRORS = "return router.resume(error).id"
ONE_VIDEO = "def make_video("
APPLICATION_TEST = "def test_a_lost_answer"
METRICS = "start_http_server"
HOOK = "wake somebody"
BEFORE, AFTER = "create_and_poll", "raise SystemExit(error.message) from error"
AS_JSON = "class AsJson"
CHARACTERS = 'simplefilter("error", RouterWarning)'
RECIPE = "def follow("
TENANTS = "shops-heron.mp4"
PROXY_CLIENT = 'stream_to_file("heron.mp4")'
PROGRAMS = [
    *(TEN_LINES, FUNCTIONS, ERRORS, ONE_VIDEO, APPLICATION_TEST, METRICS, HOOK),
    *(BEFORE, AFTER, AS_JSON, CHARACTERS, RECIPE, TENANTS, PROXY_CLIENT),
]


def blocks(language: str) -> list[str]:
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.DOTALL | re.MULTILINE)
    return [block for page in PAGES.values() for block in fence.findall(page)]


def program(mentioning: str) -> str:
    assert mentioning in PROGRAMS
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
    exec(program(TEN_LINES), {})
    assert (folder / "bridge.mp4").read_bytes()[4:8] == b"ftyp"
    assert capsys.readouterr().out.strip() in {"east", "west"}


def test_the_module_functions_edit_a_video(folder: Path) -> None:
    names: dict[str, Any] = {}
    exec(program(FUNCTIONS), names)
    assert asyncio.run(names["main"]()).prompt == "Make it dusk"


def test_the_error_handling_returns_and_explains(folder: Path) -> None:
    names: dict[str, Any] = {}
    exec(program(ERRORS), names)
    with Router.from_yaml("deployments.yaml") as working:
        assert names["make"](working, "A heron lands").startswith("video_")
        with pytest.raises(SystemExit, match="no video") as ended:
            names["make"](_failing(working), "A heron lands")
        assert ended.value.code != 0


def test_a_lost_answer_is_looked_for_and_found(folder: Path) -> None:
    names: dict[str, Any] = {}
    exec(program(ERRORS), names)
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
    exec(program(ONE_VIDEO), names)
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
    exec(program(APPLICATION_TEST), names)
    names["test_a_lost_answer_is_not_sent_again"]()


def test_the_application_test_fails_where_an_answer_is_not_lost() -> None:
    # So that the program in the README shows something.
    source = program(APPLICATION_TEST).replace("== 1", "== 2")
    names: dict[str, Any] = {}
    exec(source, names)
    with pytest.raises(AssertionError):
        names["test_a_lost_answer_is_not_sent_again"]()
    assert AmbiguousSubmitError is names["AmbiguousSubmitError"]


def test_the_metrics_are_scraped(folder: Path) -> None:
    # In a process of its own: the client's own registry and the port are for good.
    assert "start_http_server(9464)" in program(METRICS)
    program_here = program(METRICS).replace(
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
    exec(program(HOOK), names)
    with names["router"] as working, pytest.raises(AuthenticationError):
        working.video_generation(prompt="A heron lands", model="sora-2", account="east")
    assert capsys.readouterr().out == "wake somebody: east refuses its key or its bill\n"


def test_the_same_program_with_the_openai_client_and_with_the_router(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = (folder / "luna.mp4").read_bytes()
    made = []
    for text in (BEFORE, AFTER):
        with StandIn(accounts={"sk-east": "east", "sk-west": "west"}) as provider:
            monkeypatch.setenv("OPENAI_BASE_URL", provider.base_url)
            monkeypatch.setenv("OPENAI_API_KEY", "sk-east")
            (yaml_block,) = [block for block in blocks("yaml") if "OPENAI_API_KEY" in block]
            (folder / "deployments.yaml").write_text(yaml_block)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the client's own, of the API's end
                exec(program(text), {})
                gc.collect()
            made.append([(submit.operation, submit.account) for submit in provider.accepted])
            asked = [seen.fields for seen in provider.requests if seen.operation == "generation"]
            made.append([{**one, "characters": len(one["characters"])} for one in asked])
        assert (folder / "bridge.mp4").read_bytes() == clip
        (folder / "bridge.mp4").unlink()
    assert made[:2] == made[2:]
    assert made[0] == [("create_character", "east"), ("generation", "east")]


def test_the_tables_name_all_that_the_openai_client_has() -> None:
    page = PAGES["from-openai.md"]
    table = page.partition("| `client.videos` |")[2].partition("\n\n")[0]
    has = {name for name in vars(Videos) if not name.startswith("_")}
    has -= {"with_raw_response", "with_streaming_response"}
    left = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    assert set(re.findall(r"`(\w+)\(", "".join(left))) == has

    errors = page.partition("| `openai` raises |")[2].partition("\n## ")[0]
    rows = [row.split("|") for row in errors.splitlines() if row.startswith("| `")]
    theirs = {name for row in rows for name in re.findall(r"`(\w+)`", row[1])}
    assert {name for name in theirs if not hasattr(openai, name)} == set()
    statuses = {cls.__name__ for cls in openai.APIStatusError.__subclasses__()}
    # What comes of deprecations and of signing in elsewhere has no row: no call for a video has it.
    named = {cls for cls in statuses if getattr(openai, cls, None) and cls.endswith("Error")}
    assert named <= theirs
    ours = {name for row in rows for name in re.findall(r"`(\w+Error)`", row[2])}
    assert {name for name in ours if not hasattr(router, name)} == set()


def test_the_log_is_one_line_of_json_with_the_fields_of_the_page(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log = logging.getLogger("router")
    before = (list(log.handlers), log.propagate)
    monkeypatch.setenv("EAST_KEY", "sk-revoked")
    try:
        exec(program(AS_JSON), {})
        with Router.from_yaml("deployments.yaml") as working, pytest.raises(AuthenticationError):
            working.video_generation(prompt="A heron lands", model="sora-2", account="east")
    finally:
        log.handlers[:], log.propagate = before
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    (shown,) = [block for block in blocks("text") if block.startswith('{"level"')]
    alike = {"message": "", "seconds": pytest.approx(300.0, abs=1.0)}
    assert {**told, **alike} == {**json.loads(shown), "message": "", "seconds": told["seconds"]}
    assert told["message"].startswith(json.loads(shown)["message"].rstrip("…"))


def test_tenants_share_a_router_and_no_videos(folder: Path) -> None:
    (written,) = [block for block in blocks("yaml") if "name: studio" in block]
    Path("tenants.yaml").write_text(written, encoding="utf-8")

    exec(program(TENANTS), {})

    assert (folder / "shops-heron.mp4").read_bytes()[4:8] == b"ftyp"


def test_the_proxy_is_called_by_curl_and_by_the_openai_client(folder: Path) -> None:
    data = yaml.safe_load(next(block for block in blocks("yaml") if "body_timeout: 60" in block))
    (curls,) = blocks("sh")
    if shutil.which("curl") is None:
        pytest.skip("there is no curl on the PATH")
    with StandIn(accounts={"sk-1": "acme"}) as provider:
        data["accounts"]["acme"]["base_url"] = provider.base_url
        (folder / "proxy").mkdir()
        with serving(folder / "proxy", data, environ={"ACME_KEY": "sk-1"}) as served:
            source = program(PROXY_CLIENT).replace("http://127.0.0.1:4000/v1", served.url)
            names: dict[str, Any] = {}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the client's own, of the API's end
                exec(source, names)
            names["client"].close()
            assert (folder / "heron.mp4").read_bytes()[4:8] == b"ftyp"
            clip = {"video": (folder / "luna.mp4").read_bytes()}
            made = served.ask(
                "POST", "/v1/videos/characters", key="pk-web", data={"name": "Luna"}, files=clip
            )
            told = {"CHARACTER": made.json()["id"], "VIDEO": names["video"].id}
            script = curls.replace("http://127.0.0.1:4000/v1", served.url)
            done = subprocess.run(
                ["sh", "-ec", script.replace("curl ", "curl -sS --fail-with-body --noproxy '*' ")],
                env={**os.environ, **told, "ROUTER_KEY": "pk-web"},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
        operations = [one.operation for one in provider.accepted]
        assert operations == ["generation", "edit", "create_character", "generation", "edit"]


def test_the_logging_page_lists_the_fields_and_the_words() -> None:
    fields, words = PAGES["logging.md"].split("| `change` | level |")
    listed = re.findall(r"`(\w+)`", "".join(re.findall(r"^(\|[^|]*\|)", fields, re.MULTILINE)))
    assert sorted(listed) == sorted(_logs.FIELDS)
    listed = re.findall(r"^\| `([\w-]+)` \|", words, re.MULTILINE)
    assert sorted(listed) == sorted(get_args(_logs.ChangeWord))


def test_every_line_of_the_log_has_all_fields() -> None:
    logs, bare = 0, []
    for path in sorted((ROOT / "router").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
                continue
            if isinstance(node.func.value, ast.Name) and node.func.value.id == "log":
                logs += 1
                if "extra" not in {keyword.arg for keyword in node.keywords}:
                    bare.append(f"{path.name}:{node.lineno}")
    assert logs > 5
    assert bare == []
    assert tuple(_logs.fields("ejected")) == _logs.FIELDS


def test_every_python_block_is_run_here() -> None:
    for block in blocks("python"):
        assert [text for text in PROGRAMS if text in block], f"nobody runs:\n{block}"
    assert len(blocks("python")) == len(PROGRAMS)


def test_the_yaml_loads() -> None:
    for block in blocks("yaml"):
        keys = {"ACME_KEY": "sk-1", "BETA_KEY": "sk-2", "OPENAI_API_KEY": "sk-3"}
        data = yaml.safe_load(block)
        with Router.from_dict(data, environ=keys) as loaded:
            ours = data.get("deployments") or [data["model_list"][0]["model_info"]]
            assert set(loaded.statistics()) == {written["id"] for written in ours}


def test_the_on_call_page_names_every_command() -> None:
    known = {command.name for command in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    table = PAGES["on-call.md"].partition("By symptom:")[2].partition("\n## ")[0]
    named = {name for name in re.findall(r"`([a-z]+)\b[^`]*`", table) if name in known}
    assert named == {"status", "jobs", "doctor", "drain", "restore", "release"}


# Of other packages; that they are called so is theirs to keep.
PROGRAMS_OF_OTHERS = {
    "python3",
    "pip",
    "pytest",
    "ruff",
    "mypy",
    "uvicorn",
    "celery",
    ".",
    "export",
}


def shell_lines() -> Iterator[str]:
    """What a reader types, each command by itself, also where its output is taken."""
    for block in [*blocks("console"), *blocks("text")]:
        lines = block.splitlines()
        prompted = any(line.startswith("$ ") for line in lines)
        for line in lines:
            if prompted and not line.startswith("$ "):
                continue
            if not prompted and block in blocks("text"):
                continue
            typed = line.removeprefix("$ ").partition(" #")[0]
            typed = re.sub(r"^\w+=\$\((.*)\)$", r"\1", typed.strip())
            yield from typed.split(" && ")


def test_the_shell_blocks_name_commands_and_options_that_exist() -> None:
    ours = typer.main.get_command(app)
    seen = set()
    for line in shell_lines():
        name, *words = shlex.split(line)
        if Path(name).name != "video-router":
            assert name.rpartition("/")[2] in PROGRAMS_OF_OTHERS, line
            continue
        command: Any = ours
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not hasattr(command, "commands"), line
        options = {option for parameter in command.params for option in parameter.opts}
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0] in options, line
        seen.add(command.name)
    assert seen >= {"demo", "generate", "explain", "drain", "convert", "check"}


def test_what_is_called_a_command_of_ours_is_one() -> None:
    known = {command.name for command in app.registered_commands}
    known |= {group.name for group in app.registered_groups}
    for name, page in PAGES.items():
        assert set(re.findall(r"video-router ([a-z][a-z-]*)", page)) <= known, name


def anchors(page: str) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page, flags=re.S | re.M), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    here = ROOT if name == "README.md" else DOCS
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[name]):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        path = (here / file).resolve() if file else here / name
        assert path.is_file(), target
        # The pages are installed without the README.
        assert name == "README.md" or path.parent == DOCS, target
        assert not anchor or anchor in anchors(path.read_text("utf-8")), target


def test_the_readme_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(router/docs/([\w-]+\.md)", PAGES["README.md"]))
    assert linked == set(PAGES) - {"README.md"}


def test_the_operation_table_names_methods_that_exist() -> None:
    named = set(re.findall(r"\b(a?video_\w+)\(", "".join(PAGES.values())))
    assert named >= {"video_wait", "video_content", "video_list"}
    for name in named:
        assert callable(getattr(Router, name))
        assert callable(getattr(Router, name if name.startswith("a") else f"a{name}"))
