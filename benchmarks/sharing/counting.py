"""Whether everything that workers learn is counted once, and adds up to the exact mean.

Eight workers call the provider over HTTP; what they measure goes the way it always goes, by turns
of the keeper's thread into one script in Redis. Half of them reach Redis over a connection that
loses about every third answer, so they do not know whether what they told has arrived, and tell it
again. Each worker notes every measurement at the moment it is made: when, and how many seconds.
What stands in Redis in the end is compared to those notes, the mean to their exactly rounded sums
(`math.fsum`); so is what a worker that comes later makes of it.
"""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from benchmarks.measure import Figure
from benchmarks.sharing.cutting import cutting
from benchmarks.sharing.stage import (
    PREFIX,
    Provider,
    Redis,
    Wire,
    configured,
    provider,
    redis_server,
    workers,
)
from router import Router
from router.observations import HTTP, SERIES, Series

__all__ = ["Counted", "measure", "play"]

WORKERS = 8
OBSERVATIONS = 20_000
QUICK_OBSERVATIONS = 2_000
LOST_SHARE = 1 / 3
SEED = 20260924
# So that many turns are taken, and many of their answers lost, in a run of seconds.
CALLS_A_TURN = 10
MEAN_ERROR = 1e-9

Name: TypeAlias = tuple[str, str, str, int]
"""Series, deployment, operation, epoch."""
Note: TypeAlias = tuple[str, str, str, float, float]
"""Series, deployment, operation, seconds, and when."""


@dataclass(frozen=True)
class Counted:
    """How a run went. Errors of means are relative, and the largest of all."""

    noted: int
    counted: int
    in_histograms: int
    wrong: int
    """Measurements that are missing, or counted again, over all names and buckets."""
    mean_error: float
    read_error: float
    lost: int


def measure(binary: str, folder: Path, *, quick: bool) -> Iterator[Figure]:
    found = play(binary, folder, QUICK_OBSERVATIONS if quick else OBSERVATIONS)
    yield Figure("observations made", found.noted, "")
    yield Figure("observations counted in Redis", found.counted, "")
    yield Figure("answers of Redis lost meanwhile", found.lost, "")
    yield Figure("observations missing or counted twice", found.wrong, "", 0)
    yield Figure("error of the mean in Redis, in 1e-9", found.mean_error / 1e-9, "", 1)
    yield Figure("error of the mean as a worker reads it, in 1e-9", found.read_error / 1e-9, "", 1)


def play(binary: str, folder: Path, observations: int) -> Counted:
    """One run with so many measurements of HTTP exchanges."""
    with (
        redis_server(binary, folder) as server,
        cutting(server, WORKERS // 2, LOST_SHARE, SEED) as cut,
        provider(["east"]) as upstream,
    ):
        urls = [*cut.urls, *[server.url] * (WORKERS - len(cut.urls))]
        configs = [_config(upstream, url) for url in urls]
        notes: list[Note] = []
        with workers(WORKERS, _work, configs, observations // WORKERS) as started:
            for worker in started:
                worker.tell()
            for worker in started:
                notes += worker.hear(600)
        with Router.from_dict(_config(upstream, server.url), environ={}, onlooker=True) as reader:
            reader.share()
            return _compared(notes, server, reader, cut.lost())


def _config(upstream: Provider, url: str) -> dict[str, Any]:
    return configured(upstream.base_url, url, [{"id": "east-1", "account": "east"}])


def _work(wire: Wire, number: int, configs: list[dict[str, Any]], calls: int) -> None:
    """Submit one video, and ask how it is."""
    router = Router.from_dict(configs[number], environ={})
    notes = _noting(router)
    sharing = router._learning.sharing
    assert sharing is not None
    wire.say()
    wire.hear()
    video = router.video_generation(prompt="a heron takes off")
    for call in range(1, calls):
        router.video_status(video.id)
        if call % CALLS_A_TURN == 0:
            sharing.ring()
    router.close()
    wire.say(notes)


def _noting(router: Router) -> list[Note]:
    """Write down each measurement as it is taken in."""
    learning, notes = router._learning, list[Note]()
    measured = learning._latency

    def noting(
        member: Any, operation: str, seconds: float, now: float, series: Series = HTTP
    ) -> None:
        notes.append((series.name, member.deployment.id, str(operation), seconds, now))
        measured(member, operation, seconds, now, series)

    learning._latency = noting  # type: ignore[method-assign]
    return notes


# Comparing ---------------------------------------------------------------------------------------


def _compared(notes: list[Note], server: Redis, reader: Router, lost: int) -> Counted:
    exact: dict[Name, list[tuple[float, float]]] = defaultdict(list)
    for series, deployment, operation, seconds, now in notes:
        epoch = int(now // SERIES[series].epoch)
        exact[series, deployment, operation, epoch].append((seconds, now))
    sums, histograms = _stored(server)
    wrong = sum(abs(int(sums[n]["n"]) - len(exact[n])) for n in {*sums, *exact})
    for name in {*histograms, *exact}:
        buckets = Counter(_bucket(seconds) for seconds, _ in exact[name])
        wrong += sum(abs(buckets[b] - histograms[name][b]) for b in {*buckets, *histograms[name]})
    of_http = [name for name in sums if name[0] == HTTP.name]
    return Counted(
        noted=sum(len(exact[name]) for name in exact if name[0] == HTTP.name),
        counted=sum(int(sums[name]["n"]) for name in of_http),
        in_histograms=sum(histograms[name].total() for name in of_http),
        wrong=wrong,
        mean_error=max(
            _error(float(sums[n]["t"]) / float(sums[n]["w"]), _mean(n[3], *n[:1], exact[n]))
            for n in sums
        ),
        read_error=_read_error(exact, reader),
        lost=lost,
    )


def _stored(server: Redis) -> tuple[dict[Name, dict[str, str]], dict[Name, Counter[int]]]:
    """The sums and the histograms that stand in Redis."""
    sums: dict[Name, dict[str, str]] = defaultdict(lambda: {"n": "0"})
    histograms: dict[Name, Counter[int]] = defaultdict(Counter)
    for key in server.client.scan_iter(match=f"{PREFIX}[[]*"):
        kind, *name = json.loads(key.removeprefix(PREFIX))
        fields = server.client.hgetall(key)
        if kind == "sums":
            sums[tuple(name)] = fields
        elif kind == "counts" and name[0] in SERIES:
            histograms[tuple(name)] = Counter({int(b): int(n) for b, n in fields.items()})
    return sums, histograms


def _bucket(seconds: float) -> int:
    """Quarters of an octave, as the design has them."""
    return math.floor(math.log2(max(seconds, 1e-6)) * 4)


def _mean(epoch: int, series: str, samples: list[tuple[float, float]]) -> float:
    """The decayed mean, by sums that are rounded once."""
    begins, tau = epoch * SERIES[series].epoch, SERIES[series].tau
    weights = [math.exp((now - begins) / tau) for _, now in samples]
    total = math.fsum(w * seconds for w, (seconds, _) in zip(weights, samples, strict=True))
    return total / math.fsum(weights)


def _read_error(exact: dict[Name, list[tuple[float, float]]], reader: Router) -> float:
    """How far off a late comer is, over its two newest epochs together."""
    load = reader._engine.fleet.members["east-1"].load
    errors = []
    for operation, latency in load.latency.items():
        mine = [name for name in exact if name[0] == HTTP.name and name[2] == operation]
        samples = [sample for name in mine for sample in exact[name]]
        errors.append(_error(latency.mean, _mean(max(n[3] for n in mine), HTTP.name, samples)))
    return max(errors)


def _error(found: float, exact: float) -> float:
    return abs(found - exact) / exact if exact else abs(found)
