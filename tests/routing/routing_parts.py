"""What the routing tests share: fleets of three accounts, native ids, and transports that tell."""

from __future__ import annotations

import base64
import math
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from shared_parts import Doors, FakeClock, fleet, in_process

from router import Router
from router.ids import Copy, Kind
from router.testing import SeenRequest, StandIn
from router.testing.media import CLIP

__all__ = [
    "CLIP",
    "PNG",
    "THREE",
    "Doors",
    "FakeClock",
    "account_of",
    "deployment",
    "fleet",
    "generate",
    "in_process",
    "litellm_id",
    "native_of",
    "operations",
    "picks",
    "serving",
    "share_bound",
    "written",
]

THREE = ("east", "west", "north")
PNG = b"\x89PNG\r\n\x1a\n" + b"a picture" * 10
URL = "http://stand-in/v1"


def generate(call: Doors, router: Router, **more: Any) -> Any:
    """A generation whose prompt says nothing."""
    return call(router, "video_generation", **{"prompt": "a heron", **more})


def operations(provider: StandIn, since: int = 0) -> list[str | None]:
    """What the provider was asked for, in its order."""
    return [request.operation for request in provider.requests[since:]]


def deployment(name: str, account: str | None = None, **more: Any) -> dict[str, Any]:
    """One deployment of the stand-in, in group sora-2 unless told otherwise."""
    account = account or name.partition("-")[0]
    told = {"id": name, "model_name": "sora-2", "account": account, "base_url": URL}
    return {**told, "api_key": f"sk-{account}", **more}


def serving(provider: StandIn, *deployments: Mapping[str, Any], **parts: Any) -> Router:
    """A router in process with these deployments; `settings` is its section."""
    data = {"deployments": list(deployments), "settings": parts.pop("settings", {})}
    # In this time every exchange takes no time, so that the seed alone decides among equals.
    parts = {"clock": FakeClock(), "rng": random.Random(1), **parts}
    router: Router = in_process(provider, data, **parts)
    return router


def written(path: Path, data: Mapping[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(dict(data)))
    return path


def account_of(router: Router, our_id: str) -> str:
    return router.describe_id(our_id).copies[0].account


def native_of(router: Router, our_id: str) -> str:
    return router.describe_id(our_id).copies[0].native_id


def litellm_id(kind: Kind, model_id: str, native: str, provider: str = "openai") -> str:
    """An id as LiteLLM makes it: the provider, the model and the native id in base64."""
    plain = f"litellm:custom_llm_provider:{provider};model_id:{model_id};{kind}_id:{native}"
    return f"{kind}_{base64.b64encode(plain.encode()).decode()}"


def picks(requests: Iterable[SeenRequest]) -> list[str | None]:
    """The accounts that were asked, in order."""
    return [request.account for request in requests]


def share_bound(share: float, draws: int) -> float:
    """How far a share of `draws` may be from its expectation.

    Five standard deviations of a binomial share, plus the half of one draw: by the normal
    approximation one honest run in 1.7 million strays further, and a seed decides which.
    """
    return 5 * math.sqrt(share * (1 - share) / draws) + 0.5 / draws


def copies_of(*accounts: str, native: str = "char_1") -> list[Copy]:
    return [Copy(account, f"{native}_{account}") for account in accounts]
