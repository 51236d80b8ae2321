"""From LiteLLM's entries to deployments, and to the accounts that own what they make."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from pydantic import SecretStr

from router._yaml import Path
from router.litellm.conversion import CLOSED, KEYLESS, VARIABLE, Conversion, says
from router.litellm.models import Entry

__all__ = ["write_deployments"]

_OPENAI = "https://api.openai.com/v1"
# Where LiteLLM sends what names no address.
_ADDRESSES = {
    "runwayml": "https://api.dev.runwayml.com/v1",
    "openrouter": "https://openrouter.ai/api/v1",
    "gemini": "https://generativelanguage.googleapis.com/v1beta",
    "xai": "https://api.x.ai/v1",
    "fal_ai": "https://queue.fal.run",
}
# What LiteLLM takes from the environment where an entry names no key.
_DEFAULT_KEYS = {
    "openai": "OPENAI_API_KEY",
    "azure": "AZURE_API_KEY",
    "runwayml": "RUNWAYML_API_SECRET",
    "openrouter": "OPENROUTER_API_KEY",
    "gemini": "GEMINI_API_KEY",
    "xai": "XAI_API_KEY",
    "fal_ai": "FAL_AI_API_KEY",
}
_AD_KEYS = ("azure_ad_token", "client_id", "client_secret", "azure_username")


@dataclass(frozen=True, slots=True)
class _Address:
    """Where an entry's requests go, and as whom."""

    url: Any
    url_place: Path
    key: Any
    key_place: Path

    @property
    def owner(self) -> tuple[str, object]:
        """Two addresses of one owner see each other's videos, whatever the API's version."""
        key = self.key if isinstance(self.key, str | SecretStr) else repr(self.key)
        return str(self.url).partition("?")[0].rstrip("/"), key


def _address(entry: Entry, made: Conversion) -> _Address:
    base, url_place = entry.param("api_base", "base_url")
    key, key_place = entry.param("api_key")
    url, key = made.ours(base, url_place), made.ours(key, key_place)
    default = _DEFAULT_KEYS.get(entry.vendor)
    if entry.vendor == "azure":
        version, place = entry.param("api_version")
        url = _azure_url(url or "${AZURE_API_BASE}", made.ours(version, place))
        if any(says(entry.params.get(name)) for name in _AD_KEYS):
            default = None
    elif entry.vendor in _ADDRESSES:
        url = url or _ADDRESSES[entry.vendor]
        if entry.vendor == "gemini":
            url = _gemini_url(url)
    elif entry.vendor == "openai" and base is None:
        url = _OPENAI
        made.note(url_place, str(entry.params["model"]), CLOSED)
    elif entry.vendor == "openai":
        default = None
        if key is None:
            made.note(key_place, str(entry.params["model"]), KEYLESS)
    if key is None and default is not None:
        key = f"${{{default}}}"
    return _Address(url, url_place, key, key_place)


def _azure_url(base: Any, version: Any) -> Any:
    """The base of Azure's v1 API. In a variable, who sets it writes a host, or all of it."""
    if not isinstance(base, str):
        return base
    parts = _split(base)
    if parts is not None and "${" not in base:
        path = parts.path.partition("/openai")[0].rstrip("/") + "/openai/v1"
        base = urlunsplit(parts._replace(path=path))
    if not says(version) or "api-version=" in base:
        return base
    return f"{base}{'&' if '?' in base else '?'}api-version={version}"


def _gemini_url(base: Any) -> Any:
    """LiteLLM is told the address without the API's version, and adds it whatever the path."""
    if not isinstance(base, str) or base.rstrip("/").endswith("/v1beta"):
        return base
    return f"{base.rstrip('/')}/v1beta"


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None


def write_deployments(
    entries: Sequence[Entry], made: Conversion
) -> dict[str, list[dict[str, Any]]]:
    """Write accounts and deployments; returns the deployments of each group."""
    addresses = [_address(entry, made) for entry in entries]
    accounts = _accounts(entries, addresses, made)
    made.data["deployments"] = []
    ids = {str(entry.info["id"]) for entry in entries if says(entry.info.get("id"))}
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry, address in zip(entries, addresses, strict=True):
        account = accounts[address.owner]
        one = _deployment(entry, address, account, ids, made)
        made.data["deployments"].append(one)
        if isinstance(entry.name, str):
            groups.setdefault(entry.name, []).append(one)
    return groups


def _accounts(
    entries: Iterable[Entry], addresses: Iterable[_Address], made: Conversion
) -> dict[tuple[str, object], str]:
    """The account of each owner: who has the same key at the same address is the same."""
    named: dict[tuple[str, object], str] = {}
    section = made.data.setdefault("accounts", {})
    for entry, address in zip(entries, addresses, strict=True):
        if address.owner in named:
            continue
        name = _free(_account_names(entry, address), section)
        named[address.owner] = name
        facts = section.setdefault(name, {})
        at = ("accounts", name)
        made.origins[at] = address.key_place
        made.put(facts, at, "base_url", address.url, address.url_place)
        if address.key is not None:
            made.put(facts, at, "api_key", address.key, address.key_place)
    return named


def _account_names(entry: Entry, address: _Address) -> Iterator[str]:
    """What an account might be called. Names are part of ids, so they are of what stays when keys
    change: the variable with the key, else the first model's id, else the host."""
    parts = _split(str(address.url))
    host = _slug((parts.hostname if parts else "") or "") or entry.provider
    variable = VARIABLE.fullmatch(str(address.key))
    if variable:
        name = re.sub(r"_?(?:API_)?(?:KEY|SECRET|TOKEN)$", "", variable[1], flags=re.IGNORECASE)
        if name:
            short = name.lower().replace("_", "-").strip("-")
            yield from (short, f"{short}-{host}")
    elif says(entry.info.get("id")):
        yield _slug(str(entry.info["id"]))
    yield host


def _free(names: Iterable[str], taken: Collection[str]) -> str:
    """The first name that is nobody's, else the last with a number."""
    wanted = list(filter(None, names)) or ["deployment"]
    numbered = (f"{wanted[-1]}-{number}" for number in itertools.count(2))
    return next(name for name in itertools.chain(wanted, numbered) if name not in taken)


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")


def _deployment(
    entry: Entry, address: _Address, account: str, ids: set[str], made: Conversion
) -> dict[str, Any]:
    one: dict[str, Any] = {}
    at = ("deployments", len(made.data["deployments"]))
    made.origins[at] = entry.place

    def put(key: str, value: Any, place: Path) -> None:
        if value is not None:
            made.put(one, at, key, value, place)

    name = entry.info.get("id")
    if not says(name):
        name = _free(_ids(entry, account), ids)
        ids.add(name)
    put("id", str(name) if isinstance(name, int) else name, entry.info_place("id"))
    made.origins[*at, "model_name"] = (*entry.place, "model_name")
    put("model_name", entry.name, (*entry.place, "model_name"))
    put("account", account, address.key_place)
    put("provider", entry.provider, entry.places["model"])
    put("model", entry.model, entry.places["model"])
    if address.url != made.data["accounts"][account]["base_url"]:
        put("base_url", address.url, address.url_place)
    headers, place = _headers(entry, made)
    put("headers", headers or None, place)
    for key in ("weight", "order", "rpm", "max_parallel_requests", "timeout", "drop_params"):
        written, place = entry.params.get(key), entry.places.get(key, entry.place)
        put(key, made.ours(written, place), place)
    if entry.paused:
        put("weight", 0, (*entry.place, "blocked"))
    put("cost_per_second", *_price(entry, made))
    return one


def _ids(entry: Entry, account: str) -> Iterator[str]:
    name = _slug(str(entry.name or entry.model))
    yield name if name == account else "-".join(filter(None, (name, account)))


def _headers(entry: Entry, made: Conversion) -> tuple[dict[str, Any], Path]:
    headers: dict[str, Any] = {}
    found: Path = entry.place
    if entry.provider == "openai":
        organization, place = entry.param("organization")
        if says(organization):
            headers["OpenAI-Organization"], found = made.ours(organization, place), place
    for key in ("headers", "extra_headers"):
        written, place = entry.param(key)
        if isinstance(written, Mapping):
            headers |= made.ours(written, place)
            found = place
        elif written is not None:
            made.problems.append((place, "must be a mapping of header names to strings"))
    return headers, found


def _price(entry: Entry, made: Conversion) -> tuple[Any, Path]:
    for key in ("output_cost_per_video_per_second", "output_cost_per_second"):
        if entry.params.get(key) is not None:
            return made.ours(entry.params[key], entry.places[key]), entry.places[key]
        if entry.info.get(key) is not None:
            place = entry.info_place(key)
            return made.ours(entry.info[key], place), place
    return None, entry.place
