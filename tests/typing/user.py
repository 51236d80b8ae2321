"""Programs as a user writes them; type-checked by mypy --strict, and run by test_user_programs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import Celery
from fastapi import FastAPI, HTTPException, UploadFile
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

from router import (
    Change,
    Character,
    Copy,
    DeploymentView,
    Explained,
    Hold,
    IdDescription,
    Job,
    JobView,
    Out,
    Overview,
    Picking,
    Probe,
    RateLimitError,
    Room,
    Router,
    RouterError,
    StateUnavailableError,
    Video,
    WaitTimeoutError,
    avideo_generation,
)
from router.errors import AmbiguousSubmitError, TryLaterError
from router.events import Attempted, Ejected, Event, JobFinished, OnEvent, Picked, Restored, Waiting
from router.telemetry.opentelemetry import OpenTelemetry
from router.telemetry.prometheus import Prometheus
from router.testing import StandIn

# A web application: the async door ---------------------------------------------------------------

app = FastAPI()
routers: dict[str, Router] = {}


def the_router() -> Router:
    return routers["app"]


@app.post("/characters")
async def create_character(name: str, clip: UploadFile) -> dict[str, str]:
    character: Character = await the_router().avideo_create_character(
        name=name, video=clip, target_model_names=["sora-2"], replicate=2
    )
    return {"id": character.id}


@app.post("/videos")
async def create_video(prompt: str, character_id: str | None = None) -> dict[str, str]:
    try:
        video: Video = await the_router().avideo_generation(
            prompt=prompt,
            model="sora-2",
            seconds=8,
            characters=[character_id] if character_id else None,
            metadata={"endpoint": "create_video"},
        )
    except TryLaterError as error:
        headers = {"Retry-After": str(round(error.retry_after))}
        raise HTTPException(503, str(error), headers=headers) from error
    except AmbiguousSubmitError as error:
        raise HTTPException(502, f"may be running at {error.account}") from error
    except RouterError as error:
        raise HTTPException(400, str(error)) from error
    follow_job.delay(video.id)
    return {"id": video.id}


# A queue worker: the blocking door ---------------------------------------------------------------

queue = Celery("videos")
queue.conf.task_always_eager = True


def follow(video_id: str, folder: Path) -> Path:
    """One look at a job, as long as a task may take; the file, once there is one."""
    video = the_router().video_wait(video_id, wait_timeout=300)
    return the_router().video_content(video.id, to=folder / "video.mp4")


@queue.task(bind=True, max_retries=None)  # type: ignore[untyped-decorator]  # celery has no types
def follow_job(self: Any, video_id: str, folder: str = ".") -> str:
    try:
        return str(follow(video_id, Path(folder)))
    except WaitTimeoutError as error:
        # The job goes on; it is looked at again, never submitted again.
        raise self.retry(countdown=15, args=[error.video_id, folder]) from error


# A client of one's own ---------------------------------------------------------------------------


def generate_with_my_client(router: Router, prompt: str) -> str:
    with router.pick("generation", model="sora-2") as attempt:
        answer = httpx.post(
            f"{attempt.base_url}/videos",
            headers=attempt.headers,
            json={"model": attempt.model, "prompt": prompt},
            timeout=60,
        )
        if answer.is_success:
            return attempt.accepted(answer.json()["id"])
        error = attempt.failed(answer.status_code, answer.headers, answer.content)
        if isinstance(error, RateLimitError):
            print(f"again in {error.retry_after:.0f} s")  # noqa: T201  (a user's program)
        raise error


async def generate_async(router: Router, prompt: str) -> str:
    async with router.apick("generation", model="sora-2") as attempt:
        async with httpx.AsyncClient(base_url=attempt.base_url, headers=attempt.headers) as client:
            answer = await client.post("videos", json={"model": attempt.model, "prompt": prompt})
        return attempt.accepted(answer.json()["id"])


# What an operator watches ------------------------------------------------------------------------


def telemetry(registry: CollectorRegistry, spans: TracerProvider, meters: MeterProvider) -> OnEvent:
    hooks: list[OnEvent] = [Prometheus(registry, namespace="app"), OpenTelemetry(spans, meters)]

    def on_event(event: Event) -> None:
        for hook in hooks:
            hook(event)

    return on_event


def in_words(event: Event) -> str:
    match event:
        case Waiting():
            return f"{event.operation} waits up to {event.seconds:.0f} s: {event.reason}"
        case Picked():
            return f"{event.operation} #{event.attempt} goes to {event.deployment}"
        case Attempted():
            cost = "" if event.cost is None else f", ${event.cost:.2f}"
            return f"{event.deployment}: {event.result} after {event.seconds:.1f} s{cost}"
        case Ejected() | Restored():
            return f"{event.deployment} {'out' if isinstance(event, Ejected) else 'back'}"
        case JobFinished():
            took = "" if event.seconds is None else f" after {event.seconds:.0f} s"
            return f"{event.video_id} {event.status}{took}"


# An operator's own tools --------------------------------------------------------------------------


@dataclass
class Report:
    """What a dashboard of one's own may show."""

    out: dict[str, list[Out]]
    full: list[tuple[str, Room]]
    running: list[JobView]
    unknown: list[Hold]
    changes: list[Change]


def report(router: Router) -> Report:
    seen: Overview = router.overview()
    rooms: list[tuple[str, Room]] = [
        *((one.id, room) for one in seen.deployments for room in one.rooms),
        *((account.id, room) for account in seen.accounts for room in account.rooms),
    ]
    return Report(
        out={one.id: list(one.out) for one in seen.deployments if is_out(one)},
        full=[(name, room) for name, room in rooms if room.taken >= room.limit],
        running=[job for job in seen.jobs if job.running],
        unknown=[hold for hold in seen.holds if hold.job is None],
        changes=list(seen.changes),
    )


def is_out(deployment: DeploymentView) -> bool:
    return any(out.scope in ("submits", "both") for out in deployment.out)


def release_what_nobody_knows(router: Router, older_than: float) -> list[Hold]:
    """Slots of submits whose answer was lost, once the provider was asked what runs there."""
    known = [hold for hold in router.overview().holds if hold.job is None]
    return [gone for hold in known if hold.seconds < older_than for gone in given(router, hold)]


def given(router: Router, hold: Hold) -> tuple[Hold, ...]:
    held: tuple[Hold, ...] = router.holds(hold.holder)
    return router.release(hold.holder) if held else ()


async def unwell(router: Router) -> list[str]:
    probes: list[Probe] = await router.aprobe()
    return [f"{probe.deployment}: {probe.trouble}" for probe in probes if probe.trouble]


def jobs_by_worker(router: Router) -> dict[str, list[Job]]:
    found: dict[str, list[Job]] = {}
    try:
        for job in router.jobs():
            found.setdefault(job.worker, []).append(job)
    except StateUnavailableError as error:
        print(f"nobody knows: {error}")  # noqa: T201  (a user's program)
    return found


def owners(router: Router, video_id: str) -> list[str]:
    described: IdDescription = router.describe_id(video_id)
    copies: tuple[Copy, ...] = described.copies
    return [copy.account for copy in copies]


def why_not(router: Router, deployment: str) -> str:
    candidates: list[Explained] = router.explain(model="sora-2").candidates
    return next(
        f"{one.verdict}: {one.reason}" for one in candidates if one.deployment == deployment
    )


def address_of(router: Router, video_id: str) -> str:
    picking: Picking = router.pick("status", video_id=video_id)
    with picking as attempt:
        return f"{attempt.base_url}/videos/{attempt.native_ids[0]}"


# Module functions --------------------------------------------------------------------------------


async def generate_on_the_default_router(prompt: str) -> str:
    video = await avideo_generation(prompt=prompt, model="sora-2")
    return video.id


# A test of an application ------------------------------------------------------------------------


def router_for(provider: StandIn, seen: list[Event]) -> Router:
    return Router(
        accounts={"acme": {"api_key": "sk-acme", "base_url": provider.base_url}},
        deployments=[{"id": "acme-1", "model_name": "sora-2", "account": "acme"}],
        on_event=seen.append,
    )


def check_that_a_lost_answer_is_never_sent_again() -> None:
    seen: list[Event] = []
    with StandIn(accounts={"sk-acme": "acme"}) as provider, router_for(provider, seen) as router:
        provider.fault("reset", operation="generation", after=True)
        with pytest.raises(AmbiguousSubmitError) as caught:
            router.video_generation(prompt="A heron lands", model="sora-2")
        assert caught.value.accepted == "maybe"
        assert len(provider.accepted) == 1
        assert [event.accepted for event in seen if isinstance(event, Attempted)] == ["maybe"]


def first_bytes(router: Router, video_id: str) -> bytes:
    content = router.video_content(video_id)
    kind: str | None = content.content_type
    assert kind == "video/mp4"
    return content[:8]
