"""A worker process with a router and a `Prometheus`, for tests of several at once.

    metrics_process.py BASE_URL [calls=N] [fails=N] [restores=N] [forks=N]

`forks` is how many calls a child makes that has the parent's router and its hook.
"""

from __future__ import annotations

import os
import sys
import warnings

from router import Router, RouterError
from router.telemetry.prometheus import Prometheus


def generate(router: Router, times: int) -> None:
    for _ in range(times):
        router.video_generation(prompt="a heron", model="sora-2")


def fail(router: Router, times: int) -> None:
    for _ in range(times):
        try:
            generate(router, 1)
        except RouterError:
            continue
        raise AssertionError("the call succeeded")


def fork(router: Router, times: int) -> None:
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads; there are none but the router's own, if any.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        generate(router, times)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0


def main(base_url: str, *asked: str) -> None:
    router = Router(
        accounts={"east": {"api_key": "sk-east", "base_url": base_url}},
        deployments=[{"id": "east-1", "model_name": "sora-2", "account": "east"}],
        on_event=Prometheus(),
    )
    does = {
        "calls": generate,
        "fails": fail,
        "restores": lambda router, times: router.restore("east-1"),
        "forks": fork,
    }
    with router:
        for step in asked:
            name, _, times = step.partition("=")
            does[name](router, int(times))


if __name__ == "__main__":
    main(*sys.argv[1:])
