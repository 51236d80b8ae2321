"""The last picks, each with its explanation: an `on_event` hook with a short memory.

The reason is what `explain` says when the call comes (`asking`), put straight with what became of
it. That is as the fleet stood then, which is what a pick goes by; a pick's event would be too late,
since whoever was picked holds by then what this call takes. What the strategy draws by chance it
draws with a generator of its own: where `explain` would have drawn another one that is as good, it
is told so.

No prompt, no key and no id is kept: what was asked is the groups, the length and the size.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from router.events import Attempted, Picked
from router.inspection import Explained, Explanation
from router.router import Router
from router.types import Operation

__all__ = ["ROUTING", "Candidate", "Pick", "Picks", "told"]

# Reads come at every poll, and are no choice where an id names the owner: they are kept apart, so
# that they do not push out what was chosen and paid.
MOST_SUBMITS = 80
MOST_READS = 20
# To explain takes under a millisecond for 30 deployments; a busy proxy spends no more on it.
EXPLAINED_PER_SECOND = 5
_LONGEST_WORD = 80

# What a call's routing depends on, and `explain` takes.
ROUTING = frozenset(
    {
        "model",
        "target_model_names",
        "seconds",
        "size",
        "video",
        "video_id",
        "character_id",
        "characters",
        "input_reference",
        "custom_llm_provider",
        "account",
        "max_cost",
        "fallbacks",
        "tenant",
        "variant",
    }
)


class Candidate(NamedTuple):
    """A deployment's part in a pick."""

    deployment: str
    verdict: str
    reason: str


@dataclass(slots=True)
class Pick:
    """One pick, and what came of it. `change` grows over all picks, with each thing learned.

    `candidates` is `None` where there was nothing to choose, or no time to explain; `why` says it
    in a line. `seconds`, `status` and `result` are the exchange's, `None` while it is under way.
    """

    number: int
    change: int
    at: float
    operation: str
    deployment: str
    account: str
    attempt: int
    waited: float
    asked: Mapping[str, str]
    why: str
    candidates: tuple[Candidate, ...] | None
    result: str | None = None
    status: int | None = None
    seconds: float | None = None
    accepted: str | None = None
    cost: float | None = None

    def plain(self) -> dict[str, Any]:
        """Fit for JSON."""
        return asdict(self)


@dataclass(slots=True)
class _Call:
    """A call under way: what it asked for, why who was to be picked; its picks whose end is to
    come, and who failed it."""

    asked: dict[str, str] = field(default_factory=dict)
    explanation: Explanation | None = None
    unexplained: str = ""
    under_way: dict[tuple[str, str, int], Pick] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


_call: ContextVar[_Call | None] = ContextVar("router.proxy.picks", default=None)


@contextlib.contextmanager
def _within(call: _Call) -> Iterator[None]:
    token = _call.set(call)
    try:
        yield
    finally:
        _call.reset(token)


class Picks:
    """The last picks of this process, of the calls that are made within `asking` or `reading`.

    It hears of calls in the thread of their event loop, and is read there: it has no lock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._numbers = itertools.count(1)
        self._changes = itertools.count(1)
        self._last_change = 0
        self._submits: deque[Pick] = deque(maxlen=MOST_SUBMITS)
        self._reads: deque[Pick] = deque(maxlen=MOST_READS)
        self._explained: deque[float] = deque(maxlen=EXPLAINED_PER_SECOND)

    @contextlib.contextmanager
    def asking(
        self, router: Router, operation: Operation, arguments: Mapping[str, Any]
    ) -> Iterator[None]:
        """While a submit is made in this context: its picks are known, and explained.

        `arguments` are those of the Router's method.
        """
        with _within(self._submit(router, operation, arguments)):
            yield

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """While a request is served that is no submit, or not yet known to be one."""
        with _within(_Call(unexplained="a read: whoever owns it is asked")):
            yield

    def _submit(self, router: Router, operation: Operation, arguments: Mapping[str, Any]) -> _Call:
        call = _Call(_asked(arguments))
        if not self._may_explain():
            call.unexplained = f"not explained: at most {EXPLAINED_PER_SECOND} calls a second are"
        else:
            named = {k: v for k, v in arguments.items() if k in ROUTING and v is not None}
            try:
                call.explanation = router.explain(operation, **named)
            except Exception:  # noqa: BLE001  (to look ends no call; the call itself says what is wrong)
                call.unexplained = "not explained"
        return call

    @property
    def change(self) -> int:
        """The newest `change` of all; what is asked `since` it is nothing."""
        return self._last_change

    def since(self, change: int) -> list[Pick]:
        """The picks that are new, or of which more is known, since that `change`; oldest first."""
        found = [pick for pick in (*self._submits, *self._reads) if pick.change > change]
        return sorted(found, key=lambda pick: pick.number)

    def picked(self, event: Picked) -> None:
        call = _call.get()
        if call is None:
            return
        candidates, why = None, call.unexplained
        if call.explanation is not None:
            candidates = told(call.explanation, event, call.failed)
            why = next(c.reason for c in candidates if c.verdict == "picked")
        pick = Pick(
            next(self._numbers),
            self._changed(),
            event.at,
            event.operation,
            event.deployment,
            event.account,
            event.attempt,
            event.waited,
            call.asked,
            why,
            candidates,
        )
        (self._submits if Operation(event.operation).is_submit else self._reads).append(pick)
        call.under_way[event.operation, event.deployment, event.attempt] = pick

    def attempted(self, event: Attempted) -> None:
        call = _call.get()
        if call is None:
            return
        pick = call.under_way.pop((event.operation, event.deployment, event.attempt), None)
        if not event.succeeded:
            call.failed[event.deployment] = _said(event)
        if pick is None:
            return
        pick.result, pick.status = event.result, event.status
        pick.seconds, pick.accepted, pick.cost = event.seconds, event.accepted, event.cost
        pick.change = self._changed()

    def _changed(self) -> int:
        self._last_change = next(self._changes)
        return self._last_change

    def _may_explain(self) -> bool:
        now = self._clock()
        if len(self._explained) == EXPLAINED_PER_SECOND and now - self._explained[0] < 1.0:
            return False
        self._explained.append(now)
        return True


def told(
    explanation: Explanation, event: Picked, failed: Mapping[str, str]
) -> tuple[Candidate, ...]:
    """What `explain` said when a call came, put straight with who was picked in the end.

    `failed` are those whom the same call had tried before, and what came of it.
    """
    scores = {one.deployment: one.facts["score"] for one in explanation.candidates}
    best = None if explanation.picked is None else scores[explanation.picked]
    candidates = []
    for one in explanation.candidates:
        name, verdict, reason = one.deployment, one.verdict, one.reason
        if name == event.deployment:
            reason = reason if verdict == "picked" else _why_this(one, best, event.waited)
            if failed:
                reason = f"the next after {_listed(failed)} failed; {reason}"
            verdict = "picked"
        elif name in failed:
            verdict, reason = "tried", failed[name]
        elif verdict == "picked":
            verdict, reason = "lost", _why_not_this(scores[name], scores.get(event.deployment))
        candidates.append(Candidate(name, verdict, reason))
    return tuple(candidates)


# Scores this close are one to the strategies, which draw among them.
_CLOSE = 1.1


def _why_this(one: Explained, best: float | None, waited: float) -> str:
    """Why one was picked of whom `explain` had said otherwise."""
    score = one.facts["score"]
    if one.verdict in ("full", "rpm"):
        return f"there was room after {'a wait' if waited else 'all'}; before, {one.reason}"
    if one.verdict not in ("lost", "tier") or score is None:
        return f"nobody better was left: {one.reason}"
    close = best is not None and score <= best * _CLOSE
    words = "drawn among the best" if close else "the best that had room then"
    return f"{words}: its score is {score:.4g}"


def _why_not_this(score: float | None, others: float | None) -> str:
    """Why one was not picked, or not after all, who would have been by `explain`."""
    shown = "" if score is None else f": its score is {score:.4g}"
    if score is not None and others is not None and others <= score * _CLOSE:
        return f"as good as the one that was drawn{shown}"
    return f"another call was quicker, or it was due for a trial{shown}"


def _listed(names: Collection[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def _said(event: Attempted) -> str:
    words = "answered" if event.status is not None else "gave no answer"
    return " ".join(filter(None, (words, str(event.status or ""), f"({event.result})")))


def _asked(arguments: Mapping[str, Any]) -> dict[str, str]:
    """For people: the groups, the length, the size; whatever a caller put there."""
    named = arguments.get("target_model_names") or arguments.get("model")
    groups = ", ".join(map(str, named)) if isinstance(named, list) else named
    words = {
        "groups": groups,
        "seconds": arguments.get("seconds"),
        "size": arguments.get("size"),
    }
    return {name: str(word)[:_LONGEST_WORD] for name, word in words.items() if word}
