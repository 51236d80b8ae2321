"""What there is to run, and what its figures mean for whoever uses the router."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BENCHMARKS", "Benchmark"]


@dataclass(frozen=True)
class Benchmark:
    """`benchmarks.<name>`. One that `draws` takes `--png`; `short` ones make up a quick run."""

    what: str
    means: str
    draws: bool = False
    short: bool = True


BENCHMARKS: dict[str, Benchmark] = {
    "overhead": Benchmark(
        "a pick, a routed call over bare httpx, an import",
        "A pick is what choosing costs before a request leaves: microseconds, however many "
        "deployments there are. A routed call over a bare one is the price of the whole router; "
        "below 1.00 a service gets faster by putting it in, since its connections are cheaper "
        "than those of httpx's client. Against a provider that takes a second to answer, neither "
        "is visible; they matter for a worker that polls or submits by the hundred.",
    ),
    "capped": Benchmark(
        "what a cap on jobs adds to a call: one round trip to Redis",
        "Deployments with `max_parallel_jobs`, `rpm` and the like ask Redis before a submit, so "
        "that a limit holds over all workers. That is the only time that a call waits for Redis. "
        "It is measured with one call right after the other, where giving back the last slot "
        "competes with asking for the next.",
    ),
    "beside_litellm": Benchmark(
        "this router and LiteLLM's, with the same Redis and upstream",
        "The same routed call and the same pick by both routers, each in a process of its own. "
        "Processor time is what a worker's core is busy with, so it says how many calls a "
        "container carries.",
    ),
    "memory": Benchmark(
        "what a deployment and a followed job hold",
        "What a configuration of a thousand deployments takes, and what a worker needs for each "
        "job that it follows: ten thousand `avideo_wait`s are some megabytes.",
    ),
    "following": Benchmark(
        "10,000 running jobs followed in one worker",
        "How much of a core a worker spends on following jobs. Each look at a job is a call of "
        "its own, through all that a call goes through; they share the event loop's timers and "
        "its kept connections, and no job has a thread.",
    ),
    "uploads": Benchmark(
        "a clip of 200 MB, through both doors",
        "Clips are read piece by piece while they are sent: the size of an upload is not a "
        "question of memory, and no event loop stands still while a disk is read.",
    ),
    "engines": Benchmark(
        "the same POST by httpx, by aiohttp, and by the router's own connections",
        "Why there is no extra for another engine. aiohttp's client is faster still, by "
        "parsing in C; but it has a table of exceptions of its own, which do not say what of a "
        "request went out, and whether a job may have been accepted hangs on that. The router's "
        "connections speak by h11, and are judged by the bytes that were handed over; a routed "
        "call over them is faster than a bare one by httpx, which is the comparison that a "
        "service can make.",
    ),
    "growth": Benchmark(
        "how picks and exchanges grow with deployments, workers and calls",
        "Picks are flat from 32 deployments on. An exchange costs in proportion to what changed "
        "since the last one, not to the size of the fleet.",
    ),
    "shared_state": Benchmark(
        "what is promised of the state in Redis, counted",
        "Each observation counted once, limits never exceeded, ejections heard in time, and what "
        "becomes of all that while Redis is away.",
        short=False,
    ),
    "routing_quality": Benchmark(
        "how well it chooses, on a virtual clock, against LiteLLM's strategies",
        "How long callers wait for their video, and how many get none, when deployments differ, "
        "change, or die.",
        draws=True,
        short=False,
    ),
    "paid_once": Benchmark(
        "how many jobs a call becomes under faults",
        "A job costs dollars: how often one call is paid for, here and with LiteLLM.",
        draws=True,
        short=False,
    ),
    "proxy": Benchmark(
        "what `video-router serve` costs, beside LiteLLM's proxy",
        "What a call through the proxy takes more than a direct one, and what its process takes "
        "of a core and of memory.",
        short=False,
    ),
}
