"""Redis as processes of the tests' own: servers, sentinels, clusters, certificates.

Each stands on a free loopback port or a socket in a directory of its own, keeps nothing on disk,
and is ended by who started it; no server that the tests did not start is ever spoken to.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from shared_parts import fleet, in_process, machines_own

from router import Router
from router.testing import StandIn

__all__ = [
    "Server",
    "Traffic",
    "certificates",
    "cluster",
    "free_port",
    "said",
    "sentinels",
    "server",
    "share",
    "until",
    "worker",
]

SERVER = machines_own("redis-server")
needs_redis = pytest.mark.skipif(SERVER is None, reason="no redis-server on the PATH")
QUIET = ("--save", "", "--appendonly", "no", "--daemonize", "no", "--protected-mode", "no")


def free_port(room: int = 0) -> int:
    """A port nobody listens on; with `room`, one below which so many more can be added."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port + room < 65536:
            return port


class Server:
    """One redis-server, which may be killed, frozen and started again where it stood."""

    def __init__(self, folder: Path, *options: str, sentinel: Path | None = None) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port(room=10_000)
        self.socket = folder / "s"
        self.options = options
        self._sentinel = sentinel
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def client(self, **options: Any) -> redis.Redis:
        """A client of the test's own, by the socket where there is one."""
        options = {"socket_timeout": 20, "decode_responses": True, **options}
        if self._sentinel is not None:
            return redis.Redis(port=self.port, **options)
        return redis.Redis(unix_socket_path=str(self.socket), **options)

    def start(self, *, ready: bool = True) -> Server:
        assert SERVER is not None
        first = [str(self._sentinel), "--sentinel"] if self._sentinel else list(QUIET)
        own = (
            [] if self._sentinel else ["--unixsocket", str(self.socket), "--unixsocketperm", "700"]
        )
        where = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        options = list(self.options)
        if "--tls-port" in options:
            where[1] = "0"
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [SERVER, *first, *where, *own, *options], stdout=log, stderr=log
            )
        if ready:
            until(self._answers, 10, "redis-server answers")
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
        with contextlib.suppress(redis.RedisError), contextlib.closing(self.client()) as client:
            return bool(client.ping())
        # Who asks for a password, or is still loading, answers too.
        return self.socket.exists() and any("requirepass" in option for option in self.options)

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def freeze(self) -> None:
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, frozen or not."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self.process = None


@contextlib.contextmanager
def server(folder: Path, *options: str) -> Iterator[Server]:
    """A server while the block lasts."""
    one = Server(folder, *options)
    try:
        yield one.start()
    finally:
        one.kill()


@contextlib.contextmanager
def sentinels(folder: Path) -> Iterator[tuple[Server, Server, list[Server]]]:
    """A master, its replica, and three sentinels that call it `mymaster`."""
    master = Server(folder / "master")
    replica = Server(folder / "replica", "--replicaof", f"127.0.0.1 {master.port}")
    watching = []
    try:
        master.start()
        replica.start()
        with contextlib.closing(replica.client()) as client:
            until(lambda: client.info("replication")["master_link_status"] == "up", 20, "a replica")
        for number in range(3):
            home = folder / f"sentinel-{number}"
            home.mkdir()
            written = home / "sentinel.conf"
            written.write_text(
                f"sentinel monitor mymaster 127.0.0.1 {master.port} 2\n"
                "sentinel down-after-milliseconds mymaster 700\n"
                "sentinel failover-timeout mymaster 3000\n"
            )
            watching.append(Server(home, sentinel=written).start())
        with contextlib.closing(watching[0].client()) as client:
            until(lambda: len(client.sentinel_sentinels("mymaster")) == 2, 20, "sentinels meet")
            until(lambda: len(client.sentinel_slaves("mymaster")) == 1, 20, "the replica is known")
        yield master, replica, watching
    finally:
        for one in (master, replica, *watching):
            one.kill()


@contextlib.contextmanager
def cluster(folder: Path, masters: int = 3, replicas: int = 0) -> Iterator[list[Server]]:
    """A cluster of so many masters, which share the slots, and then their replicas in turn."""
    told = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1500")
    told += ("--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0")
    nodes = [Server(folder / f"node-{number}", *told) for number in range(masters + replicas)]
    try:
        clients = [node.start().client() for node in nodes]
        edges = [16384 * number // masters for number in range(masters + 1)]
        for number, client in enumerate(clients[:masters]):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", edges[number], edges[number + 1] - 1)
        for number, client in enumerate(clients):
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for node in nodes[1:]:
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)

        def whole() -> bool:
            told = [client.cluster("INFO") for client in clients]
            return all(
                one["cluster_state"] == "ok" and int(one["cluster_known_nodes"]) == len(nodes)
                for one in told
            )

        until(whole, 20, "a cluster")
        for number, client in enumerate(clients[masters:]):
            client.cluster("REPLICATE", clients[number % masters].cluster("MYID"))
            until(
                lambda c=client: c.info("replication").get("master_link_status") == "up",
                20,
                "a cluster's replica",
            )
        for client in clients:
            client.close()
        yield nodes
    finally:
        for node in nodes:
            node.kill()


def certificates(folder: Path) -> dict[str, Path]:
    """A CA of our own and what it signed, for 127.0.0.1: `ca`, `cert`, `key`."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl on the PATH to make certificates with")
    folder.mkdir(parents=True, exist_ok=True)
    made = {name: folder / f"{name}.pem" for name in ("ca_key", "ca", "key", "asked", "cert")}
    named = folder / "names"
    named.write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    new = ["req", "-newkey", "rsa:2048", "-nodes"]
    says = ["-subj", "/CN=tests"]
    for command in (
        [*new, "-x509", "-days", "2", "-keyout", made["ca_key"], "-out", made["ca"], *says,
         "-addext", "keyUsage=critical,keyCertSign,cRLSign"],
        [*new, "-keyout", made["key"], "-out", made["asked"], "-subj", "/CN=127.0.0.1"],
        ["x509", "-req", "-in", made["asked"], "-CA", made["ca"], "-CAkey", made["ca_key"],
         "-CAcreateserial", "-days", "2", "-extfile", named, "-out", made["cert"]],
    ):  # fmt: skip
        subprocess.run([openssl, *map(str, command)], check=True, capture_output=True, timeout=60)
    return made


# Workers ------------------------------------------------------------------------------------------


def worker(
    provider: StandIn, url: str, *accounts: str, namespace: str = "video-router", **more: Any
) -> Router:
    """A router of its own on this Redis, over a provider in this process.

    `more` goes to the deployments, or to the router where it is one of its parts.
    """
    parts = {name: more.pop(name) for name in ("on_event", "clock", "rng", "redis") if name in more}
    told = fleet("http://stand-in/v1", *accounts, **more)
    told["settings"] = {"redis_url": url, "namespace": namespace}
    return in_process(provider, told, **parts)


class Traffic:
    """Calls from some threads until the block ends; what failed, and how long the slowest took."""

    def __init__(self, *routers: Router, what: str = "generation") -> None:
        self._routers = routers
        self._what = what
        self._ending = threading.Event()
        self.calls = 0
        self.errors: list[BaseException] = []
        self.seconds: list[float] = []

    def _work(self, router: Router) -> None:
        mine = router.jobs()[-1:] if self._what == "status" else []
        while not self._ending.is_set():
            began = time.monotonic()
            try:
                for job in mine:
                    router.video_status(job.native_id, account=job.account)
                if not mine:
                    router.video_generation(prompt="x")
            except BaseException as exc:  # noqa: BLE001  (that there is none is what is shown)
                self.errors.append(exc)
            self.seconds.append(time.monotonic() - began)
            self.calls += 1
            self._ending.wait(0.005)

    def __enter__(self) -> Traffic:
        self._threads = [threading.Thread(target=self._work, args=(r,)) for r in self._routers]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ending.set()
        for thread in self._threads:
            thread.join(10)


def said(caplog: pytest.LogCaptureFixture, what: str) -> int:
    """How often the workers' logs say so of the shared state."""
    return sum(
        "shared state" in r.getMessage() and what in r.getMessage()
        for r in caplog.records
        if r.name == "router"
    )


def share(one: Router, other: Router, within: float = 5.0) -> float:
    """What one learns the other knows, both ways; how long the first took."""
    one.drain("east-1", 100)
    took = until(lambda: ejected(other, "east-1"), within, "an ejection is heard of")
    other.restore("east-1")
    until(lambda: not ejected(one, "east-1"), within, "a restoration is heard of")
    return took


def until(true: Callable[[], object], seconds: float, what: str = "") -> float:
    """Wait until it is true; how long that took. Fails after so many seconds."""
    began = time.monotonic()
    while not true():
        passed = time.monotonic() - began
        assert passed < seconds, f"{what or true} has not come about in {seconds} s"
        time.sleep(0.005)
    return time.monotonic() - began


def figure(text: str) -> None:
    """What was measured, for who runs the tests with `-s`."""
    sys.stdout.write(f"\n{text}\n")


def ejected(router: Router, name: str) -> bool:
    return bool(router.statistics()[name]["ejections"])


def sockets(pid: int | None = None) -> set[str]:
    """The sockets that a process has open, by their inode."""
    found = set()
    for entry in Path(f"/proc/{pid or os.getpid()}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(entry.readlink())
            if target.startswith("socket:"):
                found.add(target)
    return found
