"""`video-router keys`: keys for the proxy. The configuration holds no key, but its digest."""

from __future__ import annotations

import getpass
import secrets
import sys
from io import TextIOWrapper
from typing import Annotated

import typer
import yaml
from rich.text import Text

from router.cli import look
from router.cli.endings import EXIT_CODES
from router.cli.onlooker import AsJson
from router.proxy_settings import digest_of_key

__all__ = ["keys"]

# To be recognised where one turns up that should not: by people, and by what looks for secrets.
PREFIX = "vr-"
RANDOM_BYTES = 32

Name = Annotated[
    str,
    typer.Option("--name", metavar="NAME", help="Whose key it is: what its ids are signed for."),
]

keys = typer.Typer(context_settings={"help_option_names": ["-h", "--help"]})


@keys.callback(invoke_without_command=True, epilog=EXIT_CODES)
def root(context: typer.Context) -> None:
    """Keys for who calls `serve`."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), nl=False)
        raise typer.Exit(2)


@keys.command("new", epilog=EXIT_CODES)
def new(name: Name = "NAME", as_json: AsJson = False) -> None:
    """Make a key.

    On stdout comes the key, which is nowhere kept, and on stderr what to write into the
    configuration: not the key, but its digest.
    """
    key = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
    digest = digest_of_key(key)
    if as_json:
        look.show_json({"name": name, "key": key, "sha256": digest})
        return
    look.say(key)
    _paste("this is the only time that it is shown; add to the configuration:", name, digest)


@keys.command("hash", epilog=EXIT_CODES)
def hash_(name: Name = "NAME", as_json: AsJson = False) -> None:
    """Tell what an existing key is known by. It is read from stdin, and never from the arguments,
    which everybody on this machine may see."""
    key = _typed() if sys.stdin is not None and sys.stdin.isatty() else _piped()
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        raise look.CommandError("a key is one line of ASCII without spaces, on stdin")
    digest = digest_of_key(key)
    if as_json:
        look.show_json({"name": name, "sha256": digest})
        return
    look.say(digest)
    _paste("add to the configuration:", name, digest)


def _typed() -> str:
    return getpass.getpass("key: ").strip()


def _piped() -> str:
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # bytes that are no text make no key
    return sys.stdin.read().strip() if sys.stdin is not None else ""


def _paste(head: str, name: str, digest: str) -> None:
    entry = yaml.safe_dump(
        {"name": name, "sha256": digest},
        default_flow_style=True,
        sort_keys=False,
        allow_unicode=True,
        width=sys.maxsize,
    )
    lines = (head, "", "proxy:", "  keys:", f"    - {entry.strip()}")
    look.stderr().print(Text("\n".join(lines)), soft_wrap=True)
