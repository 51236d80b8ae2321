"""Deployments that retire: what is told of them as a configuration is loaded, and later."""

from __future__ import annotations

import datetime
import logging
from pathlib import Path

import pytest
from routing_parts import Doors, FakeClock, deployment, serving, written

from router import ConfigError, NoDeploymentAvailableError, Router
from router.events import Ejected, Event, Restored
from router.state import MemoryStore
from router.testing import StandIn

DAY = 86400.0


def date_in(clock: FakeClock, days: int) -> str:
    """The date of so many days after the clock's own, in UTC."""
    today = datetime.datetime.fromtimestamp(clock.time(), datetime.UTC).date()
    return str(today + datetime.timedelta(days=days))


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The log lines so far; the next ones begin anew."""
    found = [record.getMessage() for record in caplog.records if record.name == "router"]
    caplog.clear()
    return found


def test_whoever_retires_within_thirty_days_stands_in_the_log_in_one_line(
    provider: StandIn, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    ends = date_in(clock, 7)
    late = deployment("west-1", retires_on=date_in(clock, 40))
    serving(provider, deployment("east-1", retires_on=ends), late, clock=clock).close()

    (line,) = told(caplog)
    assert line.startswith(f"east-1 retires on {ends}, in 6 days: it gets no new work")


def test_a_reload_tells_it_again_as_it_is_by_then(
    provider: StandIn, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    ends = date_in(clock, 31)
    with serving(provider, deployment("east-1", retires_on=ends), clock=clock) as router:
        assert told(caplog) == []
        clock.advance(10 * DAY)
        router.reload()
        assert [line.partition(":")[0] for line in told(caplog)] == [
            f"east-1 retires on {ends}, in 20 days"
        ]
        clock.advance(21 * DAY)
        router.reload()
        assert told(caplog) == [f"east-1 retired on {ends}: only what it owns is served"]


def test_the_line_names_the_deployment_for_those_who_filter_by_it(
    provider: StandIn, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    serving(provider, deployment("east-1", retires_on=date_in(clock, 1)), clock=clock).close()

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert (vars(record)["deployment"], vars(record)["account"]) == ("east-1", "east")


def test_a_reload_that_is_refused_tells_of_nobody(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "deployments.yaml"
    written(file, {"deployments": [deployment("east-1")]})
    with Router.from_yaml(file, clock=clock) as router:
        retires = {"retires_on": date_in(clock, 3)}
        written(file, {"deployments": [deployment("east-1", weight=-1, **retires)]})
        with pytest.raises(ConfigError, match="weight"):
            router.reload()
        assert told(caplog) == []


def test_an_operator_who_looks_on_writes_no_log(
    provider: StandIn, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    retiring = deployment("east-1", retires_on=date_in(clock, 3))
    serving(provider, retiring, clock=clock, onlooker=True).close()

    assert told(caplog) == []


# As time passes


def test_a_running_worker_tells_it_once_a_day_and_when_new_work_ends(
    call: Doors, provider: StandIn, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    ends = date_in(clock, 33)
    east = deployment("east-1", retires_on=ends)
    router = serving(provider, east, deployment("west-1"), clock=clock)
    lines = []
    for _ in range(35 * 8):
        call(router, "video_generation", prompt="x")
        lines += told(caplog)
        clock.advance(DAY / 8)

    assert [line.partition(":")[0] for line in lines] == [
        *(f"east-1 retires on {ends}, in {days} days" for days in range(29, 1, -1)),
        f"east-1 retires on {ends}, in 1 day",
        f"east-1 retires on {ends}",
    ]
    call.close(router)


def test_going_out_is_an_event_once(
    call: Doors, provider: StandIn, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Event] = []
    east = deployment("east-1", retires_on=date_in(clock, 3))
    router = serving(provider, east, deployment("west-1"), clock=clock, on_event=events.append)
    for _ in range(5):
        call(router, "video_generation", prompt="x")
        clock.advance(DAY)
    (out,) = (event for event in events if isinstance(event, Ejected))
    assert (out.deployment, out.scope, out.cause) == ("east-1", "submits", "retired")
    assert out.reason == f"its retires_on is {east['retires_on']}"
    assert not out.shared
    call.close(router)


def test_who_was_out_before_the_worker_began_is_an_event_and_no_second_line(
    call: Doors, provider: StandIn, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Event] = []
    east = deployment("east-1", retires_on=date_in(clock, -3))
    router = serving(provider, east, deployment("west-1"), clock=clock, on_event=events.append)
    assert not events, "nobody is called before the router is there"
    for _ in range(2):
        call(router, "video_generation", prompt="x")
    assert [event.deployment for event in events if isinstance(event, Ejected)] == ["east-1"]
    assert len(told(caplog)) == 1
    call.close(router)


def test_an_idle_worker_that_shares_tells_it_too(
    provider: StandIn, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    east = deployment("east-1", retires_on=date_in(clock, 2))
    with serving(provider, east, clock=clock, store=MemoryStore(clock.time)) as router:
        caplog.clear()
        clock.advance(1.5 * DAY)
        router.share()
        (line,) = told(caplog)
        router.share()
        assert told(caplog) == []
    assert "it gets no new work any more" in line


def test_another_date_brings_it_back(tmp_path: Path, provider: StandIn, clock: FakeClock) -> None:
    events: list[Event] = []
    file = tmp_path / "deployments.yaml"
    written(file, {"deployments": [deployment("east-1", retires_on=date_in(clock, 1))]})
    parts = {"http_client": provider.transport, "clock": clock, "on_event": events.append}
    with Router.from_yaml(file, **parts) as router:
        router.video_list()
        written(file, {"deployments": [deployment("east-1", retires_on=date_in(clock, 9))]})
        router.reload()
        router.reload()
        assert router.video_generation(prompt="x").id
    assert [type(e) for e in events if isinstance(e, Ejected | Restored)] == [Ejected, Restored]


# Who asks why


def test_it_is_told_with_its_date_and_without_an_end(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    ends = date_in(clock, 1)
    router = serving(provider, deployment("east-1", retires_on=ends), clock=clock)
    with pytest.raises(NoDeploymentAvailableError) as caught:
        call(router, "video_generation", prompt="x")
    assert caught.value.reasons == {"east-1": f"its retires_on is {ends}, for good"}
    (verdict,) = router.explain(prompt="x").candidates
    assert (verdict.verdict, verdict.reason) == ("drained", f"its retires_on is {ends}")
    call.close(router)


def test_no_operator_brings_it_back(
    call: Doors, provider: StandIn, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Event] = []
    ends = date_in(clock, 1)
    east = deployment("east-1", retires_on=ends)
    router = serving(provider, east, clock=clock, on_event=events.append)
    router.drain("east-1")
    caplog.clear()
    events.clear()
    router.restore("east-1")

    (line,) = told(caplog)
    assert line.startswith("back in rotation (by an operator; out all the same: its retires_on")
    restored, out = events
    assert isinstance(restored, Restored)
    assert ends in restored.reason
    assert isinstance(out, Ejected)
    assert out.cause == "retired"
    with pytest.raises(NoDeploymentAvailableError):
        call(router, "video_generation", prompt="x")
    call.close(router)


def test_a_drain_without_an_end_is_told_without_seconds(call: Doors, provider: StandIn) -> None:
    router = serving(provider, deployment("east-1"))
    router.drain("east-1")
    with pytest.raises(NoDeploymentAvailableError) as caught:
        call(router, "video_generation", prompt="x")
    why = "drained by an operator, until it is restored"
    assert caught.value.reasons == {"east-1": why}
    call.close(router)
