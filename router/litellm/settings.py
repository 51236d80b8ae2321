"""From LiteLLM's `router_settings` and `litellm_settings` to our settings."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from router._yaml import Path
from router.litellm.conversion import ABSENT, ENCODED, UNUSED, VARIABLE, Conversion, says

__all__ = ["LISTS", "REDIS", "SETTINGS", "STRATEGIES", "write_settings"]

STRATEGIES: Mapping[str, str] = MappingProxyType(
    {
        "simple-shuffle": "weighted-random",
        "latency-based-routing": "lowest-latency",
        "cost-based-routing": "lowest-cost",
        "least-busy": "least-busy",
    }
)

# Ours, and where LiteLLM has it; the first that is written counts.
SETTINGS = {
    "retries": (("router_settings", "num_retries"), ("litellm_settings", "num_retries")),
    "timeout": (("router_settings", "timeout"), ("litellm_settings", "request_timeout")),
}
LISTS = ("fallbacks", "default_fallbacks")
REDIS = ("redis_url", "redis_host", "redis_port", "redis_password", "redis_db")
_TAKEN = "is the name of a group as well"


def write_settings(
    written: Mapping[Any, Any], groups: dict[str, list[dict[str, Any]]], made: Conversion
) -> None:
    """Write our settings, and a group's second names beside its first in its deployments."""
    sections = {
        name: found
        for name in ("router_settings", "litellm_settings")
        if isinstance(found := written.get(name), Mapping)
    }
    router = sections.get("router_settings", {})
    ours: dict[str, Any] = {}
    at = ("settings",)
    strategy = router.get("routing_strategy")
    if says(strategy):
        place = ("router_settings", "routing_strategy")
        strategy = made.ours(strategy, place)
        named = STRATEGIES.get(strategy, strategy) if isinstance(strategy, str) else strategy
        made.put(ours, at, "strategy", named, place)
    for key, origins in SETTINGS.items():
        for section, name in origins:
            value = sections.get(section, {}).get(name)
            if value is not None and value != "":
                made.put(ours, at, key, made.ours(value, (section, name)), (section, name))
                break
    _redis(router, ours, made)
    _dropping(sections.get("litellm_settings", {}), made)
    _aliases(router.get("model_group_alias"), groups, made)
    fallbacks = _fallbacks(sections, set(groups), made)
    if fallbacks:
        ours["fallbacks"] = fallbacks
    if ours:
        made.data = {"settings": ours, **made.data}


def _redis(router: Mapping[Any, Any], ours: dict[str, Any], made: Conversion) -> None:
    place = ("router_settings", "redis_url")
    if says(router.get("redis_url")):
        made.put(ours, ("settings",), "redis_url", made.ours(router["redis_url"], place), place)
        return
    parts: dict[str, str] = {}
    for key in REDIS:
        value = made.ours(router.get(key), ("router_settings", key))
        if value is not None and value != "":
            is_ours = isinstance(value, str) and "${" in value
            parts[key] = (
                value if is_ours else quote(str(value), safe="[]:" if "host" in key else "")
            )
    if "redis_host" not in parts:
        for key in parts:
            made.note(("router_settings", key), f"router_settings.{key}", UNUSED)
        return
    place = ("router_settings", "redis_host")
    url = parts["redis_host"]
    if "redis_port" in parts:
        url += f":{parts['redis_port']}"
    if password := parts.get("redis_password"):
        url = f":{password}@{url}"
        if names := VARIABLE.findall(password):
            made.quoted["settings", "redis_url"] = frozenset(names)
            made.note(("router_settings", "redis_password"), "redis_password", ENCODED)
    if "redis_db" in parts:
        url += f"/{parts['redis_db']}"
    made.put(ours, ("settings",), "redis_url", f"redis://{url}", place)


def _dropping(litellm: Mapping[Any, Any], made: Conversion) -> None:
    """What LiteLLM says once of all models, deployments say each; their own word counts."""
    value, place = litellm.get("drop_params"), ("litellm_settings", "drop_params")
    if not says(value):
        return
    for index, one in enumerate(made.data["deployments"]):
        if "drop_params" not in one:
            at = ("deployments", index)
            made.put(one, at, "drop_params", made.ours(value, place), place)


def _aliases(written: object, groups: dict[str, list[dict[str, Any]]], made: Conversion) -> None:
    """A second name of a group is a second group of its deployments."""
    place = ("router_settings", "model_group_alias")
    if not isinstance(written, Mapping):
        if says(written):
            made.problems.append((place, "must be a mapping of names to groups"))
        return
    aliases: dict[str, list[dict[str, Any]]] = {}
    for alias, target in written.items():
        name = target.get("model") if isinstance(target, Mapping) else target
        members = groups.get(name) if isinstance(name, str) else None
        if members is None or alias in groups:
            why = ABSENT if members is None else _TAKEN
            made.note((*place, str(alias)), f"model_group_alias.{alias}", why)
            continue
        aliases[alias] = members
        for one in members:
            names = one["model_name"]
            one["model_name"] = [*([names] if isinstance(names, str) else names), alias]
    groups |= aliases


def _fallbacks(
    sections: Mapping[str, Mapping[Any, Any]], groups: Collection[str], made: Conversion
) -> dict[str, list[str]]:
    """Lists of fallbacks by group. `*` and the default ones are those of groups without any."""
    found: dict[str, list[str]] = {}
    origins: dict[str, Path] = {}
    for group, names, place in _chains(sections, made):
        if group not in groups and group != "*":
            made.note(place, f"fallbacks.{group}", ABSENT)
            continue
        here = [name for name in names if isinstance(name, str) and name in groups]
        for index, name in enumerate(names):
            if name not in here:
                which = name if isinstance(name, str) else "(a mapping)"
                made.note((*place, index), f"fallbacks.{group} to {which}", ABSENT)
        if here and group not in found:
            found[group], origins[group] = here, place
    default = found.pop("*", [])
    for group in sorted(groups):
        others = [name for name in found.get(group, default) if name != group]
        if others:
            found[group] = others
            made.origins["settings", "fallbacks", group] = origins.get(group) or origins["*"]
        else:
            found.pop(group, None)
    return found


def _chains(
    sections: Mapping[str, Mapping[Any, Any]], made: Conversion
) -> Iterator[tuple[str, list[Any], Path]]:
    for key in LISTS:
        for section, facts in sections.items():
            listed, place = facts.get(key), (section, key)
            if not says(listed):
                continue
            if not isinstance(listed, list | tuple):
                made.problems.append((place, "must be a list"))
            elif key == "default_fallbacks":
                yield "*", list(listed), place
            else:
                yield from _listed_chains(listed, place, made)
            break


def _listed_chains(
    listed: Iterable[Any], place: Path, made: Conversion
) -> Iterator[tuple[str, list[Any], Path]]:
    for index, one in enumerate(listed):
        if not isinstance(one, Mapping):
            made.problems.append(((*place, index), "must be a mapping of a group to a list"))
            continue
        for group, names in one.items():
            if isinstance(names, str):
                names = [names]
            if not isinstance(names, list | tuple):
                made.problems.append(((*place, index, str(group)), "must be a list of groups"))
            else:
                yield str(group), list(names), (*place, index, str(group))
