"""Prometheus metrics, scraped as a server scrapes them, also over several processes."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families
from shared_parts import Doors, FakeClock
from telemetry_parts import AT, EVERY_EVENT, attempted, ejected, fails, served

from router.events import Restored
from router.telemetry import SCOPES
from router.telemetry.prometheus import Prometheus
from router.testing import StandIn

Labels = tuple[str, ...]
PROCESS = Path(__file__).with_name("metrics_process.py")


def read(text: str, name: str, *labels: str) -> dict[Labels, float]:
    """The samples of one name in a scrape, by these labels."""
    return {
        tuple(sample.labels[label] for label in labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == f"video_router_{name}"
    }


class Scraped:
    """A `Prometheus` with a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.hook = Prometheus(self.registry)

    def read(self, name: str, *labels: str) -> dict[Labels, float]:
        return read(generate_latest(self.registry).decode(), name, *labels)

    def series(self) -> int:
        text = generate_latest(self.registry).decode()
        return sum(len(family.samples) for family in text_string_to_metric_families(text))


@pytest.fixture
def prometheus() -> Scraped:
    return Scraped()


@pytest.fixture
def scrape(prometheus: Scraped) -> Iterator[Callable[[], str]]:
    """A GET of /metrics on a real port."""
    server, thread = start_http_server(0, addr="127.0.0.1", registry=prometheus.registry)

    def get() -> str:
        url = f"http://127.0.0.1:{server.server_port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return str(answer.read().decode())

    yield get
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_a_router_at_work_is_scraped_over_http(
    call: Doors, provider: StandIn, prometheus: Scraped, scrape: Callable[[], str]
) -> None:
    router = served(provider, prometheus.hook)
    provider.fault("status", operation="generation", status=429)
    video = call(router, "video_generation", prompt="a heron")
    call(router, "video_wait", video_id=video.id)
    text = scrape()
    attempts = read(text, "attempts_total", "operation", "result")
    assert attempts.pop(("status", "success")) >= 1
    assert attempts == {("generation", "throttled"): 1, ("generation", "success"): 1}
    seconds = read(text, "attempt_seconds_sum", "operation", "succeeded")
    assert seconds[("generation", "yes")] == pytest.approx(2.0)
    assert seconds[("generation", "no")] == pytest.approx(2.0)
    assert read(text, "jobs_total", "status") == {("completed",): 1}
    assert read(text, "ejections_total", "scope", "cause") == {("submits", "throttled"): 1}
    accounts = {account for _, account in read(text, "attempts_total", "deployment", "account")}
    assert accounts == {"east", "west"}


def test_who_is_out_has_a_deadline_until_it_is_brought_back(
    call: Doors, provider: StandIn, clock: FakeClock, prometheus: Scraped
) -> None:
    router = served(provider, prometheus.hook, clock=clock)
    body = {"error": {"message": "Incorrect API key"}}
    provider.fault("status", account="east", times=None, status=401, body=body)
    fails(call, router, "video_generation", prompt="a heron", account="east")
    until = prometheus.read("ejected_until_timestamp_seconds", "deployment", "account", "scope")
    assert until == {("east-1", "east", "both"): pytest.approx(clock.time() + 300.0)}
    router.restore("east-1")
    back = prometheus.read("ejected_until_timestamp_seconds", "deployment", "scope")
    assert back == {("east-1", scope): 0 for scope in SCOPES}


def test_the_last_deadline_stands_whichever_is_told_last(prometheus: Scraped) -> None:
    prometheus.hook(ejected(300.0, cause="failures"))
    prometheus.hook(ejected(5.0))
    until = prometheus.read("ejected_until_timestamp_seconds", "deployment")
    assert until == {("east-1",): AT + 300}
    prometheus.hook(Restored(AT + 1, "east-1", "east", "the trial went well", scope="submits"))
    prometheus.hook(ejected(5.0, at=AT + 2))
    until = prometheus.read("ejected_until_timestamp_seconds", "deployment", "scope")
    assert until == {("east-1", "submits"): AT + 7}


def test_every_event_is_measured(prometheus: Scraped) -> None:
    for event in EVERY_EVENT:
        prometheus.hook(event)
    read = prometheus.read
    waits = read("waits_total", "operation", "cause")
    assert waits == {("generation", "room"): 1, ("status", "throttled"): 1}
    assert read("wait_seconds_sum", "operation") == {("generation",): 4.0}
    assert read("wait_seconds_count", "operation") == {("generation",): 1}
    assert read("cost_dollars_total", "accepted") == {("yes",): 0.8, ("maybe",): 0.4}
    assert read("job_seconds_sum", "deployment", "operation", "status") == {
        ("east-1", "generation", "completed"): 95.0
    }
    assert read("jobs_total", "deployment", "operation", "status") == {
        ("east-1", "generation", "completed"): 1,
        ("", "", "failed"): 1,
    }
    # What another worker decided, it has counted; that it is out is true here as well.
    assert read("ejections_total", "deployment") == {("east-1",): 1, ("west-1",): 1}
    out = read("ejected_until_timestamp_seconds", "deployment", "scope")
    assert out[("north-1", "submits")] == AT + 300
    assert out[("west-1", "both")] == 0


def test_more_calls_make_no_more_series(
    call: Doors, provider: StandIn, prometheus: Scraped
) -> None:
    router = served(provider, prometheus.hook, "east")

    def calls(first: int, last: int) -> None:
        for number in range(first, last):
            asked = {"prompt": f"heron {number}", "metadata": {"user": f"u-{number}"}}
            video = call(router, "video_generation", **asked)
            call(router, "video_status", video_id=video.id)

    calls(0, 2)
    few = prometheus.series()
    calls(2, 20)
    assert prometheus.series() == few
    text = generate_latest(prometheus.registry).decode()
    for word in ("heron", "u-1", "sk-", 'video_"', "video_ey"):
        assert word not in text


def test_a_second_one_for_a_registry_needs_a_name_of_its_own() -> None:
    registry = CollectorRegistry()
    Prometheus(registry)
    with pytest.raises(ValueError, match=r"Duplicated.*give one Prometheus to all"):
        Prometheus(registry)
    Prometheus(registry, namespace="staging")(attempted())
    assert 'staging_attempts_total{account="east"' in generate_latest(registry).decode()


# Several processes -------------------------------------------------------------------------------


def run(folder: Path, *arguments: str) -> None:
    """A process that works with a router of its own and tells its metrics to this folder."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(PROCESS), *arguments],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def over_all(folder: Path) -> Callable[..., dict[Labels, float]]:
    """What one scrape of all processes has, as the client's documentation says to make it."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]
    text = generate_latest(registry).decode()
    return lambda name, *labels: read(text, name, *labels)


def test_processes_count_together(tmp_path: Path) -> None:
    with StandIn(accounts={"sk-east": "east"}) as provider:
        run(tmp_path, provider.base_url, "calls=2")
        run(tmp_path, provider.base_url, "calls=3")
    total = over_all(tmp_path)
    assert total("attempts_total", "operation", "result") == {("generation", "success"): 5}
    assert total("attempt_seconds_count", "deployment") == {("east-1",): 5}
    buckets: dict[Any, float] = total("attempt_seconds_bucket", "le")
    assert buckets[("+Inf",)] == 5


def test_one_process_puts_out_what_another_brings_back(tmp_path: Path) -> None:
    with StandIn(accounts={"sk-east": "east"}) as provider:
        provider.fault("status", operation="generation", status=401)
        run(tmp_path, provider.base_url, "fails=1")
        out = over_all(tmp_path)("ejected_until_timestamp_seconds", "deployment", "scope")
        assert out[("east-1", "both")] > 0
        run(tmp_path, provider.base_url, "restores=1")
    back = over_all(tmp_path)
    until = back("ejected_until_timestamp_seconds", "deployment", "scope")
    assert until[("east-1", "both")] == 0
    assert back("ejections_total", "deployment", "cause") == {("east-1", "denied"): 1}


def test_a_hook_built_before_the_fork_works_on_both_sides(tmp_path: Path) -> None:
    with StandIn(accounts={"sk-east": "east"}) as provider:
        run(tmp_path, provider.base_url, "calls=1", "forks=2")
    # The child's two and the parent's one; the files are as many as the processes.
    total = over_all(tmp_path)
    assert total("attempts_total", "result") == {("success",): 3}
    assert len(list(tmp_path.glob("counter_*.db"))) == 2
