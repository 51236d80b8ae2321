"""Whether the process is there, whether to send it calls, and its figures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from proxy_parts import facing, tenants
from shared_parts import fleet

from router.proxy.health import can_take_calls
from router.telemetry.prometheus import Prometheus
from router.testing import StandIn

STAND_IN = "http://stand-in/v1"


async def test_health_needs_no_key_and_tells_no_fact(provider: StandIn) -> None:
    async with facing(provider, tenants(fleet(STAND_IN))) as face:
        live, ready = await face.get("/health/live"), await face.get("/health/ready")
    assert (live.status_code, live.json()) == (200, {"status": "live"})
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
    assert live.headers["cache-control"] == ready.headers["cache-control"] == "no-store"


async def test_who_is_asked_to_stop_is_alive_and_not_ready(provider: StandIn) -> None:
    async with facing(provider) as face:
        face.app.state.readiness.stopping = True
        live, ready = await face.get("/health/live"), await face.get("/health/ready")
        # What came before, or comes all the same, is served.
        made = await face.post("/v1/videos", json={"prompt": "A heron lands"})
    assert (live.status_code, made.status_code) == (200, 200)
    assert (ready.status_code, ready.json()) == (503, {"status": "unready", "reason": "stopping"})


async def test_nobody_is_ready_whose_every_key_is_refused(provider: StandIn) -> None:
    body = {"error": {"message": "No", "type": "x", "param": None, "code": "invalid_api_key"}}
    provider.fault("status", status=401, body=body, times=None)
    async with facing(provider) as face:
        await face.post("/v1/videos", json={"prompt": "A heron lands"})
        ready = await face.get("/health/ready")
    assert (ready.status_code, ready.json()["reason"]) == (503, "no deployment")


async def test_a_fleet_that_fails_is_ready_since_one_is_tried_all_the_same(
    provider: StandIn,
) -> None:
    provider.fault("reset", times=None)
    async with facing(provider) as face:
        for _ in range(6):
            await face.post("/v1/videos", json={"prompt": "A heron lands"})
        out = [one["ejections"] for one in face.router.statistics().values()]
        ready = await face.get("/health/ready")
    assert all(out)
    assert ready.status_code == 200


@pytest.mark.parametrize(
    ("fleet_is_out", "ready"),
    [
        ([[], [("both", "denied")]], True),
        ([[("both", "denied")], [("both", "denied")]], False),
        ([[("both", "throttled")]], False),
        ([[("submits", "throttled")]], True),
        ([[("submits", "throttled"), ("reads", "throttled")]], False),
        ([[("submits", "throttled"), ("reads", "failures")]], True),
        ([[("both", "failures")]], True),
        ([[("submits", "drained")]], True),
        ([[("submits", "retired")]], True),
        ([[("edit", "missing")]], True),
    ],
)
def test_ready_is_a_fleet_of_which_one_may_take_some_call(
    fleet_is_out: list[list[tuple[str, str]]], ready: bool
) -> None:
    statistics: dict[str, Any] = {
        str(number): {"ejections": [{"scope": scope, "cause": cause} for scope, cause in out]}
        for number, out in enumerate(fleet_is_out)
    }
    assert can_take_calls(statistics) is ready


# Figures ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("open_metrics", "key", "status"),
    [
        (False, None, 401),
        (False, "pk-web", 403),
        (False, "pk-ops", 200),
        (True, None, 200),
        (True, "pk-web", 200),
    ],
)
async def test_figures_need_an_operators_key_unless_the_configuration_opens_them(
    provider: StandIn, open_metrics: bool, key: str | None, status: int
) -> None:
    data = tenants(fleet(STAND_IN), open_metrics=open_metrics)
    async with facing(provider, data) as face:
        answer = await face.get("/metrics", key=key)
    assert answer.status_code == status


async def test_without_keys_figures_are_open(provider: StandIn) -> None:
    async with facing(provider) as face:
        answer = await face.get("/metrics")
    assert answer.status_code == 200


async def test_figures_are_what_is_registered_with_prometheus_client(provider: StandIn) -> None:
    hook = Prometheus(namespace="figures_of_a_proxy")
    async with facing(provider, on_event=hook) as face:
        await face.make()
        answer = await face.get("/metrics")
    assert answer.headers["content-type"] == prometheus_client.CONTENT_TYPE_LATEST
    sent = 'figures_of_a_proxy_attempts_total{account="'
    line = next(line for line in answer.text.splitlines() if line.startswith(sent))
    assert 'operation="generation"' in line
    assert line.endswith(" 1.0")


WORKER = """
from router.events import Attempted
from router.proxy.health import metrics
from router.telemetry.prometheus import Prometheus

Prometheus()(Attempted(0.0, "generation", "a", "b", 0.1, 200, "success", "yes"))
print(metrics()[0].decode())
"""


def test_figures_of_several_processes_are_told_as_one(tmp_path: Path) -> None:
    told = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    said = [
        subprocess.run(
            [sys.executable, "-c", WORKER],
            env=told,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
        for _ in range(2)
    ]
    line = "video_router_attempts_total{" + ",".join(
        f'{name}="{value}"'
        for name, value in [
            ("account", "b"),
            ("deployment", "a"),
            ("operation", "generation"),
            ("result", "success"),
        ]
    )
    assert [f"{line}}} {count}.0" in text for count, text in enumerate(said, 1)] == [True, True]
