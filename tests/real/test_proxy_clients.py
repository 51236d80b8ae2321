"""The official clients against a `serve` process: each operation, in each way of calling it.

`clients/openai_calls.py` is a table of the Python client's calls, blocking and async, loose and
strict, plain, raw and streaming, with signed ids of videos that they made. That client's own tests,
with their fixed ids, run in `test_proxy_openai_suite.py`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from real_clients import CLIP, PROGRAMS, installed, needed, node_with, outcome
from serving_parts import Serve, serving
from shared_parts import KEYS, fleet

from router.testing import StandIn

pytestmark = pytest.mark.real

KEY = "pk-web"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def provider() -> Iterator[StandIn]:
    with StandIn(accounts=KEYS, seed=7) as provider:
        yield provider


@pytest.fixture(scope="module")
def served(provider: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Three accounts; two groups, one of which has the name that the client's tests ask for."""
    data = fleet(provider.base_url, "east", "west", "north")
    for deployment in data["deployments"]:
        deployment["model_name"] = ["sora-2", "string"]
        deployment["model"] = "sora-2"
    data["settings"] = {"id_secrets": ["a-secret-for-signing-ids"], "default_model": "sora-2"}
    data["proxy"] = {"keys": [{"name": "web", "key": KEY}]}
    with serving(tmp_path_factory.mktemp("serve"), data) as served:
        yield served
        # The log may speak of changes of state, and never of a call.
        assert [line for line in served.log if line["level"] in ("ERROR", "CRITICAL")] == []


def wrong(told: Mapping[str, Any], calls: int) -> dict[str, str]:
    """What of a client's calls went wrong; there are so many at least."""
    found = told["found"]
    assert len(found) >= calls
    return {name: why for name, why in found.items() if why is not None}


@pytest.mark.parametrize(
    ("requirement", "prefix"),
    [("openai>=2.54,<3", "/v1"), ("openai>=3,<4", "")],
    ids=["2.x with /v1", "3.x without"],
)
def test_openai_for_python(served: Serve, tmp_path: Path, requirement: str, prefix: str) -> None:
    python = installed(tmp_path / "venv", requirement)
    program = str(PROGRAMS / "openai_calls.py")
    told = outcome([python, program, served.root + prefix, KEY, str(CLIP)])
    assert wrong(told, 260) == {}
    assert told["version"].split(".")[0] in requirement


def test_openai_for_node(served: Serve, tmp_path: Path) -> None:
    node, folder = needed("node"), node_with(tmp_path, "openai@^6.49.0")
    program = tmp_path / "calls.mjs"
    program.write_text((PROGRAMS / "openai_calls.mjs").read_text("utf-8"), "utf-8")
    in_folder = ["sh", "-c", 'cd "$0" && exec "$@"', folder, node]
    told = outcome([*in_folder, str(program), served.url, KEY, str(CLIP)])
    assert wrong(told, 18) == {}

    readme = (ROOT / "README.md").read_text("utf-8")
    (block,) = re.findall(r"^```js\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    program.write_text(block.replace("http://127.0.0.1:4000/v1", served.url), "utf-8")
    done = subprocess.run(
        [*in_folder, str(program)],
        env={**os.environ, "ROUTER_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith("video_"), done.stderr
    assert (tmp_path / "heron.mp4").read_bytes() == CLIP.read_bytes()


def test_litellms_own_client(served: Serve, tmp_path: Path) -> None:
    python = installed(tmp_path / "venv", "litellm>=1.80")
    told = outcome([python, str(PROGRAMS / "litellm_calls.py"), served.url, KEY, str(CLIP)])
    assert wrong(told, 15) == {}


# curl -------------------------------------------------------------------------------------------


def curl(served: Serve, *words: str) -> str:
    command = [needed("curl"), "--silent", "--show-error", "--fail-with-body", "--noproxy", "*"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_two_commands_of_the_announcement(served: Serve, provider: StandIn) -> None:
    """A video with a character that there is, and an edit of a video, by a configured key."""
    character = served.ask(
        "POST",
        "/v1/videos/characters",
        key=KEY,
        data={"name": "Luna"},
        files={"video": ("luna.mp4", CLIP.read_bytes(), "video/mp4")},
    ).json()["id"]
    headers = ("-H", f"Authorization: Bearer {KEY}", "-H", "Content-Type: application/json")
    wanted = {
        "model": "sora-2",
        "prompt": "Luna crosses a rope bridge",
        "size": "1280x720",
        "seconds": "8",
        "characters": [{"id": character}],
    }
    told = curl(served, f"{served.url}/videos", *headers, "-d", json.dumps(wanted))
    video = json.loads(told)
    assert (video["object"], video["seconds"], video["size"]) == ("video", "8", "1280x720")
    assert served.ask("GET", f"/v1/videos/{video['id']}", key=KEY).json()["status"] == "completed"
    changed = json.dumps({"prompt": "Make it dusk", "video": {"id": video["id"]}})
    to = f"{served.url}/videos/edits"
    edited = json.loads(curl(served, "-X", "POST", to, *headers, "-d", changed))
    assert edited["object"] == "video"
    upload, generated, edit = provider.accepted[-3:]
    # Whoever owns what a call names is asked, and nobody else.
    assert upload.account == generated.account == edit.account
