"""What stands under idempotency keys, in this process."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from router.claims import (
    ACCEPTED,
    FREE,
    RECORD_SECONDS,
    SENDING,
    UNKNOWN,
    Claim,
    Claimed,
    Conclude,
    Record,
    Renew,
)

__all__ = ["Records"]

MOST_RECORDS = 10_000
FREED_SECONDS = 600.0
"""For so long a claim that was given up is known to be, should it or its renewals arrive late."""


@dataclass(slots=True)
class _Kept:
    record: Record
    lapses: float
    written: float


class Records:
    """By key. Not safe under threads. Of too many the oldest that are concluded go first."""

    def __init__(self) -> None:
        # Each in the order of their last writing, so that what is over stands first.
        self._sending: OrderedDict[str, _Kept] = OrderedDict()
        self._concluded: OrderedDict[str, _Kept] = OrderedDict()
        self._freed: OrderedDict[str, float] = OrderedDict()

    def claim(self, claim: Claim, now: float) -> Claimed:
        kept = self._of(claim.key)
        if kept is not None:
            record = kept.record.told(kept.lapses, now)
            return Claimed(record.token == claim.token and record.state == SENDING, record)
        mine = claim.token not in self._freed
        record = Record(claim.fingerprint, claim.token, SENDING if mine else UNKNOWN, now)
        if mine and claim.seconds > 0:
            self._write(claim.key, record, now + claim.seconds, now)
        return Claimed(mine, record)

    def renew(self, renew: Renew, now: float) -> None:
        kept = self._of(renew.key)
        if kept is None:
            stands = renew.token not in self._freed
        else:
            stands = kept.record.token == renew.token and kept.record.state == SENDING
        if stands:
            self._write(renew.key, renew.record, now + renew.seconds, now)

    def conclude(self, end: Conclude, now: float) -> None:
        kept = self._of(end.key)
        own = kept is None or kept.record.token == end.token
        if kept is not None and own and kept.record.state == ACCEPTED:
            return
        if end.state == FREE:
            if own:
                self._drop(end.key)
            self._freed[end.token] = now
            self._freed.move_to_end(end.token)
            if len(self._freed) > MOST_RECORDS:
                self._freed.popitem(last=False)
        elif own:
            self._write(end.key, end.record, now, now)

    def forget(self, now: float) -> None:
        """Let go of what nobody needs any more."""
        for kept in (self._sending, self._concluded):
            while kept and next(iter(kept.values())).written <= now - RECORD_SECONDS:
                kept.popitem(last=False)
        while self._freed and next(iter(self._freed.values())) <= now - FREED_SECONDS:
            self._freed.popitem(last=False)

    def _of(self, key: str) -> _Kept | None:
        return self._sending.get(key) or self._concluded.get(key)

    def _drop(self, key: str) -> None:
        self._sending.pop(key, None)
        self._concluded.pop(key, None)

    def _write(self, key: str, record: Record, lapses: float, now: float) -> None:
        self._drop(key)
        kept = self._sending if record.state == SENDING else self._concluded
        kept[key] = _Kept(record, lapses, now)
        if len(self._sending) + len(self._concluded) > MOST_RECORDS:
            (self._concluded or self._sending).popitem(last=False)
