"""What the exchanges of a timeline truly meant, and what each worker could know by them.

This is the router's own judgement, written a second time: shorter, from the design's words, and
from the side of those who caused the trouble.
"""

from __future__ import annotations

import email.utils
from collections import Counter, defaultdict
from dataclasses import dataclass

from sim_history import Entry
from sim_network import SUBMITS, Exchange
from simulation import Timeline

__all__ = ["READS", "Known", "Record", "Truth", "meaning", "unsure"]

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
        begun = timeline.history.of("begins")
        self._picked, self._one_by_one = set(), set()
        for entry in begun:
            if entry["errand"] == "pick":
                self._picked.add(entry.call)
            if entry["errand"] not in ("list", "locate", "create_character"):
                self._one_by_one.add(entry.call)
        self._ended = {entry.call: entry for entry in timeline.history.of("ended")}
        self._settings = timeline.plan.data["settings"]
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
        key = (attempted.worker, attempted.call, attempted["deployment"], attempted["operation"])
        found = [
            self._exchanges[e["exchange"]] for e in self._requests[key] if e.at <= attempted.at
        ]
        if attempted.call in self._one_by_one:
            return found[-1] if found else None
        alike = [exchange for exchange in found if exchange.status == attempted["status"]]
        return next(reversed(alike or found), None)

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
            return bool(attempted["seconds"] < self._settings["timeout"] - 0.01)
        config = ended["fleet"].config
        own = [d.timeout for d in config.deployments if d.id == attempted["deployment"]]
        options = self._options[attempted.call or 0]
        allowed = options.get("timeout") or next(iter(own), None) or config.settings.timeout
        deadline = options.get("deadline") or config.settings.deadline
        spent = max(attempted["seconds"], attempted.at - (ended.at - ended["seconds"]))
        late = ended["errand"] != "wait" and spent >= deadline - 0.01
        return bool(attempted["seconds"] < allowed - 0.01 or late)


@dataclass(frozen=True)
class _Out:
    scope: str
    cause: str
    until: float

    def covers(self, operation: str) -> bool:
        if self.scope in ("submits", "reads"):
            return operation in (SUBMITS if self.scope == "submits" else READS)
        return self.scope in ("both", operation)


class Known:
    """Who each worker knows to be out, as far as the history has been read."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._truth = Truth(timeline)
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
        exchange = self._truth.exchange(entry)
        if exchange is None or self._truth.meaning(entry) != "throttled":
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

    def failed_out(self, entry: Entry, deployment: str, side: str) -> bool:
        """Whether this worker keeps a deployment out for its failures on this side."""
        return any(
            out.cause == "failures" and out.scope in (side, "both") and out.until > self._now(entry)
            for out in self._out[entry.worker, deployment]
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
        ends = [
            out.until
            for out in self._out[entry.worker, deployment]
            if out.covers(operation) and not (operation in READS and out.cause == "failures")
        ]
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


class Record:
    """What each deployment did to each worker, side by side with what it was ejected for."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._truth = Truth(timeline)
        self._failures: Counter[tuple[int | None, str, str]] = Counter()
        self._out_before: set[tuple[int | None, str, str]] = set()

    def objection(self, entry: Entry) -> str | None:
        """What speaks against an ejection; `None` for nothing."""
        worker, name, cause = entry.worker, entry["deployment"], entry["cause"]
        heard = self._heard(entry)
        if not 0 < entry["seconds"] <= 300.0 * 1.1 + 0.001:
            return f"for {entry['seconds']} s"
        if cause != "failures":
            wanted = {"throttled": {"throttled"}, "denied": {"denied", "broke"}}
            said = wanted.get(cause, {"missing"})
            if not said & heard:
                return f"{cause}, and it said {sorted(heard)}"
            return self._longer_than_told(entry) if cause == "throttled" else None
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

    def _longer_than_told(self, ejected: Entry) -> str | None:
        """What speaks against the length of a throttling: the provider's own word."""
        for entry in self._timeline.history.of("Attempted"):
            same = (entry.worker, entry["deployment"], entry.at) == (
                ejected.worker,
                ejected["deployment"],
                ejected.at,
            )
            exchange = self._truth.exchange(entry) if same else None
            told = exchange and _wait_told(exchange.headers, ejected["their_time"])
            if told and abs(told - ejected["seconds"]) < 0.01:
                return None
            if exchange and told is None and ejected["seconds"] % 5.0 < 0.01:
                return None  # nothing was told: five seconds, doubling
        return f"for {ejected['seconds']} s, which nobody said"

    def take(self, entry: Entry) -> None:
        worker = entry.worker
        if entry.what == "Attempted":
            self._count(entry, self._truth.meaning(entry))
        elif entry.what == "JobFinished" and entry["status"] == "failed" and self._blamed(entry):
            for name in self._deployments(entry["account"]):
                self._failures[worker, name, "submits"] += 1

    def _count(self, entry: Entry, meant: str) -> None:
        worker, name, exchange = entry.worker, entry["deployment"], self._truth.exchange(entry)
        side = "submits" if entry["operation"] in SUBMITS else "reads"
        both = exchange is not None and exchange.fault in ("refused", "unreachable")
        if meant == "success":
            self._failures[worker, name, side] = 0
            self._out_before.discard((worker, name, side))
        elif meant in ("failure", "moved"):
            for one in ("submits", "reads") if both else (side,):
                self._failures[worker, name, one] += 1

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
        return heard

    def _deployments(self, account: str) -> list[str]:
        told = self._timeline.plan.data["deployments"]
        return [d["id"] for d in told if d["account"] == account]
