"""A call: `avideo_edit` and `video_edit` by id, beside the same POST by bare httpx.

Both say the same bytes to the same upstream (the run stops if a header or the body differs), with
the same timeouts, on the same event loop, over kept connections: 64 may be idle on either side, and
the calls before each turn open again what a submit no longer takes (idle for two seconds). The bare
side's body is made beforehand, and its answer is read but not parsed; the routed side describes,
decides, builds, judges, parses, learns and writes an id. So the ratio is an upper bound of what a
service sees, and with a provider that takes a second it is 1.00.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass

import httpx

from benchmarks.costing.fleet import GROUP, PROMPT, fleet
from benchmarks.measure import Figure, Report, Turn, atogether, percentile, ratio, rounds, table
from benchmarks.measure import together as blocking_together
from benchmarks.upstream import Upstream

__all__ = ["BARE", "Edits", "Said", "awaited", "blocked", "tell_calls"]

NATIVE = "video_68d7512d07848190b3e45da0ecbebcde"
BARE = "bare"
# A client of httpx sets the first two by itself, and a `connection` that the router leaves out.
MADE_BY_HTTPX = ("host", "content-length")
TIMEOUT = httpx.Timeout(120, connect=5)  # the router's defaults
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=64)

AT_ONCE = (1, 16, 64)
TIME_RATIO = 1.0
RATE_RATIO = 2.5
JUDGED_THREADS = (1, 16)

Turns = dict[str, list[Turn]]


@dataclass(frozen=True)
class Said:
    """The POST that a routed edit makes, to be made again by hand."""

    url: str
    headers: Mapping[str, str]
    body: bytes

    def check(self, server: Upstream) -> None:
        """Stop the run where the last POST that arrived was another than this one."""
        headers, body = server.last_post()
        if headers != dict(self.headers) or body != self.body:
            raise SystemExit("the bare POST is not the routed one; nothing can be compared")


def dressed(said: Said, client: httpx.Client | httpx.AsyncClient) -> None:
    """Make a client say what the router says, whatever else httpx would add."""
    del client.headers["connection"]
    own = {name: value for name, value in said.headers.items() if name not in MADE_BY_HTTPX}
    client.headers.update(own)


class Edits:
    """An edit, routed through both doors, with state in memory or in Redis; and the same, bare."""

    def __init__(self, server: Upstream, redis_url: str | None = None) -> None:
        self._server = server
        # Four deployments of the video's account, so that an edit has something to choose from.
        self.router = fleet(server.base_url, 4, account="acme", redis_url=redis_url)
        with self.router.pick("generation", model=GROUP) as attempt:
            self._video_id = attempt.accepted(NATIVE)
        self.blocking()
        self.said = Said(f"{server.base_url}/videos/edits", *server.last_post())

    async def routed(self) -> None:
        await self.router.avideo_edit(video_id=self._video_id, prompt=PROMPT)

    def blocking(self) -> None:
        self.router.video_edit(video_id=self._video_id, prompt=PROMPT)

    @contextlib.asynccontextmanager
    async def abare(self) -> AsyncIterator[Callable[[], Awaitable[object]]]:
        async with httpx.AsyncClient(timeout=TIMEOUT, limits=LIMITS) as client:
            dressed(self.said, client)
            post = functools.partial(client.post, self.said.url, content=self.said.body)
            for call in (post, self.routed):
                await call()
                self.said.check(self._server)
            yield post

    @contextlib.contextmanager
    def bare(self) -> Iterator[Callable[[], object]]:
        with httpx.Client(timeout=TIMEOUT, limits=LIMITS) as client:
            dressed(self.said, client)
            post = functools.partial(client.post, self.said.url, content=self.said.body)
            post()
            self.said.check(self._server)
            yield post


async def awaited(
    edits: Mapping[str, Edits], calls: Mapping[int, int], *, most: int, seconds: float
) -> dict[int, Turns]:
    """The async door's turns, by how many calls are under way at once."""
    seen: dict[int, Turns] = {}
    async with next(iter(edits.values())).abare() as bare:
        contenders = {BARE: bare, **{name: one.routed for name, one in edits.items()}}
        for at_once in AT_ONCE:
            turns: Turns = {name: [] for name in contenders}
            for _ in rounds(most, seconds / len(AT_ONCE)):
                for name, call in contenders.items():
                    turns[name].append(await atogether(call, at_once=at_once, calls=calls[at_once]))
            seen[at_once] = turns
    for one in edits.values():
        await one.router.aclose()
    return seen


def blocked(
    edits: Mapping[str, Edits], calls: Mapping[int, int], *, most: int, seconds: float
) -> dict[int, Turns]:
    """The blocking door's turns, by how many threads there are."""
    seen: dict[int, Turns] = {}
    with next(iter(edits.values())).bare() as bare:
        contenders = {BARE: bare, **{name: one.blocking for name, one in edits.items()}}
        for at_once in AT_ONCE:
            turns: Turns = {name: [] for name in contenders}
            for _ in rounds(most, seconds / len(AT_ONCE)):
                for name, call in contenders.items():
                    turn = blocking_together(call, at_once=at_once, calls=calls[at_once])
                    turns[name].append(turn)
            seen[at_once] = turns
    for one in edits.values():
        one.router.close()
    return seen


COLUMNS = ("at once", "who", "µs", "time ×", "rounds", "calls/s ×", "p99 ×", "processor, µs", "×")


def tell_calls(report: Report, name: str, bare: str, seen: Mapping[int, Turns]) -> None:
    """`name` is the routed method; one that is awaited is judged by calls a second, too."""
    rows = []
    for at_once, turns in seen.items():
        base = turns[BARE]
        wall = Figure.median(f"{bare}, {at_once} at once", _walls(base), "µs")
        report.add(wall)
        work = statistics.median(t.processor * 1e6 for t in base)
        rows.append([str(at_once), BARE, f"{wall.value:.0f}", "", "", "", "", f"{work:.0f}", ""])
        for who, ours in turns.items():
            if who != BARE:
                rows.append(["", *_routed_row(report, f"{name}, {who}", bare, at_once, base, ours)])
    print(table(f"{name}, over {bare}", COLUMNS, rows), flush=True)


def _routed_row(
    report: Report, label: str, bare: str, at_once: int, base: list[Turn], ours: list[Turn]
) -> list[str]:
    label = f"{label}, {at_once} at once"
    is_awaited = label.startswith("a")
    judged = at_once == 1 if is_awaited else at_once in JUDGED_THREADS
    wall = Figure.median(label, _walls(ours), "µs")
    time = ratio(
        f"{label}: time over {bare}", _walls(base), _walls(ours), TIME_RATIO if judged else None
    )
    rate = ratio(
        f"{label}: calls a second over {bare}",
        _walls(ours),
        _walls(base),
        RATE_RATIO if is_awaited and at_once > 1 else None,
        at_least=True,
    )
    before, after = ([t.processor * 1e6 for t in turns] for turns in (base, ours))
    work = ratio(f"{label}: processor time over {bare}", before, after)
    tails = [percentile([s for t in turns for s in t.latencies], 0.99) for turns in (base, ours)]
    late = Figure(f"{label}: p99 over {bare}", tails[1] / tails[0], "×")
    report.add(wall, time, rate, work, late)
    return [
        label.split(", ")[1],
        f"{wall.value:.0f}",
        time.told(),
        time.spread,
        rate.told(),
        late.told(),
        f"{statistics.median(after):.0f}",
        work.told(),
    ]


def _walls(turns: list[Turn]) -> list[float]:
    return [turn.wall * 1e6 for turn in turns]
