"""The processes of a run: Redis, the provider, the proxy, the workers, and their guardian.

    workers 0, 1 ──► proxy ──┐
    workers 2, 3 ────────────┴──► Redis, provider

All of them are ended by the id that they were started under: by who started them, or by the
guardian, should that one be killed. What each was told and what became of it stands in
`fleet.jsonl`.
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from chaos_journal import Journal
from chaos_plan import SURVIVORS, WORKERS, Plan, configuration

HERE = Path(__file__).resolve().parent
# Installed without the sources around it, as on a fresh machine, the package is found elsewhere.
sys.path.append(str(HERE.parent / "real"))

import redis  # noqa: E402
from real_redis import BINARIES, Server, until  # noqa: E402

__all__ = ["BINARIES", "Fleet", "fleet", "until"]

READY_SECONDS = 30.0
END_SECONDS = 25.0
"""Within so long a worker comes to its end: that of its calls, and of what it has to tell."""


class Process:
    """One of the fleet's own programs; what it says on its way up is its first line."""

    def __init__(self, fleet: Fleet, name: str, program: str, *told: str) -> None:
        self.name = name
        self._fleet = fleet
        with (fleet.folder / f"{name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / program), *told],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        fleet.watch(self._process.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    def says(self) -> list[str]:
        """The words of its first line; waits for it."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().split()

    def ports(self) -> list[int]:
        """What it says once it listens."""
        return [int(port) for port in self.says()]

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def ended(self, seconds: float) -> int | None:
        """Its exit code; `None` where it goes on for longer than that."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        """At once, stopped or not."""
        self._process.kill()
        self._process.wait()
        self._fleet.unwatch(self._process.pid)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()


class Fleet:
    """What a gremlin can lay its hands on, and what is to be looked after."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan
        self.journal = Journal(folder / "fleet.jsonl")
        self.workers: dict[int, Process] = {}
        self._servers: list[Process] = []
        self._rng = random.Random(f"cuts {plan.seed}")
        self._lives = dict.fromkeys(range(WORKERS), 0)
        self._guardian = subprocess.Popen(
            [sys.executable, str(HERE / "chaos_guardian.py")],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,  # what is meant for the test does not reach it
        )
        self.watched: set[int] = set()
        self.redis = Server(folder / "redis", kind="path" if BINARIES["path"] else "wheel")

    def watch(self, pid: int) -> None:
        self.watched.add(pid)
        self._say(f"+{pid}")

    def unwatch(self, pid: int) -> None:
        self.watched.discard(pid)
        self._say(f"-{pid}")

    def _say(self, line: str) -> None:
        assert self._guardian.stdin is not None
        self._guardian.stdin.write(f"{line}\n")
        self._guardian.stdin.flush()

    # Beginning and end --------------------------------------------------------------------------

    def start(self) -> None:
        self.journal.write("plan", seed=self.plan.seed, seconds=self.plan.seconds)
        self.start_redis()
        told = (str(self.folder), str(self.plan.seed), str(self.plan.faults))
        (self._provider_port,) = self._serving("provider", *told).ports()
        self._proxy = self._serving("proxy", str(self.redis.port), str(self._provider_port))
        self._ways = self._proxy.ports()
        for number in range(WORKERS):
            self.start_worker(number)
        for worker in self.workers.values():
            worker.says()

    def _serving(self, name: str, *told: str) -> Process:
        self._servers.append(Process(self, name, f"chaos_{name}.py", *told))
        return self._servers[-1]

    def finish(self) -> None:
        """Let the workers come to their end; who does not is asked where it hangs."""
        for number, worker in self.workers.items():
            worker.signal(signal.SIGTERM)
            self.journal.write("ending", worker=self._name(number))
        ends = time.monotonic() + END_SECONDS
        for number, worker in self.workers.items():
            code = worker.ended(max(ends - time.monotonic(), 0.1))
            if code is None:
                worker.signal(signal.SIGUSR1)
                worker.ended(0.5)
            self.journal.write("ended", worker=self._name(number), code=code)

    def kill(self) -> None:
        """Whatever is left."""
        for process in [*self.workers.values(), *self._servers]:
            process.kill()
        self._end_redis()
        assert self._guardian.stdin is not None
        self._guardian.stdin.close()
        self._guardian.wait()

    # Workers ------------------------------------------------------------------------------------

    def start_worker(self, number: int) -> None:
        self._lives[number] += 1
        mutation = self.plan.mutations.get(number, "")
        ports = self._ways if number < SURVIVORS else [self.redis.port, self._provider_port]
        base_url = f"http://127.0.0.1:{ports[1]}/v1"
        capped = mutation != "ignores caps"
        caps = {name: cap if capped else None for name, cap in self.plan.caps.items()}
        told = {
            "number": number,
            "life": self._lives[number],
            "seed": self.plan.seed,
            "pause": self.plan.pause,
            "folder": str(self.folder),
            "mutation": mutation,
            "configuration": configuration(base_url, f"redis://127.0.0.1:{ports[0]}", caps),
        }
        name = self._name(number)
        self.workers[number] = Process(self, name, "chaos_worker.py", json.dumps(told))
        self.journal.write("started", worker=name, mutation=mutation)

    def kill_worker(self, number: int) -> Callable[[], None] | None:
        """As nobody can catch; returns what puts another in its place."""
        if number not in self.workers:
            return None
        self.workers.pop(number).kill()
        self.journal.write("killed", worker=self._name(number))
        return lambda: self.start_worker(number)

    def stop_worker(self, number: int) -> Callable[[], None] | None:
        """Let it stand still; returns what lets it go on, should it still be there."""
        worker, name = self.workers.get(number), self._name(number)
        if worker is None:
            return None
        self.journal.write("stopped", worker=name)
        worker.signal(signal.SIGSTOP)

        def go_on() -> None:
            if self.workers.get(number) is worker:
                worker.signal(signal.SIGCONT)
            self.journal.write("goes on", worker=name)

        return go_on

    def _name(self, number: int) -> str:
        return f"w{number}.{self._lives[number]}"

    # Redis and the ways -------------------------------------------------------------------------

    def start_redis(self) -> None:
        self.redis.start(ready=False)
        assert self.redis.process is not None
        self.watch(self.redis.process.pid)
        with contextlib.closing(self.redis.client()) as client:
            until(lambda: _answers(client), READY_SECONDS, "redis-server answers")
        self.journal.write("redis started")

    def kill_redis(self) -> None:
        self.journal.write("redis killed")
        self._end_redis()

    def _end_redis(self) -> None:
        if self.redis.process is not None:
            pid = self.redis.process.pid
            self.redis.kill()
            self.unwatch(pid)

    def freeze_redis(self) -> None:
        self.journal.write("redis frozen")
        self.redis.freeze()

    def thaw_redis(self) -> None:
        self.redis.thaw()
        self.journal.write("redis thawed")

    def flush_redis(self) -> None:
        self.journal.write("redis flushing")
        with contextlib.closing(self.redis.client()) as client:
            client.flushall()
        self.journal.write("redis flushed")

    def cut(self, way: str) -> None:
        """All connections that lead through the proxy, at once or with what they carry next."""
        how = self._rng.choice(["now", "half"])
        self.journal.write("cut", way=way, how=how)
        self._proxy.tell(f"{['redis', 'provider'].index(way)} {how}")


def _answers(client: redis.Redis) -> bool:
    with contextlib.suppress(redis.RedisError):
        return bool(client.ping())
    return False


@contextlib.contextmanager
def fleet(folder: Path, plan: Plan) -> Iterator[Fleet]:
    """A fleet at work while the block lasts; nothing of it is left after that."""
    one = Fleet(folder, plan)
    try:
        one.start()
        yield one
    finally:
        one.kill()
