"""Who sends under an idempotency key, as values: a claim, what stands under a key, how it ended.

    nothing ──claim──► sending ──conclude──► accepted     kept for a day, with our id of the job
                          │    ──conclude──► unknown      kept for a day: nobody may send again
                          │    ──conclude──► nothing      surely refused: the key is free
                          └──not renewed───► unknown      by the time alone; nothing is written

A claim and the note that something is being sent are one write, so nobody who dies in between
leaves a key that looks free. Keys and fingerprints are digests: what they were made of is known to
the callers only.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

__all__ = [
    "ACCEPTED",
    "FREE",
    "RECORD_SECONDS",
    "SENDING",
    "UNKNOWN",
    "Claim",
    "Claimed",
    "Conclude",
    "Record",
    "Renew",
    "digest_of",
]

RECORD_SECONDS = 86_400
"""How long what stands under a key is kept after it was last written."""

SENDING = "sending"
ACCEPTED = "accepted"
UNKNOWN = "unknown"
FREE = "free"
"""The end of a claim under which surely nothing was accepted. No record is ever in this state."""


def digest_of(text: str) -> str:
    """What is known of a caller's words: they can be known again by it, and not be read."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Claim:
    """Ask to be the one who sends under a key. It lapses after `seconds`, unless it is renewed.

    `key` and `fingerprint` are hex digests. A `token` is for one claim: after it was given up with
    `FREE` it owns nothing any more, so that a claim that arrives after it was given up, as from
    behind a frozen connection, is no claim.

    One for 0 seconds only looks: nothing is written, and it is answered as the asker's own where
    nothing stands.
    """

    key: str
    token: str
    fingerprint: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Record:
    """What stands under a key; `state` is `sending`, `accepted` or `unknown`.

    `at` is when it was claimed (shared Unix seconds). `id` is ours, of the job that was accepted.
    `deployment` and `account` are where it was last sent to, as far as that is known.
    """

    fingerprint: str
    token: str
    state: str
    at: float
    id: str = ""
    operation: str = ""
    deployment: str = ""
    account: str = ""

    def told(self, lapses: float, now: float) -> Record:
        """How it is answered: who sends and has not said so for too long may be dead."""
        lapsed = self.state == SENDING and lapses <= now
        return replace(self, state=UNKNOWN) if lapsed else self


@dataclass(frozen=True, slots=True)
class Claimed:
    """The answer to a `Claim`: whether it is now the asker's to send, and what stands there."""

    mine: bool
    record: Record


@dataclass(frozen=True, slots=True)
class Renew:
    """Still sending, for `seconds` more; and where to.

    Where the record is gone it is written anew, as in a store that was emptied, unless the claim
    was given up. It changes nothing under another's token, or after the end was told. A claim that
    had lapsed stands again: its owner lives, and is about to tell how it ends.
    """

    key: str
    token: str
    fingerprint: str
    seconds: float
    at: float
    operation: str = ""
    deployment: str = ""
    account: str = ""

    @property
    def gives_back(self) -> bool:
        return False

    @property
    def record(self) -> Record:
        return Record(
            self.fingerprint,
            self.token,
            SENDING,
            self.at,
            "",
            self.operation,
            self.deployment,
            self.account,
        )


@dataclass(frozen=True, slots=True)
class Conclude:
    """How the sending under a claim has ended: `accepted`, `unknown` or `free`.

    The first two are written, also where the record is gone or has lapsed, but never over another
    token's record, and never over an acceptance. `free` deletes the record, if it is the token's
    own and was not accepted.
    """

    key: str
    token: str
    fingerprint: str
    state: str
    at: float
    id: str = ""
    operation: str = ""
    deployment: str = ""
    account: str = ""

    @property
    def gives_back(self) -> bool:
        # Others may wait to hear how it ended.
        return True

    @property
    def record(self) -> Record:
        return Record(
            self.fingerprint,
            self.token,
            self.state,
            self.at,
            self.id,
            self.operation,
            self.deployment,
            self.account,
        )
