"""The simulated provider: hosts that run jobs in slots, queue the rest, and go wrong on demand."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from benchmarks.quality.timeline import Timeline
from benchmarks.quality.traffic import MEAN_LENGTH, Call

__all__ = ["Host", "Job", "Refusal", "Site"]


@dataclass(frozen=True, slots=True)
class Site:
    """What a host is at first: `slots` jobs at a time, each `pace` seconds per second of video.

    `cap`: with so many jobs running or queued, a further one is answered 429. `price` is in dollars
    per second of video.
    """

    name: str
    slots: int = 4
    pace: float = 10.0
    cap: int | None = None
    account: str | None = None
    price: float | None = None

    @property
    def capacity(self) -> float:
        """Jobs a second, of the usual mix of lengths."""
        return self.slots / (self.pace * MEAN_LENGTH)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is no job, after so many seconds."""

    status: int
    seconds: float = 0.05
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"{}"


@dataclass(slots=True, eq=False)
class Job:
    """A job at a host. `left` is what is still to be done of it, in seconds of work at pace 1."""

    name: str
    call: Call
    host: str
    created_at: float
    left: float
    started_at: float | None = None
    ended_at: float | None = None
    failed: bool = False

    @property
    def status(self) -> str:
        if self.ended_at is not None:
            return "failed" if self.failed else "completed"
        return "queued" if self.started_at is None else "in_progress"


class Host:
    """One deployment's provider. `ended` hears of each job that ends."""

    def __init__(self, timeline: Timeline, site: Site, ended: Callable[[Job], object]) -> None:
        self.site = site
        self.name = site.name
        self.pace = site.pace
        self.up = True
        """Whether it can be asked how jobs are; those that run go on either way."""
        self.refusing: Refusal | None = None
        self.failing_after: float | None = None
        """Seconds after which each job fails, in place of being done."""
        self.once: Refusal | None = None
        """The answer to the next submit, and to no other."""
        self.stall = 0.0
        """Seconds that the answer to the next submit is late."""
        self.drag = 1.0
        """What the next job takes over the usual."""
        self._timeline = timeline
        self._ended = ended
        self._running: dict[Job, int] = {}
        self._waiting: deque[Job] = deque()
        self._since: dict[Job, float] = {}
        self._plan = 0

    @property
    def well(self) -> bool:
        return self.refusing is None and self.failing_after is None

    def answers(self, call: Call) -> tuple[float, Refusal | None]:
        """A submit is sent: seconds until it is answered, and the refusal, if it is one."""
        refusal, self.once = self.once or self.refusing, None
        stall, self.stall = self.stall, 0.0
        return (call.latency if refusal is None else refusal.seconds) + stall, refusal

    def accept(self, call: Call) -> Job | Refusal:
        """A submit has arrived."""
        now = self._timeline.now
        jobs = len(self._running) + len(self._waiting)
        if self.site.cap is not None and jobs >= self.site.cap:
            return Refusal(429, headers={"retry-after": "5"}, body=_body("rate_limit_exceeded"))
        work, self.drag = call.length * call.luck * self.drag, 1.0
        job = Job(f"video_{self.name}_{call.number}", call, self.name, now, work)
        self._waiting.append(job)
        self._fill()
        return job

    def set_pace(self, pace: float) -> None:
        """From now on all jobs go at this pace, those that run as well."""
        for job in self._running:
            self._work(job)
        self.pace = pace
        for job in self._running:
            self._schedule(job)

    def ends(self) -> list[float]:
        """When each running job is going to end, at the present pace."""
        return [self._since[job] + job.left * self.pace for job in self._running]

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self.site.slots:
            job = self._waiting.popleft()
            job.started_at = self._since[job] = self._timeline.now
            self._schedule(job)

    def _work(self, job: Job) -> None:
        now = self._timeline.now
        job.left = max(job.left - (now - self._since[job]) / self.pace, 0.0)
        self._since[job] = now

    def _schedule(self, job: Job) -> None:
        # What was planned for this job before is void.
        self._plan += 1
        self._running[job] = self._plan
        lasts = job.left * self.pace if self.failing_after is None else self.failing_after
        fails = self.failing_after is not None
        self._timeline.after(lasts, self._end, job, self._plan, fails)

    def _end(self, job: Job, plan: int, failed: bool) -> None:
        if self._running.get(job) != plan:
            return
        del self._running[job], self._since[job]
        job.ended_at, job.failed = self._timeline.now, failed
        self._fill()
        self._ended(job)


def _body(code: str) -> bytes:
    return b'{"error": {"code": "%s", "message": "refused"}}' % code.encode()
