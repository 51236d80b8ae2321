"""`video-router demo --workers`: several workers, one Redis, and a deployment that fails half-way.

    workers ──jobs──► east, west, north          a provider process each
       └───────Redis───────┘
    east begins to answer 503 ──► one worker is refused ──► all leave it ──► all take it back

Everything is real: processes, HTTP, Redis. What is measured is what the workers themselves tell, by
the one clock of this machine: when each of them knew that east is out, after the first that did.
"""

from __future__ import annotations

import math
import secrets
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from router.cli import embedded, look, servers
from router.cli.crew import Crew, Told
from router.cli.outage_view import Scene, brief, line, milliseconds, paragraph, picture
from router.cli.servers import Server
from router.errors import StateUnavailableError
from router.inspection import Overview
from router.router import Router

__all__ = ["show"]

GROUP = "sora-2"
FAILING = "east"
# The quickest fails: it is the one that everybody would like best.
LATENCIES = {FAILING: 0.05, "west": 0.06, "north": 0.07}
CALLS_AT_A_TIME = 5
# The slots of all three are a few more than the calls at a time, those of two are fewer. So one
# sees them fill and calls wait for room; and nobody is left alone for having been slow once.
SPARE = 1.1
WAIT_SECONDS = 60.0
REFUSAL = {"error": {"message": "out of GPUs", "type": "server_error", "code": None}}

# How often a worker looks whether it has heard; many look less often, since looking, too, keeps a
# processor from the news.
WATCH_SECONDS = 0.001
WATCHERS = 6

LOOK_SECONDS = 0.5
DRAW_SECONDS = 0.1
LINE_SECONDS = 2.0
# How long it goes on at most beyond its end, for machines that have something else to do.
OVERTIME_SECONDS = 30.0
# A provider that asks for a pause is well again before it is over.
WELL_AFTER = 0.7
# How long the news may take to reach all, before those are told of whom it has reached.
NEWS_SECONDS = 2.0


def show(
    out: Console, *, workers: int, redis: str, seconds: float, job_seconds: float, seed: int
) -> None:
    """Play it from its beginning to its end; `redis` is a URL, or the word for one of our own.

    Exits with 1 where the fleet did not do what it is to do.
    """
    out.print("[bold]video-router demo[/]: real workers, real HTTP, a real Redis, and no bill\n")
    namespace = f"video-router-demo-{secrets.token_hex(4)}"
    fleet = _providers(workers, job_seconds)
    with servers.ended_by_signals(), ExitStack() as stack:
        own = redis == embedded.EMBEDDED
        url = stack.enter_context(embedded.serving()) if own else redis
        client, where = stack.enter_context(_client(url, namespace))
        _introduce(out, fleet, "of its own at " + where if own else where, workers)
        # Side by side with the providers, since each takes its time to start.
        crew = stack.enter_context(Crew.started(workers))
        urls = stack.enter_context(servers.running(fleet))
        config = _config(fleet, urls, url, namespace)
        onlooker = stack.enter_context(
            Router.from_dict(config, environ={}, redis=client, onlooker=True)
        )
        told = {"config": config, "seed": seed, "group": GROUP, "watch": FAILING}
        watching = WATCH_SECONDS * math.ceil(workers / WATCHERS)
        crew.prepare({**told, "calls": CALLS_AT_A_TIME, "look": watching})
        good = Outage(out, crew, onlooker, urls, seconds).play()
    if not good:
        raise typer.Exit(1)


def _providers(workers: int, job_seconds: float) -> tuple[Server, ...]:
    slots = math.ceil(SPARE * workers * CALLS_AT_A_TIME / len(LATENCIES))
    return tuple(
        Server(name, latency=latency, job_seconds=job_seconds, max_running_jobs=slots)
        for name, latency in LATENCIES.items()
    )


@contextmanager
def _client(url: str, namespace: str) -> Iterator[tuple[Any, str]]:
    """A client of a Redis that answers, and what to call it; our keys there go with us."""
    import redis.exceptions  # heavy, and the commands that need none are many

    from router.state import connecting

    try:
        client, where = connecting.connect(url), connecting.shown(url)
        client.ping()
    except ValueError as error:
        raise look.CommandError(f"--redis: {error}") from error
    except redis.exceptions.RedisError as error:
        raise look.CommandError(f"Redis at {where} does not answer: {error}") from error
    try:
        yield client, where
    finally:
        # Where we may not, or it is gone, they lapse by themselves.
        with suppress(redis.exceptions.RedisError):
            for key in client.scan_iter(match=f"{{{namespace}}}:*", count=1000):
                client.unlink(key)
        client.close()


def _config(
    fleet: Sequence[Server], urls: Mapping[str, str], url: str, namespace: str
) -> dict[str, Any]:
    return {
        "settings": {
            "redis_url": url,
            "namespace": namespace,
            "deadline": WAIT_SECONDS,
            "max_wait": WAIT_SECONDS,
        },
        "accounts": {one.name: {"base_url": urls[one.name], "api_key": one.key} for one in fleet},
        "deployments": [
            {
                "id": one.name,
                "model_name": GROUP,
                "account": one.name,
                "max_parallel_jobs": one.max_running_jobs,
            }
            for one in fleet
        ],
    }


def _introduce(out: Console, fleet: Sequence[Server], where: str, workers: int) -> None:
    one = fleet[0]
    slots = f"jobs of {one.job_seconds:g} s, {one.max_running_jobs} at a time"
    names = look.listed(server.name for server in fleet)
    calls = f"{CALLS_AT_A_TIME} calls at a time"
    for name, told in (
        ("redis", where),
        ("fleet", f"{names}: a process each, {slots}"),
        ("workers", f"{workers} of them, a process each with {calls}, over that Redis"),
    ):
        out.print(Text.assemble("  ", (f"{name:<9}", "bold"), told), soft_wrap=True)


class Outage:
    """The show: its clock, what is to happen when, and what has happened."""

    def __init__(
        self,
        out: Console,
        crew: Crew,
        onlooker: Router,
        urls: Mapping[str, str],
        seconds: float,
    ) -> None:
        self._out = out
        self._crew = crew
        self._onlooker = onlooker
        self._urls = urls
        self._seconds = seconds
        # What the failing one asks for; it is well again a little earlier, as it should be.
        self._pause = max(2, round(seconds / 4))
        self._seen: Overview | str = "looking"
        self._began = time.time()
        # When it came about, in Unix seconds: the fault, the first who left, the news at all of
        # them, the end of the fault, and the first job there since.
        self._failed: float | None = None
        self._first: float | None = None
        self._all_told = False
        self._mended: float | None = None
        self._until = 0.0
        self._served: float | None = None
        self._live: Live | None = None

    # The course of it ---------------------------------------------------------------------------

    def play(self) -> bool:
        """All of it; whether the fleet did what it is to do."""
        with self._moving():
            self._began = time.time()
            self._crew.order("go")
            looked = drawn = 0.0
            while not self._is_over():
                if (told := self._crew.hear(DRAW_SECONDS)) is not None:
                    self._take(told)
                self._conduct()
                now = time.monotonic()
                if now - looked >= LOOK_SECONDS:
                    self._look()
                    looked = now
                if now - drawn >= (DRAW_SECONDS if self._live else LINE_SECONDS):
                    self._draw()
                    drawn = now
            for told in self._crew.finish():
                self._take(told)
            self._look()
            self._draw()
        return self._conclude()

    @contextmanager
    def _moving(self) -> Iterator[None]:
        self._out.print()
        if not look.moves(self._out):
            yield
            return
        with Live(console=self._out, auto_refresh=False) as self._live:
            yield

    def _is_over(self) -> bool:
        passed = time.time() - self._began
        if passed < self._seconds:
            return False
        return self._served is not None or passed > self._seconds + OVERTIME_SECONDS

    def _conduct(self) -> None:
        now = time.time()
        if self._failed is None and now >= self._began + self._seconds / 2:
            self._fail()
        if self._first is not None and not self._all_told:
            self._tell_who_left(now)
        if self._mended is None and self._first and now >= self._first + WELL_AFTER * self._pause:
            servers.mend(self._urls[FAILING])
            self._mended = time.time()
            self._tell(self._mended, f"{FAILING} is well again; nobody has been told")

    def _fail(self) -> None:
        self._crew.order("watch")
        servers.spoil(
            self._urls[FAILING],
            kind="status",
            status=503,
            operation="generation",
            times=None,
            headers={"Retry-After": str(self._pause)},
            body=REFUSAL,
        )
        self._failed = time.time()
        told = f"{FAILING} begins to fail: it answers new jobs with 503, Retry-After {self._pause}"
        self._tell(self._failed, told, "red")

    def _take(self, told: Told) -> None:
        if told.what in ("left", "ejected"):
            if self._first is None or told.at < self._first:
                self._first = told.at
            self._until = max(self._until, told.at + told.more["seconds"])
        elif told.what == "served" and (self._served is None or told.at < self._served):
            if self._served is None:
                self._tell(
                    told.at,
                    f"{FAILING} is back: worker {told.worker} has a job there, "
                    f"{look.seconds(max(told.at - self._until, 0.0))} after its time",
                    "green",
                )
            self._served = told.at
        elif told.what == "failed":
            self._tell(told.at, f"a call of worker {told.worker} failed: {told.more['why']}", "red")

    def _tell_who_left(self, now: float) -> None:
        """In a line, as soon as all have left, or those who have when the others should have."""
        assert self._first is not None
        left = self._left()
        if len(left) < len(self._crew.workers) and now < self._first + NEWS_SECONDS:
            return
        self._all_told = True
        (first, _), *others = left
        self._tell(self._first, f"worker {first} is refused there, and takes it out of rotation")
        if others:
            told = ", ".join(f"{number} after {milliseconds(after)}" for number, after in others)
            self._tell(self._first, f"the others leave it too: worker {told}", "yellow")

    def _left(self) -> list[tuple[int, float]]:
        """Which workers have left, and how many seconds after the first."""
        assert self._first is not None
        known = [(w.number, w.left - self._first) for w in self._crew.workers if w.left is not None]
        return sorted(known, key=lambda one: one[1])

    # Showing ------------------------------------------------------------------------------------

    def _look(self) -> None:
        try:
            self._seen = self._onlooker.overview()
        except StateUnavailableError as error:
            self._seen = str(error)

    def _scene(self) -> Scene:
        passed = time.time() - self._began
        workers, names = self._crew.workers, tuple(LATENCIES)
        return Scene(passed, self._seconds, self._seen, workers, names, FAILING, self._first)

    def _draw(self) -> None:
        scene = self._scene()
        if self._live is not None:
            self._live.update(picture(self._out, scene), refresh=True)
        else:
            self._out.print(line(self._out, scene.passed, brief(scene)))

    def _tell(self, at: float, what: str, style: str = "") -> None:
        self._out.print(line(self._out, at - self._began, Text(what, style)))

    # The end of it ------------------------------------------------------------------------------

    def _conclude(self) -> bool:
        workers = self._crew.workers
        asked = sum(worker.asked - worker.not_started for worker in workers)
        accepted = servers.accepted(self._urls.values())
        failed = sum(worker.failed for worker in workers)
        strayed = sum(worker.strayed for worker in workers)
        left = self._left() if self._first is not None else []
        good = (
            asked == accepted
            and not failed
            and not strayed
            and len(left) == len(workers)
            and self._served is not None
        )
        self._out.print()
        for told in (
            self._books(asked, accepted, failed),
            self._leaving(left, strayed),
            self._return(),
        ):
            self._out.print(paragraph(self._out, Text(told)))
        return good

    def _books(self, asked: int, accepted: int, failed: int) -> str:
        same = "nothing was paid twice" if asked == accepted else "that is not the same"
        refused = sum(worker.refused for worker in self._crew.workers)
        lost = f"{look.plural(failed, 'call')} failed" if failed else "no call failed"
        return (
            f"{asked} jobs were asked for, and the providers' own books show {accepted}: {same}. "
            f"{FAILING} refused {look.plural(refused, 'submit')}, which went elsewhere; {lost}."
        )

    def _leaving(self, left: Sequence[tuple[int, float]], strayed: int) -> str:
        count = len(self._crew.workers)
        if len(left) < count:
            return f"Only {len(left)} of {look.plural(count, 'worker')} left {FAILING}."
        after = [seconds for _, seconds in left[1:]]
        if not after:
            how = f"The worker left {FAILING} at once"
        else:
            median, worst = statistics.median(after), max(after)
            how = (
                f"After the first worker had left {FAILING}, the others followed within "
                f"{milliseconds(worst)} (median {milliseconds(median)})"
            )
        went = look.plural(strayed, "job") if strayed else "no job"
        return f"{how}; {went} went there while it was out."

    def _return(self) -> str:
        if self._served is None or self._first is None:
            return f"{FAILING} has not served again."
        return (
            f"{FAILING} had asked for a pause of {self._pause} s. It served again "
            f"{self._served - self._first:.1f} s after the first worker had left it."
        )
