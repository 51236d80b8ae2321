"""The stand-in as a process of its own, for apps and benchmarks that want one over there.

The command line stands elsewhere; this only serves until it is told to stop.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from router.testing.stand_in import StandIn
from router.testing.studio import JobSeconds

__all__ = ["serve"]


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    accounts: Mapping[str, str] | None = None,
    job_seconds: JobSeconds = 0.0,
    rpm: int | None = None,
    max_running_jobs: int | None = None,
    latency: float = 0.0,
    faults: Iterable[Mapping[str, Any]] = (),
    ready: Callable[[StandIn], object] = lambda provider: None,
) -> None:
    """Serve until SIGTERM or SIGINT; only for the main thread, which is where signals arrive.

    `faults` are the arguments of `StandIn.fault()`, one mapping each. `ready` is called once, with
    the listening stand-in. Nothing is printed.
    """
    stand_in = StandIn(
        accounts,
        job_seconds=job_seconds,
        rpm=rpm,
        max_running_jobs=max_running_jobs,
        latency=latency,
        host=host,
        port=port,
    )
    for fault in faults:
        stand_in.fault(**fault)
    with _stop_signals() as stop, stand_in as provider:
        ready(provider)
        stop.get()


@contextmanager
def _stop_signals() -> Iterator[SimpleQueue[int]]:
    # Of all queues and events only SimpleQueue.put() may be called from a signal handler.
    stop: SimpleQueue[int] = SimpleQueue()
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda number, _: stop.put(number)) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
