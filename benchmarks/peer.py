"""The peer: LiteLLM's Router, for the same picks and the same call.

It is an extra (`bench`): without it the rest of the benchmark runs as well. It is imported only
when its turn has come, so that its heap burdens nobody before.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["HOW_TO_INSTALL", "Peer", "is_installed"]

HOW_TO_INSTALL = "the peer is not installed; `pip install 'video-router[bench]'` adds it"


def is_installed() -> bool:
    return importlib.util.find_spec("litellm") is not None


class Peer:
    """LiteLLM's Router over `count` deployments of one group, with its own defaults.

    With Redis it routes by latency, since only what learns has something to share.
    """

    def __init__(
        self, group: str, base_url: str, count: int, *, redis_url: str | None = None
    ) -> None:
        # Else its import fetches a price list from the network.
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        # By name, since type checkers would miss an extra that is not installed.
        litellm: Any = importlib.import_module("litellm")
        litellm.telemetry = False
        litellm.suppress_debug_info = True
        for name in ("LiteLLM", "LiteLLM Router", "httpx"):
            logging.getLogger(name).setLevel(logging.ERROR)
        self._group = group
        shared: dict[str, Any] = {}
        if redis_url is not None:
            shared = {"redis_url": redis_url, "routing_strategy": "latency-based-routing"}
        self._router: Any = litellm.Router(
            model_list=[
                {
                    "model_name": group,
                    "litellm_params": {
                        "model": f"openai/{group}",
                        "api_base": base_url,
                        "api_key": f"sk-{index}",
                    },
                }
                for index in range(count)
            ],
            num_retries=0,
            **shared,
        )

    def pick(self) -> object:
        picked: object = self._router.get_available_deployment(self._group, request_kwargs={})
        return picked

    def edit(self, video_id: str, prompt: str) -> Callable[[], Awaitable[object]]:
        """A routed `avideo_edit`, its arguments given."""

        async def call() -> object:
            answer: object = await self._router.avideo_edit(
                model=self._group, video_id=video_id, prompt=prompt
            )
            return answer

        return call
