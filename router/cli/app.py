"""The commands together: names, help, exit codes, and the end of every error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import typer

from router import __version__
from router.cli import look
from router.cli.check import check
from router.cli.convert import convert
from router.cli.demo import demo
from router.cli.doctor import doctor
from router.cli.endings import (
    EXIT_CODES,
    FAILED,
    FINE,
    INTERRUPTED,
    USAGE,
    code_of,
    words_of_system,
)
from router.cli.explain import explain
from router.cli.ids import ids
from router.cli.jobs import jobs
from router.cli.keys import keys
from router.cli.operator import drain, release, restore
from router.cli.providers import providers
from router.cli.reads import content, delete, list_videos, wait
from router.cli.serve import serve
from router.cli.stand_in import stand_in
from router.cli.status import status
from router.cli.submits import character, edit, extend, generate, remix
from router.errors import RouterError

__all__ = ["COMMANDS", "app", "run"]

# By the headings of `--help`, in the order in which they are met.
COMMANDS: Mapping[str, Mapping[str, Callable[..., None]]] = {
    "To begin with": {
        "demo": demo,
        "check": check,
        "providers": providers,
        "stand-in": stand_in,
    },
    "A call": {
        "character": character,
        "generate": generate,
        "edit": edit,
        "extend": extend,
        "remix": remix,
        "wait": wait,
        "content": content,
        "list": list_videos,
        "delete": delete,
        "explain": explain,
    },
    "For every language": {"serve": serve},
    "The fleet": {
        "status": status,
        "jobs": jobs,
        "doctor": doctor,
        "drain": drain,
        "restore": restore,
        "release": release,
    },
    "Moving here": {"convert": convert},
}
GROUPS: Mapping[str, Mapping[str, typer.Typer]] = {
    "For every language": {"keys": keys},
    "Moving here": {"ids": ids},
}

# Typer's usage errors have no public name of their own, and stand in `click` or within typer,
# depending on its version. The parent of their parents is the base of them all.
UsageError: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for heading, commands in COMMANDS.items():
    for name, command in commands.items():
        app.command(name, epilog=EXIT_CODES, rich_help_panel=heading)(command)
for heading, groups in GROUPS.items():
    for name, group in groups.items():
        app.add_typer(group, name=name, rich_help_panel=heading)


def _version(wanted: bool) -> None:
    if wanted:
        look.stdout().print(f"{look.PROGRAM} {__version__}")
        raise typer.Exit(FINE)


@app.callback(invoke_without_command=True, epilog=EXIT_CODES)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Tell the version.")
    ] = False,
) -> None:
    """Routes video-model calls over many accounts and vendors."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)
        raise typer.Exit(USAGE)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors end in one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        # A name that the terminal's encoding lacks must not end a command.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        code = app(arguments, prog_name=look.PROGRAM, standalone_mode=False)
    except UsageError as error:
        look.complain(_usage(error))
        return USAGE
    except look.CommandError as error:
        look.complain(error)
        return error.code
    except RouterError as error:
        look.complain(error)
        return code_of(error)
    except BrokenPipeError:
        # Whoever reads has read enough.
        look.closed(sys.stdout)
        return FAILED
    except OSError as error:
        look.complain(words_of_system(error))
        return FAILED
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    if code == INTERRUPTED:
        look.complain("interrupted")
    return int(code or FINE)


def _usage(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else look.PROGRAM
    said = error.format_message() if hasattr(error, "format_message") else str(error)
    said = said.replace("Value error, ", "")  # the validating library's own words
    return f"{said.rstrip('.')}; see `{where} --help`"
