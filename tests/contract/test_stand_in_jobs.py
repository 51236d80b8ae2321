"""Jobs take their time, and accounts have limits: all of it on a clock that does not run."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from stand_in_fakes import ACCOUNTS, FakeClock

from router.testing import StandIn


def _client(stand_in: StandIn, key: str = "sk-east") -> httpx.Client:
    headers = {"authorization": f"Bearer {key}", "x-runway-version": "2024-11-06"}
    return httpx.Client(transport=stand_in.transport, base_url="http://any/v1", headers=headers)


def _create(client: httpx.Client) -> httpx.Response:
    return client.post("/videos", json={"prompt": "x"})


def test_a_job_is_queued_then_in_progress_then_completed(clock: FakeClock) -> None:
    with _client(StandIn(ACCOUNTS, job_seconds=100, clock=clock)) as client:
        id = _create(client).json()["id"]

        def seen() -> tuple[Any, ...]:
            video = client.get(f"/videos/{id}").json()
            return video["status"], video["progress"], video["completed_at"]

        assert seen() == ("queued", 0, None)
        clock.advance(9.9)
        assert seen() == ("queued", 0, None)
        clock.advance(0.2)
        assert seen() == ("in_progress", 10, None)
        clock.advance(40)
        assert seen() == ("in_progress", 50, None)
        clock.advance(49.9)
        assert seen() == ("completed", 100, 1_700_000_100)
        video = client.get(f"/videos/{id}").json()
        assert video["created_at"] == 1_700_000_000
        assert video["expires_at"] == 1_700_003_700


def test_the_content_is_kept_for_an_hour(clock: FakeClock) -> None:
    with _client(StandIn(ACCOUNTS, clock=clock)) as client:
        id = _create(client).json()["id"]
        clock.advance(3599)
        assert client.get(f"/videos/{id}/content").status_code == 200
        clock.advance(1)
        assert client.get(f"/videos/{id}/content").status_code == 404
        assert client.get(f"/videos/{id}").json()["status"] == "completed"


def test_job_seconds_may_depend_on_who_asks_for_what(clock: FakeClock) -> None:
    def job_seconds(operation: str, account: str) -> float:
        return 10.0 if (operation, account) == ("generation", "east") else 0.0

    stand_in = StandIn(ACCOUNTS, job_seconds=job_seconds, clock=clock)
    for key, status in (("sk-east", "queued"), ("sk-west", "completed")):
        with _client(stand_in, key) as client:
            id = _create(client).json()["id"]
            assert client.get(f"/videos/{id}").json()["status"] == status


def test_a_doomed_job_fails_at_its_end(clock: FakeClock) -> None:
    stand_in = StandIn(ACCOUNTS, job_seconds=10, clock=clock)
    fault = stand_in.fault("job_fails", operation="generation", code="c", message="m")
    with _client(stand_in) as client:
        client.get("/videos")
        id = _create(client).json()["id"]
        clock.advance(5)
        assert client.get(f"/videos/{id}").json()["status"] == "in_progress"
        clock.advance(5)
        video = client.get(f"/videos/{id}").json()
        assert (video["status"], video["error"]) == ("failed", {"code": "c", "message": "m"})
        assert client.delete(f"/videos/{id}").status_code == 200
    assert fault.hits == 1


@pytest.mark.parametrize(
    ("kind", "status", "seen"),
    [
        ("never_ends", None, "in_progress"),
        ("never_ends", "post_processing", "post_processing"),
        ("job_fails", "cancelled", "cancelled"),
    ],
)
def test_a_job_may_end_in_unheard_of_ways(
    clock: FakeClock, kind: str, status: str | None, seen: str
) -> None:
    stand_in = StandIn(ACCOUNTS, job_seconds=10, clock=clock)
    stand_in.fault(kind, status=status)
    with _client(stand_in) as client:
        id = _create(client).json()["id"]
        clock.advance(1e6)
        assert client.get(f"/videos/{id}").json()["status"] == seen


def test_a_doomed_job_may_lose_its_answer_as_well() -> None:
    stand_in = StandIn(ACCOUNTS)
    stand_in.fault("job_fails")
    stand_in.fault("reset", after=True)
    with _client(stand_in) as client:
        with pytest.raises(httpx.ReadError):
            _create(client)
        (submit,) = stand_in.accepted
        assert client.get(f"/videos/{submit.native_id}").json()["status"] == "failed"


def test_requests_per_minute_slide(clock: FakeClock) -> None:
    stand_in = StandIn(ACCOUNTS, rpm=2, clock=clock)
    with _client(stand_in) as east, _client(stand_in, "sk-west") as west:
        _create(east)
        clock.advance(20)
        _create(east)
        refused = _create(east)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "40"
        error = refused.json()["error"]
        assert (error["type"], error["code"]) == ("requests", "rate_limit_exceeded")
        assert "Limit 2, Used 2, Requested 1. Please try again in 40s." in error["message"]
        assert east.get("/videos").status_code == 200, "reads are free"
        assert _create(west).status_code == 200, "accounts are counted apart"
        clock.advance(40)
        assert _create(east).status_code == 200
        assert _create(east).status_code == 429
    assert len(stand_in.accepted) == 4


def test_running_jobs_are_capped_until_one_ends(clock: FakeClock) -> None:
    stand_in = StandIn(ACCOUNTS, max_running_jobs=2, job_seconds=10, clock=clock)
    with _client(stand_in) as client:
        _create(client)
        clock.advance(5)
        _create(client)
        refused = _create(client)
        assert refused.status_code == 429
        assert refused.json()["error"] == {
            "message": "Too many running tasks",
            "type": "video_generation_user_error",
            "param": None,
            "code": None,
        }
        clock.advance(5)
        assert _create(client).status_code == 200
        assert _create(client).status_code == 429


def test_a_runwayml_task_runs_the_same_course(clock: FakeClock) -> None:
    with _client(StandIn(ACCOUNTS, job_seconds=100, clock=clock, max_running_jobs=1)) as client:
        fields = {"model": "gen4.5", "promptText": "x", "ratio": "1280:720"}
        id = client.post("/text_to_video", json=fields).json()["id"]
        refused = client.post("/text_to_video", json=fields)
        assert (refused.status_code, refused.json()) == (429, {"error": "Too many running tasks"})

        def task() -> dict[str, Any]:
            return dict(client.get(f"/tasks/{id}").json())

        assert (task()["status"], task()["createdAt"]) == ("PENDING", "2023-11-14T22:13:20.000Z")
        clock.advance(50)
        assert (task()["status"], task()["progress"]) == ("RUNNING", 0.5)
        clock.advance(50)
        assert task()["status"] == "SUCCEEDED"
        assert task()["output"][0].startswith(f"http://any/_files/{id}.mp4?token=")


def test_the_dialects_do_not_mix() -> None:
    with _client(StandIn(ACCOUNTS)) as client:
        fields = {"model": "gen4.5", "promptText": "x", "ratio": "1280:720"}
        task = client.post("/text_to_video", json=fields).json()["id"]
        video = _create(client).json()["id"]
        assert [item["id"] for item in client.get("/videos").json()["data"]] == [video]
        assert client.get(f"/videos/{task}").status_code == 404
        assert client.get(f"/tasks/{video}").status_code == 404


def test_when_to_ask_again_is_told_with_every_job() -> None:
    with _client(StandIn(ACCOUNTS, poll_after_ms=2500)) as client:
        created = _create(client)
        seen = client.get(f"/videos/{created.json()['id']}")
        assert created.headers["openai-poll-after-ms"] == "2500"
        assert seen.headers["openai-poll-after-ms"] == "2500"
