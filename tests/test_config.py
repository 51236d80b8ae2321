"""What a configuration may say, what it means, and how it is refused."""

from __future__ import annotations

import base64
import datetime
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from router import config as config_module
from router.config import (
    Config,
    Deployment,
    Limits,
    ProviderFacts,
    Settings,
    Vocabulary,
    load_data,
    load_file,
    retirement,
)
from router.errors import ConfigError
from router.types import Operation

FEW = frozenset({Operation.GENERATION, Operation.STATUS, Operation.CONTENT})
VOCABULARY = Vocabulary(
    providers={
        "openai": ProviderFacts(frozenset(Operation), "openai"),
        "azure": ProviderFacts(frozenset(Operation), "openai"),
        "runwayml": ProviderFacts(FEW, "runwayml"),
    },
    strategies=(
        "lowest-completion",
        "lowest-latency",
        "least-busy",
        "lowest-cost",
        "weighted-random",
        "round-robin",
    ),
)
SECRET = "sk-9f8e7d6c5b4a"
URL = "https://host/v1"

Load = Callable[..., Config]
Refuse = Callable[..., tuple[str, ...]]


def entry(**changes: Any) -> dict[str, Any]:
    return {
        "id": "east",
        "model_name": "sora-2",
        "account": "acme",
        "base_url": URL,
        "api_key": SECRET,
    } | changes


def load(data: Mapping[str, Any], **environ: str) -> Config:
    return load_data(data, environ=environ, vocabulary=VOCABULARY)


def one(changes: Mapping[str, Any] | None = None, **environ: str) -> Deployment:
    return load({"deployments": [entry(**(changes or {}))]}, **environ).deployments[0]


def refused(data: Any, **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(data, **environ)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "deployments.yaml"


@pytest.fixture
def load_text(file: Path) -> Load:
    def load_text(text: str, **environ: str) -> Config:
        file.write_text(text, encoding="utf-8")
        return load_file(file, environ=environ, vocabulary=VOCABULARY)

    return load_text


@pytest.fixture
def refuse_text(load_text: Load) -> Refuse:
    def refuse_text(text: str, **environ: str) -> tuple[str, ...]:
        with pytest.raises(ConfigError) as caught:
            load_text(text, **environ)
        return caught.value.problems

    return refuse_text


class TestWhatIsLoaded:
    def test_the_least_that_works_gets_the_defaults(self) -> None:
        deployment = load(
            {"deployments": [{"id": "a", "model_name": "m", "base_url": URL}]}
        ).deployments[0]

        assert deployment == Deployment(
            id="a",
            model_names=("m",),
            account="a",
            account_is_default=True,
            provider="openai",
            model="m",
            base_url=URL,
            operations=frozenset(Operation),
        )
        assert (deployment.weight, deployment.order, deployment.timeout) == (1.0, 1, None)
        assert (deployment.retry_on_5xx, deployment.drop_params) == (False, False)
        assert (deployment.cost_per_second, deployment.retires_on) == (None, None)

    def test_settings_have_the_defaults_of_the_contract(self) -> None:
        settings = load({"deployments": [entry()]}).settings

        assert settings == Settings()
        assert settings.model_dump() == {
            "strategy": "lowest-completion",
            "connect_timeout": 5.0,
            "timeout": 120.0,
            "deadline": 300.0,
            "retries": 2,
            "max_wait": 0.0,
            "redis_url": None,
            "namespace": "video-router",
            "default_model": None,
            "fallbacks": {},
            "id_secrets": (),
            "accept_unsigned_ids": True,
        }

    def test_limits_stand_where_they_are_written_and_are_not_taken_over(self) -> None:
        config = load(
            {
                "accounts": {"acme": {"max_parallel_jobs": 4, "rpm": "60", "job_ttl": 600}},
                "deployments": [
                    entry(max_parallel_jobs=2, read_rpm=100, max_parallel_requests=8),
                    entry(id="west", account="other", api_key="another"),
                ],
            }
        )

        assert config.accounts["acme"].limits == Limits(rpm=60, max_parallel_jobs=4, job_ttl=600.0)
        own, none = (deployment.limits for deployment in config.deployments)
        assert own == Limits(read_rpm=100, max_parallel_requests=8, max_parallel_jobs=2)
        assert none == config.accounts["other"].limits == Limits()

    def test_settings_of_the_shared_state(self) -> None:
        written = {"redis_url": "redis://h/0", "namespace": "app:video/1.2_b-c", "max_wait": 2}
        settings = load({"settings": written, "deployments": [entry()]}).settings

        assert settings.redis_url is not None
        assert settings.redis_url.get_secret_value() == "redis://h/0"
        assert (settings.namespace, settings.max_wait) == ("app:video/1.2_b-c", 2.0)
        empty = {"redis_url": "${NOT_SET:-}"}
        assert load({"settings": empty, "deployments": [entry()]}).settings.redis_url is None

    def test_a_deployment_takes_over_what_only_its_account_says(self) -> None:
        config = load(
            {
                "accounts": {"acme": {"base_url": URL, "api_key": "of-the-account"}},
                "deployments": [
                    {"id": "a", "model_name": "m", "account": "acme"},
                    {"id": "b", "model_name": "m", "account": "acme", "api_key": "its-own"},
                ],
            }
        )

        keys = [d.api_key.get_secret_value() for d in config.deployments if d.api_key]
        assert keys == ["of-the-account", "its-own"]
        assert {d.base_url for d in config.deployments} == {URL}

    def test_an_account_need_not_be_listed(self) -> None:
        config = load({"deployments": [entry(), entry(id="west")]})

        assert config.accounts["acme"].api_key is None
        assert config.warnings == ()

    def test_groups_hold_their_deployments_in_the_order_of_the_file(self) -> None:
        config = load(
            {"deployments": [entry(id="b", model_name=["m", "n"]), entry(id="a", model_name="m")]}
        )

        groups = {name: [d.id for d in group] for name, group in config.groups.items()}
        assert groups == {"m": ["b", "a"], "n": ["b"]}
        assert config.deployments[0].model == "m"

    def test_a_provider_that_can_do_less_makes_a_deployment_that_can_do_less(self) -> None:
        assert one({"provider": "runwayml"}).operations == FEW
        assert one({"operations": ["status"]}).operations == {Operation.STATUS}

    @pytest.mark.parametrize(
        ("written", "read"),
        [
            ("https://host/v1/", "https://host/v1"),
            ("HTTPS://Host:443/v1//", "https://host/v1"),
            ("http://127.0.0.1:4010", "http://127.0.0.1:4010"),
            ("https://h/openai/v1/?api-version=preview", "https://h/openai/v1?api-version=preview"),
            ("http://[::1]:80/v1", "http://[::1]/v1"),
            (f"https://user:{SECRET}@host/v1", "https://host/v1"),
        ],
    )
    def test_a_base_url_is_brought_to_one_form(self, written: str, read: str) -> None:
        assert one({"base_url": written}).base_url == read

    def test_userinfo_becomes_a_basic_header(self) -> None:
        header = one({"base_url": "https://us%40er:pa%3Ass@host"}).headers["authorization"]

        token = header.get_secret_value().removeprefix("Basic ")
        assert base64.b64decode(token) == b"us@er:pa:ss"

    def test_userinfo_gives_way_to_a_header_that_is_written(self) -> None:
        url = "https://user:password@host"
        headers = one({"base_url": url, "headers": {"Authorization": "Key abc"}}).headers

        assert {k: v.get_secret_value() for k, v in headers.items()} == {"authorization": "Key abc"}

    def test_a_deployment_is_a_key_by_its_id_and_cannot_be_changed(self) -> None:
        deployment = one({"headers": {"a": "b"}})

        assert hash(deployment) == hash("east")
        assert {deployment: 1}[one({"headers": {"a": "b"}})] == 1
        assert deployment != one({"headers": {"a": "c"}})
        with pytest.raises(FrozenInstanceError):
            deployment.weight = 2.0  # type: ignore[misc]  # that it is wrong is the point
        with pytest.raises(TypeError):
            deployment.headers["a"] = SecretStr("c")  # type: ignore[index]  # likewise
        with pytest.raises(ValidationError):
            Settings().retries = 3

    def test_loading_again_gives_the_same(self, load_text: Load) -> None:
        text = f"deployments: [{{id: a, model_name: m, base_url: '{URL}'}}]"

        assert load_text(text) == load_text(text)

    def test_the_mapping_that_was_handed_in_is_left_alone(self) -> None:
        data = {"deployments": [entry(api_key="${K}", headers={"X-A": "${K}"})]}

        load(data, K="key")

        assert data == {"deployments": [entry(api_key="${K}", headers={"X-A": "${K}"})]}

    def test_secrets_and_tuples_from_code_are_as_good_as_text_and_lists(self) -> None:
        config = load({"deployments": (entry(api_key=SecretStr("k"), model_name=("a", "b")),)})

        assert config.deployments[0].api_key == SecretStr("k")
        assert config.deployments[0].model_names == ("a", "b")

    def test_a_default_account_is_a_warning_that_names_its_neighbours(self) -> None:
        west = {"id": "west", "model_name": "m", "base_url": URL, "api_key": "other"}
        config = load({"deployments": [entry(), west]})

        assert config.warnings == (
            "<dict>: deployments[1].account: no account is named, so `west` is taken, its id;"
            " `east` has the same base_url: is it the same account?",
        )


class TestPrices:
    def test_one_price_is_that_of_every_size(self) -> None:
        deployment = one({"cost_per_second": "${PRICE}"}, PRICE="0.25")

        assert deployment.cost_per_second == 0.25
        assert deployment.cost("1280x720", 8) == 2.0
        assert deployment.cost(None, 8.0) == 2.0
        assert one({"cost_per_second": 0}).cost(None, 8.0) == 0.0

    def test_a_price_by_size_is_that_of_the_sizes_that_are_written(self) -> None:
        deployment = one({"cost_per_second": {"1280x720": 0.25, "1920x1080": "0.5", "4K": None}})

        assert deployment.cost("1280x720", 4) == 1.0
        assert deployment.cost("1920x1080", 4) == 2.0
        assert deployment.cost("3840x2160", 4) is None
        assert deployment.cost("4K", 4) is None

    def test_of_no_size_the_price_is_known_where_all_sizes_cost_the_same(self) -> None:
        alike = one({"cost_per_second": {"1280x720": 0.25, "720x1280": 0.25}})
        different = one({"cost_per_second": {"1280x720": 0.25, "1920x1080": 0.5}})

        assert alike.cost(None, 4) == 1.0
        assert alike.cost("1920x1080", 4) is None
        assert different.cost(None, 4) is None

    def test_without_a_price_or_a_length_there_is_no_cost(self) -> None:
        assert one().cost("1280x720", 8) is None
        assert one({"cost_per_second": 0.1}).cost("1280x720", None) is None
        assert one({"cost_per_second": {"1x1": 0.1}}).cost("1x1", None) is None

    @pytest.mark.parametrize("asked", ["1280x720", "1280X720", "1280:720"])
    @pytest.mark.parametrize("written", ["1280x720", "1280X720", "1280:720"])
    def test_a_size_is_the_same_however_it_is_written(self, asked: str, written: str) -> None:
        assert one({"cost_per_second": {written: 0.5}}).cost(asked, 2) == 1.0

    def test_no_size_is_unheard_of(self) -> None:
        prices = {"720p": 0.1, "cinema": 0.2, "*": 0.3}

        assert one({"cost_per_second": prices}).cost_per_second == prices

    def test_they_cannot_be_changed(self) -> None:
        deployment = one({"cost_per_second": {"720p": 0.1}})

        with pytest.raises(TypeError):
            deployment.cost_per_second["720p"] = 0.2  # type: ignore[index]  # that is the point
        assert deployment == one({"cost_per_second": {"720p": 0.1}})

    def test_a_wrong_one_is_shown_on_its_line(self, file: Path, refuse_text: Refuse) -> None:
        (problem,) = refuse_text(
            f"deployments:\n- id: a\n  model_name: m\n  base_url: {URL}\n"
            "  cost_per_second:\n    1280x720: 0.1\n    1920:1080: -0.1\n"
        )

        assert problem.startswith(f"{file}:7: deployments[0].cost_per_second.1920:1080: must be")


END = datetime.date(2026, 12, 31)
MIDNIGHT = 1_798_675_200.0  # of that day, at its start, in UTC
DAY = 86_400.0


class TestRetirement:
    @pytest.mark.parametrize("written", ["2026-12-31", END, "${END}"])
    def test_a_date_is_taken_as_text_and_as_a_date(self, written: object) -> None:
        deployment = one({"retires_on": written}, END="2026-12-31")

        assert deployment.retires_on == END

    def test_a_date_of_yaml_is_one(self, load_text: Load) -> None:
        text = f"deployments:\n- id: a\n  model_name: m\n  base_url: {URL}\n  retires_on: "

        for written in ("2026-12-31", "'2026-12-31'", "${END}"):
            config = load_text(text + written, END="2026-12-31")
            assert config.deployments[0].retires_on == END
        for nothing in ("${END:-}", "null", ""):
            assert load_text(text + nothing).deployments[0].retires_on is None

    def test_it_begins_with_its_day_wherever_the_machine_stands(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TZ", "Pacific/Kiritimati")
        time.tzset()
        try:
            assert one({"retires_on": END}).retires_at == MIDNIGHT
        finally:
            monkeypatch.undo()
            time.tzset()
        assert one().retires_at is None
        assert one({"retires_on": "1960-01-01"}).retires_at == -315_619_200.0

    @pytest.mark.parametrize(
        ("left", "words"),
        [
            (30 * DAY + 1, None),
            (30 * DAY, "retires on 2026-12-31, in 30 days: it gets no new work in the last day"),
            (2 * DAY - 1, "retires on 2026-12-31, in 1 day: it gets no new work in the last day"),
            (DAY, "retires on 2026-12-31: it gets no new work any more"),
            (1, "retires on 2026-12-31: it gets no new work any more"),
            (0, "retired on 2026-12-31: only what it owns is served"),
            (-400 * DAY, "retired on 2026-12-31: only what it owns is served"),
        ],
    )
    def test_it_is_told_of_within_thirty_days_and_ever_after(
        self, left: float, words: str | None
    ) -> None:
        told = retirement(one({"retires_on": END}), MIDNIGHT - left)

        assert told is None if words is None else str(told).startswith(words)
        assert retirement(one(), MIDNIGHT - left) is None

    def test_it_is_a_warning_with_its_line_for_those_who_say_what_time_it_is(
        self, file: Path
    ) -> None:
        file.write_text(
            "deployments:\n"
            f"- {{id: a, model_name: m, account: x, base_url: '{URL}'}}\n"
            f"- id: b\n  model_name: m\n  account: x\n  base_url: {URL}\n"
            "  retires_on: 2026-12-31\n"
        )

        def warnings(now: float | None) -> tuple[str, ...]:
            return load_file(file, environ={}, vocabulary=VOCABULARY, now=now).warnings

        assert warnings(MIDNIGHT - 31 * DAY) == warnings(None) == ()
        (before,) = warnings(MIDNIGHT - 7 * DAY)
        assert before.startswith(
            f"{file}:7: deployments[1].retires_on: `b` retires on 2026-12-31, in 7 days: "
        )
        (after,) = warnings(MIDNIGHT)
        assert "`b` retired on 2026-12-31: only what it owns is served" in after


class TestFallbacks:
    def load(self, fallbacks: Any, **environ: str) -> Mapping[str, tuple[str, ...]]:
        deployments = [entry(id=name, model_name=name) for name in ("a", "b", "c")]
        data = {"settings": {"fallbacks": fallbacks}, "deployments": deployments}
        return load(data, **environ).settings.fallbacks

    def test_are_lists_of_groups_and_one_may_stand_for_a_list(self) -> None:
        assert self.load({"a": "b", "b": ["c", "a"]}) == {"a": ("b",), "b": ("c", "a")}

    def test_may_go_round_since_no_chain_is_followed(self) -> None:
        assert self.load({"a": "b", "b": "a"}) == {"a": ("b",), "b": ("a",)}

    def test_that_come_out_empty_are_not_written(self) -> None:
        assert self.load({"a": "${NOT_SET:-}", "b": None, "c": ["${NOT_SET:-}", "a"]}) == {
            "c": ("a",)
        }
        assert self.load({}) == self.load(None) == self.load("${NOT_SET:-}") == {}

    def test_every_variable_that_is_missing_is_told(self) -> None:
        data = {"settings": {"redis_url": "redis://${A_HOST}:${A_PORT}"}, "deployments": [entry()]}

        told = "\n".join(refused(data))

        assert "the variable A_HOST is not set" in told
        assert "the variable A_PORT is not set" in told

    def test_expand_their_variables_in_the_list_and_not_in_the_group(self) -> None:
        assert self.load({"a": ["${OTHER}"]}, OTHER="b") == {"a": ("b",)}
        deployments = [entry(), entry(id="b", model_name="b")]
        (problem,) = refused(
            {"settings": {"fallbacks": {"${GROUP}": "b"}}, "deployments": deployments},
            GROUP="sora-2",
        )
        assert "unknown model group" in problem

    def test_what_is_wrong_with_them_is_told_with_all_that_is_wrong_beside_them(self) -> None:
        problems = refused(
            {
                "settings": {"strategy": "fastest", "fallbacks": {"a": "a", "b": "c"}},
                "deployments": [entry(model_name="a", weight=-1), entry(id="b", model_name="b")],
            }
        )
        places = {problem.split(": ")[1] for problem in problems}
        assert places == {
            "settings.strategy",
            "settings.fallbacks.a",
            "settings.fallbacks.b",
            "deployments[0].weight",
        }

    def test_of_a_deployment_that_cannot_be_read_the_group_may_be_meant(self) -> None:
        deployments = [entry(), entry(id="b", model_name=7)]
        settings = {"fallbacks": {"sora-2": "another"}}
        (problem,) = refused({"settings": settings, "deployments": deployments})
        assert "deployments[1].model_name" in problem

    def test_the_only_group_is_not_told_to_choose_among_none(self) -> None:
        settings = {"fallbacks": {"sora-2": "sora-2"}}
        (problem,) = refused({"settings": settings, "deployments": [entry()]})
        assert problem.endswith("a group is no fallback to itself; there is no other group")

    def test_cannot_be_changed(self) -> None:
        with pytest.raises(TypeError):
            self.load({"a": "b"})["a"] = ("c",)  # type: ignore[index]  # that is the point


class TestVariables:
    @pytest.mark.parametrize(
        ("written", "environ", "value"),
        [
            ("${K}", {"K": "key"}, "key"),
            ("a-${K}-b-${K}", {"K": "k"}, "a-k-b-k"),
            ("${K:-other}", {}, "other"),
            ("${K:-other}", {"K": ""}, "other"),
            ("${K:-other}", {"K": "key"}, "key"),
            ("$${K}", {"K": "key"}, "${K}"),
            ("${K}", {"K": "${L}", "L": "never"}, "${L}"),
            ("$K", {"K": "key"}, "$K"),
        ],
    )
    def test_expand_once(self, written: str, environ: dict[str, str], value: str) -> None:
        key = one({"api_key": written}, **environ).api_key

        assert key is not None
        assert key.get_secret_value() == value

    @pytest.mark.parametrize(
        ("key", "text", "value"),
        [
            ("timeout", "30", 30.0),
            ("weight", "0.5", 0.5),
            ("order", "2", 2),
            ("retry_on_5xx", "true", True),
            ("drop_params", "true", True),
        ],
    )
    def test_convert_to_the_type_of_their_field(self, key: str, text: str, value: object) -> None:
        assert getattr(one({key: "${T}"}, T=text), key) == value

    @pytest.mark.parametrize(
        "key",
        ["account", "model", "provider", "api_key", "weight", "order", "timeout", "retry_on_5xx"],
    )
    @pytest.mark.parametrize("nothing", ["${T:-}", "${EMPTY}", "", None])
    def test_that_come_out_empty_are_not_written(self, key: str, nothing: str | None) -> None:
        bare = entry()
        bare.pop(key, None)

        config = load({"deployments": [bare | {key: nothing}]}, EMPTY="")

        assert config.deployments == load({"deployments": [bare]}).deployments

    def test_that_come_out_empty_leave_no_item(self) -> None:
        settings = {"id_secrets": ["${OLD:-}", "new", ""]}
        deployment = entry(model_name=["${G:-}", "m"], headers={"a": "${H:-}", "b": "c", "d": None})
        config = load({"settings": settings, "deployments": [deployment, "${MORE:-}"]})

        assert config.settings.id_secrets == (SecretStr("new"),)
        assert config.deployments[0].model_names == ("m",)
        assert list(config.deployments[0].headers) == ["b"]

    def test_that_are_missing_are_named_with_line_and_key(self, refuse_text: Refuse) -> None:
        problems = refuse_text(
            "deployments:\n- id: a\n  model_name: m\n  base_url: ${HOST}/v1\n  api_key: ${KEY}\n"
        )

        assert [problem.partition(".yaml:")[2] for problem in problems] == [
            "4: deployments[0].base_url: the variable HOST is not set;"
            " set it, or write ${HOST:-default}",
            "5: deployments[0].api_key: the variable KEY is not set;"
            " set it, or write ${KEY:-default}",
        ]

    @pytest.mark.parametrize("written", ["${", "${1X}", "${X-y}", "${X", "${}", "${A:-${B}}"])
    def test_that_are_malformed_are_refused(self, written: str) -> None:
        assert "written ${NAME}" in refused({"deployments": [entry(model=written)]})[0]

    def test_stand_in_no_keys_and_not_in_what_is_ignored(self) -> None:
        config = load(
            {"x-base": "${NOT_SET}", "accounts": {"${A}": {}}, "deployments": [entry()]}, A="no"
        )

        assert set(config.accounts) == {"acme", "${A}"}

    def test_of_a_missing_account_key_are_told_once(self) -> None:
        problems = refused(
            {
                "accounts": {"a": {"base_url": "${A_URL}", "api_key": "${A_KEY}"}},
                "deployments": [{"id": x, "model_name": "m", "account": "a"} for x in "xyz"],
            }
        )

        assert len(problems) == 2


# What is changed in a good deployment, the key of the problem, and a word of what is said.
WRONG_DEPLOYMENTS: list[tuple[dict[Any, Any], str, str]] = [
    ({"id": None}, "id", "required"),
    ({"id": 7}, "id", "string"),
    ({"id": True}, "id", "string"),
    ({"id": b"east"}, "id", "string"),
    ({"id": "a\nb"}, "id", "control character"),
    ({"id": " a"}, "id", "blank"),
    ({"model_name": None}, "model_name", "required"),
    ({"model_name": []}, "model_name", "at least one"),
    ({"model_name": ["a", "a"]}, "model_name", "different"),
    ({"model_name": ["a", 2]}, "model_name[1]", "string"),
    ({"model_name": {"a": "b"}}, "model_name", "list of"),
    ({"model_name": "a,b"}, "model_name[0]", "comma"),
    ({"account": 3}, "account", "string"),
    ({"model": ["m"]}, "model", "string"),
    ({"provider": "opnai"}, "provider", "did you mean `openai`?"),
    ({"provider": "fal"}, "provider", "azure, openai, runwayml"),
    ({"base_url": None}, "base_url", "required"),
    ({"base_url": 3}, "base_url", "http or https"),
    ({"base_url": "host/v1"}, "base_url", "http or https"),
    ({"base_url": "ftp://host"}, "base_url", "http or https"),
    ({"base_url": "https://"}, "base_url", "host"),
    ({"base_url": "https:///v1"}, "base_url", "host"),
    ({"base_url": "https://host:99999"}, "base_url", "port"),
    ({"base_url": "https://[::1"}, "base_url", "host"),
    ({"base_url": "https://a b"}, "base_url", "blanks"),
    ({"base_url": "https://host\\evil"}, "base_url", "host"),
    ({"base_url": "https://host/#x"}, "base_url", "#fragment"),
    ({"api_key": 12345}, "api_key", "string"),
    ({"api_key": "key\nx-evil: 1"}, "api_key", "one line"),
    ({"api_key": "ключ"}, "api_key", "ASCII"),
    ({"headers": ["a"]}, "headers", "mapping"),
    ({"headers": {"a": 1}}, "headers.a", "strings"),
    ({"headers": {"a b": "c"}}, "headers", "header names"),
    ({"headers": {1: "c"}}, "headers", "header names"),
    ({"headers": {"a": "b\r\nc"}}, "headers.a", "one line"),
    ({"headers": {"a": "b", "A": "c"}}, "headers", "once"),
    ({"weight": -1}, "weight", "0 or more"),
    ({"weight": float("nan")}, "weight", "0 or more"),
    ({"weight": "${INF}"}, "weight", "0 or more"),
    ({"weight": True}, "weight", "number"),
    ({"weight": 1e308}, "weight", "to 1,000,000"),
    ({"weight": 5e-324}, "weight", "0.000001 to"),
    ({"weight": 10**400}, "weight", "number"),
    ({"order": 0}, "order", "1 or more"),
    ({"order": 1.5}, "order", "whole"),
    ({"order": 10**5000}, "order", "number"),
    ({"timeout": 0}, "timeout", "above 0"),
    ({"timeout": "soon"}, "timeout", "seconds"),
    ({"timeout": [1]}, "timeout", "seconds"),
    ({"retry_on_5xx": 1}, "retry_on_5xx", "true or false"),
    ({"retry_on_5xx": "perhaps"}, "retry_on_5xx", "true or false"),
    ({"drop_params": "seconds"}, "drop_params", "true or false"),
    ({"rpm": 0}, "rpm", "1 or more"),
    ({"read_rpm": 1.5}, "read_rpm", "whole"),
    ({"max_parallel_requests": -1}, "max_parallel_requests", "1 or more"),
    ({"max_parallel_jobs": True}, "max_parallel_jobs", "number"),
    ({"max_parallel_jobs": "two"}, "max_parallel_jobs", "whole"),
    ({"max_parallel_jobs": 10**5000}, "max_parallel_jobs", "number"),
    ({"job_ttl": 0}, "job_ttl", "above 0"),
    ({"job_ttl": float("inf")}, "job_ttl", "seconds"),
    ({"cost_per_second": -0.01}, "cost_per_second", "0 or more"),
    ({"cost_per_second": "cheap"}, "cost_per_second", "dollars"),
    ({"cost_per_second": 1e307}, "cost_per_second", "up to 1,000,000"),
    ({"cost_per_second": {"720p": 1e7}}, "cost_per_second.720p", "up to 1,000,000"),
    ({"cost_per_second": True}, "cost_per_second", "number"),
    ({"cost_per_second": "${INF}"}, "cost_per_second", "dollars"),
    ({"cost_per_second": [0.1]}, "cost_per_second", "mapping of sizes"),
    ({"cost_per_second": {}}, "cost_per_second", "at least one size"),
    ({"cost_per_second": {"720p": None}}, "cost_per_second", "at least one size"),
    ({"cost_per_second": {"720p": -1}}, "cost_per_second.720p", "0 or more"),
    ({"cost_per_second": {"720p": 0.1, "1080P": "dear"}}, "cost_per_second.1080P", "dollars"),
    ({"cost_per_second": {720: 0.1}}, "cost_per_second", "quote a number"),
    ({"cost_per_second": {"1x2": 0.1, "1:2": 0.1}}, "cost_per_second", "once"),
    ({"retires_on": "soon"}, "retires_on", "a date such as 2026-12-31"),
    ({"retires_on": "31.12.2026"}, "retires_on", "a date"),
    ({"retires_on": "2026-02-30"}, "retires_on", "a date"),
    ({"retires_on": "0000-01-01"}, "retires_on", "a date"),
    ({"retires_on": "2026-W53"}, "retires_on", "a date"),
    ({"retires_on": "20261231"}, "retires_on", "a date"),
    ({"retires_on": 20261231}, "retires_on", "a date"),
    ({"retires_on": 1798675200.5}, "retires_on", "a date"),
    ({"retires_on": datetime.datetime(2026, 12, 31)}, "retires_on", "a date"),
    ({"retires_on": ["2026-12-31"]}, "retires_on", "a date"),
    ({"operations": "status"}, "operations", "list"),
    ({"operations": []}, "operations", "at least one"),
    ({"operations": ["edt"]}, "operations", "did you mean `edit`?"),
    ({"operations": ["edit"], "provider": "runwayml"}, "operations", "cannot do `edit`"),
    ({"weigth": 1}, "weigth", "did you mean `weight`?"),
    ({"weigth": None}, "weigth", "did you mean `weight`?"),
    ({7: 1}, "7", "unknown key"),
    ({"x-note": 1}, "x-note", "unknown key"),
]

WRONG_SETTINGS: list[tuple[dict[Any, Any], str, str]] = [
    ({"retries": 11}, "retries", "0 to 10"),
    ({"retries": -1}, "retries", "0 to 10"),
    ({"retries": 1.5}, "retries", "0 to 10"),
    ({"retries": False}, "retries", "number"),
    ({"timeout": float("inf")}, "timeout", "seconds"),
    ({"connect_timeout": -5}, "connect_timeout", "above 0"),
    ({"deadline": {}}, "deadline", "seconds"),
    ({"max_wait": -1}, "max_wait", "0 or more"),
    ({"max_wait": float("nan")}, "max_wait", "seconds"),
    ({"redis_url": "localhost:6379"}, "redis_url", "redis://"),
    ({"redis_url": "http://localhost"}, "redis_url", "redis://"),
    ({"redis_url": 6379}, "redis_url", "URL"),
    ({"redis_url": "redis://:pa/ss@h"}, "redis_url", "percent-encoded"),
    ({"redis_url": "redis+sentinel://h:26379"}, "redis_url", "service"),
    ({"namespace": "a b"}, "namespace", "letters"),
    ({"namespace": "{a}"}, "namespace", "letters"),
    ({"namespace": "a\n"}, "namespace", "control character"),
    ({"namespace": "a" * 101}, "namespace", "short"),
    ({"default_model": "sora-3"}, "default_model", "did you mean `sora-2`?"),
    ({"fallbacks": "sora-2"}, "fallbacks", "mapping of model groups"),
    ({"fallbacks": ["sora-2"]}, "fallbacks", "mapping of model groups"),
    ({"fallbacks": {"sora-3": "pro"}}, "fallbacks.sora-3", "did you mean `sora-2`?"),
    ({"fallbacks": {"sora-2": "prö"}}, "fallbacks.sora-2", "did you mean `pro`?"),
    ({"fallbacks": {"sora-2": ["pro", "pr"]}}, "fallbacks.sora-2[1]", "did you mean `pro`?"),
    ({"fallbacks": {"sora-2": "sora-2"}}, "fallbacks.sora-2", "no fallback to itself"),
    ({"fallbacks": {"pro": ["sora-2", "pro"]}}, "fallbacks.pro", "allowed: sora-2"),
    ({"fallbacks": {"sora-2": []}}, "fallbacks.sora-2", "at least one"),
    ({"fallbacks": {"sora-2": ["${NOT_SET:-}"]}}, "fallbacks.sora-2", "at least one"),
    ({"fallbacks": {"sora-2": ["pro", "pro"]}}, "fallbacks.sora-2", "different"),
    ({"fallbacks": {"sora-2": {"pro": 1}}}, "fallbacks.sora-2", "lists"),
    ({"fallbacks": {"sora-2": [7]}}, "fallbacks.sora-2[0]", "lists"),
    ({"fallbacks": {"sora-2": "pro,sora-2"}}, "fallbacks.sora-2[0]", "comma"),
    ({"fallbacks": {7: "pro"}}, "fallbacks", "quote a number"),
    ({"fallbacks": {"sora-2 ": "pro"}}, "fallbacks.sora-2 ", "blank"),
    ({"id_secrets": SECRET}, "id_secrets", "list"),
    ({"id_secrets": [1]}, "id_secrets[0]", "list of strings"),
    ({"accept_unsigned_ids": 0}, "accept_unsigned_ids", "true or false"),
    ({"accept_unsigned_ids": False}, "accept_unsigned_ids", "id_secrets"),
    ({"strategy": "lowest-latencies"}, "strategy", "did you mean `lowest-latency`?"),
    ({"strategy": 3}, "strategy", "name"),
    ({"strategy": "round_robin"}, "strategy", "did you mean `round-robin`?"),
    ({"strategy": "Least-Busy"}, "strategy", "did you mean `least-busy`?"),
    ({"strategy": "fastest"}, "strategy", "allowed: least-busy, lowest-completion, lowest-cost, "),
    ({"strategy": "simple-shuffle"}, "strategy", "here it is `weighted-random`"),
    ({"strategy": "latency-based-routing"}, "strategy", "here it is `lowest-latency`"),
    ({"strategy": "cost-based-routing"}, "strategy", "here it is `lowest-cost`"),
    ({"strategy": "usage-based-routing"}, "strategy", "here it is `least-busy`"),
    ({"strategy": "usage-based-routing-v2"}, "strategy", "here it is `least-busy`"),
    ({"strategy": "provider-budget-routing"}, "strategy", "unknown strategy"),
    ({"timeouts": 3}, "timeouts", "did you mean `timeout`?"),
]

WRONG_WHOLES: list[tuple[Any, str]] = [
    (None, "is empty"),
    ({}, "is empty"),
    ([], "must be a mapping"),
    (3, "must be a mapping"),
    ("text", "must be a mapping"),
    ({"x-only": 1}, "deployments: must be a list"),
    ({"deployments": []}, "deployments: must be a list"),
    ({"deployments": None}, "deployments: must be a list"),
    ({"deployments": {"id": "a"}}, "deployments: must be a list"),
    ({"deployments": "text"}, "deployments: must be a list"),
    ({"deployments": [entry(), None]}, "deployments[1]: must be a mapping"),
    ({"deployments": [entry(), SECRET]}, "deployments[1]: must be a mapping"),
    ({"deployments": [entry()], "settings": [1]}, "settings: must be a mapping"),
    ({"deployments": [entry()], "accounts": [1]}, "accounts: must be a mapping"),
    ({"deployments": [entry()], "accounts": {"a": 1}}, "accounts.a: must be a mapping"),
    ({"deployments": [entry()], "accounts": {1: {}}}, "accounts.1: an account's id"),
    ({"deployments": [entry()], "accounts": {"a": {"weight": 1}}}, "accounts.a.weight: unknown"),
    ({"deployment": [entry()]}, "did you mean `deployments`?"),
    ({"deployments": [entry(), entry()]}, "deployments[1].id: the id `east` is taken"),
]


class TestWhatIsRefused:
    @pytest.mark.parametrize(("changes", "key", "word"), WRONG_DEPLOYMENTS)
    def test_in_a_deployment(self, changes: dict[Any, Any], key: str, word: str) -> None:
        (problem,) = refused({"deployments": [entry() | changes]}, INF="inf")

        assert problem.startswith(f"<dict>: deployments[0].{key}: ")
        assert word in problem

    @pytest.mark.parametrize(("settings", "key", "word"), WRONG_SETTINGS)
    def test_in_the_settings(self, settings: dict[Any, Any], key: str, word: str) -> None:
        deployments = [entry(), entry(id="b", model_name="pro")]
        (problem,) = refused({"settings": settings, "deployments": deployments})

        assert problem.startswith(f"<dict>: settings.{key}: ")
        assert word in problem

    @pytest.mark.parametrize(("data", "text"), WRONG_WHOLES)
    def test_as_a_whole(self, data: Any, text: str) -> None:
        assert text in "\n".join(refused(data))

    def test_a_dict_that_holds_itself(self) -> None:
        data: dict[str, Any] = {"deployments": [entry()]}
        data["settings"] = data

        assert any("nested too deeply" in problem for problem in refused(data))

    @pytest.mark.parametrize("key", ["model_list", "router_settings", "litellm_settings"])
    def test_the_form_of_litellm_beside_ours(self, key: str) -> None:
        problems = refused({key: [1], "deployments": [entry(api_key="os.environ/KEY")]})

        assert f"<dict>: {key}: is LiteLLM's form, beside ours" in problems[1]
        assert "write `${NAME}`" in problems[0]

    @pytest.mark.parametrize(
        "second",
        [
            {"account": "other"},
            {"account": None},
            {"account": "other", "base_url": "HTTPS://HOST:443/v1/"},
            {"account": "other", "headers": {"x-a": "b"}},
        ],
    )
    def test_one_url_and_key_under_two_accounts(self, second: dict[str, Any]) -> None:
        (problem,) = refused({"deployments": [entry(), entry(id="b") | second]})

        assert "deployments[1].account: the same base_url and key" in problem
        assert "`acme`" in problem

    def test_two_listed_accounts_with_one_url_and_key(self) -> None:
        facts = {"base_url": URL, "api_key": "key"}

        (problem,) = refused({"accounts": {"a": facts, "b": facts}, "deployments": [entry()]})
        assert "accounts.b" in problem

    def test_without_a_key_the_headers_tell_accounts_apart(self) -> None:
        def keyless(name: str, url: str) -> dict[str, Any]:
            return {"id": name, "account": name, "model_name": "m", "base_url": url}

        load({"deployments": [keyless("a", "http://a:pw@h"), keyless("b", "http://b:pw@h")]})
        refused({"deployments": [keyless("a", "http://h"), keyless("b", "http://h")]})

    def test_a_fallback_to_an_unknown_group_is_told_with_every_other(self) -> None:
        fallbacks = {"sora-2": ["a", "b", "sora-2"], "c": "sora-2"}
        problems = refused({"settings": {"fallbacks": fallbacks}, "deployments": [entry()]})

        assert [problem.split(": ")[1] for problem in problems] == [
            "settings.fallbacks.sora-2[0]",
            "settings.fallbacks.sora-2[1]",
            "settings.fallbacks.c",
            "settings.fallbacks.sora-2",
        ]

    def test_an_account_that_is_not_listed_and_a_deployment_without_a_url_of_its_own(self) -> None:
        accounts = {"acme": {"api_key": SECRET, "base_url": URL, "max_cost_per_day": 5}}
        data = {"accounts": accounts, "deployments": [{"id": "a", "model_name": "m"}]}

        (problem,) = refused(
            data | {"deployments": [data["deployments"][0] | {"account": "acmee"}]}
        )
        assert problem == (
            "<dict>: deployments[0].account: there is no account `acmee` (did you mean `acme`?);"
            " allowed: acme, or any with a base_url here"
        )
        (problem,) = refused(data | {"deployments": [data["deployments"][0] | {"account": "zzz"}]})
        assert "there is no account `zzz`; allowed: acme, or" in problem
        (problem,) = refused(data)
        assert "deployments[0].base_url: is required" in problem

    def test_an_account_is_not_missed_where_none_is_listed(self) -> None:
        (problem,) = refused({"deployments": [{"id": "a", "model_name": "m", "account": "acme"}]})

        assert "deployments[0].base_url: is required" in problem

    def test_an_account_that_is_not_listed_may_be_meant_and_is_doubted_if_it_is_nearly(
        self,
    ) -> None:
        accounts = {"acme-eu": {"base_url": URL, "rpm": 3}}

        def warnings(account: str) -> tuple[str, ...]:
            return load({"accounts": accounts, "deployments": [entry(account=account)]}).warnings

        assert warnings("other") == warnings("acme-eu") == warnings("acme-eu2") == ()
        (doubt,) = warnings("acme-euu")
        assert doubt == (
            "<dict>: deployments[0].account: `accounts` has no `acme-euu` (did you mean"
            " `acme-eu`?): it is an account of its own, without that one's key and limits"
        )

    def test_everything_at_once(self) -> None:
        problems = refused(
            {
                "setings": {},
                "settings": {"retries": 99, "rpm": 1},
                "accounts": {"a": {"api_key": 1}, "b": 2},
                "deployments": [
                    entry(weight=-1, order=0, provider="x", tpyo=1),
                    entry(base_url="${NOT_SET}"),
                    "text",
                ],
            }
        )

        keys = {problem.split(": ")[1] for problem in problems}
        assert keys == {
            "setings",
            "settings.retries",
            "settings.rpm",
            "accounts.a.api_key",
            "accounts.b",
            *(f"deployments[0].{key}" for key in ("weight", "order", "provider", "tpyo")),
            "deployments[1].id",
            "deployments[1].base_url",
            "deployments[2]",
        }

    def test_every_field_has_words_for_what_it_takes(self) -> None:
        of_proxy = (config_module._ProxyForm, config_module._ProxyKeyForm)
        forms = (Settings, config_module._AccountForm, config_module._DeploymentForm, *of_proxy)

        assert set().union(*(form.model_fields for form in forms)) == set(config_module._ALLOWED)


class TestFiles:
    def test_merge_keys_and_anchors(self, load_text: Load) -> None:
        config = load_text(
            """
x-base: &base {model_name: m, base_url: "https://h", weight: 3, order: 2}
x-more: &more {weight: 4, timeout: 9}
deployments:
  - {<<: [*base, *more], id: a, order: 1}
  - {id: b, api_key: k, <<: *base}
"""
        )

        first, second = config.deployments
        assert (first.weight, first.order, first.timeout) == (3.0, 1, 9.0)
        assert (second.weight, second.order, second.base_url) == (3.0, 2, "https://h")

    def test_a_mistake_is_shown_on_the_line_it_stands_on(
        self, file: Path, refuse_text: Refuse
    ) -> None:
        problems = refuse_text(
            """\
settings:
  retries: 99
x-base: &base
  weight: -1
deployments:
- id: a
  <<: *base
  model_name:
  - m
  - 7
  headers:
    x-a: "${NOT_SET}"
"""
        )

        places = [problem.split(": ")[:2] for problem in problems]
        assert places == [
            [f"{file}:2", "settings.retries"],
            [f"{file}:4", "deployments[0].weight"],
            [f"{file}:6", "deployments[0].base_url"],
            [f"{file}:10", "deployments[0].model_name[1]"],
            [f"{file}:12", "deployments[0].headers.x-a"],
        ]

    def test_a_key_that_stands_twice(self, file: Path, refuse_text: Refuse) -> None:
        problems = refuse_text("settings: {}\ndeployments: 1\nsettings: {retries: 1}\n")

        assert f"{file}:3: settings: the key stands twice; the first is on line 1" in problems

    @pytest.mark.parametrize(
        ("text", "line", "word"),
        [
            ("a: b: c", 1, "column 5"),
            ("a:\n\t- b", 2, "tab"),
            ("a: [1,\nb: 2", 2, "column"),
            ("a: &a\n  b: *a", 1, "contains itself"),
            ("a: &a {<<: *a}", 1, "contains itself"),
            ("a: &a [*a]", 1, "contains itself"),
            ("a: 1\n---\nb: 2", 2, "column"),
            ("a: 1\nb: *nothing", 2, "alias"),
            ("a: 1\nb: !!python/object/apply:os.getcwd []", 2, "tag"),
            ("a: !!binary aGk=", 1, "tag"),
            ("a: !!int x", 1, "its type"),
            ("a: !!int", 1, "its type"),
            ("a: {[1]: 2}", 1, "key"),
            ("a: {<<: 3}", 1, "<<"),
            ("\n\na: \x01", 3, "control character"),
        ],
    )
    def test_broken_yaml(
        self, file: Path, refuse_text: Refuse, text: str, line: int, word: str
    ) -> None:
        (problem,) = refuse_text(text)

        assert problem.startswith(f"{file}:{line}: ")
        assert word in problem

    @pytest.mark.parametrize(
        ("text", "word"),
        [
            ("", "is empty"),
            ("# nothing\n", "is empty"),
            ("just text", "must be a mapping"),
            ("- a", "must be a mapping"),
            ("[\n" * 1000, "nested too deeply"),
            ('a: "\\UFFFFFFFF"', "escape"),
            ("a: " + "9" * 5000, "its type"),
            ("a: " + "x" * (1 << 20), "1 MiB"),
        ],
    )
    def test_of_no_use(self, refuse_text: Refuse, text: str, word: str) -> None:
        assert word in "\n".join(refuse_text(text))

    @pytest.mark.parametrize("content", [b"\x00\x00\x00\x18ftypmp42", b"\xff\xfea\x00", b"a: \xe9"])
    def test_that_are_no_text(self, file: Path, content: bytes) -> None:
        file.write_bytes(content)

        with pytest.raises(ConfigError, match=r"not UTF-8 text|binary"):
            load_file(file, environ={}, vocabulary=VOCABULARY)

    @pytest.mark.parametrize(
        ("name", "word"), [("nowhere.yaml", "no such file"), (".", "directory"), ("\0", "name")]
    )
    def test_that_are_not_there(self, tmp_path: Path, name: str, word: str) -> None:
        with pytest.raises(ConfigError, match=word):
            load_file(f"{tmp_path}/{name}", environ={}, vocabulary=VOCABULARY)

    @pytest.mark.parametrize("merge", ["[*{0}, *{0}]", "{{<<: [*{0}, *{0}]}}"])
    def test_that_grow_beyond_measure_are_refused_soon(
        self, refuse_text: Refuse, merge: str
    ) -> None:
        lines = ["x0: &x0 {a: 1}"]
        lines += [f"x{n}: &x{n} {merge.format(f'x{n - 1}')}" for n in range(1, 60)]
        start = time.perf_counter()

        refuse_text("\n".join(lines))

        assert time.perf_counter() - start < 5

    def test_a_date_and_a_lone_equals_sign_are_text(self, load_text: Load) -> None:
        config = load_text(f"deployments: [{{id: 2026-01-31, model_name: =, base_url: '{URL}'}}]")

        assert config.deployments[0].id == "2026-01-31"

    def test_a_byte_order_mark_is_no_content(self, load_text: Load) -> None:
        text = f"\ufeffdeployments: [{{id: a, model_name: m, base_url: '{URL}'}}]"

        assert load_text(text).deployments[0].id == "a"

    def test_the_one_at_the_top_level_works_as_it_stands(self) -> None:
        path = Path(__file__).parent.parent / "deployments.yaml"

        config = load_file(path, environ={}, vocabulary=VOCABULARY)
        assert [d.id for d in config.groups["sora-2"]] == ["east", "west", "west-reserve"]
        assert config.deployments[0].base_url == "http://127.0.0.1:4010/v1"
        assert config.warnings == ()

        real = load_file(path, environ={"EAST_URL": URL}, vocabulary=VOCABULARY)
        assert real.deployments[0].base_url == URL

    def test_the_one_at_the_top_level_explains_every_key(self) -> None:
        text = (Path(__file__).parent.parent / "deployments.yaml").read_text(encoding="utf-8")

        assert not [key for key in config_module._ALLOWED if f"{key}:" not in text]


# Each holds SECRET where some mistake brings it near a message.
LEAKS: list[str] = [
    "api_key: [{0}]",
    "api_key: {{{0}: x}}",
    "api_key: &{0} [1]",
    "api_key: *{0}",
    "api_key: !{0} x",
    'api_key: "{0}',
    "api_key: '{0}\n  model: x: y",
    "api_key: {0}: x",
    "api_key: {0}\n  api_key: {0}",
    "api_key:{0}",
    "api_kye: {0}",
    "{{api_key:{0}, x: 1}}: 2",
    "headers: {0}",
    "headers: [{0}]",
    "headers: {{authorization:{0}}}",
    "headers: {{a: [{0}]}}",
    'headers: {{a: "{0}\\n"}}',
    'headers: {{a: "{0}ä"}}',
    "base_url: ftp://u:{0}@h",
    "base_url: https://u:{0}@[h",
    "base_url: https://u:{0}@h:port",
    "base_url: https://u:{0}@",
    "base_url: u:{0}@h",
    "base_url: [https://u:{0}@h]",
    "provider: {0}\n  api_key: {0}",
    "provider: ${{KEY}}",
    "operations: [{0}]\n  headers: {{a: {0}}}",
    "id: {0}\n  api_key: {0}\n  weight: -1\n- {{id: {0}}}",
    "weight: {0}",
    "timeout: {0}",
    "retry_on_5xx: {0}",
    "rpm: {0}",
    "job_ttl: {0}",
    "max_parallel_jobs: [{0}]",
    "cost_per_second: {0}",
    "cost_per_second: {{720p: {0}}}",
    "retires_on: {0}",
    "{0}",
    "[{0}, x]",
]


class TestSecrets:
    @pytest.mark.parametrize("text", LEAKS)
    @pytest.mark.parametrize("flow", [False, True])
    def test_are_in_no_message(self, refuse_text: Refuse, text: str, flow: bool) -> None:
        body = text.format(SECRET)
        start = "deployments:\n- {model_name: m, " if flow else "deployments:\n- model_name: m\n  "
        problems = refuse_text(start + body + (" }\n" if flow else "\n"), KEY=SECRET)

        assert problems
        assert SECRET not in "\n".join(problems)

    @pytest.mark.parametrize("value", [SECRET, [[SECRET]], {SECRET: 1}, [{"a": SECRET}]])
    def test_of_the_settings_are_in_no_message(self, value: object) -> None:
        data = {"settings": {"id_secrets": value}, "deployments": [entry()]}

        assert SECRET not in "\n".join(refused(data))

    @pytest.mark.parametrize(
        "url",
        [
            f"redis:/u:{SECRET}@h",
            f"http://u:{SECRET}@h",
            f"{SECRET}",
            f"redis+sentinals://:{SECRET}@h/0",
            [f"redis://:{SECRET}@h"],
            {f"redis://:{SECRET}@h": 1},
        ],
    )
    def test_of_a_redis_url_are_in_no_message(self, url: object) -> None:
        (problem,) = refused({"settings": {"redis_url": url}, "deployments": [entry()]})

        assert "settings.redis_url" in problem
        assert SECRET not in problem

    def test_a_name_stays_a_name_when_a_variable_has_it_as_its_value(self) -> None:
        first = entry(model="${MODEL}", base_url="https://${REGION}.host/v1")
        data = {
            "settings": {"default_model": "sora-22"},
            "accounts": {"east-1": {"rpm": 0}},
            "deployments": [first, entry(model_name=["sora-2", "east-1"])],
        }

        problems = "\n".join(refused(data, MODEL="sora-2", REGION="east"))

        assert "the id `east` is taken" in problems
        assert "accounts.east-1.rpm: " in problems
        assert (
            "unknown model group `***` (did you mean `sora-2`?); allowed: east-1, sora-2"
            in problems
        )

    @pytest.mark.parametrize(
        "place",
        [
            {"api_key": "${KEY}"},
            {"headers": {"x": "Bearer ${KEY}"}},
            {"base_url": "https://u:${KEY}@h"},
            {"base_url": "https://h/v1?code=${KEY}"},
            {"model": "m", "api_key": SECRET},
        ],
    )
    def test_stay_secret_where_a_name_is_the_same(self, place: dict[str, Any]) -> None:
        first = {"id": SECRET, "model_name": "m", "base_url": URL} | place
        other = {"id": SECRET, "model_name": "m", "account": "a", "base_url": URL}

        problems = "\n".join(refused({"deployments": [first, other]}, KEY=SECRET))

        assert "the id `***` is taken" in problems
        assert SECRET not in problems

    def test_of_a_variable_that_was_meant_as_a_name_are_in_no_list_of_names(self) -> None:
        settings = {"default_model": "sora"}
        data = {"settings": settings, "deployments": [entry(model_name="${KEY}", api_key="k")]}

        (problem,) = refused(data, KEY=SECRET)

        assert problem.endswith("unknown model group `sora`; allowed: ***")

    def test_are_in_no_repr_and_no_warning(self) -> None:
        config = load(
            {
                "settings": {"id_secrets": [SECRET], "redis_url": f"redis://u:{SECRET}@h/0"},
                "accounts": {"a": {"api_key": SECRET, "base_url": f"https://u:{SECRET}@h"}},
                "deployments": [
                    {"id": "a", "model_name": "m", "headers": {"x": SECRET}},
                    {"id": "b", "model_name": "m", "base_url": f"https://u:{SECRET}@h"},
                ],
            }
        )
        text = repr(config) + str(config) + "".join(config.warnings)

        assert config.warnings
        assert SECRET not in text
        assert base64.b64encode(f"u:{SECRET}".encode()).decode() not in text
        assert SECRET not in str(config.settings.model_dump())

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("Incorrect API key provided: key-12.", "Incorrect API key provided: ***."),
            ("key-12 key-12-long", "*** ***"),
            ("user:pass word", "*** word"),
            ("wrong password: pass", "wrong ***word: ***"),
            ("Bearer token-7 / token-7", "*** / ***"),
            ("abc", "abc"),
            ("", ""),
        ],
    )
    def test_are_blotted_out_of_a_provider_s_words(self, text: str, shown: str) -> None:
        headers = {"x-a": "key-12-long", "x-b": "abc", "proxy-authorization": "Bearer token-7"}
        url = "https://user:pass@host"
        deployment = one({"api_key": "key-12", "headers": headers, "base_url": url})

        assert deployment.redact(text) == shown


SEED_TEXT = f"""
settings: {{strategy: lowest-latency, retries: 2, id_secrets: ["${{S:-}}", b]}}
accounts:
  a: {{api_key: "${{K:-{SECRET}}}", base_url: "https://u:{SECRET}@h/v1"}}
x-base: &base {{model_name: [m, n], weight: 1.5}}
deployments:
  - <<: *base
    id: one
    account: a
    headers: {{X-A: "{SECRET}"}}
    operations: [generation, status]
  - id: two
    model_name: m
    base_url: http://[::1]:4010/v1?x=y
    timeout: 3
"""


def mutated(rng: random.Random) -> str:
    text = SEED_TEXT
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(text))
        end = at + rng.choice((0, 0, 1, 3, 20))
        scrap = rng.randrange(len(text))
        bits = ["", *"\t\n:-[]{}&*!|>'\"%@#,?${", "<<: *base", "? ", "\x85", "~", "é", "\U0001f600"]
        bits += [
            text[scrap : scrap + rng.randint(1, 30)],
            "- ",
            "!!set ",
            "&x ",
            "*base",
            "0x",
            "${",
        ]
        text = text[:at] + rng.choice(bits) + text[end:]
    return text


def test_whatever_is_written_only_a_config_error_is_raised(load_text: Load) -> None:
    rng = random.Random(2)
    refusals: list[ConfigError] = []
    for _ in range(150):
        try:
            load_text(mutated(rng))
        except ConfigError as exc:
            refusals.append(exc)
    assert len(refusals) > 75
    # A mutation may cut the secret in two; as long as it is whole, it must not show.
    assert not [exc for exc in refusals if SECRET in str(exc)]
    assert not [exc for exc in refusals if str(exc).count("\n") != len(exc.problems) - 1]


def test_whatever_is_handed_in_only_a_config_error_is_raised() -> None:
    rng = random.Random(3)
    odd: list[Any] = [None, True, -1, 0, 1e308, float("nan"), "", "x", b"x", [], {}, [None], {1: 2}]
    odd += [{"a": "b"}, "${", object(), "\ud800", SecretStr("s"), ("a",), {"id"}, 10**30]
    for _ in range(800):
        deployment = entry(headers={"a": "b"}, operations=["status"], weight=1, order=1, timeout=1)
        data: dict[Any, Any] = {"settings": {"retries": 1}, "accounts": {"acme": {"api_key": "k"}}}
        data["deployments"] = [deployment]
        for place in rng.sample([data, data["settings"], data["accounts"]["acme"], deployment], 2):
            place[rng.choice([*place, "rpm", "x"])] = rng.choice(odd)
        try:
            load(data)
        except ConfigError:
            continue
