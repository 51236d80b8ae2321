"""`convert`: our YAML on stdout, on stderr what was dropped; no key on either."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from cli_processes import Run

from router import Router
from router.cli import app

KEY = "sk-literal-9f8e7d"
THEIRS = f"""\
model_list:
- model_name: sora-2
  litellm_params:
    model: openai/sora-2
    api_base: https://videos.example/v1
    api_key: {KEY}
    tpm: 1000
    extra_headers: {{X-Token: "token-{KEY}"}}
    organization: org-1
- model_name: sora-2
  litellm_params:
    model: azure/sora-2
    api_base: https://user:{KEY}@r.openai.azure.com
    api_key: os.environ/AZURE_KEY
- model_name: gen4
  litellm_params: {{model: runwayml/gen4_turbo, api_key: os.environ/RUNWAY_KEY}}
- model_name: gpt-4o
  litellm_params: {{model: gpt-4o, api_key: os.environ/NOBODY_SETS_THIS}}
environment_variables:
  RUNWAY_KEY: key_{KEY}
  LANGFUSE_KEY: lf_{KEY}
router_settings:
  routing_strategy: simple-shuffle
  redis_url: redis://:{KEY}@redis.internal:6379
  cooldown_time: 30
"""
VARIABLES = {
    "VIDEOS_EXAMPLE_API_KEY": KEY,
    "SORA_2_VIDEOS_EXAMPLE_X_TOKEN": f"token-{KEY}",
    "AZURE_BASE_URL": f"https://user:{KEY}@r.openai.azure.com/openai/v1",
    "REDIS_URL": f"redis://:{KEY}@redis.internal:6379",
    "RUNWAY_KEY": f"key_{KEY}",
    "AZURE_KEY": "azure-key",
}


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "litellm.yaml").write_text(THEIRS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "60")
    return "litellm.yaml"


def test_yaml_and_what_was_dropped_come_apart(run: Run, theirs: str) -> None:
    told = run("convert", theirs, columns=60)
    assert told.returncode == 0
    assert KEY not in told.stdout + told.stderr
    assert yaml.safe_load(told.stdout)["settings"]["strategy"] == "weighted-random"
    assert "# Converted from litellm.yaml by `video-router convert`." in told.stdout
    assert (
        "    api_key: ${VIDEOS_EXAMPLE_API_KEY}"
        " # set it: the value is written out in the original\n"
    ) in told.stdout
    assert (
        "    api_key: ${RUNWAY_KEY} # set it: the original does so under environment_variables\n"
    ) in told.stdout
    assert "    api_key: ${AZURE_KEY}\n" in told.stdout
    assert "OpenAI-Organization: org-1\n" in told.stdout
    *dropped, count, names = told.stderr.splitlines()
    assert dropped == [
        "litellm.yaml:7: model_list[0].litellm_params.tpm: dropped: no counterpart here",
        "litellm.yaml:17: model_list[3]: skipped `gpt-4o`: not a video model",
        "litellm.yaml:21: environment_variables.LANGFUSE_KEY: dropped: nothing that is taken reads "
        "it",
        "litellm.yaml:25: router_settings.cooldown_time: dropped: no counterpart here",
    ]
    assert count == "3 of 4 models converted"
    assert names == (
        "set REDIS_URL, VIDEOS_EXAMPLE_API_KEY, AZURE_BASE_URL, SORA_2_VIDEOS_EXAMPLE_X_TOKEN and "
        "RUNWAY_KEY: their values stand in the file itself"
    )


def test_the_file_that_it_writes_loads_as_the_original_does(
    theirs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert app.run(["convert", theirs, "--output", "deployments.yaml"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "3 of 4 models converted in deployments.yaml\n" in told.err
    assert KEY not in Path("deployments.yaml").read_text()
    with (
        Router.from_yaml("deployments.yaml", environ=VARIABLES) as ours,
        Router.from_yaml(theirs, environ={"AZURE_KEY": "azure-key"}) as original,
    ):
        mine, its = ours._engine.fleet.config, original._engine.fleet.config
    assert mine.deployments == its.deployments
    assert (mine.settings, mine.accounts) == (its.settings, its.accounts)
    assert mine.warnings == ()


def test_a_file_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["convert", "nofile"]) == 1
    told = capsys.readouterr()
    assert (told.out, told.err) == (
        "",
        "nofile: there is no such file; name LiteLLM's YAML file\n",
    )


def test_no_file_is_overwritten(theirs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["convert", theirs, "-o", theirs]) == 1
    assert capsys.readouterr().err == (
        "video-router: litellm.yaml is there already; name a file that is not\n"
    )
    assert Path(theirs).read_text() == THEIRS


def test_json_is_for_programs(theirs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["convert", theirs, "--json"]) == 0
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert (found["ok"], told.err) == (True, "")
    assert [one["id"] for one in found["config"]["deployments"]] == [
        "sora-2-videos.example",
        "sora-2-azure",
        "gen4-runway",
    ]
    assert found["set"][0] == "REDIS_URL"
    assert len(found["notes"]) == 4
    assert KEY not in told.out


def test_what_is_wrong_is_told_with_its_lines(
    theirs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = THEIRS.replace("simple-shuffle", "usage-based-routing").replace("tpm: 1000", "rpm: -1")
    Path(theirs).write_text(text)
    assert app.run(["convert", theirs, "-o", "new.yaml"]) == 1
    told = capsys.readouterr()
    rpm, strategy, count = told.err.splitlines()
    assert rpm.startswith("litellm.yaml:7: model_list[0].litellm_params.rpm: must be a whole")
    assert strategy.startswith("litellm.yaml:23: router_settings.routing_strategy: `usage-based-")
    assert count.startswith("2 problems")
    assert not Path("new.yaml").exists()
    assert app.run(["convert", theirs, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "deployments: [{id: a, model_name: m, base_url: 'https://h'}]",
            "is not in LiteLLM's form",
        ),
        ("model_list: [", "mine.yaml:1"),
        ("", "is not in LiteLLM's form"),
        ("model_list: [{model_name: a, litellm_params: {model: gpt-4o}}]", "none of its models"),
    ],
)
def test_what_cannot_be_converted(
    text: str, said: str, theirs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.yaml").write_text(text)
    assert app.run(["convert", "mine.yaml"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert said in told.err


def test_one_value_that_is_withheld_is_told_of_alone(
    theirs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = f"{{model: sora-2, api_base: https://v.example, api_key: {KEY}}}"
    Path(theirs).write_text(f"model_list: [{{model_name: sora-2, litellm_params: {entry}}}]\n")
    assert app.run(["convert", theirs]) == 0
    told = capsys.readouterr().err.splitlines()[-1]
    assert told == "set V_EXAMPLE_API_KEY: its value stands in the file itself"


def test_a_default_may_be_a_key(theirs: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = THEIRS.replace("os.environ/AZURE_KEY", f'"${{AZURE_KEY:-{KEY}}}"')
    Path(theirs).write_text(text)
    assert app.run(["convert", theirs]) == 0
    told = capsys.readouterr()
    assert KEY not in told.out + told.err
    assert "${AZURE_API_KEY} # set it" in told.out


def test_models_of_the_living_vendors_need_no_address(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    models = ("openrouter/google/veo-3.1", "gemini/veo-3.1-generate-preview")
    entries = [f"{{model_name: hero, litellm_params: {{model: {name}}}}}" for name in models]
    Path("mine.yaml").write_text(f"model_list: [{', '.join(entries)}]\n")
    assert app.run(["convert", "mine.yaml", "--output", "new.yaml"]) == 0
    monkeypatch.setenv("OPENROUTER_API_KEY", "a")
    monkeypatch.setenv("GEMINI_API_KEY", "b")
    capsys.readouterr()
    assert app.run(["check", "new.yaml", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)["deployments"]
    assert {one["provider"]: (one["model"], one["base_url"]) for one in made} == {
        "openrouter": ("google/veo-3.1", "https://openrouter.ai/api/v1"),
        "gemini": (
            "veo-3.1-generate-preview",
            "https://generativelanguage.googleapis.com/v1beta",
        ),
    }
