"""`check`: all problems with their places, or what there is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_processes import Run

from router.cli import app

GOOD = """\
accounts:
  east: {api_key: sk-very-secret, base_url: "https://east.example/v1"}
deployments:
  - {id: east-1, model_name: [sora-2, films], account: east, weight: 2, order: 3}
  - {id: gen, model_name: gen4, provider: runwayml, base_url: "https://runway.example/v1"}
  - {id: reads, model_name: sora-2, account: east, operations: [status, content]}
"""

BAD = """\
deployments:
  - id: east
    model_name: sora-2
    wieght: 2
    base_url: east.example
"""


@pytest.fixture
def good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "good.yaml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    return "good.yaml"


@pytest.fixture
def bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "bad.yaml").write_text(BAD)
    monkeypatch.chdir(tmp_path)
    return "bad.yaml"


def test_a_wide_terminal_gets_a_table(run: Run, good: str) -> None:
    told = run("check", good, columns=200)
    assert (told.returncode, told.stderr) == (0, "")
    assert "secret" not in told.stdout
    first, _, head, _, east, gen, reads, _, warning = told.stdout.splitlines()
    assert first == "3 deployments in 3 model groups and 2 accounts, strategy lowest-latency"
    assert head.split()[:6] == ["deployment", "groups", "account", "provider", "model", "base_url"]
    facts = "east-1 sora-2, films east openai sora-2 https://east.example/v1 2 3 all 10"
    assert east.split() == facts.split()
    assert "runwayml" in gen
    assert reads.rstrip().endswith("content, status")
    assert warning.startswith("warning good.yaml:5: deployments[1].account: no account is named")


def test_a_narrow_terminal_gets_whole_words_too(
    good: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert app.run(["check", good]) == 0
    told = capsys.readouterr().out
    for words in ("east-1 in sora-2, films", "https://runway.example/v1", "weight 2, order 3"):
        assert words in told
    assert "secret" not in told


def test_json_is_for_programs(
    good: str, bad: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert app.run(["check", good, "--json"]) == 0
    told = capsys.readouterr().out
    assert "secret" not in told
    found = json.loads(told)
    assert (found["ok"], len(found["warnings"])) == (True, 1)
    assert found["deployments"][0]["model_names"] == ["sora-2", "films"]
    assert found["deployments"][2]["operations"] == ["content", "status"]
    assert app.run(["check", bad, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["ok"], len(found["problems"])) == (False, 2)


def test_all_problems_come_at_once_each_in_a_line_with_its_place(run: Run, bad: str) -> None:
    told = run("check", bad, columns=40)
    assert (told.returncode, told.stdout) == (1, "")
    key, url, count = told.stderr.splitlines()
    assert key.startswith("bad.yaml:4: deployments[0].wieght: unknown key")
    assert url.startswith("bad.yaml:5: deployments[0].base_url: must be")
    assert count.startswith("2 problems")


def test_a_missing_file_is_a_problem_like_another(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["check", "nowhere.yaml"]) == 1
    assert capsys.readouterr().err.startswith("nowhere.yaml: there is no such file")
