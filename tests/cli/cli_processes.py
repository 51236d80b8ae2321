"""The commands as their users run them: processes, with what they print and how they end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import router

PACKAGE = str(Path(router.__file__).parents[1])
PATIENCE = 60.0

Finished: TypeAlias = "subprocess.CompletedProcess[str]"
Run: TypeAlias = Callable[..., Finished]
Start: TypeAlias = Callable[..., "subprocess.Popen[str]"]


def environment(columns: int = 80) -> dict[str, str]:
    """No colour, a fixed width, and this very package."""
    kept = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "TTY_COMPATIBLE")}
    return {**kept, "NO_COLOR": "1", "COLUMNS": str(columns), "PYTHONPATH": PACKAGE}


def python(folder: Path, *arguments: str, columns: int = 80) -> Finished:
    """Run Python to its end."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(columns),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def started(folder: Path, arguments: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "router", *arguments],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A job in a shell's background is born deaf to Ctrl-C, and so are its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        text=True,
    )


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def until(so: Callable[[], object]) -> None:
    """Wait until it is so."""
    ends = time.monotonic() + PATIENCE
    while not so():
        assert time.monotonic() < ends, "it does not come about"
        time.sleep(0.05)
