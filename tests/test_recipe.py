"""The service of router/docs/fastapi-celery.md, run: orders, looks at jobs, a signed webhook."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import router.sdk
from router.testing import StandIn

HERE = Path(__file__).parent
PAGE = (HERE.parent / "router" / "docs" / "fastapi-celery.md").read_text("utf-8")
SECRET = base64.b64encode(b"a secret of theirs").decode()
# What the frameworks' own imports warn of is theirs.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ImportWarning")

CONFIG = """
accounts:
  east: {base_url: "${EAST}", api_key: sk-east}
  west: {base_url: "${EAST}", api_key: sk-west}
deployments:
  - {id: east, model_name: sora-2, account: east}
  - {id: west, model_name: sora-2, account: west}
"""


class Hurried:
    """A second passes whenever somebody looks at the clock: so jobs end while a test asks."""

    def __init__(self) -> None:
        self._at = time.time()

    def time(self) -> float:
        self._at += 1.0
        return self._at

    def monotonic(self) -> float:
        return self.time()

    def sleep(self, seconds: float, /) -> None:
        self._at += seconds


@dataclass
class Service:
    """The program of the page over a provider; its queue runs each task at once."""

    module: ModuleType
    provider: StandIn
    client: Any

    def order(self, prompt: str, key: str) -> Any:
        headers = {"Idempotency-Key": key}
        return self.client.post("/videos", params={"prompt": prompt}, headers=headers)

    def webhook(self, native_id: str, *, secret: str = SECRET, at: float | None = None) -> Any:
        body = json.dumps({"type": "video.completed", "data": {"id": native_id}}).encode()
        stamp = str(int(time.time() if at is None else at))
        signed = f"evt_1.{stamp}.".encode() + body
        digest = hmac.new(base64.b64decode(secret), signed, hashlib.sha256).digest()
        headers = {
            "webhook-id": "evt_1",
            "webhook-timestamp": stamp,
            "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
        }
        return self.client.post("/webhooks/videos", content=body, headers=headers)

    @property
    def stored(self) -> list[str]:
        folder: Path = self.module.folder
        return sorted(path.name for path in folder.glob("*")) if folder.exists() else []


@pytest.fixture(params=[0.0, 20.0], ids=["jobs end at once", "jobs take their time"])
def service(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Service]:
    from fastapi.testclient import TestClient

    (source,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    accounts = {"sk-east": "east", "sk-west": "west"}
    told = {"job_seconds": request.param, "clock": Hurried(), "poll_after_ms": 50}
    with StandIn(accounts=accounts, **told) as provider:
        (tmp_path / "deployments.yaml").write_text(CONFIG)
        for name, value in {
            "EAST": provider.base_url,
            "VIDEO_FOLDER": str(tmp_path / "videos"),
            "WEBHOOK_SECRET": f"whsec_{SECRET}",
            "BROKER_URL": "memory://",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("ROUTER_CONFIG", raising=False)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(router.sdk, "_router", None)
        module = ModuleType("service")
        monkeypatch.setitem(sys.modules, "service", module)
        exec(compile(source, "service.py", "exec"), module.__dict__)
        module.queue.conf.task_always_eager = True
        with TestClient(module.app) as client:
            yield Service(module, provider, client)
        module.worker_process_shutdown.disconnect(module.end)


def test_an_order_becomes_a_stored_file_and_its_second_click_the_same_video(
    service: Service,
) -> None:
    first = service.order("A heron lands", "order-1")
    assert first.status_code == 202, first.text
    again = service.order("A heron lands", "order-1")
    assert again.json()["id"] == first.json()["id"]
    assert len(service.provider.accepted) == 1

    video_id = first.json()["id"]
    assert service.stored == [f"{video_id}.mp4"]
    seen = service.client.get(f"/videos/{video_id}").json()
    assert (seen["status"], seen["stored"]) == ("completed", True)


def test_a_webhook_has_the_file_fetched(service: Service) -> None:
    service.module.follow.delay = lambda video_id: None  # the queue has lost the task
    video_id = service.order("A heron lands", "order-1").json()["id"]
    assert service.stored == []
    del service.module.follow.delay
    (submit,) = service.provider.accepted
    assert service.webhook(submit.native_id).status_code == 204
    assert service.stored == [f"{video_id}.mp4"]


def test_a_webhook_of_somebody_else_or_of_yesterday_is_refused(service: Service) -> None:
    service.module.follow.delay = lambda video_id: None
    service.order("A heron lands", "order-1")
    (submit,) = service.provider.accepted
    del service.module.follow.delay
    foreign = base64.b64encode(b"another secret").decode()
    assert service.webhook(submit.native_id, secret=foreign).status_code == 400
    assert service.webhook(submit.native_id, at=time.time() - 86400).status_code == 400
    assert service.client.post("/webhooks/videos", content=b"{}").status_code == 422
    assert service.stored == []


def test_a_lost_answer_is_looked_for_and_its_file_stored(service: Service) -> None:
    service.provider.fault("reset", operation="generation", after=True)
    answer = service.order("A heron lands", "order-1")
    assert answer.json() == {"id": None, "status": "unknown"}
    assert len(service.provider.accepted) == 1
    assert len(service.stored) == 1


def test_a_failed_job_and_wrong_orders_are_told(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.provider.fault("job_fails", code="moderation_blocked", message="No.")
    video_id = service.order("A heron lands", "order-1").json()["id"]
    assert f"{video_id} failed: moderation_blocked" in caplog.messages
    assert service.stored == []
    assert service.client.get("/videos/video_of_nobody").status_code == 404
    assert service.order("Another prompt", "order-1").status_code == 502
    assert service.client.post("/videos", params={"prompt": "x"}).status_code == 422


def test_who_is_throttled_is_told_when_to_come_back(service: Service) -> None:
    service.provider.fault("status", status=429, headers={"Retry-After": "7"}, times=None)
    answer = service.order("A heron lands", "order-1")
    assert answer.status_code == 503
    assert 1 <= int(answer.headers["Retry-After"]) <= 8


def test_a_look_that_fails_is_taken_again(service: Service) -> None:
    # One more than the router's own tries: so it is the queue that looks again.
    service.provider.fault("status", status=500, operation="status", times=4)
    video_id = service.order("A heron lands", "order-1").json()["id"]
    assert service.stored == [f"{video_id}.mp4"]
