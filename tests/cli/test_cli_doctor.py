"""`doctor`: what is wrong, with what to do about it; nothing is started, paid or changed."""

from __future__ import annotations

import datetime
import json
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
from cli_fleet import EAST, WEST, Fleet

from router import BadRequestError, CapacityError, InternalServerError
from router.cli.doctor import _of_server as of_server
from router.cli.redis import Server
from router.limits import trial


def found(fleet: Fleet, code: int = 1) -> dict[str, dict[str, Any]]:
    """The findings by where; the last of each place."""
    report = json.loads(fleet.tell("doctor", "--json", code=code))
    assert report["ok"] == (code == 0)
    assert all(finding["advice"] for finding in report["findings"])
    return {finding["where"]: finding for finding in report["findings"]}


def test_where_all_is_well_it_says_so_and_shows_what_it_saw(fleet: Fleet) -> None:
    limits = {"max_parallel_jobs": 2, "max_parallel_requests": 3, "rpm": 9, "read_rpm": 99}
    fleet.configure({**EAST, **limits}, WEST, max_wait=0.3)
    worker = fleet.worker()
    worker.video_wait(worker.video(prompt="a secret prompt", account="east").id)
    worker.drain("west-1", 60)
    worker.restore("west-1")
    worker.share()
    told = fleet.tell("doctor")
    assert told.splitlines()[-1] == "Nothing is wrong."
    for words in ("2 deployments in 2 accounts", "master", "noeviction", "round trip", "clock "):
        assert words in told
    assert "1 worker alive, 0 jobs running" in told
    assert "by an operator" in told
    assert "note " not in told, "each key under our names is known, and of its type"
    assert len(fleet.provider.accepted) == 1, "nothing is started by it"


def test_a_refused_key_and_a_dead_address_are_findings(fleet: Fleet) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
        fleet.configure(
            {**EAST, "api_key": "sk-secret-old"},
            {**WEST, "base_url": dead},
        )
        worker = fleet.worker()
        worker.share()
        findings = found(fleet)
        assert "answered 401" in findings["east-1"]["what"]
        assert "api_key" in findings["east-1"]["advice"]
        assert "could not connect" in findings["west-1"]["what"]
        assert dead in findings["west-1"]["advice"]
        told = fleet.tell("doctor", code=1)
    assert "wrong  east-1: it answered 401" in told
    assert "2 problems found." in told
    worker.share()
    assert not any(known["ejections"] for known in worker.statistics().values()), "nobody learns"


@pytest.mark.parametrize(
    ("status", "wrong", "advice"),
    [
        (403, True, "lacks a right"),
        (404, False, ""),
        (429, False, "too often"),
        (500, True, "status page"),
        (302, True, "elsewhere"),
    ],
)
def test_what_a_deployment_answers_is_judged(
    fleet: Fleet, status: int, wrong: bool, advice: str
) -> None:
    fleet.configure(EAST)
    fleet.worker().share()
    fleet.provider.fault("status", status=status, operation="list", times=None)
    finding = found(fleet, code=int(wrong)).get("east-1", {"advice": "", "note": True})
    assert finding["note"] is not wrong
    assert advice in finding["advice"]


def test_who_has_no_list_is_asked_after_nobody(fleet: Fleet) -> None:
    fleet.configure(
        {**EAST, "operations": ["generation", "status"]}, {**WEST, "operations": ["generation"]}
    )
    report = json.loads(fleet.tell("doctor", "--json"))
    east, west = report["deployments"]
    assert (east["operation"], east["status"], east["trouble"]) == ("status", 404, None)
    assert west["operation"] is None


def test_a_broken_file_is_told_as_check_does(fleet: Fleet) -> None:
    fleet.configure({**EAST, "wieght": 2})
    said = fleet.tell("doctor", code=1)
    assert "deployments[0].wieght: unknown key" in said
    assert said.splitlines()[-1] == "1 problem: nothing of this file is in force."


def test_who_retires_soon_and_who_has_are_notes(fleet: Fleet) -> None:
    today = datetime.datetime.now(datetime.UTC).date()
    soon, past = today + datetime.timedelta(days=9), today - datetime.timedelta(days=1)
    fleet.configure({**EAST, "retires_on": str(soon)}, {**WEST, "retires_on": str(past)})
    fleet.worker().share()
    findings = found(fleet, code=0)
    assert findings["east-1"]["what"].startswith(f"it retires on {soon}, in ")
    assert findings["west-1"]["what"] == f"it retired on {past}: only what it owns is served"
    assert findings["east-1"]["note"]
    assert findings["west-1"]["note"]
    assert "retires_on" in findings["east-1"]["advice"]
    told = fleet.tell("doctor")
    assert told.count("note   west-1: ") == 1, "that it is drained is no news beside its date"


def test_a_group_that_nobody_serves_any_more_is_wrong(fleet: Fleet) -> None:
    today = str(datetime.datetime.now(datetime.UTC).date())
    fleet.configure({**EAST, "retires_on": today}, {**WEST, "weight": 0})
    fleet.worker().share()
    finding = found(fleet)["sora-2"]
    assert not finding["note"]
    assert finding["what"] == (
        f"nobody takes new work of this group: east-1 retires on {today}, west-1 has weight 0"
    )


def test_all_that_a_busy_fleet_keeps_is_known(fleet: Fleet) -> None:
    limits = {"max_parallel_jobs": 1, "max_parallel_requests": 1, "rpm": 60, "read_rpm": 60}
    fleet.configure(
        {**EAST, **limits, "cost_per_second": 0.1},
        WEST,
        accounts={"east": {"max_cost_per_day": 100}, "west": {"rpm": 2}},
    )
    fleet.provider.fault("never_ends", times=None)
    worker = fleet.worker()
    worker.video(prompt="x", account="east", idempotency_key="order-1")
    fleet.provider.fault("status", status=400, operation="generation")
    with pytest.raises(BadRequestError):
        worker.video(prompt="x", account="west", idempotency_key="order-2")
    lives = worker.video(prompt="x", account="west").id
    for account in ("east", "west"):
        with pytest.raises(CapacityError):
            worker.video(prompt="x", account=account, max_wait=0.1)
    fleet.provider.fault("status", status=500, operation="status", account="west", times=3)
    for _ in range(3):
        with pytest.raises(InternalServerError):
            worker.video_status(lives, retries=0)
    worker.video_status(lives)
    worker.restore("west-1")
    worker.share()
    # A trial comes only seconds after an ejection.
    ours = f"{{{fleet.namespace}}}:v1:"
    fleet.redis.zadd(f"{ours}{trial('west-1').resource}", {"token": time.time() + 60})

    kept = [name.decode().removeprefix(ours) for name in fleet.redis.scan_iter(f"{ours}*")]
    kinds = {json.loads(name)[0] if name[0] == "[" else name.partition(":")[0] for name in kept}
    scripts = {"claim", "cost", "freed", "lapses", "places", "running", "told"}
    assert scripts | {"ejections", "restored", "returned"} <= kinds, "this fleet is busy"
    findings = json.loads(fleet.tell("doctor", "--json"))["findings"]
    assert "keys" not in {finding["where"] for finding in findings}, kinds


def test_without_redis_the_deployments_are_asked_all_the_same(fleet: Fleet) -> None:
    fleet.configure(redis_url=None)
    findings = found(fleet, code=0)
    assert findings["redis"]["note"]
    assert "no redis_url" in findings["redis"]["what"]
    assert "east-1" in fleet.tell("doctor")


def test_a_redis_out_of_reach_is_a_finding_and_the_rest_is_told(fleet: Fleet) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        fleet.configure(redis_url=f"redis://me:redis-secret@127.0.0.1:{port}/0")
        finding = found(fleet)["redis"]
        told = fleet.tell("doctor", code=1)
    assert "nothing listens there" in finding["advice"]
    assert "east-1" in told


BROKEN: list[tuple[Callable[[Any, str], object], str, str]] = [
    (lambda client, ours: client.set(f"{ours}workers", "x"), "keys", "is a string, which we never"),
    (lambda client, ours: client.lpush(f"{ours}version", "x"), "keys", "is a list, which we never"),
    (lambda client, ours: client.set(f"{ours}generation", "x" * 20_000_000), "keys", "takes 2"),
]


@pytest.mark.parametrize(("break_it", "where", "what"), BROKEN)
def test_foreign_keys_under_our_names_are_found(
    fleet: Fleet, break_it: Callable[[Any, str], object], where: str, what: str
) -> None:
    break_it(fleet.redis, f"{{{fleet.namespace}}}:v1:")
    finding = found(fleet)[where]
    assert what in finding["what"]


def test_keys_of_another_release_are_a_note(fleet: Fleet) -> None:
    fleet.worker().share()
    fleet.redis.set(f"{{{fleet.namespace}}}:v2:version", "1")
    fleet.redis.set("another:application", "1")
    finding = found(fleet, code=0)["keys"]
    assert finding["note"]
    assert finding["what"].startswith("1 key in our namespace that we do not know")


@pytest.mark.parametrize(
    ("facts", "said", "note"),
    [
        ({"role": "slave"}, "replica", False),
        ({"version": "6.0.16", "name": "Redis"}, "Redis 6.0.16", False),
        ({"max_memory": 100, "memory_policy": "allkeys-lru"}, "forgets keys", False),
        ({"max_memory": 100, "used_memory": 95, "memory_policy": "noeviction"}, "nearly", False),
        ({"round_trip": 0.2}, "a round trip takes 0.20 s", True),
        ({"clock_offset": -90.0}, "its clock is 2 min behind this machine's", True),
        ({"version": None}, "INFO", True),
    ],
)
def test_a_server_is_judged(facts: dict[str, Any], said: str, note: bool) -> None:
    well = {"round_trip": 0.001, "clock_offset": 0.0, "name": "Redis", "version": "7.0.15"}
    assert list(of_server(Server(**well))) == []
    (finding,) = of_server(Server(**{**well, **facts}))
    assert said in finding.what
    assert finding.note is note


def test_a_user_with_few_rights_is_told_what_remains_unknown(fleet: Fleet) -> None:
    from router.state.connecting import RIGHTS

    name = f"few-{fleet.namespace}"
    pattern = f"{{{fleet.namespace}}}:v1:*"
    rights = RIGHTS.split()
    fleet.redis.execute_command(
        "ACL",
        "SETUSER",
        name,
        "on",
        ">redis-secret",
        f"~{pattern}",
        "resetchannels",
        f"&{pattern}",
        *rights,
    )
    fleet.configure(redis_url=f"redis://{name}:redis-secret@127.0.0.1:{fleet.port}/0")
    fleet.worker().share()
    findings = found(fleet, code=0)
    assert "INFO" in findings["redis"]["what"]
    assert "SCAN" in findings["keys"]["what"]
