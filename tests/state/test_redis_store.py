"""What is Redis's own: its keys, its scripts, and what it may answer in place of an answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import fakeredis
import pytest
from redis_servers import SERVERS, Server
from state_parts import InRedis, Meeting, Worker, a_job, choice, seen, taken_over

from router.leases import Acquire
from router.observations import Batch, Cause, Change, Ejection, Sums
from router.state import STORES, Turn

JOBS = "jobs:deployment:east"


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, redis_server: Callable[[str], Server]) -> Server:
    found: Server = redis_server(request.param)
    return found


@pytest.fixture
def meeting(server: Server) -> Iterator[Meeting]:
    backend = InRedis(server.client)
    yield Meeting(backend)
    backend.close()


def everything(meeting: Meeting, worker: Worker) -> None:
    """One turn of each kind."""
    batch = Batch()
    batch.add_sums(("http", "east", "generation", 1), Sums(1.0, 1.0, 1.0, 1))
    batch.add_count(("health", "east", "reads", 1, "s"))
    now = meeting.now()
    batch.add_ejection("east", Ejection("submits", now + 60, Cause.DENIED, "401", at=now))
    batch.add_restored("west", now)
    batch.changes.append(Change(now, "w", "east", "out", "401"))
    worker.turn(batch)
    token, _ = worker.ask(choice(JOBS, "rpm:account:acme", limit=1))
    worker.order(taken_over(token, a_job(), JOBS))
    worker.ask(choice(JOBS), ticket="waits")
    worker.order(seen(a_job("video_2"), [JOBS], "completed"))


def test_each_key_has_the_namespace_as_its_tag_a_version_and_an_end(meeting: Meeting) -> None:
    everything(meeting, meeting.worker())
    client = meeting.backend.client  # type: ignore[union-attr]
    keys = client.keys("*")
    assert len(keys) > 15
    for key in keys:
        assert key.startswith(b"{tests}:v1:")
        assert 0 < client.pttl(key) <= 7 * 86400 * 1000, key


def test_what_has_expired_leaves_nothing_behind(meeting: Meeting) -> None:
    worker = meeting.worker()
    client = meeting.backend.client  # type: ignore[union-attr]
    for epoch in range(60):
        batch = Batch()
        batch.add_count(("health", "east", "reads", epoch, "s"))
        worker.turn(batch)
        meeting.advance(10)
    assert client.zcard("{tests}:v1:changes") < 20
    assert client.zcard("{tests}:v1:expiries") < 20
    assert len(meeting.worker().hear().counts) < 20


def test_a_lost_script_is_loaded_again(meeting: Meeting) -> None:
    worker = meeting.worker()
    worker.turn()
    meeting.backend.client.script_flush()  # type: ignore[union-attr]
    assert worker.gets(choice(JOBS))
    assert worker.gets(choice(JOBS, limit=2))


@pytest.mark.parametrize(
    "name", ["changes", "workers", "version", "generation", "sequences", JOBS, "jobs", "history"]
)
def test_a_key_of_another_type_under_our_name_is_out_of_reach_and_heals(
    meeting: Meeting, name: str
) -> None:
    worker, client = meeting.worker(), meeting.backend.client  # type: ignore[union-attr]
    everything(meeting, worker)
    key = f"{{tests}}:v1:{name}"
    client.delete(key)
    client.rpush(key, "x") if name != "history" else client.set(key, "x")
    batch = Batch()
    batch.changes.append(Change(0.0, "w", "east", "out", "401"))
    with pytest.raises(OSError, match=r"WRONGTYPE|not ours|not a"):
        worker.turn(batch, taken_over("", a_job("video_3"), JOBS), asks=[_asking("t")])
    client.delete(key)
    assert worker.turn(asks=[_asking("t2")]).grants != ()


def _asking(token: str) -> Acquire:
    return Acquire(token, (choice(JOBS, limit=9),), 1.0)


@pytest.mark.parametrize(
    "name",
    ['["sums","east"]', "nonsense", '["counts","http","east","generation",1]', '["what","ever"]'],
)
def test_names_that_are_not_ours_among_the_changed_ones_are_no_answer(
    meeting: Meeting, name: str
) -> None:
    client = meeting.backend.client  # type: ignore[union-attr]
    one = meeting.worker()
    one.turn()
    client.hset(f"{{tests}}:v1:{name}", "x", "y")
    client.zadd("{tests}:v1:changes", {name: 1})
    client.set("{tests}:v1:version", 1)
    try:
        assert meeting.worker().hear().sums == {}
    except OSError as exc:
        assert "not ours" in str(exc)  # noqa: PT017  (either is fine, anything else is not)


def test_a_read_only_replica_is_out_of_reach(meeting: Meeting) -> None:
    client, worker = meeting.backend.client, meeting.worker()  # type: ignore[union-attr]
    worker.turn()
    client.replicaof("127.0.0.1", "1")
    try:
        with pytest.raises(OSError, match=r"replica|MASTER"):
            worker.turn()
    finally:
        client.replicaof("NO", "ONE")
    worker.turn()


def test_a_redis_without_memory_is_out_of_reach(meeting: Meeting) -> None:
    client, worker = meeting.backend.client, meeting.worker()  # type: ignore[union-attr]
    worker.turn()
    client.config_set("maxmemory", "1")
    try:
        with pytest.raises(OSError, match=r"OOM|maxmemory"):
            worker.turn()
    finally:
        client.config_set("maxmemory", "0")
    worker.turn()


def test_two_namespaces_know_nothing_of_each_other() -> None:
    client = fakeredis.FakeRedis()
    one, other = (Worker(STORES["redis"](client, name), name) for name in ("a", "b"))
    batch = Batch()
    batch.add_count(("health", "east", "reads", 1, "s"))
    one.turn(batch)
    assert other.hear().counts == {}
    assert one.gets(choice(JOBS))
    assert other.gets(choice(JOBS))
    client.close()


def test_what_goes_out_holds_numbers_that_must_be_exact_as_text() -> None:
    """Lua's JSON would cut a float of sixteen digits to fourteen."""
    sent: list[Any] = []

    class Keeps:
        def script_load(self, script: str) -> str:
            return "sha"

        def evalsha(self, sha: str, keys: int, key: str, prefix: str, written: str) -> Any:
            sent.append(json.loads(written))
            return [[b"1", b"2", b"g", 0, 0, 1], [], []]

    batch = Batch()
    batch.add_sums(("http", "east", "generation", 1), Sums(0.1 + 0.2, 1 / 3, 2 / 3, 1))
    STORES["redis"](Keeps(), "tests").turn(Turn("w", 1, batch))
    (item,) = sent[0]["learned"]["sums"]
    assert [float(text) for text in item[1:4]] == [0.1 + 0.2, 1 / 3, 2 / 3]
    assert all(isinstance(text, str) for text in item[1:4])
