"""Each invariant can fail: for each there is a fault of the router that it finds.

A mutation is put into the real code, and timelines are played until the checker names the
invariant that it breaks. An invariant without one would be a promise that nobody could break.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sim_invariants import INVARIANTS, violations
from simulation import run
from timelines import retold

from router import engine, outcomes, selection, transport
from router.fleet import Member
from router.health import Health
from router.learning import Learning
from router.observations import Cause, Ejection
from router.outcomes import Effect, Exchange, Outcome
from router.ownership import Owned
from router.state.sharing import Sharing
from router.types import Video

SEEDS = range(200)

Mutation = Callable[[pytest.MonkeyPatch], None]
MUTATIONS: dict[str, tuple[str, Mutation]] = {}


def breaks(invariant: str) -> Callable[[Mutation], Mutation]:
    """Register a mutation under its sentence, with the invariant that it breaks."""

    def register(mutation: Mutation) -> Mutation:
        MUTATIONS[(mutation.__doc__ or "").strip()] = (invariant, mutation)
        return mutation

    return register


def changed(patch: pytest.MonkeyPatch, row: str, **columns: Any) -> None:
    """A row of the outcome table with other columns."""
    original = getattr(outcomes, row)

    def other(*args: Any, **kwargs: Any) -> Outcome:
        return dataclasses.replace(original(*args, **kwargs), **columns)

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

    async def hand_on(self: Any, chunks: Any, sink: Any) -> None:
        await sink.begin(self.headers)
        try:
            async for chunk in chunks:
                await sink.write(chunk)
        except transport.httpx.TransportError:
            pass

    patch.setattr(transport._Heard, "_hand_on", hand_on)


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


@breaks("no pick of the ejected")
def _(patch: pytest.MonkeyPatch) -> None:
    """A pick asks nobody's health."""

    def in_rotation(members: Any, route: Any, now: float, tried: Any) -> list[Any]:
        return [member for member in members if member not in tried]

    patch.setattr(selection, "_in_rotation", in_rotation)


@breaks("no pick of the ejected")
def _(patch: pytest.MonkeyPatch) -> None:
    """A throttled submit keeps reads away instead."""
    original = outcomes._throttled

    def throttled(exchange: Exchange, *args: Any) -> Outcome:
        outcome = original(exchange, *args)
        assert outcome.eject is not None
        return dataclasses.replace(outcome, eject=dataclasses.replace(outcome.eject, scope="reads"))

    patch.setattr(outcomes, "_throttled", throttled)


@breaks("no needless refusal")
def _(patch: pytest.MonkeyPatch) -> None:
    """An ejection covers everything, whatever its scope."""
    patch.setattr(Ejection, "covers", lambda self, operation: True)


@breaks("no needless refusal")
def _(patch: pytest.MonkeyPatch) -> None:
    """A sure refusal ends the call."""
    changed(patch, "_throttled", again=False)


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


@breaks("errors of the tree")
def _(patch: pytest.MonkeyPatch) -> None:
    """What httpx raises goes through as it is."""

    def made_of(heard: Any, exc: Exception) -> Any:
        raise exc

    patch.setattr(transport, "_made_of", made_of)


@breaks("ends in time")
def _(patch: pytest.MonkeyPatch) -> None:
    """A call takes ten times its deadline."""
    original = engine.Engine.patience
    patch.setattr(engine.Engine, "patience", lambda self, call: 10 * original(self, call))


@breaks("leaves nothing")
def _(patch: pytest.MonkeyPatch) -> None:
    """What is in flight is counted down only where all went well."""

    @contextmanager
    def in_flight(self: Learning, member: Member) -> Iterator[None]:
        member.load.in_flight += 1
        yield
        member.load.in_flight -= 1

    patch.setattr(Learning, "in_flight", in_flight)


@breaks("leaves nothing")
def _(patch: pytest.MonkeyPatch) -> None:
    """A connection is given back only where all went well."""

    async def take_in(heard: Any, response: Any) -> None:
        await heard.take_in(response, response.stream)
        await response.aclose()

    patch.setattr(transport.AsyncTransport, "_take_in", staticmethod(take_in))


@breaks("all know the same")
def _(patch: pytest.MonkeyPatch) -> None:
    """What was to be told while the store was away is forgotten."""
    original = Sharing.step

    def step(self: Sharing, now: float) -> None:
        try:
            original(self, now)
        finally:
            self._sending = None

    patch.setattr(Sharing, "step", step)


@breaks("all know the same")
def _(patch: pytest.MonkeyPatch) -> None:
    """What is told again counts again."""
    original = Sharing.step

    def step(self: Sharing, now: float) -> None:
        self._sequence += 1
        original(self, now)

    patch.setattr(Sharing, "step", step)


@pytest.mark.parametrize("sentence", MUTATIONS)
def test_a_fault_of_the_router_is_found(sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    invariant, mutate = MUTATIONS[sentence]
    mutate(monkeypatch)
    for seed in SEEDS:
        if any(wrong.startswith(f"{invariant}: ") for wrong in violations(run(seed))):
            return
    pytest.fail(f"in {len(SEEDS)} timelines nothing broke `{invariant}`")


def test_every_invariant_has_a_mutation_that_breaks_it() -> None:
    assert {invariant for invariant, _ in MUTATIONS.values()} == set(INVARIANTS)


def test_a_failing_seed_tells_its_story_and_how_to_replay_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changed(monkeypatch, "_ambiguous", again=True)
    told = next(story for wrong, story in map(retold, SEEDS) if wrong)
    assert "pytest tests/simulation/test_timelines.py --seed " in told
    assert "paid once: call " in told
    assert " request " in told
