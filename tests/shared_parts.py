"""What the tests share by name: both doors into a router, a fake clock, small fleets."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from router import Router
from router.testing import StandIn

KEYS = {"sk-east": "east", "sk-west": "west", "sk-north": "north"}


class Told(NamedTuple):
    """What a process tells of the timelines that it played."""

    timelines: int = 0
    summary: str = ""
    story: str = ""


TOLD = pytest.StashKey[Told]()


class Doors:
    """Calls a router's operation by its blocking name, through one of the two doors."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._runner = asyncio.Runner() if name == "async" else None

    def __repr__(self) -> str:
        return self.name

    def __call__(self, router: Router, method: str, *args: Any, **kwargs: Any) -> Any:
        if self._runner is None:
            return getattr(router, method)(*args, **kwargs)
        return self._runner.run(getattr(router, f"a{method}")(*args, **kwargs))

    def close(self, router: Router) -> None:
        if self._runner is None:
            router.close()
        else:
            self._runner.run(router.aclose())

    def end(self) -> None:
        if self._runner is not None:
            self._runner.close()


def machines_own(command: str) -> str | None:
    """A command of this machine's, if it has it; wheels put others of the name beside Python."""
    beside = Path(sys.executable).parent
    places = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return shutil.which(command, path=os.pathsep.join(p for p in places if Path(p) != beside))


class FakeClock:
    """Time that passes only by sleeping, or by hand."""

    def __init__(self, unix: float = 1_800_000_000.0) -> None:
        self.passed = 0.0
        self.unix = unix
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.passed

    def time(self) -> float:
        return self.unix + self.passed

    def advance(self, seconds: float) -> None:
        self.passed += seconds

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.passed += seconds

    async def asleep(self, seconds: float) -> None:
        self.sleep(seconds)


DAY = 86_400


def made_older(client: Any, seconds: float) -> None:
    """Let time pass in a Redis, whose clock is its own: all that stands there becomes older."""
    for key in client.keys("{*}:*"):
        name = key.decode().partition("}:")[2].partition(":")[2]
        if client.type(key) == b"zset" and _holds_times(name):
            for member in client.zrange(key, 0, -1):
                client.zincrby(key, -seconds, member)
        if name.startswith("claim:"):
            client.hincrbyfloat(key, "lapses", -seconds)
        if name.startswith("cost:") and seconds >= DAY:
            # Money stands under its day, of which only whole ones pass here.
            key, day = b":".join([key.rpartition(b":")[0], b"%d"]), int(name.rpartition(":")[2])
            client.rename(key % day, key % (day - seconds // DAY))
            key %= day - seconds // DAY
        left = client.pttl(key)
        if 0 <= left <= seconds * 1000:
            client.delete(key)
        elif left > 0:
            client.pexpire(key, int(left - seconds * 1000))


def _holds_times(name: str) -> bool:
    """Whether the scores are times, and not numbers of a sequence."""
    limits = ("jobs:", "requests:", "rpm:", "read_rpm:", "told:")
    named = name in ("seen", "workers", "expiries")
    return named or name.startswith(limits) or name.endswith(":asked")


def fleet(base_url: str, *accounts: str, **deployment: Any) -> dict[str, Any]:
    """A configuration with one deployment, `<account>-1`, in group sora-2 for each account."""
    names = accounts or ("east", "west")
    return {
        "accounts": {a: {"api_key": f"sk-{a}", "base_url": base_url} for a in names},
        "deployments": [
            {"id": f"{a}-1", "model_name": "sora-2", "account": a, **deployment} for a in names
        ],
    }


def in_process(provider: StandIn, data: Mapping[str, Any] | None = None, **parts: Any) -> Router:
    """A router whose both doors lead to `provider` without a socket."""
    data = data if data is not None else fleet("http://stand-in/v1")
    return Router.from_dict(
        data,
        environ={},
        http_client=provider.transport,
        async_http_client=provider.transport,
        **parts,
    )
