"""The configuration: what the YAML, or a dict of its shape, says; checked whole, then frozen.

    text ──▶ values with lines ──▶ variables expanded ──▶ forms, accounts inherited ──▶ Config

Nothing is half accepted. A deployment that is misread sends paid jobs to the wrong place, so an
unknown key, a key that only a later version knows, or a doubtful value refuses the file, and all
that is wrong is told at once: one line per problem, `file:line: key: what is wrong; what is
allowed`. No line holds a secret: values are printed by `Reading.shown` alone, and never where a
secret belongs.

Loading reads the file and nothing else: the environment, the names of providers and strategies,
and the time are handed in. A reload is the same call again.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any, Self, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    InstanceOf,
    PlainSerializer,
    SecretStr,
    Strict,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails

from router import _yaml, litellm, redis_url
from router._reading import SHORTEST_SECRET, Reading, allowed
from router._yaml import Path
from router.proxy_settings import (
    BODY_TIMEOUT,
    MAX_BODY,
    ProxyKey,
    ProxySettings,
    digest_of_key,
)
from router.types import Operation

__all__ = [
    "LAST_DAY_SECONDS",
    "Account",
    "Config",
    "Deployment",
    "Limits",
    "ProviderFacts",
    "Settings",
    "Vocabulary",
    "convert_file",
    "load_data",
    "load_file",
    "retirement",
    "size_of",
]

# Far above any honest configuration; a video given by mistake is refused before it is parsed.
MAX_BYTES = 1 << 20

_LITELLM = "is LiteLLM's form, beside ours: a file is in one of them (`video-router convert`)"
# Who balances by usage has quotas in mind, which are limits here; what comes nearest among the
# strategies is the one that goes by load.
_LITELLM_STRATEGIES = {
    **litellm.STRATEGIES,
    "usage-based-routing": "least-busy",
    "usage-based-routing-v2": "least-busy",
}
_SECTIONS = ("settings", "accounts", "deployments", "proxy")

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2: what a header's name is
# What a key looks like, known or not. `{api_key:secret}`, where a blank is missing, is another.
_KEY = re.compile(
    r"(?:x-)?_*[A-Za-z]+\d{0,2}[A-Za-z]{0,8}(?:[_-]\d?[A-Za-z]*\d{0,2}[A-Za-z]{0,8})*"
)

# What each field takes, in the words of a message. A test keeps the list whole.
_ALLOWED = {
    "strategy": "the name of a strategy",
    "connect_timeout": "a number of seconds above 0",
    "timeout": "a number of seconds above 0",
    "deadline": "a number of seconds above 0",
    "retries": "a whole number from 0 to 10",
    "max_wait": "a number of seconds, 0 or more",
    "redis_url": "a URL: redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://",
    "namespace": "a short name: letters, digits, `.`, `_`, `-`, `:` and `/`",
    "default_model": "the name of a model group",
    "fallbacks": "a mapping of model groups to lists of other model groups",
    "id_secrets": "a list of strings",
    "accept_unsigned_ids": "true or false",
    "id": "a string (quote a number)",
    "model_name": "a string, or a list of different strings (quote a number)",
    "account": "a string (quote a number)",
    "provider": "the name of a provider",
    "model": "a string (quote a number)",
    "base_url": "an http or https URL with a host",
    "api_key": "a string (quote a number)",
    "headers": "a mapping of header names to strings (quote a number)",
    "weight": "a number, 0 or more: 0, or 0.000001 to 1,000,000",
    "order": "a whole number, 1 or more",
    "operations": "a list of operations",
    "retry_on_5xx": "true or false",
    "cost_per_second": "a number of dollars, 0 or more, up to 1,000,000, or a mapping of sizes to"
    " such numbers",
    "idempotency_header": "the name of a header that is the caller's, such as Idempotency-Key",
    "retires_on": "a date such as 2026-12-31",
    "drop_params": "true or false",
    "max_cost_per_day": "a number of dollars above 0, up to 1,000,000,000",
    "rpm": "a whole number, 1 or more",
    "read_rpm": "a whole number, 1 or more",
    "max_parallel_requests": "a whole number, 1 or more",
    "max_parallel_jobs": "a whole number, 1 or more",
    "job_ttl": "a number of seconds above 0",
    "keys": "a list of keys, each with a name and a key or its sha256",
    "name": "a string (quote a number)",
    "key": "a string (quote a number)",
    "sha256": "64 hexadecimal digits: the SHA-256 of a key",
    "models": "a list of model groups",
    "operator": "true or false",
    "max_body": "a whole number of bytes, 1 or more",
    "body_timeout": "a number of seconds above 0",
    "open_metrics": "true or false",
    "extra_fields": "a list of names of fields",
}


# ── what configuration must know of the rest ─────────────────────────────────────────────────────


@dataclass(frozen=True)
class ProviderFacts:
    """What configuration must know of a provider. Handed in: providers stand a layer higher."""

    operations: frozenset[Operation]
    dialect: str


@dataclass(frozen=True)
class Vocabulary:
    """The names that a configuration may use."""

    providers: Mapping[str, ProviderFacts]
    strategies: Collection[str]


# ── kinds of values ──────────────────────────────────────────────────────────────────────────────
#
# An empty string is "not written" everywhere: as a value it never reaches a form, as an item of a
# list or a header it passes here and `_filled` drops it, so that positions still match the lines.


def _name(value: str) -> str:
    # Names go into ids, logs and lists with commas; a stray blank or line break is never meant.
    if value != value.strip() or not value.isprintable() or "," in value:
        raise ValueError("must have no comma, no control character and no blank at either end")
    return value


def _redis_url(value: SecretStr) -> SecretStr:
    redis_url.parse(value.get_secret_value())
    return value


def _number(value: object) -> object:
    # To Python a boolean is an integer; and pydantic fails on integers that are too long to print.
    if isinstance(value, bool) or (isinstance(value, int) and value.bit_length() > 63):
        raise ValueError("must be a number, of sensible size")
    return value


# Sums and quotients of what is within these stay numbers.
_LEAST_WEIGHT, _MOST_WEIGHT = 1e-6, 1e6
_MOST_PRICE, _MOST_PER_DAY = 1e6, 1e9


def _weight(value: float) -> float:
    if value and not _LEAST_WEIGHT <= value <= _MOST_WEIGHT:
        raise ValueError(f"must be {_ALLOWED['weight']}")
    return value


def _flag(value: object) -> object:
    # To pydantic 0 and 1 are booleans too.
    if isinstance(value, bool | str):
        return value
    raise ValueError("must be true or false")


def _sendable(secret: SecretStr) -> SecretStr:
    # Anything else fails at the first request, in httpx, with the value in the message.
    if not re.fullmatch(r"(?:[!-~](?:[\t -~]*[!-~])?)?", secret.get_secret_value()):
        raise ValueError("must be visible ASCII in one line, without blanks at either end")
    return secret


def _filled(values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(value for value in values if value)


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names or len(set(names)) < len(names):
        raise ValueError("must be a string, or a list of different strings with at least one")
    return names


def _fallbacks(written: object) -> object:
    """One group stands for a list of one; a group with nothing after it is not written."""
    if not isinstance(written, Mapping):
        return written
    if not all(isinstance(name, str) for name in written):
        raise ValueError("must have groups that are strings (quote a number)")
    return {name: _listed(groups) for name, groups in written.items() if _is_written(groups)}


def _date(written: object) -> object:
    # To pydantic a number is a date, and to `fromisoformat` a week or eight digits. A day that no
    # calendar has stays text, and pydantic refuses it.
    is_text = isinstance(written, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", written, re.ASCII)
    is_date = isinstance(written, datetime.date) and not isinstance(written, datetime.datetime)
    if is_text or is_date:
        return written
    raise ValueError(f"must be {_ALLOWED['retires_on']}")


def size_of(written: str) -> str:
    """A size in one spelling: the same one is 1280x720 to one provider, 1280:720 to another."""
    return written.lower().replace(":", "x")


def _sizes(written: Mapping[Any, object]) -> dict[str, object]:
    if not all(isinstance(size, str) for size in written):
        raise ValueError("must have sizes that are strings (quote a number)")
    prices = {size: price for size, price in written.items() if _is_written(price)}
    if not prices:
        raise ValueError("must have at least one size with its price, or be a number for all sizes")
    if len(set(map(size_of, prices))) < len(prices):
        raise ValueError("must have each size once; 1280x720 and 1280:720 are the same size")
    return prices


def _by_size(prices: dict[str, float]) -> Mapping[str, float]:
    return MappingProxyType({size_of(size): price for size, price in prices.items()})


def _header_names(written: object) -> object:
    # All of them, before the empty ones are dropped: `{authorization:secret}`, where a blank is
    # missing, is one long name with nothing in it. It is not quoted, for the same reason.
    if not isinstance(written, Mapping):
        return written
    if not all(isinstance(name, str) and _TOKEN.fullmatch(name) for name in written):
        raise ValueError("must have header names of letters, digits and dashes")
    if len({name.lower() for name in written}) < len(written):
        raise ValueError("must have each header once; upper and lower case are the same header")
    return {name: value for name, value in written.items() if value is not None}


def _headers(written: dict[str, SecretStr]) -> dict[str, SecretStr]:
    return {name.lower(): value for name, value in written.items() if value}


# What says whose request it is, or how to read it, is no place for a key of ours.
_TAKEN_HEADERS = frozenset(
    {"authorization", "api-key", "host", "content-length", "content-type", "transfer-encoding"}
)


def _hex_digest(secret: SecretStr) -> SecretStr:
    digest = secret.get_secret_value().lower()
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError(f"must be {_ALLOWED['sha256']}")
    return SecretStr(digest)


def _free_header(name: str) -> str:
    if not _TOKEN.fullmatch(name) or name.lower() in _TAKEN_HEADERS:
        raise ValueError(f"must be {_ALLOWED['idempotency_header']}")
    return name.lower()


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """A base URL, its userinfo taken off: a URL is printed, logged and compared."""

    url: str
    authorization: SecretStr | None

    @classmethod
    def parse(cls, written: object) -> Self:
        if not isinstance(written, str) or not re.fullmatch(r"[!-~]+", written):
            raise ValueError("must be an http or https URL, in ASCII and without blanks")
        try:
            parts = urlsplit(written)
            port = parts.port
        except ValueError:
            # The original's text quotes the host, which may be a mistyped user:password@host.
            raise ValueError("must be an http or https URL with a valid host and port") from None
        if parts.scheme not in ("http", "https") or not _is_host(parts.hostname) or parts.fragment:
            raise ValueError("must be an http or https URL with a host and no #fragment")
        url = urlunsplit(
            (parts.scheme, _netloc(parts, port), parts.path.rstrip("/"), parts.query, "")
        )
        return cls(url, _basic(parts))


def _is_host(host: str | None) -> bool:
    return bool(host and re.fullmatch(r"[\w.-]+|[0-9a-f:.]+(?:%\w+)?", host, re.ASCII))


def _netloc(parts: SplitResult, port: int | None) -> str:
    host = parts.hostname or ""
    default = {"http": 80, "https": 443}[parts.scheme]
    bracketed = f"[{host}]" if ":" in host else host
    return bracketed if port in (None, default) else f"{bracketed}:{port}"


def _basic(parts: SplitResult) -> SecretStr | None:
    userinfo, at, _ = parts.netloc.rpartition("@")
    if not at:
        return None
    user, _, password = userinfo.partition(":")
    pair = f"{unquote(user)}:{unquote(password)}".encode()
    return SecretStr("Basic " + base64.b64encode(pair).decode())


Name = Annotated[str, Strict(), AfterValidator(_name)]
Number = Annotated[float, BeforeValidator(_number)]
Seconds = Annotated[float, BeforeValidator(_number), Field(gt=0)]
Limit = Annotated[int, BeforeValidator(_number), Field(ge=1)]
Flag = Annotated[bool, BeforeValidator(_flag)]
Sendable = Annotated[SecretStr, AfterValidator(_sendable)]
Names = Annotated[tuple[Name, ...], AfterValidator(_filled)]
GroupNames = Annotated[Names, AfterValidator(_distinct)]
Fallbacks = Annotated[
    Mapping[Name, GroupNames],
    BeforeValidator(_fallbacks),
    AfterValidator(MappingProxyType),
    PlainSerializer(dict),  # pydantic knows no read-only mapping
]
Date = Annotated[datetime.date, BeforeValidator(_date)]
Price = Annotated[Number, Field(ge=0, le=_MOST_PRICE)]
# The tags stand in the places of pydantic's errors, and in none of ours.
_TAGS = frozenset({"[key]", "[price]", "[prices]"})
Prices = Annotated[
    Annotated[Price, Tag("[price]")]
    | Annotated[
        dict[str, Price], BeforeValidator(_sizes), AfterValidator(_by_size), Tag("[prices]")
    ],
    Discriminator(lambda written: "[prices]" if isinstance(written, Mapping) else "[price]"),
]


# ── forms: what may be written ───────────────────────────────────────────────────────────────────


class _Form(BaseModel):
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,
        defer_build=True,  # whoever only imports us does not wait for validators
        protected_namespaces=(),
    )


F = TypeVar("F", bound=_Form)


def _reading(info: ValidationInfo) -> _Reading:
    """Who is reading: forms are only read with it as the context, since it knows the vocabulary."""
    assert isinstance(info.context, _Reading)
    return info.context


class Settings(_Form):
    """What holds for every call. Times are seconds; defaults are named here and nowhere else.

    `fallbacks` are, by group, the groups that a generation goes to when nobody is left in its own.
    A chain is not followed: each call looks at the list of the group it names, so two groups may
    stand in for each other.
    """

    strategy: Name = "lowest-completion"
    connect_timeout: Seconds = 5.0
    timeout: Seconds = 120.0
    deadline: Seconds = 300.0
    retries: Annotated[int, BeforeValidator(_number), Field(ge=0, le=10)] = 2
    max_wait: Annotated[Number, Field(ge=0)] = 0.0
    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)] | None = None
    namespace: Annotated[Name, Field(pattern=r"^[\w.:/-]{1,100}$")] = "video-router"
    default_model: Name | None = None
    fallbacks: Fallbacks = Field(default_factory=lambda: MappingProxyType({}))
    id_secrets: Annotated[tuple[SecretStr, ...], AfterValidator(_filled)] = ()
    accept_unsigned_ids: Flag = True

    @field_validator("strategy")
    @classmethod
    def _known_strategy(cls, name: str, info: ValidationInfo) -> str:
        if info.context is not None:  # else code made the settings, and knows what it does
            _reading(info).check_strategy(name)
        return name


class _LimitsForm(_Form):
    rpm: Limit | None = None
    read_rpm: Limit | None = None
    max_parallel_requests: Limit | None = None
    max_parallel_jobs: Limit | None = None
    job_ttl: Seconds | None = None

    def limits(self) -> Limits:
        return Limits(
            self.rpm,
            self.read_rpm,
            self.max_parallel_requests,
            self.max_parallel_jobs,
            self.job_ttl,
        )


class _AccountForm(_LimitsForm):
    api_key: Sendable | None = None
    base_url: Annotated[InstanceOf[_Endpoint], BeforeValidator(_Endpoint.parse)] | None = None
    max_cost_per_day: Annotated[Number, Field(gt=0, le=_MOST_PER_DAY)] | None = None

    def limits(self) -> Limits:
        return dataclasses.replace(super().limits(), cost_per_day=self.max_cost_per_day)


class _DeploymentForm(_LimitsForm):
    id: Name
    model_name: Annotated[GroupNames, BeforeValidator(_listed)]
    account: Name | None = None
    provider: Annotated[Name, Field(validate_default=True)] = "openai"
    model: Name | None = None
    base_url: Annotated[InstanceOf[_Endpoint], BeforeValidator(_Endpoint.parse)]
    api_key: Sendable | None = None
    headers: Annotated[
        dict[str, Sendable], BeforeValidator(_header_names), AfterValidator(_headers)
    ] = Field(default_factory=dict)
    weight: Annotated[Number, AfterValidator(_weight)] = 1.0
    order: Annotated[int, BeforeValidator(_number), Field(ge=1)] = 1
    operations: Names | None = None
    timeout: Seconds | None = None
    retry_on_5xx: Flag = False
    drop_params: Flag = False
    cost_per_second: Prices | None = None
    idempotency_header: Annotated[Name, AfterValidator(_free_header)] | None = None
    retires_on: Date | None = None

    @field_validator("provider")
    @classmethod
    def _known_provider(cls, name: str, info: ValidationInfo) -> str:
        _reading(info).check_provider(name)
        return name

    @field_validator("operations")
    @classmethod
    def _possible(cls, names: tuple[str, ...] | None, info: ValidationInfo) -> Any:
        if names is not None and "provider" in info.data:
            _reading(info).check_operations(names, info.data["provider"])
        return names


class _ProxyForm(_Form):
    keys: tuple[Any, ...] = ()
    max_body: Limit = MAX_BODY
    body_timeout: Seconds = BODY_TIMEOUT
    open_metrics: Flag = False
    extra_fields: Annotated[GroupNames, BeforeValidator(_listed)] = ()

    def settings(self, keys: Iterable[ProxyKey]) -> ProxySettings:
        return ProxySettings(
            tuple(keys), self.max_body, self.body_timeout, self.open_metrics, self.extra_fields
        )


class _ProxyKeyForm(_Form):
    name: Name
    key: Sendable | None = None
    sha256: Annotated[SecretStr, AfterValidator(_hex_digest)] | None = None
    models: Annotated[Names, BeforeValidator(_listed), AfterValidator(_distinct)] | None = None
    rpm: Limit | None = None
    operator: Flag = False

    def digest(self) -> SecretStr | None:
        """The key's SHA-256; `None` where it stands there twice, or not at all."""
        if (self.key is None) == (self.sha256 is None):
            return None
        return self.sha256 or SecretStr(digest_of_key(self.key.get_secret_value()))  # type: ignore[union-attr]


# ── what is handed out ───────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be asked of a deployment, or of an account, over all workers; `None` is no limit.

    `rpm` and `read_rpm` are submits and reads granted in any 60 seconds; the other two count what
    is under way. A job that nobody has seen for `job_ttl` seconds stops holding its slot.
    `cost_per_day` is in dollars, from midnight to midnight UTC; only accounts have it.
    """

    rpm: int | None = None
    read_rpm: int | None = None
    max_parallel_requests: int | None = None
    max_parallel_jobs: int | None = None
    job_ttl: float | None = None
    cost_per_day: float | None = None


NO_LIMITS = Limits()
JOB_TTL = 900.0

LAST_DAY_SECONDS = 86400.0
"""A deployment gets no new work in its last day: what starts then may outlive it."""
WARNED_SECONDS = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Account:
    """Who owns what its deployments create. Accounts that are only named by a deployment count."""

    id: str
    api_key: SecretStr | None = None
    base_url: str | None = None
    limits: Limits = NO_LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """One model at one `base_url` with one key, its account's part already taken over.

    `base_url` has no userinfo and no trailing slash; a query is kept. `headers` have lower-cased
    names. `timeout` is in seconds; `None` leaves it to the settings. `cost_per_second` is in
    dollars per second of video, for all sizes or by size; sizes are lower case, with an `x`.
    `idempotency_header` is the one in which the provider takes a key of ours, if it does.
    """

    id: str
    model_names: tuple[str, ...]
    account: str
    account_is_default: bool = False
    provider: str
    model: str
    base_url: str
    api_key: SecretStr | None = None
    headers: Mapping[str, SecretStr] = field(default_factory=lambda: MappingProxyType({}))
    weight: float = 1.0
    order: int = 1
    operations: frozenset[Operation]
    timeout: float | None = None
    retry_on_5xx: bool = False
    drop_params: bool = False
    cost_per_second: float | Mapping[str, float] | None = None
    idempotency_header: str | None = None
    retires_on: datetime.date | None = None
    limits: Limits = NO_LIMITS

    def __hash__(self) -> int:
        # Deployments are keys on the path of every pick, and headers have no hash.
        return hash(self.id)

    def cost(self, size: str | None, seconds: float | None) -> float | None:
        """Dollars for a video of this size and so many seconds; `None` where that is not known.

        A size without a price has no known cost; of no size, only what all sizes cost alike.
        """
        prices = self.cost_per_second
        if prices is None or seconds is None:
            return None
        if isinstance(prices, (int, float)):  # as a tuple: this is on the path of a pick
            return round(prices * seconds, 6)
        price = prices.get(size_of(size)) if size is not None else _alike(prices)
        return None if price is None else round(price * seconds, 6)

    def cost_at_most(self, size: str | None, seconds: float) -> float | None:
        """The same, and for a size without a price that of the dearest."""
        known = self.cost(size, seconds)
        if known is None and isinstance(self.cost_per_second, Mapping):
            return max(self.cost_per_second.values()) * seconds
        return known

    @property
    def retires_at(self) -> float | None:
        """When it retires, in Unix seconds: as the day begins in UTC.

        From `LAST_DAY_SECONDS` before it gets no new work; what it owns it serves for ever.
        """
        if self.retires_on is None:
            return None
        midnight = datetime.datetime.combine(self.retires_on, datetime.time(), datetime.UTC)
        return midnight.timestamp()

    def redact(self, text: str) -> str:
        """Blot out every secret of this deployment: providers quote keys in their errors."""
        # The longest first: a secret within another must not leave the other's rest behind.
        for secret in sorted(self._secrets(), key=len, reverse=True):
            if len(secret) >= SHORTEST_SECRET:
                text = text.replace(secret, "***")
        return text

    def _secrets(self) -> Iterator[str]:
        if self.api_key:
            yield self.api_key.get_secret_value()
        for name, value in self.headers.items():
            yield value.get_secret_value()
            if name.endswith("authorization"):
                yield from _credentials(value.get_secret_value())


def _alike(prices: Mapping[str, float]) -> float | None:
    """The price of every size, where it is one and the same."""
    different = set(prices.values())
    return different.pop() if len(different) == 1 else None


def retirement(one: Deployment, now: float) -> str | None:
    """What people should be told of a deployment's retirement at this Unix time.

    `None` while there is nothing to tell: it has no date, or one more than 30 days away.
    """
    left = None if one.retires_at is None else one.retires_at - now
    if left is None or left > WARNED_SECONDS:
        return None
    if left <= 0:
        return f"retired on {one.retires_on}: only what it owns is served"
    if left <= LAST_DAY_SECONDS:
        return f"retires on {one.retires_on}: it gets no new work any more, and serves what it owns"
    days = int(left // 86400)
    return (
        f"retires on {one.retires_on}, in {days} day{'' if days == 1 else 's'}: it gets no new work"
        " in the last day before, and goes on serving what it owns"
    )


def _credentials(authorization: str) -> Iterator[str]:
    """The parts of an Authorization header that are secret without its first word."""
    scheme, _, token = authorization.partition(" ")
    yield token
    if scheme.lower() == "basic":
        try:
            pair = base64.b64decode(token, validate=True).decode()
        except ValueError:
            return
        yield pair
        yield from pair.split(":", 1)


@dataclass(frozen=True)
class Config:
    """A whole configuration that was found good. `warnings` are for `check`, with their places."""

    settings: Settings
    accounts: Mapping[str, Account]
    deployments: tuple[Deployment, ...]
    source: str = "<dict>"
    warnings: tuple[str, ...] = ()
    dropped: str | None = None
    """The warning that tells what of a LiteLLM configuration is not taken."""
    proxy: ProxySettings = field(default_factory=ProxySettings)

    @cached_property
    def groups(self) -> Mapping[str, tuple[Deployment, ...]]:
        """The deployments of each model group, as they stand in the file."""
        names = dict.fromkeys(name for one in self.deployments for name in one.model_names)
        return MappingProxyType(
            {name: tuple(d for d in self.deployments if name in d.model_names) for name in names}
        )


# ── loading ──────────────────────────────────────────────────────────────────────────────────────


def load_file(
    path: str | os.PathLike[str],
    *,
    environ: Mapping[str, str],
    vocabulary: Vocabulary,
    now: float | None = None,
) -> Config:
    """Load a YAML file. Raises `ConfigError`, whatever is wrong with the file or in it.

    With `now`, in Unix seconds, the warnings tell of deployments that retire.
    """
    return _load(*_read(path, environ, vocabulary), now)


def convert_file(
    path: str | os.PathLike[str], *, vocabulary: Vocabulary
) -> tuple[litellm.Conversion, tuple[str, ...]]:
    """A LiteLLM file in our form, and a line for each thing that was dropped.

    Variables stay as they are, and need not be set. Raises `ConfigError` where the file could not
    be loaded, or is in our form already.
    """
    data, reading = _read(path, {}, vocabulary)
    if not isinstance(data, Mapping) or not _is_litellm(data):
        if reading.problems:
            raise reading.refuse()
        raise reading.refuse("is not in LiteLLM's form, which has `model_list`")
    written = {k: v for k, v in data.items() if not str(k).startswith("x-")}
    made = _converted(written, reading)
    _checked(reading.expand(litellm.guessed(made.data), ()), reading, None)
    return made, reading.told((note.place, note.told(reading.shown)) for note in made.notes)


def _read(
    path: str | os.PathLike[str], environ: Mapping[str, str], vocabulary: Vocabulary
) -> tuple[Any, _Reading]:
    source = os.fsdecode(path)
    reading = _Reading(source, environ, vocabulary)
    try:
        document = _yaml.read(_text_of(source))
    except _yaml.YamlError as exc:
        column = f"column {exc.column}: " if exc.column else ""
        reading.lines = {(): exc.line} if exc.line else {}
        raise reading.refuse(column + exc.text) from None
    reading.lines = document.lines
    for place, line in document.duplicates.items():
        reading.problem(place, f"the key stands twice; the first is on line {line}")
    return document.data, reading


def load_data(
    data: Mapping[str, Any],
    *,
    environ: Mapping[str, str],
    vocabulary: Vocabulary,
    source: str = "<dict>",
    lines: Mapping[Path, int] | None = None,
    now: float | None = None,
) -> Config:
    """Load a mapping of the YAML's shape, as `load_file` does. Raises `ConfigError`."""
    return _load(data, _Reading(source, environ, vocabulary, lines or {}), now)


def _text_of(source: str) -> str:
    try:
        with open(source, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise _yaml.YamlError("there is no such file") from None
    except IsADirectoryError:
        raise _yaml.YamlError("is a directory, not a file") from None
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not a file name"
        raise _yaml.YamlError(f"cannot be read: {reason}") from None
    if len(content) > MAX_BYTES:
        raise _yaml.YamlError("is larger than 1 MiB, so it is no configuration")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _yaml.YamlError("is not UTF-8 text") from None
    if "\0" in text:
        raise _yaml.YamlError("is binary, not text")
    return text


def _load(data: object, reading: _Reading, now: float | None) -> Config:
    if data is None or data == {}:
        raise reading.refuse("is empty; `deployments` with at least one is required")
    if not isinstance(data, Mapping):
        raise reading.refuse("must be a mapping with the key `deployments`")
    written = {key: value for key, value in data.items() if not str(key).startswith("x-")}
    if not _is_litellm(written):
        reading.take_names(_names_given(written))
        return _checked(reading.expand(written, ()), reading, now)
    made = _converted(written, reading)
    config = _checked(reading.expand(made.data, ()), reading, now)
    told = litellm.summary(made, reading.shown)
    if told is None:
        return config
    told = reading.line(("model_list",), told)
    return dataclasses.replace(config, warnings=(told, *config.warnings), dropped=told)


def _names_given(written: Mapping[Any, Any]) -> Iterator[str]:
    """What a file in our form calls its accounts, deployments and groups, as it stands there."""
    accounts, entries = written.get("accounts"), written.get("deployments")
    yield from (str(name) for name in (accounts if isinstance(accounts, Mapping) else ()))
    for entry in entries if isinstance(entries, list | tuple) else ():
        for key in ("id", "account", "model_name") if isinstance(entry, Mapping) else ():
            found = _listed(entry.get(key))
            if isinstance(found, list | tuple):
                yield from (name for name in found if isinstance(name, str))


def _is_litellm(written: Mapping[Any, Any]) -> bool:
    return not litellm.KEYS.isdisjoint(written) and not {*_SECTIONS} & {*written}


def _converted(written: Mapping[Any, Any], reading: _Reading) -> litellm.Conversion:
    """A LiteLLM configuration in our form. What is wrong is told in the file's own places."""
    made = litellm.convert(written, reading.vocabulary.providers)
    reading.take_names(_names_given(made.data))
    reading.quoted = made.quoted
    reading.words |= litellm.WORDS
    reading.hide(*made.hidden)
    for place, text in made.problems:
        reading.problem(place, text)
    if not made.data["deployments"]:
        raise reading.refuse()
    reading.origins = made.origins
    reading.environ = {**reading.environ, **made.variables}
    return made


def _checked(written: Mapping[Any, Any], reading: _Reading, now: float | None) -> Config:
    reading.check_keys(written, _SECTIONS, ())
    settings = reading.form(Settings, _section(written.get("settings")), ("settings",))
    accounts = _accounts(written.get("accounts"), reading)
    forms = _deployment_forms(written, reading)
    deployments = {i: _resolve(form, reading.vocabulary) for i, form in forms.items()}
    _check_owners(accounts, deployments, reading)
    _check_prices(accounts, deployments, reading)
    _check_settings(settings or _sound_settings(written, reading), written, reading)
    proxy = _proxy(written, reading)
    if settings is None or reading.problems:
        raise reading.refuse()
    return Config(
        settings=settings,
        accounts=_all_accounts(accounts, deployments.values()),
        deployments=tuple(deployments.values()),
        source=reading.source,
        proxy=proxy,
        warnings=reading.told(
            (
                *_unnamed(deployments),
                *_unlisted(accounts, deployments, reading),
                *_retiring(deployments, now),
            )
        ),
    )


def _accounts(written: object, reading: _Reading) -> dict[str, _AccountForm]:
    if not _is_written(written):
        return {}
    if not isinstance(written, Mapping):
        reading.problem(("accounts",), "must be a mapping of account ids to their facts")
        return {}
    accounts = {}
    for name, facts in written.items():
        place = ("accounts", str(name))
        if not isinstance(name, str) or not name:
            reading.problem(place, "an account's id must be a string (quote a number)")
        elif form := reading.form(_AccountForm, _section(facts), place):
            accounts[name] = form
    return accounts


def _deployment_forms(written: Mapping[Any, Any], reading: _Reading) -> dict[int, _DeploymentForm]:
    """What passed, by its position in the file."""
    entries = written.get("deployments")
    if not isinstance(entries, list) or not any(map(_is_written, entries)):
        reading.problem(("deployments",), "must be a list of at least one deployment")
        return {}
    found = [(i, entry) for i, entry in enumerate(entries) if entry != ""]
    _check_ids(found, reading)
    forms = {}
    for index, entry in found:
        origin, inherited = _inherited(entry, written.get("accounts"))
        place = ("deployments", index)
        _check_account(entry, place, written.get("accounts"), reading)
        if form := reading.form(_DeploymentForm, entry, place, origin, inherited):
            forms[index] = form
    return forms


def _check_ids(entries: Iterable[tuple[int, object]], reading: _Reading) -> None:
    first: dict[str, int] = {}
    for index, entry in entries:
        name = entry.get("id") if isinstance(entry, Mapping) else None
        if isinstance(name, str) and name and first.setdefault(name, index) != index:
            where = f"it is {reading.key(('deployments', first[name]))}'s"
            reading.problem(
                ("deployments", index, "id"),
                f"the id `{reading.shown(name)}` is taken: {where}; ids are unique",
            )


def _inherited(entry: object, accounts: object) -> tuple[Path, Mapping[Any, Any]]:
    """What the entry's account says, and where. Taken as written: the entry's checks apply."""
    if isinstance(entry, Mapping) and isinstance(accounts, Mapping):
        name = entry.get("account") or entry.get("id")
        facts = accounts.get(name) if isinstance(name, str) else None
        if isinstance(facts, Mapping):
            # Limits stand for themselves: both an account's and its deployments' apply.
            known = {*_AccountForm.model_fields} & {*_DeploymentForm.model_fields}
            known -= {*_LimitsForm.model_fields}
            return ("accounts", str(name)), {k: v for k, v in facts.items() if k in known}
    return (), {}


def _check_account(entry: object, place: Path, accounts: object, reading: _Reading) -> None:
    """Who names an account that is not listed, and says nothing of its own, has misspelt it."""
    if not isinstance(entry, Mapping) or not isinstance(accounts, Mapping) or not accounts:
        return
    name = entry.get("account")
    has_url = _is_written(entry.get("base_url")) or reading.spoiled((*place, "base_url"))
    if not isinstance(name, str) or not name or name in accounts or has_url:
        return
    listed = [other for other in accounts if isinstance(other, str)]
    reading.problem(
        (*place, "account"),
        f"there is no account `{reading.shown(name)}`{reading.hint(name, listed)};"
        f" {reading.allowed(listed)}, or any with a base_url here",
    )


def _resolve(form: _DeploymentForm, vocabulary: Vocabulary) -> Deployment:
    headers = dict(form.headers)
    if form.base_url.authorization:
        headers.setdefault("authorization", form.base_url.authorization)
    operations = (
        vocabulary.providers[form.provider].operations
        if form.operations is None
        else frozenset(map(Operation, form.operations))
    )
    return Deployment(
        id=form.id,
        model_names=form.model_name,
        account=form.account or form.id,
        account_is_default=form.account is None,
        provider=form.provider,
        model=form.model or form.model_name[0],
        base_url=form.base_url.url,
        api_key=form.api_key,
        headers=MappingProxyType(headers),
        weight=form.weight,
        order=form.order,
        operations=operations,
        timeout=form.timeout,
        retry_on_5xx=form.retry_on_5xx,
        drop_params=form.drop_params,
        cost_per_second=form.cost_per_second,
        idempotency_header=form.idempotency_header,
        retires_on=form.retires_on,
        limits=form.limits(),
    )


def _check_owners(
    accounts: Mapping[str, _AccountForm],
    deployments: Mapping[int, Deployment],
    reading: _Reading,
) -> None:
    """One credential is one owner: under two accounts, its videos would seem to be lost."""
    owners: dict[object, str] = {}

    def claim(account: str, credential: tuple[str, object], place: Path) -> None:
        owner = owners.setdefault(credential, account)
        if owner != account:
            one, other = reading.shown(owner), reading.shown(account)
            # In LiteLLM's form, accounts are told apart by the variables with their keys.
            what = "account" if not reading.origins else "variable"
            reading.problem(
                place,
                f"the same base_url and key belong to the account `{one}` and to `{other}`;"
                f" name one {what} for both",
            )

    for name, form in accounts.items():
        if form.base_url and form.api_key and not reading.spoiled(("accounts", name)):
            claim(name, (form.base_url.url, form.api_key), ("accounts", name))
    for index, one in deployments.items():
        place = ("deployments", index)
        if not reading.spoiled(place) and not reading.spoiled(("accounts", one.account)):
            claim(one.account, _credential(one), (*place, "account"))


def _credential(one: Deployment) -> tuple[str, object]:
    """Who asks, as the provider sees it. Without a key, it is the headers that tell."""
    return one.base_url, one.api_key or frozenset(one.headers.items())


def _check_prices(
    accounts: Mapping[str, _AccountForm],
    deployments: Mapping[int, Deployment],
    reading: _Reading,
) -> None:
    """What has no price would be spent without being counted."""
    for index, one in deployments.items():
        account = accounts.get(one.account)
        starts_jobs = any(operation.starts_job for operation in one.operations)
        if account is None or account.max_cost_per_day is None or not starts_jobs:
            continue
        if one.cost_per_second is None:
            reading.problem(
                ("deployments", index, "cost_per_second"),
                f"is required: the account `{reading.shown(one.account)}` has max_cost_per_day",
            )


def _sound_settings(written: Mapping[Any, Any], reading: _Reading) -> Settings | None:
    """What is left of the settings without what is wrong, so that the rest is checked too."""
    section = _section(written.get("settings"))
    if not isinstance(section, Mapping):
        return None
    sound = {key: v for key, v in section.items() if not reading.spoiled(("settings", str(key)))}
    return reading.form(Settings, sound, ("settings",))


def _groups_written(written: Mapping[Any, Any], reading: _Reading) -> list[str] | None:
    """All model groups, also of deployments that are refused; `None` where one cannot be told."""
    groups: set[str] = set()
    entries = written.get("deployments")
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        place = ("deployments", index)
        if place in reading.problems or reading.spoiled((*place, "model_name")):
            return None
        names = _listed(entry.get("model_name")) if isinstance(entry, Mapping) else ()
        if isinstance(names, list | tuple):
            groups.update(name for name in names if name)
    return sorted(groups) or None


def _check_settings(
    settings: Settings | None, written: Mapping[Any, Any], reading: _Reading
) -> None:
    if settings is None:
        return
    groups = _groups_written(written, reading)
    if groups is not None:
        for place, name in _groups_named(settings):
            if name not in groups:
                reading.problem(place, reading.unknown("model group", name, groups))
    for group, others in settings.fallbacks.items():
        if group in others:
            left = sorted({*(groups or ())} - {group})
            what = reading.allowed(left) if left else "there is no other group"
            reading.problem(
                ("settings", "fallbacks", group), f"a group is no fallback to itself; {what}"
            )
    if reading.spoiled(("settings", "id_secrets")):
        return
    if not settings.accept_unsigned_ids and not settings.id_secrets:
        reading.problem(
            ("settings", "accept_unsigned_ids"),
            "without `id_secrets` every id is unsigned, so none would be accepted;"
            " write a secret, or allow true",
        )


def _proxy(written: Mapping[Any, Any], reading: _Reading) -> ProxySettings:
    """The section `proxy`. What is wrong is noted; what is returned then is never used."""
    form = reading.form(_ProxyForm, _section(written.get("proxy")), ("proxy",))
    if form is None:
        return ProxySettings()
    groups, keys = _groups_written(written, reading), dict[int, ProxyKey]()
    for index, entry in enumerate(form.keys):
        place = ("proxy", "keys", index)
        if entry != "" and (one := reading.form(_ProxyKeyForm, entry, place)):
            digest = one.digest()
            if digest is None:
                text = "is required: either a key, or its sha256, and not both"
                reading.problem((*place, "key"), text)
                continue
            keys[index] = ProxyKey(one.name, digest, one.models, one.rpm, one.operator)
    for index, key in keys.items():
        for number, name in enumerate(key.models or ()):
            if groups is not None and name not in groups:
                spot = ("proxy", "keys", index, "models", number)
                reading.problem(spot, reading.unknown("model group", name, groups))
    _check_distinct_keys(keys, reading)
    return form.settings(keys.values())


def _check_distinct_keys(keys: Mapping[int, ProxyKey], reading: _Reading) -> None:
    """A name is one tenant, and a key leads to one name."""
    names, digests = dict[str, int](), dict[str, int]()
    for index, key in keys.items():
        place, first = ("proxy", "keys", index), names.setdefault(key.name, index)
        if first != index:
            where = f"it is {reading.key(('proxy', 'keys', first))}'s"
            text = f"the name `{reading.shown(key.name)}` is taken: {where}; names are unique"
            reading.problem((*place, "name"), text)
        first = digests.setdefault(key.sha256.get_secret_value(), index)
        if first != index:
            where = reading.key(("proxy", "keys", first))
            reading.problem((*place, "key"), f"the same key is {where}'s; each name has its own")


def _groups_named(settings: Settings) -> Iterator[tuple[Path, str]]:
    """Every group that the settings name, with its place."""
    if settings.default_model:
        yield ("settings", "default_model"), settings.default_model
    for group, others in settings.fallbacks.items():
        place = ("settings", "fallbacks", group)
        yield place, group
        for index, other in enumerate(others):
            yield (place if len(others) == 1 else (*place, index)), other


def _all_accounts(
    accounts: Mapping[str, _AccountForm], deployments: Iterable[Deployment]
) -> Mapping[str, Account]:
    named = {one.account: _AccountForm() for one in deployments} | dict(accounts)
    return MappingProxyType(
        {
            name: Account(
                name,
                form.api_key,
                form.base_url.url if form.base_url else None,
                form.limits(),
            )
            for name, form in named.items()
        }
    )


def _unnamed(deployments: Mapping[int, Deployment]) -> Iterator[tuple[Path, str]]:
    for index, one in deployments.items():
        if not one.account_is_default:
            continue
        text = f"no account is named, so `{one.id}` is taken, its id"
        beside = [d.id for d in deployments.values() if d is not one and _same_host(d, one)]
        if beside:
            text += f"; `{'`, `'.join(beside)}` has the same base_url: is it the same account?"
        yield ("deployments", index, "account"), text


# Two accounts may well be called acme-eu and acme-us; and acme-1 and acme-2, however long.
_MISSPELT = 0.85
_DIGITS = re.compile(r"[0-9]+")


def _unlisted(
    accounts: Iterable[str], deployments: Mapping[int, Deployment], reading: _Reading
) -> Iterator[tuple[Path, str]]:
    """Who brings its own base_url may name any account; one that is nearly listed is a doubt."""
    by_letters = {_DIGITS.sub("", name): name for name in accounts}
    for index, one in deployments.items():
        if one.account_is_default or _DIGITS.sub("", one.account) in by_letters:
            continue
        if meant := reading.hint(one.account, [*by_letters.values()], _MISSPELT):
            text = (
                f"`accounts` has no `{reading.shown(one.account)}`{meant}: it is an account of its"
                " own, without that one's key and limits"
            )
            yield ("deployments", index, "account"), text


def _retiring(
    deployments: Mapping[int, Deployment], now: float | None
) -> Iterator[tuple[Path, str]]:
    for index, one in deployments.items():
        if now is not None and (told := retirement(one, now)):
            yield ("deployments", index, "retires_on"), f"`{one.id}` {told}"


def _same_host(one: Deployment, other: Deployment) -> bool:
    return one.base_url == other.base_url and one.account != other.account


# ── reading it ───────────────────────────────────────────────────────────────────────────────────


def _is_written(value: object) -> bool:
    """Null and the empty string say nothing: mostly they are a variable that is not set."""
    return value is not None and value != ""


def _section(value: object) -> object:
    return value if _is_written(value) else {}


class _Reading(Reading):
    """A reading that knows our forms and the vocabulary."""

    def __init__(
        self,
        source: str,
        environ: Mapping[str, str],
        vocabulary: Vocabulary,
        lines: Mapping[Path, int] = MappingProxyType({}),
    ) -> None:
        super().__init__(source, environ, lines)
        self.vocabulary = vocabulary
        names = {*vocabulary.providers, *vocabulary.strategies, *map(str, Operation)}
        self.words = frozenset({*_SECTIONS, *_ALLOWED, *names})

    def form(
        self,
        model: type[F],
        written: object,
        place: Path,
        origin: Path = (),
        inherited: Mapping[Any, Any] = MappingProxyType({}),
    ) -> F | None:
        """Check one mapping, with what it takes over from `origin`; `None` if it is refused."""
        if not isinstance(written, Mapping):
            self.problem(place, "must be a mapping")
            return None
        known = model.model_fields
        self.check_keys(written, known, place)
        own = {k: v for k, v in written.items() if k in known and _is_written(v)}
        values = {k: v for k, v in inherited.items() if _is_written(v)} | own
        try:
            return model.model_validate(values, context=self)
        except ValidationError as exc:
            for error in exc.errors(include_url=False, include_input=False):
                key = str(error["loc"][0])
                # A mistake in what was taken over is told once, where it was written.
                told = key in values or (origin and self.spoiled((*origin, key)))
                # Nor is that missed which an account would have given that is not there.
                inheritable = key in _AccountForm.model_fields
                told = told or (inheritable and self.spoiled((*place, "account")))
                if key in own or not told:
                    self._refused(error, place)
            return None

    def _refused(self, error: ErrorDetails, place: Path) -> None:
        steps = tuple(step for step in error["loc"] if step not in _TAGS)
        wanted = _ALLOWED[str(steps[0])]
        texts = {
            "missing": f"is required: {wanted}",
            # Only here the text is ours; pydantic's own would have to be trusted with the value.
            "value_error": str(error.get("ctx", {}).get("error")),
        }
        # What is wrong with a part of it has been said.
        if not self.spoiled((*place, *steps)):
            self.problem((*place, *steps), texts.get(error["type"], f"must be {wanted}"))

    def check_keys(self, written: Mapping[Any, Any], known: Collection[str], place: Path) -> None:
        for key, value in written.items():
            name = str(key)
            if key in known:
                continue
            if not _KEY.fullmatch(name):
                self.hide(name)
            later = _LITELLM if name in litellm.KEYS else None
            if later is None:
                self.problem((*place, name), self.unknown("key", name, known))
            elif _is_written(value):
                self.problem((*place, name), f"{later}; {allowed(known)}")

    # What depends on the vocabulary. A ValueError: pydantic takes it to the right place.

    def check_provider(self, name: str) -> None:
        if name not in self.vocabulary.providers:
            raise ValueError(self.unknown("provider", name, sorted(self.vocabulary.providers)))

    def check_strategy(self, name: str) -> None:
        known = sorted(self.vocabulary.strategies)
        ours = _LITELLM_STRATEGIES.get(name, name)
        if name in known:
            return
        if ours != name:
            raise ValueError(f"`{name}` is LiteLLM's word; here it is `{ours}`; {allowed(known)}")
        raise ValueError(self.unknown("strategy", name, known))

    def check_operations(self, names: Sequence[str], provider: str) -> None:
        possible = self.vocabulary.providers[provider].operations
        known = [operation.value for operation in Operation if operation in possible]
        if not names:
            raise ValueError(f"must name at least one operation; {allowed(known)}")
        for name in names:
            if name in set(Operation) - possible:
                raise ValueError(f"`{provider}` cannot do `{name}`; {allowed(known)}")
            if name not in possible:
                raise ValueError(self.unknown("operation", name, known))
