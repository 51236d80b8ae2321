"""The peer: LiteLLM's strategies, by its own code for picking, learning and cooling down.

One `litellm.Router` stands for the whole fleet: its workers share everything, at once and for
certain, which is more than its Redis gives them, and so no number of workers is told. It picks by
`async_get_available_deployment` and learns by the callbacks that it registers for itself: its
strategy's, `sync_deployment_callback_on_success` and `deployment_callback_on_failure`. Its defaults
stand: five seconds of cooldown where the provider names no time, and two retries, which leave out
who has answered 401 to this call, by its own rule.

It counts a call as under way from the moment its request is written, a few milliseconds after the
pick, since between the two it goes to a thread. And it knows nothing of jobs: what it measures is
the POST that starts one. Its clock is the virtual one: `time` and `datetime` are replaced in the
modules of its cache, cooldowns and strategies. It draws from the module `random`, which is seeded.
"""

from __future__ import annotations

import asyncio
import datetime as real
import importlib
import logging
import os
import random
import types
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx

from benchmarks.quality.contenders import Choice, Later, Routed
from benchmarks.quality.fleet import GROUP
from benchmarks.quality.provider import Job, Refusal
from benchmarks.quality.simulation import Simulation
from benchmarks.quality.timeline import Timeline
from benchmarks.quality.traffic import Call

__all__ = ["PEERS", "LiteLLM"]

PEERS = ("simple-shuffle", "least-busy", "latency-based-routing", "cost-based-routing")
WRITTEN_SECONDS = 0.005
"""From the pick to the request: `litellm.avideo_generation` goes to an executor in between."""
_TIMED = ("caching.in_memory_cache", "caching.dual_cache", "router_utils.cooldown_cache")
_DATED = ("router_strategy.lowest_latency", "router_strategy.lowest_cost")

T = TypeVar("T")


class LiteLLM(Routed):
    """The peer's whole fleet, under one of its strategies."""

    def __init__(self, run: Simulation, strategy: str, seed: int) -> None:
        super().__init__(run, 1)
        random.seed(seed)
        self._litellm = _imported()
        self._loop = asyncio.new_event_loop()
        # By call: who has refused it in a way that the peer does not try again.
        self._skipped: dict[int, tuple[str, ...]] = {}
        self._router: Any = self._awaited(self._built, strategy)
        self._strategy: Any = getattr(self._router, _HANDLERS.get(strategy, ""), None)

    async def _built(self, strategy: str) -> Any:
        return self._litellm.Router(model_list=self._models(), routing_strategy=strategy)

    def _models(self) -> list[dict[str, Any]]:
        return [
            {
                "model_name": GROUP,
                "litellm_params": {
                    "model": f"openai/{GROUP}",
                    "api_base": f"http://{host.name}.test/v1",
                    "api_key": f"sk-{host.name}",
                    **_prices(host.site.price),
                },
                "model_info": {"id": host.name},
            }
            for host in self.run.served
        ]

    def begin(self) -> None:
        """Nothing happens of its own accord."""

    def ended(self, job: Job) -> None:
        """Nobody tells it of jobs."""

    def changed(self) -> None:
        """Nobody tells it; it has to find out."""

    def reload(self) -> None:
        self._awaited(self._reloaded)

    async def _reloaded(self) -> None:
        self._router.set_model_list(self._models())

    def close(self) -> None:
        """Its callbacks are global to its package: they must not meet the next run's."""
        self._router.discard()
        self._loop.run_until_complete(_ended(self._loop))
        self._loop.close()

    def _awaited(self, work: Callable[..., Awaitable[T]], *arguments: Any) -> T:
        """Run some of its code, on a loop and at the virtual time."""

        async def only() -> T:
            return await work(*arguments)

        with on_clock(self.run.timeline):
            return self._loop.run_until_complete(only())

    # Calls --------------------------------------------------------------------------------------

    def pick(self, call: Call, worker: int, then: Callable[[Choice | Later], object]) -> None:
        found = self._awaited(self._pick, call.number)
        then(found if isinstance(found, Later) else _Picked(self, call.number, found))

    async def _pick(self, number: int) -> str | Later:
        asked: dict[str, Any] = {"metadata": {}}
        if number in self._skipped:
            asked["_retry_skipped_deployment_ids"] = self._skipped[number]
        try:
            found = await self._router.async_get_available_deployment(GROUP, asked)
        except self._litellm.types.router.RouterRateLimitError as exc:
            return Later(max(float(exc.cooldown_time), 1.0))
        return str(found["model_info"]["id"])

    def written(self, name: str) -> None:
        """The request goes out."""
        if self._strategy is not None:
            self._strategy.log_pre_api_call(GROUP, [], _kwargs(name))

    def succeeded(self, name: str, seconds: float) -> None:
        self._awaited(self._succeeded, name, seconds)

    async def _succeeded(self, name: str, seconds: float) -> None:
        ends = self.run.timeline.time()
        times = [real.datetime.fromtimestamp(at) for at in (ends - seconds, ends)]
        if self._strategy is not None:
            await self._strategy.async_log_success_event(_kwargs(name), None, *times)
        self._router.sync_deployment_callback_on_success(_kwargs(name), None, *times)

    def refused(self, name: str, number: int, refusal: Refusal) -> float:
        """Record a refusal; seconds after which the call may be made again."""
        return self._awaited(self._refused, name, number, refusal)

    async def _refused(self, name: str, number: int, refusal: Refusal) -> float:
        error = self._error(name, refusal)
        kwargs = {**_kwargs(name), "exception": error}
        if self._strategy is not None:
            await self._strategy.async_log_failure_event(kwargs, None, None, None)
        self._router.deployment_callback_on_failure(kwargs, None, None, None)
        already = self._skipped.get(number, ())
        skipped = self._router._deployment_ids_to_skip_on_retry(error, already)
        if skipped:
            self._skipped[number] = skipped
        return float(self._router.cooldown_time) if refusal.status == 429 else 0.0

    def _error(self, name: str, refusal: Refusal) -> Exception:
        kinds = {401: "AuthenticationError", 429: "RateLimitError", 502: "BadGatewayError"}
        request = httpx.Request("POST", f"http://{name}.test/v1/videos")
        response = httpx.Response(refusal.status, headers=refusal.headers, request=request)
        kind = getattr(self._litellm, kinds[refusal.status])
        error: Exception = kind("refused", "openai", GROUP, response=response)
        error.failed_deployment_id = name  # type: ignore[attr-defined]  # as its own call does
        return error


_HANDLERS = {
    "least-busy": "leastbusy_logger",
    "latency-based-routing": "lowestlatency_logger",
    "cost-based-routing": "lowestcost_logger",
}


class _Picked:
    """A pick of the peer's."""

    def __init__(self, fleet: LiteLLM, number: int, name: str) -> None:
        self.host = name
        self._fleet, self._number = fleet, number
        self._timeline = fleet.run.timeline
        self._began = self._timeline.now
        self._timeline.after(WRITTEN_SECONDS, fleet.written, name)

    def accepted(self, job: Job) -> None:
        self._fleet.succeeded(self.host, self._timeline.now - self._began)

    def failed(self, refusal: Refusal) -> float | None:
        return self._fleet.refused(self.host, self._number, refusal)


def _kwargs(name: str) -> dict[str, Any]:
    """What its callbacks are given of a call, as far as they look at it."""
    metadata = {"model_group": GROUP, "deployment": f"openai/{GROUP}"}
    return {"litellm_params": {"metadata": metadata, "model_info": {"id": name}}}


async def _ended(loop: asyncio.AbstractEventLoop) -> None:
    """What it left running in the background ends unheard."""
    tasks = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _prices(dollars: float | None) -> dict[str, float]:
    # It knows prices by the token; only their order counts.
    price = None if dollars is None else dollars / 1e6
    return {} if price is None else {"input_cost_per_token": price, "output_cost_per_token": price}


def _imported() -> Any:
    # Else its import fetches a price list from the network.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    litellm: Any = importlib.import_module("litellm")
    importlib.import_module("litellm.types.router")
    litellm.telemetry = False
    litellm.suppress_debug_info = True
    for name in ("LiteLLM", "LiteLLM Router", "httpx"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    return litellm


@contextmanager
def on_clock(timeline: Timeline) -> Iterator[None]:
    """Let the modules of the peer that read the time read the virtual one."""

    class Date(real.datetime):
        @classmethod
        def now(cls, tz: real.tzinfo | None = None) -> Any:
            return real.datetime.fromtimestamp(timeline.time(), tz)

    clock = types.SimpleNamespace(time=timeline.time)
    instead = [(name, "time", clock) for name in _TIMED] + [(n, "datetime", Date) for n in _DATED]
    kept = []
    for name, attribute, value in instead:
        module = importlib.import_module(f"litellm.{name}")
        kept.append((module, attribute, getattr(module, attribute)))
        setattr(module, attribute, value)
    try:
        yield
    finally:
        for module, attribute, value in kept:
            setattr(module, attribute, value)
