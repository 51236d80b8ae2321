"""What must hold in every timeline.

Each invariant is a function from a timeline to what is wrong with it, in sentences; `INVARIANTS`
lists them all. They compare what the routers did and said with the truth that the network and the
provider kept, and use none of the router's own judgement: what a status means, and whom it keeps
away, is written here a second time, shorter and in the words of the design.
"""

from __future__ import annotations

import email.utils
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sim_history import Entry
from sim_network import SUBMITS, Exchange
from simulation import Timeline, Worker, marked

from router import RouterError, errors
from router.config import Deployment
from router.testing.media import CLIP

__all__ = ["INVARIANTS", "violations"]

READS = {"get_character", "status", "content", "list", "delete"}
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
        unsure = entry["errand"] == "pick" or any(map(_unsure, _exchanges(timeline, call)))
        if error.accepted == "maybe" and not unsure:
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
        if failed and stage != "failed":
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
    known = _Known(timeline)
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
    known = _Known(timeline)
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
    record = _Record(timeline)
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
    known = _Known(timeline)
    for entry in timeline.history.entries:
        known.learn(entry)
        if entry.what != "Attempted" or entry["deployment"] in known.renewed_during(entry):
            continue
        wanted = {"throttled": "throttled", "denied": "denied", "broke": "denied"}
        exchange = _exchange_of(timeline, entry)
        meaning = _meaning(exchange) if exchange else ""
        # A 403 rejects the key only of an account that has done this before.
        if meaning not in wanted or entry["status"] in (None, 403):
            continue
        before = announced[entry.worker, entry["deployment"]]
        if not any(cause == wanted[meaning] and at <= entry.at for at, cause in before):
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


def _exchange_of(timeline: Timeline, attempted: Entry) -> Exchange | None:
    """The exchange that an event tells of: the last of its call at its deployment by then."""
    found = None
    for entry in timeline.history.of("request"):
        if entry.at > attempted.at:
            break
        if (entry.worker, entry.call, entry["to"], entry["operation"]) == (
            attempted.worker,
            attempted.call,
            attempted["deployment"],
            attempted["operation"],
        ):
            found = timeline.world.exchanges[entry["exchange"]]
    return found


def _unsure(exchange: Exchange) -> bool:
    """Whether a submit may have been accepted, for all that its sender can know."""
    refused = _meaning(exchange) in ("throttled", "denied", "broke", "missing", "caller", "moved")
    return exchange.operation in SUBMITS and exchange.sent_whole and not refused


def _meaning(exchange: Exchange) -> str:
    """What an exchange says of whoever was asked, by its status alone where it had one."""
    status, headers = exchange.status, exchange.headers
    if status is None or 200 <= status < 300:
        return "failure" if status is None or exchange.fault in _SPOILT else "success"
    if status == 429:
        return "broke" if exchange.fault == "broke" else "throttled"
    if status == 503 and "retry-after" in headers:
        return "throttled"
    if status == 401 or (status == 403 and exchange.fault == "denied"):
        return "denied"
    if status == 501 or (status == 404 and exchange.fault == "model_missing"):
        return "missing"
    if status == 404 and not exchange.names:
        return "missing"
    if 300 <= status < 400:
        return "moved"
    return "caller" if status < 500 else "failure"


_SPOILT = {"drip", "endless", "truncated", "reset_mid_body", "garbage", "empty", "wrong_types"}


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
    surely = exchange.fault in ("refused", "unreachable") or _meaning(exchange) in refused
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


# What a worker knows ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Out:
    scope: str
    cause: str
    until: float

    def covers(self, operation: str) -> bool:
        if self.scope in ("submits", "reads"):
            return operation in (SUBMITS if self.scope == "submits" else READS)
        return self.scope in ("both", operation)


class _Known:
    """Who each worker knows to be out, as far as the history has been read."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._out: dict[tuple[int | None, str], list[_Out]] = defaultdict(list)
        self._begun: dict[int | None, int] = {}
        self._renewed: list[tuple[int | None, int, set[str]]] = []
        self._read = 0
        self._credentials: dict[int | None, dict[str, str]] = {}

    def learn(self, entry: Entry) -> None:
        self._read += 1
        if entry.what == "begins":
            self._begun[entry.call] = self._read
        elif entry.what == "hired":
            self._credentials[entry.worker] = entry["credentials"]
        elif entry.what == "Ejected":
            out = _Out(entry["scope"], entry["cause"], entry["their_time"] + entry["seconds"])
            self._out[entry.worker, entry["deployment"]].append(out)
        elif entry.what == "heard" and self._meant(entry):
            out = _Out(entry["scope"], entry["cause"], entry["until"])
            self._out[entry.worker, entry["deployment"]].append(out)
        elif entry.what == "Attempted":
            self._hear(entry)
        elif entry.what == "reloaded":
            self._renewed.append((entry.worker, self._read, set(entry["renewed"])))
            self._credentials[entry.worker] = entry["credentials"]
            for name in entry["renewed"]:
                kept = [o for o in self._out[entry.worker, name] if o.cause != "denied"]
                self._out[entry.worker, name] = kept

    def _meant(self, heard: Entry) -> bool:
        """Whether what another worker said is of the key that this one has, or of none."""
        own = self._credentials[heard.worker].get(heard["deployment"])
        return heard["credential"] in ("", own)

    def _hear(self, entry: Entry) -> None:
        """What a throttling says, by the header itself and not by what the router makes of it."""
        exchange = _exchange_of(self._timeline, entry)
        if exchange is None or entry["status"] is None or _meaning(exchange) != "throttled":
            return
        seconds = _wait_told(exchange.headers, entry["their_time"])
        if seconds is not None:
            scope = "submits" if exchange.operation in SUBMITS else "reads"
            out = _Out(scope, "throttled", entry["their_time"] + seconds - 0.001)
            self._out[entry.worker, entry["deployment"]].append(out)

    def out(self, entry: Entry, deployment: str, operation: str) -> _Out | None:
        """Why this deployment is out for an operation of a call, if it is."""
        now = self._now(entry)
        owners_read = operation in READS
        for out in self._out[entry.worker, deployment]:
            ignored = owners_read and out.cause == "failures"
            if out.until > now and out.covers(operation) and not ignored:
                return out
        return None

    def renewed_during(self, entry: Entry) -> set[str]:
        """Deployments whose key changed under a call: it goes on with the fleet it began with."""
        begun = self._begun.get(entry.call, 0)
        found = [
            names for worker, at, names in self._renewed if worker == entry.worker and at > begun
        ]
        return set().union(*found)

    def _now(self, entry: Entry) -> float:
        if "their_time" in entry.about:
            return float(entry["their_time"])
        return entry.at + self._timeline.workers[entry.worker or 0].offset


def _wait_told(headers: dict[str, str], now: float) -> float | None:
    """Seconds that a provider asks for, floored at 1 and capped at 300; `None` for no number."""
    written = headers.get("retry-after")
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        elif written and written[0].isdigit():
            seconds = float(written)
        else:
            seconds = email.utils.parsedate_to_datetime(written or "").timestamp() - now
    except (ValueError, TypeError):
        return None
    return min(max(seconds, 1.0), 300.0)


class _Record:
    """What each deployment did to each worker, side by side with what it was ejected for."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._failures: Counter[tuple[int | None, str, str]] = Counter()
        self._out_before: set[tuple[int | None, str, str]] = set()
        begun = timeline.history.of("begins")
        self._picked = {entry.call for entry in begun if entry["errand"] == "pick"}

    def objection(self, entry: Entry) -> str | None:
        """What speaks against an ejection; `None` for nothing."""
        worker, name, cause = entry.worker, entry["deployment"], entry["cause"]
        heard = self._heard(entry)
        if not 0 < entry["seconds"] <= 300.0 * 1.1 + 0.001:
            return f"for {entry['seconds']} s"
        if cause != "failures":
            wanted = {"throttled": {"throttled"}, "denied": {"denied", "broke"}}
            said = wanted.get(cause, {"missing"})
            return None if said & heard else f"{cause}, and it said {sorted(heard)}"
        sides = {"submits", "reads"} if entry["scope"] == "both" else {entry["scope"]}
        before = any((worker, name, side) in self._out_before for side in sides)
        least = 1 if before else 3
        failures = max(self._failures[worker, name, side] for side in sides)
        # The exchange that tipped it is told of after the ejection.
        tipped = 1 if heard & {"failure", "moved", "job"} else 0
        if failures + tipped < least:
            return f"after {failures} failures and {sorted(heard)}"
        for side in sides:
            self._out_before.add((worker, name, side))
            self._failures[worker, name, side] = 0
        return None

    def take(self, entry: Entry) -> None:
        worker = entry.worker
        if entry.what == "Attempted":
            exchange = _exchange_of(self._timeline, entry)
            if exchange is not None and entry["result"] != "cancelled":
                meaning = _meaning(exchange)
                if entry.call in self._picked and entry["status"] is None:
                    meaning = "failure"  # whatever came, its caller reported that nothing did
                self._count(worker, entry["deployment"], meaning, exchange)
        elif entry.what == "JobFinished" and entry["status"] == "failed":
            for name in self._deployments(entry["account"]):
                self._failures[worker, name, "submits"] += 1

    def _count(self, worker: int | None, name: str, meaning: str, exchange: Exchange) -> None:
        side = "submits" if exchange.operation in SUBMITS else "reads"
        both = exchange.fault in ("refused", "unreachable")
        if meaning == "success":
            self._failures[worker, name, side] = 0
            self._out_before.discard((worker, name, side))
        elif meaning in ("failure", "moved"):
            for one in ("submits", "reads") if both else (side,):
                self._failures[worker, name, one] += 1

    def _heard(self, ejected: Entry) -> set[str]:
        """What this worker had heard from the deployment, or its account, at that very moment."""
        account = ejected["account"]
        heard = set()
        for entry in self._timeline.history.of("Attempted", "JobFinished"):
            if entry.worker != ejected.worker or entry.at != ejected.at:
                continue
            if entry.what == "JobFinished":
                heard |= {"job"} if entry["account"] == account else set()
            elif entry["account"] == account:
                exchange = _exchange_of(self._timeline, entry)
                same = entry["deployment"] == ejected["deployment"]
                meaning = _meaning(exchange) if exchange else ""
                if entry.call in self._picked and entry["status"] is None:
                    meaning = "failure"
                heard |= {meaning} if same or meaning in ("denied", "broke") else set()
        return heard

    def _deployments(self, account: str) -> list[str]:
        told = self._timeline.plan.data["deployments"]
        return [d["id"] for d in told if d["account"] == account]
