"""What sharing costs: commands to Redis, bytes on the wire, time of a turn.

**Commands** are those that workers send, counted by Redis itself (`INFO commandstats`): a turn is
one EVALSHA, the listener says a PING in silence, a connection says HELLO and what it is for. What
the script then calls inside Redis is counted apart and not judged: it travels nowhere.

**An idle worker** has made one call and then none, beside a sibling of its kind; the time after
their first two seconds counts.

**A busy worker** makes 1,000 calls a second without limits, half of them submits and half looks at
what was submitted, on 8 deployments; the provider answers in the same process, at once. Where the
machine cannot do so many, the rate that came about stands beside it.

**A turn** is one exchange, to the end of what it teaches this worker, of a worker that hears what a
sibling learned of 10 deployments: latencies, their histogram, successes. Its fleet has 10 of them,
or 1,000, of all of which as much is known in Redis. Both turns alternate, and what is compared is
their medians and the bytes that come back. `inside` is what Redis says the script took.

Not measured: what limits cost (a lease is a turn, shared by all who ask meanwhile), and the first
turn of a worker, which hears all that there is.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import redis

from benchmarks.measure import Figure
from benchmarks.sharing.stage import Redis, redis_server
from router import Router
from router.outcomes import Effect, Outcome
from router.types import Operation

__all__ = [
    "BYTES_RATIO",
    "CHANGED",
    "COMMANDS_A_CALL",
    "FEW",
    "IDLE_COMMANDS",
    "MANY",
    "Turn",
    "Turns",
    "idling",
    "measure",
    "worker",
    "working",
]

IDLE_COMMANDS = 5.0
COMMANDS_A_CALL = 0.1
TIME_RATIO = 1.5
BYTES_RATIO = 1.1

GROUP = "sora-2"
BUSY_DEPLOYMENTS = 8
CALLS_A_SECOND = 1000
LANES = 4
FEW, MANY, CHANGED = 10, 1000, 10
SEED = 20260924

SENT = ("evalsha", "eval", "ping", "subscribe", "hello", "client", "select", "auth")
"""What a worker sends, by its first word. The script calls none of these."""
OURS = ("info", "config")
"""What who counts sends."""


def measure(binary: str, folder: Path, *, quick: bool) -> Iterator[Figure]:
    """The figures, each as soon as it is known. `folder` takes what the servers log."""
    with redis_server(binary, folder) as store:
        yield from idle(store, seconds=5 if quick else 20)
    with redis_server(binary, folder) as store:
        yield from busy(store, calls=2000 if quick else 5000, rounds=1 if quick else 3)
    with redis_server(binary, folder) as store:
        yield from turns(store, rounds=40 if quick else 300)


# Commands -----------------------------------------------------------------------------------------


@dataclass
class Commands:
    """What Redis carried out in a block: what clients sent, and what the script called inside."""

    sent: dict[str, int] = field(default_factory=dict)
    inside: int = 0
    seconds: float = 0.0
    script_seconds: float = 0.0

    @property
    def total(self) -> int:
        return sum(self.sent.values())


@contextlib.contextmanager
def commands(store: Redis) -> Iterator[Commands]:
    """Count while the block lasts; the counts are there at its end."""
    found = Commands()
    store.client.config_resetstat()
    began = time.monotonic()
    yield found
    found.seconds = time.monotonic() - began
    for name, figures in store.client.info("commandstats").items():
        command = name.removeprefix("cmdstat_")
        first = command.partition("|")[0]
        if first in SENT:
            found.sent[command] = figures["calls"]
            found.script_seconds += figures["usec"] / 1e6 if first.startswith("eval") else 0
        elif first not in OURS:
            found.inside += figures["calls"]


def configured(count: int, url: str | None, namespace: str) -> dict[str, Any]:
    """So many deployments, each in an account of its own, with ids of one length."""
    return {
        "settings": {"namespace": namespace, **({"redis_url": url} if url else {})},
        "deployments": [
            {
                "id": f"d{index:04}",
                "model_name": GROUP,
                "account": f"a{index:04}",
                "base_url": "http://provider/v1",
                "api_key": f"sk-{index}",
            }
            for index in range(count)
        ],
    }


class Provider:
    """An httpx transport that answers at once, each submit with a video of its own."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self.transport = httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        asked = request.url.path.rpartition("/")[2]
        name = f"video_{next(self._numbers)}" if request.method == "POST" else asked
        return httpx.Response(200, json={"id": name, "object": "video", "status": "in_progress"})


def worker(store: Redis, count: int, namespace: str = "video-router") -> Router:
    """A worker that has made its first call."""
    config = configured(count, store.url, namespace)
    router = Router.from_dict(config, environ={}, http_client=Provider().transport)
    router.video_generation(prompt="x", model=GROUP)
    return router


def idling(store: Redis, seconds: float) -> Commands:
    """What two workers send that have nothing to do."""
    with worker(store, BUSY_DEPLOYMENTS), worker(store, BUSY_DEPLOYMENTS):
        time.sleep(2)
        with commands(store) as found:
            time.sleep(seconds)
    return found


def idle(store: Redis, seconds: float) -> Iterator[Figure]:
    found = idling(store, seconds)
    sent, inside = found.total / found.seconds / 2, found.inside / found.seconds / 2
    yield Figure("an idle worker: commands a second", sent, "/s", IDLE_COMMANDS)
    yield Figure("an idle worker: called by the script a second", inside, "/s")


def working(router: Router, store: Redis, calls: int) -> tuple[Commands, float]:
    """What a worker sends over so many calls, told to the last; and how many it made a second."""
    with commands(store) as found:
        began = time.monotonic()
        with ThreadPoolExecutor(LANES) as pool:
            lanes = [pool.submit(_lane, router, began, n, calls) for n in range(LANES)]
        for lane in lanes:
            lane.result()
        took = time.monotonic() - began
        time.sleep(1.1)  # the last of it is told with the next turn
    return found, calls / took


def busy(store: Redis, calls: int, rounds: int) -> Iterator[Figure]:
    """One worker with much to do and no limits."""
    with worker(store, BUSY_DEPLOYMENTS) as router:
        seen = [working(router, store, calls) for _ in range(rounds)]
    each = [found.total / calls for found, _ in seen]
    inside = [found.inside / calls for found, _ in seen]
    yield Figure.median("a busy worker: commands a call", each, "", COMMANDS_A_CALL)
    yield Figure.median("a busy worker: called by the script a call", inside, "")
    yield Figure.median("a busy worker: calls a second", [rate for _, rate in seen], "/s")


def _lane(router: Router, began: float, number: int, calls: int) -> None:
    """Every so manieth of the calls, each no earlier than it is due."""
    video = None
    for count in range(number, calls, LANES):
        time.sleep(max(began + count / CALLS_A_SECOND - time.monotonic(), 0))
        if video is None:
            video = router.video_generation(prompt="x", model=GROUP)
        else:
            router.video_status(video.id)
            video = None


# Turns --------------------------------------------------------------------------------------------


class _Counting:
    """A socket that counts what it brings."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.received = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def recv(self, size: int) -> bytes:
        brought: bytes = self._inner.recv(size)
        self.received += len(brought)
        return brought


class _Connection(redis.Connection):
    """A connection over such a socket."""

    def _connect(self) -> Any:
        self.counting = _Counting(super()._connect())
        return self.counting


@dataclass(frozen=True)
class Turn:
    seconds: float
    received: int
    # By Redis's own count: how long the script ran, and what it called.
    script_seconds: float
    called: int


class Turns:
    """Two workers of a fleet of so many deployments: what one learns, the other hears in a turn."""

    def __init__(self, store: Redis, count: int) -> None:
        self._store = store
        self._rng = random.Random(SEED)
        self._connection = redis.ConnectionPool(
            connection_class=_Connection, port=store.port, max_connections=1
        )
        config = configured(count, None, f"fleet-{count}")
        self._teller, self._hearer = (
            # Onlookers take their turns when they are told to, and in no thread.
            Router.from_dict(config, environ={}, redis=client, onlooker=True)
            for client in (
                redis.Redis(port=store.port),
                redis.Redis(connection_pool=self._connection),
            )
        )
        self._learn(range(count))
        for router in (self._teller, self._hearer):
            while router._learning.sharing.step():  # type: ignore[union-attr]
                pass

    def _learn(self, numbers: Iterable[int]) -> None:
        """What some calls to each of these would teach; written where they write it."""
        engine = self._teller._engine
        members = list(engine.fleet.members.values())
        well = Outcome("success", Effect.SUCCESS)
        for number in numbers:
            for operation in (Operation.GENERATION, Operation.STATUS):
                for _ in range(3):
                    seconds = self._rng.lognormvariate(0.0, 0.3)
                    engine.learning.learn(engine.fleet, members[number], operation, well, seconds)

    def turn(self, changed: int) -> Turn:
        """One turn, after a sibling has learned of so many deployments."""
        self._learn(range(changed))
        self._teller.share()
        connection = self._connection.get_connection()
        self._connection.release(connection)
        before = connection.counting.received
        with commands(self._store) as found:
            began = time.perf_counter()
            self._hearer.share()
            seconds = time.perf_counter() - began
        received = connection.counting.received - before
        return Turn(seconds, received, found.script_seconds, found.inside)


def alternating(store: Redis, rounds: int) -> dict[int, list[Turn]]:
    """Turns of the small fleet and the large one, one after the other, by their size."""
    fleets = {count: Turns(store, count) for count in (FEW, MANY)}
    found: dict[int, list[Turn]] = {count: [] for count in fleets}
    for _ in range(rounds):
        for count, fleet in fleets.items():
            found[count].append(fleet.turn(CHANGED))
    return found


def turns(store: Redis, rounds: int) -> Iterator[Figure]:
    """The time and the bytes of a turn, by the size of the fleet."""
    found = alternating(store, rounds)
    what = f"a turn with news of {CHANGED} deployments"
    for name, unit, target, values in (
        (
            "time",
            "ms",
            TIME_RATIO,
            {n: [1e3 * t.seconds for t in seen] for n, seen in found.items()},
        ),
        ("bytes", "B", BYTES_RATIO, {n: [t.received for t in seen] for n, seen in found.items()}),
        ("inside", "ms", None, {n: [1e3 * t.script_seconds for t in s] for n, s in found.items()}),
    ):
        each = {
            count: Figure.median(f"{what}, of {count:,}: {name}", values[count], unit)
            for count in (FEW, MANY)
        }
        yield from each.values()
        ratio = each[MANY].value / each[FEW].value
        yield Figure(f"{what}: {name}, {MANY:,} over {FEW}", ratio, "×", target)
