"""Deployments that retire: what is told of them where a configuration is loaded."""

from __future__ import annotations

import datetime
import logging
from pathlib import Path

import pytest
from routing_parts import FakeClock, deployment, serving, written

from router import ConfigError, Router
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
