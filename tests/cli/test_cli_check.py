"""`check`: all problems with their places, or what there is."""

from __future__ import annotations

import datetime
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
    assert first == "3 deployments in 3 model groups and 2 accounts, strategy lowest-completion"
    assert head.split()[:6] == ["deployment", "groups", "account", "provider", "model", "base_url"]
    facts = "east-1 sora-2, films east openai sora-2 https://east.example/v1 2 3 all 10"
    assert east.split() == facts.split()
    assert "runwayml" in gen
    assert reads.rstrip().endswith("content, status")
    assert warning.startswith("warning good.yaml:5: deployments[1].account: no account is named")


@pytest.mark.parametrize("columns", ["200", "60"])
def test_prices_and_dates_are_shown_where_there_are_any(
    good: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    prices = "{1280x720: 0.1, 1920x1080: 0.25}"
    more = f", order: 3, cost_per_second: {prices}, retires_on: 2099-12-31"
    Path(good).write_text(GOOD.replace(", order: 3", more))
    assert app.run(["check", good]) == 0
    told = capsys.readouterr().out
    for words in ("1280x720: 0.1, 1920x1080: 0.25", "2099-12-31", "cost_per_second", "retires_on"):
        assert words in told


def test_a_narrow_terminal_gets_whole_words_too(
    good: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert app.run(["check", good]) == 0
    told = capsys.readouterr().out
    for words in ("east-1 in sora-2, films", "https://runway.example/v1", "weight 2, order 3"):
        assert words in told
    assert [line for line in told.splitlines() if line != line.rstrip()] == []
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


def test_a_missing_file_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["check", "nowhere.yaml"]) == 1
    assert capsys.readouterr().err == (
        "nowhere.yaml: there is no such file; name another, or write it (see the README)\n"
    )


def test_a_file_that_cannot_be_read_is_one_line(
    good: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(good).write_bytes(b"\xff\xfe")
    assert app.run(["check", good]) == 1
    assert capsys.readouterr().err == "good.yaml: is not UTF-8 text\n"


def test_the_file_is_found_as_other_commands_find_it(
    good: str, bad: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ROUTER_CONFIG", raising=False)
    Path("deployments.yaml").write_text(BAD)
    assert app.run(["check"]) == 1
    assert "deployments.yaml:4: " in capsys.readouterr().err
    monkeypatch.setenv("ROUTER_CONFIG", good)
    assert app.run(["check"]) == 0
    assert "3 deployments" in capsys.readouterr().out
    assert app.run(["check", bad]) == 1


def test_warnings_stand_in_the_order_of_the_file(
    good: str, capsys: pytest.CaptureFixture[str]
) -> None:
    yesterday = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=1)
    dated = GOOD.replace("order: 3", f"retires_on: {yesterday}")
    odd = '- {id: odd, model_name: m, account: easst, base_url: "https://other.example"}'
    Path(good).write_text(f"{dated}  {odd}\n")
    assert app.run(["check", good, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["warnings"]
    assert [told.split(": ")[:2] for told in found] == [
        ["good.yaml:4", "deployments[0].retires_on"],
        ["good.yaml:5", "deployments[1].account"],
        ["good.yaml:7", "deployments[3].account"],
    ]


@pytest.mark.parametrize("beside", [False, True])
def test_what_hides_the_package_is_a_warning(
    good: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    Path("elsewhere").mkdir()
    Path("router.py" if beside else "elsewhere/router.py").write_text("")
    monkeypatch.chdir("elsewhere")
    assert app.run(["check", f"../{good}", "--json"]) == 0
    *_, told = json.loads(capsys.readouterr().out)["warnings"]
    file, folder = ("../router.py", "that") if beside else ("router.py", "this")
    assert told == (
        f"{file}: this file hides the package `router` from programs that are started in "
        f"{folder} folder: rename it"
    )


def test_one_file_that_hides_the_package_is_told_once(
    good: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("router.py").write_text("")
    assert app.run(["check", str(Path(good).resolve()), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["warnings"]
    assert [told.partition(":")[0] for told in found if "hides the" in told] == ["router.py"]


@pytest.mark.parametrize("password", ["pa/ss", "pa#ss", "pa?ss"])
def test_a_password_that_breaks_its_url_is_told_where_it_stands(
    good: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    password: str,
) -> None:
    Path(good).write_text(f'settings:\n  redis_url: "redis://:${{PW}}@localhost:6379"\n{GOOD}')
    monkeypatch.setenv("PW", password)
    assert app.run(["check", good]) == 1
    line, _ = capsys.readouterr().err.splitlines()
    assert line.startswith("good.yaml:2: settings.redis_url: must have what is not plain in its ")
    assert "percent-encoded: `a/b` is `a%2Fb`" in line
    assert password not in line


def test_who_retires_soon_and_who_has_are_warnings_with_their_lines(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    today = datetime.datetime.now(datetime.UTC).date()
    dates = {days: today + datetime.timedelta(days=days) for days in (-400, 10, 400)}
    facts = 'model_name: m, account: a, base_url: "https://h"'
    entries = [f'- {{id: "in{days}", {facts}, retires_on: {on}}}' for days, on in dates.items()]
    Path("dated.yaml").write_text("\n".join(["deployments:", *entries]))

    assert app.run(["check", "dated.yaml"]) == 0
    past, soon = capsys.readouterr().out.splitlines()[-2:]
    assert past == (
        f"warning dated.yaml:2: deployments[0].retires_on: `in-400` retired on {dates[-400]}: "
        "only what it owns is served"
    )
    assert soon.startswith(
        f"warning dated.yaml:3: deployments[1].retires_on: `in10` retires on {dates[10]}, in "
    )

    assert app.run(["check", "dated.yaml", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["warnings"]) == 2
    assert found["deployments"][2]["retires_on"] == str(dates[400])


def test_json_tells_prices_and_fallbacks(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("priced.yaml").write_text(
        "settings: {fallbacks: {pro: plain}}\n"
        "accounts: {a: {base_url: 'https://h'}}\n"
        "deployments:\n"
        "- {id: one, model_name: pro, account: a, cost_per_second: {1280x720: 0.1, 1080P: 0.3}}\n"
        "- {id: two, model_name: plain, account: a, cost_per_second: 0.25}\n"
        "- {id: three, model_name: plain, account: a}\n"
    )

    assert app.run(["check", "priced.yaml", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["fallbacks"] == {"pro": ["plain"]}
    assert [one["cost_per_second"] for one in found["deployments"]] == [
        {"1280x720": 0.1, "1080p": 0.3},
        0.25,
        None,
    ]


def test_of_a_model_it_tells_what_that_can_do_and_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fal.yaml").write_text(
        "deployments:\n"
        "  - {id: other, model_name: veo, provider: fal, model: fal-ai/veo3.1, api_key: k,\n"
        '     base_url: "https://fal.example"}\n'
    )
    assert app.run(["check", str(tmp_path / "fal.yaml")]) == 0
    assert (
        "operations: content, delete, generation (no characters, input_reference, seconds, size), "
        "status\n"
    ) in capsys.readouterr().out
