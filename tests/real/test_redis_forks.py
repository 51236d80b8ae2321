"""Forks and endings with a real Redis: nothing of the parent's goes on in a child.

As gunicorn with `--preload` and Celery's prefork pool do it: the router is built, and often used,
before the workers are forked from it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from real_redis import (
    BOTH,
    Server,
    connected,
    figure,
    kind_of,
    needs_redis,
    server,
    share,
    until,
    worker,
)
from shared_parts import KEYS, fleet

from router.testing import StandIn

pytestmark = [pytest.mark.real, needs_redis]

PREFIX = "{video-router}:v1:"
HERE = Path(__file__).parent


@pytest.fixture
def one(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    with server(tmp_path / "a", kind=kind_of(request)) as running:
        yield running


@pytest.fixture
def admin(one: Server) -> Iterator[redis.Redis]:
    with contextlib.closing(one.client()) as client:
        yield client


def run(program: str, *arguments: str) -> Any:
    """A program in a process of its own, and the JSON that it prints last."""
    told = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent), *sys.path])}
    ended = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PARTS + program, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=told,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])


PARTS = textwrap.dedent(
    """
    import gc, json, os, random, sys, threading, time
    from real_redis import sockets, worker
    from router.testing import StandIn
    from shared_parts import KEYS

    def about(router):
        sharing, leasing = router._learning.sharing, router._engine.leasing
        return {
            "worker": sharing.worker,
            "drawn": router._rng.random(),
            "holds": len(leasing._own.held()),
            "threads": sorted(t.name for t in threading.enumerate() if t.name.startswith("router")),
        }

    def forked(work, count=3):
        told = []
        for number in range(count):
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    os.write(writer, json.dumps(work(number)).encode())
                    code = 0
                finally:
                    os._exit(code)
            os.close(writer)
            told.append((child, reader))
        found = []
        for child, reader in told:
            with os.fdopen(reader) as pipe:
                found.append(json.loads(pipe.read() or "null"))
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        return found
    """
)

FORKS = textwrap.dedent(
    """
    provider = StandIn(accounts=KEYS, seed=7, job_seconds=600)
    limits = {"max_parallel_jobs": 50, "max_parallel_requests": 50, "rpm": 1000}
    router = worker(provider, sys.argv[1], "east", **limits)
    for _ in range(3):
        router.video_generation(prompt="x")
    time.sleep(0.3)
    before = sockets()

    def work(number):
        inherited = sockets() & before
        fresh = about(router)
        for _ in range(5):
            router.video_generation(prompt="x")
        time.sleep(1.3)
        after = about(router)
        gc.collect()  # of a client that the caller gave, redis-py lets go so
        shared = sockets() & before
        router.close()
        return {"inherited": sorted(inherited), "shared": sorted(shared), "fresh": fresh,
                "after": after}

    children = forked(work)
    router.video_generation(prompt="x")
    print(json.dumps({"before": sorted(before), "parent": about(router), "children": children}))
    router.close()
    """
)


@pytest.mark.parametrize("kind", ["plain", "unix", "given"])
def test_children_share_nothing_with_their_parent(
    one: Server, admin: redis.Redis, kind: str
) -> None:
    url = f"unix://{one.socket}" if kind == "unix" else one.url
    program = FORKS
    if kind == "given":
        program = FORKS.replace(
            'sys.argv[1], "east"', '"", "east", redis=redis.Redis.from_url(sys.argv[1])'
        ).replace("provider =", "import redis\nprovider =", 1)
    found = run(program, url)
    parent, children = found["parent"], found["children"]
    assert len(found["before"]) >= 2  # the parent's turns, and its listening
    for child in children:
        if kind != "given":
            assert child["inherited"] == []
        assert child["shared"] == []
        assert child["fresh"]["threads"] == []
        assert child["fresh"]["holds"] == 0
        assert child["after"]["threads"] == ["router-news", "router-state"]
        assert child["after"]["holds"] == 5
    alike = [parent, *(child["fresh"] for child in children)]
    assert len({one["worker"] for one in alike}) == 4
    assert len({one["drawn"] for one in alike}) == 4
    assert parent["holds"] == 4
    # Of calls that no answer came for in time the store does not count the minute.
    assert 0 < admin.zcard(f"{PREFIX}rpm:deployment:east-1") <= 3 + 3 * 5 + 1
    assert admin.zcard(f"{PREFIX}workers") == 4


def test_a_fork_in_the_middle_of_turns(one: Server, admin: redis.Redis) -> None:
    """Locks that threads of the parent's hold at that moment are nobody's in the child."""
    program = textwrap.dedent(
        """
        provider = StandIn(accounts=KEYS, seed=7)
        router = worker(provider, sys.argv[1], "east", max_parallel_requests=50)
        ending = threading.Event()

        def calls():
            while not ending.is_set():
                router.video_generation(prompt="x")

        busy = [threading.Thread(target=calls) for _ in range(4)]
        for thread in busy:
            thread.start()

        def work(number):
            began = time.monotonic()
            for _ in range(5):
                router.video_generation(prompt="x")
            took = time.monotonic() - began
            router.close()
            return took

        slowest = 0.0
        for _ in range(12):
            slowest = max(slowest, *forked(work, 2))
        ending.set()
        for thread in busy:
            thread.join()
        router.close()
        print(json.dumps(slowest))
        """
    )
    slowest = run(program, one.url)
    figure(f"5 calls in a child forked in the middle of turns: at most {1000 * slowest:.0f} ms")
    assert slowest < 5.0
    assert until(lambda: len(admin.client_list()) == 1, 5) < 5


def test_a_prefork_pool_of_celerys(one: Server, admin: redis.Redis, tmp_path: Path) -> None:
    """A worker of Celery's over a broker of files, whose parent had made calls before it forked."""
    pytest.importorskip("celery")
    app = tmp_path / "made.py"
    app.write_text(
        textwrap.dedent(
            f"""
            import os, sys
            from celery import Celery
            from real_redis import worker
            from router.testing import StandIn
            from shared_parts import KEYS

            folder = {str(tmp_path)!r}
            app = Celery("made", broker="filesystem://", backend="file://" + folder + "/results")
            app.conf.broker_transport_options = {{
                "data_folder_in": folder + "/queue", "data_folder_out": folder + "/queue",
                "control_folder": folder + "/control",
            }}
            router = worker(StandIn(accounts=KEYS, seed=7), {one.url!r}, "east", rpm=1000)
            if "worker" in sys.argv:
                router.video_generation(prompt="before the fork")

            @app.task
            def made(number):
                video = router.video_generation(prompt=str(number))
                return [os.getpid(), router._learning.sharing.worker, video.id]
            """
        )
    )
    for folder in ("queue", "control", "results"):
        (tmp_path / folder).mkdir()
    told = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(HERE), str(HERE.parent), *sys.path]),
        "C_FORCE_ROOT": "1",
    }
    told.pop("PYTHONWARNINGS", None)
    command = [sys.executable, "-m", "celery", "-A", "made", "worker", "--pool", "prefork"]
    command += ["--concurrency", "2", "--without-gossip", "--without-mingle", "-l", "WARNING"]
    asking = textwrap.dedent(
        """
        import json
        from made import made
        asked = [made.delay(number) for number in range(12)]
        print(json.dumps([one.get(timeout=30, interval=0.05) for one in asked]))
        """
    )
    with (tmp_path / "log").open("wb") as log:
        pool = subprocess.Popen(
            command, cwd=tmp_path, env=told, stdout=log, stderr=log, start_new_session=True
        )
    try:
        ended = subprocess.run(
            [sys.executable, "-c", asking],
            cwd=tmp_path, env=told, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr + (tmp_path / "log").read_text()
        found = json.loads(ended.stdout.splitlines()[-1])
        processes = {pid for pid, _, _ in found}
        assert pool.pid not in processes
        assert len({name for _, name, _ in found}) == len(processes)
        assert 0 < admin.zcard(f"{PREFIX}rpm:deployment:east-1") <= 12 + 1
        assert admin.zcard(f"{PREFIX}workers") == len(processes) + 1
    finally:
        pool.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            pool.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pool.pid, signal.SIGKILL)
        pool.wait(5)


APPLICATION = textwrap.dedent(
    """
    import json, os, sys, threading, time
    from pathlib import Path
    from router import Router

    told = json.loads(Path(__file__).with_name("told.json").read_text())
    router = Router.from_dict(told["config"], environ={})

    def about():
        sharing, leasing = router._learning.sharing, router._engine.leasing
        return {
            "pid": os.getpid(),
            "parent": os.getppid(),
            "worker": sharing.worker,
            "drawn": router._rng.random(),
            "holds": len(leasing._own.held()),
            "threads": sorted(t.name for t in threading.enumerate() if t.name.startswith("router")),
        }

    for _ in range(3):
        router.video_generation(prompt="before the fork")
    time.sleep(0.3)
    Path(__file__).with_name("parent.json").write_text(json.dumps(about()))
    fresh = {}

    def application(environ, start_response):
        fresh.setdefault(os.getpid(), about())
        made = [router.video_generation(prompt="x").id for _ in range(2)]
        time.sleep(0.3)  # so that the next request finds another worker
        found = {"fresh": fresh[os.getpid()], "now": about(), "made": made}
        start_response("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(found).encode()]
    """
)


@contextlib.contextmanager
def gunicorn(folder: Path, config: dict[str, Any], *arguments: str) -> Iterator[Path]:
    """The application of three calls before the fork, under gunicorn; where it listens."""
    (folder / "made.py").write_text(APPLICATION)
    (folder / "told.json").write_text(json.dumps({"config": config}))
    listens = folder / "listens"
    command = [sys.executable, "-m", "gunicorn", "--bind", f"unix:{listens}", *arguments]
    told = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), str(HERE), str(HERE.parent), *sys.path]),
        "HOME": str(folder),  # newer versions put a socket of their own there
    }
    for name in ("PYTHONWARNINGS", "XDG_RUNTIME_DIR", "GUNICORN_CMD_ARGS"):
        told.pop(name, None)
    with (folder / "log").open("wb") as log:
        master = subprocess.Popen(
            [*command, "made:application"],
            cwd=folder, env=told, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        until(listens.exists, 30, "gunicorn listens")
        yield listens
    except BaseException as exc:
        exc.add_note((folder / "log").read_text()[-3000:])
        raise
    finally:
        master.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            master.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(master.pid, signal.SIGKILL)
        master.wait(5)


def answers_of(listens: Path, count: int, without: frozenset[int] = frozenset()) -> dict[int, Any]:
    """The last answer of each worker, when so many others than `without` have answered."""
    found: dict[int, Any] = {}

    def ask(_: int) -> Any:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(listens)), timeout=30) as client:
            return client.get("http://gunicorn/").raise_for_status().json()

    def enough() -> bool:
        with ThreadPoolExecutor(2 * count) as pool:
            for answer in pool.map(ask, range(2 * count)):
                if answer["now"]["pid"] not in without:
                    found[answer["now"]["pid"]] = answer
        return len(found) >= count

    until(enough, 30, f"{count} workers answer")
    return found


def test_workers_of_gunicorns_preloaded_application(
    one: Server, admin: redis.Redis, tmp_path: Path
) -> None:
    """What `--preload` does: the application is loaded, and used, before workers are forked."""
    pytest.importorskip("gunicorn")
    limits = {"max_parallel_jobs": 500, "max_parallel_requests": 50, "rpm": 5000}
    with StandIn(accounts=KEYS, seed=7, job_seconds=600) as provider:
        config = fleet(provider.base_url, "east", **limits)
        config["settings"] = {"redis_url": one.url}
        with gunicorn(tmp_path, config, "--preload", "--workers", "3") as listens:
            parent = json.loads((tmp_path / "parent.json").read_text())
            workers = answers_of(listens, 3)
            check_that_nothing_is_shared(parent, workers)
            check_whose_connections(one, admin, provider, [parent["pid"], *workers])
            # Who dies is replaced by another fork of the same parent.
            lost = min(workers)
            os.kill(lost, signal.SIGKILL)
            again = answers_of(listens, 3, frozenset({lost}))
            assert set(again) > set(workers) - {lost}
            check_that_nothing_is_shared(parent, {**workers, **again})
            check_whose_connections(one, admin, provider, [parent["pid"], *again])
        assert parent["holds"] == 3
        # All jobs that were accepted hold their slots, those of the lost and of the parent too.
        made = len(provider.accepted)
        assert made > 3
        assert admin.zcard(f"{PREFIX}jobs:deployment:east-1") == made
        assert admin.hlen(f"{PREFIX}jobs") == made


def check_that_nothing_is_shared(parent: dict[str, Any], workers: dict[int, Any]) -> None:
    """Each has an identity, a seed and leases of its own, and threads from its first call on."""
    assert parent["threads"] == ["router-news", "router-state"]
    for child in workers.values():
        assert child["fresh"]["parent"] == parent["pid"]
        assert child["fresh"]["threads"] == []
        assert child["fresh"]["holds"] == 0
        assert child["now"]["threads"] == ["router-news", "router-state"]
        assert child["now"]["worker"] == child["fresh"]["worker"]
    alike = [parent, *(child["fresh"] for child in workers.values())]
    assert len({one["worker"] for one in alike}) == len(alike)
    assert len({one["drawn"] for one in alike}) == len(alike)


def check_whose_connections(
    one: Server, admin: redis.Redis, provider: StandIn, pids: list[int]
) -> None:
    """Each connection that Redis has belongs to one process, and each process has its two.

    No connection to the provider is in two of them either.
    """

    def owned() -> bool:
        known = [
            (int(client["addr"].rpartition(":")[2]), client["sub"])
            for client in admin.client_list()
            if not client["addr"].startswith(str(one.socket))
        ]
        held = {pid: connected(pid, one.port) for pid in pids}
        of = {port: [pid for pid, ports in held.items() if port in ports] for port, _ in known}
        turns = sorted(of[port][0] for port, heard in known if heard == "0" and of[port])
        news = sorted(of[port][0] for port, heard in known if heard != "0" and of[port])
        whole = all(len(pids) == 1 for pids in of.values())
        return whole and turns == news == sorted(pids) and sum(map(len, held.values())) == len(of)

    until(owned, 10, "two connections for each")  # a new worker listens a moment after its call
    calling = [port for pid in pids for port in connected(pid, provider.port)]
    assert len(calling) == len(set(calling)) >= len(pids) - 1


# Threads and loops --------------------------------------------------------------------------------


@pytest.mark.parametrize("one", BOTH, indirect=True)
def test_many_threads_and_event_loops_on_one_router(
    one: Server, admin: redis.Redis, provider: StandIn
) -> None:
    limits = {"max_parallel_requests": 1000, "max_parallel_jobs": 100_000}
    with worker(provider, one.url, "east", **limits) as router:
        errors: list[BaseException] = []

        def blocking() -> None:
            for _ in range(15):
                router.video_generation(prompt="x")

        async def together() -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(15):
                    group.create_task(router.avideo_generation(prompt="x"))

        def run_one(number: int) -> None:
            try:
                if number % 2:
                    blocking()
                else:
                    asyncio.run(together())
            except BaseException as exc:  # noqa: BLE001  (that there is none is what is shown)
                errors.append(exc)

        threads = [threading.Thread(target=run_one, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert errors == []
        assert len(router.statistics()) == 1
        until(lambda: len(router.jobs()) == 180, 3, "all jobs are known")
        assert len(admin.client_list(_type="pubsub")) == 1
        assert admin.zcard(f"{PREFIX}workers") == 1
        until(lambda: admin.zcard(f"{PREFIX}requests:deployment:east-1") == 0, 3)
    assert until(lambda: len(admin.client_list()) == 1, 5) < 5


# Endings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("one", BOTH, indirect=True)
@pytest.mark.parametrize("how", ["close", "aclose", "with", "async with"])
def test_an_ending_tells_what_is_untold_and_gives_back(
    one: Server, admin: redis.Redis, how: str
) -> None:
    provider = StandIn(accounts=KEYS, seed=7, job_seconds=600)
    limits = {"max_parallel_requests": 5, "max_parallel_jobs": 5}
    router = worker(provider, one.url, "east", **limits)

    async def used() -> None:
        await router.avideo_generation(prompt="x")
        if how == "aclose":
            await router.aclose()
        else:
            async with router:
                await router.avideo_generation(prompt="x")

    began = time.monotonic()
    if how in ("aclose", "async with"):
        asyncio.run(used())
    else:
        router.video_generation(prompt="x")
        if how == "with":
            with router:
                router.video_generation(prompt="x")
        else:
            router.close()
    took = time.monotonic() - began
    made = 1 if "close" in how else 2
    assert admin.zcard(f"{PREFIX}jobs:deployment:east-1") == made  # those are the jobs'
    assert admin.zcard(f"{PREFIX}requests:deployment:east-1") == 0
    counted = sum(
        int(admin.hget(key, "n") or 0)
        for key in admin.scan_iter(match=f'{PREFIX}\\["sums","http"*', count=1000)
    )
    assert counted == made
    until(lambda: len(admin.client_list()) == 1, 2, "nothing is left open")
    assert not [t for t in threading.enumerate() if t.name.startswith("router")]
    figure(f"{how}: {1000 * took:.0f} ms")
    assert took < 3.0


def test_a_router_is_used_again_after_its_end(one: Server, provider: StandIn) -> None:
    with worker(provider, one.url) as first, worker(provider, one.url) as second:
        for router in (first, second):
            router.video_generation(prompt="x")
            router.close()
            router.video_generation(prompt="x")
        share(first, second)


def test_an_ending_does_not_wait_for_a_redis_that_is_frozen(one: Server, provider: StandIn) -> None:
    router = worker(provider, one.url, max_parallel_requests=5)
    router.video_generation(prompt="x")
    time.sleep(0.2)
    one.freeze()
    try:
        router.video_generation(prompt="x")
        began = time.monotonic()
        router.close()
        took = time.monotonic() - began
    finally:
        one.thaw()
    figure(f"closed beside a frozen Redis in {took:.2f} s")
    assert took <= 5.0
    until(
        lambda: not [t for t in threading.enumerate() if t.name.startswith("router")],
        3,
        "its threads have ended",
    )


@pytest.mark.parametrize("one", BOTH, indirect=True)
def test_a_worker_that_is_killed_keeps_nothing_open(one: Server, admin: redis.Redis) -> None:
    program = textwrap.dedent(
        """
        provider = StandIn(accounts=KEYS, seed=7)
        router = worker(provider, sys.argv[1], "east", max_parallel_requests=3)
        router.video_generation(prompt="x")
        time.sleep(0.3)
        print(json.dumps(1), flush=True)
        os.kill(os.getpid(), 9)
        """
    )
    with pytest.raises(AssertionError):
        run(program, one.url)
    until(lambda: len(admin.client_list()) == 1, 2)
    assert admin.zcard(f"{PREFIX}requests:deployment:east-1") == 0
