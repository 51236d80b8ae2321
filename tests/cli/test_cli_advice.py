"""What the router advises comes on stderr as the command's own lines, once, before it is sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from router.cli import app
from router.testing import StandIn

TOO_LONG = Path(__file__).parent.parent / "routing" / "clips" / "toolong_10s_320x240.mp4"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


@pytest.mark.parametrize("copies", ["1", "all"])
def test_of_a_clip_for_a_character(
    folder: Path, capsys: pytest.CaptureFixture[str], copies: str
) -> None:
    with StandIn(accounts={"sk-east": "east", "sk-west": "west"}) as provider:
        own = {a: {"api_key": f"sk-{a}", "base_url": provider.base_url} for a in ("east", "west")}
        named = [{"id": a, "model_name": "sora-2", "account": a} for a in own]
        (folder / "deployments.yaml").write_text(
            yaml.safe_dump({"accounts": own, "deployments": named})
        )
        asked = ["character", "Luna", str(TOO_LONG), "--replicate", copies]
        assert app.run(asked) == 0
        said = capsys.readouterr()
        assert said.out.startswith("character_")
        lines = said.err.splitlines()
        assert [line.startswith("warning the clip is ") for line in lines] == [True] * 3 + [False]
        assert ".py" not in said.err
        assert app.run([*asked, "--json"]) == 0
        said = capsys.readouterr()
        told = json.loads(said.out)["routing"]["warnings"]
        assert [f"warning {line}" for line in told] == said.err.splitlines()
