"""`stand-in`: a server of its own, ready when it says so, gone when it is told."""

from __future__ import annotations

import re
import signal
import socket

import httpx
import pytest
from cli_processes import PATIENCE, Start, listens

from router.cli import app
from router.cli.stand_in import _fault as fault

ACCOUNTS = {"sk-stand-in": "default"}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_where_it_listens_and_ends_on_a_signal(start: Start, number: int) -> None:
    accounts = ("--account", "sk-east=east", "--account", "sk-west=west")
    refusal = "status=503,operation=generation,times=1,header.Retry-After=7"
    process = start("stand-in", "--port", "0", *accounts, "--rpm", "1", "--fault", refusal)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.fullmatch(
        r"stand-in ready at (http://127\.0\.0\.1:(\d+)/v1) for "
        r"east \(key sk-east\), west \(key sk-west\)\n",
        line,
    )
    assert found, line
    answers = [post(found[1]) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 200, 429]
    assert answers[0].headers["retry-after"] == "7"
    process.send_signal(number)
    rest, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, rest, errors) == (0, "", "")
    assert not listens(int(found[2]))


def post(base_url: str) -> httpx.Response:
    headers = {"authorization": "Bearer sk-east"}
    with httpx.Client(trust_env=False, verify=False) as client:
        return client.post(f"{base_url}/videos", json={"prompt": "x"}, headers=headers)


def test_a_taken_port_is_one_line_and_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert app.run(["stand-in", "--port", str(port)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"cannot listen on 127.0.0.1:{port}" in line
    assert line.endswith("; name another --port (0 takes a free one), or end what listens there")


def test_a_host_that_is_not_here_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["stand-in", "--host", "192.0.2.1", "--port", "0"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("; name another with --host")


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("reset", {"kind": "reset"}),
        ("status=503", {"kind": "status", "status": 503}),
        ("delay=2.5,account=default", {"kind": "delay", "seconds": 2.5, "account": "default"}),
        ("reset,after=true,times=forever", {"kind": "reset", "after": True, "times": None}),
        ("job_fails=no_luck", {"kind": "job_fails", "code": "no_luck"}),
        (
            "status=429,times=2,header.Retry-After=2",
            {"kind": "status", "status": 429, "times": 2, "headers": {"Retry-After": "2"}},
        ),
    ],
)
def test_a_fault_is_written_as_a_list_of_words(text: str, wish: dict[str, object]) -> None:
    assert fault(text, ACCOUNTS) == wish


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("explode", "unknown kind 'explode'"),
        ("status=503,operation=generate", "unknown operation 'generate'"),
        ("reset,account=east", "unknown account 'east'"),
        ("reset,seconds=1", "unknown detail of 'reset'"),
        ("status=teapot", "status cannot be 'teapot'"),
        ("reset,times=0", "times is a whole number"),
        ("reset,after", "'after' is not KEY=VALUE"),
    ],
)
def test_a_fault_that_could_never_strike_is_refused(text: str, said: str) -> None:
    with pytest.raises(Exception, match=re.escape(said)):
        fault(text, ACCOUNTS)
