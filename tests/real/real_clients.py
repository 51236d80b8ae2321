"""Foreign clients in environments of their own, and what each calls a `serve` with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = Path(__file__).parent / "clients"
CLIP = Path(__file__).parents[2] / "router" / "testing" / "clip.mp4"
INSTALL_SECONDS = 900
PATIENCE = 300


def installed(folder: Path, *requirements: str) -> str:
    """A Python with these, and nothing else."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
    python = str(folder / "bin" / "python")
    command = [python, "-m", "pip", "install", "--quiet", *requirements]
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    assert done.returncode == 0, done.stderr
    return python


def node_with(folder: Path, *packages: str) -> str:
    """A folder in which Node finds these packages."""
    npm = needed("npm")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", *packages]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS
    )
    assert done.returncode == 0, done.stderr
    return str(folder)


def needed(command: str) -> str:
    """A command of this machine; where it is missing the test is skipped, which CI takes amiss."""
    found = shutil.which(command)
    if found is None:
        pytest.skip(f"there is no {command} on the PATH")
    return found


def outcome(command: Sequence[str], **environ: str) -> dict[str, Any]:
    """What a program tells on stdout in its last line, as JSON."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("OPENAI_", "LITELLM_"))}
    done = subprocess.run(
        list(command),
        env={**kept, **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told
