"""Deployments that retire, told while a worker runs.

A configuration may be read once in months, and its dates pass meanwhile. Who goes out by the
calendar goes in silence: no call fails, and nobody decides anything. So whoever comes by, a call or
the thread that looks after the shared state, asks whether something is due to be told.

         30 days before          the last day begins
    ───────────┬───────┬───────┬───────┬──────────────►
               log, once a day         log, and `Ejected`
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable

from router import _logs
from router.config import LAST_DAY_SECONDS, WARNED_SECONDS, retirement
from router.fleet import Fleet, Member
from router.learning import Learning

__all__ = ["Retiring"]

log = logging.getLogger("router")

DAY = 86_400.0


class Retiring:
    """Tells of a router's deployments, from any thread, each thing once.

    `now` is the machine's own clock, as for the log of a configuration that is read: days count
    here, and the shared time is not to be asked for before others have been met.
    """

    def __init__(self, now: Callable[[], float], learning: Learning) -> None:
        self._now = now
        self._learning = learning
        self._members: dict[str, Member] = {}
        # When there is something to tell of whom; no more once it was told to be out.
        self._next: dict[str, float] = {}
        self._due = math.inf
        # Of these the log has told, and of those `Ejected`.
        self._logged: set[str] = set()
        self._out: set[str] = set()
        self.after_fork()

    def after_fork(self) -> None:
        """In a child process, where nobody holds the lock."""
        self._lock = threading.Lock()

    def begin(self, fleet: Fleet) -> None:
        """A configuration was read, and the log has told who retires by it."""
        now = self._now()
        dated = {n: m for n, m in fleet.members.items() if m.deployment.retires_at is not None}
        out = {name for name, member in dated.items() if now >= member.health.retires}
        with self._lock:
            back = self._out - out
            self._members, self._logged, self._out = dated, out, self._out & out
            # Whoever listens hears at the next call of those who were out before.
            self._next = {
                name: now if name in out else _after(member, now)
                for name, member in dated.items()
                if name not in self._out
            }
            self._due = min(self._next.values(), default=math.inf)
        for name in back & fleet.members.keys():
            self._learning.retires_no_more(fleet.members[name])

    def look(self) -> None:
        """Tell what is due; next to nothing where nothing is."""
        if self._due == math.inf or (now := self._now()) < self._due:
            return
        with self._lock:
            due = [(n, self._members[n]) for n, at in self._next.items() if at <= now]
            self._next.update((name, _after(member, now)) for name, member in due)
            self._due = min(self._next.values(), default=math.inf)
            out = [member for _, member in due if now >= member.health.retires]
            self._out.update(member.deployment.id for member in out)
            told = [member for name, member in due if name not in self._logged]
        # Without the lock: who is told may well make a call.
        for member in told:
            one = member.deployment
            extra = _logs.fields("retires", deployment=one.id, account=one.account)
            log.warning("%s %s", one.id, retirement(one, now), extra=extra)
        for member in out:
            self._learning.retired(member)


def _after(member: Member, now: float) -> float:
    """When to tell of a deployment next."""
    ends = member.health.retires
    warned = ends + LAST_DAY_SECONDS - WARNED_SECONDS
    if now < warned:
        return warned
    return min(now + DAY, ends) if now < ends else math.inf
