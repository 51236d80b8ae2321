"""The commands together: names, help, exit codes, and the end of every error."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from router import __version__
from router.cli import look
from router.cli.check import check
from router.cli.demo import demo
from router.cli.doctor import doctor
from router.cli.jobs import jobs
from router.cli.operator import drain, release, restore
from router.cli.stand_in import stand_in
from router.cli.status import status
from router.errors import RouterError

__all__ = ["app", "run"]

FINE, PROBLEMS, USAGE, INTERRUPTED = 0, 1, 2, 130

EXIT_CODES = (
    "**Exit codes:** 0 all is well, 1 problems were found or a call failed, "
    "2 wrong usage, 130 interrupted."
)

# Typer's usage errors have no public name of their own, and stand in `click` or within typer,
# depending on its version. The parent of their parents is the base of them all.
UsageError: type[Exception] = typer.BadParameter.__mro__[2]

app = typer.Typer(
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (check, demo, status, jobs, drain, restore, release, doctor, stand_in):
    app.command(epilog=EXIT_CODES)(command)


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
    except (look.CommandError, RouterError) as error:
        look.complain(error)
        return PROBLEMS
    except OSError as error:
        look.complain(": ".join(str(part) for part in (error.filename, error.strerror) if part))
        return PROBLEMS
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    if code == INTERRUPTED:
        look.complain("interrupted")
    return int(code or FINE)


def _usage(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    where = context.command_path if context is not None else look.PROGRAM
    said = error.format_message() if hasattr(error, "format_message") else str(error)
    return f"{said.rstrip('.')}; see `{where} --help`"
