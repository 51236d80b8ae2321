"""Spans and metrics, as the official SDK gets them from a router at work."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv.attributes import error_attributes, http_attributes, server_attributes
from opentelemetry.trace import SpanKind, StatusCode
from shared_parts import Doors, FakeClock
from telemetry_parts import AT, EVERY_EVENT, attempted, ejected, fails, served, within

from router.events import Restored
from router.telemetry.opentelemetry import SCHEMA_URL, OpenTelemetry
from router.testing import StandIn
from router.testing.media import CLIP


class Recorded:
    """An `OpenTelemetry` over a real SDK that keeps in memory what it gets."""

    def __init__(self) -> None:
        self._spans, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self._traces = TracerProvider()
        self._traces.add_span_processor(SimpleSpanProcessor(self._spans))
        self._metrics = MeterProvider([self._reader])
        self.hook = OpenTelemetry(self._traces, self._metrics)
        self.tracer = self._traces.get_tracer("an application")

    def spans(self, begin: str = "") -> list[ReadableSpan]:
        finished = self._spans.get_finished_spans()
        return [span for span in finished if span.name.startswith(begin)]

    def points(self, name: str) -> list[Any]:
        data = self._reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def values(self, name: str, *labels: str) -> dict[Any, Any]:
        """The values of a counter or gauge, or the counts of a histogram, by these attributes."""
        return {
            tuple((point.attributes or {}).get(f"video_router.{label}") for label in labels): (
                point.count if hasattr(point, "bucket_counts") else point.value
            )
            for point in self.points(f"video_router.{name}")
        }

    def end(self) -> None:
        self._traces.shutdown()
        self._metrics.shutdown()


@pytest.fixture
def otel() -> Iterator[Recorded]:
    recorded = Recorded()
    yield recorded
    recorded.end()


# Spans -------------------------------------------------------------------------------------------


def test_an_attempt_is_a_span_of_its_true_times(
    call: Doors, provider: StandIn, clock: FakeClock, otel: Recorded
) -> None:
    router = served(provider, otel.hook, "east", clock=clock)
    clock.advance(10)
    call(router, "video_generation", prompt="a heron")
    (span,) = otel.spans()
    assert (span.name, span.kind) == ("generation sora-2", SpanKind.CLIENT)
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.start_time / 1e9 == pytest.approx(AT + 10, abs=1e-3)
    assert span.end_time / 1e9 == pytest.approx(AT + 12, abs=1e-3)
    assert span.status.status_code is StatusCode.UNSET
    scope = span.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.schema_url) == ("router", SCHEMA_URL)


def test_its_attributes_have_the_names_of_the_conventions(
    call: Doors, provider: StandIn, otel: Recorded
) -> None:
    router = served(provider, otel.hook, "east")
    call(router, "video_generation", prompt="a heron")
    (span,) = otel.spans()
    attributes = dict(span.attributes or {})
    attributes.pop("video_router.request_id", None)
    assert attributes == {
        "gen_ai.operation.name": "generation",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "sora-2",
        server_attributes.SERVER_ADDRESS: "videos.example",
        server_attributes.SERVER_PORT: 8443,
        http_attributes.HTTP_RESPONSE_STATUS_CODE: 200,
        "video_router.operation": "generation",
        "video_router.deployment": "east-1",
        "video_router.account": "east",
        "video_router.result": "success",
        "video_router.accepted": "yes",
    }


def test_what_only_some_attempts_have_is_told_of_those(otel: Recorded) -> None:
    otel.hook(attempted(provider="azure", cost=0.8, request_id="req_1", attempt=3))
    (span,) = otel.spans()
    attributes = span.attributes or {}
    assert attributes["gen_ai.provider.name"] == "azure.ai.openai"
    assert attributes[http_attributes.HTTP_REQUEST_RESEND_COUNT] == 2
    assert attributes["video_router.cost"] == 0.8
    assert attributes["video_router.request_id"] == "req_1"
    assert span.name == "generation"
    assert "gen_ai.request.model" not in attributes


def test_a_span_is_the_child_of_the_callers(call: Doors, provider: StandIn, otel: Recorded) -> None:
    router = served(provider, otel.hook, "east")
    request = otel.tracer.start_as_current_span("request")
    within(call, request, router, "video_generation", prompt="a heron")
    (parent,) = otel.spans("request")
    (child,) = otel.spans("generation")
    assert child.parent is not None
    assert parent.context is not None
    assert child.parent.span_id == parent.context.span_id
    assert child.context is not None
    assert child.context.trace_id == parent.context.trace_id


def test_uploads_made_at_once_are_children_of_the_same_caller(
    call: Doors, provider: StandIn, otel: Recorded
) -> None:
    # The blocking door makes them in threads of its own.
    router = served(provider, otel.hook, "east", "west", "north")
    request = otel.tracer.start_as_current_span("request")
    asked = {"name": "Luna", "video": CLIP, "replicate": 3}
    within(call, request, router, "video_create_character", **asked)
    (parent,) = otel.spans("request")
    children = otel.spans("create_character")
    assert parent.context is not None
    assert {child.parent.span_id for child in children if child.parent} == {parent.context.span_id}
    accounts = {(child.attributes or {})["video_router.account"] for child in children}
    assert accounts == {"east", "west", "north"}


def test_a_failed_attempt_is_an_error_and_the_next_one_says_which_it_is(
    call: Doors, provider: StandIn, otel: Recorded
) -> None:
    router = served(provider, otel.hook)
    provider.fault("status", operation="generation", status=429)
    call(router, "video_generation", prompt="a heron")
    failed, good = otel.spans()
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.status.description == "throttled"
    attributes = failed.attributes or {}
    assert attributes[error_attributes.ERROR_TYPE] == "429"
    assert attributes[http_attributes.HTTP_RESPONSE_STATUS_CODE] == 429
    assert http_attributes.HTTP_REQUEST_RESEND_COUNT not in attributes
    assert good.status.status_code is StatusCode.UNSET
    assert (good.attributes or {})[http_attributes.HTTP_REQUEST_RESEND_COUNT] == 1


def test_without_an_answer_the_type_of_the_error_is_how_it_ended(
    call: Doors, provider: StandIn, otel: Recorded
) -> None:
    router = served(provider, otel.hook, "east")
    provider.fault("reset", operation="generation", after=True)
    fails(call, router, "video_generation", prompt="a heron")
    (span,) = otel.spans()
    attributes = span.attributes or {}
    assert span.status.status_code is StatusCode.ERROR
    assert attributes[error_attributes.ERROR_TYPE] == attributes["video_router.result"]
    assert http_attributes.HTTP_RESPONSE_STATUS_CODE not in attributes
    assert attributes["video_router.accepted"] == "maybe"


class Silent(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Takes a request and never answers."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")


def test_what_the_caller_cancelled_is_no_error(provider: StandIn, otel: Recorded) -> None:
    async def cancelled() -> None:
        silent = Silent()
        router = served(provider, otel.hook, "east", transport=silent)
        running = asyncio.create_task(router.avideo_generation(prompt="a heron"))
        await silent.asked.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    asyncio.run(cancelled())
    (span,) = otel.spans()
    assert span.status.status_code is StatusCode.UNSET
    assert (span.attributes or {})["video_router.result"] == "cancelled"
    assert otel.values("attempts", "result") == {("cancelled",): 1}


# Metrics -----------------------------------------------------------------------------------------


def test_attempts_are_counted_by_result_and_timed_by_success(
    call: Doors, provider: StandIn, otel: Recorded
) -> None:
    router = served(provider, otel.hook)
    provider.fault("status", operation="generation", status=429)
    call(router, "video_generation", prompt="a heron")
    counts = otel.values("attempts", "operation", "result")
    assert counts == {("generation", "throttled"): 1, ("generation", "success"): 1}
    timed = otel.points("video_router.attempt.duration")
    assert [point.sum for point in timed] == [pytest.approx(2.0), pytest.approx(2.0)]
    succeeded = otel.values("attempt.duration", "operation", "succeeded")
    assert succeeded == {("generation", False): 1, ("generation", True): 1}


def test_ends_of_jobs_are_counted_by_status(call: Doors, provider: StandIn, otel: Recorded) -> None:
    router = served(provider, otel.hook, "east")
    provider.fault("job_fails", code="internal_error", message="the machine broke")
    for _ in range(3):
        video = call(router, "video_generation", prompt="a heron")
        call(router, "video_wait", video_id=video.id, raise_on_failure=False)
    jobs = otel.values("jobs", "account", "status")
    assert jobs == {("east", "failed"): 1, ("east", "completed"): 2}


def test_who_is_out_is_seen_until_it_is_brought_back(
    call: Doors, provider: StandIn, otel: Recorded
) -> None:
    router = served(provider, otel.hook)
    body = {"error": {"message": "Incorrect API key"}}
    provider.fault("status", account="east", times=None, status=401, body=body)
    fails(call, router, "video_generation", prompt="a heron", account="east")
    call(router, "video_generation", prompt="a heron", account="west")
    assert otel.values("ejected", "deployment", "scope") == {("east-1", "both"): 1}
    ejections = otel.values("ejections", "deployment", "account", "scope", "cause")
    assert ejections == {("east-1", "east", "both", "denied"): 1}
    router.restore("east-1")
    assert otel.values("ejected", "deployment", "scope") == {("east-1", "both"): 0}


def test_an_ejection_ends_by_itself_and_a_shorter_one_does_not_end_it(
    otel: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = FakeClock()
    monkeypatch.setattr("router.telemetry.opentelemetry.time.monotonic", passed.monotonic)
    otel.hook(ejected(300.0))
    otel.hook(ejected(5.0))
    for seconds, is_out in ((299.0, 1), (1.0, 0)):
        passed.advance(seconds)
        assert otel.values("ejected", "deployment") == {("east-1",): is_out}


def test_a_restore_of_one_scope_leaves_the_others(otel: Recorded) -> None:
    for scope in ("submits", "reads", "list"):
        otel.hook(ejected(300.0, scope=scope))
    otel.hook(Restored(AT, "east-1", "east", "the trial went well", scope="submits"))
    assert otel.values("ejected", "scope") == {("submits",): 0, ("reads",): 1, ("list",): 1}
    otel.hook(Restored(AT, "east-1", "east", "by an operator"))
    assert set(otel.values("ejected", "scope").values()) == {0}


def test_every_event_is_measured(otel: Recorded) -> None:
    for event in EVERY_EVENT:
        otel.hook(event)
    assert otel.values("waits", "operation", "cause") == {
        ("generation", "room"): 1,
        ("status", "throttled"): 1,
    }
    (waited,) = otel.points("video_router.wait.duration")
    assert (waited.count, waited.sum) == (1, 4.0)
    assert otel.values("cost", "accepted") == {("yes",): 0.8, ("maybe",): 0.4}
    (job,) = otel.points("video_router.job.duration")
    assert (job.count, job.sum) == (1, 95.0)
    # What another worker decided, it has counted.
    assert otel.values("ejections", "deployment") == {("east-1",): 1, ("west-1",): 1}
    assert otel.values("ejected", "deployment") == {("east-1",): 1, ("west-1",): 0, ("north-1",): 1}


def test_long_exchanges_and_jobs_fall_into_different_buckets(otel: Recorded) -> None:
    # The SDK's own buckets are for milliseconds.
    for seconds in (0.2, 3.0, 45.0):
        otel.hook(attempted(seconds=seconds))
    (timed,) = otel.points("video_router.attempt.duration")
    assert sorted(timed.bucket_counts)[-3:] == [1, 1, 1]


def test_no_key_no_prompt_and_no_metadata_are_told(
    call: Doors, provider: StandIn, otel: Recorded
) -> None:
    router = served(provider, otel.hook)
    provider.fault("status", status=401, body={"error": {"message": "Bad key sk-east, sk-west"}})
    asked = {"prompt": "a secret prompt", "metadata": {"user": "u-1234"}}
    call(router, "video_generation", **asked)
    told = "".join(span.to_json() for span in otel.spans())
    told += "".join(str(otel.points(f"video_router.{name}")) for name in ("attempts", "ejections"))
    assert "east" in told
    for word in ("a secret prompt", "u-1234", "sk-east", "sk-west", "video_"):
        assert word not in told.replace("video_router", "")
