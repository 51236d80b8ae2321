"""From a URL to a client of redis-py's: a server, a sentinel's master, or a cluster.

    redis://  rediss://  valkey://  valkeys://   user:password@host:port/db
    unix://                                      user:password@/path/to/socket?db=0
    redis+sentinel://                            user:password@host:port,host:port/service/db
    redis+cluster://                             user:password@host:port,host:port

`rediss+…` speaks TLS to all of them, sentinels included. Options of redis-py's may follow a `?`
(`?ssl_ca_certs=…`), and `sentinel_username`, `sentinel_password` for sentinels that ask for one.
What is not plain in a user, a password or a path is percent-encoded.

No client connects here, and none is made before its first use, which is the keeper's: redis-py's
cluster connects where it is made. A store that is out of reach delays nobody's start.

A user of Redis's needs no more than this, for the namespace `video-router` (a cluster's also
`+cluster|slots +cluster|shards +command`, where redis-py asks for the layout of the cluster):

    ACL SETUSER router on >… ~{video-router}:v1:* resetchannels &{video-router}:v1:* RIGHTS

where RIGHTS is `connecting.RIGHTS`; a sentinel's user needs `+sentinel|masters`. Without the
channel (`&…`), or without `+publish +subscribe`, all works but that an ejection takes up to a
second to get around.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import redis
import redis.backoff
import redis.cluster
import redis.connection
import redis.retry
import redis.sentinel

__all__ = ["RIGHTS", "Client", "connect", "shown"]

RIGHTS = (
    # The one script, and what it does.
    "+eval +evalsha +time +expire +expireat +set +get +del +incr +type "
    "+hset +hsetnx +hget +hmget +hgetall +hstrlen +hdel +hincrby +hincrbyfloat +hvals "
    "+zadd +zrem +zcard +zcount +zrank +zrange +zscore +zrangebyscore +zremrangebyscore +zpopmin "
    "+lpush +ltrim +lrange "
    # Being told at once, and what redis-py says when it connects.
    "+publish +subscribe +ping +select +hello"
)
"""The commands that a user of Redis's is to be allowed.

From 7.2 on also `+client|setinfo`: redis-py does without, but then `ACL LOG` notes it.
"""

CONNECT_SECONDS = 1.0
ANSWER_SECONDS = 2.0
_PORTS = {"sentinel": 26379, "cluster": 6379}
_ALIASES = {"valkey": "redis", "valkeys": "rediss"}
_SCHEMES = (
    "redis, rediss, valkey, valkeys, unix, redis+sentinel, rediss+sentinel, "
    "redis+cluster, rediss+cluster"
)


class Client:
    """redis-py's client for a URL: made at its first use, and anew in a forked child.

    It passes for the client itself. A child closes its copies of the parent's sockets, also those
    that a thread of the parent's was reading from, which nobody else would let go of.
    """

    def __init__(self, make: Callable[[Callable[[Any], None]], Any]) -> None:
        self._make = make
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._made: Any = None
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        with self._lock:
            if self._made is None:
                self._made = self._make(self._connections.add)
        return getattr(self._made, name)

    def close(self) -> None:
        """Close what is open. The next use connects again."""
        made, connections = self._made, list(self._connections)
        self._begin()
        for connection in connections:
            connection.disconnect()
        if made is not None:
            made.close()

    def after_fork(self) -> None:
        """In a child process: the parent's connections are let go of, not ended."""
        connections = list(self._connections)
        self._begin()
        for connection in connections:
            connection.disconnect()  # redis-py sees the other process, and only closes


def connect(url: str) -> Client:
    """A client for a URL; raises `ValueError`, without a secret in it, for one that is wrong."""
    scheme, found, rest = url.partition("://")
    base, _, kind = _ALIASES.get(scheme, scheme).partition("+")
    known = kind in _PORTS and base in ("redis", "rediss")
    if not found or not (known or (not kind and base in ("redis", "rediss", "unix"))):
        raise ValueError(f"it begins with one of {_SCHEMES}, and ://")
    parts = _parts(f"{base}://{rest}")
    if not kind:
        return _server(parts)
    hosts = _hosts(parts.netloc.rpartition("@")[2], _PORTS[kind])
    options = _options(parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@", path=""))
    steps = [unquote(step) for step in parts.path.split("/") if step]
    return _cluster(hosts, steps, options) if kind == "cluster" else _master(hosts, steps, options)


def shown(url: str) -> str:
    """A URL as a log may show it: without user, password and options."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


# Kinds of clients ---------------------------------------------------------------------------------


def _server(parts: SplitResult) -> Client:
    if parts.scheme == "unix":
        if not unquote(parts.path).strip("/"):
            raise ValueError("a unix URL names a socket: unix:///path/to/socket")
    else:
        hosts = _hosts(parts.netloc.rpartition("@")[2] or "localhost", 0)
        if len(hosts) > 1:
            raise ValueError("several hosts are redis+sentinel:// or redis+cluster://")
        _database(parts.path.strip("/"))
    options = _options(parts)
    _tried(options)

    def make(opened: Callable[[Any], None]) -> Any:
        pool = redis.ConnectionPool(**options, redis_connect_func=_then(opened))
        return redis.Redis(connection_pool=pool)

    return Client(make)


def _master(hosts: list[tuple[str, int]], steps: list[str], options: dict[str, Any]) -> Client:
    if not 1 <= len(steps) <= 2:
        raise ValueError("a sentinel URL names its service: redis+sentinel://host:26379/mymaster")
    service, database = steps[0], _database(*steps[1:])
    asking = {key[9:]: options.pop(key) for key in list(options) if key.startswith("sentinel_")}
    secure = options.pop("connection_class", None) is redis.SSLConnection
    if secure:
        asking = {**{k: v for k, v in options.items() if k.startswith("ssl_")}, **asking}
    _tried({**options, "connection_class": redis.SSLConnection if secure else redis.Connection})

    def make(opened: Callable[[Any], None]) -> Any:
        told = {"redis_connect_func": _then(opened), "ssl": secure}
        untyped: Any = redis.sentinel.Sentinel  # as the cluster's nodes are
        patience = {**_patience(), **asking, **told}
        sentinel = untyped(hosts, sentinel_kwargs=patience, **{**options, "db": database})
        sentinel.sentinels = [_Asked(host=host, port=port, **patience) for host, port in hosts]
        return sentinel.master_for(service, **told)

    return Client(make)


class _Asked(redis.Redis):
    """A sentinel. Where none answers, redis-py's error shows each, by default with its password."""

    def __repr__(self) -> str:
        where = self.connection_pool.connection_kwargs
        return f"{where['host']}:{where['port']}"


def _cluster(hosts: list[tuple[str, int]], steps: list[str], options: dict[str, Any]) -> Client:
    if steps or options.get("db"):
        raise ValueError("a cluster has no numbered databases: leave out what follows its hosts")
    options.pop("db", None)
    _tried(options)
    secure = options.pop("connection_class", None) is redis.SSLConnection

    def make(opened: Callable[[Any], None]) -> Any:
        node: Any = redis.cluster.ClusterNode
        nodes = [node(host, port) for host, port in hosts]
        # A cluster's client lets a connection introduce itself, and only then tells of it.
        return redis.cluster.RedisCluster(
            startup_nodes=nodes, redis_connect_func=opened, ssl=secure, **options
        )

    return Client(make)


def _then(opened: Callable[[Any], None]) -> Callable[[Any], None]:
    """What a connection does when it stands: introduce itself, and be noted."""

    def stands(connection: Any) -> None:
        opened(connection)
        connection.on_connect()

    return stands


def _patience() -> dict[str, Any]:
    """Bounded, and without redis-py's own repetitions: the keeper repeats a turn, as one."""
    return {
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_timeout": ANSWER_SECONDS,
        "retry": redis.retry.Retry(redis.backoff.NoBackoff(), 0),
    }


# Reading ------------------------------------------------------------------------------------------


def _parts(url: str) -> SplitResult:
    """A URL's parts. Nothing of it is repeated in an error: any of it may be a password's."""
    encode = "what is not plain in a user or a password (as / ? # and @) is to be percent-encoded"
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"it cannot be read; {encode}") from None
    if parts.fragment or "#" in url:
        raise ValueError(encode)
    if parts.scheme == "unix" and parts.netloc and not parts.netloc.endswith("@"):
        raise ValueError(f"a unix URL names a socket: unix:///path/to/socket; {encode}")
    if "@" in parts.query or ("@" in parts.path and parts.scheme != "unix"):
        raise ValueError(encode)
    return parts


def _options(parts: SplitResult) -> dict[str, Any]:
    """User, password, database and what follows the `?`, read as redis-py reads them."""
    untyped: Any = redis.connection.parse_url
    try:
        given = untyped(f"{parts.scheme}://{parts.netloc}{parts.path}?{parts.query}")
    except ValueError:
        raise ValueError("one of its options has a value of another kind") from None
    return {**_patience(), **given}


def _tried(options: dict[str, Any]) -> None:
    """Make a connection, without connecting: redis-py refuses an option that it does not know."""
    kind = {"connection_class": redis.Connection, **options}
    made: Any = kind.pop("connection_class")
    try:
        made(**kind)
    except (TypeError, ValueError, redis.RedisError):
        known = ("host", "port", "path", "username", "password", "retry", "connection_class")
        odd = ", ".join(name for name in options if name not in known and name not in _patience())
        raise ValueError(f"redis-py does not take one of its options ({odd})") from None


def _database(written: str = "") -> int:
    if written and not (written.isascii() and written.isdigit()):
        raise ValueError("a database is a number: redis://host:6379/0")
    return int(written or 0)


def _hosts(written: str, port: int) -> list[tuple[str, int]]:
    hosts = []
    for one in written.split(","):
        try:
            found = urlsplit(f"//{one}")
            hosts.append((found.hostname or "", found.port or port))
        except ValueError:
            raise ValueError("a port is a number up to 65535") from None
    if not all(host for host, _ in hosts):
        raise ValueError("it names at least one host, as host:port, and several with commas")
    return hosts
