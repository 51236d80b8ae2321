"""The two doors into one core.

The core is written once, as coroutines. What differs between a thread that blocks and a task that
awaits is small, and all of it is here: how to sleep, how to run something that would block, how to
do several things at once.

The async door runs on the caller's event loop. The blocking door needs none: everything that the
core awaits through it has already happened when it returns, so a coroutine never suspends, and one
`send` carries it to its end. That is why the blocking methods also work inside a running loop,
in many threads at once, and after a fork.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, ParamSpec, Protocol, TypeVar

from router.types import Clock

__all__ = ["AsyncDoor", "BlockingDoor", "Door", "SharedTime", "SystemClock", "step"]

T = TypeVar("T")
P = ParamSpec("P")


class Door(Protocol):
    """What the core asks of the side it was entered from."""

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` pass."""

    async def offload(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do something that may block, without blocking an event loop."""

    async def foreign(self, awaitable: Awaitable[T], seconds: float | None = None) -> T:
        """Await an object of the caller's, which may want an event loop, and may take for ever.

        Raises `TimeoutError` after `seconds`, where there is a loop to tell the time.
        """

    async def hear(self, future: Future[T], seconds: float) -> T:
        """What another thread answers; raises `TimeoutError` when it does not within `seconds`."""

    async def together(self, coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        """Run several at once; their results in the same order. They must not raise."""


class SystemClock:
    """The machine's clock."""

    # Asked many times in a call, so without a function of ours around them.
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)
    time = staticmethod(time.time)

    def asleep(self, seconds: float) -> Coroutine[Any, Any, None]:
        return asyncio.sleep(seconds)


class SharedTime:
    """Unix seconds as all workers count them: the store's time and what has passed since.

    It never goes back. Until a store has told its time, it is the machine's.
    """

    def __init__(self, clock: Clock) -> None:
        self._monotonic = clock.monotonic
        self._offset = clock.time() - clock.monotonic()
        self._latest = 0.0

    def __call__(self) -> float:
        now = self._offset + self._monotonic()
        if now < self._latest:
            return self._latest
        self._latest = now
        return now

    def set(self, now: float) -> None:
        """The store says that it is now so late."""
        self._offset = now - self._monotonic()


class AsyncDoor:
    """Entered from a task."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    # No coroutine around the clock's: a worker may follow ten thousand jobs, all of them asleep.
    def sleep(self, seconds: float) -> Coroutine[Any, Any, None]:
        return self._clock.asleep(seconds)

    async def offload(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        running = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            # The thread goes on: what it opens must be there to be closed. It has a moment, since
            # a cancelled caller does not wait for a pipe that nobody writes to.
            await asyncio.wait([running], timeout=1.0)
            raise

    async def foreign(self, awaitable: Awaitable[T], seconds: float | None = None) -> T:
        async with asyncio.timeout(seconds):
            return await awaitable

    async def hear(self, future: Future[T], seconds: float) -> T:
        if future.done():
            return future.result()
        async with asyncio.timeout(seconds):
            return await asyncio.wrap_future(future)

    async def together(self, coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
        return [task.result() for task in tasks]


class BlockingDoor:
    """Entered from a thread; `pool` makes the threads for what is done at once."""

    def __init__(self, clock: Clock, pool: Callable[[int], Executor] = ThreadPoolExecutor) -> None:
        self._clock = clock
        self._pool = pool

    async def sleep(self, seconds: float) -> None:
        self._clock.sleep(seconds)

    async def offload(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return work(*args, **kwargs)

    async def foreign(self, awaitable: Awaitable[T], seconds: float | None = None) -> T:
        async def only() -> T:
            return await awaitable

        return step(only())

    async def hear(self, future: Future[T], seconds: float) -> T:
        return future.result(seconds)

    async def together(self, coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
        if not coroutines:
            return []
        with self._pool(len(coroutines)) as pool:
            running = [
                pool.submit(contextvars.copy_context().run, step, coroutine)
                for coroutine in coroutines
            ]
        return [future.result() for future in running]


def step(coroutine: Coroutine[Any, Any, T]) -> T:
    """Carry a coroutine that never suspends to its end.

    Raises `TypeError` for one that does: something of the caller's needs an event loop, and so
    the async twin of the method.
    """
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        coroutine.close()
    raise TypeError("this needs an event loop; call the async method (the one with an `a`)")
