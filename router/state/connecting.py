"""From a URL to a client of redis-py's: a server, a sentinel's master, or a cluster.

What a URL may say stands in `redis_url`.

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
from collections.abc import Callable, Mapping
from typing import Any

import redis
import redis.backoff
import redis.cluster
import redis.retry
import redis.sentinel

from router import redis_url

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
    address = redis_url.parse(url)
    options = {**_patience(), **address.options()}
    return _CLIENTS[address.kind](address, options)


def shown(url: str) -> str:
    """A URL as a log may show it: without user, password and options."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2].partition('?')[0]}"


# Kinds of clients ---------------------------------------------------------------------------------


def _server(address: redis_url.Address, options: dict[str, Any]) -> Client:
    def make(opened: Callable[[Any], None]) -> Any:
        pool = redis.ConnectionPool(**options, redis_connect_func=_then(opened))
        return redis.Redis(connection_pool=pool)

    return Client(make)


def _master(address: redis_url.Address, options: dict[str, Any]) -> Client:
    asking = {key[9:]: options.pop(key) for key in list(options) if key.startswith("sentinel_")}
    secure = options.pop("connection_class", None) is redis.SSLConnection
    if secure:
        asking = {**{k: v for k, v in options.items() if k.startswith("ssl_")}, **asking}
    hosts, database = list(address.hosts), address.database

    def make(opened: Callable[[Any], None]) -> Any:
        told = {"redis_connect_func": _then(opened), "ssl": secure}
        untyped: Any = redis.sentinel.Sentinel  # as the cluster's nodes are
        patience = {**_patience(), **asking, **told}
        sentinel = untyped(hosts, sentinel_kwargs=patience, **{**options, "db": database})
        sentinel.sentinels = [_Asked(host=host, port=port, **patience) for host, port in hosts]
        return sentinel.master_for(address.service, **told)

    return Client(make)


class _Asked(redis.Redis):
    """A sentinel. Where none answers, redis-py's error shows each, by default with its password."""

    def __repr__(self) -> str:
        where = self.connection_pool.connection_kwargs
        return f"{where['host']}:{where['port']}"


def _cluster(address: redis_url.Address, options: dict[str, Any]) -> Client:
    options.pop("db", None)
    secure = options.pop("connection_class", None) is redis.SSLConnection

    def make(opened: Callable[[Any], None]) -> Any:
        node: Any = redis.cluster.ClusterNode
        nodes = [node(host, port) for host, port in address.hosts]
        # A cluster's client lets a connection introduce itself, and only then tells of it.
        return redis.cluster.RedisCluster(
            startup_nodes=nodes, redis_connect_func=opened, ssl=secure, **options
        )

    return Client(make)


_CLIENTS: Mapping[str, Callable[[redis_url.Address, dict[str, Any]], Client]] = {
    "server": _server,
    "sentinel": _master,
    "cluster": _cluster,
}


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
