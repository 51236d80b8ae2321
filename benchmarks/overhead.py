"""What the router costs on top of the calls it makes: `python -m benchmarks.overhead`.

**A pick.** `Choosing.choose` on a call that has been described: the candidates looked up by route,
health, strategy, draw, with one seeded random generator, in groups of 4, 32, 100 and 1,000
deployments, of which the latency of all, half or none is known, or a tenth is ejected. A last line
adds what precedes a pick: the public method's arguments checked, owners and route found. Not
measured: Redis and limits, which no pick touches yet.

**A call.** `avideo_edit` by id against the same POST by `httpx.AsyncClient`, and `video_edit`
against `httpx.Client`, with 1, 16 and 64 under way at once. Both say the same bytes to the same
upstream (a process that answers at once; the run stops if a header or the body differs), with the
same timeouts, on the same event loop, over kept connections: 64 may be idle on either side, and the
calls before each turn open again what a submit no longer takes (idle for two seconds). The bare
side's body is made beforehand, and its answer is read but not parsed; the routed side describes,
decides, builds, judges, parses, learns and writes an id. So the ratio is an upper bound of what a
service sees, and with a provider that takes a second it is 1.00. Not measured: TLS, real networks,
uploads, downloads.

**An import.** `import router` and its five dependencies alone, each in a fresh interpreter with
warm byte code: seconds, and how far the resident memory grew.

**The peer.** LiteLLM's Router, where it is installed, with its own defaults: a pick, a routed
`avideo_edit`, each in turns with ours and the bare client. It comes last, since a heap as large as
its own slows all that comes after; a quick run has no time for it.

How noise is kept out of the figures stands in `measure`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import functools
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if not __package__:  # run as a file: the packages beside it are found from the folder above
    sys.path[0] = str(ROOT)

import httpx  # noqa: E402  (after the path)

from benchmarks.measure import (  # noqa: E402
    Figure,
    Report,
    Turn,
    atogether,
    machine,
    percentile,
    rounds,
    table,
    together,
)
from benchmarks.peer import HOW_TO_INSTALL, Peer, is_installed  # noqa: E402
from benchmarks.upstream import Upstream, upstream  # noqa: E402
from router import Router, operations  # noqa: E402
from router._doors import step  # noqa: E402
from router.observations import BOTH, Cause, Ejection, epoch_of, sample  # noqa: E402
from router.types import Operation  # noqa: E402

SEED = 20260924
GROUP = "sora-2"
PROMPT = "The heron takes off, and the camera follows it over the reeds into the evening light"
DEPENDENCIES = ("httpx", "pydantic", "redis", "tenacity", "yaml")

PICK_MICROSECONDS = 25.0
PICK_GROWTH = 1.3
CALL_RATIO = 1.15
IMPORT_RATIO = 1.15

# Half of it goes by before the peer has been imported, and its routers built.
PEER_SECONDS = 45.0

SIZES = (4, 32, 100, 1_000)
AT_ONCE = (1, 16, 64)


@dataclass(frozen=True)
class Effort:
    """How much of everything, at most. `calls` are those of a turn, by how many run at once.

    Seconds are those of a section (a round that has begun is finished, and five always are), and
    those after which the whole run is ended by force; a machine at rest needs half of them.
    """

    rounds: int
    picks: int
    calls: Mapping[int, int]
    imports: int
    section: float
    whole: float


FULL = Effort(40, 300, {1: 40, 16: 160, 64: 192}, 7, 6.0, 120)
QUICK = Effort(9, 150, {1: 30, 16: 48, 64: 64}, 7, 1.5, 50)


def fleet(base_url: str, count: int, account: str | None = None) -> Router:
    """A router over `count` deployments of one group; each in an account of its own, or in one."""
    deployments = [
        {
            "id": f"d{index}",
            "model_name": GROUP,
            "account": account or f"a{index}",
            "base_url": base_url,
            "api_key": "sk-benchmark" if account else f"sk-{index}",
        }
        for index in range(count)
    ]
    return Router.from_dict({"deployments": deployments}, rng=random.Random(SEED), environ={})


# A pick ------------------------------------------------------------------------------------------

# What is known before the picks: the share of deployments with latencies, and of those ejected.
SCENARIOS = {
    "latencies known of all": (1.0, 0.0),
    "of half": (0.5, 0.0),
    "of none": (0.0, 0.0),
    "of all, a tenth ejected": (1.0, 0.1),
}
WHOLE = "with arguments, owners, route"


def learned(router: Router, known: float, ejected: float) -> None:
    """Give the fleet a past: a few latencies each, some exchanges in flight, some out of rotation.

    Written where the engine writes it, since a past made of calls would take minutes.
    """
    rng = random.Random(SEED)
    engine = router._engine
    members = list(engine.fleet.members.values())
    now = engine.now()
    for member in rng.sample(members, round(known * len(members))):
        usual = rng.lognormvariate(0.0, 0.3)
        for _ in range(5):
            seconds = usual * rng.lognormvariate(0.0, 0.1)
            member.load.add(Operation.GENERATION, epoch_of(now), sample(seconds, now))
        member.load.in_flight = rng.randrange(4)
    if ejected:
        for member in rng.sample(members, max(round(ejected * len(members)), 1)):
            member.health.eject(Ejection(BOTH, now + 3600, Cause.FAILURES, "benchmark"))


def pick_of(router: Router) -> Callable[[], object]:
    engine = router._engine
    trip = engine.trip(operations.generation(prompt=PROMPT, model=GROUP), router._async)

    def pick() -> object:
        engine.fleet.tiers(trip.route)  # the candidates are looked up once in each call
        return engine.choosing.choose(trip)

    return pick


def whole_pick_of(router: Router) -> Callable[[], object]:
    engine, side = router._engine, router._async

    def pick() -> object:
        call = operations.generation(prompt=PROMPT, model=GROUP)
        return step(engine.choosing.pick(engine.trip(call, side)))

    return pick


def picks(report: Report, effort: Effort) -> None:
    """A pick, by how many deployments there are and what is known of them."""
    contenders: dict[tuple[str, int], Callable[[], object]] = {}
    for size in SIZES:
        for name, past in SCENARIOS.items():
            router = fleet("http://127.0.0.1:9/v1", size)
            learned(router, *past)
            contenders[name, size] = pick_of(router)
            if name == next(iter(SCENARIOS)):
                contenders[WHOLE, size] = whole_pick_of(router)
    seen = in_turns(contenders, effort)
    rows = [_pick_row(report, name, seen) for name in SCENARIOS]
    rows.append(_pick_row(report, WHOLE, seen, judged=False))
    columns = ["pick, µs", *(f"{size:,}" for size in SIZES), "slowest", "1,000 over 32"]
    done = len(next(iter(seen.values())))
    note = f"median of {done} rounds of {effort.picks} picks, in turns; seed {SEED}"
    print(table("A pick, by deployments in the group", columns, rows, note))


def in_turns(
    contenders: Mapping[tuple[str, int], Callable[[], object]], effort: Effort
) -> dict[tuple[str, int], list[float]]:
    seen: dict[tuple[str, int], list[float]] = {key: [] for key in contenders}
    for _ in rounds(effort.rounds, effort.section):
        for key, pick in contenders.items():
            seen[key].append(_microseconds(pick, effort.picks))
    return seen


def _microseconds(action: Callable[[], object], times: int) -> float:
    for _ in range(times // 10):
        action()
    started = time.perf_counter()
    for _ in range(times):
        action()
    return (time.perf_counter() - started) / times * 1e6


def _pick_row(
    report: Report, name: str, seen: Mapping[tuple[str, int], list[float]], *, judged: bool = True
) -> list[str]:
    target = PICK_MICROSECONDS if judged else None
    figures = [Figure.median(f"pick, {name}, {n}", seen[name, n], "µs", target) for n in SIZES]
    slowest = max(figures, key=lambda figure: figure.value)
    values = dict(zip(SIZES, figures, strict=True))
    growth = [a / b for a, b in zip(seen[name, 1_000], seen[name, 32], strict=True)]
    flat = Figure(
        f"pick, {name}, 1,000 over 32",
        values[1_000].value / values[32].value,
        "×",
        PICK_GROWTH if judged else None,
        growth,
    )
    report.add(*figures, flat)
    return [name, *(f"{figure.value:.1f}" for figure in figures), slowest.told(), flat.told()]


# A call ------------------------------------------------------------------------------------------

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


# A client of httpx sets the first two by itself, and a `connection` that the router leaves out.
MADE_BY_HTTPX = ("host", "content-length")
TIMEOUT = httpx.Timeout(120, connect=5)  # the router's defaults
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=64)


def dressed(said: Said, client: httpx.Client | httpx.AsyncClient) -> None:
    """Make a client say what the router says, whatever else httpx would add."""
    del client.headers["connection"]
    own = {name: value for name, value in said.headers.items() if name not in MADE_BY_HTTPX}
    client.headers.update(own)


class Edits:
    """The same edit, routed and bare, through both doors."""

    def __init__(self, server: Upstream) -> None:
        self._server = server
        # Four deployments of the video's account, so that an edit has something to choose from.
        self.router = fleet(server.base_url, 4, account="acme")
        with self.router.pick("generation", model=GROUP) as attempt:
            self._video_id = attempt.accepted("video_68d7512d07848190b3e45da0ecbebcde")
        self.blocking()
        self.said = Said(f"{server.base_url}/videos/edits", *server.last_post())

    async def routed(self) -> None:
        await self.router.avideo_edit(video_id=self._video_id, prompt=PROMPT)

    def blocking(self) -> None:
        self.router.video_edit(video_id=self._video_id, prompt=PROMPT)

    @contextlib.asynccontextmanager
    async def abare(self) -> Any:
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


async def awaited(edits: Edits, effort: Effort, peer: Peer | None = None) -> dict[int, Turns]:
    """The async door's turns, by how many calls are under way at once."""
    seen: dict[int, Turns] = {}
    # The peer takes milliseconds a call; a turn must still end within two seconds.
    few = {at_once: max(calls // 4, at_once) for at_once, calls in effort.calls.items()}
    async with edits.abare() as bare:
        contenders: dict[str, Callable[[], Awaitable[object]]] = {
            "bare": bare,
            "routed": edits.routed,
        }
        if peer is not None:
            contenders["peer"] = peer.edit("video_68d7512d07848190b3e45da0ecbebcde", PROMPT)
        for at_once in AT_ONCE:
            turns: Turns = {name: [] for name in contenders}
            for _ in rounds(effort.rounds, effort.section / len(AT_ONCE)):
                for name, call in contenders.items():
                    calls = effort.calls[at_once] if peer is None else few[at_once]
                    turns[name].append(await atogether(call, at_once=at_once, calls=calls))
            seen[at_once] = turns
    await edits.router.aclose()
    return seen


def blocked(edits: Edits, effort: Effort) -> dict[int, Turns]:
    """The blocking door's turns, by how many threads there are."""
    seen: dict[int, Turns] = {}
    with edits.bare() as bare:
        for at_once in AT_ONCE:
            turns: Turns = {"bare": [], "routed": []}
            for _ in rounds(effort.rounds, effort.section / len(AT_ONCE)):
                for name, call in (("bare", bare), ("routed", edits.blocking)):
                    turn = together(call, at_once=at_once, calls=effort.calls[at_once])
                    turns[name].append(turn)
            seen[at_once] = turns
    edits.router.close()
    return seen


CALL_COLUMNS = (
    "at once",
    "bare, µs",
    "routed, µs",
    "time ×",
    "lowest–highest round",
    "p99 ×",
    "processor, µs",
    "processor ×",
    "routed calls/s",
)


def tell_calls(report: Report, name: str, bare: str, seen: Mapping[int, Turns]) -> None:
    rows = []
    for at_once, turns in seen.items():
        base, ours = turns["bare"], turns["routed"]
        label = f"{name}, {at_once} at once"
        time_ratio = _ratio(
            f"{label}, time over {bare}",
            [turn.wall for turn in base],
            [turn.wall for turn in ours],
            CALL_RATIO if at_once == 1 else None,
        )
        work = _ratio(
            f"{label}, processor time over {bare}",
            [turn.processor for turn in base],
            [turn.processor for turn in ours],
        )
        tail = [percentile([s for t in turns for s in t.latencies], 0.99) for turns in (base, ours)]
        walls = [
            Figure.median(f"{label}, {who}", [turn.wall * 1e6 for turn in turned], "µs")
            for who, turned in (("bare", base), ("routed", ours))
        ]
        processors = [statistics.median(turn.processor * 1e6 for turn in t) for t in (base, ours)]
        late = Figure(f"{label}, p99 over {bare}", tail[1] / tail[0], "×")
        report.add(*walls, time_ratio, work, late)
        rows.append(
            [
                str(at_once),
                *(f"{figure.value:.0f}" for figure in walls),
                time_ratio.told(),
                time_ratio.spread,
                late.told(),
                f"{processors[0]:.0f} → {processors[1]:.0f}",
                work.told(),
                f"{1e6 / walls[1].value:,.0f}",
            ]
        )
    print(table(f"{name}, over {bare}", CALL_COLUMNS, rows))


def _ratio(
    name: str, base: Sequence[float], ours: Sequence[float], target: float | None = None
) -> Figure:
    """The ratio of the medians; its rounds are the ratios of neighbours in time."""
    paired = [b / a for a, b in zip(base, ours, strict=True)]
    return Figure(name, statistics.median(ours) / statistics.median(base), "×", target, paired)


# An import ---------------------------------------------------------------------------------------

_CHILD = """
import json, time
def resident():
    try:
        import os
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource, sys
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
resident()
before, started, processor = resident(), time.perf_counter(), time.process_time()
import {modules}
seconds, processor = time.perf_counter() - started, time.process_time() - processor
print(json.dumps([seconds * 1e3, processor * 1e3, (resident() - before) / 1e6]))
"""


def fresh(modules: str) -> tuple[float, float, float]:
    """Milliseconds, processor milliseconds and megabytes of an import in a new interpreter."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # else it asks the network
    done = subprocess.run(
        [sys.executable, "-c", _CHILD.format(modules=modules)],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
        timeout=60,
    )
    wall, processor, megabytes = json.loads(done.stdout.splitlines()[-1])
    return wall, processor, megabytes


def imports(report: Report, effort: Effort) -> None:
    """Import time and memory, over the dependencies alone."""
    base, ours = ", ".join(DEPENDENCIES), "router"
    contenders = [base, ours]
    seen: dict[str, list[tuple[float, float, float]]] = {base: [], ours: []}
    for modules in contenders:
        fresh(modules)  # writes the byte code
    for _ in range(effort.imports):
        for modules in contenders:
            seen[modules].append(fresh(modules))
    rows = []
    for modules, turns in seen.items():
        times, processors, sizes = (list(values) for values in zip(*turns, strict=True))
        target = IMPORT_RATIO if modules == ours else None
        pairs = [[turn[0] for turn in seen[base]], [turn[2] for turn in seen[base]]]
        row = [modules]
        for what, unit, values, over in (
            ("time", "ms", times, pairs[0]),
            ("memory", "MB", sizes, pairs[1]),
        ):
            figure = Figure.median(f"import {modules}, {what}", values, unit)
            ratio = Figure(
                f"import {modules}, {what} over the dependencies",
                figure.value / statistics.median(over),
                "×",
                target,
            )
            report.add(figure, *([ratio] if modules != base else []))
            row += [f"{figure.value:.1f}", ratio.told() if modules != base else ""]
        row.append(f"{statistics.median(processors):.1f}")
        rows.append(row)
    columns = ("import", "ms", "time ×", "MB", "memory ×", "processor, ms")
    note = f"median of {effort.imports} fresh interpreters each, in turns; memory: resident growth"
    print(table("An import", columns, rows, note))


# The peer ----------------------------------------------------------------------------------------


def against_peer(
    report: Report, server: Upstream, edits: Edits, effort: Effort, left: float
) -> None:
    if not is_installed():
        print(f"\n{HOW_TO_INSTALL}")
        return
    if left < PEER_SECONDS:
        print(f"\nthe peer is not measured: it takes {PEER_SECONDS:.0f} s, {left:.0f} are left")
        return
    milliseconds, _, megabytes = fresh("litellm")  # seconds of them: once is enough
    report.add(
        Figure("import litellm, time", milliseconds, "ms"),
        Figure("import litellm, memory", megabytes, "MB"),
    )
    print(f"\nThe peer: `import litellm` takes {milliseconds:,.0f} ms and {megabytes:.0f} MB")
    contenders: dict[tuple[str, int], Callable[[], object]] = {}
    for size in SIZES:
        router = fleet(server.base_url, size)
        learned(router, 1.0, 0.0)
        contenders["router", size] = pick_of(router)
        contenders["litellm", size] = Peer(GROUP, server.base_url, size).pick
    few = replace(effort, picks=10, section=effort.section / 2)  # its pick takes up to 50 ms
    seen = in_turns(contenders, few)
    rows = []
    for name in ("router", "litellm"):
        label = f"pick beside the peer, {name}"
        figures = [Figure.median(f"{label}, {n}", seen[name, n], "µs") for n in SIZES]
        report.add(*figures)
        rows.append([name, *(f"{figure.value:,.1f}" for figure in figures)])
    columns = ("pick, µs", *(f"{size:,}" for size in SIZES))
    print(table("The peer: a pick, by deployments in the group", columns, rows))

    rows = []
    turned = asyncio.run(awaited(edits, few, Peer(GROUP, server.base_url, 4)))
    for at_once, turns in turned.items():
        for name in ("bare", "routed", "peer"):
            wall = [turn.wall * 1e6 for turn in turns[name]]
            label = f"avideo_edit beside the peer, {at_once} at once, {name}"
            figure = Figure.median(label, wall, "µs")
            over = _ratio(f"{label} over bare", [t.wall * 1e6 for t in turns["bare"]], wall)
            work = statistics.median(turn.processor * 1e6 for turn in turns[name])
            report.add(figure, over)
            rows.append(
                [
                    str(at_once),
                    name,
                    f"{figure.value:.0f}",
                    over.told(),
                    f"{work:.0f}",
                    f"{1e6 / figure.value:,.0f}",
                ]
            )
    columns = ("at once", "avideo_edit", "µs", "time × bare", "processor, µs", "calls/s")
    print(table("The peer: a routed avideo_edit", columns, rows))


# The run -----------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.overhead", description="What routing costs.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no peer, under 30 s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there too")
    given = parser.parse_args(arguments)
    effort = QUICK if given.quick else FULL
    # Nothing here may hang: past its time, the run ends with every thread's stack.
    faulthandler.dump_traceback_later(effort.whole, exit=True)
    started = time.monotonic()
    about = machine(["video-router", *DEPENDENCIES[:-1], "pyyaml", "httpcore", "h11", "litellm"])
    report = Report(about)
    print(f"{about['processor']}, {about['cores']} cores, {about['system']}")
    print(f"{about['python']}, {about['event_loop']}")
    print(f"load {about['load_before']}, sum(range(100_000)) takes {about['loop_ms']} ms")
    print(", ".join(f"{name} {version}" for name, version in about["versions"].items()))

    picks(report, effort)
    with upstream() as server:
        edits = Edits(server)
        for seen, name, bare in (
            (asyncio.run(awaited(edits, effort)), "avideo_edit", "httpx.AsyncClient.post"),
            (blocked(edits, effort), "video_edit", "httpx.Client.post"),
        ):
            tell_calls(report, name, bare, seen)
        imports(report, effort)
        left = started + effort.whole - time.monotonic()
        against_peer(report, server, edits, effort, left)
    print(f"\n{report.summary()} in {time.monotonic() - started:.0f} s")
    if given.json is not None:
        given.json.write_text(json.dumps(report.as_json(), indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
