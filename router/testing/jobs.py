"""What an account owns at the provider: jobs, which become videos, and characters.

A job is a value and its progress a function of the clock, so nothing runs in the background: a job
of 300 seconds is over as soon as an injected clock says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from router.testing.faults import JobFails, NeverEnds

__all__ = ["KEPT_SECONDS", "Character", "Job", "Stage", "Status"]

Status = Literal["queued", "in_progress", "completed", "failed"]

QUEUED_SHARE = 0.1
"""The part of its time a job stands in the queue; real queues vary, tests want to know."""

KEPT_SECONDS = 3600.0
"""How long a finished video can be fetched: OpenAI keeps it for an hour."""


@dataclass(frozen=True)
class Stage:
    """Where a job stands at one moment."""

    status: Status
    progress: int = 0
    """Percent."""
    word: str | None = None
    """What the dialect shall call this status instead of its own word."""
    failure: JobFails | None = None

    @property
    def running(self) -> bool:
        return self.status in ("queued", "in_progress")


@dataclass(frozen=True)
class Job:
    """What a generation, edit, extension or remix started."""

    id: str
    dialect: str
    operation: str
    account: str
    model: str
    prompt: str
    seconds: int
    """Length of the video; of an extension the stitched total."""
    size: str
    source: str | None
    """The id of the video this one was made from."""
    token: str
    """Opens the video's link without a key, as signed links do."""
    started: float
    """On the monotonic clock, which decides the progress."""
    created_at: float
    """On the wall clock, which is what the answers tell."""
    lasts: float
    """Seconds from acceptance to the end."""
    fate: JobFails | NeverEnds | None = None

    @property
    def completed_at(self) -> float:
        return self.created_at + self.lasts

    def stage(self, now: float) -> Stage:
        """Where the job stands at `now`, a reading of the monotonic clock."""
        elapsed = now - self.started
        if elapsed < self.lasts:
            status: Status = "queued" if elapsed < self.lasts * QUEUED_SHARE else "in_progress"
            progress = 0 if status == "queued" else min(99, int(100 * elapsed / self.lasts))
        elif self.fate is None:
            return Stage("completed", 100)
        elif isinstance(self.fate, JobFails):
            return Stage("failed", 100, self.fate.status, self.fate)
        else:
            status, progress = "in_progress", 99
        word = self.fate.status if isinstance(self.fate, NeverEnds) else None
        return Stage(status, progress, word if status == "in_progress" else None)

    def kept(self, now: float, seconds: float = KEPT_SECONDS) -> bool:
        """Whether the video, kept for so long, can still be fetched at `now`, monotonic as well."""
        return now < self.started + self.lasts + seconds


@dataclass(frozen=True)
class Character:
    id: str
    name: str
    created_at: float
