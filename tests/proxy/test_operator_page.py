"""The operators' page: who may see the fleet, what is told of it, and what never is.

How it looks in a browser is in `test_operator_page_in_a_browser.py`.
"""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

import pytest
from proxy_parts import Face, facing, tenants
from shared_parts import FakeClock, fleet

from router import operations
from router.events import Picked
from router.inspection import Explained, Explanation, Out
from router.proxy.console import Console, standing
from router.proxy.history import SAMPLES, History, busiest
from router.proxy.operator import FILES
from router.proxy.picks import EXPLAINED_PER_SECOND, MOST_SUBMITS, ROUTING, told
from router.testing import StandIn

STAND_IN = "http://stand-in/v1"


def capped(**more: Any) -> dict[str, Any]:
    return fleet(STAND_IN, max_parallel_jobs=2, rpm=10, **more)


async def state(face: Face, after: str = "", key: str | None = None) -> dict[str, Any]:
    answer = await face.get("/operator/state", params={"after": after}, key=key)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def of(told_: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in told_["deployments"] if one["id"] == name)
    return found


# Who may see it ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", FILES)
async def test_the_page_itself_needs_no_key_and_takes_nothing_from_elsewhere(
    provider: StandIn, path: str
) -> None:
    async with facing(provider, tenants(fleet(STAND_IN))) as face:
        answer = await face.get(path)
    assert answer.status_code == 200
    policy = dict(
        part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; ")
    )
    assert policy["default-src"] == "'none'"
    assert {policy[kind] for kind in ("script-src", "style-src", "connect-src", "img-src")} == {
        "'self'"
    }
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    # The one address is the name of a vocabulary, which nobody fetches.
    assert set(re.findall(r"https?://[\w./-]+", answer.text)) <= {"http://www.w3.org/2000/svg"}


async def test_the_html_has_no_script_style_or_handler_of_its_own(provider: StandIn) -> None:
    async with facing(provider) as face:
        page = (await face.get("/")).text
        script = (await face.get("/operator/page.js")).text
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", page)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script)
    # So that a form that is sent before the script is there puts nothing into an address.
    assert not re.search(r"<input[^>]*\sname=", page)


@pytest.mark.parametrize(
    ("key", "status"), [(None, 401), ("pk-wrong", 401), ("pk-web", 403), ("pk-ops", 200)]
)
async def test_where_keys_are_tenants_only_an_operators_sees_the_fleet(
    provider: StandIn, key: str | None, status: int
) -> None:
    async with facing(provider, tenants(fleet(STAND_IN))) as face:
        answer = await face.get("/operator/state", key=key)
    assert answer.status_code == status
    assert ("deployments" in answer.json()) == (status == 200)


async def test_where_keys_share_all_ids_each_sees_the_fleet(provider: StandIn) -> None:
    data = {**fleet(STAND_IN), "proxy": {"keys": [{"name": "web", "key": "pk-web"}]}}
    async with facing(provider, data) as face:
        assert (await face.get("/operator/state")).status_code == 401
        assert (await face.get("/operator/state", key="pk-web")).status_code == 200


async def test_without_keys_the_fleet_is_shown_to_whoever_reaches_the_port(
    provider: StandIn,
) -> None:
    async with facing(provider) as face:
        answer = await face.get("/operator/state")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"


# The fleet --------------------------------------------------------------------------------------


async def test_running_jobs_are_told_against_their_caps_and_submits_against_rpm(
    provider: StandIn,
) -> None:
    data = capped(cost_per_second=0.1)
    data["accounts"]["east"]["max_cost_per_day"] = 20
    provider.fault("never_ends", times=None)
    async with facing(provider, data, Console()) as face:
        for _ in range(3):
            await face.make(model="sora-2", seconds="4")
        told_ = await state(face)
    rooms = [one["rooms"] for one in told_["deployments"]]
    assert sorted(room["jobs"]["taken"] for room in rooms) == [1, 2]
    assert sum(room["rpm"]["taken"] for room in rooms) == 3
    assert {(room["jobs"]["limit"], room["rpm"]["limit"]) for room in rooms} == {(2, 10)}
    assert sorted(one["running"] for one in told_["deployments"]) == [1, 2]
    assert sum(one["spent_today"] for one in told_["deployments"]) == pytest.approx(1.2)
    assert [one["cost_per_day"] for one in told_["accounts"]] == [20, None]
    assert told_["trouble"] is None


async def test_who_is_out_is_told_with_scope_cause_deadline_and_reason(
    provider: StandIn, clock: FakeClock
) -> None:
    body = {"error": {"message": "Slow down", "type": "requests", "param": None, "code": None}}
    provider.fault("status", account="east", status=429, body=body, headers={"retry-after": "30"})
    async with facing(provider, capped(), Console(), clock=clock) as face:
        # Whoever is asked first: both are new.
        while "out" not in {one["state"]["tone"] for one in (await state(face))["deployments"]}:
            await face.make(model="sora-2")
        told_ = await state(face)
        east = of(told_, "east-1")
        assert east["state"] == {"word": "no submits", "tone": "out"}
        assert [(out["scope"], out["cause"]) for out in east["out"]] == [("submits", "throttled")]
        assert east["out"][0]["until"] - told_["at"] == pytest.approx(30, abs=1)
        assert "429" in east["out"][0]["reason"]
        assert "Slow down" in east["out"][0]["reason"]
        assert of(told_, "west-1")["state"] == {"word": "up", "tone": "up"}
        face.router.restore("east-1")
        changes = (await state(face))["changes"]
    assert [(one["deployment"], one["what"]) for one in changes] == [
        ("east-1", "back"),
        ("east-1", "out"),
    ]


async def test_a_drain_without_an_end_has_no_deadline(provider: StandIn) -> None:
    async with facing(provider, capped(), Console()) as face:
        face.router.drain("east-1")
        east = of(await state(face), "east-1")
    assert east["state"] == {"word": "drained", "tone": "warning"}
    assert east["out"][0]["until"] is None


@pytest.mark.parametrize(
    ("out", "weight", "on_trial", "share", "word", "tone"),
    [
        ([], 1.0, False, 1.0, "up", "up"),
        ([], 0.0, False, 1.0, "follow-ups only", "warning"),
        ([], 1.0, True, 1.0, "due for a trial", "warning"),
        ([], 1.0, False, 0.25, "coming back, at 25%", "warning"),
        ([Out("both", "failures", 5.0, "x")], 1.0, True, 0.1, "out", "out"),
        ([Out("edit", "missing", 5.0, "x")], 1.0, False, 1.0, "no edit", "out"),
        (
            [Out("reads", "throttled", 5.0, "x"), Out("submits", "drained", 60.0, "x")],
            1.0,
            False,
            1.0,
            "drained",
            "warning",
        ),
    ],
)
def test_how_a_deployment_stands_is_a_word(
    out: list[Out], weight: float, on_trial: bool, share: float, word: str, tone: str
) -> None:
    assert standing(out, weight, on_trial=on_trial, share=share) == {"word": word, "tone": tone}


async def test_what_this_process_knows_is_shown_while_the_store_is_out_of_reach(
    provider: StandIn,
) -> None:
    data = capped()
    data["settings"] = {"redis_url": "redis://127.0.0.1:1/0"}
    async with facing(provider, data, Console()) as face:
        told_ = await state(face)
        # Calls still come through, and the process is still to be sent some.
        await face.make(model="sora-2")
        ready = await face.get("/health/ready")
    assert told_["trouble"]
    assert [one["id"] for one in told_["deployments"]] == ["east-1", "west-1"]
    assert [one["rooms"] for one in told_["deployments"]] == [{}, {}]
    assert ready.status_code == 200
    assert ready.json() == {"status": "ready", "shared_state": "out of reach"}


# Picks ------------------------------------------------------------------------------------------


async def test_a_pick_is_told_with_what_was_asked_why_and_what_came_of_it(
    provider: StandIn,
) -> None:
    async with facing(provider, capped(), Console()) as face:
        face.router.drain("east-1")
        await face.make(model="sora-2", seconds="8", size="1280x720")
        (pick,) = (await state(face))["picks"]
    assert pick["deployment"] == "west-1"
    assert pick["operation"] == "generation"
    assert pick["asked"] == {"groups": "sora-2", "seconds": "8", "size": "1280x720"}
    assert (pick["result"], pick["status"], pick["accepted"]) == ("success", 200, "yes")
    verdicts = {name: verdict for name, verdict, _ in pick["candidates"]}
    assert verdicts == {"east-1": "drained", "west-1": "picked"}
    assert pick["why"]


async def test_a_second_attempt_is_explained_by_the_first(provider: StandIn) -> None:
    provider.fault("status", status=503, headers={"retry-after": "5"})
    async with facing(provider, capped(), Console()) as face:
        await face.make(model="sora-2")
        first, second = (await state(face))["picks"]
    assert (first["attempt"], second["attempt"]) == (1, 2)
    assert (first["status"], first["accepted"]) == (503, "no")
    assert second["result"] == "success"
    verdicts = {name: (verdict, reason) for name, verdict, reason in second["candidates"]}
    assert verdicts[first["deployment"]] == ("tried", "answered 503 (throttled)")
    assert verdicts[second["deployment"]][0] == "picked"
    assert second["why"].startswith(f"the next after {first['deployment']} failed; ")


async def test_reads_do_not_push_out_what_was_chosen_and_paid(provider: StandIn) -> None:
    async with facing(provider, fleet(STAND_IN), Console()) as face:
        video = await face.make(model="sora-2")
        for _ in range(MOST_SUBMITS + 30):
            await face.get(f"/videos/{video}")
        picks = (await state(face))["picks"]
    assert sum(pick["operation"] == "generation" for pick in picks) == 1
    assert len(picks) < MOST_SUBMITS
    assert all(pick["candidates"] is None for pick in picks if pick["operation"] == "status")


async def test_a_download_is_among_the_reads(provider: StandIn) -> None:
    async with facing(provider, fleet(STAND_IN), Console()) as face:
        video = await face.make(model="sora-2")
        content = await face.get(f"/videos/{video}/content")
        picks = (await state(face))["picks"]
    assert content.status_code == 200
    assert [(one["operation"], one["result"]) for one in picks] == [
        ("generation", "success"),
        ("content", "success"),
    ]


async def test_only_so_many_calls_a_second_are_explained(
    provider: StandIn, clock: FakeClock
) -> None:
    async with facing(provider, fleet(STAND_IN), Console(ticks=clock.monotonic)) as face:
        for _ in range(EXPLAINED_PER_SECOND + 2):
            await face.make(model="sora-2")
        clock.advance(1.0)
        await face.make(model="sora-2")
        picks = (await state(face))["picks"]
    explained = [pick["candidates"] is not None for pick in picks]
    assert explained == [True] * EXPLAINED_PER_SECOND + [False, False, True]
    assert all(pick["result"] == "success" for pick in picks)


def verdicts_of(picked: str, *candidates: tuple[str, str, str, float | None], **event: Any) -> Any:
    explained = [
        Explained(n, verdict, why, {"score": score}) for n, verdict, why, score in candidates
    ]
    happened = Picked(0.0, "generation", picked, "a", **event)
    return {c.deployment: c for c in told(Explanation("generation", explained), happened, {})}


def test_who_was_drawn_in_place_of_one_as_good_is_told_so() -> None:
    found = verdicts_of("b", ("a", "picked", "the best", 1.0), ("b", "lost", "drawn", 1.05))
    assert (found["b"].verdict, found["a"].verdict) == ("picked", "lost")
    assert found["b"].reason == "drawn among the best: its score is 1.05"
    assert found["a"].reason == "as good as the one that was drawn: its score is 1"


def test_who_had_room_when_a_better_one_was_full_by_then_is_told_so() -> None:
    found = verdicts_of("b", ("a", "picked", "the best", 1.0), ("b", "lost", "slower", 9.0))
    assert found["b"].reason == "the best that had room then: its score is 9"
    assert found["a"].reason.startswith("another call was quicker")


def test_who_was_full_when_the_call_came_is_told_with_the_wait() -> None:
    found = verdicts_of("b", ("a", "full", "all 1", 1.0), ("b", "full", "all 2", 2.0), waited=3.0)
    assert found["b"].reason == "there was room after a wait; before, all 2"
    assert found["a"].verdict == "full"


def test_who_was_picked_in_a_panic_is_told_so() -> None:
    found = verdicts_of("b", ("a", "ejected", "500s", None), ("b", "ejected", "resets", None))
    assert found["b"].reason == "nobody better was left: resets"


async def test_a_router_that_nobody_listens_to_has_no_picks_and_a_page_all_the_same(
    provider: StandIn,
) -> None:
    async with facing(provider, capped()) as face:
        await face.make(model="sora-2")
        told_ = await state(face)
    assert told_["picks"] == []
    assert sum(one["running"] for one in told_["deployments"]) <= 1


# What is never told -----------------------------------------------------------------------------


async def test_no_prompt_key_id_or_name_of_a_callers_is_told(provider: StandIn) -> None:
    provider.fault("status", status=503, headers={"retry-after": "5"})
    clip = b"\0\0\0\x18ftypmp42" + bytes(64)
    async with facing(provider, tenants(capped()), Console()) as face:
        video = await face.make("pk-web", prompt="A heron of gold", model="sora-2")
        await face.get(f"/videos/{video}", key="pk-web")
        made = await face.post(
            "/videos/characters",
            key="pk-web",
            data={"name": "Luna"},
            files={"video": clip},
            headers={"idempotency-key": "order-of-a-shop"},
        )
        await face.post(
            "/videos/edits", key="pk-web", json={"prompt": "Silver", "video": {"id": video}}
        )
        text = json.dumps(await state(face, key="pk-ops"))
    natives = [submit.native_id for submit in provider.accepted]
    assert len(natives) >= 2
    hidden = [
        "heron",
        "Silver",
        "Luna",
        "order-of",
        "pk-",
        "sk-",
        video,
        made.json()["id"],
        *natives,
    ]
    assert [word for word in hidden if word in text] == []


# Only what is newer -----------------------------------------------------------------------------


async def test_a_page_is_told_what_is_newer_than_it_knows(provider: StandIn) -> None:
    console = Console()
    async with facing(provider, capped(), console) as face, console.watching(face.router):
        await face.make(model="sora-2")
        first = await state(face)
        again = await state(face, first["cursor"])
        await face.make(model="sora-2")
        third = await state(face, again["cursor"])
    assert len(first["picks"]) == 1
    assert (again["picks"], again["history"]) == ([], None)
    assert [pick["number"] for pick in third["picks"]] == [2]


@pytest.mark.parametrize(
    "after", ["", "1-other.9.9", ".", "x", "{worker}.-1.2", "{worker}.²", "\0"]
)
async def test_who_comes_from_another_process_or_with_nonsense_is_told_all(
    provider: StandIn, after: str
) -> None:
    console = Console()
    async with facing(provider, capped(), console) as face, console.watching(face.router):
        await face.make(model="sora-2")
        worker = (await state(face))["worker"]
        told_ = await state(face, after.replace("{worker}", worker))
    assert len(told_["picks"]) == 1


# The last hour ----------------------------------------------------------------------------------


def times(**means: float) -> dict[str, Any]:
    return {name: {"mean": mean, "count": 1} for name, mean in means.items()}


def test_the_lines_have_the_means_of_one_operation_and_gaps_where_nothing_was_known() -> None:
    history = History()
    history.sample(10.0, {"a": {"latency": {}, "job_time": {}}})
    history.sample(
        25.0, {"a": {"latency": times(generation=0.51234, status=9.0), "job_time": times(edit=3.0)}}
    )
    assert history.times == [10.0, 25.0]
    lines = history.of("a", "generation", "edit")
    assert lines == {"latency": [None, 0.512], "job_time": [None, 3.0]}
    assert history.of("b", None, None) == {"latency": [None, None], "job_time": [None, None]}


def test_the_history_is_bounded() -> None:
    history = History()
    for second in range(SAMPLES + 10):
        history.sample(second, {})
    assert len(history.times) == SAMPLES
    assert history.times[0] == 10
    assert history.count == SAMPLES + 10


def test_submits_are_charted_before_the_more_frequent_reads() -> None:
    latency = {"status": {"count": 900}, "generation": {"count": 3}, "edit": {"count": 4}}
    assert busiest(latency) == "edit"
    assert busiest({"status": {"count": 900}}) == "status"
    assert busiest({}) is None


async def test_samples_are_taken_while_the_application_runs(provider: StandIn) -> None:
    console = Console(sample_seconds=3600.0)
    async with facing(provider, fleet(STAND_IN), console) as face:
        await face.make(model="sora-2")
        async with console.watching(face.router):
            told_ = await state(face)
    assert len(told_["history"]["times"]) == 1
    lines = told_["history"]["deployments"]
    assert sum(line["latency"][0] is not None for line in lines.values()) == 1


def test_every_routing_argument_that_explain_takes_is_handed_to_it() -> None:
    taken = set(inspect.signature(operations.routing_only).parameters) - {"operation", "options"}
    assert taken <= ROUTING
