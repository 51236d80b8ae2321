"""A call that is cancelled at any point leaves nothing behind, and says what may be running.

Over real sockets and a real store of leases, keys and money: the same submit, cancelled after one
step of the event loop, after two, and so on, until it is answered before the cancellation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from outcome_parts import CLIP, fleet

from router import Router, RouterError
from router.events import Attempted
from router.testing import StandIn

STEPS = 3000
LIMITS = {"max_parallel_jobs": 10_000, "max_parallel_requests": 10, "rpm": 10_000}
RESOURCES = ("jobs:deployment:east-1", "requests:deployment:east-1")
CALLS: dict[str, dict[str, Any]] = {
    "video_generation": {"prompt": "A heron"},
    "video_edit": {"prompt": "Snow", "video": CLIP},
    "video_create_character": {"name": "Mossy", "video": CLIP},
}


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn(accounts={"sk-east": "east"}) as provider:
        yield provider


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def cancelled_after(steps: int, coroutine: Any) -> bool:
    """Whether it was cancelled by then, and not done."""
    task = asyncio.create_task(coroutine)
    for _ in range(steps):
        if task.done():
            break
        await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return True
    return False


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("keyed", [False, True], ids=["", "under a key"])
def test_nothing_is_left_behind(server: StandIn, method: str, *, keyed: bool) -> None:
    told: list[Attempted] = []

    def on_event(event: object) -> None:
        if isinstance(event, Attempted):
            told.append(event)

    async def play() -> int:
        data = fleet(server.base_url, "east", **LIMITS)
        router = Router.from_dict(data, environ={}, on_event=on_event)
        call = getattr(router, f"a{method}")
        steps, left = 1, 0
        while steps < STEPS:
            told.clear()
            more = {"idempotency_key": f"key-{steps}"} if keyed else {}
            was = await cancelled_after(steps, call(**CALLS[method], **more))
            assert len(told) <= 1
            left += sum(event.accepted != "no" for event in told)
            # What the provider took on, maybe only now, was told of as that.
            assert len(server.accepted) <= left
            held = router._engine.leasing.picture(RESOURCES).held
            jobs = left if method != "video_create_character" else 0
            assert [held[name] for name in RESOURCES] == [jobs, 0]
            facts = router.statistics()["east-1"]
            assert facts["in_flight"] == 0
            assert router._engine.claiming._held == {}
            if keyed and was and not told:
                # Nothing was sent under it, so the next caller may.
                again = await call(**CALLS[method], **more, deadline=5)
                assert again.id
                left += 1
            steps += 1 if was else STEPS
        await router.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return steps - STEPS

    files = open_files()
    steps = asyncio.run(play())
    # It went through all of a call, from before its start to after its end.
    assert 5 < steps < STEPS
    assert told[-1].accepted == "yes"
    assert open_files() <= files + 1


def test_after_an_ambiguous_cancellation_the_key_is_nobodys(server: StandIn) -> None:
    server.fault("delay", seconds=30)

    async def play() -> None:
        router = Router.from_dict(fleet(server.base_url, "east"), environ={})
        asked = asyncio.create_task(router.avideo_generation(prompt="x", idempotency_key="k"))
        while not server.accepted:  # noqa: ASYNC110  (the stand-in has no event for it)
            await asyncio.sleep(0.001)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        with pytest.raises(RouterError) as caught:
            await router.avideo_generation(prompt="x", idempotency_key="k")
        assert caught.value.accepted == "maybe"
        await router.aclose()

    asyncio.run(play())
    assert len(server.accepted) == 1
