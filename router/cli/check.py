"""`video-router check`: all that is wrong with a configuration, or what is in it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console, Group, RenderableType
from rich.text import Text

from router.cli import look
from router.cli.onlooker import DEFAULT_FILE, filled
from router.cli.providers import can_do, taken
from router.config import Config, Deployment, load_file
from router.errors import ConfigError
from router.providers import PROVIDERS, abilities
from router.router import VOCABULARY

__all__ = ["check", "placed", "refuse"]

NAMES = ("deployment", "groups", "account", "provider", "model", "base_url")
_HIDES = Path("router.py")
NUMBERS = ("weight", "order")


def check(
    file: Annotated[
        str,
        typer.Argument(
            metavar="[FILE]", envvar="ROUTER_CONFIG", parser=filled, help="The YAML file."
        ),
    ] = DEFAULT_FILE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Check a configuration: every problem with its line, or the deployments as a table."""
    try:
        config = load_file(file, environ=os.environ, vocabulary=VOCABULARY, now=time.time())
    except ConfigError as error:
        refuse(file, error.problems, as_json)
        raise typer.Exit(1) from None
    warnings = (*config.warnings, *_shadows(file))
    if as_json:
        look.show_json({**_data(config), "warnings": list(warnings)})
    else:
        _show(config, warnings)


def _shadows(config: str) -> Iterator[str]:
    """What programs that start in this folder, or in the file's, would import for the package."""
    for file in {path.resolve(): path for path in (Path(config).parent / _HIDES, _HIDES)}.values():
        if file.is_file():
            where = "this folder" if file == _HIDES else "that folder"
            yield (
                f"{file}: this file hides the package `router` from programs that are started in "
                f"{where}: rename it"
            )


def refuse(
    file: str,
    problems: tuple[str, ...],
    as_json: bool,
    *,
    missing: str = "name another, or write it (see the README)",
) -> None:
    """Tell all that is wrong with a file, and of one that is not there what to do."""
    if as_json:
        look.show_json({"file": file, "ok": False, "problems": list(problems)})
        return
    err = look.stderr()
    for problem in problems:
        absent = problem.endswith("there is no such file")
        err.print(placed(f"{problem}; {missing}" if absent else problem), soft_wrap=True)
    if len(problems) == 1 and problems[0].startswith(f"{file}: "):
        return  # no line of it is at fault: it is not there, or nothing that one could read
    count = look.plural(len(problems), "problem")
    err.print(Text(f"{count}: nothing of this file is in force.", "bold red"), soft_wrap=True)


def _show(config: Config, warnings: Sequence[str]) -> None:
    out = look.stdout()
    accounts = {one.account for one in config.deployments}
    out.print(
        f"[bold]{look.plural(len(config.deployments), 'deployment')}[/] in "
        f"{look.plural(len(config.groups), 'model group')} and "
        f"{look.plural(len(accounts), 'account')}, strategy {config.settings.strategy}",
        soft_wrap=True,
    )
    out.print()
    out.print(_deployments(config, out), soft_wrap=True)
    if warnings:
        out.print()
    for warning in warnings:
        out.print(Text.assemble(("warning ", "bold yellow"), placed(warning)), soft_wrap=True)


def _deployments(config: Config, out: Console) -> RenderableType:
    """A table where it fits, else a paragraph for each deployment: a squeezed URL helps nobody."""
    told = [name for name, tell in MORE.items() if any(map(tell, config.deployments))]
    table = look.table(*NAMES, *NUMBERS, *told, "operations", right=NUMBERS)
    for one in config.deployments:
        table.add_row(*_cells(one, told))
    if look.fits(out, table):
        return table
    return Group(*(part for one in config.deployments for part in _paragraph(one)))


def _cells(one: Deployment, told: Sequence[str]) -> list[Text]:
    groups = ", ".join(one.model_names)
    words = (one.id, groups, one.account, one.provider, one.model, one.base_url)
    numbers = (f"{one.weight:g}", str(one.order))
    more = (MORE[name](one) for name in told)
    return [Text(word) for word in (*words, *numbers, *more, _operations(one))]


def _paragraph(one: Deployment) -> tuple[Text, Text]:
    title = Text.assemble((one.id, "bold"), f" in {', '.join(one.model_names)}")
    facts = Text(
        f"account {one.account}, {one.provider} model {one.model}\n"
        f"{one.base_url}\n"
        f"weight {one.weight:g}, order {one.order}, operations: {_operations(one)}"
    )
    more = (f"{name} {told}" for name, tell in MORE.items() if (told := tell(one)))
    facts.append("".join(f"\n{line}" for line in more))
    return title, look.indented(facts)


def _operations(one: Deployment) -> str:
    return can_do(abilities(PROVIDERS[one.provider], one))


def _dollars(one: Deployment) -> str:
    prices = one.cost_per_second
    if isinstance(prices, Mapping):
        return ", ".join(f"{size}: {price:g}" for size, price in prices.items())
    return "" if prices is None else f"{prices:g}"


def _retires_on(one: Deployment) -> str:
    return str(one.retires_on or "")


# What few have: a column where anybody does.
MORE: Mapping[str, Callable[[Deployment], str]] = {
    "cost_per_second": _dollars,
    "retires_on": _retires_on,
}


def placed(line: str) -> Text:
    """`file:line: key: what`, its place in bold."""
    place, colon, rest = line.partition(": ")
    return Text.assemble((place + colon, "bold"), rest)


def _data(config: Config) -> dict[str, Any]:
    return {
        "file": config.source,
        "ok": True,
        "strategy": config.settings.strategy,
        "default_model": config.settings.default_model,
        "fallbacks": {group: list(names) for group, names in config.settings.fallbacks.items()},
        "deployments": [_facts(one) for one in config.deployments],
    }


def _facts(one: Deployment) -> dict[str, Any]:
    return {
        "id": one.id,
        "model_names": list(one.model_names),
        "account": one.account,
        "provider": one.provider,
        "model": one.model,
        "base_url": one.base_url,
        "weight": one.weight,
        "order": one.order,
        "operations": sorted(one.operations),
        "parameters": taken(abilities(PROVIDERS[one.provider], one)),
        "cost_per_second": _prices(one),
        "retires_on": one.retires_on and one.retires_on.isoformat(),
    }


def _prices(one: Deployment) -> float | dict[str, float] | None:
    prices = one.cost_per_second
    return dict(prices) if isinstance(prices, Mapping) else prices
