"""One call from the shell, in this process: what each command does, prints, and ends with."""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Iterator, Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import yaml

from router.cli import app
from router.testing import StandIn
from router.testing.media import CLIP

KEYS = {"sk-secret-east": "east", "sk-secret-west": "west"}


class Desk:
    """Somebody at a shell, in a folder with a deployments.yaml and a clip."""

    def __init__(self, provider: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
        self.provider = provider
        self.err = ""
        self._capsys = capsys
        self.configure()

    def configure(self, *, accounts: Mapping[str, Any] | None = None, **settings: Any) -> None:
        named: dict[str, Any] = {
            name: {"api_key": key, "base_url": self.provider.base_url} for key, name in KEYS.items()
        }
        deployments = [
            {"id": f"{name}-1", "model_name": "sora-2", "account": name, "cost_per_second": 0.1}
            for name in named
        ]
        for name, more in (accounts or {}).items():
            named[name] |= more
        written = {"settings": settings, "accounts": named, "deployments": deployments}
        Path("deployments.yaml").write_text(yaml.safe_dump(written))

    def tell(self, *arguments: str, code: int = 0) -> str:
        """What a command prints on stdout; `err` is what it said beside it."""
        self._capsys.readouterr()
        ended = app.run(list(arguments))
        told = self._capsys.readouterr()
        assert ended == code, told
        self.err = told.err
        said = told.out + told.err
        assert "sk-secret" not in said
        assert "Traceback" not in said
        assert "\x1b" not in said
        return told.out

    def ask(self, *arguments: str) -> dict[str, Any]:
        """The one object that a command prints for programs, and nothing beside it."""
        found: dict[str, Any] = json.loads(self.tell(*arguments, "--json"))
        assert self.err == ""
        return found

    def refuse(self, *arguments: str, code: int) -> str:
        """The one line that a command ends with."""
        assert self.tell(*arguments, code=code) == ""
        (line,) = self.err.splitlines()
        assert line.startswith("video-router: ")
        assert not re.search(r"\b\w+Error\b", line), "no type's name is for people"
        return line.removeprefix("video-router: ")

    def make(self, *more: str) -> str:
        return self.tell("generate", "Luna waves", *more).strip()


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Desk]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("ROUTER_CONFIG", raising=False)
    Path("luna.mp4").write_bytes(CLIP)
    with StandIn(accounts=KEYS) as provider:
        yield Desk(provider, capsys)


# What is made -----------------------------------------------------------------------------------


def test_a_video_from_nothing_to_a_file(desk: Desk) -> None:
    luna = desk.tell("character", "Luna", "luna.mp4").strip()
    assert luna.startswith("character_vr1")
    assert re.match(r"    Luna in the account (east|west), after ", desk.err)
    told = desk.tell(
        "generate",
        "Luna waves",
        *("--character", luna, "--seconds", "8", "--size", "1280x720"),
        *("--wait", "--output", "waves.mp4"),
    )
    assert told.startswith("video_vr1")
    assert len(told.split()) == 1, "the id stands alone on stdout"
    assert Path("waves.mp4").read_bytes() == CLIP
    first, *_, last = desk.err.splitlines()
    assert re.fullmatch(r"    queued on (\w+)-1 \(account \1\), 8 s of 1280x720, \$0.80", first)
    assert last == "    saved waves.mp4, 161 kB"


def test_a_character_in_all_accounts_goes_to_any(desk: Desk) -> None:
    made = desk.ask("character", "Luna", "luna.mp4", "--replicate", "all")
    assert sorted(made["routing"]["copies"]) == ["east", "west"]
    for account in KEYS.values():
        video = desk.ask("generate", "Luna", "--character", made["id"], "--account", account)
        assert video["routing"]["account"] == account


def test_a_copy_that_failed_is_a_warning(desk: Desk) -> None:
    desk.provider.fault("status", status=400, operation="create_character", account="east")
    assert desk.tell("character", "Luna", "luna.mp4", "--replicate", "2")
    assert "warning not in the account east: 400 " in desk.err


@pytest.mark.parametrize(
    "words",
    [("edit", "make it snow"), ("extend", "she turns", "--seconds", "4"), ("remix", "at night")],
)
def test_follow_ups_go_where_the_video_lives(desk: Desk, words: tuple[str, ...]) -> None:
    command, *rest = words
    first = desk.ask("generate", "Luna waves", "--wait")
    second = desk.ask(command, first["id"], *rest, "--output", "second.mp4")
    assert second["status"] == "completed"
    assert second["routing"]["account"] == first["routing"]["account"]
    assert second["routing"]["cost"] > 0, "what the job costs, though the last look was free"
    assert second["output"] == "second.mp4"
    assert Path("second.mp4").read_bytes() == CLIP


@pytest.mark.parametrize("words", [("edit", "snow"), ("extend", "on", "--seconds", "4")])
def test_a_clip_may_be_sent_along(desk: Desk, words: tuple[str, ...]) -> None:
    command, *rest = words
    assert desk.tell(command, "luna.mp4", *rest).startswith("video_vr1")


def test_a_reference_is_a_file_or_an_address(desk: Desk) -> None:
    Path("luna.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert desk.tell("generate", "x", "--input-reference", "luna.png")
    assert desk.tell("generate", "x", "--input-reference", "https://pictures.example/luna.png")


# What is looked at ------------------------------------------------------------------------------


def test_status_of_one_video_and_waiting_for_it(desk: Desk) -> None:
    made = desk.make("--account", "east")
    head, status, facts, prompt = desk.tell("status", made).splitlines()
    assert (head, status, prompt) == (made, "    completed", "    Luna waves")
    assert facts.startswith("    sora-2, 4 s of 720x1280, account east, made ")
    assert desk.tell("wait", made, "-o", "a.mp4").strip() == made
    assert Path("a.mp4").read_bytes() == CLIP
    assert desk.ask("status", made)["routing"]["account"] == "east"
    waited = desk.ask("wait", made)
    assert (waited["status"], waited["routing"]["deployment"]) == ("completed", "east-1")


def test_content_goes_to_a_file(desk: Desk) -> None:
    made = desk.make("--wait")
    assert desk.tell("content", made, "--output", "a.mp4") == ""
    assert desk.err == "    saved a.mp4, 161 kB\n"
    told = desk.ask("content", made, "--output", "thumb", "--variant", "thumbnail")
    assert (told["output"], told["bytes"]) == ("thumb", Path("thumb").stat().st_size)
    assert [one["status"] for one in told["routing"]["attempts"]] == [200]


def test_the_list_is_of_all_accounts_and_has_pages(desk: Desk) -> None:
    assert (desk.tell("list"), desk.err) == ("", "    no videos\n")
    made = {desk.make("--account", account) for account in ("east", "west", "east")}
    table = desk.tell("list").splitlines()
    assert table[0].split() == ["id", "account", "model", "status", "video", "made", "kept", "for"]
    assert {line.split()[0] for line in table[2:]} == made
    page = desk.ask("list", "--limit", "2", "--order", "asc")
    assert (len(page["data"]), page["has_more"]) == (2, True)
    rest = desk.ask("list", "--limit", "2", "--order", "asc", "--after", page["last_id"])
    assert {one["id"] for one in (*page["data"], *rest["data"])} == made
    desk.tell("list", "--limit", "1")
    assert re.search(r"there are more: --after page_vr1", desk.err)


def test_an_account_that_does_not_answer_is_a_warning(desk: Desk) -> None:
    made = desk.make("--account", "east")
    desk.provider.fault("status", status=401, account="west", operation="list")
    assert desk.tell("list").count("\n") == 3
    assert "warning the account west did not answer: 401 " in desk.err
    assert made in desk.tell("list", "--account", "east")


def test_a_narrow_terminal_gets_whole_ids(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    made = desk.make()
    monkeypatch.setenv("COLUMNS", "80")
    assert desk.tell("list").splitlines()[0] == made


def test_a_program_gets_no_colours_though_they_are_forced(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    made = desk.make()
    assert [one["id"] for one in desk.ask("list")["data"]] == [made]


def test_deleted_is_gone(desk: Desk) -> None:
    made = desk.make("--wait")
    assert desk.tell("delete", made) == f"{made} is deleted\n"
    line = desk.refuse("status", made, code=1)
    assert line.startswith("404 ")
    assert line.endswith("what there is: `video-router list`")
    other = desk.make("--wait")
    assert desk.ask("delete", other)["deleted"] is True


def test_words_of_a_provider_move_no_cursor(desk: Desk) -> None:
    made = desk.make("--account", "east")
    evil = {"id": "video_1", "status": "queued\x1b[2J", "prompt": "a\x1b]0;b\nc", "object": "video"}
    desk.provider.fault("garbage", body=json.dumps(evil), content_type="application/json")
    told = desk.tell("status", made)
    assert "queued\N{REPLACEMENT CHARACTER}[2J" in told


# Who would serve --------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_explain_is_a_table_with_reasons(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    told = desk.tell("explain", "--seconds", "8")
    found = re.match(r"generation would be served by (east|west)-1\n\n", told)
    assert found
    assert "the best of its tier" in told
    if columns != "60":
        assert "$0.80" in told
    if columns == "200":
        head, _, *rows = told.splitlines()[2:]
        assert head.split()[-1] == "why"
        assert len(rows) == 2


def test_explain_follows_ids_and_ends_with_1_where_nobody_would(desk: Desk) -> None:
    made = desk.make("--account", "west")
    told = desk.ask("explain", "edit", "--video", made)
    assert (told["operation"], told["picked"]) == ("edit", "west-1")
    assert {one["deployment"] for one in told["candidates"]} == {"east-1", "west-1"}
    assert "nobody" in desk.tell("explain", "--max-cost", "0.01", "--seconds", "4", code=1)
    assert "nope" in desk.refuse("explain", "--model", "nope", code=1)
    line = desk.refuse("explain", "sing", code=2)
    assert "'sing' is no operation; there are character, generate, extend" in line


@pytest.mark.parametrize(
    ("command", "operation"),
    [("generate", "generation"), ("extend", "extension"), ("character", "create_character")],
)
def test_explain_knows_the_commands_by_their_names(
    desk: Desk, command: str, operation: str
) -> None:
    assert desk.ask("explain", command)["operation"] == operation
    assert desk.ask("explain", operation)["operation"] == operation


def test_explain_says_that_the_price_goes_first_and_then_the_time(desk: Desk) -> None:
    desk.configure(strategy="lowest-cost")
    written = yaml.safe_load(Path("deployments.yaml").read_text())
    east, west = written["deployments"]
    west["cost_per_second"] = 0.3
    unknown = {name: value for name, value in east.items() if name != "cost_per_second"}
    written["deployments"].append({**unknown, "id": "east-2"})
    Path("deployments.yaml").write_text(yaml.safe_dump(written))
    told = desk.tell("explain", "--seconds", "8")
    assert "its score is $0.8 then 161 s" in told, "20 s for each second of video, and the answer"
    assert "its score is $2.4 then 161 s, and $0.8 then 161 s was to be had" in told
    assert "its score is no price then 161 s, and $0.8 then 161 s was to be had" in told
    assert "e+" not in told
    assert desk.err.startswith("    lowest-cost compares the price of 8 s first, then in how many ")
    assert "compares the price of 4 s first" in (desk.tell("explain"), desk.err)[1]
    assert "$" not in desk.tell("explain", "list"), "reads are free"
    assert desk.err == ""


# Ids --------------------------------------------------------------------------------------------


def _native(ours: str) -> str:
    raw = base64.urlsafe_b64decode(ours.removeprefix("video_vr1") + "==")
    found = re.search(rb"video_[0-9a-f]{32}", raw)
    assert found
    return found[0].decode()


def test_ids_from_elsewhere_are_located(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = [desk.make("--account", account) for account in ("east", "west")]
    native = [_native(one) for one in ours]
    plain = f"litellm:custom_llm_provider:openai;model_id:x;video_id:{native[1]}"
    foreign = f"video_{base64.b64encode(plain.encode()).decode()}"
    assert desk.tell("ids", "locate", native[0]) == f"{native[0]}\t{ours[0]}\n"
    lines = "\n".join([native[0], "", foreign, "video_nowhere", ours[1], ""])
    monkeypatch.setattr(sys, "stdin", StringIO(lines))
    told = desk.tell("ids", "locate", code=1)
    assert told.splitlines() == [
        f"{native[0]}\t{ours[0]}",
        f"{foreign}\t{ours[1]}",
        f"{ours[1]}\t{ours[1]}",
    ]
    assert desk.err == "video-router: video_nowhere: no account has it\n"
    found = json.loads(desk.tell("ids", "locate", native[0], "video_no", "--json", code=1))
    assert found["located"] == {native[0]: ours[0]}
    assert list(found["failed"]) == ["video_no"]


def test_an_id_that_is_none_is_escaped_and_short(desk: Desk) -> None:
    told = desk.tell("ids", "locate", "\udcffx\x1b", "a" * 3000, "video_no", code=1)
    assert (told, len(desk.provider.requests)) == ("", 2)
    assert desk.err.splitlines() == [
        "video-router: \\udcffx\\x1b: it has characters that no id has",
        f"video-router: {'a' * 40}…{'a' * 10}: it is empty, too long, or a path",
        "video-router: video_no: no account has it",
    ]
    found = json.loads(desk.tell("ids", "locate", "\udcffx", "a" * 3000, "--json", code=1))
    assert list(found["failed"]) == ["\\xffx", "a" * 3000], "a program gets what it gave"


def test_no_id_at_all_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO("\n"))
    assert desk.tell("ids", "locate") == ""
    assert desk.err == "warning no id was given: stdin had none\n"


def test_ids_without_more_is_its_help(desk: Desk) -> None:
    assert "locate" in desk.tell("ids", code=2)


# What goes wrong --------------------------------------------------------------------------------


def test_a_failed_job_is_one_line_with_its_reason(desk: Desk) -> None:
    desk.provider.fault("job_fails", code="moderation_blocked", message="Not that.")
    told = desk.tell("generate", "x", "--wait", code=1)
    *_, line = desk.err.splitlines()
    said = f"there is no video: moderation_blocked: Not that. ({told.strip()})"
    assert line == f"video-router: {said}"
    assert "Not that." in desk.tell("status", told.strip()), "looking at it is no failure"


def test_a_lost_answer_says_where_to_look(desk: Desk) -> None:
    desk.provider.fault("reset", after=True, operation="generation")
    line = desk.refuse("generate", "x", code=4)
    found = re.search(r"a job may be there, in the account (\w+): do not submit it again", line)
    assert found
    assert f"look for it with `video-router list --account {found[1]}` around " in line
    assert line.endswith("follow it with `video-router wait ID`")
    assert len(desk.provider.accepted) == 1


def test_who_waits_has_a_lost_answer_looked_for(desk: Desk) -> None:
    desk.provider.fault("reset", after=True, operation="generation")
    made = desk.tell("generate", "x", "--output", "a.mp4").strip()
    assert desk.err.startswith("    the answer was lost; looking for the job in the account ")
    assert desk.ask("status", made)["status"] == "completed"
    assert Path("a.mp4").read_bytes() == CLIP
    assert len(desk.provider.accepted) == 1


def test_a_character_of_a_lost_answer_is_no_job(desk: Desk) -> None:
    desk.provider.fault("reset", after=True, operation="create_character")
    line = desk.refuse("character", "Luna", "luna.mp4", code=4)
    assert "a character may be there, in the account " in line
    assert "wait ID" not in line


def test_throttled_says_when_to_try_again(desk: Desk) -> None:
    again = {"retry-after": "17"}
    desk.provider.fault("status", status=429, times=None, headers=again, operation="generation")
    line = desk.refuse("generate", "x", code=3)
    assert re.search(r"try again in 1[67] s$", line)


def test_a_wait_that_ends_before_the_job_says_how_to_go_on(desk: Desk) -> None:
    desk.provider.fault("never_ends")
    asked = ("generate", "x", "--output", "k.mp4", "--wait-timeout", "0.2")
    made = desk.tell(*asked, code=3).strip()
    go_on = f"the job goes on, follow it with `video-router wait {made} --output k.mp4`"
    *_, ended = desk.err.splitlines()
    assert re.fullmatch(rf"video-router: the job is \w+ after 0\.\d+ s of waiting; {go_on}", ended)
    line = desk.refuse("content", made, "-o", "x.mp4", code=3)
    assert line.endswith(", or wait for it with `video-router wait ID`")
    assert not Path("x.mp4").exists()


def test_the_next_command_names_the_same_file(desk: Desk) -> None:
    Path("deployments.yaml").rename("other ones.yaml")
    desk.provider.fault("never_ends")
    told = desk.tell(
        "generate", "x", "--wait", "--wait-timeout", "0.2", "--config", "other ones.yaml", code=3
    )
    assert f"`video-router wait {told.strip()} --config 'other ones.yaml'`" in desk.err


def test_a_download_that_fails_keeps_what_was_paid(desk: Desk) -> None:
    desk.provider.fault("status", status=403, times=None, operation="content")
    made = desk.tell("generate", "x", "--output", "a.mp4", code=1).strip()
    go_on = f"get it with `video-router content {made} --output a.mp4`\n"
    assert desk.err.endswith(go_on)


def test_a_wait_that_hears_nothing_any_more_says_the_id(desk: Desk) -> None:
    desk.configure(deadline=0.5)
    desk.provider.fault("reset", times=None, operation="status")
    made = desk.tell("generate", "x", "--wait", code=1).strip()
    assert desk.err.endswith(f"the job goes on, follow it with `video-router wait {made}`\n")


def test_a_wait_for_who_cannot_be_reached_says_so_at_once_and_again_in_the_end(
    desk: Desk,
) -> None:
    made = desk.make("--account", "east")
    nowhere = {"base_url": "http://127.0.0.1:9/v1"}
    desk.configure(accounts={"east": nowhere, "west": nowhere})
    for more in ([], ["--json"]):
        desk.tell("wait", made, "--wait-timeout", "3", *more, code=3)
        warned, ended = desk.err.splitlines()
        assert warned.startswith("warning the job cannot be looked at, and this goes on trying: ")
        assert warned.endswith("`video-router doctor` asks all of them")
        assert re.match(
            r"video-router: the job was not seen in [34]\.\d s of waiting \(the last look: \[Errno "
            r"111\] Connection refused \[east-1\]\); the job goes on, follow it with ",
            ended,
        )


def test_a_wait_says_that_it_hears_again(desk: Desk) -> None:
    made = desk.make("--account", "east")
    desk.provider.fault("status", status=503, times=3, operation="status")
    assert desk.tell("wait", made).strip() == made
    warned, again, ended = desk.err.splitlines()
    assert "cannot be looked at, and this goes on trying: 503 " in warned
    assert again == "    the job can be looked at again"
    assert ended.startswith("    completed; waited ")


@pytest.mark.parametrize(
    ("fault", "arguments", "code", "said"),
    [
        ("garbage", ["list"], 1, "its base_url probably leads to a page, and not to an API"),
        ("garbage", ["generate", "x"], 4, "its base_url probably leads to a page, and not to an"),
        ("redirect", ["list"], 1, "its base_url leads elsewhere: write the whole address"),
        ("truncated", ["list"], 1, "its answer broke off: try again"),
        ("status", ["list"], 1, "the provider failed: try again, or ask another with --account"),
    ],
)
def test_an_answer_that_is_none_says_what_to_mend(
    desk: Desk, fault: str, arguments: list[str], code: int, said: str
) -> None:
    details = {"location": "https://x.example/"} if fault == "redirect" else {}
    desk.provider.fault(fault, times=None, **details)
    assert said in desk.refuse(*arguments, "--account", "east", code=code)


def test_an_address_without_its_end_is_told_from_a_video_that_is_gone(desk: Desk) -> None:
    made = desk.make("--account", "east")
    desk.configure(accounts={"east": {"base_url": f"{desk.provider.base_url}/nowhere"}})
    for command in ("generate", "x"), ("list",):
        line = desk.refuse(*command, "--account", "east", code=1)
        assert "check its base_url (is /v1 missing at its end?)" in line
    desk.configure()
    desk.tell("delete", made)
    assert "base_url" not in desk.refuse("status", made, code=1)


def test_a_key_that_is_refused_names_its_account(desk: Desk) -> None:
    desk.configure(accounts={"east": {"api_key": "sk-wrong"}})
    line = desk.refuse("generate", "x", "--account", "east", code=1)
    assert line.endswith("check the api_key of the account east in deployments.yaml")


def test_nobody_listens(desk: Desk) -> None:
    nowhere = {"base_url": "http://127.0.0.1:9/v1"}
    desk.configure(accounts={"east": nowhere, "west": nowhere})
    line = desk.refuse("generate", "x", code=1)
    assert "is it up, and its base_url right? `video-router doctor` asks all of them" in line


def test_a_missing_variable_and_a_missing_file(desk: Desk) -> None:
    desk.configure(accounts={"east": {"api_key": "${NO_SUCH_KEY}"}})
    line = desk.refuse("generate", "x", code=1)
    assert "the variable NO_SUCH_KEY is not set" in line
    Path("deployments.yaml").write_text("deployments: [{ids: 1}]")
    assert "which `video-router check deployments.yaml` lists" in desk.refuse("list", code=1)
    Path("deployments.yaml").unlink()
    line = desk.refuse("generate", "x", code=1)
    assert line.startswith("deployments.yaml: there is no such file; name another with --config")


def test_redis_out_of_reach_is_a_warning_and_with_a_key_an_error(desk: Desk) -> None:
    desk.configure(redis_url="redis://127.0.0.1:9/0")
    assert desk.make().startswith("video_vr1")
    assert desk.err.startswith("warning the shared state is out of reach: ")
    assert "refused; this goes on" in desk.err
    desk.tell("generate", "x", "--idempotency-key", "k", code=1)
    assert desk.err.splitlines()[-1].endswith("`video-router doctor` says why")
    assert len(desk.provider.accepted) == 1


def test_a_key_that_nobody_will_remember_is_warned_of(desk: Desk) -> None:
    desk.make("--idempotency-key", "order-7")
    assert "warning deployments.yaml sets no redis_url" in desk.err


def test_too_dear_is_asked_of_nobody(desk: Desk) -> None:
    line = desk.refuse("generate", "x", "--max-cost", "0.1", "--seconds", "4", code=1)
    assert line.startswith("nobody does this for --max-cost $0.1: east-1 asks $0.4")
    assert not desk.provider.accepted


def test_an_id_of_ours_knows_better_where_it_lives(desk: Desk) -> None:
    made = desk.make("--account", "east")
    for words in (["status", made], ["edit", made, "x"], ["content", made, "-o", "x.mp4"]):
        line = desk.refuse(*words, "--account", "west", code=1)
        assert line == "what this call names lives in east, not in west: leave out --account"
    assert len(desk.provider.requests) == 1


def test_a_native_id_wants_its_account(desk: Desk) -> None:
    native = _native(desk.make("--account", "east"))
    line = desk.refuse("wait", native, code=1)
    assert "name the owner with --account, or find it with `video-router ids locate`" in line
    assert desk.tell("status", native, "--account", "east")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generate"], "Missing argument 'PROMPT'"),
        (["generate", " "], "it is empty"),
        (["generate", "x", "--seconds", "long"], "'long' is no positive number"),
        (["generate", "x", "--seconds", "-4"], "'-4' is no positive number"),
        (["generate", "x", "--max-cost", "nan"], "'nan' is no positive number"),
        (["generate", "x", "--deadline", "0"], "'0' is no positive number"),
        (["generate", "x", "--output", "."], "is a folder"),
        (["generate", "x", "--output", "no/x.mp4"], "there is no folder 'no'"),
        (["generate", "x", "--input-reference", "no.png"], "there is no file 'no.png'"),
        (["character", "Luna", "no.mp4"], "there is no file 'no.mp4'"),
        (["character", "Luna", "luna.mp4", "--replicate", "9"], "neither a number from 1 to 8"),
        (["edit", "lunar.mp4", "x"], "'lunar.mp4' is no file, and no id of a video"),
        (["extend", "luna.mp4", "x"], "Missing option '--seconds'"),
        (["list", "--limit", "101"], "--limit"),
        (["list", "--order", "up"], "'--order': 'up' is not one of 'desc', 'asc'"),
        (["generate", "x", "--wait-timeout", "9"], "add --wait, or --output FILE"),
        (["edit", "luna.mp4", "x", "--wait-timeout", "9"], "add --wait, or --output FILE"),
        (["content", "video_1", "--json"], "a video needs a file to go to"),
        (["status", "video_1", "--watch"], "to follow a video use `video-router wait`"),
        (["status", "--account", "east"], "it is for a video's ID"),
        # What a script's variable leaves that is not set.
        (["generate", "x", "--model", ""], "'--model': it is empty"),
        (["generate", "x", "--target-model-names", "sora-2,"], "it is empty"),
        (["generate", "x", "--character", ""], "'--character': it is empty"),
        (["generate", "x", "--account", ""], "'--account': it is empty"),
        (["generate", "x", "--size", " "], "'--size': it is empty"),
        (["generate", "x", "--idempotency-key", ""], "'--idempotency-key': it is empty"),
        (["generate", "x", "--config", ""], "it is empty"),
        (["character", "", "luna.mp4"], "'NAME': it is empty"),
        (["edit", "", "x"], "'ID|FILE': it is empty"),
        (["remix", "", "x"], "'ID': it is empty"),
        (["wait", ""], "'ID': it is empty"),
        (["content", "", "-o", "x.mp4"], "'ID': it is empty"),
        (["delete", ""], "'ID': it is empty"),
        (["status", ""], "it is empty"),
        (["list", "--after", ""], "'--after': it is empty"),
        (["explain", "edit", "--video", ""], "'--video': it is empty"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_sent(
    desk: Desk, arguments: list[str], said: str
) -> None:
    line = desk.refuse(*arguments, code=2)
    assert said in line
    assert line.endswith(f"see `video-router {arguments[0]} --help`")
    assert not desk.provider.requests


@pytest.mark.parametrize(
    "command",
    ["character", "generate", "edit", "extend", "remix", "wait", "content", "list", "delete"],
)
def test_each_command_explains_itself(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    told = desk.tell(command, "--help")
    assert "--json" in told
    assert "4 ambiguous" in " ".join(told.split())
    assert max(map(len, told.splitlines())) <= 80
