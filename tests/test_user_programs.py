"""The programs of tests/typing/user.py, run: a web app, a queue worker, own clients."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

from router import AmbiguousSubmitError, Router
from router.events import Event
from router.testing import StandIn

HERE = Path(__file__).parent
CLIP = HERE.parent / "router" / "testing" / "clip.mp4"
# What the frameworks' own imports warn of is theirs.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ImportWarning")


@pytest.fixture(scope="module")
def user() -> ModuleType:
    spec = importlib.util.spec_from_file_location("user_programs", HERE / "typing" / "user.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["user_programs"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def served(user: ModuleType) -> Iterator[tuple[StandIn, Router]]:
    accounts = {"sk-east": "east", "sk-west": "west"}
    with StandIn(accounts=accounts) as provider:
        own = {a: {"api_key": f"sk-{a}", "base_url": provider.base_url} for a in ("east", "west")}
        deployments = [{"id": a, "model_name": "sora-2", "account": a} for a in own]
        with Router(accounts=own, deployments=deployments) as router:
            user.routers["app"] = router
            yield provider, router


def test_the_web_app_makes_a_character_and_a_video_and_the_worker_follows_it(
    user: ModuleType,
    served: tuple[StandIn, Router],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from fastapi.testclient import TestClient

    monkeypatch.chdir(tmp_path)
    provider, _ = served
    with TestClient(user.app) as client:
        clip = {"clip": ("luna.mp4", CLIP.read_bytes(), "video/mp4")}
        made = client.post("/characters", params={"name": "Luna"}, files=clip)
        assert made.status_code == 200, made.text
        asked = {"prompt": "Luna waves", "character_id": made.json()["id"]}
        video = client.post("/videos", params=asked)
        assert video.status_code == 200, video.text
    assert [submit.operation for submit in provider.accepted] == [
        "create_character",
        "create_character",
        "generation",
    ]
    # The task ran at once (eager), on the id that the endpoint gave it.
    assert (tmp_path / "video.mp4").read_bytes() == CLIP.read_bytes()


def test_the_web_app_says_when_to_come_back(
    user: ModuleType, served: tuple[StandIn, Router]
) -> None:
    from fastapi.testclient import TestClient

    provider, _ = served
    provider.fault("status", status=429, headers={"Retry-After": "7"}, times=None)
    with TestClient(user.app) as client:
        answer = client.post("/videos", params={"prompt": "A heron lands"})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "7"


def test_own_clients_tie_their_jobs_to_the_router(
    user: ModuleType, served: tuple[StandIn, Router]
) -> None:
    _, router = served
    for video_id in (
        user.generate_with_my_client(router, "A heron lands"),
        asyncio.run(user.generate_async(router, "A heron lands")),
    ):
        assert router.video_wait(video_id).done
        assert user.first_bytes(router, video_id)[4:8] == b"ftyp"


def test_the_application_test_holds(user: ModuleType) -> None:
    user.check_that_a_lost_answer_is_never_sent_again()


def test_the_operators_hooks_are_told_of_one_video(user: ModuleType) -> None:
    registry, spans = CollectorRegistry(), InMemorySpanExporter()
    traces = TracerProvider()
    traces.add_span_processor(SimpleSpanProcessor(spans))
    hook, words = user.telemetry(registry, traces, MeterProvider()), []

    def told(event: Event) -> None:
        hook(event)
        words.append(user.in_words(event))

    with (
        StandIn(accounts={"sk-east": "east"}) as provider,
        Router(
            accounts={"east": {"api_key": "sk-east", "base_url": provider.base_url}},
            deployments=[{"id": "east-1", "model_name": "sora-2", "account": "east"}],
            on_event=told,
        ) as router,
    ):
        video = router.video_wait(router.video_generation(prompt="A heron lands").id)
    assert words[0] == "generation #1 goes to east-1"
    assert any(line.startswith("east-1: success after ") for line in words)
    assert any(line.startswith(f"{video.id} completed") for line in words)
    assert spans.get_finished_spans()[0].name == "generation sora-2"
    assert "app_jobs_total{" in generate_latest(registry).decode()


def test_an_operators_own_tools_look_in(
    user: ModuleType, served: tuple[StandIn, Router], capsys: pytest.CaptureFixture[str]
) -> None:
    provider, router = served
    made = router.video_generation(prompt="A heron lands")
    (owner,) = user.owners(router, made.id)
    seen = user.report(router)
    assert [job.id for job in seen.running] == [made.id]
    assert (seen.out, seen.full, seen.unknown, seen.changes) == ({}, [], [], [])
    assert [len(jobs) for jobs in user.jobs_by_worker(router).values()] == [1]
    assert capsys.readouterr().out == ""
    assert user.address_of(router, made.id).startswith(provider.base_url)
    router.drain("east")
    assert list(user.report(router).out) == ["east"]
    assert user.why_not(router, "east").startswith("drained: ")
    assert owner in ("east", "west")
    assert asyncio.run(user.unwell(router)) == []
    provider.fault("status", status=401, account="west", times=None)
    assert [line.partition(":")[0] for line in asyncio.run(user.unwell(router))] == ["west"]


def test_a_slot_that_nobody_knows_of_is_released(user: ModuleType) -> None:
    with StandIn(accounts={"sk-acme": "acme"}) as provider:
        account = {"api_key": "sk-acme", "base_url": provider.base_url, "max_parallel_jobs": 1}
        deployment = {"id": "acme-1", "model_name": "sora-2", "account": "acme"}
        with Router(accounts={"acme": account}, deployments=[deployment]) as router:
            provider.fault("reset", operation="generation", after=True)
            with pytest.raises(AmbiguousSubmitError):
                router.video_generation(prompt="A heron lands")
            assert [room.kind for _, room in user.report(router).full] == ["jobs"]
            assert user.release_what_nobody_knows(router, older_than=1.0) == []
            (hold,) = user.release_what_nobody_knows(router, older_than=1e6)
            assert hold.resource == "jobs:account:acme"
            assert router.video_generation(prompt="A heron lands").id
