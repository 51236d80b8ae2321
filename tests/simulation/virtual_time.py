"""Time that passes when nothing else can happen.

One event loop runs everything. Where it would wait for its next timer, it sets its clock forward
instead; so a day takes as long as what happens in it, and the order of all that happens follows
from the seed. Threads of the blocking door take turns with the loop: exactly one of them, or the
loop, runs at any moment.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
import threading
import types
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Executor, Future
from typing import Any, Self

__all__ = ["Killed", "Stuck", "TurnPool", "Turns", "VirtualLoop", "struck"]

# A timeline of an hour makes some ten thousand turns of the loop; one that goes round makes more.
MOST_TURNS = 500_000


class Stuck(Exception):  # noqa: N818
    """Something waits for what will never come, or goes round without end."""


class Killed(BaseException):
    """Ends a thread of a dead worker when the timeline is over; nothing is to catch it."""


class _NoSelector(selectors.BaseSelector):
    """No file is ever ready; waiting is what moves the time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[Any]:
        self._turns += 1
        if timeout is None:
            raise Stuck("everything waits, and nothing is due")
        if self._turns > MOST_TURNS:
            raise Stuck(f"no end after {MOST_TURNS} turns of the loop")
        self.now += max(timeout, 0.0)
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, 0, 0, None)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return {}


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock is set forward instead of waited for."""

    def __init__(self) -> None:
        self._machine = _NoSelector()
        super().__init__(self._machine)
        # Timers due within a microsecond are due: sums of floats are never quite the same.
        self._clock_resolution = 1e-6

    def time(self) -> float:
        return self._machine.now

    def run_in_executor(  # type: ignore[override]  # what would go to a thread is done at once
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as exc:  # noqa: BLE001  (it belongs to whoever awaits)
            done.set_exception(exc)
        return done


@types.coroutine
def struck(coroutine: Any, at_await: int, strike: Callable[[], object]) -> Generator[Any, Any, Any]:
    """Run a coroutine, and call `strike` where it suspends for the n-th time, counted from one."""
    steps = coroutine.__await__()
    sent, thrown, awaits = None, None, 0
    while True:
        try:
            waits_for = steps.send(sent) if thrown is None else steps.throw(thrown)
        except StopIteration as end:
            return end.value
        awaits += 1
        if awaits == at_await:
            strike()
        sent, thrown = None, None
        try:
            sent = yield waits_for
        except BaseException as exc:  # noqa: BLE001  (a cancellation goes where it was sent)
            thrown = exc


class _Thread:
    """One thread, what it does, and its turns."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.turn = threading.Semaphore(0)
        self.result: Future[Any] = Future()
        self.then: Callable[[], object] = lambda: None
        self.killed = False


class Turns:
    """Threads that take turns with the loop, and with each other only through it."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._loops_turn = threading.Semaphore(0)
        self._here = threading.local()
        self.threads: list[_Thread] = []

    async def run(self, work: Callable[[], Any]) -> Any:
        """Do blocking work in a thread of its own; what it waits for is virtual time."""
        done = self._loop.create_future()
        thread = self.start(work)
        thread.then = lambda: done.done() or done.set_result(None)
        await done
        return thread.result.result()

    def pool(self, threads: int) -> Executor:
        return TurnPool(self)

    def start(self, work: Callable[[], Any]) -> _Thread:
        """From the loop, or from a thread that has the turn."""
        thread = _Thread(work)
        self.threads.append(thread)
        threading.Thread(target=self._live, args=(thread,), daemon=True).start()
        self._loop.call_soon(self._give, thread)
        return thread

    def sleep(self, seconds: float) -> None:
        """In a thread of ours: let the others have their turns for so long."""
        self._loop.call_later(seconds, self._give, self._here.thread)
        self.park()

    def join(self, thread: _Thread) -> None:
        """In a thread of ours: until another has ended."""
        if not thread.result.done():
            thread.then = functools.partial(self._loop.call_soon, self._give, self._here.thread)
            self.park()

    def park(self) -> None:
        """In a thread of ours: give the turn away, until somebody gives it back."""
        me: _Thread = self._here.thread
        self._loops_turn.release()
        me.turn.acquire()
        if me.killed:
            raise Killed

    def end(self) -> None:
        """End the threads that are parked; the timeline is over."""
        while self.threads:
            for thread in list(self.threads):
                thread.killed = True
                self._give(thread)

    def _live(self, me: _Thread) -> None:
        self._here.thread = me
        me.turn.acquire()
        try:
            if me.killed:
                raise Killed  # noqa: TRY301
            me.result.set_result(me.work())
        except BaseException as exc:  # noqa: BLE001  (it belongs to whoever asks for the result)
            me.result.set_exception(exc)
        self.threads.remove(me)
        me.then()
        self._loops_turn.release()

    def _give(self, thread: _Thread) -> None:
        """In the loop: a turn to this thread, until it parks or ends."""
        if not thread.result.done():
            thread.turn.release()
            self._loops_turn.acquire()


class TurnPool(Executor):
    """A `ThreadPoolExecutor` whose threads take turns."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._running: list[_Thread] = []

    def submit(  # type: ignore[override]  # nobody passes keywords
        self, work: Callable[..., Any], /, *args: Any
    ) -> Future[Any]:
        thread = self._turns.start(functools.partial(work, *args))
        self._running.append(thread)
        return thread.result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for thread in self._running:
            self._turns.join(thread)
