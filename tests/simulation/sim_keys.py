"""What must hold of idempotency keys: one job for each, from whichever worker and however often.

A key belongs to whoever claims it, until that call has surely come to nothing. What the store knew
of it goes with a store that is emptied; so what happens under a key is judged by the store's turns:
who had told it what by then.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise, permutations
from typing import Any

from sim_history import Entry
from sim_network import SUBMITS, Exchange
from sim_truth import unsure
from simulation import Timeline

from router import RouterError, errors
from router.claims import digest_of

__all__ = [
    "Asker",
    "Askers",
    "a_key_is_one_job",
    "as_looked",
    "claims_end",
    "conflicts_are_true",
    "doubts_are_true",
    "one_sender_to_a_key",
    "repeats_answer_alike",
    "unavailable_while_away",
]

LOOKS = {"status", "get_character"}
CLAIM_SECONDS = 30.0
"""For so long at least a claim stands, once made or renewed."""


@dataclass
class Asker:
    """One call under a key. Places are those of the history."""

    call: int
    key: str
    worker: int
    begun: int
    arguments: dict[str, Any]
    ended: Entry | None = None
    end: float = math.inf
    sent: list[int] = field(default_factory=list)
    """Where its submits went out."""
    exchanges: list[Exchange] = field(default_factory=list)
    in_doubt: bool = False
    """Whether a submit of it may have been accepted, for all that its worker knows."""

    @property
    def how(self) -> str:
        return "died" if self.ended is None else str(self.ended["how"])

    @property
    def error(self) -> Exception | None:
        return self.ended["error"] if self.ended is not None and self.how == "error" else None

    @property
    def answered(self) -> str | None:
        """The id that it was answered with."""
        answer = self.ended["answer"] if self.ended is not None and self.how == "answer" else None
        return getattr(answer, "id", None)

    @property
    def made(self) -> bool:
        """Whether it was the one that sent, and heard what it made."""
        return bool(self.sent) and self.answered is not None

    @property
    def may_doubt(self) -> bool:
        """Whether its worker may be in doubt: who goes does not read what is just coming."""
        left = self.how in ("cancelled", "died") and any(e.sent_whole for e in self.exchanges)
        return self.in_doubt or left

    def __str__(self) -> str:
        return f"call {self.call} ({self.how})"


class Askers:
    """All calls that bear keys, in the order in which they began."""

    def __init__(self, timeline: Timeline) -> None:
        self._store = timeline.store
        self.by_key: dict[str, list[Asker]] = defaultdict(list)
        self._by_call: dict[int | None, Asker] = {}
        for place, entry in enumerate(timeline.history.entries):
            if entry.what == "begins" and entry.get("key"):
                assert entry.call is not None
                assert entry.worker is not None
                asker = Asker(
                    entry.call, entry["key"], entry.worker, place, entry.unshown["arguments"]
                )
                self.by_key[asker.key].append(asker)
                self._by_call[entry.call] = asker
            asker_of = self._by_call.get(entry.call)
            if asker_of is None:
                continue
            if entry.what == "ended":
                asker_of.ended, asker_of.end = entry, place
            elif entry.what == "request" and entry["operation"] in SUBMITS:
                asker_of.sent.append(place)
                asker_of.exchanges.append(timeline.world.exchanges[entry["exchange"]])
        deployments = timeline.plan.data["deployments"]
        vouched = {d["id"] for d in deployments if d.get("retry_on_5xx")}
        for asker in self._by_call.values():
            asker.in_doubt = any(_in_doubt(e, vouched) for e in asker.exchanges)

    def of(self, call: int | None) -> list[int | None]:
        """All calls of this one's key; itself, where it bears none."""
        asker = self._by_call.get(call)
        return [call] if asker is None else [one.call for one in self.by_key[asker.key]]

    def asker(self, call: int | None) -> Asker | None:
        return self._by_call.get(call)

    def is_repeat(self, call: int | None) -> bool:
        """Whether a call sent nothing itself, under a key that others bear, too."""
        asker = self._by_call.get(call)
        return asker is not None and not asker.sent and len(self.by_key[asker.key]) > 1

    def pairs(self) -> Iterator[tuple[Asker, Asker]]:
        for askers in self.by_key.values():
            yield from permutations(askers, 2)

    def told(self, asker: Asker) -> float:
        """Where the store surely knew how a call had ended; infinity for never."""
        if asker.ended is None:
            return math.inf
        return self._turn(asker.worker, asker.end)

    def _turn(self, worker: int, since: float) -> float:
        places = (step.place for step in self._store.steps[worker] if step.done)
        return next((place for place in places if place > since), math.inf)

    def unrenewed(self, first: Asker, second: Asker) -> float:
        """For how many seconds nobody had renewed the claim of a call when another one ended."""
        assert second.ended is not None
        steps = self._store.steps[first.worker]
        renewed = [step.at for step in steps if step.done and step.place <= second.end]
        return second.ended.at - (renewed[-1] if renewed else 0.0)

    def claimed(self, asker: Asker, before: float = math.inf) -> float | None:
        """Where the store gave this call its key, at the latest; `None` if it did not."""
        digest = digest_of(asker.key)
        granted = [
            asked.place
            for asked in self._store.claims
            if asked.mine and asked.worker == asker.worker and asked.key == digest
            if asker.begun <= asked.place <= min(asker.end, before)
        ]
        return granted[-1] if granted else None

    def over(self, asker: Asker, at: float) -> bool:
        """Whether a call had ended by then; that a thread has is noted a moment later."""
        if asker.ended is None or any(sent >= at for sent in asker.sent):
            return False
        when = next(asked.at for asked in self._store.claims if asked.place == at)
        return asker.end < at or asker.ended.at <= when

    def void(self, first: Asker, second: Asker, at: float) -> bool:
        """Whether the store had forgotten a call, and not been told of it anew, by then."""
        for flush in self._store.flushes:
            if not first.begun <= flush <= at:
                continue
            if self.told(first) <= flush:
                return True
            # Its claim is renewed while it goes on, and its end is told until the store has heard:
            # by one turn a worker learns that all is forgotten, and by the next one it tells anew.
            heard = self._turn(first.worker, flush)
            if first.worker != second.worker and self._turn(first.worker, heard) >= at:
                return True
        return False


def _in_doubt(exchange: Exchange, vouched: set[str]) -> bool:
    """Whether a submit may have been accepted; some owners say that what is a 5xx never is."""
    if (exchange.status or 0) >= 500 and exchange.deployment in vouched:
        return False
    return unsure(exchange)


def as_looked(timeline: Timeline, entry: Entry, operation: str | None = None) -> Entry:
    """A call that only looked after the job of its key, as the look that it was."""
    if entry.get("key") is None:
        return entry
    if operation is None:
        exchanges = [e for e in timeline.world.exchanges if e.call == entry.call]
        operation = exchanges[0].operation if exchanges else None
    if operation not in LOOKS:
        return entry
    told = entry["answer"] if entry["how"] == "answer" else entry.get("error")
    id_ = getattr(told, "id", None) or getattr(told, "video_id", None)
    if id_ is None:  # cancelled while it looked
        alike = Askers(timeline).by_key[entry["key"]]
        id_ = next((one.answered for one in alike if one.made), None)
    name = "character_id" if operation == "get_character" else "video_id"
    arguments = {name: id_} if id_ else {}
    return replace(entry, unshown={**entry.unshown, "arguments": arguments})


# One job ----------------------------------------------------------------------------------------


def a_key_is_one_job(timeline: Timeline) -> Iterator[str]:
    """Under a key the provider accepts one job, unless the store was emptied in between."""
    askers = Askers(timeline)
    accepted: dict[str, list[tuple[str, int]]] = defaultdict(list)
    for taken in timeline.world.taken:
        asker = askers.asker(taken.exchange.call)
        if asker is not None:
            accepted[asker.key].append((taken.submit.account, asker.call))
    for key, jobs in accepted.items():
        senders = dict.fromkeys(call for _, call in jobs)
        sent = [one for one in askers.by_key[key] if one.call in senders]
        for first, second in pairwise(sorted(sent, key=lambda one: one.sent[0])):
            if not any(first.begun < flush < second.sent[0] for flush in timeline.store.flushes):
                yield f"{key} was accepted by {dict(Counter(jobs))}, {first} and {second}"


def one_sender_to_a_key(timeline: Timeline) -> Iterator[str]:
    """Who sends under a key is alone, until it has surely come to nothing.

    Nor may anybody else, whether it comes to that or not.
    """
    askers = Askers(timeline)
    for first, second in askers.pairs():
        if not first.sent:
            continue
        claimed = askers.claimed(second, min(second.sent, default=math.inf))
        if claimed is None:
            if second.sent:
                yield f"{second} sent under {second.key}, which was not its own"
            continue
        # A claim without sending may be the other's, where both are of one worker.
        known = bool(second.sent) or second.worker != first.worker
        if not known or claimed <= first.sent[0]:
            continue
        over = askers.over(first, claimed) and not first.made and not first.in_doubt
        if not over and not askers.void(first, second, claimed):
            yield f"{second} had {second.key} after {first}"


def repeats_answer_alike(timeline: Timeline) -> Iterator[str]:
    """Who is answered without sending gets the id of who sent the same; errors tell it, too."""
    askers = Askers(timeline)
    for key, calls in askers.by_key.items():
        made = [asker for asker in calls if asker.made]
        for asker in calls:
            if asker.sent:
                continue
            alike = {one.answered for one in made if one.arguments == asker.arguments}
            if asker.answered is not None and asker.answered not in alike:
                yield f"{asker} has {asker.answered} for {key}, which made {alike}"
            error = asker.error
            looked = isinstance(error, RouterError) and error.operation in LOOKS
            if isinstance(error, RouterError) and (looked or error.accepted == "yes"):
                told = f"{error.accepted} of {error.video_id}"
                if error.video_id not in alike or error.accepted != "yes":
                    yield f"{asker} heard {told} in {error!r}, and {key} made {alike}"
        ids = {one.answered for one in made}
        first = min((one.begun for one in made), default=math.inf)
        if len(ids) > 1 and not any(flush > first for flush in timeline.store.flushes):
            yield f"{key} made {ids}"


# What is said -----------------------------------------------------------------------------------


def conflicts_are_true(timeline: Timeline) -> Iterator[str]:
    """A key that stands for other parameters is a conflict, and nothing but such a key is."""
    askers = Askers(timeline)
    for calls in askers.by_key.values():
        for asker in calls:
            others = [one for one in calls if one.arguments != asker.arguments]
            conflict = isinstance(asker.error, errors.ConflictError) and asker.error.status is None
            if conflict and asker.sent:
                yield f"{asker} is a conflict, and sent"
            if conflict and not any(_holds(askers, one, asker) for one in others):
                yield f"{asker} is a conflict with nobody: {asker.error!r}"
            # Whoever sends is another invariant's matter.
            told = asker.answered is not None or isinstance(
                asker.error, errors.AmbiguousSubmitError
            )
            if told and not asker.sent and not _served(askers, calls, asker):
                yield f"{asker} was told of a job of other parameters"


def _served(askers: Askers, calls: list[Asker], asker: Asker) -> bool:
    """Whether somebody who asked for the same may be the one whose job this call was told of."""
    return any(
        one.arguments == asker.arguments and one.begun < asker.end
        for one in calls
        if one is not asker and askers.claimed(one) is not None
    )


def _holds(askers: Askers, first: Asker, second: Asker) -> bool:
    """Whether a call may have held its key at some time of another one."""
    if first.begun > second.end:
        return False
    claimed = askers.claimed(first)
    if claimed is None:
        # Who is given a key and does not hear of it gives it back; until then it is its own.
        return any(step.done and not step.heard for step in askers._store.steps[first.worker])
    surely_free = first.ended is not None and not first.made and not first.may_doubt
    return claimed <= second.end and not (surely_free and askers.told(first) < second.begun)


def doubts_are_true(timeline: Timeline) -> Iterator[str]:
    """Who did not send is in doubt only about somebody who did, or died, or whose end is untold."""
    askers = Askers(timeline)
    for key, calls in askers.by_key.items():
        for asker in calls:
            error = asker.error
            doubts = isinstance(error, RouterError) and error.accepted == "maybe"
            if not doubts or asker.sent:
                continue
            late = isinstance(error, errors.DeadlineExceededError)
            if not any(_is_doubtful(askers, one, asker, late=late) for one in calls):
                yield f"{asker} is in doubt of {key}, and nobody else is: {error!r}"
            if error.idempotency_key != key:
                yield f"{asker} does not tell its key: {error!r}"


def _is_doubtful(askers: Askers, first: Asker, second: Asker, *, late: bool) -> bool:
    if first is second or not _holds(askers, first, second):
        return False
    if first.ended is None:
        return True
    if not askers.told(first) < second.begun:
        # Under way, for all that the store knows; in doubt where nobody has renewed its claim.
        return late or first.may_doubt or askers.unrenewed(first, second) >= CLAIM_SECONDS
    return not late and first.may_doubt and not first.made


def unavailable_while_away(timeline: Timeline) -> Iterator[str]:
    """A call with a key is refused for want of the store only while that is out of reach."""
    steps = timeline.store.steps
    for calls in Askers(timeline).by_key.values():
        for asker in calls:
            if not isinstance(asker.error, errors.StateUnavailableError):
                continue
            if asker.sent:
                yield f"{asker} says that nobody knows of its key, and sent"
            mine = steps[asker.worker]
            before = [step for step in mine if step.place <= asker.begun][-1:]
            during = [step for step in mine if asker.begun < step.place <= asker.end]
            if all(step.heard for step in (*before, *during)):
                yield f"{asker} was refused for want of a store that answers: {asker.error!r}"


# At rest ----------------------------------------------------------------------------------------


def claims_end(timeline: Timeline) -> Iterator[str]:
    """At rest nobody sends under a key any more, but who died."""
    for worker in timeline.workers:
        held = worker.router._engine.claiming._held
        if worker.alive and held:
            yield f"w{worker.number} still holds {len(held)} keys"
    askers = Askers(timeline)
    died = {
        digest_of(key)
        for key, calls in askers.by_key.items()
        if any(askers.told(asker) == math.inf for asker in calls)
    }
    for digest in timeline.store.store._records._sending:
        if digest not in died:
            yield f"somebody still sends under {digest}"
