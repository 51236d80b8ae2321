"""`video-router serve` as a process of its own, over a stand-in: started, asked, ended."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

import router

PACKAGE = str(Path(router.__file__).parents[1])
PATIENCE = 60.0


def until(so: Callable[[], object]) -> None:
    """Wait until it is so."""
    ends = time.monotonic() + PATIENCE
    while not so():
        assert time.monotonic() < ends, "it does not come about"
        time.sleep(0.05)


class Serve:
    """A running `serve`. `said` is what it told at its start, `log` what it logged so far."""

    def __init__(self, file: Path, *arguments: str, environ: Mapping[str, str] | None = None):
        self.file = file
        words = ("serve", "--config", str(file), "--port", "0", "--json", *arguments)
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "router", *words],
            cwd=file.parent,
            env={**os.environ, "PYTHONPATH": PACKAGE, "NO_COLOR": "1", **(environ or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A job in a shell's background is born deaf to Ctrl-C, and so are its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            process_group=0,
            text=True,
        )
        self._lines: list[str] = []
        assert self.process.stdout is not None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        line = self.process.stdout.readline()
        assert line, self._ended()
        self.said: dict[str, Any] = json.loads(line)
        self.url: str = self.said["serving"]
        self.root = self.url.removesuffix("/v1")
        self.port = httpx.URL(self.url).port

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.append(line)

    def _ended(self) -> str:
        self.process.wait(10)
        self._reader.join(10)
        return "".join(self._lines)

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._lines]

    def logged(self, change: str) -> list[str]:
        return [line["message"] for line in self.log if line.get("change") == change]

    def ask(
        self, method: str, path: str, *, key: str | None = None, **given: Any
    ) -> httpx.Response:
        """One request, on a connection of its own."""
        headers = dict(given.pop("headers", {}))
        if key is not None:
            headers["authorization"] = f"Bearer {key}"
        with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
            return client.request(method, self.root + path, headers=headers, **given)

    def write(self, data: Mapping[str, Any] | str) -> None:
        """Another configuration, whole at once."""
        made = self.file.with_suffix(".new")
        made.write_text(data if isinstance(data, str) else yaml.safe_dump(data))
        made.replace(self.file)

    def tell(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit code, and all of its log is there."""
        if self.process.poll() is None:
            self.tell(number)
        code = self.process.wait(PATIENCE)
        self._reader.join(10)
        return code

    def close(self) -> None:
        try:
            if self.process.poll() is None:
                self.tell(signal.SIGTERM)
                self.process.wait(PATIENCE)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self._reader.join(10)
            for pipe in (self.process.stdout, self.process.stderr):
                assert pipe is not None
                pipe.close()


@contextlib.contextmanager
def serving(folder: Path, data: Mapping[str, Any], *arguments: str, **more: Any) -> Iterator[Serve]:
    """A `serve` of this configuration, for the length of a block."""
    file = folder / "deployments.yaml"
    file.write_text(yaml.safe_dump(dict(data)))
    process = Serve(file, *arguments, **more)
    try:
        yield process
    finally:
        process.close()


class Later:
    """A request in a thread of its own; `answer()` waits for what comes of it."""

    def __init__(self, ask: Callable[[], httpx.Response]) -> None:
        self._found: list[httpx.Response | BaseException] = []
        self._thread = threading.Thread(target=self._run, args=(ask,), daemon=True)
        self._thread.start()

    def _run(self, ask: Callable[[], httpx.Response]) -> None:
        try:
            self._found.append(ask())
        except BaseException as error:  # noqa: BLE001  (it is raised where it is waited for)
            self._found.append(error)

    def answer(self) -> httpx.Response:
        self._thread.join(PATIENCE)
        assert self._found, "there is no answer"
        found = self._found[0]
        if isinstance(found, BaseException):
            raise found
        return found


def resident(pid: int) -> int:
    """The bytes of memory that a process holds."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel does not tell")


def children(pid: int) -> Sequence[int]:
    """The processes that a process started."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
