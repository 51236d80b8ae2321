"""The Python client's own tests of its videos, as they are published, against a `serve`.

They are written for a mock that makes up an answer to whatever fits the schema, so they name fixed
ids and upload a few bytes for a clip. Here a real `serve` takes the calls, and a stand-in does the
work: one account, since a native id must have one owner; it has those videos and that character
before each test, and looks into no clip. Of the file nothing is changed, and nothing expected to
fail. What is skipped there is skipped by its own `conftest.py`, whatever it runs against: downloads
through aiohttp, which its mock of a transport does not reach.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from real_clients import INSTALL_SECONDS, PATIENCE, PROGRAMS, installed
from serving_parts import Serve, serving
from shared_parts import fleet

from router.testing import StandIn
from router.types import Operation

pytestmark = pytest.mark.real

# Pinned, since the counts are its own. Those of 2.54.0 are the same.
RELEASE = "3.54.0"

FILE = "tests/api_resources/test_videos.py"
KEY = "My API Key"  # which its conftest.py sends
NEEDS = ("pytest>=8.4,<10", "pytest-asyncio>=1.2,<2", "respx>=0.22,<1", "rich>=13.7")
ASSETS = ("videos/video_123", "videos/after", "characters/char_123")
OPERATIONS = {str(operation) for operation in Operation}
SKIPPED = frozenset(
    f"test_{way}_download_content{more}[aiohttp]"
    for way, more in (
        ("method", ""),
        ("method", "_with_all_params"),
        ("raw_response", ""),
        ("streaming_response", ""),
    )
)


@pytest.fixture(scope="module")
def provider() -> Iterator[StandIn]:
    with StandIn(accounts={"sk-east": "east"}, any_clip=True, seed=7) as provider:
        yield provider


@pytest.fixture(scope="module")
def served(provider: StandIn, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    data = fleet(provider.base_url, "east")
    data["proxy"] = {"keys": [{"name": "suite", "key": KEY}]}
    with serving(tmp_path_factory.mktemp("serve"), data) as served:
        yield served
        assert [line for line in served.log if line["level"] in ("ERROR", "CRITICAL")] == []


@dataclass(frozen=True)
class Suite:
    """A release of the client: its sources, and a Python that has it and what its tests need."""

    sources: Path
    python: str


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """The tests come in the source package alone."""
    release, folder = f"openai=={RELEASE}", tmp_path_factory.mktemp("suite")
    python = installed(folder / "venv", f"openai[aiohttp]=={RELEASE}", *NEEDS)
    command = [python, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "openai"]
    done = subprocess.run(
        [*command, "--dest", str(folder), release],
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    (packed,) = folder.glob("openai-*.tar.gz")
    with tarfile.open(packed) as sources:
        sources.extractall(folder, filter="data")
    return Suite(folder / packed.name.removesuffix(".tar.gz"), python)


def test_openais_own_tests_of_its_videos(suite: Suite, served: Serve, provider: StandIn) -> None:
    before = len(provider.requests)
    results = outcomes(suite, served, provider)
    assert Counter(result for _, result in results) == {"passed": 188, "skipped": 4}
    assert {name for name, result in results if result == "skipped"} == SKIPPED
    # All but the downloads, which it mocks; and nothing was refused and then asked anew.
    seen = {(request.operation, request.status) for request in provider.requests[before:]}
    assert seen == {(operation, 200) for operation in OPERATIONS - {"content"}}


def outcomes(suite: Suite, served: Serve, provider: StandIn) -> list[tuple[str, str]]:
    """What became of each test, in its order. One after the other, for they share a video."""
    control = provider.base_url.removesuffix("/v1") + "/_stand_in"
    report = suite.sources / "report.xml"
    one_by_one = ["-o", "addopts=", "-p", "no:cacheprovider", "-p", "kept_assets"]
    command = [suite.python, "-m", "pytest", "-q", "--tb=short", *one_by_one]
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "PYTEST_"))}
    done = subprocess.run(
        [*command, f"--junit-xml={report}", FILE],
        cwd=suite.sources,
        env={
            **kept,
            "PYTHONPATH": str(PROGRAMS),
            "TEST_API_BASE_URL": served.url,
            "KEPT_ASSETS": ",".join(f"{control}/{asset}" for asset in ASSETS),
        },
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    cases = ET.parse(report).iter("testcase")
    return [(case.attrib["name"], _result(case)) for case in cases]


def _result(case: ET.Element) -> str:
    told = [one.tag for one in case if one.tag in ("skipped", "failure", "error")]
    return told[0] if told else "passed"
