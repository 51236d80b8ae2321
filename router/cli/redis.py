"""What `doctor` finds out about a Redis: the server, its clock, and what lies under our names."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import redis.exceptions

from router.state.redis import FORM

__all__ = ["Keys", "Server", "keys", "server"]

ROUND_TRIPS = 7
# Beyond so many keys the sizes are those of a sample.
MEASURED_KEYS = 5000
BATCH = 500

_STRUCTURES = {
    "hash": (
        "sums",
        "counts",
        "restored",
        "returned",
        "ejections",
        "characters",
        "sequences",
        "places",
        "claim",
        "cost",
    ),
    "string": ("version", "generation", "tickets", "ended", "asking", "freed"),
    "zset": (
        "changes",
        "expiries",
        "workers",
        "seen",
        "lapses",
        "remembered",
        "running",
        "requests",
        "rpm",
        "read_rpm",
        "trial",
        "queue",
        "told",
    ),
    "list": ("history",),
}
_TYPES = {name: kind for kind, names in _STRUCTURES.items() for name in names}


@dataclass(frozen=True)
class Server:
    """Times in seconds. What the user that we are may not ask for is `None`."""

    round_trip: float
    clock_offset: float
    name: str | None = None
    version: str | None = None
    role: str | None = None
    used_memory: int | None = None
    max_memory: int | None = None
    memory_policy: str | None = None


@dataclass
class Keys:
    """What lies under a namespace. Sizes in bytes; `None` where they may not be asked for."""

    count: int = 0
    size: int | None = 0
    kinds: dict[str, int] = field(default_factory=dict)
    largest: tuple[str, int] | None = None
    # Under names of ours, and of another type than ours: name and type.
    wrong_types: list[tuple[str, str]] = field(default_factory=list)
    # In the namespace and none of ours: another application's, or another release's.
    strange: list[str] = field(default_factory=list)


def server(client: Any, namespace: str) -> Server:
    """Ask Redis about itself; raises redis-py's errors where it does not answer at all."""
    trips, offsets = [], []
    for _ in range(ROUND_TRIPS):
        before, started = time.time(), time.perf_counter()
        seconds, micros = client.time()
        trip = time.perf_counter() - started
        trips.append(trip)
        offsets.append((trip, int(seconds) + int(micros) / 1e6 - before - trip / 2))
    # The first trip connects; and the quickest tells the time best.
    trip, offset = statistics.median(trips[1:]), min(offsets)[1]
    said = _info(client, namespace)
    if said is None:
        return Server(trip, offset)
    return Server(
        trip,
        offset,
        name="Valkey" if "valkey_version" in said else "Redis",
        version=str(said.get("valkey_version") or said.get("redis_version") or "") or None,
        role=str(said.get("role") or "") or None,
        used_memory=int(said.get("used_memory", 0)),
        max_memory=int(said.get("maxmemory", 0)),
        memory_policy=str(said.get("maxmemory_policy") or "") or None,
    )


def _info(client: Any, namespace: str) -> dict[str, Any] | None:
    try:
        if hasattr(client, "get_node_from_key"):  # of a cluster, the node that has our keys
            node = client.get_node_from_key(f"{{{namespace}}}:{FORM}:version")
            said = client.info(target_nodes=node)
        else:
            said = client.info()
    except redis.exceptions.NoPermissionError:
        return None
    return dict(said)


def keys(client: Any, namespace: str) -> Keys | None:
    """Look at all keys of a namespace; `None` where the user that we are may not."""
    found = Keys()
    ours = f"{{{namespace}}}:{FORM}:"
    try:
        for batch in _batches(client, f"{{{namespace}}}:*"):
            mine = []
            for name in batch:
                if name.startswith(ours) and _kind(name[len(ours) :]) is not None:
                    mine.append(name)
                else:
                    found.strange.append(name)
            _take(found, client, mine, ours)
    except redis.exceptions.NoPermissionError:
        return None
    return found


def _batches(client: Any, pattern: str) -> Iterator[list[str]]:
    seen: set[str] = set()  # a scan may tell of a key twice
    batch: list[str] = []
    for raw in client.scan_iter(match=pattern, count=BATCH):
        name = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
        if name in seen:
            continue
        seen.add(name)
        batch.append(name)
        if len(batch) == BATCH:
            yield batch
            batch = []
    yield batch


def _take(found: Keys, client: Any, names: list[str], ours: str) -> None:
    types = _each(client, names, lambda pipe, name: pipe.type(name))
    for name, raw in zip(names, types, strict=True):
        kind = _kind(name[len(ours) :])
        assert kind is not None
        is_of = raw.decode() if isinstance(raw, bytes) else str(raw)
        if is_of == "none":
            continue  # it lapsed in between
        found.kinds[kind] = found.kinds.get(kind, 0) + 1
        if is_of not in _types_of(name[len(ours) :], kind):
            found.wrong_types.append((name, is_of))
    if found.size is not None and found.count < MEASURED_KEYS:
        _measure(found, client, names)
    found.count += len(names)


def _measure(found: Keys, client: Any, names: list[str]) -> None:
    assert found.size is not None
    try:
        sizes = _each(client, names, lambda pipe, name: pipe.memory_usage(name))
    except redis.exceptions.ResponseError:
        found.size = None
        return
    for name, size in zip(names, sizes, strict=True):
        found.size += size or 0
        if found.largest is None or (size or 0) > found.largest[1]:
            found.largest = (name, size or 0)


def _each(client: Any, names: list[str], ask: Callable[[Any, str], object]) -> list[Any]:
    pipe = client.pipeline(transaction=False)
    for name in names:
        ask(pipe, name)
    answers: list[Any] = pipe.execute()
    return answers


def _kind(rest: str) -> str | None:
    """What a name of ours is for: `["sums","http",…]`, `jobs:account:acme`, `version`."""
    try:
        kind = json.loads(rest)[0] if rest.startswith("[") else rest.partition(":")[0]
    except (ValueError, LookupError, TypeError):
        return None
    return kind if kind == "jobs" or kind in _TYPES else None


def _types_of(rest: str, kind: str) -> tuple[str, ...]:
    if kind == "jobs":  # the records, and beside them who holds a slot of whom
        return ("hash",) if rest == "jobs" else ("zset",)
    return (_TYPES[kind],)
