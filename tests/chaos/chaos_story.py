"""A run as its journals tell it: calls with all that belongs to them, blows, books.

Nothing is judged here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from chaos_journal import Line, read

__all__ = ["Call", "Job", "Span", "Story", "overlap"]

Span = tuple[float, float]
FOREVER = float("inf")


@dataclass
class Call:
    """What a worker asked of its router once."""

    name: str
    worker: str
    begins: Line
    ended: Line | None = None
    attempts: list[Line] = field(default_factory=list)
    grants: list[Line] = field(default_factory=list)

    @property
    def mark(self) -> str:
        """What its job is known by at the provider: its key, or else its name."""
        return self.begins["key"] or self.name

    @property
    def how(self) -> str:
        return "nothing" if self.ended is None else str(self.ended["how"])

    @property
    def error(self) -> str | None:
        return None if self.ended is None else self.ended.get("error")

    @property
    def began(self) -> float:
        return float(self.begins["at"])

    @property
    def ends(self) -> float:
        return FOREVER if self.ended is None else float(self.ended["at"])


@dataclass(frozen=True)
class Job:
    """A job in the provider's books, and the slot that its call had."""

    made: Line
    call: Call | None
    grant: Line | None

    @property
    def started(self) -> float:
        return float(self.made["started"])

    @property
    def granted(self) -> float:
        return self.started if self.grant is None else float(self.grant["at"])

    @property
    def local(self) -> bool:
        """Whether a worker gave itself the slot, since Redis did not answer."""
        return self.grant is not None and bool(self.grant["local"])


class Story:
    """Reads the journals of a folder. Times are of the clock that all processes share."""

    def __init__(self, folder: Path) -> None:
        self.fleet = list(read(folder / "fleet.jsonl"))
        self.books = list(read(folder / "provider.jsonl"))
        paths = sorted(folder.glob("w*.jsonl"))
        self.workers = {path.stem: list(read(path)) for path in paths}
        self.calls: dict[str, Call] = {}
        for worker, lines in self.workers.items():
            self._take(worker, lines)
        self.accepted = [line for line in self.books if line["what"] == "accepted"]
        self.requests = [line for line in self.books if line["what"] == "request"]
        self.owners = {line["native"]: line["account"] for line in self.accepted}
        self.made_by_call: dict[str, list[Line]] = defaultdict(list)
        self.made_by_mark: dict[str, list[Line]] = defaultdict(list)
        for line in self.accepted:
            self.made_by_call[line["call"]].append(line)
            self.made_by_mark[line["mark"]].append(line)
        self.made = {line["native"]: line for line in self.accepted}
        self.killed = {one["worker"]: one["at"] for one in self._told("killed")}
        self.voids = [*self._spans("redis flushing", "redis flushed")]
        self.voids += self._spans("redis killed", "redis started")
        self.frozen = [*self._spans("redis frozen", "redis thawed")]
        self.redis_blows = self._redis_blows()
        self.stops = {
            worker: [*self._spans("stopped", "goes on", worker)] for worker in self.workers
        }

    def _take(self, worker: str, lines: Iterable[Line]) -> None:
        for line in lines:
            name = line.get("call")
            if line["what"] == "begins":
                self.calls[line["call"]] = Call(line["call"], worker, line)
            elif name not in self.calls:
                continue
            elif line["what"] == "ended":
                self.calls[name].ended = line
            elif line["what"] == "attempted":
                self.calls[name].attempts.append(line)
            elif line["what"] == "granted":
                self.calls[name].grants.append(line)

    def _told(self, *what: str, worker: str | None = None) -> Iterator[Line]:
        for line in self.fleet:
            if line["what"] in what and worker in (None, line.get("worker")):
                yield line

    def _spans(self, begins: str, ends: str, worker: str | None = None) -> Iterator[Span]:
        """From each such beginning to the end after it."""
        since: float | None = None
        for line in self._told(begins, ends, worker=worker):
            if line["what"] == begins:
                since = line["at"] if since is None else since
            elif since is not None:
                yield since, line["at"]
                since = None
        if since is not None:
            yield since, FOREVER

    def jobs(self, account: str) -> list[Job]:
        """An account's jobs in the order they began."""
        found = []
        for made in self.accepted:
            if made["account"] == account and "started" in made:
                call = self.calls.get(made["call"])
                found.append(Job(made, call, _grant(call, made)))
        return sorted(found, key=lambda job: job.started)

    def _redis_blows(self) -> list[Span]:
        """When Redis was away, forgot, or lost the connections through the proxy."""
        cuts = [(line["at"], line["at"]) for line in self._told("cut") if line["way"] == "redis"]
        return [*self.voids, *self.frozen, *cuts]

    def lives(self) -> dict[str, Span]:
        """From when to when there was each worker."""
        began = {line["worker"]: line["at"] for line in self._told("started")}
        return {worker: (at, self.killed.get(worker, FOREVER)) for worker, at in began.items()}

    def of(self, names: Iterable[str]) -> str:
        """All that was written of these calls, marks or natives, with the blows meanwhile."""
        wanted = set(names)
        for call in self.calls.values():
            if call.name in wanted or call.mark in wanted:
                wanted |= {call.name, call.mark}
        lines = [
            (line, who)
            for who, told in [*self.workers.items(), ("provider", self.books)]
            for line in told
            if wanted & {line.get("call"), line.get("key"), line.get("mark"), line.get("native")}
            or wanted.intersection(line.get("named", ()))
            or (line["what"] in ("closed", "loop ends", "vitals") and who in wanted)
        ]
        if not lines:
            return ""
        first = min(line["at"] for line, _ in lines) - 2.0
        last = max(line["at"] for line, _ in lines) + 1.0
        lines += [(line, "fleet") for line in self.fleet if first <= line["at"] <= last]
        began = self.fleet[0]["at"]
        return "\n".join(
            f"{line['at'] - began:9.3f}  {who:8}  {_shown(line)}"
            for line, who in sorted(lines, key=lambda told: float(told[0]["at"]))
        )


def _grant(call: Call | None, made: Line) -> Line | None:
    """The slot that a job was accepted in: the last one that its call got there before."""
    before = [
        grant
        for grant in (call.grants if call is not None else ())
        if grant["account"] == made["account"] and grant["at"] <= made["started"]
    ]
    return before[-1] if before else None


def _shown(line: Line) -> str:
    told = {key: value for key, value in line.items() if key not in ("at", "what")}
    return f"{line['what']} " + " ".join(f"{key}={value}" for key, value in told.items())


def overlap(one: Span, other: Span) -> float:
    """Seconds that two spans have in common."""
    return max(min(one[1], other[1]) - max(one[0], other[0]), 0.0)
