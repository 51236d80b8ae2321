"""The thread that owns the store: it turns, so that no call has to.

    rung by a call (a lease, an ejection) ──┐
    rung by a sibling's ejection (pub/sub) ─┼──► turn ──► turn ──► …
    a second has passed ────────────────────┘

It starts with the first call and dies with the process. What the store does to it, it takes: one
line in the log when the store goes out of reach and one when it is back, and between them it tries
again, more and more slowly, down to once in a second.

A second thread listens where the store can tell at once that a sibling has news, and takes in what
it is told. It only hurries: a store that cannot tell, or whose listener is cut off, is asked each
second all the same.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Generator
from typing import Protocol, runtime_checkable

from router import _logs
from router.state.sharing import Sharing, Told

__all__ = ["Keeper", "Tells"]

log = logging.getLogger("router")

TURN_SECONDS = 1.0
FIRST_RETRY = 0.1
LONGEST_RETRY = 1.0
# At the end a store that has failed so often in a row, so many seconds apart, is given up.
LAST_TRIES = 5
LAST_RETRY = 0.05


@runtime_checkable
class Tells(Protocol):
    """A store that can tell when somebody has news."""

    def listen(self) -> Generator[Told, None, None]:
        """What workers tell, as they have news, and nothing once it listens; blocks in between.

        Raises `OSError` when it is cut off, and ends when it is told to `hush`.
        """

    def hush(self) -> None:
        """End the listening, from another thread."""


class Connection(Protocol):
    """What a store stands on, where it is ours to close."""

    def close(self) -> None: ...
    def after_fork(self) -> None: ...


class Keeper:
    """Turns a worker's sharing in the background. `own` is its connection, unless the caller's."""

    def __init__(self, sharing: Sharing, where: str, own: Connection | None = None) -> None:
        self._sharing = sharing
        self._where = where
        self._own = own
        self._begin()

    def _begin(self) -> None:
        self._starting = threading.Lock()
        self._life: _Life | None = None

    def after_fork(self) -> None:
        """In a child process, which has no thread yet."""
        self._sharing.ring = _nobody
        if self._own is not None:
            self._own.after_fork()
        self._begin()

    def start(self) -> None:
        """Begin to turn, unless it has begun."""
        if self._life is not None:
            return
        with self._starting:
            if self._life is None:
                self._life = _Life(self._sharing, self._where)
                self._sharing.ring = self._life.rung.set
                self._life.start()

    def stop(self, seconds: float = 1.0) -> None:
        """Turn until nothing is left untold, and end. A later call starts anew."""
        with self._starting:
            life, self._life = self._life, None
            if life is not None:
                self._sharing.ring = _nobody
        if life is not None:
            life.stop(seconds)
        # It may have been used without the thread: a look at the whole fleet asks by itself.
        if self._own is not None:
            self._own.close()


def _nobody() -> None:
    """Nobody is there to be rung."""


class _Life:
    """From one start to one stop: the two threads and what they share."""

    def __init__(self, sharing: Sharing, where: str) -> None:
        self._sharing = sharing
        self._where = where
        self.rung = threading.Event()
        self._stopping = threading.Event()
        self._ends = 0.0
        self._away = False
        self._turner = threading.Thread(target=self._turns, name="router-state", daemon=True)
        self._listener = threading.Thread(target=self._listens, name="router-news", daemon=True)

    def start(self) -> None:
        self._turner.start()
        if isinstance(self._sharing.store, Tells):
            self._listener.start()

    def stop(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds
        self._stopping.set()
        self.rung.set()
        self._wait_for(self._turner, seconds)
        if isinstance(self._sharing.store, Tells):
            with contextlib.suppress(Exception):
                self._sharing.store.hush()
            self._wait_for(self._listener, seconds)

    @staticmethod
    def _wait_for(thread: threading.Thread, seconds: float) -> None:
        # Who closes may have been told of something in the thread itself.
        if thread is not threading.current_thread():
            thread.join(seconds)

    # Turning ------------------------------------------------------------------------------------

    def _turns(self) -> None:
        retry = FIRST_RETRY
        failures = 0
        while True:
            ending = self._stopping.is_set()
            more = self._turn(at_last=ending)
            failures = failures + 1 if self._away and ending else 0
            if self._is_over(failures, ending=ending):
                return
            if self._away:
                # Not hurried by what rings: a store that fails at once would be asked without end.
                if self._stopping.wait(retry):
                    time.sleep(LAST_RETRY)
                retry = min(2 * retry, LONGEST_RETRY)
                continue
            retry = FIRST_RETRY
            if not more and not ending:
                self.rung.wait(TURN_SECONDS)
            self.rung.clear()

    def _is_over(self, failures: int, *, ending: bool) -> bool:
        """Whether the thread may end: all is told, or the time is up, or nobody listens.

        One turn is not always enough: where the answer to the one before was lost, it tells that
        one's batch again, and what was learned since is still to be told.
        """
        if not self._stopping.is_set():
            return False
        if time.monotonic() >= self._ends or failures >= LAST_TRIES:
            return True
        return ending and not self._away and not self._sharing.has_to_tell

    def _turn(self, *, at_last: bool) -> bool:
        try:
            more = self._sharing.step(at_last=at_last)
        except BaseException as exc:  # noqa: BLE001  (whatever it is, the thread must live)
            self._say(f"{exc}" or type(exc).__name__)
            return False
        self._say(None)
        return more

    def _say(self, why: str | None) -> None:
        """One line for each change of state."""
        before, self._away = self._away, why is not None
        if self._away and not before:
            log.warning(
                "shared state at %s is out of reach, calls go on with what this worker knows: %s",
                self._where,
                why,
                extra=_logs.fields("state-away"),
            )
        elif before and not self._away:
            extra = _logs.fields("state-back")
            log.warning("shared state at %s is back", self._where, extra=extra)

    # Listening ----------------------------------------------------------------------------------

    def _listens(self) -> None:
        store = self._sharing.store
        assert isinstance(store, Tells)
        retry = FIRST_RETRY
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                with contextlib.closing(store.listen()) as heard:
                    for told in heard:
                        self._sharing.hear(told)
                        if self._stopping.is_set():
                            return
            except BaseException as exc:  # noqa: BLE001  (the turns go on, and say what is to be said)
                if not self._stopping.is_set():
                    extra = _logs.fields("news-away")
                    log.debug("cut off from news at %s: %s", self._where, exc, extra=extra)
            if time.monotonic() - began > LONGEST_RETRY:
                retry = FIRST_RETRY
            self._stopping.wait(retry)
            retry = min(2 * retry, LONGEST_RETRY)
