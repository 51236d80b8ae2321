"""LiteLLM's configuration in our words: which of its models are ours, under which names, and what
of the file has no place here.

    model_list ──▶ video models of providers we speak ──▶ accounts ──▶ deployments, settings
                                 └────────── notes ◀─────────┘

Such a file is mostly about chat, so an entry has to show that it makes videos. The first of these
that says something decides:

1. its provider, which must be one of ours (`hosted_vllm` is our `openai`, the dialect of vLLM);
2. `model_info.mode`: `video_generation`, or another;
3. the name of the model (`litellm_params.model`, `model_info.base_model`): a word of a family that
   makes videos (sora, gen4, wan2, …, or just "video"), or of one that makes something else;
4. its prices: dollars per second of video, or per token;
5. a family of videos in `model_name`: Azure's deployments may have any name;
6. RunwayML, which makes videos unless it says otherwise.

What says nothing is skipped, and told with the key that would keep it: `openai/my-model` at an
address of its own is a chat server in all but the rarest files. No model is refused for its name.

Nothing here reads a file or the environment: data in, data and notes out. Variables become ours and
stay unexpanded, so what is skipped needs none of them set.
"""

from __future__ import annotations

import collections
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, TypeAlias
from urllib.parse import SplitResult, quote, urlsplit, urlunsplit

from pydantic import SecretStr

from router._reading import allowed
from router._yaml import Path

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

Shown: TypeAlias = Callable[[object], str]
"""How a name out of a file is printed: no secret, one line, not endless."""

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

STRATEGIES: Mapping[str, str] = MappingProxyType(
    {
        "simple-shuffle": "weighted-random",
        "latency-based-routing": "lowest-latency",
        "cost-based-routing": "lowest-cost",
        "least-busy": "least-busy",
    }
)

_PROVIDERS = {"hosted_vllm": "openai"}
_VIDEO_MODE = "video_generation"

# The families stand at the start of a word and end where a letter would go on.
_FAMILIES = re.compile(
    r"(?<![a-z])(?:sora|veo|kling|hailuo|seedance|happyhorse|aleph|pixverse|vidu|pika|mochi|skyreels"
    r"|framepack|ltxv?|wan(?=[\d._-]*\d)|ray-?[23]|dream-machine|nova-reel|gen-?[345]a?"
    r"|act_two)(?![a-z])"
)
_VIDEO_WORDS = re.compile(r"video|(?<![a-z0-9])[tirv]2v(?![a-z0-9])")
_IMAGE_OR_SOUND = re.compile(
    r"(?<![a-z])(?:images?|flux|imagen|dall-e|whisper|tts|stt|speech|voices?|sound|audio|music"
    r"|eleven|transcribe|realtime)(?![a-z])"
)
_TEXT = re.compile(
    r"(?<![a-z])(?:gpt|chatgpt|o[1345](?![a-z0-9])|claude|anthropic|llama|llava|vicuna|mistral"
    r"|mixtral|ministral|magistral|codestral|pixtral|qwen|qwq|qvq|deepseek|gemma|gemini|phi|command"
    r"|grok|kimi|glm|jamba|titan|falcon|davinci|curie|babbage|opt-\d|dbrx|nemotron|granite|minimax"
    r"|ernie|hermes|starcoder|codex|sonar|chat|instruct|embed|embeddings?|rerank|reranker|ocr"
    r"|moderation)(?![a-z])"
)

_NOT_SPOKEN = "of a provider that is not spoken here"
_NOT_VIDEO = "not a video model"
_UNTOLD = f"nothing says that it makes videos, as `model_info: {{mode: {_VIDEO_MODE}}}` would"
_WILDCARD = "a wildcard, which names no model"
_MOCKED = "has a `mock_response`; here it would be called, and paid for"
_UNUSED = "no counterpart here"
_ABSENT = "names a group that is not here"
_TAKEN = "is the name of a group as well"
_ELSEWHERE = "other files are not read"
_STRAY = "belongs under `router_settings`"
_CLOSED = "goes to api.openai.com, which closed its video API in 2026; name a server in `api_base`"
_KEYLESS = "has no `api_key`; LiteLLM would send OPENAI_API_KEY to that server, and here nothing is"
_ENCODED = "becomes part of a URL, so its special characters must be percent-encoded"
_KEPT = (_CLOSED, _KEYLESS, _ENCODED)

_OPENAI, _RUNWAY = "https://api.openai.com/v1", "https://api.dev.runwayml.com/v1"
# What LiteLLM takes from the environment where an entry names no key.
_DEFAULT_KEYS = {
    "openai": "OPENAI_API_KEY",
    "azure": "AZURE_API_KEY",
    "runwayml": "RUNWAYML_API_SECRET",
}
_AD_KEYS = ("azure_ad_token", "client_id", "client_secret", "azure_username")

_ENVIRON = "os.environ/"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-[^{}]*)?\}")
_USERINFO = re.compile(r"//([^/?#]*)@")
# What a key looks like. `{api_key:secret}`, where a blank is missing, is another.
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Note:
    """Something of the file that is not taken, or that is, and should be looked at.

    `what` is its name in the file: show it as anything out of a file is shown.
    """

    place: Path
    what: str
    why: str

    @property
    def is_entry(self) -> bool:
        """Whether a whole entry of `model_list` was skipped."""
        return self.place[:1] == ("model_list",) and len(self.place) == 2

    @property
    def is_kept(self) -> bool:
        return self.why in _KEPT

    def told(self, shown: Shown) -> str:
        """What is said of it beside its place, which names it but for models."""
        if self.is_kept:
            return self.why
        return (
            f"skipped `{shown(self.what)}`: {self.why}" if self.is_entry else f"dropped: {self.why}"
        )


@dataclass
class Conversion:
    """A LiteLLM configuration in our shape, its variables as `${NAME}`.

    `origins` says where in the file each of our places comes from. `problems` are what refuses the
    file, and `notes` what was dropped, both in the file's own places. `variables` are those that
    the file itself sets, `hidden` what no message may show, `entries` how many models the file has.
    """

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[Path, Path] = field(default_factory=dict)
    problems: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)
    entries: int = 0

    def put(self, section: dict[str, Any], at: Path, key: str, value: Any, origin: Path) -> None:
        section[key] = value
        self.origins[*at, key] = origin

    def note(self, place: Path, what: str, why: str) -> None:
        self.notes.append(Note(place, what, why))
        self.hidden += _USERINFO.findall(what)

    def unused(
        self, section: Mapping[Any, Any], known: Collection[str], name: str, at: Path
    ) -> None:
        """Note what a section says besides what is known of it."""
        for key, value in section.items():
            place = (*at, str(key))
            is_odd = not _KEY.fullmatch(str(key))
            if is_odd:
                self.hidden.append(str(key))
            if is_odd and name == "litellm_params":
                self.problems.append((place, "is no key; is a blank missing after a `:`?"))
            elif key not in known and (_says(value) or is_odd):
                self.note(place, f"{name}.{key}", _UNUSED)

    def ours(self, value: Any, place: Path) -> Any:
        """A value with LiteLLM's variables as ours."""
        if isinstance(value, Mapping):
            return {key: self.ours(item, (*place, str(key))) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.ours(item, (*place, index)) for index, item in enumerate(value)]
        if not isinstance(value, str) or not value.startswith(_ENVIRON):
            return value
        name = value.removeprefix(_ENVIRON)
        if _NAME.fullmatch(name):
            return f"${{{name}}}"
        self.problems.append((place, "must name a variable: letters, digits and `_`"))
        return None


def convert(written: Mapping[Any, Any], providers: Collection[str]) -> Conversion:
    """A LiteLLM configuration as ours; `providers` are those that a deployment may have."""
    made = Conversion()
    made.variables = dict(_variables(written.get("environment_variables")))
    entries = list(_entries(written, providers, made))
    groups = _deployments(entries, made)
    _settings(written, groups, made)
    _rest(written, made)
    return made


def summary(made: Conversion, shown: Shown) -> str | None:
    """All that was dropped, in a sentence or two; `None` where everything was taken.

    `shown` is how a name out of the file is printed.
    """
    if not made.notes:
        return None
    reasons: dict[str, dict[str, None]] = {}
    for note in made.notes:
        reasons.setdefault(note.why, {})[shown(note.what)] = None
    taken = made.entries - sum(note.is_entry for note in made.notes)
    told = f"{taken} of {made.entries} models of this LiteLLM configuration are deployments here"
    for opening, kept in (("dropped", False), ("to be looked at", True)):
        parts = [f"{', '.join(n)} ({why})" for why, n in reasons.items() if (why in _KEPT) is kept]
        told += f"; {opening}: {'; '.join(parts)}" if parts else ""
    return f"{told}. `video-router convert` tells the line of each"


# ── which entries are video models of ours ───────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of `model_list`, with the place of each of its parameters.

    `vendor` is LiteLLM's name of the provider, `provider` is ours.
    """

    place: Path
    name: Any
    vendor: str
    provider: str
    model: str
    params: Mapping[str, Any]
    places: Mapping[str, Path]
    info: Mapping[str, Any]
    paused: bool

    def param(self, *keys: str) -> tuple[Any, Path]:
        """The first of these that is written, and where; what is not, is none, at the entry."""
        for key in keys:
            if _says(self.params.get(key)):
                return self.params[key], self.places[key]
        return None, (*self.place, "litellm_params")

    def info_place(self, key: str) -> Path:
        return (*self.place, "model_info", key)


def _says(value: object) -> bool:
    return value is not None and value is not False and value != "" and value != [] and value != {}


def _entries(
    written: Mapping[Any, Any], providers: Collection[str], made: Conversion
) -> Iterator[_Entry]:
    listed = written.get("model_list")
    if not isinstance(listed, list | tuple) or not listed:
        made.problems.append((("model_list",), "must be a list of at least one model"))
        return
    credentials = dict(_credentials(written.get("credential_list")))
    made.entries = len(listed)
    for index, entry in enumerate(listed):
        found = _entry(("model_list", index), entry, credentials, made)
        if found is None:
            continue
        why = _why_not(found, providers)
        if why is None:
            _leftovers(found, entry, made)
            yield found
        else:
            what = str(found.params.get("model"))
            made.note(found.place, what, why)
    if made.entries == sum(note.is_entry for note in made.notes):
        reasons = collections.Counter(note.why for note in made.notes)
        told = "; ".join(f"{why} ({count} of them)" for why, count in reasons.items())
        told = f"none of its models can be taken: {told}"
        made.problems.append((("model_list",), f"{told}; {allowed(sorted(providers))}"))


def _entry(
    place: Path, entry: object, credentials: Mapping[str, tuple[Path, Any]], made: Conversion
) -> _Entry | None:
    if not isinstance(entry, Mapping):
        made.problems.append((place, "must be a mapping"))
        return None
    params, info = entry.get("litellm_params"), entry.get("model_info") or {}
    for key, value in (("litellm_params", params), ("model_info", info)):
        if not isinstance(value, Mapping):
            made.problems.append(((*place, key), "must be a mapping"))
            return None
    written, places = _params(entry, place, credentials)
    model = written.get("model")
    if not isinstance(model, str) or not model:
        made.problems.append(((*place, "litellm_params", "model"), "is required: a string"))
        return None
    vendor, name = _vendor(model, written.get("custom_llm_provider"))
    return _Entry(
        place,
        entry.get("model_name"),
        vendor,
        _PROVIDERS.get(vendor, vendor),
        name,
        written,
        places,
        info,
        paused=entry.get("blocked") is True or info.get("blocked") is True,
    )


def _params(
    entry: Mapping[Any, Any], place: Path, credentials: Mapping[str, tuple[Path, Any]]
) -> tuple[dict[str, Any], dict[str, Path]]:
    """An entry's parameters: its own, then those of the credential that it names.

    `rpm` may also stand beside them, or among the facts of the model.
    """
    params: dict[str, Any] = {}
    places: dict[str, Path] = {}
    named = credentials.get(str(entry["litellm_params"].get("litellm_credential_name")), ((), {}))
    info = entry.get("model_info") or {}
    limits = [
        (at, {"rpm": section["rpm"]} if _says(section.get("rpm")) else {})
        for at, section in ((place, entry), ((*place, "model_info"), info))
    ]
    for at, section in (((*place, "litellm_params"), entry["litellm_params"]), named, *limits):
        for key, value in section.items():
            if str(key) not in params:
                params[str(key)], places[str(key)] = value, (*at, str(key))
    return params, places


def _credentials(listed: object) -> Iterator[tuple[str, tuple[Path, Any]]]:
    for index, one in enumerate(listed if isinstance(listed, list | tuple) else ()):
        values = one.get("credential_values") if isinstance(one, Mapping) else None
        if isinstance(values, Mapping):
            place = ("credential_list", index, "credential_values")
            yield str(one.get("credential_name")), (place, values)


def _vendor(model: str, custom: object) -> tuple[str, str]:
    """The provider of a model, and the provider's own name for it. A bare name is OpenAI's."""
    if isinstance(custom, str) and custom:
        return custom, model.removeprefix(f"{custom}/")
    prefix, slash, rest = model.partition("/")
    return (prefix, rest) if slash else ("openai", model)


def _why_not(entry: _Entry, providers: Collection[str]) -> str | None:
    """Why an entry is not taken; `None` if it is. The rule stands at the top of this module."""
    if entry.provider not in providers:
        return _NOT_SPOKEN
    if "*" in entry.model or not entry.model:
        return _WILDCARD
    if entry.param("mock_response")[0] is not None:
        return _MOCKED
    for makes_videos in _signs(entry):
        if makes_videos is not None:
            return None if makes_videos else _NOT_VIDEO
    return _UNTOLD


def _signs(entry: _Entry) -> Iterator[bool | None]:
    mode = entry.info.get("mode")
    yield mode == _VIDEO_MODE if _says(mode) else None
    yield _by_name(f"{entry.model} {entry.info.get('base_model') or ''}".lower(), entry.provider)
    prices = {*entry.params, *entry.info}
    yield True if "output_cost_per_video_per_second" in prices else None
    yield False if any(str(key).endswith("_per_token") for key in prices) else None
    yield True if _FAMILIES.search(str(entry.name).lower()) else None
    yield True if entry.provider == "runwayml" else None


def _by_name(name: str, provider: str) -> bool | None:
    """Whether a name is that of a video model. `gen4_image` is none; `image-to-video` is one.

    RunwayML has no models for text, whatever they are called.
    """
    if _VIDEO_WORDS.search(name):
        return True
    if _IMAGE_OR_SOUND.search(name) or (provider != "runwayml" and _TEXT.search(name)):
        return False
    return True if _FAMILIES.search(name) else None


def _leftovers(entry: _Entry, written: Mapping[Any, Any], made: Conversion) -> None:
    """Note what a taken entry says that has no place here."""
    taken = {"model", "custom_llm_provider", "litellm_credential_name", "api_base", "base_url"}
    taken |= {"api_key", "headers", "extra_headers", "weight", "order", "rpm", "timeout"}
    taken |= {"max_parallel_requests", "output_cost_per_video_per_second", "output_cost_per_second"}
    taken |= {"azure": {"api_version"}, "openai": {"organization"}}.get(entry.provider, set())
    made.unused(
        written["litellm_params"], taken, "litellm_params", (*entry.place, "litellm_params")
    )
    known = {"id", "mode", "base_model", "blocked", "rpm", "output_cost_per_second"}
    known |= {"output_cost_per_video_per_second"}
    made.unused(entry.info, known, "model_info", (*entry.place, "model_info"))
    others = {"model_name", "litellm_params", "model_info", "blocked", "rpm"}
    made.unused(written, others, "model_list", entry.place)


# ── accounts and deployments ─────────────────────────────────────────────────────────────────────


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


def _address(entry: _Entry, made: Conversion) -> _Address:
    base, url_place = entry.param("api_base", "base_url")
    key, key_place = entry.param("api_key")
    url, key = made.ours(base, url_place), made.ours(key, key_place)
    default = _DEFAULT_KEYS.get(entry.vendor)
    if entry.vendor == "azure":
        version, place = entry.param("api_version")
        url = _azure_url(url or "${AZURE_API_BASE}", made.ours(version, place))
        if any(_says(entry.params.get(name)) for name in _AD_KEYS):
            default = None
    elif entry.vendor == "runwayml":
        url = url or _RUNWAY
    elif entry.vendor == "openai" and base is None:
        url = _OPENAI
        made.note(url_place, str(entry.params["model"]), _CLOSED)
    elif entry.vendor == "openai":
        default = None
        if key is None:
            made.note(key_place, str(entry.params["model"]), _KEYLESS)
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
    if not _says(version) or "api-version=" in base:
        return base
    return f"{base}{'&' if '?' in base else '?'}api-version={version}"


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None


def _deployments(entries: Sequence[_Entry], made: Conversion) -> dict[str, list[dict[str, Any]]]:
    """Write accounts and deployments; returns the deployments of each group."""
    addresses = [_address(entry, made) for entry in entries]
    accounts = _accounts(entries, addresses, made)
    made.data["deployments"] = []
    ids = {str(entry.info["id"]) for entry in entries if _says(entry.info.get("id"))}
    groups: dict[str, list[dict[str, Any]]] = {}
    for entry, address in zip(entries, addresses, strict=True):
        account = accounts[address.owner]
        one = _deployment(entry, address, account, ids, made)
        made.data["deployments"].append(one)
        if isinstance(entry.name, str):
            groups.setdefault(entry.name, []).append(one)
    return groups


def _accounts(
    entries: Iterable[_Entry], addresses: Iterable[_Address], made: Conversion
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


def _account_names(entry: _Entry, address: _Address) -> Iterator[str]:
    """What an account might be called. Names are part of ids, so they are of what stays when keys
    change: the variable with the key, else the first model's id, else the host."""
    parts = _split(str(address.url))
    host = _slug((parts.hostname if parts else "") or "") or entry.provider
    variable = _VARIABLE.fullmatch(str(address.key))
    if variable:
        name = re.sub(r"_?(?:API_)?(?:KEY|SECRET|TOKEN)$", "", variable[1], flags=re.IGNORECASE)
        if name:
            short = name.lower().replace("_", "-").strip("-")
            yield from (short, f"{short}-{host}")
    elif _says(entry.info.get("id")):
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
    entry: _Entry, address: _Address, account: str, ids: set[str], made: Conversion
) -> dict[str, Any]:
    one: dict[str, Any] = {}
    at = ("deployments", len(made.data["deployments"]))
    made.origins[at] = entry.place

    def put(key: str, value: Any, place: Path) -> None:
        if value is not None:
            made.put(one, at, key, value, place)

    name = entry.info.get("id")
    if not _says(name):
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
    for key in ("weight", "order", "rpm", "max_parallel_requests", "timeout"):
        written, place = entry.params.get(key), entry.places.get(key, entry.place)
        put(key, made.ours(written, place), place)
    if entry.paused:
        put("weight", 0, (*entry.place, "blocked"))
    put("cost_per_second", *_price(entry, made))
    return one


def _ids(entry: _Entry, account: str) -> Iterator[str]:
    name = _slug(str(entry.name or entry.model))
    yield name if name == account else "-".join(filter(None, (name, account)))


def _headers(entry: _Entry, made: Conversion) -> tuple[dict[str, Any], Path]:
    headers: dict[str, Any] = {}
    found: Path = entry.place
    if entry.provider == "openai":
        organization, place = entry.param("organization")
        if _says(organization):
            headers["OpenAI-Organization"], found = made.ours(organization, place), place
    for key in ("headers", "extra_headers"):
        written, place = entry.param(key)
        if isinstance(written, Mapping):
            headers |= made.ours(written, place)
            found = place
        elif written is not None:
            made.problems.append((place, "must be a mapping of header names to strings"))
    return headers, found


def _price(entry: _Entry, made: Conversion) -> tuple[Any, Path]:
    for key in ("output_cost_per_video_per_second", "output_cost_per_second"):
        if entry.params.get(key) is not None:
            return made.ours(entry.params[key], entry.places[key]), entry.places[key]
        if entry.info.get(key) is not None:
            place = entry.info_place(key)
            return made.ours(entry.info[key], place), place
    return None, entry.place


# ── settings ─────────────────────────────────────────────────────────────────────────────────────

# Ours, and where LiteLLM has it; the first that is written counts.
_SETTINGS = {
    "retries": (("router_settings", "num_retries"), ("litellm_settings", "num_retries")),
    "timeout": (("router_settings", "timeout"), ("litellm_settings", "request_timeout")),
}
_LISTS = ("fallbacks", "default_fallbacks")
_REDIS = ("redis_url", "redis_host", "redis_port", "redis_password", "redis_db")


def _settings(
    written: Mapping[Any, Any], groups: dict[str, list[dict[str, Any]]], made: Conversion
) -> None:
    sections = {
        name: found
        for name in ("router_settings", "litellm_settings")
        if isinstance(found := written.get(name), Mapping)
    }
    router = sections.get("router_settings", {})
    ours: dict[str, Any] = {}
    at = ("settings",)
    strategy = router.get("routing_strategy")
    if _says(strategy):
        place = ("router_settings", "routing_strategy")
        strategy = made.ours(strategy, place)
        named = STRATEGIES.get(strategy, strategy) if isinstance(strategy, str) else strategy
        made.put(ours, at, "strategy", named, place)
    for key, origins in _SETTINGS.items():
        for section, name in origins:
            value = sections.get(section, {}).get(name)
            if value is not None and value != "":
                made.put(ours, at, key, made.ours(value, (section, name)), (section, name))
                break
    _redis(router, ours, made)
    _aliases(router.get("model_group_alias"), groups, made)
    fallbacks = _fallbacks(sections, set(groups), made)
    if fallbacks:
        ours["fallbacks"] = fallbacks
    if ours:
        made.data = {"settings": ours, **made.data}


def _redis(router: Mapping[Any, Any], ours: dict[str, Any], made: Conversion) -> None:
    place = ("router_settings", "redis_url")
    if _says(router.get("redis_url")):
        made.put(ours, ("settings",), "redis_url", made.ours(router["redis_url"], place), place)
        return
    parts: dict[str, str] = {}
    for key in _REDIS:
        value = made.ours(router.get(key), ("router_settings", key))
        if value is not None and value != "":
            is_ours = isinstance(value, str) and "${" in value
            parts[key] = (
                value if is_ours else quote(str(value), safe="[]:" if "host" in key else "")
            )
    if "redis_host" not in parts:
        for key in parts:
            made.note(("router_settings", key), f"router_settings.{key}", _UNUSED)
        return
    place = ("router_settings", "redis_host")
    url = parts["redis_host"]
    if "redis_port" in parts:
        url += f":{parts['redis_port']}"
    if password := parts.get("redis_password"):
        url = f":{password}@{url}"
        if "${" in password:
            made.note(("router_settings", "redis_password"), "redis_password", _ENCODED)
    if "redis_db" in parts:
        url += f"/{parts['redis_db']}"
    made.put(ours, ("settings",), "redis_url", f"redis://{url}", place)


def _aliases(written: object, groups: dict[str, list[dict[str, Any]]], made: Conversion) -> None:
    """A second name of a group is a second group of its deployments."""
    place = ("router_settings", "model_group_alias")
    if not isinstance(written, Mapping):
        if _says(written):
            made.problems.append((place, "must be a mapping of names to groups"))
        return
    aliases: dict[str, list[dict[str, Any]]] = {}
    for alias, target in written.items():
        name = target.get("model") if isinstance(target, Mapping) else target
        members = groups.get(name) if isinstance(name, str) else None
        if members is None or alias in groups:
            why = _ABSENT if members is None else _TAKEN
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
            made.note(place, f"fallbacks.{group}", _ABSENT)
            continue
        here = [name for name in names if isinstance(name, str) and name in groups]
        for index, name in enumerate(names):
            if name not in here:
                which = name if isinstance(name, str) else "(a mapping)"
                made.note((*place, index), f"fallbacks.{group} to {which}", _ABSENT)
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
    for key in _LISTS:
        for section, facts in sections.items():
            listed, place = facts.get(key), (section, key)
            if not _says(listed):
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


def _rest(written: Mapping[Any, Any], made: Conversion) -> None:
    """Note what no other part has taken."""
    known: dict[str, set[str]] = {
        "router_settings": {"routing_strategy", "model_group_alias", *_REDIS, *_LISTS},
        "litellm_settings": {*_LISTS},
        "general_settings": set(),
    }
    for places in _SETTINGS.values():
        for section, key in places:
            known[section].add(key)
    for name, section in written.items():
        if name in ("model_list", "credential_list", "environment_variables"):
            continue
        if name not in known:
            # LiteLLM's Router takes these as arguments; its files have them in a section.
            stray = _STRAY if name in known["router_settings"] else _UNUSED
            if _says(section):
                made.note((str(name),), str(name), _ELSEWHERE if name == "include" else stray)
        elif isinstance(section, Mapping):
            made.unused(section, known[name], name, (name,))
        elif _says(section):
            made.problems.append(((name,), "must be a mapping"))


def _variables(section: object) -> Iterator[tuple[str, str]]:
    for name, value in section.items() if isinstance(section, Mapping) else ():
        plain = str(value) if isinstance(value, str | int | float) else ""
        if plain and not plain.startswith(_ENVIRON):
            yield str(name), plain


# ── our form, with nothing set ───────────────────────────────────────────────────────────────────


def guessed(data: Mapping[str, Any]) -> dict[str, Any]:
    """Our form with something fitting for each variable, to be checked where none is set."""

    def guess(value: Any, key: str) -> Any:
        if isinstance(value, Mapping):
            return {name: guess(item, str(name)) for name, item in value.items()}
        if isinstance(value, list):
            return [guess(item, key) for item in value]
        if not isinstance(value, str) or not _VARIABLE.search(value):
            return value
        plain = _VARIABLE.sub(r"\1", value)
        if key == "base_url":
            return f"https://{re.sub('[^a-z0-9]', '-', plain.lower())}.invalid"
        # Numbers pass for text, and text does not pass for numbers.
        numbers = {"weight", "order", "rpm", "max_parallel_requests", "timeout", "retries"}
        fixed = {"redis_url": "redis://h", "strategy": None} | dict.fromkeys(numbers, "1")
        return fixed.get(key, "1" if key == "cost_per_second" else plain)

    found = guess(data, "")
    assert isinstance(found, dict)
    return found
