"""How long it takes until a whole fleet knows what one worker has found out.

Eight workers; each trial one of them, in turn, submits to a deployment that answers 429, and so
takes it out of rotation. From the moment at which its own health says so we count until the health
of each of the seven others does, which is what their picks read. Both moments are noted where they
happen, in the method that takes an ejection in, on the clock that all processes of a machine have
in common. Then the same as a user of Redis's who may not use pub/sub: one worker ejects, and the
others hear of it as they take their turn each second, and not before.

The workers serve nothing else meanwhile; eight processes that are woken at once share the machine's
processors.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import Figure, percentile
from benchmarks.sharing.stage import (
    PREFIX,
    Redis,
    Wire,
    begun,
    configured,
    provider,
    redis_server,
    workers,
)
from router import RateLimitError
from router.health import Health
from router.observations import Ejection
from router.state.connecting import RIGHTS

__all__ = ["Sighted", "measure", "play"]

WORKERS = 8
TRIALS, QUICK_TRIALS = 500, 50
CUT_TRIALS, QUICK_CUT_TRIALS = 60, 20
SEED = 20260924
# Between trials, at random: longer than a trial, and in no rhythm with the turns of a second.
PAUSES = (0.015, 0.05)
CUT_PAUSES = (0.05, 0.15)
PATIENCE = 10.0
# Seconds that the listener has to begin.
LISTENING = 1.0
PASSWORD = "benchmark"


@dataclass(frozen=True)
class Sighted:
    """Seconds from one worker's ejection to each sibling's sight of it."""

    seconds: list[list[float]]
    """Of each trial, the siblings that saw it."""
    unseen: int

    @property
    def each(self) -> list[float]:
        return [one for trial in self.seconds for one in trial]

    @property
    def last(self) -> list[float]:
        """Of each trial, until all had seen it."""
        return [max(trial) for trial in self.seconds if trial]


def measure(binary: str, folder: Path, *, quick: bool) -> Iterator[Figure]:
    heard = play(binary, folder, QUICK_TRIALS if quick else TRIALS)
    each, last = ([one * 1e3 for one in seconds] for seconds in (heard.each, heard.last))
    yield Figure("trials", len(heard.seconds), "")
    yield Figure("sibling sees an ejection, median", statistics.median(each), "ms", 5)
    yield Figure("sibling sees an ejection, p99", percentile(each, 0.99), "ms", 50)
    yield Figure("the last of 7 sees it, median", statistics.median(last), "ms")
    yield Figure("the last of 7 sees it, p99", percentile(last, 0.99), "ms")
    yield Figure("ejections that a sibling never saw", heard.unseen, "", 0)
    deaf = play(binary, folder, QUICK_CUT_TRIALS if quick else CUT_TRIALS, deaf=True)
    yield Figure("without pub/sub: trials", len(deaf.seconds), "")
    yield Figure("without pub/sub: median", statistics.median(deaf.each), "s")
    yield Figure("without pub/sub: at most", max(deaf.each), "s", 1.2)
    yield Figure("without pub/sub: never seen", deaf.unseen, "", 0)


def play(binary: str, folder: Path, trials: int, *, deaf: bool = False) -> Sighted:
    """So many ejections; `deaf` workers may not use pub/sub."""
    rng = random.Random(SEED)
    busy = {"kind": "status", "status": 429, "times": None, "headers": {"Retry-After": "300"}}
    with (
        redis_server(binary, folder) as server,
        provider(["east"], faults=[{**busy, "operation": "generation"}]) as upstream,
    ):
        # Each trial has a deployment of its own, since an ejection outlasts all of them.
        names = [f"d{number}" for number in range(trials)]
        deployments = [{"id": name, "model_name": name, "account": "east"} for name in names]
        url = _deafened(server) if deaf else server.url
        config = configured(upstream.base_url, url, deployments)
        with workers(WORKERS, _work, config) as started:
            for number, name in enumerate(names):
                time.sleep(rng.uniform(*(CUT_PAUSES if deaf else PAUSES)))
                # Who ejects takes turns at once, and so hears of what others ejected: without
                # pub/sub it is always the same.
                one = started[0 if deaf else number % WORKERS]
                one.tell(name)
                one.hear()
            for worker in started:
                worker.tell()
            return _compared(names, [worker.hear() for worker in started])


def _deafened(server: Redis) -> str:
    """A user that may do all that the README asks for, but no pub/sub."""
    rights = [right for right in RIGHTS.split() if right not in ("+publish", "+subscribe")]
    server.client.execute_command(
        *("ACL", "SETUSER", "deaf", "on", f">{PASSWORD}"),
        *(f"~{PREFIX}*", "resetchannels", *rights),
    )
    return f"redis://deaf:{PASSWORD}@127.0.0.1:{server.port}/0"


class _Noting(Health):
    """Notes when it is first taken out of rotation."""

    __slots__ = ("at",)

    def __init__(self, credential: str) -> None:
        super().__init__(credential)
        self.at: float | None = None

    def eject(self, ejection: Ejection) -> bool:
        news = super().eject(ejection)
        if news and self.at is None:
            self.at = time.monotonic()
        return news


def _work(wire: Wire, number: int, config: dict[str, Any]) -> None:
    """Eject what it is told to; then say who ejected, and when each ejection was seen."""
    with begun(config) as one:
        router, members = one.router, one.router._engine.fleet.members
        for member in members.values():
            member.health = _Noting(member.health.credential)
        time.sleep(LISTENING)
        wire.say()
        mine = set()
        while (name := wire.hear()) is not None:
            try:
                router.video_generation(prompt="a heron takes off", model=name, retries=0)
            except RateLimitError:
                mine.add(name)
            wire.say()
        _wait_for_all(members.values())
        wire.say((mine, {name: member.health.at for name, member in members.items()}))


def _wait_for_all(members: Any) -> None:
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends and any(member.health.at is None for member in members):
        time.sleep(0.05)


def _compared(names: list[str], told: list[tuple[set[str], dict[str, float | None]]]) -> Sighted:
    seconds, unseen = [], 0
    for name in names:
        (ejected,) = (at[name] for mine, at in told if name in mine)
        sighted = [at[name] for mine, at in told if name not in mine]
        assert ejected is not None
        unseen += sighted.count(None)
        seconds.append([at - ejected for at in sighted if at is not None])
    return Sighted(seconds, unseen)
