"""A client of the caller's is used as it is: its pool, its hooks; and it is not closed."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx
import pytest
from outcome_parts import ejected

from router import CapacityError, NotFoundError, Router
from router.testing import StandIn


def configured(server: StandIn, **parts: Any) -> Router:
    return Router(
        accounts={"east": {"api_key": "sk-east", "base_url": server.base_url}},
        deployments=[{"id": "east-1", "model_name": "sora-2", "account": "east"}],
        **parts,
    )


ONE = httpx.Limits(max_connections=1)


def test_a_full_pool_is_a_lack_of_capacity_and_nobodys_failure_blocking(server: StandIn) -> None:
    server.fault("delay", operation="generation", seconds=1.5)
    with httpx.Client(limits=ONE, trust_env=False) as client:
        router = configured(server, http_client=client)
        first = threading.Thread(target=router.video_generation, kwargs={"prompt": "a heron"})
        first.start()
        while not server.accepted:
            threading.Event().wait(0.01)
        with pytest.raises(CapacityError) as caught:
            router.video_generation(prompt="another", timeout=0.5)
        first.join()
        assert caught.value.accepted == "no"
        assert ejected(router) == {}
        assert len(server.accepted) == 1


def test_a_full_pool_is_a_lack_of_capacity_and_nobodys_failure_async(server: StandIn) -> None:
    server.fault("delay", operation="generation", seconds=1.5)

    async def both() -> list[Any]:
        async with httpx.AsyncClient(limits=ONE, trust_env=False) as client:
            router = configured(server, async_http_client=client)
            first = asyncio.create_task(router.avideo_generation(prompt="a heron"))
            while not server.accepted:  # noqa: ASYNC110  (the server is a thread)
                await asyncio.sleep(0.01)
            with pytest.raises(CapacityError):
                await router.avideo_generation(prompt="another", timeout=0.5)
            return [await first, ejected(router)]

    video, out = asyncio.run(both())
    assert video.status == "queued"
    assert out == {}
    assert len(server.accepted) == 1


def _raise(response: httpx.Response) -> None:
    response.read()
    response.raise_for_status()


async def _araise(response: httpx.Response) -> None:
    await response.aread()
    response.raise_for_status()


def test_a_hook_that_raises_for_a_status_takes_nothing_from_it(call: Any, server: StandIn) -> None:
    client = httpx.Client(event_hooks={"response": [_raise]}, trust_env=False)
    aclient = httpx.AsyncClient(event_hooks={"response": [_araise]}, trust_env=False)
    router = configured(server, http_client=client, async_http_client=aclient)
    for _ in range(4):
        with pytest.raises(NotFoundError, match="not found"):
            call(router, "video_status", "video_68f10985d6c4819097007665bdcfba5f")
    assert ejected(router) == {}
    call.close(router)
    assert not client.is_closed
    assert not aclient.is_closed
    assert call(router, "video_generation", prompt="a heron").status == "queued"
    client.close()
    if call.name == "async":
        call._runner.run(aclient.aclose())
