"""What is Redis's own: its keys, its scripts, and what it may answer in place of an answer."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator, Iterator
from typing import Any

import fakeredis
import pytest
from redis_servers import SERVERS, Server
from state_parts import InRedis, Meeting, Worker, a_job, choice, seen, taken_over

from router.claims import ACCEPTED, RECORD_SECONDS, UNKNOWN, Claimed, Conclude, Record, Renew
from router.leases import Acquire, Need, Settle
from router.observations import Batch, Cause, Change, Ejection, Sums, day_of
from router.state import STORES, Told, Turn

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
    batch = Batch()
    batch.add_spend("east", "acme", day_of(now), 250_000)
    worker.turn(batch)
    cost = (Need("cost:account:acme", 1000, 10),)
    token, _ = worker.ask(cost)
    worker.order(Settle(token, ("cost:account:acme",)))
    for key, state in (("0a", "accepted"), ("0b", "unknown"), ("0c", "free"), ("0d", "")):
        worker.claim(key, f"token-{key}")
        if state:
            worker.order(Conclude(key, f"token-{key}", "f", state, now, "video_ours"))
    worker.order(Renew("0d", "token-0d", "f", 30.0, now, account="acme"))


def test_each_key_has_the_namespace_as_its_tag_a_version_and_an_end(meeting: Meeting) -> None:
    everything(meeting, meeting.worker())
    client = meeting.backend.client  # type: ignore[union-attr]
    keys = client.keys("*")
    assert len(keys) > 20
    for key in keys:
        assert key.startswith(b"{tests}:v1:")
        assert 0 < client.pttl(key) <= 36 * 86400 * 1000, key


def test_each_record_ends_a_day_after_it_was_last_written(meeting: Meeting) -> None:
    one, client = meeting.worker(), meeting.backend.client  # type: ignore[union-attr]
    one.claim("0a", "one")
    renew = Renew("0a", "one", "f", 30.0, meeting.now())
    for command in (renew, *(Conclude("0a", "one", "f", end, 1.0) for end in (UNKNOWN, ACCEPTED))):
        meeting.advance(1000)
        one.order(command)
        assert RECORD_SECONDS - 60 < client.ttl("{tests}:v1:claim:0a") <= RECORD_SECONDS


def test_what_another_release_notes_under_a_key_is_an_end_that_nobody_knows(
    meeting: Meeting,
) -> None:
    one, client = meeting.worker(), meeting.backend.client  # type: ignore[union-attr]
    noted = {"token": "later", "state": "halfway", "at": "noon", "lapses": "soon", "region": "eu"}
    client.hset("{tests}:v1:claim:0a", mapping=noted)
    claimed = one.claim("0a", "one")
    assert claimed == Claimed(False, Record("", "later", UNKNOWN, 0.0))
    client.set("{tests}:v1:claim:0b", "x")
    with pytest.raises(OSError, match="WRONGTYPE"):
        one.claim("0b", "one")
    assert one.claim("0c", "one").mine


def test_a_days_money_stands_under_one_key_and_nobody_waits_for_it(meeting: Meeting) -> None:
    one, client = meeting.worker(), meeting.backend.client  # type: ignore[union-attr]
    meeting.clear_of_midnight()
    need = Need("cost:account:acme", 10, 10)
    one.ask((need,))
    asks = [Acquire(f"t{n}", ((need,),), 1.0, "ticket", last=True) for n in range(2)]
    assert [grant.index for grant in one.turn(asks=asks).grants] == [None, None]
    key = f"{{tests}}:v1:cost:account:acme:{day_of(meeting.now())}"
    assert [name.decode() for name in client.scan_iter("*cost:*")] == [key]
    assert 86_300 < client.ttl(key) <= 86_400
    assert client.hget(key, "=") == b"10"
    client.delete(key)
    client.hset(key, "=", "much")
    with pytest.raises(OSError, match="no number of ours"):
        one.ask((Need("cost:account:acme", 1000, 10),))
    client.hset(key, "=", "990")
    assert one.gets((Need("cost:account:acme", 1000, 10),))


def test_sums_of_money_beyond_all_measure_are_bounded(meeting: Meeting) -> None:
    """A script that failed at them half-way would have done half of its turn."""
    one = meeting.worker()
    assert not one.gets((Need("cost:account:acme", 1000, 10**40),))
    assert one.gets((Need("cost:account:acme", 10**40, 10**40),))


def test_what_has_expired_leaves_nothing_behind(meeting: Meeting) -> None:
    worker = meeting.worker()
    client = meeting.backend.client  # type: ignore[union-attr]
    for epoch in range(200):
        batch = Batch()
        batch.add_count(("health", "east", "reads", epoch, "s"))
        worker.turn(batch)
        meeting.advance(10)
    assert client.zcard("{tests}:v1:changes") < 70
    assert client.zcard("{tests}:v1:expiries") < 70
    assert len(meeting.worker().hear().counts) < 70


def test_what_is_published_says_who_is_out_and_who_is_back(meeting: Meeting) -> None:
    """Whole: a sibling that hears it need not ask, and nothing of it differs from what it pulls."""
    store: Any = meeting.backend.store()
    heard: Generator[Told, None, None] = store.listen()
    assert next(heard) == Told()
    worker, now = meeting.worker(), meeting.now()
    batch = Batch()
    ejection = Ejection("submits", now + 60, Cause.DENIED, 'so "it" said: ä', 2, "digest", now)
    batch.add_ejection("east", ejection)
    batch.add_restored("west", now)
    worker.turn(batch)
    told = next(heard)
    pulled = meeting.worker().hear()
    assert told.worker == worker.name
    assert told.news is not None
    assert told.news.ejections == pulled.ejections == batch.ejections
    assert told.news.restored == pulled.restored == batch.restored
    batch = Batch()
    batch.add_restored("south", now)
    worker.turn(batch)
    alone = next(heard).news
    assert alone is not None
    assert (alone.ejections, alone.restored) == ({}, {"south": now})
    client = meeting.backend.client  # type: ignore[union-attr]
    for odd in ("0f3a", "[]", "{}", '{"worker":"w","restored":[["east",1]],"ejections":[]}', "7"):
        client.publish("{tests}:v1:news", odd)  # as another release may
        assert next(heard).news is None
    store.hush()
    heard.close()


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


A_JOB_OF_LATER = """{
    "account": "acme", "native_id": "video_later", "deployment": "east", "operation": "generation",
    "worker": "later", "accepted_at": "5", "seen_at": "5", "status": "queued", "region": "eu"
}"""


def left_by(meeting: Meeting, name: str, **fields: str) -> None:
    """What another release keeps under a changed name."""
    client = meeting.backend.client  # type: ignore[union-attr]
    client.hset(f"{{tests}}:v1:{name}", mapping=fields)
    client.zadd("{tests}:v1:changes", {name: client.incr("{tests}:v1:version")})


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "router"]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ('["budgets","east"]', {"spent": "1"}),
        ('["ejections","east","both","quarantined"]', {"until": "9e9", "at": "1"}),
        ('["ejections","east","both","denied"]', {"until": "soon", "at": "1"}),
        ('["ejections","east","both","denied","eu"]', {"until": "9e9"}),
        ('["sums","http","east","generation","july"]', dict.fromkeys("wtqn", "1")),
        ('["sums","http","east","generation",2]', {"w": "1"}),
        ('["sums","east"]', {"x": "y"}),
        ('["counts","http","east","generation",1]', {"7": "many"}),
        ('["restored","east"]', {"by": "somebody"}),
        ("[]", {"x": "y"}),
        ("7", {"x": "y"}),
        ("nonsense", {"x": "y"}),
    ],
)
def test_what_another_release_keeps_is_passed_by_with_one_line(
    meeting: Meeting, name: str, fields: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "router")
    one, other = meeting.workers(2)
    everything(meeting, one)
    known = one.hear()
    left_by(meeting, name, **fields)
    for _ in range(2):
        heard = other.hear()
        assert heard.ejections.keys() >= known.ejections.keys() - {("east", "both", Cause.DENIED)}
        other.since = 0
    assert other.gets(choice("jobs:deployment:west"))
    (line,) = lines(caplog)
    assert "another release" in line
    assert name in line


def test_fields_that_a_later_release_adds_are_passed_by_in_silence(
    meeting: Meeting, caplog: pytest.LogCaptureFixture
) -> None:
    client, one = meeting.backend.client, meeting.worker()  # type: ignore[union-attr]
    now = meeting.now()
    written = {"until": f"{now + 60}", "at": f"{now}", "credential": "", "step": "1"}
    left_by(meeting, '["ejections","east","both","denied"]', **written, reason="x", region="eu")
    client.hset("{tests}:v1:jobs", "jlater", A_JOB_OF_LATER)
    change = {"at": 5.0, "worker": "w", "deployment": "east", "what": "out", "reason": "x"}
    client.lpush("{tests}:v1:history", json.dumps({**change, "by": "somebody"}))
    assert [ejection.reason for ejection in one.hear().ejections.values()] == ["x"]
    picture = one.store.picture(())
    assert [job.native_id for job in picture.jobs] == ["video_later"]
    assert picture.changes == [Change(**change)]
    assert lines(caplog) == []


def test_a_job_or_a_change_that_is_not_understood_hides_no_other(
    meeting: Meeting, caplog: pytest.LogCaptureFixture
) -> None:
    client, one = meeting.backend.client, meeting.worker()  # type: ignore[union-attr]
    everything(meeting, one)
    known = one.store.picture(())
    client.hset("{tests}:v1:jobs", mapping={"j1": "[]", "j2": '{"account": "acme"}', "j3": "x"})
    client.rpush("{tests}:v1:history", "x", "{}")
    client.zadd("{tests}:v1:seen", {"j2": 1})
    client.zadd(f"{{tests}}:v1:{JOBS}", {"j2": meeting.now() + 60})
    assert one.store.picture(()).jobs == known.jobs
    assert one.store.picture(()).changes == known.changes
    assert one.ask(choice(JOBS))[1].full == ((JOBS, None),)
    assert len(lines(caplog)) == 1


def test_a_kind_of_later_may_be_kept_in_another_way_and_one_of_ours_may_not(
    meeting: Meeting,
) -> None:
    client = meeting.backend.client  # type: ignore[union-attr]
    one, other = meeting.workers(2)
    everything(meeting, one)
    client.zadd('{tests}:v1:["percentiles","east"]', {"p50": 1})
    client.zadd("{tests}:v1:changes", {'["percentiles","east"]': client.incr("{tests}:v1:version")})
    assert len(other.hear().sums) == 1
    ours = '["sums","http","west","generation",1]'
    client.set(f"{{tests}}:v1:{ours}", "x")
    client.zadd("{tests}:v1:changes", {ours: client.incr("{tests}:v1:version")})
    with pytest.raises(OSError, match="WRONGTYPE"):
        other.turn()


def test_what_a_sibling_says_at_once_is_understood_or_rings() -> None:
    store = STORES["redis"](fakeredis.FakeRedis(), "tests")
    told = store._reading.told  # type: ignore[attr-defined]
    name = '["ejections","east","both","denied"]'
    fields = {"until": "9", "at": "1", "credential": "", "step": "0", "reason": "401"}
    said = {
        "worker": "w",
        "restored": {},
        "returned": [['["returned","east","submits"]', "7"]],
        "failures": [['["counts","health","east","jobs",3]', "f", "2"]],
        "ejections": [[name, fields, ["-"]]],
    }
    heard = told(json.dumps(said).encode())
    assert (heard.worker, [e.reason for e in heard.news.ejections.values()]) == ("w", ["401"])
    assert heard.news.returned == {("east", "submits"): 7.0}
    assert heard.news.counts == {("health", "east", "jobs", 3, "f"): 2}
    quarantined = [[name.replace("denied", "quarantined"), fields, "-"]]
    for other in ("0123abc", "[]", "{}", json.dumps({**said, "ejections": quarantined})):
        assert told(other.encode()).news is None
    store.close()


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
            return [[b"1", b"2", b"g", 0, 0, 1], [], [], [], []]

    batch = Batch()
    batch.add_sums(("http", "east", "generation", 1), Sums(0.1 + 0.2, 1 / 3, 2 / 3, 1))
    STORES["redis"](Keeps(), "tests").turn(Turn("w", 1, batch))
    (item,) = sent[0]["learned"]["sums"]
    assert [float(text) for text in item[1:4]] == [0.1 + 0.2, 1 / 3, 2 / 3]
    assert all(isinstance(text, str) for text in item[1:4])
