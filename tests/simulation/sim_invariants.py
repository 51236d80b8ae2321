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

from sim_history import Entry
from sim_network import SUBMITS, Exchange
from sim_truth import Known, Record, Truth, meaning, unsure
from simulation import Timeline, Worker, marked

from router import RouterError, errors
from router.config import Deployment
from router.testing.media import CLIP

__all__ = ["INVARIANTS", "violations"]

SLACK = 2.5
"""Seconds that a call may need to say that its time is over."""


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
    accepted = _accepted(timeline)
    for entry in _ended(timeline, "error"):
        error, call = entry["error"], entry.call
        if not isinstance(error, RouterError):
            continue
        happened = len(accepted.get(call or 0, ()))
        if error.accepted == "no" and happened:
            yield f"call {call} says that nothing was accepted: {error!r}"
        # A caller who sends by a client of its own cannot say how much of a request went out.
        nobody_knows = entry["errand"] == "pick" or any(map(unsure, _exchanges(timeline, call)))
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
    accepted = _accepted(timeline)
    for call in sorted(accepted.keys() - told - dead):
        yield f"call {call} was accepted, and no event says so"
    for entry in _ended(timeline, "answer"):
        made = timeline.made.get(_id_in(entry["answer"]), ())
        natives = {(s.account, s.native_id) for s in accepted.get(entry.call or 0, ())}
        if entry["errand"] in SUBMITS | {"pick"} and not natives.issuperset(made or [None]):
            yield f"call {entry.call} was answered with {made}, and accepted were {natives}"


def job_ends_are_true(timeline: Timeline) -> Iterator[str]:
    """A wait ends as its job ended; a download is whole."""
    for entry in timeline.history.of("ended"):
        if entry["errand"] == "content" and entry["how"] == "answer" and entry["answer"] != CLIP:
            yield f"call {entry.call} brought {len(entry['answer'])} of {len(CLIP)} bytes"
        if entry["errand"] != "wait":
            continue
        stage = _stage(timeline, entry["arguments"]["video_id"], entry.at)
        if entry["how"] == "answer" and stage not in ("completed", "deleted"):
            yield f"call {entry.call} waited to the end of a job that is {stage}"
        failed = entry["how"] == "error" and isinstance(entry["error"], errors.JobFailedError)
        if failed and stage not in ("failed", "deleted"):
            yield f"call {entry.call} says failed of a job that is {stage}"


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


def no_pick_of_the_ejected(timeline: Timeline) -> Iterator[str]:
    """Nobody is picked whom this worker knows to be out of rotation for what it is picked for."""
    known = Known(timeline)
    for entry in timeline.history.entries:
        if entry.what == "Picked" and entry["deployment"] not in known.renewed_during(entry):
            out = known.out(entry, entry["deployment"], entry["operation"])
            if out is not None:
                yield (
                    f"call {entry.call} picked {entry['deployment']} for {entry['operation']}, "
                    f"which is out for {out.scope} until {out.until:.3f} ({out.cause})"
                )
        known.learn(entry)


def no_needless_refusal(timeline: Timeline) -> Iterator[str]:
    """Nobody hears that nobody is in rotation while somebody is; a sure refusal fails over."""
    known = Known(timeline)
    for entry in timeline.history.entries:
        known.learn(entry)
        if entry.what != "ended" or entry["how"] != "error" or _goes_many_ways(entry):
            continue
        error = entry["error"]
        if not isinstance(error, RouterError):
            continue  # which is another invariant's matter
        nobody = isinstance(error, errors.NoDeploymentAvailableError)
        if not nobody and not _must_fail_over(timeline, entry):
            continue
        tried = {attempt.deployment for attempt in error.attempts}
        for deployment in _candidates(timeline, entry):
            out = known.out(entry, deployment.id, error.operation)
            if deployment.id not in tried and out is None:
                yield f"call {entry.call} ended in {error!r} while {deployment.id} was in rotation"


# Health -----------------------------------------------------------------------------------------


def ejections_are_deserved(timeline: Timeline) -> Iterator[str]:
    """Who is ejected has said so, or failed three times in a row; callers' errors are nothing."""
    record = Record(timeline)
    for entry in timeline.history.entries:
        if entry.what == "Ejected":
            why_not = record.objection(entry)
            if why_not:
                yield f"{entry['deployment']} was ejected by w{entry.worker}: {why_not}"
        record.take(entry)


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
        # A 403 rejects the key only of an account that has done this before.
        if meant not in wanted or entry["status"] in (None, 403):
            continue
        before = announced[entry.worker, entry["deployment"]]
        if not any(cause == wanted[meant] and at <= entry.at for at, cause in before):
            yield f"w{entry.worker} heard {entry['status']} of {entry['deployment']}, and went on"


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
            bound = entry["arguments"]["wait_timeout"]
        # Who only picks takes the time that its own client takes.
        if entry["seconds"] > bound + SLACK and entry["errand"] != "pick":
            yield f"call {entry.call} took {entry['seconds']:.1f} s of {bound:g} s"


def leaves_nothing(timeline: Timeline) -> Iterator[str]:
    """At rest nothing is in flight, no connection is open, no task and no thread is left."""
    yield from timeline.left
    for worker in timeline.workers:
        if worker.alive:
            for name, known in worker.router.statistics().items():
                if known["in_flight"]:
                    yield f"w{worker.number} counts {known['in_flight']} in flight at {name}"


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


INVARIANTS: dict[str, Callable[[Timeline], Iterable[str]]] = {
    "paid once": paid_once,
    "true accepted": true_accepted,
    "nothing lost": nothing_lost,
    "job ends are true": job_ends_are_true,
    "asks the owner": asks_the_owner,
    "no pick of the ejected": no_pick_of_the_ejected,
    "no needless refusal": no_needless_refusal,
    "ejections are deserved": ejections_are_deserved,
    "refusals are heeded": refusals_are_heeded,
    "errors of the tree": errors_of_the_tree,
    "ends in time": ends_in_time,
    "leaves nothing": leaves_nothing,
    "all know the same": all_know_the_same,
}


# The truth of a call ----------------------------------------------------------------------------


def _accepted(timeline: Timeline) -> dict[int, list[Any]]:
    accepted: dict[int, list[Any]] = defaultdict(list)
    for submit in timeline.world.provider.accepted:
        call = marked(submit.prompt or str(submit.fields.get("name")))
        assert call is not None, submit
        accepted[call].append(submit)
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


def _must_fail_over(timeline: Timeline, entry: Entry) -> bool:
    """Whether the one attempt of a submit was surely refused, and another was owed."""
    error = entry["error"]
    options = timeline.plan.errands[entry.call or 0].options
    settings = entry["fleet"].config.settings
    left = (options.get("deadline") or settings.deadline) - entry["seconds"]
    retries = options.get("retries")
    allowed = settings.retries if retries is None else retries
    if len(error.attempts) != 1 or allowed < 1 or left <= 0.01:
        return False
    exchange = _exchanges(timeline, entry.call)[-1]
    refused = ("throttled", "denied", "broke", "missing", "moved")
    surely = exchange.fault in ("refused", "unreachable") or meaning(exchange) in refused
    # 403 is the caller's error, but of an account that has done this before.
    return surely and exchange.operation in SUBMITS and exchange.status != 403


def _goes_many_ways(entry: Entry) -> bool:
    """Whether a call is several, or only picks: then its error is that of one of them."""
    several = entry["errand"] in ("list", "locate", "wait", "pick")
    return several or entry["arguments"].get("replicate", 1) != 1


def _candidates(timeline: Timeline, entry: Entry) -> list[Deployment]:
    """Who may serve a call by the configuration alone."""
    arguments, fleet = entry["arguments"], entry["fleet"]
    operation = entry["error"].operation
    named = arguments.get("target_model_names") or arguments.get("model")
    groups = named.split(",") if isinstance(named, str) else named
    ids = [arguments.get("video_id"), arguments.get("character_id")]
    ids = [one for one in [*ids, *arguments.get("characters", ())] if one]
    if not groups and not ids:
        groups = [fleet.config.settings.default_model]
    owners = {deployment.account for deployment in fleet.config.deployments}
    for one in ids:
        owners &= {account for account, _ in timeline.made.get(one, ())}
    if "account" in arguments:
        owners = {arguments["account"]}
    return [
        deployment
        for deployment in fleet.config.deployments
        if deployment.account in owners
        and (not groups or set(groups) & set(deployment.model_names))
        and operation in deployment.operations
        and (deployment.weight > 0 or ids or operation not in SUBMITS)
    ]


def _id_in(answer: Any) -> str:
    return answer if isinstance(answer, str) else str(getattr(answer, "id", ""))


def _stage(timeline: Timeline, video_id: str, at: float) -> str:
    """What a job truly is at this time, at the provider."""
    account, native = timeline.made[video_id][0]
    studio = timeline.world.provider._provider.studio
    job = studio.accounts[account].jobs.get(native)
    return "deleted" if job is None else str(job.stage(at).status)
