"""OpenTelemetry spans and metrics, by its API alone: the SDK and the exporters are yours.

    router = Router.from_yaml("deployments.yaml", on_event=OpenTelemetry())

Each attempt is a span, made when the attempt has ended, with its true times, under the span that
the caller is in. Names of attributes are those of the semantic conventions 1.41 where they have
them: `http.*`, `server.*` and `error.type` (stable), `gen_ai.*` (in development); all others begin
with `video_router.`. Prompts, `metadata` and the ids of videos are in none of them.

| metric | attributes |
|---|---|
| `video_router.attempts` | operation, deployment, account, result |
| `video_router.attempt.duration` (histogram, s) | operation, deployment, account, succeeded |
| `video_router.cost` (dollars) | operation, deployment, account, accepted (`yes`, `maybe`) |
| `video_router.jobs` | operation, deployment, account, status |
| `video_router.job.duration` (histogram, s) | operation, deployment, account, status |
| `video_router.ejections` | deployment, account, scope, cause |
| `video_router.ejected` (gauge: 1 while it is out, else 0) | deployment, account, scope |
| `video_router.waits` | operation, cause |
| `video_router.wait.duration` (histogram, s) | operation |

The times of spans are the router's: with Redis, those of its server. A worker whose own clock is
off shows its attempts beside their parents by as much.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import router
from router.events import Attempted, Ejected, Event, JobFinished, Picked, Restored, Waiting
from router.telemetry import ATTEMPT_BUCKETS, JOB_BUCKETS, WAIT_BUCKETS, Standing

try:
    from opentelemetry import metrics, trace
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import Span, SpanKind, StatusCode, TracerProvider
except ImportError as exc:
    raise ImportError(
        "router.telemetry.opentelemetry needs opentelemetry-api: pip install 'video-router[otel]'",
        name=exc.name,
    ) from exc

__all__ = ["SCHEMA_URL", "OpenTelemetry"]

SCHEMA_URL = "https://opentelemetry.io/schemas/1.41.0"

# The providers that the conventions have other names for.
_PROVIDERS = {"azure": "azure.ai.openai"}

Attributes = dict[str, str | int | float | bool]


class OpenTelemetry:
    """An `on_event` hook that makes spans and metrics. Give one to all routers of a process.

    The providers are those given, or else the global ones, which may be set later.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._standing = Standing()
        self._tracer = trace.get_tracer(
            "router", router.__version__, tracer_provider, schema_url=SCHEMA_URL
        )
        meter = metrics.get_meter(
            "router", router.__version__, meter_provider, schema_url=SCHEMA_URL
        )
        self._attempts = meter.create_counter(
            "video_router.attempts", "{attempt}", "HTTP exchanges by how they ended."
        )
        # `succeeded` is told apart, so that a deployment that fails fast never looks fast.
        self._attempt_seconds = meter.create_histogram(
            "video_router.attempt.duration",
            "s",
            "How long HTTP exchanges took.",
            explicit_bucket_boundaries_advisory=ATTEMPT_BUCKETS,
        )
        self._cost = meter.create_counter(
            "video_router.cost",
            "{USD}",
            "What the jobs cost that were accepted, or may have been, where a price is known.",
        )
        self._jobs = meter.create_counter(
            "video_router.jobs", "{job}", "Jobs seen to have ended, in each worker that saw it."
        )
        self._job_seconds = meter.create_histogram(
            "video_router.job.duration",
            "s",
            "How long jobs took from their acceptance to their end.",
            explicit_bucket_boundaries_advisory=JOB_BUCKETS,
        )
        self._ejections = meter.create_counter(
            "video_router.ejections",
            "{ejection}",
            "Deployments taken out of rotation, in the worker that decided it.",
        )
        meter.create_observable_gauge(
            "video_router.ejected",
            [self._observe_ejected],
            "1",
            "Whether a deployment is out of rotation.",
        )
        self._waits = meter.create_counter(
            "video_router.waits",
            "{wait}",
            "Calls that began to wait, for room or for the end of a throttling.",
        )
        self._wait_seconds = meter.create_histogram(
            "video_router.wait.duration",
            "s",
            "How long calls waited that were served in the end.",
            explicit_bucket_boundaries_advisory=WAIT_BUCKETS,
        )

    def __call__(self, event: Event) -> None:
        match event:
            case Attempted():
                self._attempted(event)
            case Picked():
                if event.waited > 0:
                    self._wait_seconds.record(event.waited, _told(operation=event.operation))
            case Waiting():
                self._waits.add(1, _told(operation=event.operation, cause=event.cause))
            case JobFinished():
                self._job_finished(event)
            case Ejected():
                self._ejected(event)
            case Restored():
                self._standing.restored(event)

    # Attempts -----------------------------------------------------------------------------------

    def _attempted(self, event: Attempted) -> None:
        self._span(event)
        where = _told(operation=event.operation, deployment=event.deployment, account=event.account)
        self._attempts.add(1, where | _told(result=event.result))
        self._attempt_seconds.record(event.seconds, where | _told(succeeded=event.succeeded))
        if event.cost:
            self._cost.add(event.cost, where | _told(accepted=event.accepted))

    def _span(self, event: Attempted) -> None:
        # The conventions name such a span after the operation and the model.
        span = self._tracer.start_span(
            f"{event.operation} {event.model}" if event.model else event.operation,
            kind=SpanKind.CLIENT,
            attributes=_attributes(event),
            start_time=_nanoseconds(event.at - event.seconds),
        )
        # Whoever cancels a call leaves a deployment that may have been about to answer.
        if not event.succeeded and event.result != "cancelled":
            _fail(span, event)
        span.end(_nanoseconds(event.at))

    # Jobs ---------------------------------------------------------------------------------------

    def _job_finished(self, event: JobFinished) -> None:
        attributes = _told(
            operation=event.operation,
            deployment=event.deployment,
            account=event.account,
            status=event.status,
        )
        self._jobs.add(1, attributes)
        if event.seconds is not None:
            self._job_seconds.record(event.seconds, attributes)

    # Ejections ----------------------------------------------------------------------------------

    def _ejected(self, event: Ejected) -> None:
        # On a clock that nobody sets: the event's is Redis's, which may not be this machine's.
        self._standing.ejected(event, time.monotonic() + event.seconds)
        if not event.shared:
            attributes = _told(
                deployment=event.deployment,
                account=event.account,
                scope=event.scope,
                cause=event.cause,
            )
            self._ejections.add(1, attributes)

    def _observe_ejected(self, options: CallbackOptions) -> Iterator[Observation]:
        now = time.monotonic()
        for (deployment, account, scope), until in self._standing.deadlines():
            attributes = _told(deployment=deployment, account=account, scope=scope)
            yield Observation(int(until > now), attributes)


def _told(**facts: str | float | bool | None) -> Attributes:
    """Attributes of our own; what is not known is left out."""
    return {f"video_router.{name}": fact for name, fact in facts.items() if fact is not None}


def _attributes(event: Attempted) -> Attributes:
    facts: dict[str, str | int | None] = {
        # A word of ours: those that the conventions have are of calls that answer with content,
        # and an exchange that only starts a job, or asks after it, must not count as one.
        "gen_ai.operation.name": event.operation,
        "gen_ai.provider.name": _PROVIDERS.get(event.provider or "", event.provider),
        "gen_ai.request.model": event.model,
        "server.address": event.host,
        "server.port": event.port if event.host else None,
        "http.response.status_code": event.status,
        "http.request.resend_count": event.attempt - 1 or None,
    }
    return {name: fact for name, fact in facts.items() if fact is not None} | _told(
        operation=event.operation,
        deployment=event.deployment,
        account=event.account,
        result=event.result,
        accepted=event.accepted,
        cost=event.cost,
        request_id=event.request_id,
    )


def _fail(span: Span, event: Attempted) -> None:
    answered = event.status is not None and event.status >= 400
    span.set_attribute("error.type", str(event.status) if answered else event.result)
    span.set_status(StatusCode.ERROR, event.result)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
