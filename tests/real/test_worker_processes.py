"""A stand-in as a process of its own, and workers forked from one that has used its router.

This is how gunicorn with `--preload` and Celery's prefork pool start their workers.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from router import Router

pytestmark = pytest.mark.real

ACCOUNTS = ("east", "west", "north")
WORKERS = 4
CALLS = 25


@pytest.fixture
def address() -> Iterator[str]:
    accounts = [f"--account=sk-{name}={name}" for name in ACCOUNTS]
    command = [sys.executable, "-m", "router", "stand-in", "--port", "0", *accounts]
    environ = {**os.environ, "NO_COLOR": "1", "COLUMNS": "200"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+/v1", process.stdout.readline())
            assert found is not None
            yield found[0]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


PROGRAM = textwrap.dedent(
    """
    import asyncio, json, os, sys
    from router import Router

    router = Router.from_dict(json.loads(sys.argv[1]), environ={})
    first = router.video_generation(prompt="before the fork")
    asyncio.run(router.avideo_status(first.id))

    def work(number):
        wrong = 0
        for _ in range(int(sys.argv[3])):
            video = router.video_generation(prompt=f"worker {number}")
            wrong += asyncio.run(router.avideo_status(video.id)).id != video.id
            wrong += router.video_status(first.id).id != first.id
        return wrong

    children = []
    for number in range(int(sys.argv[2])):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = work(number)
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    router.close()
    print(json.dumps(codes))
    """
)


def configured(address: str) -> dict[str, Any]:
    return {
        "accounts": {a: {"api_key": f"sk-{a}", "base_url": address} for a in ACCOUNTS},
        "deployments": [{"id": a, "model_name": "sora-2", "account": a} for a in ACCOUNTS],
    }


def seen(address: str, what: str) -> list[dict[str, Any]]:
    with urllib.request.urlopen(address.replace("/v1", f"/_stand_in/{what}")) as answer:
        data: list[dict[str, Any]] = json.load(answer)["data"]
    return data


def test_forked_workers_pay_once_each_and_find_what_they_made(address: str) -> None:
    arguments = [json.dumps(configured(address)), str(WORKERS), str(CALLS)]
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == [0] * WORKERS
    assert len(seen(address, "accepted")) == 1 + WORKERS * CALLS
    assert {request["status"] for request in seen(address, "requests")} == {200}


def test_forked_workers_draw_on_their_own(address: str) -> None:
    """With the parent's random generator, the children of each run would all choose alike."""
    arguments = [json.dumps(configured(address)), str(WORKERS), "1"]
    unanimous = []
    for run in range(6):
        subprocess.run([sys.executable, "-c", PROGRAM, *arguments], check=True, timeout=60)
        first = run * (1 + WORKERS) + 1
        served = seen(address, "accepted")[first : first + WORKERS]
        unanimous.append(len({submit["account"] for submit in served}) == 1)
    assert not all(unanimous)


def test_a_worker_that_is_killed_leaves_the_others_at_work(address: str) -> None:
    router = Router.from_dict(configured(address), environ={})
    endless = PROGRAM.replace("range(int(sys.argv[3]))", "range(100_000)")
    arguments = [json.dumps(configured(address)), "1", "0"]
    with subprocess.Popen(
        [sys.executable, "-c", endless, *arguments], start_new_session=True
    ) as worker:
        while len(seen(address, "accepted")) < 5:
            assert worker.poll() is None
        os.killpg(worker.pid, signal.SIGKILL)
    with router:
        video = router.video_generation(prompt="after the kill")
        assert asyncio.run(router.avideo_wait(video.id)).done
