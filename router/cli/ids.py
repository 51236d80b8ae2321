"""`video-router ids locate`: providers' and LiteLLM's ids, as they stand in a database, to ours."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import TextIOWrapper
from itertools import islice
from typing import Annotated, TextIO

import typer

from router.cli import look
from router.cli.calling import Session, calling
from router.cli.endings import EXIT_CODES, happened, words_of
from router.cli.onlooker import DEFAULT_FILE, AsJson, File, filled
from router.errors import InvalidIdError, NotFoundError, RouterError
from router.ids import quoted
from router.router import Router

__all__ = ["ids"]

AT_ONCE = 8

ids = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]})


@ids.callback(invoke_without_command=True, epilog=EXIT_CODES)
def root(context: typer.Context) -> None:
    """Ids of videos and characters, from elsewhere to here."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)
        raise typer.Exit(2)


@ids.command("locate", epilog=EXIT_CODES)
def locate(
    named: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[ID]...",
            parser=filled,
            help="By default they are read from stdin, one a line.",
        ),
    ] = None,
    config: File = DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Find who owns an id of a provider's or of LiteLLM's, and tell our id of it.

    Each account is asked for it, by a free read. On stdout comes a line for each that was found:
    the id as it was given, a tab, ours. Those that were not stand on stderr, and the exit code is 1
    then.
    """
    if not named and (sys.stdin is None or sys.stdin.isatty()):
        raise typer.BadParameter("name ids, or give them on stdin", param_hint="ID")
    given = named or _lines(sys.stdin)
    with calling(config, as_json) as session:
        missing = _all(session, (id_ for id_ in given if id_))
    if missing:
        raise typer.Exit(1)


def _lines(stream: TextIO) -> Iterator[str]:
    """What stands on each line; bytes that are no text end nothing."""
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="surrogateescape")
    return (line.strip() for line in stream)


def _all(session: Session, given: Iterable[str]) -> int:
    """How many were not found."""
    found: dict[str, str] = {}
    failed: dict[str, str] = {}
    for id_, result in _located(session.router, given):
        if isinstance(result, str):
            found[id_] = result
            if not session.as_json:
                print(f"{id_}\t{result}", file=look.stdout().file, flush=True)
        else:
            failed[id_] = _why(id_, result, session)
            if not session.as_json:
                look.complain(f"{quoted(id_)[1:-1]}: {failed[id_]}")
    if session.as_json:
        escaped = {_escaped(id_): why for id_, why in failed.items()}
        look.show_json({"located": found, "failed": escaped})
    if not found and not failed:
        session.warn("no id was given: stdin had none")
    return len(failed)


def _why(id_: str, error: RouterError, session: Session) -> str:
    """Without the id, which stands before it, and without what to do about a single one."""
    single = isinstance(error, (InvalidIdError, NotFoundError))
    words = happened(error) if single else words_of(error, session.shell, session.config)
    for named in (quoted(id_), repr(id_)):
        words = words.replace(f"the id {named}", "it").replace(named, "it")
    return words


def _escaped(id_: str) -> str:
    """As it was given; a byte that is no text as `\\xff`."""
    return id_.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _located(router: Router, given: Iterable[str]) -> Iterator[tuple[str, str | RouterError]]:
    """In the order given, some at once."""
    waiting = iter(given)
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="locate") as pool:
        while some := list(islice(waiting, AT_ONCE)):
            yield from zip(some, pool.map(lambda id_: _one(router, id_), some), strict=True)


def _one(router: Router, id_: str) -> str | RouterError:
    try:
        return router.locate(id_)
    except RouterError as error:
        return error
