"""What must hold in every timeline.

Each invariant is a function from a timeline to what is wrong with it, in sentences; `INVARIANTS`
lists them all. They compare what the routers did and said with the truth that the network and the
provider kept, and use none of the router's own judgement: what a status means, and whom it keeps
away, is written here a second time, shorter and in the words of the design.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sim_budgets import budgets_hold, money_is_counted, money_is_refused_rightly
from sim_history import Entry
from sim_keys import (
    Askers,
    a_key_is_one_job,
    as_looked,
    claims_end,
    conflicts_are_true,
    doubts_are_true,
    one_sender_to_a_key,
    repeats_answer_alike,
    unavailable_while_away,
)
from sim_network import SUBMITS, Exchange
from sim_truth import READS, Known, Record, Truth, meaning, side_of, sides_of, unsure
from simulation import Timeline, Worker

from router import RouterError, errors
from router.config import Deployment
from router.testing.faults import NeverEnds
from router.testing.media import CLIP, SPRITESHEET, THUMBNAIL

__all__ = ["INVARIANTS", "violations"]

SLACK = {"async": 0.6, "blocking": 1.2}
"""Seconds that a call may need to say that its time is over; a thread sees it between bytes."""
TRIAL_ASKED_AGAIN = 1.0
"""Seconds for which a worker takes a trial for another's that was so when it asked."""
A_MOMENT = 0.2
"""Seconds that a question to the store may take."""
STARTERS_OF_JOBS = SUBMITS - {"create_character"}
LAST_LOOK = 1.1
"""Seconds that a wait may take longer, since its last look is at its very end."""


def violations(timeline: Timeline) -> list[str]:
    """All that is wrong with a timeline, each with the name of its invariant."""
    return [f"{name}: {wrong}" for name, holds in INVARIANTS.items() for wrong in holds(timeline)]


# Paying once ------------------------------------------------------------------------------------


def paid_once(timeline: Timeline) -> Iterator[str]:
    """A call is accepted at most once; a replicated character at most once in each account."""
    for call, accepted in _accepted(timeline).items():
        copies = Counter(submit.account for submit in accepted)
        most = _copies_asked(timeline, call)
        if len(accepted) > most or max(copies.values()) > 1:
            yield f"call {call} was accepted {len(accepted)} times, in {dict(copies)}"


def true_accepted(timeline: Timeline) -> Iterator[str]:
    """What an error says of acceptance is true, and it says `maybe` only where nobody can know."""
    accepted, askers = _accepted(timeline), Askers(timeline)
    for entry in _ended(timeline, "error"):
        error, call = entry["error"], entry.call
        if not isinstance(error, RouterError):
            continue
        happened = len(accepted.get(call or 0, ()))
        if error.accepted == "no" and happened:
            yield f"call {call} says that nothing was accepted: {error!r}"
        # A caller who sends by a client of its own cannot say how much of a request went out.
        nobody_knows = entry["errand"] == "pick" or any(map(unsure, _exchanges(timeline, call)))
        nobody_knows = nobody_knows or askers.is_repeat(call)  # of whom others may be in doubt
        if error.accepted == "maybe" and not nobody_knows:
            yield f"call {call} says that a job may be running, and it was surely refused"
        if error.accepted == "yes" and not happened and error.operation in SUBMITS:
            yield f"call {call} says that a job runs, and none was accepted: {error!r}"


def nothing_lost(timeline: Timeline) -> Iterator[str]:
    """What was accepted, the worker that asked for it told in an event; what was answered, is."""
    told = {entry.call for entry in timeline.history.of("Attempted") if entry["accepted"] != "no"}
    dead = {e.call for e in timeline.history.of("begins")} - {
        e.call for e in timeline.history.of("ended")
    }
    accepted, askers = _accepted(timeline), Askers(timeline)
    for call in sorted(accepted.keys() - told - dead):
        yield f"call {call} was accepted, and no event says so"
    for entry in _ended(timeline, "answer"):
        made = timeline.made.get(_id_in(entry["answer"]), ())
        alike = askers.of(entry.call)
        natives = {(s.account, s.native_id) for call in alike for s in accepted.get(call, ())}
        if entry["errand"] in SUBMITS | {"pick"} and not natives.issuperset(made or [None]):
            yield f"call {entry.call} was answered with {made}, and accepted were {natives}"


def job_ends_are_true(timeline: Timeline) -> Iterator[str]:
    """A wait ends as its job ended; a download is whole."""
    for entry in timeline.history.of("ended"):
        if entry["errand"] == "content":
            yield from _download(entry)
        if entry["errand"] != "wait":
            continue
        stage = _stage(timeline, entry["arguments"]["video_id"], entry.at)
        if entry["how"] == "failed" and stage not in ("failed", "deleted"):
            yield f"call {entry.call} was told failed of a job that is {stage}"
        if entry["how"] == "answer" and stage not in ("completed", "deleted"):
            yield f"call {entry.call} waited to the end of a job that is {stage}"
        failed = entry["how"] == "error" and isinstance(entry["error"], errors.JobFailedError)
        if failed and stage not in ("failed", "deleted"):
            yield f"call {entry.call} says failed of a job that is {stage}"


def _download(entry: Entry) -> Iterator[str]:
    """What is wrong with a download: it comes whole, or not at all."""
    wanted = {"thumbnail": THUMBNAIL, "spritesheet": SPRITESHEET}
    whole = wanted.get(entry["arguments"].get("variant", "video"), CLIP)
    brought = entry.get("brought") if entry.get("to") else entry.get("answer")
    if entry["how"] in ("answer", "picture") and brought != whole:
        yield f"call {entry.call} brought {len(brought or b'')} of {len(whole)} bytes"
    if entry["how"] == "error" and entry.get("to") == "path" and brought is not None:
        yield f"call {entry.call} failed, and its file is there"
    if entry.get("left_behind"):
        yield f"call {entry.call} left {entry['left_behind']} behind"


def waits_go_on(timeline: Timeline) -> Iterator[str]:
    """A wait ends by its time, by a final word, or when no look succeeded for a whole deadline."""
    looked: dict[int | None, float] = {}
    for entry in timeline.history.entries:
        if entry.what == "begins" or (entry.what == "Attempted" and entry["result"] == "success"):
            looked[entry.call] = entry.at
        if entry.what != "ended" or entry["errand"] != "wait" or entry["how"] != "error":
            continue
        error, allowed = entry["error"], entry["arguments"]["wait_timeout"]
        if isinstance(error, errors.WaitTimeoutError):
            if entry["seconds"] < allowed - 0.01:
                yield f"call {entry.call} waited {entry['seconds']:.1f} s of {allowed:g} s"
            continue
        deadline = timeline.plan.errands[entry.call or 0].options.get("deadline")
        patience = deadline or entry["fleet"].config.settings.deadline
        if _may_pass(error) and entry.at - looked[entry.call] < patience - 1.2:
            yield f"call {entry.call} gave a running job up for {error!r}"


def _may_pass(error: Exception) -> bool:
    """Whether a later look might have succeeded."""
    if isinstance(error, errors.StatusError):
        return (error.status or 0) >= 500 or isinstance(error, errors.TryLaterError)
    passing = (errors.TryLaterError, errors.DeploymentError, errors.DeadlineExceededError)
    return isinstance(error, passing)


# Whom to ask ------------------------------------------------------------------------------------

_NATIVE = re.compile(r"\b(?:video|char)_[0-9a-f]{32}\b")


def asks_the_owner(timeline: Timeline) -> Iterator[str]:
    """What names something goes to the account that made it, and with that account's key."""
    owners = {s.native_id: s.account for s in timeline.world.provider.accepted}
    for request in timeline.world.provider.requests:
        if "x-call" not in request.headers or request.account is None:
            continue  # `locate` asks everybody, which is what it is for; a void key is nobody's
        for native in _NATIVE.findall(f"{request.path} {request.fields}"):
            if owners.get(native, request.account) != request.account:
                yield (
                    f"call {request.headers['x-call']} asked {request.account} for {native}, "
                    f"which lives in {owners[native]}"
                )
    accounts = {d["id"]: d["account"] for d in timeline.plan.data["deployments"]}
    for exchange in timeline.world.exchanges:
        if exchange.account != accounts[exchange.deployment]:
            yield f"{exchange.deployment} was asked with a key of {exchange.account}"


def what_is_named_is_asked_for(timeline: Timeline) -> Iterator[str]:
    """Who is answered was answered about what was named, by an account that holds all of it."""
    asked: dict[int, list[tuple[str | None, set[str]]]] = defaultdict(list)
    for request in timeline.world.provider.requests:
        if "x-call" in request.headers:
            natives = set(_NATIVE.findall(f"{request.path} {request.fields}"))
            asked[int(request.headers["x-call"])].append((request.account, natives))
    for entry in _ended(timeline, "answer"):
        if entry["errand"] in ("observe", "locate", "pick"):
            continue
        entry = as_looked(timeline, entry)
        copies = [set(timeline.made[one]) for one in _ids_in(entry) if one in timeline.made]
        if copies and not any(
            all(any(a == account and n in natives for a, n in held) for held in copies)
            for account, natives in asked[entry.call or 0]
        ):
            yield f"call {entry.call} was answered, and nobody was asked for what it named"


def goes_where_it_may(timeline: Timeline) -> Iterator[str]:
    """Who is picked may serve the call, by group, owner, operation and weight; low order first."""
    known, trials = Known(timeline), Trials(timeline)
    ended = {entry.call: entry for entry in timeline.history.of("ended")}
    tried: dict[int | None, set[str]] = defaultdict(set)
    reloaded: dict[int | None, int] = {}
    begun: dict[int | None, int] = {}
    for place, entry in enumerate(timeline.history.entries):
        known.learn(entry)
        if entry.what == "reloaded":
            reloaded[entry.worker] = place
        elif entry.what == "begins":
            begun[entry.call] = place
        call = ended.get(entry.call)
        if entry.what != "Picked" or call is None or call["errand"] == "locate":
            continue
        call = as_looked(timeline, call, entry["operation"])
        # Each look of a wait, and each question of a download, is a call by the newest fleet.
        several = call["errand"] in ("wait", "content")
        # Who waits for a key is a call by the newest one, too.
        newest = several or call.get("key")
        if newest and reloaded.get(entry.worker, -1) > begun[entry.call]:
            continue
        name, operation = entry["deployment"], entry["operation"]
        candidates = {d.id: d for d in _candidates(timeline, call, operation)}
        if name not in candidates:
            yield f"call {entry.call} went for {operation} to {name}, which may not serve it"
        elif not several and not _goes_many_ways(call):
            for other in candidates.values():
                before = other.order < candidates[name].order and other.id not in tried[entry.call]
                before = before and not _is_limited(call, other, operation)
                before = before and not trials.may_be_taken(known, entry, other.id, operation)
                before = before and not _panics(timeline, known, trials, entry, call)
                if before and known.out(entry, other.id, operation) is None:
                    yield f"call {entry.call} went to {name} while {other.id} stands before it"
        tried[entry.call].add(name)


def no_pick_of_the_ejected(timeline: Timeline) -> Iterator[str]:
    """Nobody is picked whom this worker knows to be out of rotation for what it is picked for.

    But where everybody is out, unowned calls go once to who is out by failures alone; and a page
    of a list, which is free, may be asked of whoever is left.
    """
    known, trials = Known(timeline), Trials(timeline)
    ended = {entry.call: entry for entry in timeline.history.of("ended")}
    for entry in timeline.history.entries:
        if entry.what == "Picked" and entry["deployment"] not in known.renewed_during(entry):
            out = known.out(entry, entry["deployment"], entry["operation"])
            if out is not None and not _panics(
                timeline, known, trials, entry, ended.get(entry.call)
            ):
                yield (
                    f"call {entry.call} picked {entry['deployment']} for {entry['operation']}, "
                    f"which is out for {out.scope} until {out.until:.3f} ({out.cause})"
                )
        known.learn(entry)


def _panics(
    timeline: Timeline, known: Known, trials: Trials, picked: Entry, call: Entry | None
) -> bool:
    """Whether a pick is rightly one of somebody who is out, since everybody is."""
    operation = picked["operation"]
    if picked["attempt"] != 1:
        return False
    out = known.out(picked, picked["deployment"], operation)
    if operation in READS:
        if operation != "list":
            return False
    elif (call is not None and _ids_in(call)) or (out is not None and out.cause != "failures"):
        return False
    if call is None:
        return True  # its worker died, and nobody knows what it asked for
    # It panicked when it came to that, and then may have waited for room.
    seconds = picked["waited"] + A_MOMENT
    return all(
        known.was_out(picked, d.id, operation, seconds)
        or trials.may_be_taken(known, picked, d.id, operation)
        for d in _candidates(timeline, call, operation)
        # A page is asked of each account for itself.
        if operation != "list" or d.account == picked["account"]
    )


class Trials:
    """When which deployment was sent a submit, and when that was over; of the whole fleet."""

    def __init__(self, timeline: Timeline) -> None:
        self._spans: dict[str, list[tuple[float, float, int | None]]] = defaultdict(list)
        over: dict[tuple[int | None, str], list[float]] = defaultdict(list)
        for entry in timeline.history.of("Attempted"):
            over[entry.call, entry["deployment"]].append(entry.at)
        ended = {entry.call: entry.at for entry in timeline.history.of("ended")}
        # What is told to a store that is away is told later.
        blows = {blow.kind for blow in timeline.plan.blows}
        self._late = float("inf") if blows & {"freeze", "flush", "lose_answers"} else 0.0
        for entry in timeline.history.of("Picked"):
            if entry["operation"] in SUBMITS:
                ends = [at for at in over[entry.call, entry["deployment"]] if at >= entry.at]
                # A lease of a dead worker lapses by itself, some time.
                end = min(ends, default=ended.get(entry.call, float("inf")))
                self._spans[entry["deployment"]].append((entry.at, end, entry.call))

    def may_be_taken(self, known: Known, entry: Entry, name: str, operation: str) -> bool:
        """Whether a deployment is on trial, and another call may have the trial."""
        if operation not in SUBMITS or not known.on_trial(entry, name):
            return False
        if known.out(entry, name, operation) is not None:
            return False  # the provider says more than that
        since = entry.at - TRIAL_ASKED_AGAIN - A_MOMENT - (entry.get("waited") or 0.0) - self._late
        return any(
            starts <= entry.at and ends >= since and call != entry.call
            for starts, ends, call in self._spans[name]
        )


def no_needless_refusal(timeline: Timeline) -> Iterator[str]:
    """Nobody hears that nobody is in rotation while somebody is; a sure refusal fails over.

    Nor does an unowned call hear so while somebody is out by our own counting alone.
    """
    known, trials = Known(timeline), Trials(timeline)
    panicked = _panicked(timeline)
    for entry in timeline.history.entries:
        known.learn(entry)
        if entry.what != "ended" or entry["how"] != "error" or _goes_many_ways(entry):
            continue
        error = entry["error"]
        if not isinstance(error, RouterError):
            continue  # which is another invariant's matter
        entry = as_looked(timeline, entry, error.operation)
        nobody = isinstance(error, errors.NoDeploymentAvailableError)
        full = isinstance(error, errors.CapacityError) and not error.attempts
        owed = _must_fail_over(timeline, entry) and entry.call not in panicked
        if not nobody and not full and not owed:
            continue
        tried = {attempt.deployment for attempt in error.attempts}
        again = error.operation in READS
        candidates = _candidates(timeline, entry, error.operation)
        unowned = error.operation in SUBMITS and not _ids_in(entry) and not tried
        for deployment in candidates:
            out = known.out(entry, deployment.id, error.operation)
            if _is_limited(entry, deployment, error.operation):
                continue  # it may have been full
            if trials.may_be_taken(known, entry, deployment.id, error.operation):
                continue
            if (again or deployment.id not in tried) and out is None:
                yield f"call {entry.call} ended in {error!r} while {deployment.id} was in rotation"
            if nobody and unowned and out is not None and out.cause == "failures":
                yield f"call {entry.call} ended in {error!r}, and nobody tried {deployment.id}"
        if nobody:
            waits = [known.back_in(entry, d.id, error.operation) for d in candidates]
            tests = [trials.may_be_taken(known, entry, d.id, error.operation) for d in candidates]
            soonest = min(waits, default=0.0)
            if any(tests):
                wrong = error.retry_after > TRIAL_ASKED_AGAIN + 0.01
            else:
                wrong = abs(error.retry_after - max(soonest, 0.1)) > 0.01
            if wrong:
                yield f"call {entry.call} is to come back in {error.retry_after}, not {soonest} s"


def _panicked(timeline: Timeline) -> set[int | None]:
    """The calls that went to somebody who was out, or may have: those go nowhere else."""
    known = Known(timeline)
    found = set()
    for entry in timeline.history.entries:
        if entry.what == "Picked" and entry["operation"] in SUBMITS:
            name = entry["deployment"]
            out = known.out(entry, name, entry["operation"])
            if out is not None or known.on_trial(entry, name) or entry["waited"]:
                found.add(entry.call)
        known.learn(entry)
    return found


# Health -----------------------------------------------------------------------------------------


def ejections_are_deserved(timeline: Timeline) -> Iterator[str]:
    """Who is ejected has said so, or failed the fleet often enough; callers' errors are nothing."""
    record = Record(timeline)
    for entry in timeline.history.entries:
        if entry.what == "Ejected":
            why_not = record.objection(entry)
            if why_not:
                yield f"{entry['deployment']} was ejected by w{entry.worker}: {why_not}"
        record.take(entry)


def returns_are_deserved(timeline: Timeline) -> Iterator[str]:
    """Who was out by failures is back by a call that went well, on the side that is back.

    On both only where nobody could reach the host, which a call of either side disproves.
    """
    known, truth = Known(timeline), Truth(timeline)
    well: dict[tuple[int | None, float], set[tuple[str, str]]] = defaultdict(set)
    for entry in timeline.history.of("Attempted"):
        # Whoever is answered about a mistake of its caller's is there, too, where it was a 2xx.
        if truth.meaning(entry) in ("success", "either") or entry["result"] == "success":
            well[entry.worker, entry.at].add((entry["deployment"], side_of(entry["operation"])))
    for entry in timeline.history.entries:
        if entry.what == "Restored":
            name, sides = entry["deployment"], sides_of(entry["scope"])
            went = {side for side in sides if (name, side) in well[entry.worker, entry.at]}
            if not went:
                yield f"w{entry.worker} takes {name} back for {entry['scope']} by nothing"
            for side in set(sides) - went:
                # Of a side that is back already it says nothing new.
                failing = known.failing(entry.worker, name, side)
                if failing and "both" not in failing:
                    yield f"w{entry.worker} takes {name} back for {side}, where nothing went well"
        known.learn(entry)


def who_fails_is_out(timeline: Timeline) -> Iterator[str]:
    """Three failures in a row on one side put a deployment out, and so does each one after them.

    In a row of one worker, and in a row of the fleet as far as the worker has surely heard.
    """
    known, truth, fleet = Known(timeline), Truth(timeline), Rows(timeline)
    failed: Counter[tuple[int | None, str, str]] = Counter()
    for entry in timeline.history.entries:
        out_before = {
            side: entry.what == "Attempted" and known.failed_out(entry, entry["deployment"], side)
            for side in ("submits", "reads")
        }
        known.learn(entry)
        if entry.what == "reloaded":
            failed.clear()  # calls under way may have begun with deployments that are gone
            fleet.clear()
        for side in _sides_back(entry):
            # It starts anew, and whoever counts knows no more of what was before.
            failed[entry.worker, entry["deployment"], side] = 0
            fleet.start_over(entry["deployment"], side, entry.at)
        if entry.what in ("Ejected", "heard") and entry["cause"] == "failures":
            for side in sides_of(entry["scope"]):
                fleet.start_over(entry["deployment"], side, entry.at)
        if entry.what != "Attempted":
            continue
        name, own = entry["deployment"], side_of(entry["operation"])
        meant = truth.meaning(entry)
        if meant == "success":
            failed[entry.worker, name, own] = 0
        if meant not in ("failure", "moved"):
            if meant not in ("caller", "own"):
                fleet.went_well(name, own, entry.at)  # or may have
            continue
        unreachable = entry["result"] == "could not connect"
        for side in ("submits", "reads") if unreachable else (own,):
            failed[entry.worker, name, side] += not out_before[side]
            times = failed[entry.worker, name, side]
            if times >= 3 and not known.failed_out(entry, name, side):
                yield f"w{entry.worker} keeps {name} in for {side} after {times} failures"
            others = fleet.failed(entry.worker, name, side, entry.at)
            if others >= 2 and not known.failed_out(entry, name, side):
                yield f"w{entry.worker} keeps {name} in for {side}, which failed {others} others"


def _sides_back(entry: Entry) -> tuple[str, ...]:
    if entry.what == "Restored":
        return sides_of(entry["scope"])
    return (entry["side"],) if entry.what == "heard back" else ()


class Rows:
    """What the fleet met in a row, as far as everybody must have heard of it."""

    LONGEST = 400.0
    BUCKET = 10.0

    def __init__(self, timeline: Timeline) -> None:
        troubles = {"freeze", "flush", "lose_answers"} & {b.kind for b in timeline.plan.blows}
        self._lag = float("inf") if troubles else 2.5 * timeline.plan.turn_seconds
        # Counts are shared by buckets of each worker's clock.
        skews = [abs(skew) for skew in timeline.plan.skews]
        skewed = any(blow.kind == "skew" for blow in timeline.plan.blows)
        self._apart = self.BUCKET + 6.0 if max(skews) <= 3 and not skewed else float("inf")
        self._steps = timeline.store.steps
        self._failures: dict[tuple[str, str], list[tuple[float, int | None]]] = defaultdict(list)
        self._since: dict[tuple[str, str], float] = defaultdict(float)

    def clear(self) -> None:
        self._failures.clear()

    def start_over(self, name: str, side: str, at: float) -> None:
        self._since[name, side] = at
        self._failures[name, side].clear()

    went_well = start_over

    def _told(self, worker: int | None, at: float) -> bool:
        """Whether a worker lived to tell what it met then."""
        steps = self._steps[worker] if worker is not None else []
        return any(step.done and step.at > at for step in steps)

    def failed(self, worker: int | None, name: str, side: str, at: float) -> int:
        """How many failures in a row there were before this one that its worker must know of."""
        since, met = self._since[name, side], self._failures[name, side]
        first = since + self._apart if since else 0.0
        known = [
            when
            for when, who in met
            if max(first, at - self.LONGEST) < when
            if who == worker or (when < at - self._lag and self._told(who, when))
        ]
        met.append((at, worker))
        return len(known)


def ends_are_told_once(timeline: Timeline) -> Iterator[str]:
    """Each worker tells once that a job has ended."""
    told = Counter((e.worker, e["video_id"]) for e in timeline.history.of("JobFinished"))
    for (worker, video_id), times in told.items():
        if times > 1:
            yield f"w{worker} told {times} times that {video_id} has ended"


def attempts_are_told(timeline: Timeline) -> Iterator[str]:
    """Answers and errors list the exchanges that were made, in order."""
    for entry in timeline.history.of("ended"):
        told = entry["answer"] if entry["how"] == "answer" else entry.about.get("error")
        record = getattr(told, "routing", None) or told
        if _goes_many_ways(entry) or entry["errand"] == "content":
            continue
        if not isinstance(getattr(record, "attempts", None), tuple):
            continue
        listed = [attempt.deployment for attempt in record.attempts]
        made = [e.deployment for e in _exchanges(timeline, entry.call)]
        if listed != made:
            yield f"call {entry.call} lists {listed} and made {made}"


def refusals_are_heeded(timeline: Timeline) -> Iterator[str]:
    """A throttling, a rejected key and a missing model put their deployment out at once."""
    announced: dict[tuple[int | None, str], list[tuple[float, str]]] = defaultdict(list)
    for entry in timeline.history.of("Ejected", "heard"):
        announced[entry.worker, entry["deployment"]].append((entry.at, entry["cause"]))
    known, truth = Known(timeline), Truth(timeline)
    for entry in timeline.history.entries:
        known.learn(entry)
        if entry.what != "Attempted" or entry["deployment"] in known.renewed_during(entry):
            continue
        wanted = {"throttled": "throttled", "denied": "denied", "broke": "denied"}
        meant = truth.meaning(entry)
        if meant not in wanted or entry["status"] is None:
            continue
        before = announced[entry.worker, entry["deployment"]]
        if not any(cause == wanted[meant] and at <= entry.at for at, cause in before):
            yield f"w{entry.worker} heard {entry['status']} of {entry['deployment']}, and went on"
        if wanted[meant] == "denied":
            yield from _left_in(timeline, entry, known)


def _left_in(timeline: Timeline, entry: Entry, known: Known) -> Iterator[str]:
    """Deployments of a rejected account that are still in rotation."""
    accounts = {d["id"]: d["account"] for d in timeline.plan.data["deployments"]}
    for name in known.deployments(entry.worker):
        same = accounts[name] == entry["account"] and name not in known.renewed_during(entry)
        if same and not known.denied(entry, name):
            yield f"w{entry.worker} keeps {name} in, whose account said {entry['status']}"


# Endings ----------------------------------------------------------------------------------------


def errors_of_the_tree(timeline: Timeline) -> Iterator[str]:
    """Whatever is raised is a `RouterError`."""
    for entry in _ended(timeline, "error"):
        if not isinstance(entry["error"], RouterError):
            yield f"call {entry.call} raised {entry['error']!r}"


def ends_in_time(timeline: Timeline) -> Iterator[str]:
    """A call ends by its deadline, a wait by its time-out; each call of a living worker ends."""
    ended = {entry.call for entry in timeline.history.of("ended")}
    killed = {entry.worker for entry in timeline.history.of("killed")}
    for entry in timeline.history.of("begins"):
        if entry.call not in ended and entry.worker not in killed:
            yield f"call {entry.call} never ended"
    deadlines = {errand.number: errand.options.get("deadline") for errand in timeline.plan.errands}
    for entry in timeline.history.of("ended"):
        given = deadlines[entry.call] if entry["errand"] != "locate" else None
        bound = given or timeline.plan.data["settings"]["deadline"]
        if entry["errand"] == "wait":
            bound = entry["arguments"]["wait_timeout"] + LAST_LOOK
        # Who only picks takes the time that its own client takes.
        slack = SLACK[timeline.plan.errands[entry.call or 0].door]
        if entry["seconds"] > bound + slack and entry["errand"] != "pick":
            yield f"call {entry.call} took {entry['seconds']:.1f} s of {bound:g} s"


def leaves_nothing(timeline: Timeline) -> Iterator[str]:
    """At rest nothing is in flight, no connection is open, no task and no thread is left."""
    yield from timeline.left
    for worker in timeline.workers:
        if worker.alive:
            for name, known in worker.router.statistics().items():
                if known["in_flight"]:
                    yield f"w{worker.number} counts {known['in_flight']} in flight at {name}"


def mistakes_are_named(timeline: Timeline) -> Iterator[str]:
    """A caller's mistake is an error that says which, and sends nothing."""
    for entry in timeline.history.of("ended"):
        expected = entry.get("expected")
        if not expected or entry["how"] == "cancelled":
            continue
        raised = type(entry["error"]).__name__ if entry["how"] == "error" else entry["how"]
        sent = len(_exchanges(timeline, entry.call))
        if raised not in expected or sent:
            yield f"call {entry.call} is a mistake ({expected}), became {raised}, sent {sent}"


def submits_go_fresh(timeline: Timeline) -> Iterator[str]:
    """A submit goes out on a connection that was in use two seconds ago, or on a new one."""
    for entry in timeline.history.of("request"):
        idle = entry.about.get("idle")
        if idle is not None and entry["operation"] in SUBMITS and idle > 2.0:
            yield f"call {entry.call} submitted on a connection that was idle for {idle} s"


# Sharing ----------------------------------------------------------------------------------------


def all_know_the_same(timeline: Timeline) -> Iterator[str]:
    """When all has been told, each worker counts the same samples and knows the same ejections.

    Not so where the store forgot, or a configuration changed: then some of it is rightly gone.
    """
    changes = {"flush", "reload", "rotate_key"}
    if changes & {blow.kind for blow in timeline.plan.blows}:
        return
    living = [worker for worker in timeline.workers if worker.alive]
    # Deadlines are compared that have not passed on anybody's clock.
    latest = max(worker.router._engine.now() for worker in living)
    views = {worker.number: _view(worker, latest) for worker in living}
    first = next(iter(views.values()))
    for number, view in views.items():
        if view != first:
            different = sorted(set(view.items()) ^ set(first.items()))
            yield f"w{number} knows other things than the first of the living: {different[:6]}"


def samples_count_once(timeline: Timeline) -> Iterator[str]:
    """Nobody counts more samples than there were exchanges, however often they were told."""
    made = Counter((e["deployment"], e["operation"]) for e in timeline.history.of("Attempted"))
    for worker in timeline.workers:
        known = worker.router.statistics() if worker.alive else {}
        for name, facts in known.items():
            for operation, latency in facts["latency"].items():
                most = made[name, operation]
                if latency["count"] > most:
                    yield f"w{worker.number} counts {latency['count']} of {most} at {name}"


def _view(worker: Worker, latest: float) -> dict[tuple[str, ...], Any]:
    view: dict[tuple[str, ...], Any] = {}
    for name, facts in worker.router.statistics().items():
        for operation, latency in facts["latency"].items():
            view[name, operation] = latency["count"], round(latency["mean"], 6)
        for ejection in facts["ejections"]:
            until = ejection["seconds"] + worker.router._engine.now()
            if until > latest:
                view[name, ejection["scope"], ejection["reason"]] = round(until, 3)
    return view


# Limits -----------------------------------------------------------------------------------------


def caps_hold(timeline: Timeline) -> Iterator[str]:
    """No more run, or are granted in a minute, than the limits say, while the store is there.

    Not so where the store went away or forgot, or where a reload changed the limits.
    """
    blows = {blow.kind for blow in timeline.plan.blows}
    if blows & {"freeze", "flush", "lose_answers", "reload"}:
        return
    data = timeline.plan.data
    for told, owned in _limited(data):
        requests = [entry for entry in timeline.history.of("request") if entry["to"] in owned]
        for limit, operations in (("rpm", SUBMITS), ("read_rpm", READS)):
            if limit in told:
                times = [e.at for e in requests if e["operation"] in operations]
                yield from _crowded(times, told[limit], f"{limit} of {sorted(owned)}")
        if "max_parallel_jobs" in told:
            yield from _running(timeline, owned, told)


def _limited(data: dict[str, Any]) -> Iterator[tuple[dict[str, Any], set[str]]]:
    """Each account and deployment, with the deployments that its limits are about."""
    for account, told in data["accounts"].items():
        yield told, {d["id"] for d in data["deployments"] if d["account"] == account}
    for told in data["deployments"]:
        yield told, {told["id"]}


def _crowded(times: list[float], limit: int, what: str) -> Iterator[str]:
    for place in range(len(times) - limit):
        # Granted at one moment, sent the next: a window is judged a little shorter.
        if times[place + limit] - times[place] < 60.0 - 0.2:
            yield f"{limit + 1} requests from {times[place]:.3f} on, and {what} is {limit}"
            return


def _running(timeline: Timeline, owned: set[str], told: dict[str, Any]) -> Iterator[str]:
    """Moments at which more jobs ran than allowed; who has not been seen for a while is excused."""
    ttl = min([60.0, *(told[key] for key in ("job_ttl",) if key in told)])
    spans = []
    # Who says of a running job that it has ended gives its slot away.
    said = {
        e["arguments"]["video_id"] for e in timeline.history.of("ended") if e["errand"] == "observe"
    }
    lied = {copy for one in said for copy in timeline.made.get(one, ())}
    for call, submits in _accepted(timeline).items():
        for submit in submits:
            if (submit.account, submit.native_id) in lied:
                continue
            job = _job(timeline, submit.account, submit.native_id)
            exchange = next(
                (e for e in _exchanges(timeline, call) if e.account == submit.account), None
            )
            if job is None or exchange is None or exchange.deployment not in owned:
                continue
            lasts = ttl if isinstance(job.fate, NeverEnds) else min(job.lasts, ttl)
            ends = job.started + lasts
            spans.append((job.started, ends))
    for started, _ in spans:
        running = sum(1 for begins, ends in spans if begins <= started < ends)
        if running > told["max_parallel_jobs"]:
            cap = told["max_parallel_jobs"]
            yield f"{running} jobs ran at {started:.3f} on {sorted(owned)}, and {cap} may"
            return


def leases_come_back(timeline: Timeline) -> Iterator[str]:
    """At rest nothing is held for a request that is over, but what died with its worker.

    Nor does a living worker hold anything by its own account.
    """
    for worker in timeline.workers:
        own = worker.router._engine.leasing._own
        passing = [one for one in own._held if one.startswith(("requests:", "trial:"))]
        for resource, held in own.taken(passing).items():
            if worker.alive and held:
                yield f"w{worker.number} still holds {resource} for {held} requests"
    if timeline.store.emptied or any(not worker.alive for worker in timeline.workers):
        return
    names = [("account", a) for a in timeline.plan.data["accounts"]]
    names += [("deployment", d["id"]) for d in timeline.plan.data["deployments"]]
    resources = tuple(f"requests:{kind}:{name}" for kind, name in names)
    for resource, held in timeline.store.store.picture(resources).held.items():
        if held:
            yield f"{held} requests still hold {resource}"


INVARIANTS: dict[str, Callable[[Timeline], Iterable[str]]] = {
    "paid once": paid_once,
    "true accepted": true_accepted,
    "nothing lost": nothing_lost,
    "job ends are true": job_ends_are_true,
    "waits go on": waits_go_on,
    "asks the owner": asks_the_owner,
    "what is named is asked for": what_is_named_is_asked_for,
    "goes where it may": goes_where_it_may,
    "no pick of the ejected": no_pick_of_the_ejected,
    "no needless refusal": no_needless_refusal,
    "ejections are deserved": ejections_are_deserved,
    "refusals are heeded": refusals_are_heeded,
    "who fails is out": who_fails_is_out,
    "returns are deserved": returns_are_deserved,
    "ends are told once": ends_are_told_once,
    "attempts are told": attempts_are_told,
    "errors of the tree": errors_of_the_tree,
    "mistakes are named": mistakes_are_named,
    "submits go fresh": submits_go_fresh,
    "ends in time": ends_in_time,
    "leaves nothing": leaves_nothing,
    "a key is one job": a_key_is_one_job,
    "one sender to a key": one_sender_to_a_key,
    "repeats answer alike": repeats_answer_alike,
    "conflicts are true": conflicts_are_true,
    "doubts are true": doubts_are_true,
    "unavailable while away": unavailable_while_away,
    "claims end": claims_end,
    "budgets hold": budgets_hold,
    "money is counted": money_is_counted,
    "money is refused rightly": money_is_refused_rightly,
    "caps hold": caps_hold,
    "leases come back": leases_come_back,
    "samples count once": samples_count_once,
    "all know the same": all_know_the_same,
}


# The truth of a call ----------------------------------------------------------------------------


def _accepted(timeline: Timeline) -> dict[int, list[Any]]:
    accepted: dict[int, list[Any]] = defaultdict(list)
    for taken in timeline.world.taken:
        assert taken.exchange.call is not None, taken
        accepted[taken.exchange.call].append(taken.submit)
    return accepted


def _copies_asked(timeline: Timeline, call: int) -> int:
    for entry in timeline.history.of("begins"):
        if entry.call == call and entry["errand"] == "create_character":
            asked = entry.about.get("replicate", 1)
            return len(timeline.plan.data["accounts"]) if asked == "all" else int(asked)
    return 1


def _ended(timeline: Timeline, how: str) -> Iterator[Entry]:
    return (entry for entry in timeline.history.of("ended") if entry["how"] == how)


def _exchanges(timeline: Timeline, call: int | None) -> list[Exchange]:
    return [exchange for exchange in timeline.world.exchanges if exchange.call == call]


def _is_limited(entry: Entry, deployment: Deployment, operation: str) -> bool:
    """Whether a deployment may be without room for an operation."""
    shared = entry["fleet"].config.accounts[deployment.account].limits
    per_minute = "rpm" if operation in SUBMITS else "read_rpm"
    kinds = [per_minute, "max_parallel_requests"]
    kinds += ["max_parallel_jobs", "cost_per_day"] if operation in STARTERS_OF_JOBS else []
    return any(getattr(limits, kind) for limits in (deployment.limits, shared) for kind in kinds)


def _must_fail_over(timeline: Timeline, entry: Entry) -> bool:
    """Whether the one attempt of a call was surely refused, and another was owed."""
    error = entry["error"]
    options = timeline.plan.errands[entry.call or 0].options
    settings = entry["fleet"].config.settings
    left = (options.get("deadline") or settings.deadline) - entry["seconds"]
    retries = options.get("retries")
    allowed = settings.retries if retries is None else retries
    if len(error.attempts) != 1 or allowed < 1 or left <= 0.5 or error.operation == "list":
        return False
    exchange = _exchanges(timeline, entry.call)[0]
    meant = meaning(exchange)
    surely = meant in ("throttled", "denied", "broke", "missing", "moved")
    if meant == "failure":
        submit = exchange.operation in SUBMITS
        harmless = not submit or _vouched_for(entry, exchange.deployment)
        surely = not exchange.sent_whole or (exchange.status is not None and harmless)
        # What began with a 2xx and broke is no refusal; going on costs of the budget.
        surely = surely and not 200 <= (exchange.status or 0) < 300
    # 403 is the caller's error, but of an account that has done this before.
    return surely and exchange.status != 403


def _vouched_for(entry: Entry, name: str) -> bool:
    """Whether its owner says that a deployment never bills what it answers with 5xx."""
    deployments = entry["fleet"].config.deployments
    return any(d.id == name and d.retry_on_5xx for d in deployments)


def _goes_many_ways(entry: Entry) -> bool:
    """Whether a call is several, or only picks: then its error is that of one of them."""
    several = entry["errand"] in ("list", "locate", "wait", "pick")
    return several or entry["arguments"].get("replicate", 1) != 1


def _candidates(timeline: Timeline, entry: Entry, operation: str) -> list[Deployment]:
    """Who may serve a call by the configuration alone."""
    arguments, fleet = entry["arguments"], entry["fleet"]
    named = arguments.get("target_model_names") or arguments.get("model")
    groups = [one.strip() for one in named.split(",")] if isinstance(named, str) else named
    ids = _ids_in(entry)
    everywhere = operation == "list" and "account" in arguments
    if not groups and not ids and not everywhere:
        groups = [fleet.config.settings.default_model]
    owners = {deployment.account for deployment in fleet.config.deployments}
    for one in ids:
        if one in timeline.made:
            owners &= {account for account, _ in timeline.made[one]}
    if "account" in arguments:
        owners &= {arguments["account"]}
    if operation == "list":
        # A page is an account's, whichever of its deployments is asked for it.
        named_by = [
            d for d in fleet.config.deployments if set(groups or d.model_names) & set(d.model_names)
        ]
        owners &= {deployment.account for deployment in named_by}
        groups = None
    return [
        deployment
        for deployment in fleet.config.deployments
        if deployment.account in owners
        and (not groups or set(groups) & set(deployment.model_names))
        and operation in deployment.operations
        and (deployment.weight > 0 or ids or operation not in SUBMITS)
    ]


def _ids_in(entry: Entry) -> list[str]:
    """What a call names, as it names it."""
    arguments = entry["arguments"]
    named = [arguments.get("video_id"), arguments.get("character_id")]
    named += list(arguments.get("characters") or ())
    return [str(getattr(one, "id", one)) for one in named if one]


def _id_in(answer: Any) -> str:
    return answer if isinstance(answer, str) else str(getattr(answer, "id", ""))


def _job(timeline: Timeline, account: str, native: str) -> Any:
    return timeline.world.provider._provider.studio.accounts[account].jobs.get(native)


def _stage(timeline: Timeline, video_id: str, at: float) -> str:
    """What a job truly is at this time, at the provider."""
    job = _job(timeline, *timeline.made[video_id][0])
    return "deleted" if job is None else str(job.stage(at).status)
