"""What workers share, behind one narrow protocol.

A worker learns by itself and at once. In the background it takes turns with a store: it hands in
what it learned and orders, asks for leases, and takes what the others did. `Sharing.step` is one
such turn; who turns it (the keeper's thread, a simulation, a test) is not its business. Adding a
store is a file and a line here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from router.state.keeper import Keeper
from router.state.memory import MemoryStore
from router.state.sharing import News, Picture, Running, Sharing, Store, Told, Turn

__all__ = [
    "STORES",
    "Keeper",
    "MemoryStore",
    "News",
    "Picture",
    "Running",
    "Sharing",
    "Store",
    "Told",
    "Turn",
]


def _redis(client: Any, namespace: str) -> Store:
    from router.state.redis import RedisStore  # redis-py is heavy, and most imports need none

    return RedisStore(client, namespace)


STORES: dict[str, Callable[..., Store]] = {
    "memory": MemoryStore,
    "redis": _redis,
}
