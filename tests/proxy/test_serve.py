"""`serve`: what it says, how it ends, how it takes another configuration into force."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from serving_parts import PACKAGE, PATIENCE, Later, Serve, children, serving, until
from shared_parts import fleet

from router.cli import app
from router.proxy.serving import File
from router.testing import StandIn

SECRET = "a-secret-for-signing-ids"
KEYS = [{"name": "web", "key": "pk-web"}, {"name": "batch", "key": "pk-batch"}]
ACCOUNTS = {"sk-east": "east", "sk-west": "west"}


@pytest.fixture
def provider() -> Iterator[StandIn]:
    with StandIn(accounts=ACCOUNTS, seed=7) as provider:
        yield provider


def keyed(provider: StandIn, *, signed: bool = True, **proxy: Any) -> dict[str, Any]:
    settings = {"id_secrets": [SECRET]} if signed else {}
    return {
        **fleet(provider.base_url),
        "settings": settings,
        "proxy": {"keys": KEYS, **proxy},
    }


def make(served: Serve, key: str | None = None, prompt: str = "A heron lands") -> httpx.Response:
    return served.ask("POST", "/v1/videos", key=key, json={"prompt": prompt})


def holds_its_answer(provider: StandIn, seconds: float) -> None:
    provider.fault("delay", operation="generation", seconds=seconds, after=True)


# From its start to its end ----------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_what_it_serves_and_ends_on_a_signal(
    provider: StandIn, tmp_path: Path, number: int
) -> None:
    with serving(tmp_path, keyed(provider)) as served:
        assert served.said["groups"] == ["sora-2"]
        assert served.said["keys"] == ["web", "batch"]
        assert (served.said["deployments"], served.said["warnings"]) == (2, [])
        assert served.ask("GET", "/health/ready").json() == {"status": "ready"}
        answer = make(served, "pk-web", "a secret prompt")
        assert answer.status_code == 200
        assert served.ask("GET", f"/v1/videos/{answer.json()['id']}", key="pk-web").is_success
        assert served.ask("GET", "/v1/models", key="pk-wrong").status_code == 401
        assert served.end(number) == 0
        # No line for a call, whose id or prompt somebody might read.
        assert served.log == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", served.port)).close()


def test_what_is_under_way_ends_before_the_process_does(provider: StandIn, tmp_path: Path) -> None:
    holds_its_answer(provider, 2.0)
    sent = [b"--x\r\ncontent-disposition: form-data; name=prompt\r\n\r\nA heron", b"\r\n--x--\r\n"]
    begun, let_go = threading.Event(), threading.Event()
    with serving(tmp_path, keyed(provider)) as served:

        def upload() -> Iterator[bytes]:
            yield sent[0]
            begun.set()
            assert let_go.wait(PATIENCE)
            yield sent[1]

        headers = {"content-type": "multipart/form-data; boundary=x"}
        calls = [
            Later(lambda: make(served, "pk-web")),
            Later(
                lambda: served.ask(
                    "POST", "/v1/videos", key="pk-batch", headers=headers, content=upload()
                )
            ),
        ]
        until(lambda: len(provider.accepted) == 1 and begun.is_set())
        assert served.ask("GET", "/health/ready").status_code == 200
        served.tell(signal.SIGTERM)
        until(lambda: served.ask("GET", "/health/ready").status_code == 503)
        assert served.ask("GET", "/health/ready").json()["reason"] == "stopping"
        refused = make(served, "pk-web")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stopping")
        assert {"retry-after", "x-request-id"} <= refused.headers.keys()
        let_go.set()
        assert [call.answer().status_code for call in calls] == [200, 200]
        assert served.process.wait(20) == 0
    assert len(provider.accepted) == 2
    assert served.logged("stopping") == ["asked to end: 2 under way, for at most 25 s"]
    assert served.logged("cut-off") == []


@pytest.mark.parametrize("again", [False, True], ids=["the grace is over", "the second word"])
def test_who_is_cut_off_hears_that_a_job_may_be_running(
    provider: StandIn, tmp_path: Path, again: bool
) -> None:
    holds_its_answer(provider, 30.0)
    with serving(tmp_path, keyed(provider), "--grace", "60" if again else "0.2") as served:
        call = Later(lambda: make(served, "pk-web"))
        until(lambda: len(provider.accepted) == 1)
        served.tell(signal.SIGTERM)
        if again:
            until(lambda: served.logged("stopping"))
            served.tell(signal.SIGTERM)
        answer = call.answer()
        assert (answer.status_code, answer.json()["error"]["accepted"]) == (502, "maybe")
        assert answer.headers["x-should-retry"] == "false"
        assert served.end() == 0
    assert served.logged("cut-off") == ["1 cut off at the end"]


# Another configuration --------------------------------------------------------------------------


def lets_in(served: Serve, key: str) -> bool:
    """Whether all that answer let this key in; new connections come to any of them."""
    return all(served.ask("GET", "/v1/models", key=key).is_success for _ in range(12))


def keeps_out(served: Serve, key: str) -> bool:
    asked = (served.ask("GET", "/v1/models", key=key).status_code for _ in range(12))
    return all(status == 401 for status in asked)


def test_a_changed_file_is_in_force_in_all_workers(provider: StandIn, tmp_path: Path) -> None:
    data = keyed(provider)
    with serving(tmp_path, data, "--workers", "2") as served:
        assert len(children(served.process.pid)) == 2
        assert keeps_out(served, "pk-new")
        made = make(served, "pk-web").json()["id"]
        data["proxy"]["keys"] = [
            {"name": "web", "key": "pk-new"},
            {"name": "batch", "key": "pk-batch", "rpm": 1},
        ]
        served.write(data)
        until(lambda: lets_in(served, "pk-new") and keeps_out(served, "pk-web"))
        # The name is the tenant's, whatever its key.
        assert served.ask("GET", f"/v1/videos/{made}", key="pk-new").is_success
        limited = {served.ask("GET", "/v1/models", key="pk-batch").status_code for _ in range(9)}
        assert limited == {200, 429}

        served.write("deployments: [")
        until(lambda: served.logged("not-reloaded"))
        assert lets_in(served, "pk-new")
        (told,) = served.logged("not-reloaded")
        assert told.startswith("the configuration stays as it was: ")
        assert str(served.file) in told
        assert served.end() == 0
    assert len(served.logged("reloaded")) == 1


def test_a_hang_up_takes_the_file_into_force_anew(provider: StandIn, tmp_path: Path) -> None:
    """Also what the file takes from elsewhere: here nothing of it has changed."""
    with serving(tmp_path, keyed(provider)) as served:
        served.tell(signal.SIGHUP)
        until(lambda: served.logged("reloaded"))
        assert lets_in(served, "pk-web")


def test_no_reload_opens_the_door_to_all(provider: StandIn, tmp_path: Path) -> None:
    data = keyed(provider)
    with serving(tmp_path, data, "--host", "0.0.0.0") as served:
        served.root = f"http://127.0.0.1:{served.port}"
        served.write({**data, "proxy": {}})
        until(lambda: served.logged("not-reloaded"))
        assert served.ask("GET", "/v1/models").status_code == 401
        assert "`video-router keys new` makes one" in served.logged("not-reloaded")[0]


def test_what_takes_a_new_process_is_told(provider: StandIn, tmp_path: Path) -> None:
    data = keyed(provider)
    with serving(tmp_path, data) as served:
        data["settings"]["namespace"] = "another"
        served.write(data)
        until(lambda: served.logged("not-reloaded"))
        (told,) = served.logged("not-reloaded")
        assert "until the process is started anew" in told


def test_a_file_has_changed_once_at_each_change(tmp_path: Path) -> None:
    path = tmp_path / "deployments.yaml"
    path.write_text("one")
    file = File(str(path))
    assert not file.changed()
    path.write_text("another")
    assert [file.changed(), file.changed()] == [True, False]
    # Written in the same moment and as long, as editors do: by another file of that name.
    os.utime(path, ns=(1, 1))
    assert file.changed()
    (tmp_path / "new").write_text("another")
    os.utime(tmp_path / "new", ns=(1, 1))
    (tmp_path / "new").replace(path)
    assert file.changed()
    path.unlink()
    assert not file.changed()


# Several workers --------------------------------------------------------------------------------


def test_a_worker_that_dies_is_replaced_and_figures_are_of_all(
    provider: StandIn, tmp_path: Path
) -> None:
    with serving(tmp_path, keyed(provider, open_metrics=True), "--workers", "2") as served:
        assert "2 workers share nothing" in served.said["warnings"][0]
        for _ in range(6):
            assert make(served, "pk-web").is_success
        text = served.ask("GET", "/metrics").text
        lines = [one for one in text.splitlines() if one.startswith("video_router_attempts_total{")]
        assert sum(float(one.rpartition(" ")[2]) for one in lines) == 6
        before = set(children(served.process.pid))
        os.kill(min(before), signal.SIGKILL)
        until(lambda: len(set(children(served.process.pid)) - before) == 1)
        until(lambda: served.logged("worker-ended"))
        assert "another takes its place" in served.logged("worker-ended")[0]
        assert all(make(served, "pk-web").is_success for _ in range(4))
        assert served.end(signal.SIGINT) == 0


def test_workers_end_with_their_supervisor_however_it_ends(
    provider: StandIn, tmp_path: Path
) -> None:
    with serving(tmp_path, keyed(provider), "--workers", "2") as served:
        workers = children(served.process.pid)
        served.tell(signal.SIGKILL)
        served.process.wait(10)
        until(lambda: not any(is_running(pid) for pid in workers))


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


# What is refused, and what is warned of ---------------------------------------------------------


def refused(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    assert app.run(["serve", *arguments]) == code
    told = capsys.readouterr()
    (line,) = told.err.splitlines()
    assert told.out == ""
    return line


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "deployments.yaml"
    path.write_text(yaml.safe_dump(fleet("http://127.0.0.1:9/v1")))
    return str(path)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_without_keys_only_this_machine_is_served(
    file: str, host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, 1, "--config", file, "--host", host)
    assert "add a key (`video-router keys new` makes one), or listen on 127.0.0.1" in line


def test_a_taken_port_is_one_line(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        line = refused(capsys, 1, "--config", file, "--port", port)
    assert line.startswith(f"video-router: cannot listen on 127.0.0.1:{port}: ")
    assert line.endswith("; name another --port (0 takes a free one), or end what listens there")


def test_a_port_that_is_not_for_everybody_is_one_line(
    file: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "create_server", denied)
    line = refused(capsys, 1, "--config", file, "--port", "443")
    assert line.endswith("; name a --port above 1023 (0 takes a free one)")


def test_a_host_that_is_not_here_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = {**fleet("http://127.0.0.1:9/v1"), "proxy": {"keys": KEYS}}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(data))
    line = refused(capsys, 1, "--config", str(tmp_path / "x.yaml"), "--host", "192.0.2.1")
    assert line.endswith("; name another with --host")


def test_a_bad_configuration_is_one_line(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(file).write_text("deployments: []\nproxy: {keys: [{name: web}]}")
    assert "deployments.yaml" in refused(capsys, 1, "--config", file)


WITHOUT = """
import runpy, sys
sys.modules[{missing!r}] = None
sys.argv = ["video-router", "serve"]
runpy.run_module("router", run_name="__main__")
"""


@pytest.mark.parametrize("missing", ["starlette", "httptools"])
def test_without_the_extra_one_line_says_how_to_get_it(file: str, missing: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(missing=missing)],
        cwd=Path(file).parent,
        env={**os.environ, "PYTHONPATH": PACKAGE, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    said = f"serve needs an extra ({missing}): pip install 'video-router[proxy]'"
    assert ended.stderr == f"video-router: {said}\n"


def test_keys_without_secrets_are_warned_of(provider: StandIn, tmp_path: Path) -> None:
    with serving(tmp_path, keyed(provider, signed=False)) as served:
        (warning,) = served.said["warnings"]
        assert warning.startswith("keys share all ids: without settings.id_secrets")
        made = make(served, "pk-web").json()["id"]
        assert served.ask("GET", f"/v1/videos/{made}", key="pk-batch").is_success
