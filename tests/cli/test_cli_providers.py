"""`providers` and `check`: what each provider can do, as the README has it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cli_processes import Run

from router.cli import app
from router.providers import OPTIONAL, PROVIDERS

README = Path(__file__).parents[2] / "README.md"
TABLE = re.compile(
    r"<!-- video-router providers --markdown -->\n(.*)<!-- /video-router providers -->", re.DOTALL
)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert app.run(["providers", *arguments]) == 0
    return capsys.readouterr().out


def test_the_readme_has_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    (table,) = TABLE.findall(README.read_text(encoding="utf-8"))
    wanted = printed(capsys, "--markdown")
    assert table == wanted, "between these comments stands what the command prints"


def test_the_table_has_every_provider_operation_and_argument(
    capsys: pytest.CaptureFixture[str],
) -> None:
    head, _, *rows = printed(capsys, "--markdown").splitlines()
    assert set(re.findall(r"`([^`]+)`", head)) == PROVIDERS.keys()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert {len(row) for row in cells} == {head.count("|") - 1}
    wanted = [
        name
        for operation, optional in OPTIONAL.items()
        for name in (f"`{operation}`", *(f"· {one}" for one in sorted(optional)))
    ]
    assert [row[0] for row in cells] == wanted


def test_json_is_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(printed(capsys, "--json"))
    assert told.keys() == PROVIDERS.keys()
    assert told["runwayml"] == {
        "generation": ["input_reference", "seconds", "size"],
        "status": [],
        "content": [],
        "delete": [],
    }
    assert len(told["openai"]) == 10


@pytest.mark.parametrize("columns", ["60", "250"])
def test_people_get_a_table_or_a_line_for_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    told = printed(capsys)
    assert all(name in told for name in PROVIDERS)
    if columns == "60":
        assert "openai, azure: all 10" in told
        assert "delete, generation (no characters), status" in told
    else:
        assert "· input_reference" in told


def test_check_says_of_each_deployment_what_it_can_do(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "all.yaml"
    lines = [
        f"  - {{id: at-{name}, model_name: hero-video, account: {name}, provider: {name}, "
        f'base_url: "https://{name}.example/v1", api_key: sk-{name}, '
        # A name like any other, but for fal, where it says what there is.
        'model: "fal-ai/sora-2/text-to-video"}'
        for name in PROVIDERS
    ]
    file.write_text("deployments:\n" + "\n".join(lines) + "\n")
    told = run("check", str(file), columns=60)
    assert told.returncode == 0, told.stderr
    shown = dict(re.findall(r"account (\S+), .*?operations: ([^\n]+)", told.stdout, re.DOTALL))
    assert shown.keys() == PROVIDERS.keys()
    assert shown["openai"] == "all 10"
    assert shown["openrouter"] == "content (no variant), generation (no characters), status"
    found = json.loads(run("check", str(file), "--json").stdout)["deployments"]
    every = json.loads(run("providers", "--json").stdout)
    assert {one["provider"]: one["parameters"] for one in found} == every
