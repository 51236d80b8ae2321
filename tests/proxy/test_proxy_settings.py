"""The section `proxy`: who may call, and what is refused of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from shared_parts import fleet

from router.config import Config, load_data, load_file
from router.errors import ConfigError
from router.proxy_settings import ProxySettings
from router.router import VOCABULARY

DIGEST = hashlib.sha256(b"sk-web-1").hexdigest()


def load(proxy: object, environ: dict[str, str] | None = None) -> Config:
    data = {**fleet("http://host/v1"), "proxy": proxy}
    return load_data(data, environ=environ or {}, vocabulary=VOCABULARY)


def problems(proxy: object, environ: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(proxy, environ)
    return caught.value.problems


def test_without_the_section_there_are_no_keys() -> None:
    assert load(None).proxy == ProxySettings()
    assert load({}).proxy == ProxySettings()


def test_of_a_key_only_its_digest_is_kept() -> None:
    plain = load({"keys": [{"name": "web", "key": "${WEB}"}]}, {"WEB": "sk-web-1"}).proxy
    digested = load({"keys": [{"name": "web", "sha256": DIGEST.upper()}]}).proxy

    assert plain == digested
    assert plain.keys[0].sha256.get_secret_value() == DIGEST
    assert "sk-web-1" not in repr(plain)
    assert DIGEST not in repr(plain)


def test_all_that_may_be_written() -> None:
    proxy = load(
        {
            "keys": [
                {"name": "web", "key": "a", "models": "sora-2", "rpm": "60"},
                "",
                {"name": "ops", "sha256": DIGEST, "operator": True},
            ],
            "max_body": 1000,
            "body_timeout": 2.5,
            "extra_fields": ["quality", "seed"],
        }
    ).proxy

    web, ops = proxy.keys
    assert (web.name, web.models, web.rpm, web.operator) == ("web", ("sora-2",), 60, False)
    assert (ops.name, ops.models, ops.rpm, ops.operator) == ("ops", None, None, True)
    assert (proxy.max_body, proxy.body_timeout) == (1000, 2.5)
    assert proxy.extra_fields == ("quality", "seed")


@pytest.mark.parametrize(
    ("proxy", "told"),
    [
        ([], "proxy: must be a mapping"),
        ({"key": 1}, "proxy.key: unknown key `key` (did you mean `keys`?)"),
        ({"keys": {}}, "proxy.keys: must be a list of keys"),
        ({"keys": ["sk-secret"]}, "proxy.keys[0]: must be a mapping"),
        ({"keys": [{"key": "a"}]}, "proxy.keys[0].name: is required"),
        ({"keys": [{"name": "a"}]}, "proxy.keys[0].key: is required: either a key, or its sha256"),
        (
            {"keys": [{"name": "a", "key": "b", "sha256": DIGEST}]},
            "proxy.keys[0].key: is required: either a key, or its sha256, and not both",
        ),
        ({"keys": [{"name": "a", "sha256": "abc"}]}, "sha256: must be 64 hexadecimal digits"),
        ({"keys": [{"name": "a", "key": "a\nb"}]}, "proxy.keys[0].key: must be visible ASCII"),
        ({"keys": [{"name": "a", "key": "b", "rpm": 0}]}, "rpm: must be a whole number, 1 or more"),
        ({"keys": [{"name": "a", "key": "b", "operator": 1}]}, "operator: must be true or false"),
        ({"keys": [{"name": "a", "key": "b", "models": []}]}, "proxy.keys[0].models: "),
        (
            {"keys": [{"name": "a", "key": "b", "models": ["sora-2", "sora-3"]}]},
            "proxy.keys[0].models[1]: unknown model group `sora-3` (did you mean `sora-2`?)",
        ),
        (
            {"keys": [{"name": "a", "key": "b"}, {"name": "a", "key": "c"}]},
            "proxy.keys[1].name: the name `a` is taken: it is proxy.keys[0]'s; names are unique",
        ),
        (
            {"keys": [{"name": "a", "key": "sk-web-1"}, {"name": "b", "sha256": DIGEST}]},
            "proxy.keys[1].key: the same key is proxy.keys[0]'s; each name has its own",
        ),
        ({"max_body": 0}, "proxy.max_body: must be a whole number of bytes"),
        ({"extra_fields": {}}, "proxy.extra_fields: must be a list of names of fields"),
        ({"extra_fields": ["a", "a"]}, "proxy.extra_fields"),
        ({"body_timeout": -1}, "proxy.body_timeout: must be a number of seconds above 0"),
    ],
)
def test_what_is_refused_is_told_with_its_place(proxy: object, told: str) -> None:
    assert any(told in problem for problem in problems(proxy)), problems(proxy)


def test_a_key_stands_in_no_message() -> None:
    entry = {"name": "${KEY}", "key": "${KEY}", "sha256": "x-${KEY}"}

    said = "\n".join(problems({"keys": [entry, {**entry, "rpm": "${KEY}"}]}, {"KEY": "hush-hush"}))

    assert "hush-hush" not in said


def test_problems_have_their_line(tmp_path: Path) -> None:
    path = tmp_path / "deployments.yaml"
    path.write_text(
        "deployments:\n"
        "  - {id: a, model_name: m, base_url: http://h/v1}\n"
        "proxy:\n"
        "  keys:\n"
        "    - name: web\n"
        "      key: one\n"
        "      rpm: many\n",
        encoding="utf-8",
    )

    with pytest.raises(ConfigError) as caught:
        load_file(path, environ={}, vocabulary=VOCABULARY)

    (problem,) = caught.value.problems
    assert problem.startswith(f"{path}:7: proxy.keys[0].rpm: ")


def test_an_unset_variable_is_told() -> None:
    (problem,) = problems({"keys": [{"name": "web", "key": "${WEB_KEY}"}]})

    assert "WEB_KEY is not set" in problem
