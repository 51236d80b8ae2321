"""`video-router providers`: what each provider can do, and which arguments it takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, TypeAlias

import typer

from router.cli import look
from router.providers import OPTIONAL, PROVIDERS
from router.types import Operation

__all__ = ["Able", "can_do", "markdown", "providers", "taken"]

_YES, _NO = "yes", "–"


def providers(
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print a table in Markdown, as the README has it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Show what each provider can do: its operations, and below each the arguments that it takes.

    A deployment is no candidate for a call that it cannot take: see `drop_params` in the README.
    """
    if as_json:
        look.show_json({name: taken(PROVIDERS[name].parameters) for name in PROVIDERS})
    elif as_markdown:
        typer.echo(markdown())
    else:
        out = look.stdout()
        table = look.table("", *map(", ".join, _alike()))
        for row in _rows():
            table.add_row(*row)
        out.print(table if look.fits(out, table) else _lines(), soft_wrap=True)


Able: TypeAlias = Mapping[Operation, frozenset[str]]
"""Operations, each with its optional arguments that are taken."""


def taken(able: Able) -> dict[str, list[str]]:
    """The same for programs, in the order of the table."""
    return {str(one): sorted(able[one]) for one in OPTIONAL if one in able}


def can_do(able: Able) -> str:
    """The same for people, in one line."""
    if able == OPTIONAL:
        return f"all {len(able)}"
    return ", ".join(_told(one, able[one]) for one in sorted(able))


def _told(operation: Operation, arguments: frozenset[str]) -> str:
    lacking = OPTIONAL[operation] - arguments
    return f"{operation} (no {', '.join(sorted(lacking))})" if lacking else str(operation)


def markdown() -> str:
    """The table of the README: operations and arguments down, providers across."""
    head = ["", *(", ".join(f"`{name}`" for name in names) for names in _alike())]
    rows = [[f"`{row[0]}`" if row[0][0] != "·" else row[0], *row[1:]] for row in _rows()]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def _lines() -> str:
    """One line for each of those who can do the same, where no table fits."""
    return "\n".join(
        f"{', '.join(names)}: {can_do(PROVIDERS[names[0]].parameters)}" for names in _alike()
    )


def _alike() -> list[tuple[str, ...]]:
    """The providers, those together that can do the same."""
    found: dict[str, tuple[str, ...]] = {}
    for name in PROVIDERS:
        can = repr(taken(PROVIDERS[name].parameters))
        found[can] = (*found.get(can, ()), name)
    return list(found.values())


def _rows() -> Iterator[list[str]]:
    able = [taken(PROVIDERS[names[0]].parameters) for names in _alike()]
    for operation, optional in OPTIONAL.items():
        yield [str(operation), *(_YES if operation in can else _NO for can in able)]
        for name in sorted(optional):
            yield [f"· {name}", *(_YES if name in can.get(operation, ()) else _NO for can in able)]
