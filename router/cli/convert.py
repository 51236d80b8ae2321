"""`video-router convert`: a LiteLLM configuration in our form, and what of it was dropped."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

import typer
import yaml
from rich.text import Text

from router.cli import look
from router.cli.check import placed, refuse
from router.cli.onlooker import filled
from router.config import convert_file
from router.errors import ConfigError
from router.router import VOCABULARY

__all__ = ["convert"]

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-[^{}]*)?\}")
# Made of variables alone. One with a default is not: that may be the key.
_ONLY_VARIABLES = re.compile(r"(?:(?:Bearer|Basic|Key) )?(?:\$\{[A-Za-z_][A-Za-z0-9_]*(?::-)?\})+")
_USERINFO = re.compile(r"//([^/?#]*)@")
# Of the headers, whose values are secrets, those that are known to be none.
_OPEN_HEADERS = frozenset({"openai-organization", "openai-project"})


def convert(
    file: Annotated[
        str, typer.Argument(metavar="FILE", parser=filled, help="LiteLLM's YAML file.")
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="NEW",
            parser=filled,
            help="Write this file, which is not there.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Convert a LiteLLM configuration: YAML on stdout, and on stderr what was dropped, by line.

    Variables stay variables and need not be set. A key that stands in the file itself becomes a
    variable, and is not printed.
    """
    try:
        made, notes = convert_file(file, vocabulary=VOCABULARY)
    except ConfigError as error:
        refuse(file, error.problems, as_json, missing="name LiteLLM's YAML file")
        raise typer.Exit(1) from None
    data, withheld = without_secrets(made.data)
    own = sorted(set(_VARIABLE.findall(str(data))) & set(made.variables))
    text = _text(data, file, withheld, own)
    if output is not None:
        _write(output, text)
    if as_json:
        look.show_json(
            {"file": file, "ok": True, "config": data, "set": [*withheld, *own], "notes": notes}
        )
        return
    if output is None:
        typer.echo(text, nl=False)
    _tell(notes, len(data["deployments"]), made.entries, [*withheld, *own], output)


def _write(output: str, text: str) -> None:
    try:
        with open(output, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise look.CommandError(f"{output} is there already; name a file that is not") from None


def _tell(
    notes: Sequence[str], taken: int, entries: int, names: Sequence[str], output: str | None
) -> None:
    err = look.stderr()
    for note in notes:
        err.print(placed(note), soft_wrap=True)
    where = f" in {output}" if output else ""
    err.print(
        Text(f"{taken} of {look.plural(entries, 'model')} converted{where}", "bold"), soft_wrap=True
    )
    if names:
        values = "its value stands" if len(names) == 1 else "their values stand"
        told = f"set {look.listed(names)}: {values} in the file itself"
        err.print(Text(told), soft_wrap=True)


def _text(data: Mapping[str, Any], file: str, withheld: Sequence[str], own: Sequence[str]) -> str:
    """The YAML, with a comment beside each variable that is new to who sets them."""
    comments = dict.fromkeys(withheld, "set it: the value is written out in the original")
    comments |= dict.fromkeys(own, "set it: the original does so under environment_variables")
    dumped = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=1_000_000)
    lines = [f"# Converted from {ascii(file)[1:-1]} by `{look.PROGRAM} convert`."]
    for line in dumped.splitlines():
        if line == "accounts:":
            lines.append("# An account's name is part of the ids that are given out: keep it.")
        told = [comments[name] for name in _VARIABLE.findall(line) if name in comments]
        lines.append(f"{line} # {told[0]}" if told else line)
    return "\n".join(lines) + "\n"


def without_secrets(data: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Our form with variables in place of the secrets that stand in it, and their names."""
    used = set(_VARIABLE.findall(str(data)))
    made: list[str] = []

    def secret(value: Any, name: str) -> Any:
        if value is None or value == "" or _ONLY_VARIABLES.fullmatch(str(value)):
            return value
        variable = _unused(name, used)
        used.add(variable)
        made.append(variable)
        return f"${{{variable}}}"

    def address(value: Any, name: str) -> Any:
        userinfo = _USERINFO.search(str(value))
        if userinfo is None or _ONLY_VARIABLES.fullmatch(userinfo[1].strip(":")):
            return value
        return secret(value, name)

    kept = dict(data)
    if "redis_url" in kept.get("settings", {}):
        url = address(kept["settings"]["redis_url"], "REDIS_URL")
        kept["settings"] = {**kept["settings"], "redis_url": url}
    kept["accounts"] = {
        name: _guarded(facts, name, secret, address) for name, facts in kept["accounts"].items()
    }
    kept["deployments"] = [
        _guarded(one, str(one["id"]), secret, address) for one in kept["deployments"]
    ]
    return kept, tuple(made)


_Guard = Callable[[Any, str], Any]


def _guarded(
    facts: Mapping[str, Any], name: str, secret: _Guard, address: _Guard
) -> dict[str, Any]:
    guarded = dict(facts)
    if "base_url" in facts:
        guarded["base_url"] = address(facts["base_url"], f"{name}_BASE_URL")
    if "api_key" in facts:
        guarded["api_key"] = secret(facts["api_key"], f"{name}_API_KEY")
    if "headers" in facts:
        guarded["headers"] = {
            header: value if header.lower() in _OPEN_HEADERS else secret(value, f"{name}_{header}")
            for header, value in facts["headers"].items()
        }
    return guarded


def _unused(name: str, used: set[str]) -> str:
    """A variable's name that nothing else has."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).upper().strip("_")
    plain = f"_{plain}" if plain[:1].isdigit() else plain
    names = itertools.chain((plain,), (f"{plain}_{number}" for number in itertools.count(2)))
    return next(free for free in names if free not in used)
