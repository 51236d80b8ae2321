"""The real server: HTTP as clients speak it, a control API, a clean end, a process of its own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from router.testing import StandIn

KEY = {"authorization": "Bearer sk-east"}


@pytest.fixture
def client(provider: StandIn) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=provider.base_url, headers=KEY, verify=False) as client:
        yield client


def test_one_connection_serves_many_requests(provider: StandIn) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", provider.port)
    for _ in range(3):
        connection.request("POST", "/v1/videos", '{"prompt": "x"}', KEY)
        answer = connection.getresponse()
        assert json.loads(answer.read())["status"] == "queued"
        assert not answer.will_close
    connection.close()


def test_a_body_may_come_in_chunks(client: httpx.Client, provider: StandIn) -> None:
    content = (piece for piece in (b'{"pro', b'mpt": ', b'"x"}'))
    assert client.post("/videos", content=content).status_code == 200
    assert provider.requests[-1].headers["transfer-encoding"] == "chunked"
    assert provider.accepted[-1].prompt == "x"
    assert client.get("/videos").status_code == 200, "nothing of the body is left over"


def test_a_client_that_leaves_in_its_body_leaves_no_trace(
    client: httpx.Client, provider: StandIn, capfd: pytest.CaptureFixture[str]
) -> None:
    def body() -> Iterator[bytes]:
        yield b'{"prompt": '
        raise KeyError("the client's own bug")

    for headers in ({}, {"content-length": "99"}):
        with pytest.raises(KeyError):
            client.post("/videos", content=body(), headers=headers)
    provider.__exit__(None, None, None)  # by now each connection has come to its end
    assert (provider.accepted, provider.requests) == ([], [])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("reset", [False, True])
def test_a_client_may_wait_to_be_told_to_continue(provider: StandIn, reset: bool) -> None:
    if reset:
        provider.fault("reset")
    with socket.create_connection(("127.0.0.1", provider.port)) as connection:
        body = b'{"prompt": "x"}'
        connection.sendall(
            b"POST /v1/videos HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer sk-east\r\n"
            b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
        )
        if reset:
            with pytest.raises(ConnectionResetError):
                connection.recv(100)
            return
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


def test_many_clients_at_once(provider: StandIn) -> None:
    def submit_some() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", provider.port)
        for _ in range(10):
            connection.request("POST", "/v1/videos", '{"prompt": "x"}', KEY)
            connection.getresponse().read()
        connection.close()

    threads = [threading.Thread(target=submit_some) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({submit.native_id for submit in provider.accepted}) == 200


def test_it_ends_cleanly_whatever_its_clients_do() -> None:
    before = set(threading.enumerate())
    with StandIn() as provider:
        provider.fault("delay", seconds=60)
        provider.fault("endless", seconds=0)
        idle = socket.create_connection(("127.0.0.1", provider.port))
        waiting = socket.create_connection(("127.0.0.1", provider.port))
        flooded = socket.create_connection(("127.0.0.1", provider.port))
        for number, connection in enumerate((waiting, flooded), 1):
            connection.sendall(b"GET /v1/videos HTTP/1.1\r\nHost: x\r\n\r\n")
            while len(provider.requests) < number:
                time.sleep(0.001)
        url = provider.base_url
        began = time.monotonic()
    assert time.monotonic() - began < 1
    assert set(threading.enumerate()) == before
    assert idle.recv(1) == waiting.recv(1) == b""
    for connection in (idle, waiting, flooded):
        connection.close()
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, verify=False)


def test_it_listens_only_while_it_is_entered() -> None:
    stand_in = StandIn()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="inside its `with`"):
            _ = stand_in.base_url
        with stand_in as provider:
            assert provider is stand_in
            assert provider.base_url == f"http://127.0.0.1:{provider.port}/v1"
            with pytest.raises(RuntimeError, match="already listening"):
                provider.__enter__()


def test_the_latency_is_added_to_every_answer() -> None:
    with StandIn(latency=0.02) as provider:
        assert (
            httpx.get(f"{provider.base_url}/videos", verify=False).elapsed.total_seconds() >= 0.02
        )


def test_both_doors_lead_to_the_same_provider(client: httpx.Client, provider: StandIn) -> None:
    id = client.post("/videos", json={"prompt": "x"}).json()["id"]
    with httpx.Client(transport=provider.transport, headers=KEY) as inside:
        assert inside.get(f"https://any/v1/videos/{id}").status_code == 200


def test_it_is_steered_from_outside(client: httpx.Client, provider: StandIn) -> None:
    control = provider.base_url.removesuffix("/v1") + "/_stand_in"
    planned = client.post(
        f"{control}/faults",
        json={"kind": "status", "status": 503, "operation": "generation", "times": None},
    )
    fault = {"kind": "status", "operation": "generation", "account": None, "times": None}
    assert planned.json() == {**fault, "hits": 0}
    assert client.post("/videos", json={"prompt": "x"}).status_code == 503
    assert client.get(f"{control}/faults").json() == {"data": [{**fault, "hits": 1}]}
    (request,) = client.get(f"{control}/requests").json()["data"]
    assert (request["operation"], request["status"]) == ("generation", 503)
    assert client.delete(f"{control}/faults").status_code == 204
    assert client.get(f"{control}/faults").json() == {"data": []}
    assert client.get(f"{control}/requests").json() == {"data": [request]}, "and nothing else"
    assert client.delete(control).status_code == 204
    id = client.post("/videos", json={"prompt": "x"}).json()["id"]
    assert client.get(f"{control}/accepted").json() == {
        "data": [
            {
                "operation": "generation",
                "account": "east",
                "native_id": id,
                "prompt": "x",
                "fields": {"prompt": "x"},
            }
        ]
    }
    assert len(provider.requests) == 1, "control is not recorded"
    for wrong in ('{"kind": "statsu"}', "[]", "{", '{"kind": "redirect"}'):
        assert client.post(f"{control}/faults", content=wrong).status_code == 400
    assert client.get(f"{control}/elsewhere").status_code == 404


def test_videos_and_characters_are_put_there_from_outside(
    client: httpx.Client, provider: StandIn
) -> None:
    control = provider.base_url.removesuffix("/v1") + "/_stand_in"
    for path, at in (
        ("videos/video_123", "/videos/video_123"),
        ("characters/char_123", "/videos/characters/char_123"),
    ):
        assert client.get(at).status_code == 404
        assert client.put(f"{control}/{path}?account=west").status_code == 204
        assert client.get(at).status_code == 404, "it is the other account's"
        for _ in range(2):
            assert client.put(f"{control}/{path}?account=east").status_code == 204
        assert client.get(at).json()["id"] == path.partition("/")[2]
        for unclear in (f"{control}/{path}", f"{control}/{path}?account=nord"):
            assert "one of east, west" in client.put(unclear).json()["error"]


SERVE = """
from router.testing.server import serve
serve(
    port=0,
    accounts={"sk-east": "east"},
    job_seconds=0,
    rpm=None,
    max_running_jobs=None,
    latency=0,
    faults=[{"kind": "status", "status": 418}],
    ready=lambda provider: print(provider.base_url, flush=True),
)
print("ended")
"""


def test_a_process_of_its_own_ends_by_signal() -> None:
    command = [sys.executable, "-W", "error", "-c", SERVE]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = subprocess.PIPE
    with ExitStack() as stack:
        # Both at once: most of this is the start of an interpreter.
        for number, process in [
            (
                number,
                stack.enter_context(
                    subprocess.Popen(command, env=environ, stdout=pipe, stderr=pipe, text=True)
                ),
            )
            for number in (signal.SIGTERM, signal.SIGINT)
        ]:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            with httpx.Client(base_url=url, headers=KEY, verify=False) as client:
                assert [client.get("/videos").status_code for _ in range(2)] == [418, 200]
                process.send_signal(number)
                assert process.communicate(timeout=10) == ("ended\n", "")
            assert process.returncode == 0
