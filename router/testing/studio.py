"""The provider behind its dialects: accounts with keys and limits, and the work they ask for.

Pure but for the clock and the random generator it was given; the caller holds a lock around it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol

from router.testing.faults import FaultPlan
from router.testing.jobs import Character, Job
from router.testing.messages import Refusal

__all__ = ["AcceptedSubmit", "Account", "Clock", "JobSeconds", "Limits", "Studio"]

JobSeconds = float | Callable[[str, str], float]
"""Seconds a job takes, or a function of (operation, account) that says so."""

RATE_WINDOW = 60.0


class Clock(Protocol):
    """The standard module `time` is one."""

    def monotonic(self) -> float: ...

    def time(self) -> float: ...

    def sleep(self, seconds: float, /) -> None: ...


@dataclass(frozen=True)
class Limits:
    """Of each account; None is no limit."""

    rpm: int | None = None
    """Submits per sliding 60 seconds."""
    max_running_jobs: int | None = None


@dataclass(frozen=True)
class AcceptedSubmit:
    """One submit the provider took on and will bill, whether or not its answer arrived."""

    operation: str
    account: str
    native_id: str
    prompt: str | None
    fields: Mapping[str, Any]


@dataclass
class Account:
    """What belongs to one account, whichever of its keys asks."""

    name: str
    jobs: dict[str, Job] = field(default_factory=dict)
    characters: dict[str, Character] = field(default_factory=dict)
    unfinished: dict[str, Job] = field(default_factory=dict)
    """Those of the jobs that a cap on running jobs has to look at."""
    submits: deque[float] = field(default_factory=deque)
    """When the submits of the last minute were granted."""

    def forget(self) -> None:
        self.jobs.clear()
        self.characters.clear()
        self.unfinished.clear()
        self.submits.clear()


class Studio:
    def __init__(
        self,
        accounts: Mapping[str, str],
        *,
        limits: Limits,
        job_seconds: JobSeconds,
        clock: Clock,
        random: Random,
        faults: FaultPlan,
    ) -> None:
        self._keys = dict(accounts)
        self.accounts = {name: Account(name) for name in accounts.values()}
        self.accepted: list[AcceptedSubmit] = []
        self._limits = limits
        self._job_seconds = job_seconds
        self._clock = clock
        self._random = random
        self._faults = faults

    def account(self, key: str | None) -> Account | None:
        name = self._keys.get(key) if key is not None else None
        return None if name is None else self.accounts[name]

    def owner(self, job_id: str) -> Account | None:
        """Whose job this is, for links that carry no key."""
        return next((one for one in self.accounts.values() if job_id in one.jobs), None)

    def named(self, name: str | None) -> Account:
        """An account by its name, which only one that has no others beside it can do without."""
        if name is None and len(self.accounts) == 1:
            (name,) = self.accounts
        if name not in self.accounts:
            raise ValueError(f"account must be one of {', '.join(self.accounts)}, not {name!r}")
        return self.accounts[name]

    def hex(self) -> str:
        """32 random hex digits."""
        return f"{self._random.getrandbits(128):032x}"

    def now(self) -> float:
        return self._clock.monotonic()

    def wall(self) -> float:
        return self._clock.time()

    def grant(self, account: Account) -> None:
        """Count a submit against the account's requests per minute, or refuse it."""
        limit, now = self._limits.rpm, self.now()
        if limit is None:
            return
        while account.submits and account.submits[0] <= now - RATE_WINDOW:
            account.submits.popleft()
        if len(account.submits) >= limit:
            first = account.submits[0] if account.submits else now
            wait = max(1, math.ceil(first + RATE_WINDOW - now))
            raise Refusal(
                429,
                f"Rate limit reached for account {account.name} on requests per min (RPM): "
                f"Limit {limit}, Used {len(account.submits)}, Requested 1. "
                f"Please try again in {wait}s.",
                type="requests",
                code="rate_limit_exceeded",
                headers={"retry-after": str(wait)},
            )
        account.submits.append(now)

    def start(
        self,
        account: Account,
        *,
        id: str,
        dialect: str,
        operation: str,
        model: str,
        prompt: str,
        seconds: int,
        size: str,
        source: str | None,
        fields: Mapping[str, Any],
    ) -> Job:
        """Accept a job: from here on it runs and is billed."""
        self._check_room(account)
        lasts = self._job_seconds
        job = Job(
            id=id,
            dialect=dialect,
            operation=operation,
            account=account.name,
            model=model,
            prompt=prompt,
            seconds=seconds,
            size=size,
            source=source,
            token=self.hex(),
            started=self.now(),
            created_at=self.wall(),
            lasts=lasts(operation, account.name) if callable(lasts) else lasts,
            fate=self._faults.doom(operation, account.name),
        )
        account.jobs[id] = account.unfinished[id] = job
        self.accepted.append(AcceptedSubmit(operation, account.name, id, prompt, fields))
        return job

    def enroll(
        self, account: Account, *, id: str, name: str, fields: Mapping[str, Any]
    ) -> Character:
        """Accept a character."""
        character = Character(id, name, self.wall())
        account.characters[id] = character
        accepted = AcceptedSubmit("create_character", account.name, id, None, fields)
        self.accepted.append(accepted)
        return character

    def discard(self, account: Account, job: Job) -> None:
        account.jobs.pop(job.id, None)
        account.unfinished.pop(job.id, None)

    def forget(self) -> None:
        self.accepted.clear()
        for account in self.accounts.values():
            account.forget()

    def _check_room(self, account: Account) -> None:
        cap, now = self._limits.max_running_jobs, self.now()
        if cap is None:
            return
        unfinished = account.unfinished.values()
        account.unfinished = {job.id: job for job in unfinished if job.stage(now).running}
        if len(account.unfinished) >= cap:
            raise Refusal(429, "Too many running tasks", type="video_generation_user_error")
