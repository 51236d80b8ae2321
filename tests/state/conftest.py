"""Stores of all kinds to meet in. Real servers are started once in a session, by the tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import fakeredis
import pytest
from redis_servers import SERVERS, Server, binary_of, serving_redis
from state_parts import InMemory, InRedis, Meeting

from router.state import STORES

# By the names of STORES: where each of them is tried.
WHERE: dict[str, list[str]] = {"memory": ["memory"], "redis": ["fakeredis", *SERVERS]}


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """`redis_server("path")` or `redis_server("wheel")`: a real one, or a skip with the reason."""
    with ExitStack() as running:
        known: dict[str, Server] = {}

        def start(name: str) -> Server:
            binary, missing = binary_of(name)
            if binary is None:
                pytest.skip(missing)
            if name not in known:
                folder = tmp_path_factory.mktemp(f"redis-{name}")
                known[name] = running.enter_context(serving_redis(binary, folder))
            return known[name]

        yield start


@pytest.fixture(params=[where for name in STORES for where in WHERE[name]])
def meeting(
    request: pytest.FixtureRequest, redis_server: Callable[[str], Server]
) -> Iterator[Meeting]:
    """Where workers meet: in memory, in fakeredis, in each real server."""
    where: str = request.param
    if where == "memory":
        yield Meeting(InMemory())
        return
    connect: Callable[[], Any]
    if where == "fakeredis":
        server = fakeredis.FakeServer()
        connect = lambda: fakeredis.FakeRedis(server=server)  # noqa: E731
    else:
        connect = redis_server(where).client
    backend = InRedis(connect)
    yield Meeting(backend)
    backend.close()
