"""Whether the process is there, whether it may be sent calls, and its figures for Prometheus.

`/health/live` and `/health/ready` need no key, and tell no fact but their answer. What is not ready
is to be sent nothing; so deployments that fail do not make the proxy unready, as long as a call may
still come through: an owner is asked for what it owns though it failed, who is drained serves
follow-ups, and where everybody fails one is tried all the same. It is unready when it stops, and
when every deployment is out for everything by something surer: a key that is refused, a quota that
is used up, a provider that asked for a pause.

`/metrics` needs an operator's key, as the page does, unless `proxy.open_metrics` is set; where
there are no keys, everybody who reaches the port may ask.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from router.observations import BOTH, READS, SUBMITS
from router.proxy.access import Access
from router.proxy.answers import Refusal, json_response
from router.router import Router

__all__ = ["Readiness", "can_take_calls", "health_routes", "metrics"]

# By these nobody is surely out: see above.
FRESH = {"cache-control": "no-store"}
_DOUBTFUL = frozenset({"failures", "drained", "retired"})


class Readiness:
    """Whether calls are to be sent here. Set `stopping` when the process is asked to end."""

    def __init__(self) -> None:
        self.stopping = False

    def trouble(self, router: Router) -> str | None:
        """Why no call is to be sent here, in two words; `None` where calls may come."""
        if self.stopping:
            return "stopping"
        return None if can_take_calls(router.statistics()) else "no deployment"


def can_take_calls(statistics: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether any of the deployments of `Router.statistics` may take any call now."""
    return any(not _is_out(known["ejections"]) for known in statistics.values())


def _is_out(ejections: Iterable[Mapping[str, Any]]) -> bool:
    scopes = {one["scope"] for one in ejections if one["cause"] not in _DOUBTFUL}
    return BOTH in scopes or {SUBMITS, READS} <= scopes


def health_routes(router: Router, access: Access, readiness: Readiness) -> list[Route]:
    """The routes for whoever looks after the process."""

    async def live(_: Request) -> Response:
        return json_response({"status": "live"}, headers=FRESH)

    async def ready(_: Request) -> Response:
        trouble = readiness.trouble(router)
        said = {"status": "ready"} if trouble is None else {"status": "unready", "reason": trouble}
        if router.out_of_reach is not None:
            # Calls go on with what this process knows, so it is told and no reason.
            said["shared_state"] = "out of reach"
        status = 200 if trouble is None else 503
        return json_response(said, status, headers=FRESH)

    async def figures(request: Request) -> Response:
        if not access.settings.open_metrics:
            access.operator(request)
        body, kind = metrics()
        return Response(body, headers={"cache-control": "no-store", "content-type": kind})

    return [
        Route("/health/live", live, name="live"),
        Route("/health/ready", ready, name="ready"),
        Route("/metrics", figures, name="metrics"),
    ]


def metrics() -> tuple[bytes, str]:
    """What is registered with Prometheus' client, as text, and its media type.

    Of all processes of a `serve` with workers, whose files PROMETHEUS_MULTIPROC_DIR names.
    """
    try:
        import prometheus_client
        from prometheus_client.multiprocess import MultiProcessCollector
    except ImportError:
        raise Refusal(
            501, "metrics need prometheus_client: pip install 'video-router[prometheus]'"
        ) from None
    registry = prometheus_client.REGISTRY
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = prometheus_client.CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return prometheus_client.generate_latest(registry), prometheus_client.CONTENT_TYPE_LATEST
