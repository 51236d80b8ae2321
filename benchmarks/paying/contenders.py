"""Who is asked for videos: this router, and LiteLLM's, each by its own public methods.

What both are told of the fleet is the same: two deployments of one group, and a time-out.

    video-router            its defaults
    video-router, key       the same, each task under an idempotency key of its own
    litellm                 its defaults: two retries
    litellm, as advised     three retries and another group to fall back to, as its documentation
                            of retries and fallbacks shows it

LiteLLM's has no keys, so a task that is delivered again is the same call again. An id of its own is
unwrapped by its own function before the provider is asked for it.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.paying.scenarios import TIMEOUT
from benchmarks.paying.tasks import SECONDS, Task
from router import Router, RouterError

__all__ = [
    "ADVISED",
    "KEYED",
    "LITELLM",
    "OURS",
    "UNKEYED",
    "Contender",
    "Place",
    "Requester",
]

GROUP = "sora-2"
SPARE = "sora-2-spare"
RESUME_SECONDS = 20.0


@dataclass(frozen=True)
class Place:
    """A deployment as both are told of it."""

    account: str
    base_url: str
    api_key: str


class Requester(Protocol):
    """A router in the hands of a caller. The ids that it returns are the provider's own."""

    async def submit(self, task: Task) -> str:
        """Ask for a video; raises what the router raises."""

    async def resume(self, error: Exception) -> str | None:
        """Go on from an error; `None` where there is no way, or it leads to nothing."""


class _Ours:
    def __init__(self, router: Router, *, keyed: bool) -> None:
        self._router = router
        self._keyed = keyed

    async def submit(self, task: Task) -> str:
        options: dict[str, Any] = {"idempotency_key": task.name} if self._keyed else {}
        if task.source is None:
            video = await self._router.avideo_generation(
                prompt=task.prompt, seconds=SECONDS, **options
            )
        else:
            # A native id, where both deployments are of one account.
            video = await self._router.avideo_edit(
                prompt=task.prompt, video_id=task.source, **options
            )
        return self._native(video.id)

    async def resume(self, error: Exception) -> str | None:
        if not isinstance(error, RouterError):
            return None
        with contextlib.suppress(RouterError):
            video = await self._router.aresume(
                error, wait_timeout=RESUME_SECONDS, deadline=RESUME_SECONDS
            )
            return self._native(video.id)
        return None

    def _native(self, video_id: str) -> str:
        return self._router.describe_id(video_id).copies[0].native_id


@asynccontextmanager
async def _ours(
    places: Sequence[Place], *, keyed: bool, redis_url: str
) -> AsyncIterator[Requester]:
    deployments = [
        {
            "id": f"d{number}",
            "model_name": GROUP,
            "account": place.account,
            "base_url": place.base_url,
            "api_key": place.api_key,
        }
        for number, place in enumerate(places)
    ]
    told = {
        "settings": {"timeout": TIMEOUT, "redis_url": redis_url},
        "deployments": deployments,
    }
    async with Router.from_dict(told, environ={}) as router:
        yield _Ours(router, keyed=keyed)


class _LiteLLM:
    def __init__(self, router: Any, native: Callable[[str], Any]) -> None:
        self._router = router
        self._native = native

    async def submit(self, task: Task) -> str:
        if task.source is None:
            video = await self._router.avideo_generation(
                model=GROUP, prompt=task.prompt, seconds=str(SECONDS)
            )
        else:
            video = await self._router.avideo_edit(
                model=GROUP, prompt=task.prompt, video_id=task.source
            )
        return str(self._native(video.id)["video_id"])

    async def resume(self, error: Exception) -> str | None:
        """There is nothing of the kind."""
        return None


@asynccontextmanager
async def _litellm(places: Sequence[Place], *, advised: bool) -> AsyncIterator[Requester]:
    litellm = _imported()
    native = importlib.import_module("litellm.types.videos.utils").decode_video_id_with_provider
    models = [_model(GROUP, place) for place in places]
    options: dict[str, Any] = {}
    if advised:
        models += [_model(SPARE, place) for place in places]
        options = {"num_retries": 3, "fallbacks": [{GROUP: [SPARE]}]}
    router = litellm.Router(model_list=models, timeout=TIMEOUT, **options)
    try:
        yield _LiteLLM(router, native)
    finally:
        router.discard()


def _model(group: str, place: Place) -> dict[str, Any]:
    return {
        "model_name": group,
        "litellm_params": {
            "model": f"openai/{GROUP}",
            "api_base": place.base_url,
            "api_key": place.api_key,
        },
    }


def _imported() -> Any:
    # Else its import fetches a price list from the network.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm: Any = importlib.import_module("litellm")
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    for name in ("LiteLLM", "LiteLLM Router", "httpx"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return litellm


@dataclass(frozen=True)
class Contender:
    """A router under one set of options. Picklable, so that another process can begin it."""

    name: str
    ours: bool
    special: bool
    """Ours under keys; LiteLLM's as advised."""

    @property
    def keyed(self) -> bool:
        return self.ours and self.special

    def begin(
        self, places: Sequence[Place], *, redis_url: str = ""
    ) -> contextlib.AbstractAsyncContextManager[Requester]:
        """A router of its own, for the length of a block."""
        if self.ours:
            return _ours(places, keyed=self.special, redis_url=redis_url)
        # In Redis it would share cooldowns, and nothing of its calls.
        return _litellm(places, advised=self.special)


UNKEYED = Contender("video-router", ours=True, special=False)
KEYED = Contender("video-router, key", ours=True, special=True)
LITELLM = Contender("litellm", ours=False, special=False)
ADVISED = Contender("litellm, as advised", ours=False, special=True)
OURS = (UNKEYED, KEYED)
