"""One call from the shell: a router for as long as it takes, and what its user is told.

On stdout comes what was asked for: the id of what was made, alone, or all of it as JSON. On stderr
comes the rest: how it was served, how far the job is, what may go wrong. An id is told as soon as
it is known, since whoever is interrupted, or killed, wants to go on with it.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

from router.cli import look
from router.cli.endings import (
    INTERRUPTED,
    Shell,
    code_of,
    happened,
    look_for_it,
    words_of,
    words_of_system,
)
from router.cli.onlooker import filled, loaded
from router.cli.servers import ended_by_signals
from router.config import Config
from router.errors import (
    JobFailedError,
    RouterError,
    RouterWarning,
    StateUnavailableError,
    VideoExpiredError,
    WaitTimeoutError,
)
from router.events import Attempted, Event, Picked
from router.router import Router
from router.types import Answer, AttemptRecord, Operation, Routing, Video

__all__ = [
    "Account",
    "Deadline",
    "Follow",
    "MaxCost",
    "Model",
    "Models",
    "Output",
    "Seconds",
    "Session",
    "Size",
    "Timeout",
    "WaitTimeout",
    "answer_data",
    "calling",
    "number",
    "progress_words",
    "routing_data",
    "routing_of",
    "where_it_lives",
    "writable",
]

# Options that several commands have -----------------------------------------------------------


def number(text: str) -> str:
    """A positive number as it was written: what lengths a provider takes is its own matter."""
    try:
        good = 0 < float(text) < float("inf")
    except ValueError:
        good = False
    if not good:
        raise typer.BadParameter(f"'{text}' is no positive number")
    return text


def _amount(text: str) -> float:
    return float(number(text))


def _groups(text: str) -> str:
    for name in text.split(","):
        filled(name)
    return text


def writable(path: Path | None) -> Path | None:
    """Asked before anything is paid: whether the video will find a place."""
    if path is None:
        return None
    folder = path.parent
    if path.is_dir():
        raise typer.BadParameter(f"'{path}' is a folder; name a file in it")
    if path.exists() and not path.is_file():
        raise typer.BadParameter(f"'{path}' is a device or a pipe; name a file")
    if not folder.is_dir():
        raise typer.BadParameter(f"there is no folder '{folder}'")
    if not os.access(folder, os.W_OK):
        raise typer.BadParameter(f"nothing may be written into the folder '{folder}'")
    return path


Model = Annotated[
    str | None,
    typer.Option("--model", metavar="GROUP", parser=filled, help="The model group to ask."),
]
Models = Annotated[
    str | None,
    typer.Option(
        "--target-model-names",
        metavar="A,B",
        parser=_groups,
        help="Several groups; the best of them all serves.",
    ),
]
Account = Annotated[
    str | None,
    typer.Option(
        "--account",
        metavar="NAME",
        parser=filled,
        help="Only this one; needed for a provider's own ids.",
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option("--timeout", metavar="S", parser=_amount, help="Seconds for one attempt."),
]
Deadline = Annotated[
    float | None,
    typer.Option("--deadline", metavar="S", parser=_amount, help="Seconds for the whole call."),
]
Seconds = Annotated[
    str | None,
    typer.Option("--seconds", metavar="S", parser=number, help="The length of the video."),
]
Size = Annotated[
    str | None,
    typer.Option(
        "--size", metavar="WxH", parser=filled, help="The size of the picture, as 1280x720."
    ),
]
MaxCost = Annotated[
    float | None,
    typer.Option(
        "--max-cost",
        metavar="DOLLARS",
        parser=_amount,
        help="Nobody who asks more for it is asked.",
    ),
]
WaitTimeout = Annotated[
    float | None,
    typer.Option(
        "--wait-timeout",
        metavar="S",
        parser=_amount,
        help="Seconds to wait for the job; by default as long as it takes.",
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        callback=writable,
        help="Wait, and download the video to here.",
    ),
]

# The session ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Follow:
    """Whether a job is waited for, for how many seconds at most, and where its video goes."""

    wait: bool
    output: Path | None = None
    wait_timeout: float | None = None

    def __post_init__(self) -> None:
        if self.wait_timeout is not None and not self.wanted:
            said = "nothing is waited for: add --wait, or --output FILE"
            raise typer.BadParameter(said, param_hint="--wait-timeout")

    @property
    def wanted(self) -> bool:
        return self.wait or self.output is not None

    @property
    def to(self) -> tuple[str, ...]:
        """The words that say where the video goes."""
        return () if self.output is None else ("--output", str(self.output))


class Trail:
    """Where submits went, by the router's events: what to tell who interrupts one."""

    def __init__(self) -> None:
        self.attempts: list[Attempted] = []
        self._under_way: dict[str, Picked] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Picked):
            self._under_way[event.deployment] = event
        elif isinstance(event, Attempted):
            self._under_way.pop(event.deployment, None)
            self.attempts.append(event)

    def maybe(self) -> list[Picked | Attempted]:
        """The submits that may have started something."""
        ended = [one for one in self.attempts if one.accepted != "no"]
        every: list[Picked | Attempted] = [*ended, *self._under_way.values()]
        return [one for one in every if Operation(one.operation).is_submit]


@dataclass
class Session:
    """One command's router, and what is known by now: `go_on` are the words that go on with it."""

    shell: Shell
    as_json: bool
    config: Config | None = None
    trail: Trail = field(default_factory=Trail)
    go_on: tuple[str, ...] | None = None
    told: str | None = None
    warned: set[str] = field(default_factory=set)
    exists: bool = False
    waiting_since: float | None = None
    unread: bool = False
    _router: Router | None = None

    @property
    def router(self) -> Router:
        assert self._router is not None
        return self._router

    # Telling ------------------------------------------------------------------------------------

    def note(self, what: str) -> None:
        """How things are; a program is told all at once, in the end."""
        if not self.as_json:
            look.note(what)

    def warn(self, what: str) -> None:
        """What the user may want to mend; once, whoever says it."""
        if what not in self.warned:
            self.warned.add(what)
            look.warn(what)

    @contextmanager
    def taking_advice(self) -> Iterator[None]:
        """The router's advice comes before a call is sent, as a warning of Python's."""
        with warnings.catch_warnings():
            show = warnings.showwarning

            def heard(
                message: Warning | str,
                category: type[Warning],
                filename: str,
                lineno: int,
                file: TextIO | None = None,
                line: str | None = None,
            ) -> None:
                if issubclass(category, RouterWarning):
                    self.warn(str(message))
                else:
                    show(message, category, filename, lineno, file, line)

            warnings.simplefilter("always", RouterWarning)
            warnings.showwarning = heard
            yield

    def tell(self, id_: str) -> None:
        """The id, alone on stdout, at once and once."""
        if self.told != id_ and not self.as_json:
            self.told = id_
            self._deliver(id_, lambda: look.say(id_))

    def end(self, data: dict[str, Any], made: str | None = None) -> None:
        """All of it, for a program; `made` is the id of what this command has made."""
        if not self.as_json:
            return
        if made is None:
            look.show_json(data)
        else:
            self._deliver(made, lambda: look.show_json(data))

    def _deliver(self, id_: str, say: Callable[[], None]) -> None:
        if sys.stdout is None:  # closed by who started us
            look.warn(f"stdout is closed; the id is {id_}")
            self.unread = True
            return
        try:
            say()
        except OSError as error:
            # It may have cost dollars: its id must not be lost with a reader that is gone.
            look.closed(sys.stdout)
            look.warn(f"stdout took nothing ({error.strerror}); the id is {id_}")
            self.unread = True

    # Following ----------------------------------------------------------------------------------

    def known(self, video_id: str, follow: Follow) -> None:
        """From now on the job has a name."""
        self.exists = True
        self.go_on = ("wait", video_id, *follow.to)
        self.tell(video_id)

    def follow(self, ask: Callable[..., Video], follow: Follow) -> Video:
        """Wait by `ask`, which calls `on_progress` with each look."""
        began = self.waiting_since = time.monotonic()
        with self._moving() as show, self._hearing():

            def seen(video: Video) -> None:
                self.known(video.id, follow)
                show(video)

            video = ask(wait_timeout=follow.wait_timeout, on_progress=seen)
        self.note(f"completed; waited {look.took(time.monotonic() - began)}")
        return video

    def save(self, video_id: str, output: Path, **options: Any) -> Path:
        self.exists = True
        self.go_on = ("content", video_id, "--output", str(output))
        path = self.router.video_content(video_id, to=output, **options)
        self.note(f"saved {path}, {look.size(path.stat().st_size)}")
        self.go_on = None
        return path

    @contextmanager
    def _hearing(self) -> Iterator[None]:
        """While a job is waited for, the router's log alone says that looks at it fail."""
        heard, logger = _Looks(self), logging.getLogger("router")
        level = logger.level
        logger.addHandler(heard)
        logger.setLevel(logging.INFO)
        try:
            yield
        finally:
            logger.setLevel(level)
            logger.removeHandler(heard)

    @contextmanager
    def _moving(self) -> Iterator[Callable[[Video], None]]:
        """How far the job is: a bar on a terminal, else a line for each change."""
        err = look.stderr()
        if self.as_json:
            yield lambda video: None
        elif look.moves(err):
            with look.Bars(err) as bars:
                yield bars.add()
        else:
            yield _Steps(self.note)

    # Ending -------------------------------------------------------------------------------------

    def interrupted(self) -> str:
        if self.go_on is not None:
            return f"interrupted; {self._going_on()}"
        for one in self.trail.maybe():
            advice = look_for_it(one.account, one.operation, self.shell, self.config, one.at)
            return f"interrupted before the answer came; {advice}"
        return "interrupted; nothing was started"

    def failed(self, error: RouterError) -> str:
        if isinstance(error, WaitTimeoutError) and self.go_on is not None:
            return f"{self._timed_out(error)}; {self._going_on()}"
        words = words_of(error, self.shell, self.config)
        ends = isinstance(error, (JobFailedError, VideoExpiredError, WaitTimeoutError))
        if self.go_on is None or not self.exists or ends:
            return words
        return f"{words}; {self._going_on()}"

    def _timed_out(self, error: WaitTimeoutError) -> str:
        assert self.waiting_since is not None
        waited = look.took(time.monotonic() - self.waiting_since)
        known = error.last_status
        how = f"the job is {known} after" if known else "the job was not seen in"
        last = error.__cause__
        why = f" (the last look: {happened(last)})" if isinstance(last, RouterError) else ""
        return f"{how} {waited} of waiting{why}"

    def _going_on(self) -> str:
        assert self.go_on is not None
        waits = self.go_on[0] == "wait"
        what = "the job goes on, follow it with" if waits else "the video is made, get it with"
        return f"{what} {self.shell.command(*self.go_on)}"


class _Looks(logging.Handler):
    """Tells that looks at a job begin to fail, and that they go well again."""

    def __init__(self, session: Session) -> None:
        super().__init__(logging.INFO)
        self._session = session

    def emit(self, record: logging.LogRecord) -> None:
        change = getattr(record, "change", None)
        if change == "job-unheard" and isinstance(record.args, tuple):
            (why,) = (arg for arg in record.args if isinstance(arg, RouterError))
            words = words_of(why, self._session.shell, self._session.config)
            look.warn(f"the job cannot be looked at, and this goes on trying: {words}")
        elif change == "job-heard":
            look.note("the job can be looked at again")


class _Steps:
    """A line for each change, where nothing may move: of ten per cent or more."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._last = ("queued", 0)

    def __call__(self, video: Video) -> None:
        step = (video.status, int(video.progress or 0) // 10)
        if video.done or video.failed or step == self._last:
            return
        self._last = step
        self._say(progress_words(video))


def progress_words(video: Video) -> str:
    """`queued`, `in_progress, 40 %`."""
    told = look.plain(video.status)
    return f"{told}, {video.progress:.0f} %" if video.progress and not video.done else told


@contextmanager
def calling(file: str, as_json: bool, *, onlooker: bool = False) -> Iterator[Session]:
    """A router for one command. All that goes wrong in it ends as one line and an exit code."""
    # What is to be told, the commands tell.
    logging.getLogger("router").addHandler(logging.NullHandler())
    session = Session(Shell(file), as_json)
    try:
        session.config = loaded(file)
        with (
            ended_by_signals(),
            session.taking_advice(),
            Router.from_yaml(file, on_event=session.trail, onlooker=onlooker) as router,
        ):
            session._router = router
            _meet(session)
            yield session
    except KeyboardInterrupt:
        raise look.CommandError(session.interrupted(), INTERRUPTED) from None
    except RouterError as error:
        raise look.CommandError(session.failed(error), code_of(error)) from error
    except BrokenPipeError:
        look.closed(sys.stdout)
        raise typer.Exit(1) from None
    except OSError as error:
        said = words_of_system(error)
        if session.go_on is not None:
            said += f"; {session._going_on()}"
        raise look.CommandError(said) from error
    if session.unread:
        raise typer.Exit(1)


def _meet(session: Session) -> None:
    """Hear what the fleet knows before the first pick: this process has nothing of its own."""
    try:
        session.router.share()
    except StateUnavailableError as error:
        look.warn(f"{happened(error)}; this goes on without what the fleet knows")


# Answers ------------------------------------------------------------------------------------------


def answer_data(answer: Answer, routing: Routing | None = None, **more: Any) -> dict[str, Any]:
    """An answer for a program, with how it was served as a key of its own."""
    served = routing_data(routing or answer.routing)
    return {**answer.model_dump(mode="json"), "routing": served, **more}


def routing_data(routing: Routing | None) -> dict[str, Any] | None:
    return None if routing is None else asdict(routing)


def routing_of(attempts: list[Attempted]) -> Routing | None:
    """How a call was served whose answer does not say it, by its events."""
    if not attempts:
        return None
    last = attempts[-1]
    records = tuple(
        AttemptRecord(a.deployment, a.account, a.seconds, a.status, a.result, a.request_id)
        for a in attempts
    )
    return Routing(last.deployment, last.account, records, sum(a.seconds for a in attempts))


def where_it_lives(router: Router, id_: str) -> str:
    """The account, or the accounts, that an id of ours names."""
    with suppress(RouterError):
        return ", ".join(copy.account for copy in router.describe_id(id_).copies)
    return ""
