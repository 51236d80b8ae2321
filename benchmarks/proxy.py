"""What the proxy costs on top of a call: `python -m benchmarks.proxy`.

The same request goes to the same upstream (a process that answers at once) in three ways, in turns:
directly, through `video-router serve`, and through `litellm --config`, each a process of its own
with one worker, two deployments and one key. The client is a few lines over a socket, so that it
costs next to nothing and says the same bytes to each.

**Processor time** is a server's own (`clock_gettime` of its process clock), over the calls of a
turn. **Added latency** is the median call's time less the direct one's, in the same round; with 16
at once the time is that of the turn over its calls. **Memory** is what is resident once all of it
was measured. Two requests are made: a video (`POST /v1/videos`, JSON), and the status of one
(`GET /v1/videos/{id}`), by the id that each server gave. Not measured: uploads, downloads, Redis.

The peer is installed into an environment of its own, since it wants other versions of what ours
wants too: into a temporary one, which takes a minute, or once into a folder that `--peer` names.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a file: the packages beside it are found from the folder above
    sys.path[0] = str(ROOT)

from benchmarks.measure import Figure, Report, machine, rounds, table  # noqa: E402
from benchmarks.upstream import Upstream, upstream  # noqa: E402

GROUP = "sora-2"
KEY = "sk-benchmark-of-the-proxy"
PROMPT = "The heron takes off, and the camera follows it over the reeds into the evening light"
PEER = "litellm[proxy]>=1.80"
START_SECONDS = 120.0
END_SECONDS = 15.0

PROCESSOR_RATIO = 0.2
LATENCY_RATIO = 0.2
MEMORY_RATIO = 0.25

AT_ONCE = (1, 16)
KINDS = ("create", "status")


@dataclass(frozen=True)
class Effort:
    """Rounds at most, calls of a turn, and seconds for each section."""

    rounds: int
    calls: int
    section: float


FULL = Effort(30, 64, 40.0)
QUICK = Effort(7, 32, 8.0)


# Servers -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    """A contender: where it listens, and its process; the upstream has none that is measured."""

    name: str
    port: int
    pid: int | None = None

    def processor(self) -> float:
        """Seconds that the process has had of a processor, all its threads together."""
        if self.pid is None:
            return 0.0
        # How Linux names the process clock of another process; see clock_getcpuclockid(3).
        return time.clock_gettime((~self.pid << 3) | 2)

    def megabytes(self) -> float:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        raise OSError("the kernel does not tell what is resident")


@contextlib.contextmanager
def ours(server: Upstream, folder: Path) -> Iterator[Server]:
    """`video-router serve`, ready."""
    deployments = [
        {"id": name, "model_name": GROUP, "base_url": server.base_url, "api_key": f"sk-{name}"}
        for name in ("east", "west")
    ]
    data = {
        "settings": {"id_secrets": ["a-secret-for-signing-ids"]},
        "accounts": {},
        "deployments": deployments,
        "proxy": {"keys": [{"name": "benchmark", "key": KEY}]},
    }
    file = folder / "deployments.yaml"
    file.write_text(json.dumps(data))
    words = ("serve", "--config", str(file), "--port", "0", "--json")
    command = [sys.executable, "-P", "-m", "router", *words]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with process(command, folder / "serve.log", environ) as started:
        assert started.stdout is not None
        line = started.stdout.readline()
        if not line:
            raise SystemExit(f"serve did not start: {(folder / 'serve.log').read_text()}")
        port = int(json.loads(line)["serving"].rpartition(":")[2].partition("/")[0])
        yield Server("video-router", port, started.pid)


@contextlib.contextmanager
def theirs(server: Upstream, folder: Path, environment: Path) -> Iterator[Server]:
    """`litellm --config`, ready."""
    params = {"model": f"openai/{GROUP}", "api_base": server.base_url}
    data = {
        "model_list": [
            {"model_name": GROUP, "litellm_params": {**params, "api_key": f"sk-{name}"}}
            for name in ("east", "west")
        ],
        "general_settings": {"master_key": KEY},
        "litellm_settings": {"num_retries": 0, "telemetry": False},
    }
    file = folder / "litellm.yaml"
    file.write_text(json.dumps(data))
    port = free_port()
    where = ("--host", "127.0.0.1", "--port", str(port))
    command = [str(environment / "bin" / "litellm"), "--config", str(file), *where]
    # Else it fetches a price list from the network, and writes a line for each call.
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
    with process(command, folder / "litellm.log", {**os.environ, **quiet}) as started:
        found = Server("litellm", port, started.pid)
        ends = time.monotonic() + START_SECONDS
        while not answers(found):
            if started.poll() is not None or time.monotonic() > ends:
                raise SystemExit(f"litellm did not start: {(folder / 'litellm.log').read_text()}")
            time.sleep(0.5)
        yield found


@contextlib.contextmanager
def process(
    command: Sequence[str], log: Path, environ: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    with (
        log.open("w") as said,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, text=True, env=environ, cwd=log.parent
        ) as started,
    ):
        # What it goes on to print is read by nobody; it must not come to wait for that.
        try:
            yield started
        finally:
            started.send_signal(signal.SIGTERM)
            try:
                started.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                started.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def answers(server: Server) -> bool:
    try:
        status, _ = asyncio.run(once(server, request("GET", "/health/liveliness")))
    except OSError:
        return False
    return status == 200


def peer_environment(named: Path | None, scratch: Path) -> Path:
    """Where the peer is installed; it is installed there if it is not."""
    folder = named or scratch / "peer"
    if not (folder / "bin" / "litellm").exists():
        print(f"installing {PEER} into {folder} …", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", PEER]
        subprocess.run(install, check=True)
    return folder


# The client --------------------------------------------------------------------------------------


def request(method: str, path: str, body: bytes = b"") -> bytes:
    head = (
        f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


CREATE = request(
    "POST",
    "/v1/videos",
    json.dumps({"model": GROUP, "prompt": PROMPT, "seconds": "8", "size": "1280x720"}).encode(),
)


class Line:
    """A kept connection that makes one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def to(cls, server: Server) -> Line:
        return cls(*await asyncio.open_connection("127.0.0.1", server.port))

    async def ask(self, said: bytes) -> tuple[int, bytes]:
        """The status and the body of the answer."""
        self._writer.write(said)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0])
        return int(head[9:12]), await self._reader.readexactly(length)

    def close(self) -> None:
        self._writer.close()


async def once(server: Server, said: bytes) -> tuple[int, bytes]:
    line = await Line.to(server)
    try:
        return await line.ask(said)
    finally:
        line.close()


@dataclass(frozen=True)
class Turn:
    """Seconds a call, by the wall and by the server's processor."""

    wall: float
    processor: float


async def turn(server: Server, said: bytes, *, at_once: int, calls: int) -> Turn:
    """`calls` calls by `at_once` kept connections; those are opened, and used once, before."""
    lines = [await Line.to(server) for _ in range(at_once)]
    latencies: list[float] = []

    async def one_after_the_other(line: Line) -> None:
        for _ in range(calls // at_once):
            began = time.perf_counter()
            status, body = await line.ask(said)
            latencies.append(time.perf_counter() - began)
            if status != 200:
                raise SystemExit(f"{server.name} answered {status}: {body[:400]!r}")

    try:
        await asyncio.gather(*(line.ask(said) for line in lines))
        began, processor = time.perf_counter(), server.processor()
        await asyncio.gather(*map(one_after_the_other, lines))
        wall, processor = time.perf_counter() - began, server.processor() - processor
    finally:
        for line in lines:
            line.close()
    typical = statistics.median(latencies) if at_once == 1 else wall / len(latencies)
    return Turn(typical, processor / len(latencies))


def saying(server: Server, kind: str) -> bytes:
    """A request as this server takes it: ids are each one's own."""
    if kind == "create":
        return CREATE
    status, body = asyncio.run(once(server, CREATE))
    assert status == 200, body
    return request("GET", f"/v1/videos/{json.loads(body)['id']}")


# The report --------------------------------------------------------------------------------------


def measured(
    servers: Sequence[Server], effort: Effort, kind: str, at_once: int
) -> dict[str, list[Turn]]:
    """The turns of each, in rounds."""
    said = {server.name: saying(server, kind) for server in servers}
    seen: dict[str, list[Turn]] = {server.name: [] for server in servers}
    for _ in rounds(effort.rounds, effort.section / (len(KINDS) * len(AT_ONCE))):
        for server in servers:
            one = turn(server, said[server.name], at_once=at_once, calls=effort.calls)
            seen[server.name].append(asyncio.run(one))
    return seen


def told(
    report: Report, kind: str, at_once: int, seen: Mapping[str, Sequence[Turn]]
) -> list[list[str]]:
    label = f"{kind}, {at_once} at once"
    direct = [turn.wall for turn in seen["direct"]]
    rows = [[label, "direct", f"{statistics.median(direct) * 1e6:,.0f}", "", "", "", ""]]
    added: dict[str, list[float]] = {}
    work: dict[str, list[float]] = {}
    for name in [one for one in seen if one != "direct"]:
        turns = seen[name]
        added[name] = [(t.wall - d) * 1e6 for t, d in zip(turns, direct, strict=True)]
        work[name] = [t.processor * 1e6 for t in turns]
        latency = Figure.median(f"{label}: added latency, {name}", added[name], "µs")
        processor = Figure.median(f"{label}: processor, {name}", work[name], "µs")
        report.add(latency, processor)
        wall = statistics.median(t.wall for t in turns) * 1e6
        rows.append(
            ["", name, f"{wall:,.0f}", f"{latency.value:,.0f}", f"{processor.value:,.0f}", "", ""]
        )
    if "litellm" in seen:
        over = _ratio(f"{label}: added latency, share of the peer's", added, LATENCY_RATIO)
        cost = _ratio(f"{label}: processor, share of the peer's", work, PROCESSOR_RATIO)
        report.add(over, cost)
        rows[1][5:] = [over.told(), cost.told()]
    return rows


def _ratio(name: str, values: Mapping[str, Sequence[float]], target: float) -> Figure:
    each = [a / b for a, b in zip(values["video-router"], values["litellm"], strict=True)]
    medians = statistics.median(values["video-router"]) / statistics.median(values["litellm"])
    return Figure(name, medians, "", target, tuple(each))


def memory(report: Report, servers: Sequence[Server]) -> None:
    held = {one.name: one.megabytes() for one in servers if one.pid is not None}
    for name, megabytes in held.items():
        report.add(Figure(f"memory, {name}", megabytes, "MB"))
    rows = [[name, f"{megabytes:.0f}"] for name, megabytes in held.items()]
    if "litellm" in held:
        share = held["video-router"] / held["litellm"]
        figure = Figure("memory, share of the peer's", share, "", MEMORY_RATIO)
        report.add(figure)
        rows.append(["share of the peer's", figure.told()])
    print(table("Memory, after all of it", ("resident", "MB"), rows))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.proxy", description="What the proxy costs.")
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds; the peer only where --peer has it"
    )
    parser.add_argument(
        "--peer", type=Path, metavar="FOLDER", help=f"a virtual environment for {PEER}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there too")
    given = parser.parse_args(arguments)
    effort = QUICK if given.quick else FULL
    about = machine(["video-router", "starlette", "uvicorn", "httptools", "httpx", "pydantic"])
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmark-")))
        server = stack.enter_context(upstream(numbered=True))
        servers = [
            Server("direct", server.port),
            stack.enter_context(ours(server, scratch)),
        ]
        if given.peer is not None or not given.quick:
            environment = peer_environment(given.peer, scratch)
            about["peer"] = _version(environment)
            servers.append(stack.enter_context(theirs(server, scratch, environment)))
        _run(Report(about), servers, effort, given.json)


def _run(report: Report, servers: Sequence[Server], effort: Effort, to: Path | None) -> None:
    about, started = report.about, time.monotonic()
    print(f"{about['processor']}, {about['cores']} cores, {about['system']}, {about['python']}")
    print(f"load {about['load_before']}, sum(range(100_000)) takes {about['loop_ms']} ms")
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    print(versions + (f"; peer: litellm {about['peer']}" if "peer" in about else ""))
    rows = []
    for kind in KINDS:
        for at_once in AT_ONCE:
            rows += told(report, kind, at_once, measured(servers, effort, kind, at_once))
    columns = ("request", "through", "µs", "added", "processor", "added × peer", "processor × peer")
    print(table("A request, in microseconds", columns, rows))
    memory(report, servers)
    print(f"\n{report.summary()} in {time.monotonic() - started:.0f} s")
    if to is not None:
        to.write_text(json.dumps(report.as_json(), indent=1), encoding="utf-8")


def _version(environment: Path) -> str:
    code = "import importlib.metadata as m; print(m.version('litellm'))"
    python = str(environment / "bin" / "python")
    return subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


if __name__ == "__main__":
    main()
