"""Each invariant can fail: for each there is a fault of the router that it finds.

A mutation is put into the real code, and timelines are played until the checker names the
invariant that it breaks. An invariant without one would be a promise that nobody could break.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from sim_invariants import INVARIANTS, violations
from sim_plan import Blow, drawn
from simulation import run
from timelines import retold

from router import (
    choosing,
    claiming,
    downloads,
    engine,
    fleet,
    limits,
    once,
    outcomes,
    reporting,
    selection,
    trip,
    waiting,
)
from router.claiming import Claiming
from router.claims import ACCEPTED, FREE, SENDING, UNKNOWN, Claim, Claimed, Record
from router.errors import InvalidIdError, StateUnavailableError, WaitTimeoutError
from router.fleet import Member
from router.health import Health
from router.ids import IdCodec
from router.learning import Learning
from router.leases import Lease
from router.leasing import Leasing
from router.observations import Cause, Ejection
from router.outcomes import Effect, Exchange, Outcome
from router.ownership import Owned
from router.state import MemoryStore
from router.state.budgets import Budgets
from router.state.records import Records
from router.state.sharing import Sharing
from router.transport import awaiting, blocking, connections
from router.transport.exchange import Heard
from router.types import Operation, Video

SEEDS = range(300)
# The seed that found each mutation last, by its sentence. It is played first; where the code has
# changed so far that it finds nothing any more, the others are.
FOUND: dict[str, int] = json.loads((Path(__file__).parent / "mutations_found.json").read_text())

Mutation = Callable[[pytest.MonkeyPatch], None]
MUTATIONS: dict[str, tuple[str, Mutation, dict[str, Any]]] = {}


def breaks(invariant: str, **weather: Any) -> Callable[[Mutation], Mutation]:
    """Register a mutation under its sentence, with the invariant that it breaks.

    `weather` replaces parts of the plans, where what shows the fault is rare.
    """

    def register(mutation: Mutation) -> Mutation:
        MUTATIONS[(mutation.__doc__ or "").strip()] = (invariant, mutation, weather)
        return mutation

    return register


def changed(patch: pytest.MonkeyPatch, row: str, **columns: Any) -> None:
    """A row of the outcome table with other columns."""
    original = getattr(outcomes, row)

    def other(*args: Any, **kwargs: Any) -> Outcome:
        return dataclasses.replace(original(*args, **kwargs), **columns)

    patch.setattr(outcomes, row, other)


def changed_eject(patch: pytest.MonkeyPatch, row: str, **columns: Any) -> None:
    """A row of the outcome table whose ejection is another."""
    original = getattr(outcomes, row)

    def other(*args: Any, **kwargs: Any) -> Outcome:
        outcome: Outcome = original(*args, **kwargs)
        assert outcome.eject is not None
        return dataclasses.replace(outcome, eject=dataclasses.replace(outcome.eject, **columns))

    patch.setattr(outcomes, row, other)


@breaks("paid once")
def _(patch: pytest.MonkeyPatch) -> None:
    """A submit that broke off is sent again."""
    changed(patch, "_ambiguous", again=True)


@breaks("true accepted")
def _(patch: pytest.MonkeyPatch) -> None:
    """An ambiguous submit is called a refused one."""
    changed(patch, "_ambiguous", accepted="no")


@breaks("true accepted")
def _(patch: pytest.MonkeyPatch) -> None:
    """A refused submit is called ambiguous."""
    changed(patch, "_throttled", accepted="maybe")


@breaks("nothing lost")
def _(patch: pytest.MonkeyPatch) -> None:
    """A cancelled submit says nothing of a job that may be running."""
    patch.setattr(engine.Engine, "left_by_caller", lambda *args, **kwargs: None)


@breaks("nothing lost")
def _(patch: pytest.MonkeyPatch) -> None:
    """An answer bears the id of another job."""
    original = engine.own

    def own(trip: Any, member: Any, answer: Any) -> None:
        if isinstance(answer, Video):
            answer.id = f"video_{'0' * 32}"
        original(trip, member, answer)

    patch.setattr(engine, "own", own)


@breaks("job ends are true")
def _(patch: pytest.MonkeyPatch) -> None:
    """A job in progress is taken for a finished one."""
    patch.setattr(Video, "done", property(lambda self: self.status != "queued"))


@breaks("job ends are true")
def _(patch: pytest.MonkeyPatch) -> None:
    """A download that breaks off is taken for a whole one."""
    original = Heard._hand_on

    async def hand_on(self: Any, *args: Any) -> None:
        with suppress(httpx.TransportError):
            await original(self, *args)

    patch.setattr(Heard, "_hand_on", hand_on)


@breaks("waits go on")
def _(patch: pytest.MonkeyPatch) -> None:
    """Any look that fails ends the wait."""
    patch.setattr(waiting, "_passing", lambda error: False)


@breaks("waits go on")
def _(patch: pytest.MonkeyPatch) -> None:
    """A wait ends by a third too early."""
    original = waiting._bounded

    def bounded(call: Any, patience: float, left: float | None) -> Any:
        if left is not None and left < 60:
            raise WaitTimeoutError("too early", video_id=call.ids[0], last_status=None)
        return original(call, patience, left)

    patch.setattr(waiting, "_bounded", bounded)


@breaks("asks the owner")
def _(patch: pytest.MonkeyPatch) -> None:
    """A follow-up goes to whoever is best."""
    original = engine.route_of

    def route_of(*args: Any) -> Any:
        return dataclasses.replace(original(*args), owners=None)

    def natives_in(self: Owned, account: str) -> tuple[str, ...]:
        return next(iter(self.natives.values()), ())

    patch.setattr(engine, "route_of", route_of)
    patch.setattr(Owned, "natives_in", natives_in)


@breaks("what is named is asked for")
def _(patch: pytest.MonkeyPatch) -> None:
    """A generation goes anywhere, and drops the character that it names."""
    original = engine.owned_by

    def owned_by(call: Any, fleet: Any) -> Any:
        if call.operation is Operation.GENERATION:
            call = dataclasses.replace(call, ids=())
        return original(call, fleet)

    patch.setattr(engine, "owned_by", owned_by)


@breaks("goes where it may")
def _(patch: pytest.MonkeyPatch) -> None:
    """Any deployment serves any group."""
    original = engine.route_of

    def route_of(*args: Any) -> Any:
        return dataclasses.replace(original(*args), names=None)

    patch.setattr(engine, "route_of", route_of)


@breaks("goes where it may")
def _(patch: pytest.MonkeyPatch) -> None:
    """A deployment of weight 0 serves new work."""
    original = selection.obstacle

    def obstacle(candidate: Any, route: Any) -> Any:
        found = original(candidate, route)
        return None if found is not None and found.verdict == "drained" else found

    patch.setattr(selection, "obstacle", obstacle)


@breaks("goes where it may")
def _(patch: pytest.MonkeyPatch) -> None:
    """The highest order serves first."""
    original = fleet.tiers
    patch.setattr(fleet, "tiers", lambda *args: tuple(reversed(original(*args))))


@breaks("no pick of the ejected")
def _(patch: pytest.MonkeyPatch) -> None:
    """A pick asks nobody's health."""

    def in_rotation(members: Any, question: Any) -> Any:
        return (), [member for member in members if member not in question.tried], ()

    patch.setattr(selection, "_in_rotation", in_rotation)


@breaks("no pick of the ejected")
def _(patch: pytest.MonkeyPatch) -> None:
    """A throttled submit keeps reads away instead."""
    changed_eject(patch, "_throttled", scope="reads")


@breaks("no needless refusal")
def _(patch: pytest.MonkeyPatch) -> None:
    """An ejection covers everything, whatever its scope."""
    patch.setattr(Ejection, "covers", lambda self, operation: True)


@breaks("no needless refusal")
def _(patch: pytest.MonkeyPatch) -> None:
    """A sure refusal ends the call."""
    changed(patch, "_throttled", again=False)


@breaks("no needless refusal")
def _(patch: pytest.MonkeyPatch) -> None:
    """A read that a 5xx answered is not made again."""
    changed(patch, "_server_error", again=False)


@breaks("no needless refusal")
def _(patch: pytest.MonkeyPatch) -> None:
    """Who is to come back is told the time of the last to return, not of the first."""
    original = reporting.nobody

    def nobody(trip: Any, ejections: Any, now: float) -> Any:
        error: Any = original(trip, ejections, now)
        error.retry_after = max(e.until - now for e in ejections.values()) + 1.0
        return error

    patch.setattr(choosing, "nobody", nobody)


@breaks("ejections are deserved")
def _(patch: pytest.MonkeyPatch) -> None:
    """What our own pool cannot do counts against the deployment."""
    original = outcomes._unanswered

    def unanswered(exchange: Exchange, fault: outcomes.Fault) -> Outcome:
        outcome = original(exchange, fault)
        own = fault is outcomes.Fault.POOL
        return dataclasses.replace(outcome, effect=Effect.FAILURE) if own else outcome

    patch.setattr(outcomes, "_unanswered", unanswered)


@breaks("ejections are deserved", fates=1.0, fate="job_refused")
def _(patch: pytest.MonkeyPatch) -> None:
    """A job that was refused for its content counts against the deployment."""
    patch.setattr("router.learning.is_callers_fault", lambda *told: False)


@breaks("ejections are deserved")
def _(patch: pytest.MonkeyPatch) -> None:
    """A throttling lasts a minute longer than the provider says."""
    original = outcomes._throttled

    def throttled(exchange: Exchange, *args: Any) -> Outcome:
        outcome = original(exchange, *args)
        assert outcome.eject is not None
        longer = dataclasses.replace(outcome.eject, seconds=outcome.eject.seconds + 61.0)
        return dataclasses.replace(outcome, eject=longer)

    patch.setattr(outcomes, "_throttled", throttled)


@breaks("ejections are deserved")
def _(patch: pytest.MonkeyPatch) -> None:
    """A caller's error counts against the deployment."""
    original = outcomes._callers_error

    def callers_error(exchange: Exchange, status: int) -> Outcome:
        return dataclasses.replace(original(exchange, status), effect=Effect.FAILURE)

    patch.setattr(outcomes, "_callers_error", callers_error)


@breaks("ejections are deserved")
def _(patch: pytest.MonkeyPatch) -> None:
    """One failure is enough."""
    patch.setattr("router.health.FAILURES_IN_A_ROW", 1)


@breaks("refusals are heeded")
def _(patch: pytest.MonkeyPatch) -> None:
    """Who says that it is busy is asked again at once."""
    changed(patch, "_throttled", eject=None)


@breaks("refusals are heeded")
def _(patch: pytest.MonkeyPatch) -> None:
    """A refused key puts out the deployment that was asked, and not its siblings; nor that."""
    original = Health.eject

    def eject(self: Health, ejection: Ejection) -> bool:
        return ejection.cause is not Cause.DENIED and original(self, ejection)

    patch.setattr(Health, "eject", eject)


@breaks("refusals are heeded")
def _(patch: pytest.MonkeyPatch) -> None:
    """A refused key puts out the deployment that was asked, and none of its siblings."""
    changed_eject(patch, "_account_out", whole_account=False)


@breaks("who fails is out")
def _(patch: pytest.MonkeyPatch) -> None:
    """Nobody is ever out for failures."""
    patch.setattr(Health, "failed", lambda *args, **kwargs: None)


@breaks("ends are told once")
def _(patch: pytest.MonkeyPatch) -> None:
    """Each sight of an ended job is news."""
    original = Learning.seen

    def seen(self: Learning, *args: Any) -> None:
        self._ended.clear()
        original(self, *args)

    patch.setattr(Learning, "seen", seen)


@breaks("attempts are told")
def _(patch: pytest.MonkeyPatch) -> None:
    """Only the last attempt is told."""
    original = trip.Trip.facts

    def facts(self: Any, member: Any = None) -> dict[str, Any]:
        return {**original(self, member), "attempts": tuple(self.attempts[-1:])}

    patch.setattr(trip.Trip, "facts", facts)


@breaks("job ends are true")
def _(patch: pytest.MonkeyPatch) -> None:
    """A download that failed leaves its part behind."""

    def discard(self: Any) -> None:
        if self._file is not None:
            self._file.close()

    patch.setattr(downloads._File, "discard", discard)


@breaks("mistakes are named")
def _(patch: pytest.MonkeyPatch) -> None:
    """An id that was altered is taken for a native one."""
    original = IdCodec.decode

    def decode(self: IdCodec, text: str, kind: Any) -> Any:
        try:
            return original(self, text, kind)
        except InvalidIdError:
            return None

    patch.setattr(IdCodec, "decode", decode)


@breaks("submits go fresh")
def _(patch: pytest.MonkeyPatch) -> None:
    """A submit takes whatever connection there is."""
    patch.setattr(connections, "FRESH_SECONDS", connections.KEEP_SECONDS)


@breaks("errors of the tree")
def _(patch: pytest.MonkeyPatch) -> None:
    """What httpx raises goes through as it is."""

    def made_of(heard: Any, exc: Exception) -> Any:
        raise exc

    for door in (awaiting, blocking):
        patch.setattr(door, "made_of", made_of)


@breaks("ends in time")
def _(patch: pytest.MonkeyPatch) -> None:
    """A call takes ten times its deadline."""
    original = engine.Engine.patience
    patch.setattr(engine.Engine, "patience", lambda self, call: 10 * original(self, call))


@breaks("leaves nothing")
def _(patch: pytest.MonkeyPatch) -> None:
    """What is in flight is counted down only where all went well."""

    @contextmanager
    def in_flight(self: Learning, member: Member, operation: Operation) -> Iterator[None]:
        member.load.enter(operation)
        yield
        member.load.leave(operation)

    patch.setattr(Learning, "in_flight", in_flight)


@breaks("leaves nothing")
def _(patch: pytest.MonkeyPatch) -> None:
    """A connection is given back only where all went well."""

    async def by_given(given: Any, message: Any, heard: Any) -> None:
        response = await given.handle_async_request(message.for_httpx())
        await heard.take_in(response.status_code, response.headers.raw, response.stream)
        await response.aclose()

    patch.setattr(awaiting, "_by_given", by_given)


@breaks("a key is one job")
def _(patch: pytest.MonkeyPatch) -> None:
    """Whoever asks for a key gets it."""

    def claim(self: Records, claim: Claim, now: float) -> Claimed:
        return Claimed(True, Record(claim.fingerprint, claim.token, SENDING, now))

    patch.setattr(Records, "claim", claim)


@breaks("a key is one job")
def _(patch: pytest.MonkeyPatch) -> None:
    """Each worker knows of keys for itself."""

    async def asked(
        self: Any, side: Any, key: str, fingerprint: str, lapse: float, _: Any
    ) -> Claimed:
        asks = Claim(key, f"{key}{self._now()}", fingerprint, lapse)
        return cast("Claimed", self._own._records.claim(asks, self._now()))

    patch.setattr(Claiming, "_asked", asked)


@breaks("one sender to a key")
def _(patch: pytest.MonkeyPatch) -> None:
    """A claim that has lapsed goes to the next who asks."""
    original = Records.claim

    def claim(self: Records, claim: Claim, now: float) -> Claimed:
        kept = self._of(claim.key)
        if kept is not None and kept.record.told(kept.lapses, now).state != kept.record.state:
            self._drop(claim.key)
        return original(self, claim, now)

    patch.setattr(Records, "claim", claim)


@breaks("one sender to a key")
def _(patch: pytest.MonkeyPatch) -> None:
    """A call whose end nobody knows frees its key."""
    original = claiming._conclusion
    ends = {UNKNOWN: FREE}
    patch.setattr(
        claiming, "_conclusion", lambda held, state: original(held, ends.get(state, state))
    )


@breaks("one sender to a key")
def _(patch: pytest.MonkeyPatch) -> None:
    """A caller who goes away frees the key."""
    original = Claiming.holding

    @contextmanager
    def holding(self: Claiming, *args: Any) -> Iterator[Any]:
        with original(self, *args) as held:
            try:
                yield held
            except asyncio.CancelledError:
                held.out = 0
                raise

    patch.setattr(Claiming, "holding", holding)


@breaks("one sender to a key")
def _(patch: pytest.MonkeyPatch) -> None:
    """What is on the wire is not counted."""
    patch.setattr(Claiming, "sending", lambda *args: None)


@breaks("one sender to a key")
def _(patch: pytest.MonkeyPatch) -> None:
    """Where the store is away, a key is taken to be free."""
    original = Claiming._asked

    async def asked(self: Any, side: Any, key: str, fingerprint: str, *more: Any) -> Claimed:
        try:
            return await original(self, side, key, fingerprint, *more)
        except StateUnavailableError:
            return Claimed(True, Record(fingerprint, f"{key}{self._now()}", SENDING, self._now()))

    patch.setattr(Claiming, "_asked", asked)


@breaks("repeats answer alike")
def _(patch: pytest.MonkeyPatch) -> None:
    """A key stands for the job that was made before its own."""
    made = [""]

    def accepted(self: Any, id_: str) -> None:
        made.append(id_)
        self.made = made[-2] or id_

    patch.setattr(trip.Held, "accepted", accepted)


@breaks("conflicts are true")
def _(patch: pytest.MonkeyPatch) -> None:
    """What was asked for under a key is not compared."""
    patch.setattr(once, "_fingerprint", lambda *args: "the same")


@breaks("conflicts are true")
def _(patch: pytest.MonkeyPatch) -> None:
    """Of a file only its name is compared."""
    original = once._fingerprint

    def fingerprint(call: Any, upload: Any, left: Any) -> str:
        return original(call, None, left) + getattr(upload, "filename", "")

    patch.setattr(once, "_fingerprint", fingerprint)


@breaks("conflicts are true")
def _(patch: pytest.MonkeyPatch) -> None:
    """How long a call may take is compared, too."""
    patch.setattr(once, "_SERVING", once._SERVING - {"deadline"})


@breaks("doubts are true")
def _(patch: pytest.MonkeyPatch) -> None:
    """Who is surely refused keeps the key."""
    patch.setattr(Claiming, "refused", lambda *args: None)


@breaks("doubts are true")
def _(patch: pytest.MonkeyPatch) -> None:
    """What was made is not written down."""
    patch.setattr(Claiming, "accepted", lambda *args: None)


@breaks("doubts are true", renewed=True)
def _(patch: pytest.MonkeyPatch) -> None:
    """Nobody renews the claim of a call that takes long."""
    patch.setattr(Claiming, "_renewals", lambda self: ())


@breaks("unavailable while away")
def _(patch: pytest.MonkeyPatch) -> None:
    """Once it was away, the store is taken to be away."""
    original = Claiming._asked
    gone = set[int]()

    async def asked(self: Any, *args: Any) -> Claimed:
        if id(self) in gone:
            raise StateUnavailableError("it was away before")
        try:
            return await original(self, *args)
        except StateUnavailableError:
            gone.add(id(self))
            raise

    patch.setattr(Claiming, "_asked", asked)


@breaks("claims end", blows=tuple(Blow("lose_answers", at + 0.5, 0, 0.2) for at in range(60)))
def _(patch: pytest.MonkeyPatch) -> None:
    """Who did not hear the answer to its claim keeps what it may have been given."""
    patch.setattr(Claiming, "_give_back", lambda *args: None)


@breaks("claims end")
def _(patch: pytest.MonkeyPatch) -> None:
    """Who is cancelled holds its key for ever."""

    @contextmanager
    def holding(self: Any, record: Any, key: str, seconds: float) -> Iterator[Any]:
        held = self._held[key] = trip.Held(key, record, seconds)
        yield held
        del self._held[key]
        self._order(claiming._conclusion(held, ACCEPTED))

    patch.setattr(Claiming, "holding", holding)


@breaks("budgets hold")
def _(patch: pytest.MonkeyPatch) -> None:
    """Nobody asks what a call costs."""
    patch.setattr(Member, "budget", lambda self, demand: None)


@breaks("budgets hold")
def _(patch: pytest.MonkeyPatch) -> None:
    """A job whose length is not named costs nothing."""
    original = Member.budget

    def budget(self: Member, demand: Any) -> Any:
        need = original(self, demand)
        usual = need is not None and demand.seconds == 4.0
        return dataclasses.replace(need, amount=0) if usual else need

    patch.setattr(Member, "budget", budget)


@breaks("budgets hold")
def _(patch: pytest.MonkeyPatch) -> None:
    """Money comes back when its job is accepted."""
    patch.setattr(Lease, "given_back", property(lambda self: tuple(n.resource for n in self.needs)))


@breaks("money is counted")
def _(patch: pytest.MonkeyPatch) -> None:
    """What a refused call was to cost stays spent."""
    patch.setattr(Lease, "costs", ())


@breaks("money is counted", blows=(Blow("lose_answers", 2.0, 0, 20.0),))
def _(patch: pytest.MonkeyPatch) -> None:
    """Each time that it is told, money is given back."""

    def refund(self: Budgets, resource: str, token: str, now: float) -> None:
        if (resource, token) in self._tokens and resource in self._total:
            self._total[resource] -= self._tokens[resource, token].amount

    patch.setattr(Budgets, "refund", refund)


@breaks("money is counted", blows=(Blow("freeze", 2.0, 0, 20.0),))
def _(patch: pytest.MonkeyPatch) -> None:
    """What was spent while the store was away is never told."""
    patch.setattr(Leasing, "_tell", lambda *args: None)


@breaks("money is counted")
def _(patch: pytest.MonkeyPatch) -> None:
    """What is accepted counts as what was reckoned for it."""
    patch.setattr(Leasing, "costs", lambda *args: None)


@breaks("money is counted", blows=(Blow("flush", 20.0, 0, 0.0),))
def _(patch: pytest.MonkeyPatch) -> None:
    """A store that was emptied is not told again what was spent."""
    patch.setattr(MemoryStore, "spent", lambda *args: [])


@breaks("money is refused rightly")
def _(patch: pytest.MonkeyPatch) -> None:
    """A day's money may be spent to a half."""
    original = Member.budget

    def budget(self: Member, demand: Any) -> Any:
        need = original(self, demand)
        return need and dataclasses.replace(need, limit=need.limit // 2)

    patch.setattr(Member, "budget", budget)


@breaks("money is refused rightly")
def _(patch: pytest.MonkeyPatch) -> None:
    """Who has no money left is told to come back in a minute."""
    patch.setattr("router.state.memory.until_midnight", lambda now: 60.0)


@breaks("leases come back")
def _(patch: pytest.MonkeyPatch) -> None:
    """Who is cancelled does not give back what it holds."""
    patch.setattr(engine.Engine, "_broke_off", lambda *args: None)


@breaks("caps hold")
def _(patch: pytest.MonkeyPatch) -> None:
    """A job gives its slot back as soon as it is accepted."""
    original = Leasing.settle

    def settle(
        self: Leasing, lease: Any, accepted: Any, job: Any = None, job_ttl: float = 0.0
    ) -> None:
        original(self, lease, "no", job, job_ttl)

    patch.setattr(Leasing, "settle", settle)


@breaks("caps hold")
def _(patch: pytest.MonkeyPatch) -> None:
    """One more than the limit."""
    original = limits.needs

    def needs(*args: Any) -> Any:
        found = original(*args)
        return tuple(dataclasses.replace(need, limit=need.limit + 1) for need in found)

    patch.setattr(fleet, "needs", needs)


@breaks("leases come back")
def _(patch: pytest.MonkeyPatch) -> None:
    """Who is refused keeps what it was granted."""
    original = Leasing.settle

    def settle(self: Leasing, lease: Any, accepted: Any, job: Any = None) -> None:
        if accepted != "no":
            original(self, lease, accepted, job)

    patch.setattr(Leasing, "settle", settle)


@breaks("no pick of the ejected")
def _(patch: pytest.MonkeyPatch) -> None:
    """Who is put out while the store is asked for room serves all the same."""
    patch.setattr(choosing.Choosing, "_in_rotation", lambda *args: True)


@breaks("all know the same")
def _(patch: pytest.MonkeyPatch) -> None:
    """What was to be told while the store was away is forgotten."""
    original = Sharing.step

    def step(self: Sharing) -> bool:
        try:
            return original(self)
        finally:
            self._sending = None

    patch.setattr(Sharing, "step", step)


@breaks("samples count once")
def _(patch: pytest.MonkeyPatch) -> None:
    """What is told again counts again."""
    original = Sharing.step

    def step(self: Sharing) -> bool:
        self._sequence += 1
        return original(self)

    patch.setattr(Sharing, "step", step)


@breaks("no pick of the ejected")
def _(patch: pytest.MonkeyPatch) -> None:
    """Where all are out, all are candidates, whatever the provider said of them."""
    everybody = (Cause.FAILURES, Cause.THROTTLED, Cause.DENIED, Cause.MISSING)

    def panicked(tiers: Any, question: Any) -> list[Any]:
        every = [c for tier in tiers for c in tier.candidates]
        return [c for c in every if question.ejection(c, *everybody) is None]

    patch.setattr(choosing, "panicked", panicked)
    patch.setattr(choosing.Choosing, "_in_rotation", lambda *args: True)


@breaks("no needless refusal")
def _(patch: pytest.MonkeyPatch) -> None:
    """Failure counting empties a route."""
    patch.setattr(choosing, "panicked", lambda *args: [])


@breaks("who fails is out")
def _(patch: pytest.MonkeyPatch) -> None:
    """Each worker counts failures for itself."""
    patch.setattr(Health, "_judged", lambda *args: (0, 0, 0))


@breaks("ejections are deserved", fates=1.0, fate="never_ends")
def _(patch: pytest.MonkeyPatch) -> None:
    """A job that runs for too long fails at each look."""
    patch.setattr("router.learning._remember", lambda *args: None)


@breaks("returns are deserved")
def _(patch: pytest.MonkeyPatch) -> None:
    """A read that goes well brings back submits, too."""

    def succeeded(self: Health, side: str, *args: Any) -> str | None:
        self._sides[side].forget()
        return "both" if self._failing("submits") or self._failing("reads") else None

    patch.setattr(Health, "succeeded", succeeded)


@pytest.mark.parametrize("sentence", MUTATIONS)
def test_a_fault_of_the_router_is_found(sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    invariant, mutate, weather = MUTATIONS[sentence]
    mutate(monkeypatch)
    for seed in (FOUND.get(sentence, 0), *SEEDS):
        plan = dataclasses.replace(drawn(seed), **weather)
        if any(wrong.startswith(f"{invariant}: ") for wrong in violations(run(seed, plan))):
            return
    pytest.fail(f"in {len(SEEDS)} timelines nothing broke `{invariant}`")


def test_every_invariant_has_a_mutation_that_breaks_it() -> None:
    assert {invariant for invariant, *_ in MUTATIONS.values()} == set(INVARIANTS)


def test_a_failing_seed_tells_its_story_and_how_to_replay_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed(monkeypatch, "_ambiguous", again=True)
    told = next(story for _, story in map(retold, SEEDS) if "paid once: call " in story)
    assert "pytest tests/simulation/test_timelines.py --seed " in told
    assert "paid once: call " in told
    assert " request " in told
