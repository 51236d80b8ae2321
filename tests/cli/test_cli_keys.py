"""`keys`: a new one, and what an existing one is known by."""

from __future__ import annotations

import hashlib
import io
import json
import re
from pathlib import Path

import pytest
import yaml
from cli_processes import Run, python

from router import Router
from router.cli import app


def pasted(told: str) -> list[dict[str, str]]:
    """The keys of the YAML lines that a command prints."""
    found: list[dict[str, str]] = yaml.safe_load(told[told.index("proxy:") :])["proxy"]["keys"]
    return found


def test_a_new_key_is_shown_once_with_what_to_paste(capsys: pytest.CaptureFixture[str]) -> None:
    keys = set()
    for _ in range(3):
        assert app.run(["keys", "new", "--name", "shop"]) == 0
        told = capsys.readouterr()
        key = told.out.strip()
        assert re.fullmatch(r"vr-[A-Za-z0-9_-]{43}", key)
        assert key not in told.err
        (entry,) = pasted(told.err)
        assert entry == {"name": "shop", "sha256": hashlib.sha256(key.encode()).hexdigest()}
        keys.add(key)
    assert len(keys) == 3


@pytest.mark.parametrize("name", ["shop", "the shop", "yes", "12", "a: b", 'say "it"', "söhne"])
def test_what_is_pasted_is_a_configuration(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["keys", "new", "--name", name]) == 0
    data = {
        "deployments": [{"id": "e", "model_name": "m", "base_url": "http://e/v1", "api_key": "k"}],
        "proxy": {"keys": pasted(capsys.readouterr().err)},
    }
    with Router.from_dict(data, environ={}) as router:
        assert [key.name for key in router.config.proxy.keys] == [name]


def test_json_has_the_key_and_its_digest(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["keys", "new", "--name", "shop", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sha256"] == hashlib.sha256(told["key"].encode()).hexdigest()


@pytest.mark.parametrize("given", ["pk-shop", "pk-shop\n", "pk-shop\r\n"])
def test_an_existing_key_is_read_from_stdin(
    given: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    assert app.run(["keys", "hash", "--name", "shop"]) == 0
    told = capsys.readouterr()
    assert told.out.strip() == hashlib.sha256(b"pk-shop").hexdigest()
    assert pasted(told.err) == [{"name": "shop", "sha256": told.out.strip()}]
    assert "pk-shop" not in told.out + told.err


@pytest.mark.parametrize("given", ["", "\n", "pk-shop\npk-studio\n", "pk shop", "pk-söhne"])
def test_what_is_no_key_is_refused(
    given: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    assert app.run(["keys", "hash"]) == 1
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert line.endswith("a key is one line of ASCII without spaces, on stdin")


def test_a_key_is_never_an_argument(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["keys", "hash", "pk-shop"]) == 2
    assert capsys.readouterr().out == ""


def test_keys_alone_is_answered_with_its_help(run: Run) -> None:
    told = run("keys")
    assert told.returncode == 2
    assert " new " in told.stdout
    assert " hash " in told.stdout


def test_a_key_of_bytes_that_are_no_text_is_refused(tmp_path: Path) -> None:
    code = (
        "import io, sys; from router.cli import app; "
        "sys.stdin = io.TextIOWrapper(io.BytesIO(b'pk-\\xff')); sys.exit(app.run(['keys', 'hash']))"
    )
    told = python(tmp_path, "-c", code)
    assert told.returncode == 1
    assert "Traceback" not in told.stderr
