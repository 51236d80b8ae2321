"""Idempotency keys, as this worker holds them.

A claim is asked of the store that all workers share; without one it holds in this process. Where a
store is configured and out of reach, nobody can say who else sends under the key, so the call is
refused before anything is sent.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from router.claims import (
    ACCEPTED,
    FREE,
    UNKNOWN,
    Claim,
    Claimed,
    Conclude,
    Record,
    Renew,
    digest_of,
)
from router.errors import StateUnavailableError
from router.fleet import Member
from router.leases import Command
from router.observations import Batch
from router.state import MemoryStore, Sharing, Turn
from router.trip import Held, Side
from router.types import Operation

__all__ = ["Claiming"]

CLAIM_SECONDS = 30.0
"""After so long without renewal a worker that sends is taken for dead. The thread renews with each
turn, so a store may be out of reach for this long without a doubt arising."""
LAPSE_SECONDS = 30.0
"""Where no thread renews, a claim lapses so long after its call's deadline."""
PATIENCE = 1.0
"""Seconds that a call waits for the store's answer. Longer than for a lease, which has something to
fall back on: here the call would be refused, and sending can wait for a moment."""


class Claiming:
    """Asks for keys, renews what is held, and says how it ended. Safe under threads."""

    def __init__(self, sharing: Sharing | None, now: Callable[[], float]) -> None:
        self._sharing = sharing
        self._now = now
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[str, Held] = {}
        self._own = MemoryStore(self._now)
        if self._sharing is not None:
            self._sharing.renewing = self._renewals

    def after_fork(self) -> None:
        """In a child process: the calls under way are the parent's."""
        self._begin()

    # Asking -------------------------------------------------------------------------------------

    async def ask(self, side: Side, key: str, fingerprint: str, seconds: float) -> Claimed:
        """Claim a key for a call that may take so many seconds, or hear what stands under it.

        Raises `StateUnavailableError` where the store does not answer.
        """
        return await self._asked(side, key, fingerprint, self._lapse(seconds), seconds)

    async def look(self, side: Side, key: str) -> Record | None:
        """What stands under a key; `None` where nothing does. Raises `StateUnavailableError`."""
        # A claim that lapses at once is none.
        claimed = await self._asked(side, key, "", 0.0, PATIENCE)
        return None if claimed.mine else claimed.record

    async def _asked(
        self, side: Side, key: str, fingerprint: str, lapse: float, seconds: float
    ) -> Claimed:
        held = self._held.get(key)
        if held is not None:
            # The store may have been emptied, and not know of this call yet.
            return Claimed(False, held.record)
        claim = Claim(key, uuid.uuid4().hex, fingerprint, lapse)
        sharing = self._sharing
        if sharing is None:
            return self._own.turn(Turn("", 0, Batch(), claims=(claim,))).claimed[0]
        if sharing.away is not None:
            raise _out_of_reach(sharing.away)
        future = sharing.claim(claim)
        try:
            return await side.door.hear(future, min(PATIENCE, seconds))
        except BaseException as exc:
            # Granted too late, or granted though the answer was lost: nothing was sent under it.
            future.cancel()
            future.add_done_callback(functools.partial(self._give_back, claim))
            if isinstance(exc, TimeoutError):
                raise _out_of_reach("it does not answer in time") from exc
            if isinstance(exc, OSError):
                raise _out_of_reach(str(exc)) from exc
            raise

    def _lapse(self, seconds: float) -> float:
        renewed = self._sharing is not None and not self._sharing.inline
        return CLAIM_SECONDS if renewed else seconds + LAPSE_SECONDS

    def _give_back(self, claim: Claim, future: Future[Claimed]) -> None:
        if future.cancelled():
            return
        if future.exception() is None and not future.result().mine:
            return
        self._order(Conclude(claim.key, claim.token, claim.fingerprint, FREE, self._now()))

    # Holding ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def holding(self, record: Record, key: str, seconds: float) -> Iterator[Held]:
        """While a call sends under a key that is its own; the end is told however it comes."""
        held = Held(key, record, self._lapse(seconds))
        with self._lock:
            self._held[key] = held
        try:
            yield held
        finally:
            with self._lock:
                self._held.pop(key, None)
                ended = ACCEPTED if held.made else UNKNOWN if held.out else FREE
            if not held.told:
                self._order(_conclusion(held, ended))

    def of(self, key: str | None) -> Held | None:
        """What a call that is under way under this key, as it was written, holds."""
        return None if key is None else self._held.get(digest_of(key))

    def sending(self, held: Held, member: Member, operation: Operation) -> None:
        """The call goes out, to this deployment: where others will look for the job, if need be."""
        deployment = member.deployment
        with self._lock:
            held.out += 1
            held.record = dataclasses.replace(
                held.record,
                operation=str(operation),
                deployment=deployment.id,
                account=deployment.account,
            )
            renewal = _renewal(held)
        self._order(renewal)
        if self._sharing is not None:
            self._sharing.ring()

    def refused(self, held: Held) -> None:
        """One exchange surely led to nothing."""
        with self._lock:
            held.out -= 1

    def accepted(self, held: Held, made: str) -> None:
        """A job was accepted, and has this id; all who ask are to hear of it at once."""
        held.accepted(made)
        held.told = True
        self._order(_conclusion(held, ACCEPTED))

    def found(self, key: str, record: Record, made: str) -> None:
        """The job of a call that nobody knew the end of."""
        held = Held(key, record, 0.0, made=made)
        self._order(_conclusion(held, ACCEPTED))

    def _renewals(self) -> Sequence[Command]:
        with self._lock:
            return [_renewal(held) for held in self._held.values() if not held.told]

    def _order(self, command: Command) -> None:
        if self._sharing is None:
            self._own.turn(Turn("", 0, Batch(), commands=(command,)))
        else:
            self._sharing.order(command)


def _renewal(held: Held) -> Renew:
    record = held.record
    return Renew(
        held.key,
        record.token,
        record.fingerprint,
        held.seconds,
        record.at,
        record.operation,
        record.deployment,
        record.account,
    )


def _conclusion(held: Held, state: str) -> Conclude:
    record = held.record
    return Conclude(
        held.key,
        record.token,
        record.fingerprint,
        state,
        record.at,
        held.made,
        record.operation,
        record.deployment,
        record.account,
    )


def _out_of_reach(why: str) -> StateUnavailableError:
    return StateUnavailableError(
        f"nothing was sent: whether the idempotency key is free is known to the shared state, "
        f"which is out of reach: {why}"
    )
