"""Follow-ups of all kinds, through several processes, over three accounts behind one group."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import pytest
from serving_parts import Serve, serving
from shared_parts import KEYS, fleet

from router.testing import StandIn
from router.testing.media import CLIP

pytestmark = pytest.mark.real

SEED = 20260924
FOLLOW_UPS = 300
AT_ONCE = 12
CALLERS = ("pk-web", "pk-batch")

Call: TypeAlias = Callable[[httpx.AsyncClient, dict[str, str], str, str], Coroutine[Any, Any, Any]]


async def status(client: httpx.AsyncClient, key: dict[str, str], video: str, luna: str) -> Any:
    return await client.get(f"/videos/{video}", headers=key)


async def content(client: httpx.AsyncClient, key: dict[str, str], video: str, luna: str) -> Any:
    return await client.get(f"/videos/{video}/content", headers=key)


async def edit(client: httpx.AsyncClient, key: dict[str, str], video: str, luna: str) -> Any:
    body = {"prompt": "at dusk", "video": {"id": video}}
    return await client.post("/videos/edits", headers=key, json=body)


async def extend(client: httpx.AsyncClient, key: dict[str, str], video: str, luna: str) -> Any:
    body = {"prompt": "she looks back", "seconds": "4", "video[id]": video}
    return await client.post("/videos/extensions", headers=key, data=body)


async def remix(client: httpx.AsyncClient, key: dict[str, str], video: str, luna: str) -> Any:
    return await client.post(f"/videos/{video}/remix", headers=key, json={"prompt": "in blue"})


async def generate(client: httpx.AsyncClient, key: dict[str, str], video: str, luna: str) -> Any:
    body = {"prompt": "Luna waves", "characters[][id]": luna, "model": "sora-2"}
    return await client.post("/videos", headers=key, data=body)


async def character(client: httpx.AsyncClient, key: dict[str, str], video: str, luna: str) -> Any:
    return await client.get(f"/videos/characters/{luna}", headers=key)


KINDS: tuple[Call, ...] = (status, content, edit, extend, remix, generate, character)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_no_follow_up_goes_astray(tmp_path: Path, workers: str) -> None:
    with StandIn(accounts=KEYS, seed=7) as provider:
        data = fleet(provider.base_url, "east", "west", "north")
        # Each account gets some of the work, so that there is somewhere to go astray to.
        data["settings"] = {"id_secrets": ["a-secret-for-signing-ids"], "strategy": "round-robin"}
        data["proxy"] = {"keys": [{"name": key.removeprefix("pk-"), "key": key} for key in CALLERS]}
        with serving(tmp_path, data, "--workers", workers) as served:
            answered = asyncio.run(followed(served))
            # By the provider's books: an account that is asked for another's has nothing there.
            wrong = [one for one in provider.requests if one.status >= 400]
            assert (wrong, answered) == ([], Counter({200: FOLLOW_UPS}))
            served_by = Counter(one.account for one in provider.accepted)
            assert set(served_by) == {"east", "west", "north"}
            assert served.end() == 0


async def followed(served: Serve) -> Counter[int]:
    """The statuses of the answers."""
    rng, gate = random.Random(SEED), asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=60) as client:
        owned = {key: await owned_by(client, key) for key in CALLERS}

        async def one(number: int) -> int:
            key = rng.choice(CALLERS)
            videos, characters = owned[key]
            kind = KINDS[number % len(KINDS)]
            named = (rng.choice(videos), rng.choice(characters))
            async with gate:
                answer = await kind(client, {"authorization": f"Bearer {key}"}, *named)
                await answer.aread()
                return int(answer.status_code)

        return Counter(await asyncio.gather(*(one(number) for number in range(FOLLOW_UPS))))


async def owned_by(client: httpx.AsyncClient, key: str) -> tuple[list[str], list[str]]:
    """Ready videos and characters, in all accounts."""
    headers = {"authorization": f"Bearer {key}"}
    videos, characters = [], []
    for _ in range(9):
        made = await client.post("/videos", headers=headers, json={"prompt": "A heron lands"})
        videos.append(made.json()["id"])
        await client.get(f"/videos/{videos[-1]}", headers=headers)
    for _ in range(5):
        files = {"video": ("luna.mp4", CLIP, "video/mp4")}
        made = await client.post(
            "/videos/characters", headers=headers, data={"name": "Luna"}, files=files
        )
        characters.append(made.json()["id"])
    return videos, characters
