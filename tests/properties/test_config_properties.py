"""Configurations, for all that can be written: loaded whole, or refused with all mistakes named.

A deployment that is misread sends paid jobs to the wrong place, and a message about a configuration
is made while its secrets lie open beside it. So the properties are: no text and no value ends in
anything but a `Config` or a `ConfigError`; each mistake is told where it stands; no secret is told.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, example, given
from hypothesis import strategies as st
from pydantic import SecretStr

from router.config import Config, Deployment, ProviderFacts, Vocabulary, load_data, load_file
from router.errors import ConfigError
from router.types import Operation

VOCABULARY = Vocabulary(
    providers={
        "openai": ProviderFacts(frozenset(Operation), "openai"),
        "runwayml": ProviderFacts(
            frozenset({Operation.GENERATION, Operation.STATUS, Operation.CONTENT}), "runwayml"
        ),
    },
    strategies=("lowest-completion", "lowest-latency", "weighted-random"),
)
URL = "https://host/v1"

Place = tuple[str | int, ...]


def load(data: Any, environ: Mapping[str, str] | None = None) -> Config:
    return load_data(data, environ=environ or {}, vocabulary=VOCABULARY)


def refused(data: Any, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(data, environ)
    assert str(caught.value) == "\n".join(caught.value.problems)
    assert caught.value.problems
    return caught.value.problems


def places_in(problems: tuple[str, ...]) -> set[str]:
    """The keys that the problems name: `<dict>: settings.retries: must be …`."""
    return {problem.split(": ")[1] for problem in problems}


def key_of(place: Place) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    return "".join(steps).removeprefix(".")


def put(data: Any, place: Place, value: Any) -> None:
    for step in place[:-1]:
        data = data[step]
    data[place[-1]] = value


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "deployments.yaml"


def load_text(file: Path, text: str | bytes, environ: Mapping[str, str] | None = None) -> Config:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_file(file, environ=environ or {}, vocabulary=VOCABULARY)


# What is right

NAMES = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./ üß東🎬"
names = st.text(NAMES, min_size=1, max_size=12).filter(
    lambda name: name == name.strip() and not name.startswith("os.environ/")
)
# What a header or a key may hold, a `${` apart, which is a variable's.
VISIBLE = "".join(map(chr, range(0x21, 0x7F)))
# No small letters: a key that has a syllable in common with a secret is masked with it.
LOUD = "".join(letter for letter in VISIBLE if not letter.islower() and letter != "_")
sendable = st.text(LOUD, min_size=1, max_size=20).filter(lambda text: "${" not in text)
header_names = st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,10}", fullmatch=True)
headers = st.dictionaries(header_names, sendable, max_size=3).filter(
    lambda drawn: len({name.lower() for name in drawn}) == len(drawn)
)
seconds = st.floats(0.001, 1e6) | st.integers(1, 10**6)
prices = st.floats(0, 1e3) | st.integers(0, 9)
# Each in one spelling, so that no two of them are the same size.
sizes = st.from_regex(r"[1-9][0-9]{0,3}x[1-9][0-9]{0,3}|[1-9][0-9]{0,3}p", fullmatch=True)
hosts = st.from_regex(r"[a-z][a-z0-9]{0,8}(\.[a-z]{2,5})?", fullmatch=True)
url_paths = st.lists(st.text("abcdefv123-", min_size=1, max_size=6), max_size=3).map("/".join)
base_urls = st.builds(
    "{}://{}{}/{}{}".format,
    st.sampled_from(["http", "https"]),
    hosts,
    st.sampled_from(["", ":8080", ":65535"]),
    url_paths,
    st.sampled_from(["", "?api-version=preview"]),
)


def some(fields: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


SETTINGS = {
    "strategy": st.sampled_from(sorted(VOCABULARY.strategies)),
    "connect_timeout": seconds,
    "timeout": seconds,
    "deadline": seconds,
    "retries": st.integers(0, 10),
    "id_secrets": st.lists(sendable, max_size=2),
}
OPTIONAL = {
    "provider": st.just("openai"),
    "model": names,
    "api_key": sendable,
    "headers": headers,
    "weight": st.floats(1e-6, 1e6) | st.integers(0, 100),
    "order": st.integers(1, 9),
    "operations": st.lists(st.sampled_from([str(o) for o in Operation]), min_size=1, max_size=4),
    "timeout": seconds,
    "retry_on_5xx": st.booleans(),
    "drop_params": st.booleans(),
    "cost_per_second": prices | st.dictionaries(sizes, prices, min_size=1, max_size=3),
    "retires_on": st.dates() | st.dates().map(str),
}


@st.composite
def good(draw: st.DrawFn, most: int = 3) -> dict[str, Any]:
    """A configuration that loads. Each deployment is its own account, at a host of its own."""
    ids = draw(st.lists(names, min_size=1, max_size=most, unique=True))
    deployments = []
    for number, name in enumerate(ids):
        required = {
            "id": name,
            "model_name": draw(names | st.lists(names, min_size=1, max_size=3, unique=True)),
            "base_url": draw(base_urls).replace("://", f"://d{number}."),
        }
        deployments.append(required | draw(some(OPTIONAL)))
    return {"settings": draw(some(SETTINGS)), "deployments": deployments}


@given(good())
def test_what_is_right_is_loaded_as_it_stands(data: dict[str, Any]) -> None:
    config = load(data)

    assert [one.id for one in config.deployments] == [d["id"] for d in data["deployments"]]
    for one, written in zip(config.deployments, data["deployments"], strict=True):
        model_name = written["model_name"]
        assert one.model_names == tuple([model_name] if isinstance(model_name, str) else model_name)
        assert one.model == written.get("model", one.model_names[0])
        assert one.weight == written.get("weight", 1)
        assert one.order == written.get("order", 1)
        assert one.timeout == written.get("timeout")
        assert one.retry_on_5xx is written.get("retry_on_5xx", False)
        assert one.drop_params is written.get("drop_params", False)
        assert one.cost_per_second == written.get("cost_per_second")
        assert str(one.retires_on) == str(written.get("retires_on"))
        assert one.operations == set(written.get("operations", Operation))
        assert plain(one.api_key) == written.get("api_key")
        assert {name: plain(value) for name, value in one.headers.items()} == {
            name.lower(): value for name, value in written.get("headers", {}).items()
        }
    for key, value in data["settings"].items():
        if key != "id_secrets":
            assert getattr(config.settings, key) == value


def plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()


@given(good())
def test_loading_again_gives_the_same_and_leaves_what_was_handed_in(data: dict[str, Any]) -> None:
    before = copy.deepcopy(data)

    assert load(data) == load(data)
    assert data == before


@given(data=good(), flow=st.booleans(), unicode=st.booleans())
def test_a_file_says_what_the_same_dict_says(
    file: Path, data: dict[str, Any], flow: bool, unicode: bool
) -> None:
    text = yaml.safe_dump(data, default_flow_style=flow, allow_unicode=unicode)
    from_file = load_text(file, text)
    from_dict = load(data)

    assert from_file.settings == from_dict.settings
    assert from_file.deployments == from_dict.deployments
    assert from_file.accounts == from_dict.accounts


def written_out(one: Deployment) -> dict[str, Any]:
    """A deployment with everything said that could be left out."""
    return {
        "id": one.id,
        "model_name": list(one.model_names),
        "account": one.account,
        "provider": one.provider,
        "model": one.model,
        "base_url": one.base_url,
        "headers": {name: plain(value) for name, value in one.headers.items()},
        "api_key": plain(one.api_key),
        "weight": one.weight,
        "order": one.order,
        "operations": sorted(one.operations),
        "timeout": one.timeout,
        "retry_on_5xx": one.retry_on_5xx,
        "drop_params": one.drop_params,
        "cost_per_second": one.cost_per_second and plain_prices(one.cost_per_second),
        "retires_on": one.retires_on,
    }


def plain_prices(prices: float | Mapping[str, float]) -> float | dict[str, float]:
    return dict(prices) if isinstance(prices, Mapping) else prices


@given(good(), st.booleans(), st.sampled_from(["", "user@", "us%40er:pa%3Ass@"]))
def test_what_was_understood_means_the_same_when_written_out(
    data: dict[str, Any], inherit: bool, userinfo: str
) -> None:
    data = copy.deepcopy(data)
    first = data["deployments"][0]
    first["base_url"] = first["base_url"].replace("://", f"://{userinfo}")
    if inherit:
        first["account"] = "the account"
        facts = {key: first.pop(key) for key in ("base_url", "api_key") if key in first}
        data["accounts"] = {"the account": facts}
    config = load(data)
    assume(not any("${" in str(written_out(one)) for one in config.deployments))

    again = load({"deployments": [written_out(one) for one in config.deployments]})

    assert [written_out(one) for one in again.deployments] == [
        written_out(one) for one in config.deployments
    ]
    assert [one.operations for one in again.deployments] == [
        one.operations for one in config.deployments
    ]


@given(good(), st.data())
def test_what_begins_with_x_is_not_read_at_all(data: dict[str, Any], more: st.DataObject) -> None:
    key = "x-" + more.draw(st.text(max_size=8))
    ignored = more.draw(anything | st.just("${NOT_SET}") | st.just(["os.environ/KEY"]))

    assert load(data | {key: ignored}).deployments == load(data).deployments


# Variables

VARIABLE = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)
# Whatever stands in an environment: YAML's own signs and other variables are text there.
values = st.text(VISIBLE, max_size=12) | st.sampled_from(
    ["${B}", "${B:-x}", "$${B}", "a: b", "[1, 2]", "&x *y", "'\"", "# no", "{", "}", "- a", "~"]
)
defaults = st.text(VISIBLE, max_size=8).filter(lambda text: not {"{", "}"} & set(text))


def entry(**more: Any) -> dict[str, Any]:
    return {"id": "a", "model_name": "m", "base_url": URL} | more


def header(written: str, environ: Mapping[str, str]) -> str | None:
    """What a header says that is written so; `None` where it was not written, in effect."""
    config = load({"deployments": [entry(headers={"x": written})]}, environ)
    return plain(config.deployments[0].headers.get("x"))


@given(VARIABLE, st.none() | values, defaults)
def test_a_variable_is_its_value_or_where_that_is_nothing_its_default(
    name: str, value: str | None, default: str
) -> None:
    environ = {} if value is None else {name: value}

    expected = value or default
    assume(expected == expected.strip())
    assert header(f"${{{name}:-{default}}}", environ) == (expected or None)
    if value is not None:
        assert header(f"${{{name}}}", environ) == (value or None)


@given(
    st.lists(st.tuples(st.text(VISIBLE.replace("$", ""), max_size=5), VARIABLE, values), max_size=4)
)
def test_variables_stand_anywhere_in_a_string_and_are_replaced_once(
    pieces: list[tuple[str, str, str]],
) -> None:
    environ = {name: value for _, name, value in pieces}
    written = "<" + "".join(f"{text}${{{name}}}" for text, name, _ in pieces) + ">"

    assert header(written, environ) == (
        "<" + "".join(text + environ[name] for text, name, _ in pieces) + ">"
    )


@given(st.text(VISIBLE, min_size=1, max_size=20) | values.filter(bool))
def test_any_text_can_be_written_with_its_braces_escaped(text: str) -> None:
    assume(not text.startswith("os.environ/"))

    assert header(text.replace("${", "$${"), {}) == text


@given(value=st.text(VISIBLE + " ", min_size=1, max_size=20).filter(lambda v: v == v.strip()))
def test_a_variable_in_a_file_is_never_read_as_yaml(file: Path, value: str) -> None:
    text = f"deployments:\n- id: a\n  model_name: m\n  base_url: {URL}\n  api_key: "
    for written in ("${KEY}", '"${KEY}"', "'${KEY}'", "|-\n    ${KEY}"):
        (one,) = load_text(file, text + written, {"KEY": value}).deployments
        assert plain(one.api_key) == value


@given(good(), st.data())
def test_a_value_from_a_variable_is_converted_to_the_type_of_its_field(
    data: dict[str, Any], more: st.DataObject
) -> None:
    place = more.draw(st.sampled_from(sorted(numbers_and_flags(data), key=str) or [()]))
    assume(place)
    value = at(data, place)
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    changed = copy.deepcopy(data)
    put(changed, place, "${THERE:-}" if more.draw(st.booleans()) else f"${{NOT_THERE:-{text}}}")

    assert load(changed, {"THERE": text}) == load(data)


def at(data: Any, place: Place) -> Any:
    for step in place:
        data = data[step]
    return data


def leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*place, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*place, index))
    else:
        yield place, value


def numbers_and_flags(data: Any) -> Iterator[Place]:
    return (place for place, value in leaves(data) if isinstance(value, bool | int | float))


@given(good(), st.sampled_from(["${NOT_SET:-}", "${EMPTY}", "${EMPTY:-}", ""]), st.data())
def test_what_expands_to_nothing_counts_as_not_written(
    data: dict[str, Any], nothing: str, more: st.DataObject
) -> None:
    environ = {"EMPTY": ""}
    section, fields = more.draw(
        st.sampled_from([(data["settings"], SETTINGS), (data["deployments"][0], OPTIONAL)])
    )
    key = more.draw(st.sampled_from(sorted(fields)))
    section.pop(key, None)
    without = load(data, environ)
    section[key] = nothing

    assert load(data, environ) == without


@given(good(), st.sampled_from(["id", "model_name", "base_url"]), st.data())
def test_a_required_key_that_expands_to_nothing_is_missing(
    data: dict[str, Any], key: str, more: st.DataObject
) -> None:
    index = more.draw(st.integers(0, len(data["deployments"]) - 1))
    data["deployments"][index][key] = "${NOT_SET:-}"

    (problem,) = refused(data)
    assert problem.startswith(f"<dict>: deployments[{index}].{key}: is required")


@given(good(), VARIABLE, st.data())
def test_a_variable_that_is_missing_is_named_with_its_place(
    data: dict[str, Any], name: str, more: st.DataObject
) -> None:
    texts = [place for place, value in leaves(data) if isinstance(value, str)]
    place = more.draw(st.sampled_from(texts))
    put(data, place, more.draw(st.sampled_from(["${%s}", "a${%s}b", "${SET}${%s}"])) % name)
    assume(name != "SET")

    told = [problem.split(": ", 2) for problem in refused(data, {"SET": "is set"})]
    assert name in next(text for _, key, text in told if key == key_of(place))


@given(good(), VARIABLE, st.text(VISIBLE, max_size=5))
def test_only_values_are_expanded_never_keys(data: dict[str, Any], name: str, value: str) -> None:
    data["deployments"][0][f"${{{name}}}"] = "x"

    refused(data, {name: "model"})
    refused(data, {name: value})


# What is wrong, whatever it is

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["${", "${A}", "${A:-", "os.environ/A", "https://h", "<<", "x-a", "\0", "=="]),
)
keys = st.text(max_size=8) | st.sampled_from(
    ["settings", "accounts", "deployments", "id", "model_name", "base_url", "api_key", "headers"]
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)
# What YAML has no word for, and a dict may hold nonetheless.
unheard_of = st.one_of(
    anything,
    st.sampled_from([b"x", {"a"}, ("a", 1), 10**4000, SecretStr("s"), "\ud800", object(), {1: 2}]),
    st.dictionaries(st.none() | st.integers() | st.booleans() | st.tuples(), scalars, max_size=2),
)


def nodes(value: Any, place: Place = ()) -> Iterator[Place]:
    """Every place but the root."""
    if place:
        yield place
    if isinstance(value, dict | list):
        for step in list(value) if isinstance(value, dict) else range(len(value)):
            yield from nodes(value[step], (*place, step))


@st.composite
def broken(draw: st.DrawFn, data: Any, junk: st.SearchStrategy[Any] = unheard_of) -> Any:
    """The configuration after some changes to its tree, most of which make it wrong."""
    data = copy.deepcopy(data)
    for _ in range(draw(st.integers(1, 3))):
        places = sorted(nodes(data), key=str)
        if not places:
            break
        place = draw(st.sampled_from(places))
        parent, step = at(data, place[:-1]), place[-1]
        change = draw(st.sampled_from(["replace", "wrap", "delete", "rename", "add", "repeat"]))
        if change == "replace":
            parent[step] = draw(junk)
        elif change == "wrap":
            parent[step] = draw(st.sampled_from([[parent[step]], {"a": parent[step]}]))
        elif change == "delete":
            del parent[step]
        elif isinstance(parent, list):
            parent.append(copy.deepcopy(parent[step]))
        elif change == "rename":
            parent[draw(keys)] = parent.pop(step)
        else:
            parent[draw(keys)] = draw(junk) if change == "add" else copy.deepcopy(parent[step])
    return data


def ended(loading: Callable[[], Config]) -> Config | ConfigError:
    """How it ended: in one of the two ways that there are."""
    try:
        return loading()
    except ConfigError as exc:
        return exc


def assert_whole(end: Config | ConfigError) -> None:
    if isinstance(end, Config):
        assert end.deployments
    else:
        # One line each, whatever line breaks stood in the values.
        assert len(end.problems) == len(str(end).splitlines()) > 0


@given(unheard_of)
def test_any_value_at_all_is_refused_or_loaded(data: Any) -> None:
    assert_whole(ended(lambda: load(data)))


@given(good(), st.data())
def test_a_broken_configuration_is_refused_or_loaded(
    data: dict[str, Any], more: st.DataObject
) -> None:
    changed = more.draw(broken(data))
    assert_whole(ended(lambda: load(changed, {"A": "a"})))


@given(data=good(), more=st.data())
def test_a_broken_file_says_what_the_broken_dict_says(
    file: Path, data: dict[str, Any], more: st.DataObject
) -> None:
    changed = more.draw(broken(data, anything))
    text = yaml.safe_dump(changed, sort_keys=False)
    from_file = ended(lambda: load_text(file, text, {"A": "a"}))
    from_dict = ended(lambda: load(changed, {"A": "a"}))

    assert _said(from_file) == _said(from_dict)


def _said(end: Config | ConfigError) -> object:
    """What came of it, without lines. A file's problems come in its order, a dict's as found."""
    if isinstance(end, Config):
        return end.deployments
    return {re.sub(r"^.*?(?:\.yaml(?::\d+)?|<dict>): ", "", one) for one in end.problems}


@given(good(), st.text(max_size=3).filter(lambda key: key not in ("", "id")))
def test_a_key_of_any_letters_is_told_in_one_line(data: dict[str, Any], key: str) -> None:
    assume(not key.startswith("x-"))
    for section in (data, data["settings"], data["deployments"][0]):
        section[key] = 1

    problems = refused(data)
    assert len(problems) == 3
    assert len("\n".join(problems).splitlines()) == 3


YAML_BITS = ["\t", "\n", ": ", "- ", "[", "]", "{", "}", "&a ", "*a", "!t ", "|", ">", "'", '"']
YAML_BITS += ["%", "@", "`", "#", ",", "? ", "<<: ", "---\n", "...\n", "\x85", "\u2028", "\ufeff"]
YAML_BITS += ["!!binary ", "!!set ", "!!int ", "\\U", "0x", "1_0", "~", "\x01", "=", "2026-01-01"]


@st.composite
def scribbled(draw: st.DrawFn, text: str) -> str:
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        end = at + draw(st.sampled_from([0, 0, 1, 5, 30]))
        text = text[:at] + draw(st.sampled_from(YAML_BITS) | st.text(max_size=5)) + text[end:]
    return text


@given(data=good(), more=st.data())
def test_a_scribbled_file_is_refused_or_loaded(
    file: Path, data: dict[str, Any], more: st.DataObject
) -> None:
    text = more.draw(scribbled(yaml.safe_dump(data)))
    end = ended(lambda: load_text(file, text))

    assert_whole(end)
    assert isinstance(end, Config) or all(one.startswith(str(file)) for one in end.problems)


@given(text=st.lists(st.sampled_from([*YAML_BITS, "a", "a:", "\n  "]), max_size=10).map("".join))
@example(text="[\n" * 1000)
@example(text='a: "\\UFFFFFFFF"')
@example(text="a: " + "9" * 5000)
def test_signs_of_yaml_in_any_order_are_refused(file: Path, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(file, text)
    assert str(caught.value).startswith(str(file))


@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_a_file_of_any_bytes_is_refused(file: Path, content: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        load_text(file, content)
    assert str(caught.value).startswith(str(file))


# All that is wrong, at once and by name

wrong_names = st.sampled_from([7, True, 1.5, ["a", 7], {}, "a,b", " a", "a ", "a\n", "\x00"])
wrong_seconds = st.sampled_from([0, -1, 0.0, True, "soon", "0", [], {}, [1], "nan", "inf", 10**40])
wrong_flags = st.sampled_from([0, 1, 1.0, 7, "maybe", [], {}, [True]])
wrong_secrets = st.sampled_from([7, True, [], {}, ["a"], " a", "a\n", "ä", "a\tb\r"])
wrong_urls = st.sampled_from(
    ["host", "ftp://host", "https://", "https:///v1", "https://h ost", "https://h/#f", "//h"]
) | st.sampled_from(["https://h:port", "https://h:70000", "https://[h", "https://ä", 7, [], {}])

MISTAKES: dict[str, st.SearchStrategy[Any]] = {
    "settings.strategy": wrong_names | st.sampled_from(["fastest", "least-busy", "simple-shuffle"]),
    "settings.fallbacks": st.sampled_from([7, "a", [], ["a"], True, {7: "a"}, {True: ["a"]}]),
    "settings.connect_timeout": wrong_seconds,
    "settings.timeout": wrong_seconds,
    "settings.deadline": wrong_seconds,
    "settings.retries": st.sampled_from([-1, 11, 2.5, "two", [], {}, True, 10**40]),
    "settings.default_model": wrong_names.filter(lambda value: value != ["a", 7]),
    "settings.id_secrets": st.sampled_from([7, "S3CRET", {}, True]),
    "settings.accept_unsigned_ids": wrong_flags,
    "deployments[].id": wrong_names,
    "deployments[].model_name": st.sampled_from([7, True, {}, "a,b", " a", [], ["a", "a"], "a\n"]),
    "deployments[].account": wrong_names,
    "deployments[].provider": wrong_names | st.sampled_from(["sora", "OpenAI"]),
    "deployments[].model": wrong_names,
    "deployments[].base_url": wrong_urls,
    "deployments[].api_key": wrong_secrets,
    "deployments[].headers": st.sampled_from([7, "x", [], {"a b": "x"}, {"A": "x", "a": "x"}]),
    "deployments[].weight": st.sampled_from([-1, -0.5, 1e-7, 1e300, "heavy", [], {}, True, "nan"]),
    "deployments[].order": st.sampled_from([0, -1, 1.5, "first", [], {}, True]),
    "deployments[].operations": st.sampled_from([7, "status", {}, True, [7]]),
    "deployments[].timeout": wrong_seconds,
    "deployments[].retry_on_5xx": wrong_flags,
    "deployments[].drop_params": wrong_flags,
    "deployments[].cost_per_second": st.sampled_from(
        [-1, "cheap", "nan", "inf", True, [], {}, {"720p": None}, {7: 1}, {"1x2": 1, "1:2": 1}]
    ),
    "deployments[].retires_on": st.sampled_from(
        ["soon", "2026-02-30", "20261231", "2026-W53", 20261231, 1.5, True, [], {}]
    ),
}
KNOWN = {key.rpartition(".")[2] for key in MISTAKES} | {"settings", "accounts", "deployments"}
# A word that is no key of ours in any version: a limit of the next one would be another mistake.
unknown_keys = st.from_regex(r"[a-z]{3,9}(_[a-z]{3,7})?", fullmatch=True).map("my_{}".format)


@st.composite
def mistakes(draw: st.DrawFn, data: dict[str, Any]) -> dict[Place, Any]:
    """Values to put into a good configuration, each at its own place, each wrong in itself."""
    found: dict[Place, Any] = {}
    for key in draw(st.lists(st.sampled_from(sorted(MISTAKES)), max_size=6, unique=True)):
        section, _, field = key.partition(".")
        index = draw(st.integers(0, len(data["deployments"]) - 1))
        place = ("settings", field) if section == "settings" else ("deployments", index, field)
        found[place] = draw(MISTAKES[key])
    sections = [(), ("settings",), *(("deployments", i) for i in range(len(data["deployments"])))]
    for section_place in draw(st.lists(st.sampled_from(sections), max_size=3, unique=True)):
        found[*section_place, draw(unknown_keys)] = draw(scalars.filter(lambda v: v != "${A:-"))
    assume(found)
    return found


@given(good(), st.data())
def test_all_mistakes_are_named_at_once_and_nothing_else(
    data: dict[str, Any], more: st.DataObject
) -> None:
    found = more.draw(mistakes(data))
    for place, value in found.items():
        put(data, place, value)
    # A broken variable in an unknown key is told in place of the key, which is named all the same.
    told = places_in(refused(data, {"A": "a"}))

    assert {_whole(key) for key in told} == {key_of(place) for place in found}


def _whole(key: str) -> str:
    """A mistake in one item of a list is told with the item."""
    return re.sub(r"(model_name|operations)\[\d\]$", r"\1", key)


@given(data=good(), more=st.data())
def test_a_mistake_in_a_file_is_told_with_the_line_that_its_key_stands_on(
    file: Path, data: dict[str, Any], more: st.DataObject
) -> None:
    found = more.draw(mistakes(data))
    # Of these, what is wrong is an item, with a line of its own; and YAML has no zero bytes.
    items = [p for p, v in found.items() if p[-1] in ("model_name", "operations") and v]
    assume(not any(isinstance(found[place], list) for place in items))
    assume("\\x00" not in repr(found))
    for place, value in found.items():
        put(data, place, value)
    text = yaml.safe_dump(data, sort_keys=more.draw(st.booleans()))
    lines = dict(_lines(yaml.compose(text)))

    with pytest.raises(ConfigError) as caught:
        load_text(file, text, {"A": "a"})

    told = [problem.split(": ")[:2] for problem in caught.value.problems]
    assert {(where, _whole(key)) for where, key in told} == {
        (f"{file}:{lines[place]}", key_of(place)) for place in found
    }
    numbers = [int(where.rpartition(":")[2]) for where, _ in told]
    assert numbers == sorted(numbers)


def _lines(node: yaml.Node, place: Place = ()) -> Iterator[tuple[Place, int]]:
    """Where each key of a mapping stands, as PyYAML's own tree has it."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*place, key.value), key.start_mark.line + 1
            yield from _lines(value, (*place, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _lines(item, (*place, index))


def _is_plain(value: Any) -> bool:
    """Whether nothing in it is a variable, which could be a mistake of its own."""
    return not any(form in str(value) for form in ("${", "os.environ/"))


def groups_of(data: Mapping[str, Any]) -> list[str]:
    named = (written["model_name"] for written in data["deployments"])
    return sorted({name for one in named for name in ([one] if isinstance(one, str) else one)})


@given(good(), st.data())
def test_groups_may_stand_in_for_each_other_in_any_way(
    data: dict[str, Any], more: st.DataObject
) -> None:
    groups = groups_of(data)
    assume(len(groups) > 1)
    one, other = more.draw(st.permutations(groups))[:2]
    others = st.lists(st.sampled_from([g for g in groups if g != one]), min_size=1, unique=True)
    fallbacks = {one: more.draw(others), other: one}
    data["settings"]["fallbacks"] = fallbacks

    assert load(data).settings.fallbacks == {one: tuple(fallbacks[one]), other: (one,)}


@given(good(), names, st.data())
def test_a_fallback_to_itself_or_to_nobody_is_told_where_it_stands(
    data: dict[str, Any], name: str, more: st.DataObject
) -> None:
    group = more.draw(st.sampled_from(groups_of(data)))
    assume(name not in groups_of(data))
    # Without secrets: a name that has one in it is masked, which is another property.
    data["settings"].pop("id_secrets", None)
    for written in data["deployments"]:
        written.pop("headers", None)
        written.pop("api_key", None)

    for fallbacks, wrong in (
        ({group: group}, {group}),
        ({group: name}, {group}),
        ({name: group}, {name}),
        ({group: [group, name]}, {group, f"{group}[1]"}),
    ):
        data["settings"]["fallbacks"] = fallbacks
        told = places_in(refused(data))
        assert told == {f"settings.fallbacks.{place}" for place in wrong}


@given(good(), unknown_keys | st.sampled_from(sorted(KNOWN)), st.data())
def test_an_unknown_key_is_named_wherever_it_stands(
    data: dict[str, Any], key: str, more: st.DataObject
) -> None:
    data["accounts"] = {"acme": {"api_key": "k"}}
    sections = {
        (): {"settings", "accounts", "deployments"},
        ("settings",): {name.rpartition(".")[2] for name in MISTAKES if name[0] == "s"},
        ("accounts", "acme"): {"api_key", "base_url"},
        ("deployments", 0): {name.rpartition(".")[2] for name in MISTAKES if name[0] == "d"},
    }
    place = more.draw(st.sampled_from(sorted(sections, key=str)))
    assume(key not in sections[place])
    put(data, (*place, key), more.draw(anything.filter(_is_plain)))

    (problem,) = refused(data)
    assert problem.startswith(f"<dict>: {key_of((*place, key))}: unknown key `{key}`")
    # What is allowed is told with it, all of it.
    assert set(re.split(r", ", problem.partition("allowed: ")[2])) >= sections[place]


@given(good(), st.sampled_from(sorted(KNOWN - {"id"})), st.integers(0, 20))
def test_a_misspelt_key_brings_its_right_spelling(
    data: dict[str, Any], key: str, where: int
) -> None:
    assume("deployments[]." + key in MISTAKES and re.fullmatch(r"[a-z_]{5,}", key))
    at_letter = where % len(key)
    misspelt = key[:at_letter] + key[at_letter + 1 :]
    assume(misspelt not in KNOWN)
    data["deployments"][0][misspelt] = "x"

    (problem,) = refused(data)
    assert f"`{misspelt}` (did you mean `{key}`?)" in problem


@given(good(), st.data())
def test_an_id_that_is_taken_is_refused_where_it_is_taken_again(
    data: dict[str, Any], more: st.DataObject
) -> None:
    again = more.draw(st.sampled_from(data["deployments"]))
    data["deployments"].append(copy.deepcopy(again) | {"account": again["id"]})

    index = len(data["deployments"]) - 1
    assert places_in(refused(data)) == {f"deployments[{index}].id"}


def _spellings(url: str) -> list[str]:
    scheme, _, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    port = "" if ":" in host else {"http": ":80", "https": ":443"}[scheme]
    after = path if "?" in path else path + "/"
    return [
        url,
        f"{scheme.upper()}://{rest}",
        f"{scheme}://{host.upper()}{slash}{path}",
        f"{scheme}://{host}{port}{slash}{path}",
        f"{scheme}://{host}{slash}{after}",
    ]


@given(good(most=1), sendable)
def test_one_credential_has_one_account_however_its_url_is_spelt(
    data: dict[str, Any], key: str
) -> None:
    first = data["deployments"][0] | {"api_key": key}
    for url in _spellings(first["base_url"]):
        second = {"id": first["id"] + "2", "model_name": "m", "base_url": url, "api_key": key}

        problems = refused(data | {"deployments": [first, second]})
        assert places_in(problems) == {"deployments[1].account"}
        load(data | {"deployments": [first | {"account": "one"}, second | {"account": "one"}]})
        load(data | {"deployments": [first, second | {"api_key": key + "2"}]})


# Secrets

# So distinct that nothing else that is drawn, and no word of a message, has a piece of one in it.
secret_texts = st.builds(
    lambda seed, length: hashlib.sha256(seed).hexdigest()[:length],
    st.binary(max_size=4),
    st.integers(12, 40),
)
PIECE = 8


def spilled(secret: str, text: str) -> bool:
    """Whether a telling piece of the secret stands in the text."""
    return any(secret[at : at + PIECE] in text for at in range(len(secret) - PIECE + 1))


@st.composite
def with_secrets(draw: st.DrawFn, secret: str) -> dict[str, Any]:
    """A configuration with the secret in every place that is one, written or by a variable."""
    data = draw(good(most=2))

    def hidden() -> str:
        default = f"${{NOT_SET:-{secret}}}"
        return draw(st.sampled_from([secret, "${KEY}", default, "Bearer ${KEY}"]))

    data["settings"]["id_secrets"] = [hidden()]
    data["accounts"] = {"acme": {"api_key": hidden(), "base_url": f"https://u:{secret}@acme/v1"}}
    for number, one in enumerate(data["deployments"]):
        one["headers"] = {"Authorization": hidden()}
        one["api_key"] = hidden()
        one["base_url"] = f"https://{draw(st.sampled_from(['u:', '']))}{secret}@host{number}/v1"
    return data


@given(secret_texts.flatmap(lambda s: st.tuples(st.just(s), with_secrets(s))))
def test_what_is_loaded_shows_no_secret(drawn: tuple[str, dict[str, Any]]) -> None:
    secret, data = drawn
    config = load(data, {"KEY": secret})

    assert not spilled(secret, repr(config) + str(config.warnings) + str(config.deployments))
    assert not spilled(secret, str(config.settings.model_dump()))
    for one in config.deployments:
        assert not spilled(secret, one.redact(f"the key {secret} is wrong"))


@given(
    secret_texts.flatmap(lambda s: st.tuples(st.just(s), with_secrets(s))),
    st.data(),
)
def test_no_mistake_of_values_shows_a_secret(
    drawn: tuple[str, dict[str, Any]], more: st.DataObject
) -> None:
    secret, data = drawn
    for place, value in more.draw(mistakes(data)).items():
        put(data, place, value)

    assert not spilled(secret, str(refused(data, {"KEY": secret, "A": "a"})))


@given(
    secret_texts.flatmap(lambda s: st.tuples(st.just(s), with_secrets(s))),
    st.data(),
)
def test_no_mistake_of_structure_shows_a_secret(
    drawn: tuple[str, dict[str, Any]], more: st.DataObject
) -> None:
    secret, data = drawn
    changed = more.draw(broken(data))
    end = ended(lambda: load(changed, {"KEY": secret, "A": "a"}))
    # What loads may have the secret renamed to an id, and ids are shown.
    assert isinstance(end, Config) or not spilled(secret, f"{end!r} {end}")


@given(drawn=secret_texts.flatmap(lambda s: st.tuples(st.just(s), with_secrets(s))), more=st.data())
def test_no_scribble_in_a_file_shows_a_secret_that_it_leaves_whole(
    file: Path, drawn: tuple[str, dict[str, Any]], more: st.DataObject
) -> None:
    secret, data = drawn
    text = more.draw(scribbled(yaml.safe_dump(data)))
    end = ended(lambda: load_text(file, text, {"KEY": secret}))
    assert secret not in f"{end!r} {end}"


@given(
    file_lead=st.sampled_from(["", "deployments:\n- id: a\n  ", "settings: {", "deployments: [{"]),
    key=st.sampled_from(["api_key: ", "api_key:", "base_url: https://u:", "headers: ", "api_key "]),
    before=st.sampled_from(["*", "&", "!", "%", "!<", '"', "'", "|", "@", '"\\', *YAML_BITS]),
    secret=secret_texts,
    after=st.lists(st.sampled_from(YAML_BITS), max_size=2).map("".join),
)
def test_no_sign_of_yaml_beside_a_secret_shows_it(
    file: Path, file_lead: str, key: str, before: str, secret: str, after: str
) -> None:
    # PyYAML quotes what it stumbles over: aliases, tags, anchors, escapes.
    end = ended(lambda: load_text(file, f"{file_lead}{key}{before}{secret}{after}"))

    assert isinstance(end, ConfigError)
    assert not spilled(secret, str(end))


SECRET_PLACES: dict[str, Callable[[dict[str, Any], str], None]] = {
    "key": lambda data, secret: put(data, ("deployments", 0, "api_key"), secret),
    "header": lambda data, secret: put(data, ("deployments", 0, "headers"), {"x": secret}),
    "id secret": lambda data, secret: put(data, ("settings", "id_secrets"), ["", secret]),
    "password": lambda data, secret: put(
        data, ("deployments", 0, "base_url"), f"https://u:{secret}@h/v1"
    ),
    "variable": lambda data, _: put(data, ("deployments", 0, "model"), "${KEY}"),
}
SHOWN_PLACES: list[tuple[Place, Callable[[str], Any]]] = [
    (("deployments", 0, "provider"), str),
    (("deployments", 0, "operations"), lambda secret: [secret]),
    (("settings", "strategy"), str),
    (("settings", "default_model"), lambda secret: f"m-{secret}"),
]


@given(good(most=1), secret_texts, st.data())
def test_a_secret_that_was_also_pasted_where_values_are_told_is_not_told(
    data: dict[str, Any], secret: str, more: st.DataObject
) -> None:
    SECRET_PLACES[more.draw(st.sampled_from(sorted(SECRET_PLACES)))](data, secret)
    if more.draw(st.booleans()):
        put(data, ("deployments", 0, f"my_{secret}"), 1)
    else:
        place, value = more.draw(st.sampled_from(SHOWN_PLACES))
        put(data, place, value(secret))

    assert not spilled(secret, str(refused(data, {"KEY": secret})))
