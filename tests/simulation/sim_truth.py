"""What the exchanges of a timeline truly meant, and what each worker could know by them.

This is the router's own judgement, written a second time: shorter, from the design's words, and
from the side of those who caused the trouble.
"""

from __future__ import annotations

import email.utils
from collections import defaultdict
from dataclasses import dataclass

from sim_history import Entry
from sim_network import SUBMITS, Exchange
from simulation import Timeline

__all__ = ["READS", "Known", "Record", "Truth", "meaning", "side_of", "sides_of", "unsure"]

READS = {"get_character", "status", "content", "list", "delete"}


def meaning(exchange: Exchange, *, worked: bool = True) -> str:
    """What an exchange says of whoever was asked, by its status alone where it had one.

    `worked`: the account has answered this operation before, so that a 403 is news of its key.
    """
    status, headers = exchange.status, exchange.headers
    if exchange.fault == "pool":
        return "own"
    if status is None or 200 <= status < 300:
        if exchange.fault in ("drip", "many_headers"):
            return "either"  # a quick one comes to its end
        return "failure" if status is None or exchange.fault in _SPOILT else "success"
    if status == 429:
        return "broke" if exchange.fault == "broke" else "throttled"
    if status == 503 and "retry-after" in headers:
        return "throttled"
    if status == 401 or (status == 403 and exchange.fault == "denied" and worked):
        return "denied"
    if status == 501 or (status == 404 and exchange.fault == "model_missing"):
        return "missing"
    if status == 404 and not exchange.names:
        return "missing"
    if 300 <= status < 400:
        return "moved"
    return "caller" if status < 500 else "failure"


def _ended_so(exchange: Exchange, attempted: Entry) -> bool:
    """Whether an exchange may be the one that an event tells of, by how it ended."""
    spoilt = exchange.fault in _SPOILT
    if attempted["status"] is None:
        return exchange.status is None or spoilt or exchange.fault == "drip"
    return exchange.status == attempted["status"] and not (
        spoilt and attempted["result"] == "success"
    )


_SPOILT = {"endless", "truncated", "reset_mid_body", "garbage", "empty", "wrong_types"}


def unsure(exchange: Exchange) -> bool:
    """Whether a submit may have been accepted, for all that its sender can know."""
    refused = meaning(exchange) in ("throttled", "denied", "broke", "missing", "caller", "moved")
    return exchange.operation in SUBMITS and exchange.sent_whole and not refused


class Truth:
    """What the events that the workers told were really about."""

    def __init__(self, timeline: Timeline) -> None:
        self._exchanges = timeline.world.exchanges
        self._requests: dict[tuple[object, ...], list[Entry]] = defaultdict(list)
        for entry in timeline.history.of("request"):
            key = (entry.worker, entry.call, entry["to"], entry["operation"])
            self._requests[key].append(entry)
        begun = list(timeline.history.of("begins"))
        self._picked, self._one_by_one = set(), set()
        for entry in begun:
            if entry["errand"] == "pick":
                self._picked.add(entry.call)
            if entry["errand"] not in ("list", "locate", "create_character"):
                self._one_by_one.add(entry.call)
        self._ended = {entry.call: entry for entry in timeline.history.of("ended")}
        self._dead = {entry.call for entry in begun} - self._ended.keys()
        self._settings = timeline.plan.data["settings"]
        self._own = {d["id"]: d.get("timeout") for d in timeline.plan.data["deployments"]}
        self._options = {errand.number: errand.options for errand in timeline.plan.errands}
        # A 403 means something only after a success, so all is read in order, once.
        worked: set[tuple[object, ...]] = set()
        self._meanings: dict[int, str] = {}
        for entry in timeline.history.of("Attempted"):
            done = (entry.worker, entry["account"], entry["operation"])
            self._meanings[id(entry)] = self._meaning(entry, worked=done in worked)
            if entry["result"] == "success":
                worked.add(done)

    def exchange(self, attempted: Entry) -> Exchange | None:
        """The exchange that an event tells of: the last of its call at its deployment by then.

        Some calls make several at a time; then the last that ended as the event says.
        """
        return next(reversed(self.may_be(attempted)), None)

    def may_be(self, attempted: Entry) -> list[Exchange]:
        """The exchanges of which one is that of an event; where one follows another, the last."""
        key = (attempted.worker, attempted.call, attempted["deployment"], attempted["operation"])
        found = [
            self._exchanges[e["exchange"]] for e in self._requests[key] if e.at <= attempted.at
        ]
        if attempted.call in self._one_by_one:
            return found[-1:]
        return [exchange for exchange in found if _ended_so(exchange, attempted)] or found

    def meaning(self, attempted: Entry) -> str:
        return self._meanings[id(attempted)]

    def _meaning(self, attempted: Entry, *, worked: bool) -> str:
        exchange = self.exchange(attempted)
        if attempted["result"] in ("cancelled", "deadline passed") or exchange is None:
            return "nothing"
        if attempted.call in self._picked and attempted["status"] is None:
            return "failure"  # whatever came, its caller reported that nothing did
        if attempted["result"] == "no answer in time" and self._cut_short(attempted):
            return "nothing"
        meant = meaning(exchange, worked=worked)
        if meant == "either":
            return "failure" if attempted["status"] is None else "success"
        return meant

    def _cut_short(self, attempted: Entry) -> bool:
        """Whether an exchange ended by its call's deadline, before its own time was over."""
        ended = self._ended.get(attempted.call)
        if ended is None:  # `locate`, or a call whose worker died: its fleet is the plan's
            dead = attempted.call in self._dead
            given = self._options[attempted.call or 0].get("timeout") if dead else None
            given = given or self._own.get(attempted["deployment"]) or self._settings["timeout"]
            return bool(attempted["seconds"] < given - 0.01)
        config = ended["fleet"].config
        own = [d.timeout for d in config.deployments if d.id == attempted["deployment"]]
        options = self._options[attempted.call or 0]
        allowed = options.get("timeout") or next(iter(own), None) or config.settings.timeout
        deadline = options.get("deadline") or config.settings.deadline
        spent = max(attempted["seconds"], attempted.at - (ended.at - ended["seconds"]))
        late = ended["errand"] != "wait" and spent >= deadline - 0.01
        return bool(attempted["seconds"] < allowed - 0.01 or late)


def side_of(operation: str) -> str:
    return "submits" if operation in SUBMITS else "reads"


def sides_of(scope: str) -> tuple[str, ...]:
    return ("submits", "reads") if scope == "both" else (scope,)


@dataclass(frozen=True)
class _Out:
    scope: str
    cause: str
    until: float
    decided: float

    def covers(self, operation: str) -> bool:
        if self.scope in ("submits", "reads"):
            return operation in (SUBMITS if self.scope == "submits" else READS)
        return self.scope in ("both", operation)


class Known:
    """Who each worker knows to be out, as far as the history has been read.

    What failures decided is over when a call has gone well since, here or at another worker; until
    then, and after its deadline, submits are there on trial.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._truth = Truth(timeline)
        self._out: dict[tuple[int | None, str], list[_Out]] = defaultdict(list)
        # As of when failures before count no more, and since when this worker knows that.
        self._returned: dict[tuple[int | None, str, str], float] = defaultdict(float)
        self._heard_back: dict[tuple[int | None, str, str], float] = defaultdict(float)
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
            now = entry["their_time"]
            out = _Out(entry["scope"], entry["cause"], now + entry["seconds"], now)
            self._out[entry.worker, entry["deployment"]].append(out)
        elif entry.what == "heard" and self._meant(entry):
            out = _Out(entry["scope"], entry["cause"], entry["until"], entry["decided"])
            self._out[entry.worker, entry["deployment"]].append(out)
        elif entry.what == "Restored":
            for side in sides_of(entry["scope"]):
                self._is_back(entry, side, entry["their_time"])
        elif entry.what == "heard back":
            self._is_back(entry, entry["side"], entry["returned"])
        elif entry.what == "Attempted":
            self._hear(entry)
        elif entry.what == "reloaded":
            self._renewed.append((entry.worker, self._read, set(entry["renewed"])))
            self._credentials[entry.worker] = entry["credentials"]
            for name in entry["renewed"]:
                kept = [o for o in self._out[entry.worker, name] if o.cause != "denied"]
                self._out[entry.worker, name] = kept

    def _is_back(self, entry: Entry, side: str, at: float) -> None:
        key = entry.worker, entry["deployment"], side
        if at > self._returned[key]:
            self._returned[key], self._heard_back[key] = at, entry.at

    def _meant(self, heard: Entry) -> bool:
        """Whether what another worker said is of the key that this one has, or of none."""
        own = self._credentials[heard.worker].get(heard["deployment"])
        return heard["credential"] in ("", own)

    def _hear(self, entry: Entry) -> None:
        """What a throttling says, by the header itself and not by what the router makes of it."""
        exchange = self._truth.exchange(entry)
        if exchange is None or self._truth.meaning(entry) != "throttled":
            return
        now = entry["their_time"]
        seconds = _wait_told(exchange.headers, now)
        if seconds is not None:
            scope = side_of(exchange.operation)
            out = _Out(scope, "throttled", now + seconds - 0.001, now)
            self._out[entry.worker, entry["deployment"]].append(out)

    def _stands(self, worker: int | None, deployment: str, out: _Out, side: str) -> bool:
        """Whether nothing has gone well there since it was decided, where that matters."""
        by_failures = out.cause == "failures"
        return not by_failures or out.decided >= self._returned[worker, deployment, side]

    def _in_force(self, entry: Entry, deployment: str, operation: str) -> list[_Out]:
        now, side = self._now(entry), side_of(operation)
        return [
            out
            for out in self._out[entry.worker, deployment]
            # Failure counting keeps no read away: who owns what is asked for must be heard.
            if not (operation in READS and out.cause == "failures")
            if out.until > now and out.covers(operation)
            if self._stands(entry.worker, deployment, out, side)
        ]

    def out(self, entry: Entry, deployment: str, operation: str) -> _Out | None:
        """Why this deployment is out for an operation of a call, if it is; others than us first."""
        found = self._in_force(entry, deployment, operation)
        return min(found, key=lambda out: out.cause == "failures", default=None)

    def was_out(self, entry: Entry, deployment: str, operation: str, seconds: float) -> bool:
        """Whether it is out, or was at some time of the last seconds."""
        if self.out(entry, deployment, operation) is not None:
            return True
        since, side = self._now(entry) - seconds, side_of(operation)
        returned = self._heard_back[entry.worker, deployment, side] >= entry.at - seconds
        return any(
            out.until > since and out.covers(operation)
            for out in self._out[entry.worker, deployment]
            if returned or self._stands(entry.worker, deployment, out, side)
        )

    def on_trial(self, entry: Entry, deployment: str) -> bool:
        """Whether this worker knows that one submit is to go well there before others follow."""
        failing = [
            out
            for out in self._out[entry.worker, deployment]
            if out.cause == "failures" and "submits" in sides_of(out.scope)
            if self._stands(entry.worker, deployment, out, "submits")
        ]
        return bool(failing) and max(out.until for out in failing) <= self._now(entry)

    def failing(self, worker: int | None, deployment: str, side: str) -> list[str]:
        """The scopes in which failures put it out, and nothing has gone well since."""
        return [
            out.scope
            for out in self._out[worker, deployment]
            if out.cause == "failures" and side in sides_of(out.scope)
            if self._stands(worker, deployment, out, side)
        ]

    def failed_out(self, entry: Entry, deployment: str, side: str) -> bool:
        """Whether this worker keeps a deployment out for its failures on this side."""
        return any(
            out.cause == "failures" and side in sides_of(out.scope) and out.until > self._now(entry)
            for out in self._out[entry.worker, deployment]
            if self._stands(entry.worker, deployment, out, side)
        )

    def denied(self, entry: Entry, deployment: str) -> bool:
        """Whether this worker keeps a deployment out for its key."""
        return any(
            out.cause == "denied" and out.until > self._now(entry)
            for out in self._out[entry.worker, deployment]
        )

    def deployments(self, worker: int | None) -> list[str]:
        """What stands in this worker's configuration now."""
        return list(self._credentials[worker])

    def back_in(self, entry: Entry, deployment: str, operation: str) -> float:
        """In how many seconds nothing that this worker knows of is in the way any more."""
        now = self._now(entry)
        ends = [out.until for out in self._in_force(entry, deployment, operation)]
        return max([end - now for end in ends] or [0.0])

    def renewed_during(self, entry: Entry) -> set[str]:
        """Deployments whose key changed under a call: it goes on with the fleet it began with."""
        begun = self._begun.get(entry.call, 0)
        mine = [(at, names) for worker, at, names in self._renewed if worker == entry.worker]
        return set().union(*(names for at, names in mine if at > begun))

    def _now(self, entry: Entry) -> float:
        return float(entry["their_time"])


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


def _ran_at(timeline: Timeline) -> dict[tuple[str, str], str]:
    """Which deployment took each job, by account and native id."""
    return {
        (taken.submit.account, taken.submit.native_id): taken.exchange.deployment
        for taken in timeline.world.taken
    }


class Record:
    """What each deployment did to the fleet, side by side with what it was ejected for.

    A worker may not have heard yet what went well elsewhere; what failed elsewhere it may count
    only if it was there. So a failure counts whoever met it, a success only where it is surely
    known.
    """

    IN_A_ROW, LEAST, WINDOW = 3, 5, 30.0
    BUCKET = 10.0
    """Counts are shared by buckets of so many seconds, each worker's by its own clock."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._truth = Truth(timeline)
        self._known = Known(timeline)
        self._met: dict[tuple[str, str], list[tuple[float, int | None, bool]]] = defaultdict(list)
        """By deployment and side, or jobs: when, who met it, and whether it went well."""
        self._jobs: dict[str, list[tuple[float, float, int | None, bool]]] = defaultdict(list)
        """By deployment: when a job was accepted, then as above of its end."""
        self._since: dict[tuple[int | None, str, str], float] = defaultdict(float)
        self._ended: set[tuple[str, str]] = set()
        self._seen_overdue: set[tuple[int | None, str, str]] = set()
        self._put_out: dict[str, set[int | None]] = {}
        """Whom failures kept submits away from, and who has seen a job go well there since."""
        troubles = {"freeze", "flush", "lose_answers"} & {b.kind for b in timeline.plan.blows}
        self._lag = float("inf") if troubles else 2.5 * timeline.plan.turn_seconds
        skews = [b.amount for b in timeline.plan.blows if b.kind == "skew"]
        self._skewed = 6.0 + sum(map(abs, skews))
        """Seconds by which two workers' clocks may differ."""
        self._ran_at = _ran_at(timeline)

    def objection(self, entry: Entry) -> str | None:
        """What speaks against an ejection; `None` for nothing."""
        cause = entry["cause"]
        heard = self._heard(entry)
        if not 0 < entry["seconds"] <= 300.0 * 1.1 + 0.001:
            return f"for {entry['seconds']} s"
        if cause != "failures":
            wanted = {"throttled": {"throttled"}, "denied": {"denied", "broke"}}
            said = wanted.get(cause, {"missing"})
            if not said & heard:
                return f"{cause}, and it said {sorted(heard)}"
            return self._longer_than_told(entry) if cause == "throttled" else None
        if not heard & {"failure", "moved", "job", "overdue"}:
            return f"for failures, and it said {sorted(heard)}"
        if any(self._deserves(entry, side, heard) for side in self._judged(entry["scope"])):
            return None
        counts = {side: len(self._failures(entry, side)) for side in self._judged(entry["scope"])}
        return f"after {counts} failures and {sorted(heard)}"

    @staticmethod
    def _judged(scope: str) -> tuple[str, ...]:
        sides = sides_of(scope)
        return (*sides, "jobs") if "submits" in sides else sides

    def _deserves(self, entry: Entry, side: str, heard: set[str]) -> bool:
        """Whether what it did on one side is enough, with what it has just done."""
        name, by_job = entry["deployment"], side == "jobs"
        # An exchange is told of after the ejection that it led to, a job's end before.
        last = 0 if by_job else 1
        tipped = bool(heard & ({"job", "overdue"} if by_job else {"failure", "moved"}))
        if not tipped:
            return False
        if by_job and entry.worker not in self._put_out.get(name, {entry.worker}):
            return True  # of jobs a trial tells nothing, so the next that fails is enough
        if not by_job and self._known.failing(entry.worker, name, side):
            return True  # the trial failed, or the first read after the deadline
        now, since = entry.at, self._since[entry.worker, name, side]
        if by_job and self._jobs_deserve(entry, since):
            return True
        met = [one for one in self._met[name, side] if one[0] > since]
        own = self._row([well for _, who, well in met if who == entry.worker])
        surely = [well for at, _, well in met if not well or at < now - self._lag]
        if max(own, self._row(surely)) + last >= self.IN_A_ROW:
            return True
        # Clocks differ by some seconds, and buckets by one.
        lately = [at for at, _, well in met if not well and at > now - self.WINDOW - 6.0]
        known = (now - self.WINDOW + self.BUCKET + 6.0, now - max(self._lag, 6.0))
        went_well = sum(1 for at, _, well in met if well and known[0] < at < known[1])
        any_well = sum(1 for at, _, well in met if well and at > now - self.WINDOW - 6.0)
        badly = len(lately) + last
        return went_well < badly and badly + any_well >= self.LEAST

    def _jobs_deserve(self, entry: Entry, since: float) -> bool:
        """Whether the jobs that were accepted last are enough, in that order, as far as known."""
        known = [
            (accepted, well)
            for accepted, at, who, well in self._jobs[entry["deployment"]]
            if at > since and (not well or who == entry.worker or at < entry.at - self._lag)
        ]
        # Clocks differ by some seconds, buckets by one, and providers tell whole seconds.
        unsure = self.BUCKET + self._skewed
        went_well = max((at for at, well in known if well), default=-float("inf"))
        if sum(not well and at > went_well - unsure for at, well in known) >= self.IN_A_ROW:
            return True
        newest = max((at for at, _ in known), default=0.0)
        lately = [well for at, well in known if at > newest - self.WINDOW - unsure]
        return len(lately) >= self.LEAST and sum(lately) < len(lately) - sum(lately)

    @staticmethod
    def _row(went: list[bool]) -> int:
        """How many failed since the last that went well."""
        return next((n for n, well in enumerate(reversed(went)) if well), len(went))

    def _failures(self, entry: Entry, side: str) -> list[float]:
        return [at for at, _, well in self._met[entry["deployment"], side] if not well]

    def _longer_than_told(self, ejected: Entry) -> str | None:
        """What speaks against the length of a throttling: the provider's own word."""
        for entry in self._timeline.history.of("Attempted"):
            same = (entry.worker, entry["deployment"], entry.at) == (
                ejected.worker,
                ejected["deployment"],
                ejected.at,
            )
            for exchange in self._truth.may_be(entry) if same else ():
                told = _wait_told(exchange.headers, ejected["their_time"])
                if told and abs(told - ejected["seconds"]) < 0.01:
                    return None
                if told is None and ejected["seconds"] % 5.0 < 0.01:
                    return None  # nothing was told: five seconds, doubling
        return f"for {ejected['seconds']} s, which nobody said"

    def take(self, entry: Entry) -> None:
        self._known.learn(entry)
        if entry.what == "Attempted":
            self._count(entry, self._truth.meaning(entry))
        elif entry.what == "JobFinished":
            self._count_job(entry)
        elif entry.what == "Ejected" and entry["cause"] == "failures":
            if "submits" in sides_of(entry["scope"]):
                self._put_out[entry["deployment"]] = set()
            self._start_over(entry, entry.at)
        elif entry.what == "heard" and entry["cause"] == "failures":
            # What came between the decision and its news counts.
            self._start_over(entry, entry.at - self._lag)

    def _start_over(self, entry: Entry, at: float) -> None:
        """What put it out has been answered for: whoever knows that counts from there."""
        for side in self._judged(entry["scope"]):
            key = entry.worker, entry["deployment"], side
            self._since[key] = max(self._since[key], at)

    def _count(self, entry: Entry, meant: str) -> None:
        name, exchange = entry["deployment"], self._truth.exchange(entry)
        side = side_of(entry["operation"])
        both = exchange is not None and exchange.fault in ("refused", "unreachable")
        overdue = self._overdue(entry)
        if overdue is not None and (entry.worker, *overdue) not in self._seen_overdue:
            self._seen_overdue.add((entry.worker, *overdue))
            self._met[overdue[0], "jobs"].append((entry.at, entry.worker, False))
            self._jobs[overdue[0]].append((entry.at, entry.at, entry.worker, False))
        if meant == "success":
            self._met[name, side].append((entry.at, entry.worker, True))
        elif meant in ("failure", "moved"):
            for one in ("submits", "reads") if both else (side,):
                self._met[name, one].append((entry.at, entry.worker, False))

    def _count_job(self, entry: Entry) -> None:
        """One job's end counts once, however many see it."""
        # What started it is known to whoever still took it to run, and counts its end.
        unknown = entry["deployment"] is None or entry["operation"] is None
        if unknown or (entry["status"] == "failed" and not self._blamed(entry)):
            return
        job = entry["deployment"], entry["video_id"]
        well = entry["status"] != "failed"
        if well or job not in self._ended:
            self._met[entry["deployment"], "jobs"].append((entry.at, entry.worker, well))
            accepted = entry.at - (entry["seconds"] or 0.0)
            self._jobs[entry["deployment"]].append((accepted, entry.at, entry.worker, well))
        self._ended.add(job)
        if well:
            self._put_out.get(entry["deployment"], set()).add(entry.worker)

    @staticmethod
    def _blamed(finished: Entry) -> bool:
        """Whether a failed job is its deployment's fault; what was asked for is its caller's."""
        return finished["code"] != "moderation_blocked"

    def _heard(self, ejected: Entry) -> set[str]:
        """What this worker had heard from the deployment, or its account, at that very moment."""
        account = ejected["account"]
        heard = set()
        for entry in self._timeline.history.of("Attempted", "JobFinished"):
            if entry.worker != ejected.worker or entry.at != ejected.at:
                continue
            if entry.what == "JobFinished":
                failed = entry["account"] == account and entry["status"] == "failed"
                heard |= {"job"} if failed and self._blamed(entry) else set()
            elif entry["account"] == account:
                same = entry["deployment"] == ejected["deployment"]
                meant = self._truth.meaning(entry)
                heard |= {meant} if same or meant in ("denied", "broke") else set()
                heard |= {"overdue"} if self._overdue(entry) else set()
        return heard

    def _overdue(self, attempted: Entry) -> tuple[str, str] | None:
        """The deployment and the native id of a job that was seen to run for too long."""
        exchange = self._truth.exchange(attempted)
        if exchange is None or exchange.operation != "status" or exchange.status != 200:
            return None
        account, native = attempted["account"], exchange.path.rpartition("/")[2]
        studio = self._timeline.world.provider._provider.studio
        job, name = studio.accounts[account].jobs.get(native), self._ran_at.get((account, native))
        if job is None or name is None:
            return None
        told = self._timeline.plan.data
        limits = [told["accounts"][account], *told["deployments"]]
        least = min([900.0, *(one["job_ttl"] for one in limits if "job_ttl" in one)])
        # By the clocks of who submitted it and of who looked.
        age = attempted.at - job.started + self._skewed
        runs = job.stage(attempted.at - attempted["seconds"]).status in ("queued", "in_progress")
        return (name, native) if runs and age > least else None
