"""The libraries are nobody's business but their hooks'."""

from __future__ import annotations

import subprocess
import sys

import pytest

LIBRARIES = {"opentelemetry": "otel", "prometheus_client": "prometheus"}
HOOKS = {"opentelemetry": "opentelemetry", "prometheus_client": "prometheus"}


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["router", "router.events", "router.telemetry"])
def test_no_import_of_the_package_loads_them(module: str) -> None:
    loaded = {
        name.partition(".")[0] for name in run(f"import sys, {module}; print(*sys.modules)").split()
    }
    assert "router" in loaded
    assert set(LIBRARIES) & loaded == set()


@pytest.mark.parametrize("library", LIBRARIES)
def test_where_a_library_is_missing_the_extra_is_named(library: str) -> None:
    told = run(
        f"import sys; sys.modules[{library!r}] = None\n"
        f"try:\n    import router.telemetry.{HOOKS[library]}\n"
        "except ImportError as error:\n    print(error)"
    )
    assert f"pip install 'video-router[{LIBRARIES[library]}]'" in told


def test_one_hook_does_not_need_the_others_library() -> None:
    for missing, hook in (("opentelemetry", "prometheus"), ("prometheus_client", "opentelemetry")):
        run(f"import sys; sys.modules[{missing!r}] = None; import router.telemetry.{hook}")


def test_the_global_providers_may_be_set_after_the_hook_is_made() -> None:
    told = run(
        """
from opentelemetry import metrics, trace
from router.telemetry.opentelemetry import OpenTelemetry
hook = OpenTelemetry()
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from router.events import Attempted, Ejected
spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
hook(Attempted(1e9, "status", "a", "a", 1.0, 200, "success", "yes"))
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
trace.set_tracer_provider(provider)
metrics.set_meter_provider(MeterProvider([reader]))
hook(Attempted(1e9, "generation", "a", "a", 1.0, 200, "success", "yes"))
hook(Ejected(1e9, "a", "a", "both", "denied", 300.0, "a key"))
print(*(span.name for span in spans.get_finished_spans()))
data = reader.get_metrics_data()
print(*(m.name for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics))
"""
    )
    spans, metrics = told.splitlines()
    assert spans == "generation"
    assert {"video_router.attempts", "video_router.ejected"} <= set(metrics.split())
