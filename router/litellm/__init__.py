"""LiteLLM's configuration in our words: which of its models are ours, under which names, and what
of the file has no place here.

    model_list ──▶ video models of providers we speak ──▶ accounts ──▶ deployments, settings
                                 └────────── notes ◀─────────┘

Which entries are taken stands at the top of `models`.

Nothing here reads a file or the environment: data in, data and notes out. Variables become ours and
stay unexpanded, so what is skipped needs none of them set.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from router.litellm.conversion import (
    ENVIRON,
    KEY,
    UNUSED,
    VARIABLE,
    Conversion,
    Note,
    says,
    summary,
)
from router.litellm.deployments import write_deployments
from router.litellm.models import entries
from router.litellm.settings import LISTS, REDIS, SETTINGS, STRATEGIES, write_settings

__all__ = [
    "KEYS",
    "STRATEGIES",
    "WORDS",
    "Conversion",
    "Note",
    "convert",
    "guessed",
    "summary",
]

KEYS = frozenset({"model_list", "router_settings", "litellm_settings", "general_settings"})
"""The sections by which a file is known as LiteLLM's."""

WORDS = KEYS | {
    "litellm_params",
    "model_info",
    "credential_list",
    "credential_values",
    "environment_variables",
    "api_base",
    "routing_strategy",
}
"""Its own words in our messages: no secret is hidden by blotting these out."""

_UNREAD = "nothing that is taken reads it"
_POINTER = "is another variable's value; set this one too"
_ELSEWHERE = "other files are not read"
_STRAY = "belongs under `router_settings`"


def convert(written: Mapping[Any, Any], providers: Collection[str]) -> Conversion:
    """A LiteLLM configuration as ours; `providers` are those that a deployment may have."""
    made = Conversion()
    made.variables = dict(_variables(written.get("environment_variables")))
    taken = list(entries(written, providers, made))
    groups = write_deployments(taken, made)
    write_settings(written, groups, made)
    _rest(written, made)
    return made


def _rest(written: Mapping[Any, Any], made: Conversion) -> None:
    """Note what no other part has taken."""
    known: dict[str, set[str]] = {
        "router_settings": {"routing_strategy", "model_group_alias", *REDIS, *LISTS},
        "litellm_settings": {"drop_params", *LISTS},
        "general_settings": set(),
    }
    for places in SETTINGS.values():
        for section, key in places:
            known[section].add(key)
    for name, section in written.items():
        if name in ("model_list", "credential_list"):
            continue
        if name == "environment_variables":
            _unset(section, made)
        elif name not in known:
            # LiteLLM's Router takes these as arguments; its files have them in a section.
            stray = _STRAY if name in known["router_settings"] else UNUSED
            if says(section):
                made.note((str(name),), str(name), _ELSEWHERE if name == "include" else stray)
        elif isinstance(section, Mapping):
            made.unused(section, known[name], name, (name,))
        elif says(section):
            made.problems.append(((name,), "must be a mapping"))


def _unset(section: object, made: Conversion) -> None:
    """Note the variables that the file sets, and that nothing of it gets here."""
    if not isinstance(section, Mapping):
        if says(section):
            made.problems.append((("environment_variables",), "must be a mapping"))
        return
    read = set(VARIABLE.findall(str(made.data)))
    for name in section:
        if not KEY.fullmatch(str(name)):
            made.hidden.append(str(name))
        if str(name) not in read or str(name) not in made.variables:
            why = _UNREAD if str(name) not in read else _POINTER
            made.note(("environment_variables", str(name)), f"environment_variables.{name}", why)


def _variables(section: object) -> Iterator[tuple[str, str]]:
    for name, value in section.items() if isinstance(section, Mapping) else ():
        plain = str(value) if isinstance(value, str | int | float) else ""
        if plain and not plain.startswith(ENVIRON):
            yield str(name), plain


def guessed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Our form with something fitting for each variable, to be checked where none is set."""

    def guess(value: Any, key: str) -> Any:
        if isinstance(value, Mapping):
            return {name: guess(item, str(name)) for name, item in value.items()}
        if isinstance(value, list):
            return [guess(item, key) for item in value]
        if not isinstance(value, str) or not VARIABLE.search(value):
            return value
        plain = VARIABLE.sub(r"\1", value)
        if key == "base_url":
            return f"https://{re.sub('[^a-z0-9]', '-', plain.lower())}.invalid"
        # Numbers pass for text and for a flag, and text does not pass for either.
        numbers = {"weight", "order", "rpm", "max_parallel_requests", "timeout", "retries"}
        numbers |= {"drop_params"}
        fixed = {"redis_url": "redis://h", "strategy": None} | dict.fromkeys(numbers, "1")
        return fixed.get(key, "1" if key == "cost_per_second" else plain)

    found = guess(data, "")
    assert isinstance(found, dict)
    return found
