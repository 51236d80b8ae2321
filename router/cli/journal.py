"""What became of each call, and why: taken down from the router's events as they come.

A reason is found at the moment of the pick, by `explain`, which knows then what the pick knew. The
calls that start something have a line each; the free reads are counted by operation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from router.cli import look
from router.events import Attempted, Event, Picked
from router.inspection import Explained
from router.router import Router
from router.types import Operation

__all__ = ["Journal", "Line"]

SUCCESS = "success"


@dataclass
class Line:
    """One submit, or all reads of a kind."""

    name: str
    operation: Operation
    reasons: list[str] = field(default_factory=list)
    attempts: list[Attempted] = field(default_factory=list)

    @property
    def deployments(self) -> list[str]:
        """Who served, without those who failed."""
        return list(dict.fromkeys(a.deployment for a in self.attempts if a.result == SUCCESS))

    @property
    def calls(self) -> int:
        """How many calls ended well: each has one success."""
        return sum(attempt.result == SUCCESS for attempt in self.attempts)

    @property
    def failures(self) -> list[Attempted]:
        return [attempt for attempt in self.attempts if attempt.result != SUCCESS]

    @property
    def seconds(self) -> float:
        """Spent in exchanges, all together."""
        return sum(attempt.seconds for attempt in self.attempts)

    @property
    def why(self) -> str:
        """The last reason: the one for whoever served."""
        if self.operation.is_submit:
            return self.reasons[-1]
        return "; ".join(["they own the videos", *_survived(self.failures)])


class Journal:
    """An `on_event` hook. Calls are told apart by `metadata={"call": name}`.

    `router` and `asked` (what a generation's routing depends on) are set before the first of them.
    """

    router: Router

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}
        self.asked: Mapping[str, Any] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Picked):
            line = self._line(event)
            line.reasons.append(self._why(event, line))
        elif isinstance(event, Attempted):
            self._line(event).attempts.append(event)

    def _line(self, event: Picked | Attempted) -> Line:
        name = (event.metadata or {}).get("call", event.operation)
        return self.lines.setdefault(name, Line(name, Operation(event.operation)))

    def _why(self, picked: Picked, line: Line) -> str:
        operation = Operation(picked.operation)
        if operation is Operation.CREATE_CHARACTER:
            return "a copy in each account"
        if operation is not Operation.GENERATION:
            return "it owns the video"
        if line.failures:
            return f"{_said(line.failures[-1])}, went on to {picked.deployment}"
        explanation = self.router.explain(operation, **self.asked)
        return reason(picked.deployment, explanation.candidates)


def reason(picked: str, candidates: Sequence[Explained]) -> str:
    """Why this one, in few words, by what `explain` knew of all at that moment."""
    out = [one.deployment for one in candidates if one.verdict == "ejected"]
    means = {one.deployment: _mean(one) for one in candidates if one.deployment not in out}
    busy = [one.deployment for one in candidates if one.facts["in_flight"]]
    mine = means.get(picked)
    known = sorted((mean, name) for name, mean in means.items() if mean is not None)
    if mine is None:
        return f"not tried yet; {look.listed(busy)} busy" if busy else "none tried yet: by lot"
    if known[0][1] == picked:
        others = ", ".join(f"{name} {mean * 1000:.0f}" for mean, name in known[1:])
        words = f"quickest, {look.seconds(mine)}" + (f" ({others})" if others else "")
    else:
        quicker = [name for mean, name in known if mean < mine]
        words = f"next best, {look.seconds(mine)}: {look.listed(quicker)} busy"
    return words + (f"; {look.listed(out)} out" if out else "")


def _mean(candidate: Explained) -> float | None:
    latency = candidate.facts["latency"].get(str(Operation.GENERATION))
    return latency["mean"] if latency else None


def _said(failed: Attempted) -> str:
    what = f"answered {failed.status}" if failed.status else "broke off"
    return f"{failed.deployment} {what}"


def _survived(failures: Sequence[Attempted]) -> list[str]:
    counted = Counter(map(_said, failures))
    times = {1: "once", 2: "twice"}
    return [f"{what} {times.get(n, f'{n} times')}, asked again" for what, n in counted.items()]
