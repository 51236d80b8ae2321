"""Prometheus metrics, by the official client.

    router = Router.from_yaml("deployments.yaml", on_event=Prometheus())
    prometheus_client.start_http_server(9464)

| metric | labels |
|---|---|
| `video_router_attempts_total` | operation, deployment, account, result |
| `video_router_attempt_seconds` (histogram) | operation, deployment, account, succeeded |
| `video_router_cost_dollars_total` | operation, deployment, account, accepted (`yes`, `maybe`) |
| `video_router_jobs_total` | operation, deployment, account, status |
| `video_router_job_seconds` (histogram) | operation, deployment, account, status |
| `video_router_ejections_total` | deployment, account, scope, cause |
| `video_router_ejected_until_timestamp_seconds` (gauge) | deployment, account, scope |
| `video_router_waits_total` | operation, cause |
| `video_router_wait_seconds` (histogram) | operation |

Who is out now is `video_router_ejected_until_timestamp_seconds > time()`. The deadline is told and
not a 0 or 1, because no event says that it has passed, and because in multiprocess mode a gauge
cannot be computed when it is read.

Several processes on one port (gunicorn, Celery) use the client's multiprocess mode as its own
documentation says: PROMETHEUS_MULTIPROC_DIR is set before they start, each has its `Prometheus`
(built before the fork or after it), and what is served is a new registry with a
`MultiProcessCollector` in it, never the one that was given here. Counters and histograms are sums
over the processes; of a deadline it is the one that was told last.
"""

from __future__ import annotations

from router.events import Attempted, Ejected, Event, JobFinished, Picked, Restored, Waiting
from router.telemetry import ATTEMPT_BUCKETS, JOB_BUCKETS, SCOPES, WAIT_BUCKETS, Standing

try:
    import prometheus_client
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
except ImportError as exc:
    raise ImportError(
        "router.telemetry.prometheus needs prometheus_client: "
        "pip install 'video-router[prometheus]'",
        name=exc.name,
    ) from exc

__all__ = ["Prometheus"]

_WHERE = ("operation", "deployment", "account")


class Prometheus:
    """An `on_event` hook that counts and measures. Give one to all routers of a process.

    `registry` is where the metrics are registered, by default the client's own. A second one for
    the same registry needs another `namespace`, which is the first word of every metric's name.
    """

    def __init__(
        self, registry: CollectorRegistry | None = None, namespace: str = "video_router"
    ) -> None:
        registry = prometheus_client.REGISTRY if registry is None else registry
        self._standing = Standing()
        try:
            self._attempts = Counter(
                "attempts",
                "HTTP exchanges by how they ended.",
                (*_WHERE, "result"),
                namespace=namespace,
                registry=registry,
            )
        except ValueError as exc:
            raise ValueError(
                f"{exc}: give one Prometheus to all routers of a process, "
                "or the second another registry or namespace"
            ) from exc
        # Apart, so that a deployment that fails fast never looks fast.
        self._attempt_seconds = Histogram(
            "attempt_seconds",
            "How long HTTP exchanges took.",
            (*_WHERE, "succeeded"),
            namespace=namespace,
            registry=registry,
            buckets=ATTEMPT_BUCKETS,
        )
        self._cost = Counter(
            "cost_dollars",
            "What the jobs cost that were accepted, or may have been, where a price is known.",
            (*_WHERE, "accepted"),
            namespace=namespace,
            registry=registry,
        )
        self._jobs = Counter(
            "jobs",
            "Jobs seen to have ended, in each worker that saw it.",
            (*_WHERE, "status"),
            namespace=namespace,
            registry=registry,
        )
        self._job_seconds = Histogram(
            "job_seconds",
            "How long jobs took from their acceptance to their end.",
            (*_WHERE, "status"),
            namespace=namespace,
            registry=registry,
            buckets=JOB_BUCKETS,
        )
        self._ejections = Counter(
            "ejections",
            "Deployments taken out of rotation, in the worker that decided it.",
            ("deployment", "account", "scope", "cause"),
            namespace=namespace,
            registry=registry,
        )
        self._ejected_until = Gauge(
            "ejected_until_timestamp_seconds",
            "When a deployment is back in rotation: it is out while this is in the future.",
            ("deployment", "account", "scope"),
            namespace=namespace,
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._waits = Counter(
            "waits",
            "Calls that began to wait, for room or for the end of a throttling.",
            ("operation", "cause"),
            namespace=namespace,
            registry=registry,
        )
        self._wait_seconds = Histogram(
            "wait_seconds",
            "How long calls waited that were served in the end.",
            ("operation",),
            namespace=namespace,
            registry=registry,
            buckets=WAIT_BUCKETS,
        )

    def __call__(self, event: Event) -> None:
        match event:
            case Attempted():
                self._attempted(event)
            case Picked():
                if event.waited > 0:
                    self._wait_seconds.labels(event.operation).observe(event.waited)
            case Waiting():
                self._waits.labels(event.operation, event.cause).inc()
            case JobFinished():
                self._job_finished(event)
            case Ejected():
                self._ejected(event)
            case Restored():
                self._restored(event)

    def _attempted(self, event: Attempted) -> None:
        where = (event.operation, event.deployment, event.account)
        self._attempts.labels(*where, event.result).inc()
        succeeded = "yes" if event.succeeded else "no"
        self._attempt_seconds.labels(*where, succeeded).observe(event.seconds)
        if event.cost:
            self._cost.labels(*where, event.accepted).inc(event.cost)

    def _job_finished(self, event: JobFinished) -> None:
        labels = (event.operation or "", event.deployment or "", event.account, event.status)
        self._jobs.labels(*labels).inc()
        if event.seconds is not None:
            self._job_seconds.labels(*labels).observe(event.seconds)

    def _ejected(self, event: Ejected) -> None:
        where = (event.deployment, event.account, event.scope)
        until = self._standing.ejected(event, event.at + event.seconds)
        self._ejected_until.labels(*where).set(until)
        if not event.shared:
            self._ejections.labels(*where, event.cause).inc()

    def _restored(self, event: Restored) -> None:
        self._standing.restored(event)
        # All scopes, also those that only another process of the same files has told of.
        for scope in (event.scope,) if event.scope else SCOPES:
            self._ejected_until.labels(event.deployment, event.account, scope).set(0.0)
