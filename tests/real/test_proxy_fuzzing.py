"""Whatever the document of the API allows, and what it forbids, sent to a `serve` process.

By schemathesis, in an environment of its own: it brings some thirty packages.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from real_clients import PROGRAMS, installed
from serving_parts import serving
from shared_parts import fleet

from router.testing import StandIn

pytestmark = pytest.mark.real

SEED = "20260924"


class Bounds(NamedTuple):
    """Cases of each operation in each phase, seconds for all of them, and how many there must be
    at least, for a run that tries nothing finds nothing."""

    examples: int
    seconds: int
    fewest: int


# A wrong key is refused before anything is read.
BOUNDS = {"pk-secret-ops": Bounds(12, 35, 40), "pk-wrong": Bounds(3, 10, 10)}
# Its phase `coverage` ends in an error of its own where a field is a file.
PHASES = "examples,fuzzing,stateful"
ID_SECRET = "an-id-secret-of-this-test"
SECRETS = ("sk-secret-east", "sk-secret-west", ID_SECRET, "pk-secret-web", "pk-secret-ops")


@pytest.fixture(scope="module")
def schemathesis(tmp_path_factory: pytest.TempPathFactory) -> str:
    python = installed(tmp_path_factory.mktemp("client") / "venv", "schemathesis>=4.4,<5")
    return str(Path(python).parent / "schemathesis")


@pytest.mark.parametrize("key", BOUNDS)
def test_nothing_breaks_hangs_or_shows_a_secret(
    schemathesis: str, tmp_path: Path, key: str
) -> None:
    with StandIn(accounts={"sk-secret-east": "east", "sk-secret-west": "west"}) as provider:
        data = fleet(provider.base_url)
        for name, account in data["accounts"].items():
            account["api_key"] = f"sk-secret-{name}"
        data["settings"] = {"id_secrets": [ID_SECRET]}
        data["proxy"] = {
            "keys": [
                {"name": "web", "key": "pk-secret-web"},
                {"name": "ops", "key": "pk-secret-ops", "operator": True},
            ],
            "max_body": 2_000_000,
            "body_timeout": 5,
        }
        with serving(tmp_path, data) as served:
            told = fuzzed(schemathesis, tmp_path, served.root, key)
            assert served.ask("GET", "/health/live").is_success
            assert served.logged("proxy-failed") == []
            assert not [line for line in served.log if any(s in str(line) for s in SECRETS)]
            assert served.end() == 0
    assert int(re.findall(r"(\d+) generated", told)[-1]) >= BOUNDS[key].fewest, told


def fuzzed(schemathesis: str, folder: Path, address: str, key: str) -> str:
    """What schemathesis says; it has found nothing."""
    done = subprocess.run(
        [
            schemathesis,
            "run",
            f"{address}/openapi.json",
            *("--url", address, "--header", f"Authorization: Bearer {key}"),
            *("--checks", "nothing_broke,no_secret", "--request-timeout", "20"),
            *("--phases", PHASES, "--mode", "all", "--max-time", str(BOUNDS[key].seconds)),
            *(
                "--max-examples",
                str(BOUNDS[key].examples),
                "--seed",
                SEED,
                "--generation-database",
                "none",
            ),
            *("--suppress-health-check", "all", "--no-color"),
        ],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(PROGRAMS),
            "SCHEMATHESIS_HOOKS": "fuzzing_hooks",
            "FUZZ_SECRETS": " ".join(SECRETS if key == "pk-wrong" else set(SECRETS) - {key}),
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-6000:]
    return said
