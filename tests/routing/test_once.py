"""Idempotency keys, through both doors: one job for a key, over one worker and over a fleet."""

from __future__ import annotations

import asyncio
import io
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from routing_parts import CLIP, Doors, FakeClock, deployment, native_of
from shared_parts import KEYS, in_process
from sharing_parts import MEETINGS, Dated, Fleet

from router import (
    AmbiguousSubmitError,
    BadRequestError,
    ConflictError,
    DeadlineExceededError,
    NotFoundError,
    RateLimitError,
    Router,
    RouterError,
    StateUnavailableError,
)
from router.events import Attempted
from router.state import MemoryStore, News, Picture, Turn
from router.testing import StandIn

DAY = 86_400


@pytest.fixture
def provider(clock: FakeClock) -> StandIn:
    """One whose jobs take ten seconds of the fake clock."""
    return StandIn(accounts=KEYS, seed=7, clock=clock, job_seconds=10.0)


@pytest.fixture(params=["alone", *MEETINGS])
def fleet(request: pytest.FixtureRequest, provider: StandIn, clock: FakeClock) -> Iterator[Fleet]:
    made = Fleet(request.param, provider, clock)
    yield made
    for router in made.routers:
        router.close()
    if isinstance(made.store, Dated):
        made.store.close()


def generates(call: Doors, router: Router, key: str | None = "task-1", **more: Any) -> Any:
    asked = {"prompt": "A heron", "idempotency_key": key, **more}
    return call(router, "video_generation", **asked)


async def on_the_wire(provider: StandIn) -> None:
    while not provider.accepted:  # noqa: ASYNC110  (the stand-in has no event for it)
        await asyncio.sleep(0.001)


def jobs(provider: StandIn) -> int:
    return len(provider.accepted)


# One job ----------------------------------------------------------------------------------------


def test_a_key_is_one_job_however_often_and_wherever_it_is_used(
    call: Doors, fleet: Fleet, provider: StandIn, clock: FakeClock
) -> None:
    one, other = fleet(deployment("east-1"), deployment("west-1"))
    first = generates(call, one)
    fleet.meet()
    again = [generates(call, router) for router in (one, other, one)]
    assert {video.id for video in again} == {first.id}
    assert jobs(provider) == 1
    assert first.status == "queued"
    clock.advance(11)
    assert generates(call, other).status == "completed"


def test_other_keys_and_no_keys_are_other_jobs(
    call: Doors, fleet: Fleet, provider: StandIn
) -> None:
    one, _ = fleet(deployment("east-1"))
    keys = ["a", "b", None, None]
    assert len({generates(call, one, key).id for key in keys}) == 4
    assert jobs(provider) == 4


def test_every_submit_takes_a_key(
    call: Doors, fleet: Fleet, provider: StandIn, clock: FakeClock
) -> None:
    one, other = fleet(deployment("east-1"))
    made = generates(call, one, None)
    clock.advance(11)
    submits: list[tuple[str, dict[str, Any]]] = [
        ("video_create_character", {"name": "Mossy", "video": CLIP}),
        ("video_edit", {"video_id": made.id, "prompt": "Snow"}),
        ("video_edit", {"video": CLIP, "prompt": "Snow"}),
        ("video_extension", {"video_id": made.id, "prompt": "On", "seconds": 4}),
        ("video_remix", {"video_id": made.id, "prompt": "Again"}),
    ]
    for number, (method, arguments) in enumerate(submits):
        before = jobs(provider)
        first = call(one, method, **arguments, idempotency_key=f"key-{number}")
        fleet.meet()
        again = call(other, method, **arguments, idempotency_key=f"key-{number}")
        assert again.id == first.id
        assert type(again) is type(first)
        assert jobs(provider) == before + 1


def test_copies_of_a_character_are_one_call_under_a_key(
    call: Doors, fleet: Fleet, provider: StandIn
) -> None:
    one, other = fleet(deployment("east-1"), deployment("west-1"))
    asked: dict[str, Any] = {"name": "Mossy", "video": CLIP, "replicate": 2}
    first = call(one, "video_create_character", **asked, idempotency_key="m")
    assert jobs(provider) == 2
    fleet.meet()
    again = call(other, "video_create_character", **asked, idempotency_key="m")
    assert again.id == first.id
    assert len(other.describe_id(again.id).copies) == 2
    assert jobs(provider) == 2


def test_a_job_that_failed_keeps_its_key(
    call: Doors, fleet: Fleet, provider: StandIn, clock: FakeClock
) -> None:
    one, other = fleet(deployment("east-1"))
    provider.fault("job_fails")
    first = generates(call, one)
    clock.advance(11)
    fleet.meet()
    again = generates(call, other)
    assert (again.id, again.status) == (first.id, "failed")
    assert jobs(provider) == 1


def test_a_job_that_is_not_there_any_more_is_not_made_again(
    call: Doors, fleet: Fleet, provider: StandIn, clock: FakeClock
) -> None:
    one, _ = fleet(deployment("east-1"))
    first = generates(call, one)
    clock.advance(11)
    call(one, "video_delete", first.id)
    with pytest.raises(NotFoundError) as caught:
        generates(call, one)
    assert (caught.value.accepted, caught.value.video_id) == ("yes", first.id)
    assert jobs(provider) == 1


def test_a_key_is_kept_for_a_day(
    call: Doors, fleet: Fleet, provider: StandIn, clock: FakeClock
) -> None:
    one, other = fleet(deployment("east-1"))
    generates(call, one)
    fleet.meet()
    clock.advance(DAY - 60)
    generates(call, other)
    assert jobs(provider) == 1
    clock.advance(2 * DAY)
    generates(call, other)
    assert jobs(provider) == 2


# Other parameters -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "A hare"},
        {"seconds": 8},
        {"size": "1280x720"},
        {"model": "sora-2"},
        {"input_reference": {"image_url": "https://host/a.png"}},
        {"input_reference": CLIP},
        {"extra_body": {"seed": 1}},
        {"user": "anna"},
    ],
    ids=lambda given: next(iter(given)),
)
def test_a_key_of_other_parameters_is_a_conflict(
    call: Doors, fleet: Fleet, provider: StandIn, other: dict[str, Any]
) -> None:
    one, sibling = fleet(deployment("east-1"))
    generates(call, one)
    fleet.meet()
    requests = len(provider.requests)
    with pytest.raises(ConflictError, match="other parameters") as caught:
        generates(call, sibling, **other)
    assert (caught.value.status, caught.value.accepted) == (None, "no")
    assert len(provider.requests) == requests


def test_what_says_how_a_call_is_served_is_not_what_it_asks_for(
    call: Doors, fleet: Fleet, provider: StandIn
) -> None:
    one, _ = fleet(deployment("east-1"))
    first = generates(call, one)
    how = {"timeout": 9, "deadline": 90, "retries": 0, "max_wait": 1, "metadata": {"try": 2}}
    assert generates(call, one, **how, extra_headers={"x-trace": "2"}).id == first.id
    assert jobs(provider) == 1


def test_files_are_compared_by_what_is_in_them(
    call: Doors, fleet: Fleet, provider: StandIn, tmp_path: Path
) -> None:
    one, _ = fleet(deployment("east-1"))
    path = tmp_path / "clip.mp4"
    path.write_bytes(CLIP)
    same = [CLIP, path, io.BytesIO(CLIP), ("other.mp4", CLIP, "video/mp4")]
    made = {
        call(one, "video_edit", prompt="Snow", video=clip, idempotency_key="e").id for clip in same
    }
    assert len(made) == 1
    path.write_bytes(CLIP + b"\0")
    with pytest.raises(ConflictError):
        call(one, "video_edit", prompt="Snow", video=path, idempotency_key="e")
    assert jobs(provider) == 1


# How a call ends --------------------------------------------------------------------------------


def test_a_sure_refusal_frees_the_key(call: Doors, fleet: Fleet, provider: StandIn) -> None:
    one, other = fleet(deployment("east-1"))
    provider.fault("status", status=429, headers={"retry-after": "1"})
    with pytest.raises(RateLimitError):
        generates(call, one, retries=0)
    fleet.clock.advance(2)
    fleet.meet()
    assert generates(call, other).status == "queued"
    assert jobs(provider) == 1


def test_a_refusal_of_the_call_itself_frees_the_key_for_another_one(
    call: Doors, fleet: Fleet, provider: StandIn
) -> None:
    one, _ = fleet(deployment("east-1"))
    provider.fault("status", status=400)
    with pytest.raises(BadRequestError):
        generates(call, one)
    fleet.meet()
    assert generates(call, one, prompt="A hare").status == "queued"


def test_a_failover_under_a_key_is_one_job(call: Doors, fleet: Fleet, provider: StandIn) -> None:
    one, other = fleet(deployment("east-1"), deployment("west-1"))
    provider.fault("reset", times=1)
    first = generates(call, one)
    assert len(first.routing.attempts) == 2
    fleet.meet()
    assert generates(call, other).id == first.id
    assert jobs(provider) == 1


@pytest.mark.parametrize("fault", ["reset", "reset_mid_body", "garbage"])
def test_after_an_ambiguous_call_nobody_sends_under_its_key(
    call: Doors, fleet: Fleet, provider: StandIn, fault: str
) -> None:
    one, other = fleet(deployment("east-1"))
    provider.fault(fault, after=True)
    with pytest.raises(AmbiguousSubmitError) as first:
        generates(call, one)
    assert jobs(provider) == 1
    fleet.meet()
    for router in (other, one):
        with pytest.raises(AmbiguousSubmitError) as caught:
            generates(call, router)
        error = caught.value
        assert (error.deployment, error.account) == ("east-1", "east")
        assert error.idempotency_key == "task-1"
        if not isinstance(fleet.store, Dated):  # whose own clock is another
            assert error.sent_at == pytest.approx(first.value.sent_at, abs=5)
    assert jobs(provider) == 1


def test_a_cancelled_call_on_the_wire_leaves_its_key_to_nobody(provider: StandIn) -> None:
    router = in_process(provider, {"deployments": [deployment("east-1")]})
    provider.fault("delay", seconds=30.0)

    async def cancelled() -> None:
        asked = asyncio.create_task(router.avideo_generation(prompt="x", idempotency_key="k"))
        await on_the_wire(provider)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        with pytest.raises(AmbiguousSubmitError):
            await router.avideo_generation(prompt="x", idempotency_key="k")

    asyncio.run(cancelled())
    assert jobs(provider) == 1


class Ends(BaseException):
    """What ends a process."""


def test_a_job_that_was_accepted_is_its_keys_whatever_a_hook_raises(
    call: Doors, provider: StandIn
) -> None:
    def ends(event: object) -> None:
        if isinstance(event, Attempted):
            raise Ends

    data = {"deployments": [deployment("east-1")]}
    router = in_process(provider, data, on_event=ends)
    with pytest.raises(Ends):
        generates(call, router)
    router._learning._on_event = None
    assert generates(call, router).status == "queued"
    assert jobs(provider) == 1


# Several at once --------------------------------------------------------------------------------


def test_of_many_threads_one_sends_and_all_have_its_job(provider: StandIn) -> None:
    router = in_process(StandIn(accounts=KEYS, seed=7), {"deployments": [deployment("east-1")]})
    ids = list[str]()
    start = threading.Barrier(16)

    def asks() -> None:
        start.wait()
        ids.append(router.video_generation(prompt="x", idempotency_key="k").id)

    threads = [threading.Thread(target=asks) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(ids) == 16
    assert len(set(ids)) == 1


def test_who_comes_meanwhile_waits_within_its_deadline(provider: StandIn) -> None:
    provider.fault("delay", seconds=1.0)
    router = in_process(provider, {"deployments": [deployment("east-1")]})

    async def both() -> None:
        first = asyncio.create_task(router.avideo_generation(prompt="x", idempotency_key="k"))
        await on_the_wire(provider)
        with pytest.raises(DeadlineExceededError, match="another call") as caught:
            await router.avideo_generation(prompt="x", idempotency_key="k", deadline=0.2)
        assert caught.value.accepted == "maybe"
        second = await router.avideo_generation(prompt="x", idempotency_key="k")
        assert second.id == (await first).id

    asyncio.run(both())
    assert jobs(provider) == 1


# A worker that dies -----------------------------------------------------------------------------


class Cut(MemoryStore):
    """A store that a worker can lose for good, as it does when it is killed."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock.time)
        self.dead = set[str]()

    def turn(self, turn: Turn) -> News:
        if turn.worker in self.dead:
            raise ConnectionError("killed")
        return super().turn(turn)


def test_the_key_of_a_worker_that_died_is_ambiguous_and_never_sent_again(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    store = Cut(clock)
    data = {"deployments": [deployment("east-1")]}
    dies, lives = (in_process(provider, data, clock=clock, store=store) for _ in range(2))
    sharing = dies._learning.sharing
    assert sharing is not None
    claiming = dies._engine.claiming

    def killed(*_: object) -> None:
        dies.share()
        store.dead.add(sharing.worker)
        raise KeyboardInterrupt

    claiming.refused = killed  # type: ignore[method-assign]
    provider.fault("status", status=400)
    with pytest.raises(KeyboardInterrupt):
        generates(call, dies)
    with pytest.raises(DeadlineExceededError):
        generates(call, lives, deadline=5)
    clock.advance(700)
    with pytest.raises(AmbiguousSubmitError) as caught:
        generates(call, lives)
    assert (caught.value.account, caught.value.deployment) == ("east", "east-1")
    clock.advance(DAY / 2)
    with pytest.raises(AmbiguousSubmitError):
        generates(call, lives)
    assert jobs(provider) == 0


class Away:
    """A store that is configured, and out of reach."""

    def turn(self, turn: Turn) -> News:
        raise ConnectionError("no route to host")

    def picture(self, resources: tuple[str, ...]) -> Picture:
        raise ConnectionError("no route to host")

    def close(self) -> None:
        pass


def test_without_the_configured_store_nothing_is_sent_under_a_key(
    call: Doors, provider: StandIn
) -> None:
    router = in_process(provider, {"deployments": [deployment("east-1")]}, store=Away())
    for _ in range(2):
        with pytest.raises(StateUnavailableError, match="nothing was sent") as caught:
            generates(call, router)
        assert caught.value.accepted == "no"
    assert provider.requests == []
    assert generates(call, router, None).status == "queued"


# What a provider hears --------------------------------------------------------------------------


def test_a_provider_that_takes_keys_gets_one(call: Doors, provider: StandIn) -> None:
    told = deployment("east-1", idempotency_header="Idempotency-Key")
    router = in_process(provider, {"deployments": [told]})
    for key in ("a secret thing", "a secret thing else", None, None):
        video = generates(call, router, key)
    call(router, "video_status", video.id)
    sent = [request.headers.get("idempotency-key") for request in provider.requests]
    assert len(set(sent[:4])) == 4
    assert all(sent[:4])
    assert sent[4] is None
    assert "secret" not in str(sent)


def test_a_repeat_after_a_refusal_bears_the_same_key(call: Doors, provider: StandIn) -> None:
    told = deployment("east-1", idempotency_header="X-Once")
    router = in_process(provider, {"deployments": [told]})
    provider.fault("status", status=400)
    with pytest.raises(BadRequestError):
        generates(call, router)
    generates(call, router)
    first, second = (request.headers["x-once"] for request in provider.requests)
    assert first == second


# What is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", 7, b"k", "x" * 257, ["k"]])
def test_a_bad_key_is_refused_before_anything_is_sent(
    call: Doors, provider: StandIn, key: Any
) -> None:
    router = in_process(provider)
    with pytest.raises(BadRequestError, match="1 to 256 characters"):
        generates(call, router, key)
    assert provider.requests == []


def test_who_sends_by_himself_keeps_his_own_keys(provider: StandIn) -> None:
    router = in_process(provider)
    with pytest.raises(TypeError, match="a pick is sent by its caller"):
        router.pick("generation", idempotency_key="k")


@pytest.mark.parametrize(
    "body", [{"a": 1, 2: 3}, {(1, 2): 3}, {"a": {"b": {1: object}}}], ids=["mixed", "tuple", "odd"]
)
def test_what_a_call_without_a_key_may_carry_one_with_a_key_may(
    call: Doors, provider: StandIn, body: Any
) -> None:
    def how(key: str | None) -> str:
        try:
            return str(generates(call, router, key, extra_body=body).status)
        except BadRequestError:
            return "refused"

    router = in_process(provider, {"deployments": [deployment("east-1")]})
    assert how("k") == how(None)


def test_a_body_without_end_is_refused(call: Doors, provider: StandIn) -> None:
    router = in_process(provider)
    body: dict[str, Any] = {}
    body["again"] = body
    with pytest.raises(BadRequestError):
        generates(call, router, extra_body=body)


@pytest.mark.parametrize("method", ["video_status", "video_content", "video_delete"])
def test_reads_take_no_key(call: Doors, provider: StandIn, method: str) -> None:
    router = in_process(provider)
    with pytest.raises(TypeError, match="idempotency_key"):
        call(router, method, "video_1", idempotency_key="k")


# Going on from an error -------------------------------------------------------------------------


def test_resume_finds_the_job_of_an_ambiguous_call(
    call: Doors, fleet: Fleet, provider: StandIn, clock: FakeClock
) -> None:
    one, other = fleet(deployment("east-1"))
    generates(call, one, None)  # somebody else's, and known
    provider.fault("reset", after=True)
    with pytest.raises(AmbiguousSubmitError) as caught:
        generates(call, one)
    fleet.meet()
    error = pickle.loads(pickle.dumps(caught.value))
    video = call(other, "resume", error)
    assert video.status == "completed"
    assert native_of(other, video.id) == provider.accepted[1].native_id
    # From now on the key stands for it.
    fleet.meet()
    assert generates(call, one).id == video.id
    assert jobs(provider) == 2


def test_resume_knows_a_job_by_what_was_sent_and_not_by_what_was_dropped(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    vllm = {"provider": "vllm-omni", "base_url": "http://stand-in/vllm-omni/v1"}
    dropping = deployment("east-1", drop_params=True, **vllm)
    router = in_process(provider, {"deployments": [dropping]}, clock=clock)
    provider.fault("reset", after=True)
    errors: list[AmbiguousSubmitError] = []
    # The first knows that it was lost, the second only what stands under the key.
    for _ in range(2):
        with pytest.raises(AmbiguousSubmitError) as caught:
            generates(call, router, seconds="2.5")
        errors.append(caught.value)
    found = [call(router, "resume", error) for error in reversed(errors)]
    assert {native_of(router, video.id) for video in found} == {provider.accepted[0].native_id}
    assert jobs(provider) == 1


def test_resume_works_without_a_key(call: Doors, provider: StandIn, clock: FakeClock) -> None:
    router = in_process(provider, {"deployments": [deployment("east-1")]}, clock=clock)
    provider.fault("reset", after=True)
    with pytest.raises(AmbiguousSubmitError) as caught:
        generates(call, router, None)
    assert call(router, "resume", caught.value).status == "completed"


def test_resume_does_not_guess(call: Doors, provider: StandIn, clock: FakeClock) -> None:
    router = in_process(provider, {"deployments": [deployment("east-1")]}, clock=clock)
    errors = list[RouterError]()
    for _ in range(2):
        provider.fault("reset", after=True)
        with pytest.raises(AmbiguousSubmitError) as caught:
            generates(call, router, None)
        errors.append(caught.value)
    with pytest.raises(AmbiguousSubmitError, match=r"it may be: video_.*, video_"):
        call(router, "resume", errors[0])
    assert jobs(provider) == 2


def test_resume_does_not_take_another_calls_job(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = in_process(provider, {"deployments": [deployment("east-1")]}, clock=clock)
    generates(call, router, None)
    generates(call, router, None, prompt="Something else")
    provider.fault("garbage", after=False)
    with pytest.raises(AmbiguousSubmitError) as caught:
        generates(call, router, None)
    with pytest.raises(AmbiguousSubmitError, match="it may be: none"):
        call(router, "resume", caught.value)


def test_resume_gives_a_job_to_one_caller_only(
    call: Doors, fleet: Fleet, provider: StandIn, clock: FakeClock
) -> None:
    one, other = fleet(deployment("east-1"))
    provider.fault("status", status=500)
    with pytest.raises(AmbiguousSubmitError) as nothing:
        generates(call, one, "a")
    provider.fault("reset", after=True)
    with pytest.raises(AmbiguousSubmitError) as job:
        generates(call, one, "b")
    fleet.meet()
    made = call(other, "resume", job.value)
    fleet.meet()
    with pytest.raises(AmbiguousSubmitError, match="it may be: none"):
        call(other, "resume", nothing.value)
    # It is in the books, and whose it was may ask again.
    assert [known.native_id for known in one.jobs()] == [native_of(one, made.id)]
    fleet.meet()
    assert call(one, "resume", pickle.loads(pickle.dumps(job.value))).id == made.id


def test_a_resumed_job_gives_its_slot_back(
    call: Doors, fleet: Fleet, provider: StandIn, clock: FakeClock
) -> None:
    one, other = fleet(deployment("east-1", max_parallel_jobs=1))
    provider.fault("reset", after=True)
    with pytest.raises(AmbiguousSubmitError) as caught:
        generates(call, one)
    assert fleet.held("jobs:deployment:east-1") == [1]
    call(one, "resume", caught.value)
    assert fleet.held("jobs:deployment:east-1") == [0]
    assert generates(call, other, None).status == "queued"


def test_what_keeps_resume_from_looking_says_nothing_of_the_job(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = in_process(provider, {"deployments": [deployment("east-1")]}, clock=clock)
    provider.fault("reset", after=True)
    with pytest.raises(AmbiguousSubmitError) as caught:
        generates(call, router)
    error: RouterError = caught.value
    for _ in range(2):
        provider.fault("status", status=400, operation="list")
        with pytest.raises(AmbiguousSubmitError, match="could not be looked for") as again:
            call(router, "resume", error)
        error = again.value
        assert (error.accepted, error.idempotency_key) == ("maybe", "task-1")
    assert call(router, "resume", error).done


def test_an_extension_is_found_by_what_is_new_and_a_size_in_either_spelling(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = in_process(provider, {"deployments": [deployment("east-1")]}, clock=clock)
    made = call(router, "video_wait", generates(call, router, None, seconds=8).id)
    provider.fault("reset", after=True)
    with pytest.raises(AmbiguousSubmitError) as caught:
        call(router, "video_extension", video_id=made.id, prompt="On", seconds=4)
    assert call(router, "resume", caught.value).prompt == "On"


def test_resume_takes_no_job_of_another_kind(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    store = MemoryStore(clock.time)
    data = {"deployments": [deployment("east-1")]}
    router = in_process(provider, data, clock=clock, store=store)
    made = call(router, "video_wait", generates(call, router, None, seconds=8).id)
    # Another application's, of the same words: this fleet has not accepted it.
    other = in_process(provider, data, clock=clock)
    call(other, "video_remix", video_id=made.id, prompt="On")
    provider.fault("status", status=500)
    with pytest.raises(AmbiguousSubmitError) as caught:
        generates(call, router, None, prompt="On")
    with pytest.raises(AmbiguousSubmitError, match="it may be: none"):
        call(router, "resume", caught.value)
    provider.fault("status", status=500)
    with pytest.raises(AmbiguousSubmitError) as extended:
        call(router, "video_extension", video_id=made.id, prompt="On", seconds=8)
    with pytest.raises(AmbiguousSubmitError, match="it may be: none"):
        call(router, "resume", extended.value)


def test_resume_of_what_was_refused_has_nothing_to_go_on_from(
    call: Doors, provider: StandIn
) -> None:
    router = in_process(provider, {"deployments": [deployment("east-1")]})
    provider.fault("status", status=400)
    with pytest.raises(BadRequestError) as caught:
        generates(call, router)
    with pytest.raises(BadRequestError, match="nothing to resume"):
        call(router, "resume", caught.value)
    with pytest.raises(BadRequestError, match="an error of the router's"):
        call(router, "resume", ValueError("x"))
