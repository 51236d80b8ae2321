"""A Redis's URL, taken apart and checked: before anybody connects, and where it was written.

    redis://  rediss://  valkey://  valkeys://   user:password@host:port/db
    unix://                                      user:password@/path/to/socket?db=0
    redis+sentinel://                            user:password@host:port,host:port/service/db
    redis+cluster://                             user:password@host:port,host:port

`rediss+…` speaks TLS to all of them, sentinels included. Options of redis-py's may follow a `?`
(`?ssl_ca_certs=…`), and `sentinel_username`, `sentinel_password` for sentinels that ask for one.
What is not plain in a user, a password or a path is percent-encoded: a `/` in a password would end
the host, and a worker would ask after a machine that nobody has, for as long as it runs.

Nothing of a URL is repeated in an error: any of it may be a password's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit

__all__ = ["Address", "parse"]

Base: TypeAlias = Literal["redis", "rediss", "unix"]
Kind: TypeAlias = Literal["server", "sentinel", "cluster"]

_PORTS: dict[Kind, int] = {"server": 6379, "sentinel": 26379, "cluster": 6379}
_SCHEMES: dict[str, tuple[Base, Kind]] = {
    "redis": ("redis", "server"),
    "rediss": ("rediss", "server"),
    "valkey": ("redis", "server"),
    "valkeys": ("rediss", "server"),
    "unix": ("unix", "server"),
    "redis+sentinel": ("redis", "sentinel"),
    "rediss+sentinel": ("rediss", "sentinel"),
    "redis+cluster": ("redis", "cluster"),
    "rediss+cluster": ("rediss", "cluster"),
}

_ENCODE = (
    "must have what is not plain in its user and password (as / ? # and @) percent-encoded:"
    " `a/b` is `a%2Fb`"
)
_SOCKET = "must name a socket: unix:///path/to/socket"
_ONE_DATABASE = "must have nothing after its hosts: a cluster has no numbered databases"
_FOR_SENTINELS = "sentinel_"
# What the URL says without a `?`, and what nothing is wrong with.
_OURS = ("host", "port", "path", "username", "password", "db")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a Redis is.

    `hosts` are the sentinels or the cluster's nodes, `service` and `database` what the sentinels
    are asked for; a single server's are among its options.
    """

    kind: Kind
    hosts: tuple[tuple[str, int], ...]
    service: str
    database: int
    _parts: SplitResult = field(repr=False)

    def options(self) -> dict[str, Any]:
        """User, password, what follows the `?`, and of a single server its place, by redis-py's
        names and as redis-py reads them."""
        import redis.connection  # heavy, and a configuration mostly has nothing to ask it

        untyped: Any = redis.connection.parse_url
        parts = self._parts
        try:
            given = untyped(f"{parts.scheme}://{parts.netloc}{parts.path}?{parts.query}")
        except ValueError:
            raise ValueError("must have options with values of the kind they take") from None
        return dict(given)


def parse(url: str) -> Address:
    """Take a URL apart. Raises `ValueError`, without a secret in it, for one that is wrong."""
    scheme, found, rest = url.partition("://")
    if not found or scheme not in _SCHEMES:
        raise ValueError(f"must begin with one of {', '.join(f'{name}://' for name in _SCHEMES)}")
    base, kind = _SCHEMES[scheme]
    parts = _split(f"{base}://{rest}")
    address = _server(parts) if kind == "server" else _several(kind, parts)
    if parts.query:
        _try(address)
    return address


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"cannot be read; it {_ENCODE}") from None
    if parts.fragment or "#" in url:
        raise ValueError(_ENCODE)
    if parts.scheme == "unix" and parts.netloc and not parts.netloc.endswith("@"):
        raise ValueError(f"{_SOCKET}; it {_ENCODE}")
    if "@" in parts.query or ("@" in parts.path and parts.scheme != "unix"):
        raise ValueError(_ENCODE)
    return parts


def _server(parts: SplitResult) -> Address:
    if parts.scheme == "unix":
        if not unquote(parts.path).strip("/"):
            raise ValueError(_SOCKET)
    else:
        hosts = _hosts(parts.netloc.rpartition("@")[2] or "localhost", "server")
        if len(hosts) > 1:
            raise ValueError("must be redis+sentinel:// or redis+cluster:// to have several hosts")
        _database(parts.path.strip("/"))
    return Address("server", (), "", 0, parts)


def _several(kind: Kind, parts: SplitResult) -> Address:
    userinfo, _, written = parts.netloc.rpartition("@")
    hosts = _hosts(written, kind)
    steps = [unquote(step) for step in parts.path.split("/") if step]
    left = parts._replace(netloc=f"{userinfo}@", path="")
    if kind == "cluster":
        if steps:
            raise ValueError(_ONE_DATABASE)
        return Address(kind, hosts, "", 0, left)
    if not 1 <= len(steps) <= 2:
        raise ValueError("must name the sentinels' service: redis+sentinel://host:26379/mymaster")
    return Address(kind, hosts, steps[0], _database(*steps[1:]), left)


def _hosts(written: str, kind: Kind) -> tuple[tuple[str, int], ...]:
    hosts = []
    for one in written.split(","):
        try:
            found = urlsplit(f"//{one}")
            hosts.append((found.hostname or "", found.port or _PORTS[kind]))
        except ValueError:
            raise ValueError(f"must have ports up to 65535; it {_ENCODE}") from None
    if not all(host for host, _ in hosts):
        raise ValueError("must name at least one host, as host:port, and several with commas")
    return tuple(hosts)


def _database(written: str = "") -> int:
    if written and not (written.isascii() and written.isdigit()):
        raise ValueError("must have a number as its database: redis://host:6379/0")
    return int(written or 0)


def _try(address: Address) -> None:
    """Make a connection, without connecting: redis-py refuses an option that it does not know."""
    import redis

    options = address.options()
    if address.kind == "cluster" and options.pop("db", 0):
        raise ValueError(_ONE_DATABASE)
    asking = {}
    if address.kind == "sentinel":
        names = [name for name in options if name.startswith(_FOR_SENTINELS)]
        asking = {name.removeprefix(_FOR_SENTINELS): options.pop(name) for name in names}
    kind: Any = options.pop("connection_class", redis.Connection)
    untyped: Any = redis.Redis
    try:
        kind(**options)
        untyped(**asking)
    except (AttributeError, TypeError, ValueError, redis.RedisError):
        names = [name for name in (*options, *asking) if name not in _OURS]
        plain = [name for name in names if re.fullmatch(r"[a-z_]{1,40}", name)]
        told = f", and one of these is none: {', '.join(plain)}" if plain else ""
        raise ValueError(f"must have only options that redis-py takes{told}") from None
