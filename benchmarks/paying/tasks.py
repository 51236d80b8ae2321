"""What is asked for, and what became of it: by the provider's books, never by what a router says.

A task is one video that somebody wants. A queue delivers it once or more often, and each delivery
is a call to a router. Each task has a prompt of its own, so the books tell whose job is whose.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from router.testing import AcceptedSubmit

__all__ = ["DOLLARS_A_SECOND", "SECONDS", "Counted", "Outcome", "Task", "of_task"]

SECONDS = 4
DOLLARS_A_SECOND = 0.10


@dataclass(frozen=True)
class Task:
    """One video that is wanted; `source` is the video that an edit starts from."""

    name: str
    source: str | None = None

    @property
    def prompt(self) -> str:
        return f"a heron takes off, {self.name}"


@dataclass(frozen=True)
class Outcome:
    """What became of a task.

    `jobs` were accepted for it. `most` is the most that one of its calls led to; `None` where calls
    overlap, so that nobody can tell. `answered`: a call returned an id whose status the provider
    knows. `resumed`: none did, but the error led to one. `errors` are the names of what was raised.
    """

    calls: int
    jobs: int
    answered: bool
    most: int | None = None
    resumed: bool = False
    errors: tuple[str, ...] = ()


def of_task(task: Task, accepted: Iterable[AcceptedSubmit]) -> list[AcceptedSubmit]:
    """What the books have for a task."""
    return [submit for submit in accepted if submit.prompt == task.prompt]


@dataclass(frozen=True)
class Counted:
    """The tasks of one contender in one scenario."""

    outcomes: Sequence[Outcome]

    @property
    def tasks(self) -> int:
        return len(self.outcomes)

    @property
    def calls(self) -> int:
        return sum(one.calls for one in self.outcomes)

    @property
    def jobs(self) -> int:
        return sum(one.jobs for one in self.outcomes)

    @property
    def per_call(self) -> float:
        return self.jobs / self.calls

    @property
    def most_for_a_call(self) -> int | None:
        """`None` where nobody can tell."""
        told = [one.most for one in self.outcomes if one.most is not None]
        return max(told) if len(told) == self.tasks else None

    @property
    def most_for_a_task(self) -> int:
        return max(one.jobs for one in self.outcomes)

    @property
    def answered(self) -> int:
        return sum(one.answered for one in self.outcomes)

    @property
    def resumed(self) -> int:
        return sum(one.resumed for one in self.outcomes)

    @property
    def dollars(self) -> float:
        return self.jobs * SECONDS * DOLLARS_A_SECOND

    @property
    def errors(self) -> dict[str, int]:
        """What was raised to the callers, and how often."""
        raised = [name for one in self.outcomes for name in one.errors]
        return {name: raised.count(name) for name in dict.fromkeys(raised)}
