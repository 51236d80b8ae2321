"""A fleet to look at: a real Redis, a stand-in server, a configuration, workers in this process."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import yaml
from shared_parts import machines_own

from router import Router
from router.cli import app
from router.events import OnEvent
from router.testing import StandIn

__all__ = ["EAST", "KEYS", "Fleet", "serving_redis"]

KEYS = {"sk-secret-east": "east", "sk-secret-west": "west"}
SECRETS = ("sk-secret", "redis-secret", "secret prompt")
EAST = {"id": "east-1", "model_name": "sora-2", "account": "east"}
WEST = {"id": "west-1", "model_name": "sora-2", "account": "west"}


@contextmanager
def serving_redis(folder: Path) -> Iterator[int]:
    """The port of a Redis of our own, that writes nothing to disk."""
    binary = machines_own("redis-server")
    if binary is None:
        pytest.skip("there is no redis-server on the PATH")
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    told = [binary, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    process = subprocess.Popen(told, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with redis.Redis(port=port) as client:
            ends = time.monotonic() + 10
            while not _answers(client):
                assert time.monotonic() < ends, "Redis does not start"
                time.sleep(0.01)
        yield port
    finally:
        process.kill()
        process.wait()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


class Fleet:
    """`configure` writes deployments.yaml; `worker` is one that serves by it; `tell` a command."""

    def __init__(
        self, port: int, namespace: str, provider: StandIn, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.port, self.namespace, self.provider = port, namespace, provider
        self.redis = redis.Redis(port=port)
        self.warned = ""
        self._capsys = capsys
        self._leaving = ExitStack()
        self._leaving.callback(self.redis.close)
        self.configure()

    def configure(
        self,
        *deployments: Mapping[str, Any],
        accounts: Mapping[str, Mapping[str, Any]] | None = None,
        **settings: Any,
    ) -> None:
        url = f"redis://user:redis-secret@127.0.0.1:{self.port}/0"
        shared = {"redis_url": url.replace("user:redis-secret@", ""), "namespace": self.namespace}
        named = {
            name: {"api_key": key, "base_url": self.provider.base_url} for key, name in KEYS.items()
        }
        for name, more in (accounts or {}).items():
            named[name] = {**named.get(name, {}), **more}
        data = {
            "settings": {key: v for key, v in {**shared, **settings}.items() if v is not None},
            "accounts": named,
            "deployments": [dict(d) for d in deployments or (EAST, WEST)],
        }
        Path("deployments.yaml").write_text(yaml.safe_dump(data))

    def worker(self, on_event: OnEvent | None = None) -> Router:
        made = Router.from_yaml("deployments.yaml", on_event=on_event)
        return self._leaving.enter_context(made)

    def tell(self, *arguments: str, code: int = 0) -> str:
        """What a command prints on stdout, or on stderr where it ends with another code."""
        self._capsys.readouterr()
        assert app.run(list(arguments)) == code, self._capsys.readouterr()
        told = self._capsys.readouterr()
        said, self.warned = told.out + told.err, told.err
        assert not any(secret in said for secret in SECRETS)
        assert "Traceback" not in said
        if code == 0:
            assert "\x1b" not in told.out
            return told.out
        return said

    def end(self) -> None:
        self._leaving.close()


def rows(told: str, head: str) -> dict[str, Sequence[str]]:
    """The rows of the table with this first column, by what stands there."""
    lines = iter(told.splitlines())
    names: Sequence[str] = next(line for line in lines if line.startswith(head)).split()
    next(lines)
    found: dict[str, Sequence[str]] = {}
    for line in lines:
        if not line.strip():
            break
        found[line.split()[0]] = line.split()
    return {"": names, **found}
