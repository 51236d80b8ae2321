"""Every kind of URL against processes of its kind, and news by pub/sub behind each of them."""

from __future__ import annotations

import contextlib
import logging
import re
import statistics
import threading
import time
import traceback
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import pytest
import redis
from real_redis import (
    BOTH,
    Server,
    Traffic,
    certificates,
    cluster,
    ejected,
    figure,
    free_port,
    kind_of,
    locked,
    needs_redis,
    needs_wheel,
    said,
    sentinels,
    server,
    share,
    until,
    users,
    worker,
)

from router import BadRequestError, Router, StateUnavailableError
from router.state import connecting
from router.testing import StandIn

pytestmark = [pytest.mark.real, needs_redis]

USER, PASSWORD = "router", "s3cr3t/p@ss:w?rd#1"
ENCODED = "s3cr3t%2Fp%40ss%3Aw%3Frd%231"
OURS = "~{video-router}:v1:*"
HEARD = "&{video-router}:v1:*"
SECRET = "hunter2"
ALLOWED = (OURS, "resetchannels", HEARD, *connecting.RIGHTS.split())
"""What the documentation of a URL says is enough for a user of Redis's."""
LAYOUT = ("+cluster|slots", "+cluster|shards", "+command")
"""And what a cluster's client asks besides."""

on_both = pytest.mark.parametrize("one", BOTH, indirect=True)
# A failover takes its time: once without and once with TLS, on one server each.
plain_and_with_tls = pytest.mark.parametrize(
    ("kind", "secure"),
    [pytest.param("wheel", False, marks=needs_wheel), ("path", True)],
    ids=["wheel-plain", "path-tls"],
)


@pytest.fixture
def one(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    with server(tmp_path / "a", kind=kind_of(request)) as running:
        yield running


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Certificates, where the server on the PATH speaks TLS."""
    made = certificates(tmp_path_factory.mktemp("certificates"))
    try:
        with server(tmp_path_factory.mktemp("tls"), signed=made):
            return made
    except AssertionError as exc:
        pytest.skip(f"this redis-server speaks no TLS: {exc}")


@contextlib.contextmanager
def pair(provider: StandIn, url: str, **more: object) -> Iterator[tuple[Router, Router]]:
    with worker(provider, url, **more) as one, worker(provider, url, **more) as other:
        for router in (one, other):
            router.video_generation(prompt="x")
        yield one, other


def in_one_slot(client: redis.Redis) -> None:
    keys = list(client.scan_iter(count=1000))
    assert keys
    assert all(key.startswith("{video-router}:v1:") for key in keys)


def whole(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever said that it is out of reach says that it is back, and says so once each time.

    Two workers, each of which may lose it again before the new master is known everywhere.
    """
    until(lambda: said(caplog, "is back") == said(caplog, "out of reach"), 10, "all is whole")
    assert said(caplog, "out of reach") <= 4


# A server -----------------------------------------------------------------------------------------


@on_both
def test_a_server_with_a_password_and_a_numbered_database(one: Server, provider: StandIn) -> None:
    locked([one], PASSWORD)
    with contextlib.closing(one.client(db=3)) as admin:
        url = f"redis://:{ENCODED}@127.0.0.1:{one.port}/3"
        with pair(provider, url) as workers:
            share(*workers)
            in_one_slot(admin)
            assert len(workers[0].jobs()) == 2


@on_both
def test_the_rights_that_are_named_are_enough(
    one: Server, provider: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    with contextlib.closing(one.client()) as admin:

        def allow(*rights: str) -> None:
            admin.execute_command("ACL", "SETUSER", USER, "reset", "on", f">{PASSWORD}", *rights)

        allow(*ALLOWED)
        url = f"redis://{USER}:{ENCODED}@127.0.0.1:{one.port}/0"
        capped = {"max_parallel_jobs": 1, "rpm": 1000, "max_parallel_requests": 4}
        with pair(provider, url, **capped) as (first, second):
            assert share(first, second) < 3.0
            made = [first.video_generation(prompt="x", max_wait=0.5, idempotency_key="k")]
            provider.fault("status", status=400)  # so that a key is given back, too
            with pytest.raises(BadRequestError):
                second.video_generation(prompt="x", idempotency_key="free")
            for router in (first, second):
                router.video_status(made[0].id)
                assert router.jobs()
            until(
                lambda: "subscribe" in {c["cmd"] for c in admin.client_list(_type="pubsub")}, 3, ""
            )
            assert refusals(admin) == set()
            assert not [r for r in caplog.records if "shared state" in r.message]
            # Without the channel it takes the second that a turn comes in.
            admin.execute_command("ACL", "LOG", "RESET")
            allow(*(right for right in ALLOWED if right != HEARD))
            admin.execute_command("CLIENT", "KILL", "USER", USER)
            time.sleep(1.5)
            took = share(first, second)
            figure(f"an ejection without the right to the channel: {1000 * took:.0f} ms")
            assert took <= 3.0
            assert refusals(admin) == {"{video-router}:v1:news"}  # and it lived with that


def refusals(admin: redis.Redis) -> set[str]:
    """What was refused, but for redis-py's introducing itself."""
    return {entry["object"] for entry in admin.acl_log()} - {"client", "client|setinfo"}


def test_no_right_is_named_that_nothing_needs() -> None:
    script = files("router.state").joinpath("lua/turn.lua").read_text("utf-8")
    called = {name.lower() for name in re.findall(r"redis\.p?call\('(\w+)'", script)}
    asked = {"eval", "evalsha", "zcount", "zrangebyscore", "hvals", "lrange", "subscribe", "ping"}
    named = {right.removeprefix("+") for right in connecting.RIGHTS.split()}
    assert named == called | asked | {"time", "select", "hello"}


@on_both
def test_a_unix_socket(one: Server, provider: StandIn) -> None:
    with pair(provider, f"unix://{one.socket}?db=2") as workers:
        share(*workers)
        with contextlib.closing(one.client(db=2)) as client:
            in_one_slot(client)


def test_valkey_is_another_name(one: Server, provider: StandIn) -> None:
    with pair(provider, f"valkey://127.0.0.1:{one.port}") as workers:
        share(*workers)


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_tls_with_a_ca_of_ones_own(
    tmp_path: Path, provider: StandIn, signed: dict[str, Path], scheme: str
) -> None:
    with server(tmp_path / "a", signed=signed) as one:
        locked([one], PASSWORD, *ALLOWED, user=USER)
        url = f"{scheme}://{USER}:{ENCODED}@127.0.0.1:{one.port}/0?ssl_ca_certs={signed['ca']}"
        with pair(provider, url) as workers, contextlib.closing(one.client()) as admin:
            assert share(*workers) < 3.0
            in_one_slot(admin)
            all_are(one, USER)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("rediss://{}/0", "certificate verify failed"),
        ("rediss+cluster://{}", "certificate verify failed"),
        # Of sentinels redis-py says which could not be asked, and in newer versions no more.
        ("rediss+sentinel://{}/mymaster?sentinel_password={secret}", "ConnectionError"),
    ],
)
def test_tls_from_somebody_unknown_is_refused_and_calls_go_on(
    tmp_path: Path,
    provider: StandIn,
    signed: dict[str, Path],
    caplog: pytest.LogCaptureFixture,
    url: str,
    says: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    with (
        server(tmp_path / "a", signed=signed) as one,
        contextlib.closing(one.client()) as admin,
    ):
        where = url.format(f":{ENCODED}@127.0.0.1:{one.port}", secret=SECRET)
        with worker(provider, where) as router:
            for _ in range(20):
                router.video_generation(prompt="x")
            until(lambda: "out of reach" in caplog.text, 5)
            with pytest.raises(StateUnavailableError) as refused:
                router.jobs()
            assert admin.dbsize() == 0
    told = caplog.text + "".join(traceback.format_exception(refused.value))
    assert says in told
    assert PASSWORD not in told
    assert SECRET not in told


# Sentinels ----------------------------------------------------------------------------------------


@plain_and_with_tls
def test_a_master_is_lost_in_the_middle_of_traffic(
    tmp_path: Path,
    provider: StandIn,
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
    kind: str,
    secure: bool,
) -> None:
    """With TLS, master and sentinels also ask for a user each, and the rights are the least."""
    caplog.set_level(logging.WARNING, "router")
    ca = request.getfixturevalue("signed") if secure else None
    with sentinels(tmp_path, kind, ca) as (master, replica, watching):
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in watching)
        url = f"redis+sentinel://{hosts}/mymaster/0"
        if ca is not None:
            locked([master, replica], PASSWORD, *ALLOWED, user=USER)
            locked(watching, PASSWORD, "+sentinel|masters", user="asks")
            url = f"rediss+sentinel://{USER}:{ENCODED}@{hosts}/mymaster/0?ssl_ca_certs={ca['ca']}"
            url += f"&sentinel_username=asks&sentinel_password={ENCODED}"
        with pair(provider, url) as workers:
            share(*workers)
            with Traffic(*workers) as traffic:
                time.sleep(0.3)
                master.kill()
                elected = until(lambda: leads(replica), 20, "the replica leads")
                with contextlib.closing(replica.client()) as client:
                    again = share(*workers, within=20)
                    until(lambda: listening(client) == 2, 20, "both listen")
                    whole(caplog)
                    in_one_slot(client)
                    all_are(replica, USER if secure else "default")
                    assert "asks" in set().union(*map(users, watching)) or not secure
            figure(
                f"a new master after {elected:.1f} s, sharing over it in {1000 * again:.0f} ms;"
                f" {traffic.calls} calls meanwhile, slowest {1000 * max(traffic.seconds):.0f} ms"
            )
            assert traffic.errors == []
    assert PASSWORD not in caplog.text


def leads(one: Server) -> bool:
    """Whether it is a master by now; who is promoted cuts its clients off."""
    with contextlib.suppress(redis.RedisError), contextlib.closing(one.client()) as client:
        return bool(client.info("replication")["role"] == "master")
    return False


def listening(client: redis.Redis) -> int:
    """How many workers listen for news; sentinels listen too, for their own."""
    ((_, count),) = client.pubsub_numsub("{video-router}:v1:news")
    return int(count)


def all_are(one: Server, user: str) -> None:
    """Who is connected is connected as this one; while it shakes hands, nobody is anybody yet."""
    until(lambda: users(one) == {user}, 5, f"all are connected as {user}")


# Clusters -----------------------------------------------------------------------------------------


def owner(nodes: list[Server]) -> Server:
    """Who owns our slot."""
    for node in nodes:
        with contextlib.suppress(redis.RedisError), contextlib.closing(node.client()) as client:
            if client.info("replication")["role"] == "master" and client.dbsize():
                return node
    raise AssertionError("nobody has our keys")


@pytest.mark.parametrize("kind", BOTH)
def test_a_cluster_whose_slot_moves(tmp_path: Path, provider: StandIn, kind: str) -> None:
    with cluster(tmp_path, kind=kind) as nodes:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        with pair(provider, f"redis+cluster://{hosts}", max_parallel_jobs=1000) as workers:
            assert share(*workers) < 3.0
            assert len(workers[1].jobs()) == 2
            holding = owner(nodes)
            with contextlib.closing(holding.client()) as client:
                in_one_slot(client)
                slot = client.cluster("KEYSLOT", "{video-router}:v1:version")
            target = next(node for node in nodes if node is not holding)
            with Traffic(*workers) as traffic:
                migrated(holding, target, slot, nodes)
                until(lambda: owner(nodes) is target, 5)
                took = share(*workers)
            figure(f"sharing over the slot's new owner in {1000 * took:.0f} ms")
            assert traffic.errors == []


def migrated(source: Server, target: Server, slot: int, nodes: list[Server]) -> None:
    """Move a slot as redis-cli does."""
    with contextlib.ExitStack() as stack:
        one, other = (stack.enter_context(contextlib.closing(n.client())) for n in (source, target))
        ids = one.cluster("MYID"), other.cluster("MYID")
        other.execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        one.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        while keys := one.execute_command("CLUSTER", "GETKEYSINSLOT", slot, 100):
            one.execute_command("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
        for node in (target, source, *nodes):
            with contextlib.closing(node.client()) as client:
                client.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[1])


# redis-py leaves what it had open to a node that it forgets to the garbage collector.
@pytest.mark.filterwarnings("ignore:.*SSLSocket:pytest.PytestUnraisableExceptionWarning")
@plain_and_with_tls
def test_a_cluster_that_loses_the_master_of_our_slot(
    tmp_path: Path,
    provider: StandIn,
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
    kind: str,
    secure: bool,
) -> None:
    """With TLS, every node also asks for a user, and the rights are the least."""
    caplog.set_level(logging.WARNING, "router")
    ca = request.getfixturevalue("signed") if secure else None
    with cluster(tmp_path, masters=3, replicas=3, kind=kind, signed=ca) as nodes:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes[:3])
        url = f"redis+cluster://{hosts}"
        if ca is not None:
            locked(nodes, PASSWORD, *ALLOWED, *LAYOUT, user=USER)
            url = f"rediss+cluster://{USER}:{ENCODED}@{hosts}?ssl_ca_certs={ca['ca']}"
        with pair(provider, url) as workers:
            share(*workers)
            holding = owner(nodes)
            heir = nodes[nodes.index(holding) + 3]
            with Traffic(*workers) as traffic:
                holding.kill()
                elected = until(lambda: leads(heir), 20, "the replica leads")
                took = share(*workers, within=20)
                whole(caplog)
                all_are(heir, USER if secure else "default")
            figure(
                f"a new master after {elected:.1f} s, sharing over it in {1000 * took:.0f} ms;"
                f" {traffic.calls} calls meanwhile, slowest {1000 * max(traffic.seconds):.0f} ms"
            )
            assert traffic.errors == []
    assert PASSWORD not in caplog.text


# Nobody there, and nothing that can be read -------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:{}",
        "redis://192.0.2.1:{}",
        "rediss://127.0.0.1:{}",
        "unix:///nowhere/{}.sock",
        "redis+sentinel://127.0.0.1:{},127.0.0.1:1/mymaster",
        "redis+cluster://127.0.0.1:{},127.0.0.1:1",
        "rediss+cluster://127.0.0.1:{}",
    ],
)
def test_nothing_connects_before_the_first_call(
    provider: StandIn, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    running = threading.active_count()
    began = time.monotonic()
    router = worker(provider, url.format(free_port()), max_parallel_jobs=100)
    built = time.monotonic() - began
    with router:
        assert threading.active_count() == running
        assert built < 1.0
        seconds = []
        for _ in range(10):
            began = time.monotonic()
            router.video_generation(prompt="x")
            seconds.append(time.monotonic() - began)
        until(lambda: said(caplog, "out of reach"), 8)
    figure(f"built in {1000 * built:.1f} ms, first call {1000 * seconds[0]:.1f} ms")
    # One at most has waited for its 0.1 s, and what else there is is the machine's noise.
    assert statistics.median(seconds) < 0.09
    assert max(seconds) < 5.0
    assert said(caplog, "out of reach") == 1


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"redis://user:{SECRET}@host:6379/0", "redis://host:6379/0"),
        (f"redis://host:6379/0?password={SECRET}", "redis://host:6379/0"),
        (
            f"redis+sentinel://:{SECRET}@a:1,b:2/m?sentinel_password={SECRET}",
            "redis+sentinel://a:1,b:2/m",
        ),
        (f"unix://:{SECRET}@/run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert connecting.shown(url) == shown
    assert SECRET not in repr(vars(connecting.connect(url)))


# News ---------------------------------------------------------------------------------------------

TRIALS = 60


def heard_after(provider: StandIn, url: str, trials: int) -> list[float]:
    """Seconds until each of three siblings knows of an ejection, in turn."""
    found: list[float] = []
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(worker(provider, url)) for _ in range(4)]
        for router in workers:
            router.video_generation(prompt="x")
        time.sleep(0.5)
        for _ in range(trials):
            began = time.perf_counter()
            workers[0].drain("east-1", 100)
            waiting = workers[1:]
            while waiting:
                assert time.perf_counter() - began < 5
                for router in [router for router in waiting if ejected(router, "east-1")]:
                    waiting.remove(router)
                    found.append(time.perf_counter() - began)
                time.sleep(0.0002)
            workers[0].restore("east-1")
            until(lambda: not any(ejected(router, "east-1") for router in workers), 3)
    return sorted(found)


def told(what: str, seconds: list[float]) -> None:
    median, most = statistics.median(seconds), seconds[int(0.99 * len(seconds))]
    figure(
        f"{what}: median {1000 * median:.1f} ms, 99th percentile {1000 * most:.1f} ms,"
        f" at most {1000 * seconds[-1]:.0f} ms over {len(seconds)}"
    )


def test_siblings_hear_of_an_ejection_at_once(tmp_path: Path, provider: StandIn) -> None:
    with server(tmp_path / "a") as one:
        seconds = heard_after(provider, one.url, TRIALS)
    told("an ejection is heard of", seconds)
    assert seconds[-1] < 1.0


def test_siblings_hear_of_an_ejection_by_the_next_turn_where_news_is_cut(
    tmp_path: Path, provider: StandIn
) -> None:
    with server(tmp_path / "a") as one, contextlib.closing(one.client()) as admin:
        ending = threading.Event()

        def cut() -> None:
            while not ending.wait(0.003):
                admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub")

        cutting = threading.Thread(target=cut)
        cutting.start()
        try:
            seconds = heard_after(provider, one.url, 5)
        finally:
            ending.set()
            cutting.join(5)
    told("an ejection is heard of with news cut", seconds)
    assert seconds[-1] <= 3.0


def test_who_is_cut_off_from_news_listens_again(tmp_path: Path, provider: StandIn) -> None:
    with server(tmp_path / "a") as one, contextlib.closing(one.client()) as admin:
        with pair(provider, one.url) as workers:
            for _ in range(3):
                until(lambda: len(admin.client_list(_type="pubsub")) == 2, 3)
                admin.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            until(lambda: len(admin.client_list(_type="pubsub")) == 2, 3)
            assert share(*workers) < 0.9
        until(lambda: len(admin.client_list()) == 1, 2, "nothing is left open")


def test_an_idle_worker_asks_little(tmp_path: Path, provider: StandIn) -> None:
    with server(tmp_path / "a") as one, contextlib.closing(one.client()) as admin:
        with worker(provider, one.url) as router:
            router.video_generation(prompt="x")
            time.sleep(1.2)
            # Commands that clients sent: what the script calls is counted by name alone.
            before = sent(admin)
            time.sleep(5)
            rate = (sent(admin) - before) / 5
        figure(f"an idle worker sends {rate:.1f} commands a second")
        assert rate <= 5


def sent(admin: redis.Redis) -> int:
    told = admin.info("commandstats")
    names = ("evalsha", "eval", "ping", "subscribe", "hello", "client|setinfo", "select")
    return sum(
        stats["calls"] for name, stats in told.items() if re.sub("^cmdstat_", "", name) in names
    )
