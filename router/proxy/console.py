"""What the operators' page shows: the fleet now, the last hour in small lines, the last picks.

`Console` hears the router's events (give it as `on_event`), takes samples while the application
runs, and tells all of it as plain values. With several worker processes each has its own: the
fleet's state is the same in all where they share through Redis, picks are each process's own, and
the page puts together those of the processes that answer it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import asdict
from typing import Any, NamedTuple

from router.errors import StateUnavailableError
from router.events import Attempted, Ejected, Event, Picked, Restored
from router.inspection import AccountView, DeploymentView, Out, Overview, Room
from router.proxy.history import SAMPLE_SECONDS, History, busiest
from router.proxy.picks import Picks
from router.router import Router

__all__ = ["Console", "standing"]

# However many look, and however often: the store is asked this often, and if that takes long, so
# seldom that it takes a tenth of the time.
OVERVIEW_SECONDS = 1.0
OVERVIEW_SHARE = 0.1
PATIENCE_SECONDS = 3.0
MOST_CHANGES = 50
# A drain that nobody gave an end.
FOR_EVER_SECONDS = 365 * 86400.0


class Console:
    """An `on_event` hook, and what an operator sees. One for each router."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
        sample_seconds: float = SAMPLE_SECONDS,
    ) -> None:
        self._clock = clock
        self._sample_seconds = sample_seconds
        self.picks = Picks(ticks)
        self._history = History()
        self._changes: deque[dict[str, Any]] = deque(maxlen=MOST_CHANGES)
        self._worker = ""
        self._seen: Overview | None = None
        self._trouble: str | None = None
        self._fresh_until = 0.0
        self._looking: asyncio.Task[None] | None = None

    def __call__(self, event: Event) -> None:
        match event:
            case Picked():
                self.picks.picked(event)
            case Attempted():
                self.picks.attempted(event)
            case Ejected():
                self._changes.append(_ejected(event))
            case Restored():
                self._changes.append(_restored(event))

    @contextlib.asynccontextmanager
    async def watching(self, router: Router) -> AsyncIterator[None]:
        """While the application runs: take samples of this router."""
        # Of this process, which may be a fork of the one that made this.
        self._worker = f"{os.getpid()}-{secrets.token_hex(3)}"
        sampling = asyncio.create_task(self._sampling(router))
        try:
            yield
        finally:
            tasks = [task for task in (sampling, self._looking) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _sampling(self, router: Router) -> None:
        while True:
            self._history.sample(self._clock(), router.statistics())
            await asyncio.sleep(self._sample_seconds)

    # Telling ------------------------------------------------------------------------------------

    async def state(self, router: Router, after: str = "") -> dict[str, Any]:
        """All that the page shows; of what is long, only what is newer than a `cursor`."""
        seen, trouble = await self._overview(router)
        cursor = _Cursor.read(after, self._worker)
        now = seen.at if seen is not None and trouble is None else self._clock()
        known = router.statistics()
        views = {one.id: one for one in seen.deployments} if seen is not None else {}
        deployments = [
            _deployment(name, facts, views.get(name), now, stale=trouble is not None)
            for name, facts in known.items()
        ]
        changed = cursor.samples != self._history.count
        return {
            "cursor": str(_Cursor(self._worker, self._history.count, self.picks.change)),
            "worker": self._worker,
            "at": now,
            "shared": seen.shared if seen is not None else None,
            "workers": len(seen.workers) if seen is not None else None,
            "trouble": trouble,
            "deployments": deployments,
            "accounts": [_account(one) for one in seen.accounts] if seen and not trouble else [],
            "history": self._lines(deployments) if changed else None,
            "picks": [pick.plain() for pick in self.picks.since(cursor.picks)],
            "changes": list(reversed(self._changes.copy())),
        }

    def _lines(self, deployments: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
        lines = {
            one["id"]: self._history.of(one["id"], one["latency"]["name"], one["job_time"]["name"])
            for one in deployments
        }
        return {"times": self._history.times, "deployments": lines}

    async def _overview(self, router: Router) -> tuple[Overview | None, str | None]:
        """What the store said last, however many ask; and why it says nothing, where that is so.

        A store that hangs keeps nobody waiting for long: what this process knows is told then.
        """
        if self._looking is None and time.monotonic() >= self._fresh_until:
            self._looking = asyncio.create_task(self._look(router))
        if self._looking is not None:
            await asyncio.wait({self._looking}, timeout=PATIENCE_SECONDS)
        slow = f"no answer within {PATIENCE_SECONDS:g} s" if self._looking is not None else None
        return self._seen, slow or self._trouble

    async def _look(self, router: Router) -> None:
        began = time.monotonic()
        try:
            self._seen = await asyncio.to_thread(router.overview)
            self._trouble = None
        except StateUnavailableError as exc:
            self._trouble = str(exc)
        finally:
            ended = time.monotonic()
            pause = max(OVERVIEW_SECONDS, (ended - began) * (1 / OVERVIEW_SHARE - 1))
            self._fresh_until, self._looking = ended + pause, None


class _Cursor(NamedTuple):
    """Up to where a page knows what this process has."""

    worker: str
    samples: int = 0
    picks: int = 0

    def __str__(self) -> str:
        return f"{self.worker}.{self.samples}.{self.picks}"

    @classmethod
    def read(cls, text: str, worker: str) -> _Cursor:
        """What a page says it knows; nothing, where another process told it, or nobody did."""
        named, _, rest = text.partition(".")
        samples, _, picks = rest.partition(".")
        digits = samples + picks
        if named != worker or not (digits.isascii() and digits.isdigit() and len(digits) < 30):
            return cls(worker)
        return cls(worker, int(samples or 0), int(picks or 0))


# Values -----------------------------------------------------------------------------------------


def _deployment(
    name: str, known: Mapping[str, Any], view: DeploymentView | None, now: float, *, stale: bool
) -> dict[str, Any]:
    """A deployment as it is now. Of limits nothing is told while nobody knows what is taken."""
    out = [Out(**ejection) for ejection in known["ejections"]]
    weight = None if view is None else view.weight
    return {
        "id": name,
        "account": known["account"],
        "provider": known["provider"],
        "groups": known["model_names"],
        "weight": weight,
        "state": standing(out, weight, on_trial=known["on_trial"], share=known["share"]),
        "out": [
            {
                "scope": one.scope,
                "cause": one.cause,
                "until": now + one.seconds if one.seconds < FOR_EVER_SECONDS else None,
                "reason": one.reason or one.cause,
            }
            for one in out
        ],
        "running": known["running"] if view is None or stale else view.running,
        "in_flight": known["in_flight"],
        "rooms": {} if view is None or stale else _rooms(view.rooms),
        "latency": _times(known["latency"]),
        "job_time": _times(known["job_time"]),
        "spent_today": known["spent_today"],
    }


def standing(
    out: Iterable[Out], weight: float | None, *, on_trial: bool, share: float
) -> dict[str, str]:
    """How a deployment stands, in a word, and as one of `up`, `warning` and `out`."""
    longest = max(out, key=lambda one: one.seconds, default=None)
    if longest is not None:
        if longest.cause in ("drained", "retired"):
            return {"word": longest.cause, "tone": "warning"}
        word = "out" if longest.scope == "both" else f"no {longest.scope}"
        return {"word": word, "tone": "out"}
    if weight == 0:
        return {"word": "follow-ups only", "tone": "warning"}
    if on_trial:
        return {"word": "due for a trial", "tone": "warning"}
    if share < 1:
        return {"word": f"coming back, at {share:.0%}", "tone": "warning"}
    return {"word": "up", "tone": "up"}


def _rooms(rooms: Iterable[Room]) -> dict[str, dict[str, int]]:
    return {room.kind: {"taken": room.taken, "limit": room.limit} for room in rooms}


def _times(times: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Of the operation that is charted: its name, the decayed mean, and percentiles, in seconds."""
    name = busiest(times)
    known: Mapping[str, Any] = times[name] if name is not None else {}
    return {"name": name, **{key: known.get(key) for key in ("mean", "p50", "p95", "count")}}


def _account(one: AccountView) -> dict[str, Any]:
    return {**asdict(one), "rooms": _rooms(one.rooms)}


def _ejected(event: Ejected) -> dict[str, Any]:
    forever = event.seconds >= FOR_EVER_SECONDS
    return {
        "at": event.at,
        "deployment": event.deployment,
        "what": "out",
        "scope": event.scope,
        "cause": event.cause,
        "seconds": None if forever else event.seconds,
        "reason": event.reason,
    }


def _restored(event: Restored) -> dict[str, Any]:
    return {
        "at": event.at,
        "deployment": event.deployment,
        "what": "back",
        "scope": event.scope,
        "cause": None,
        "seconds": None,
        "reason": event.reason,
    }
