"""What the properties found, kept as the examples they were."""

from __future__ import annotations

import time

import pytest

from router import ConfigError, InvalidIdError, Router
from router.ids import Copy, IdCodec, Kind
from router.messages import ErrorBody
from router.observations import BOTH, Cause
from router.outcomes import Eject, Exchange, is_callers_fault, judge
from router.types import Operation

OURS = IdCodec().encode(Kind.VIDEO, [Copy("east", "video_1")])


def problems(**deployment: object) -> tuple[str, ...]:
    entry = {"id": "east", "model_name": "sora-2", "base_url": "http://east/v1", **deployment}
    with pytest.raises(ConfigError) as caught:
        Router.from_dict({"deployments": [entry]}, environ={})
    return caught.value.problems


def test_an_azure_content_filter_is_the_callers_fault() -> None:
    said = "The prompt triggered Azure OpenAI's content management policy."
    assert is_callers_fault("content_filter", None)
    assert is_callers_fault(None, said)


def test_the_code_insufficient_quota_outweighs_the_words_beside_it() -> None:
    body = ErrorBody("You exceeded your quota; this is no rate limit", "insufficient_quota")
    outcome = judge(Exchange(Operation.GENERATION, status=429, body=body))
    assert outcome.eject == Eject(BOTH, 300.0, Cause.DENIED, whole_account=True)


def test_a_date_without_a_zone_is_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        date = time.asctime(time.gmtime(1_800_000_060))
        asked = Exchange(Operation.STATUS, status=429, headers={"retry-after": date}, at=1.8e9)
        outcome = judge(asked)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert outcome.eject is not None
    assert outcome.eject.seconds == 60


@pytest.mark.parametrize("altered", [OURS.replace("vr1A", "vrA1", 1), OURS.upper()])
def test_an_id_whose_prefix_was_altered_is_no_native_one(altered: str) -> None:
    with pytest.raises(InvalidIdError):
        IdCodec().decode(altered, Kind.VIDEO)


def test_whatever_id_is_written_can_be_read() -> None:
    copies = [Copy(f"account{number}", "é" * 512) for number in range(8)]
    text = IdCodec().encode(Kind.CHARACTER, copies)
    assert IdCodec().decode(text, Kind.CHARACTER)


def test_a_known_key_is_never_masked() -> None:
    data = {"settings": {"id_secrets": "secret"}, "deployments": [{"id": "east"}]}
    with pytest.raises(ConfigError, match=r"settings\.id_secrets: "):
        Router.from_dict(data, environ={})


@pytest.mark.parametrize("key", ["base-url", "retry_on5xx"])
def test_a_misspelt_key_is_named(key: str) -> None:
    (problem,) = problems(**{key: "x"})
    assert f"deployments[0].{key}: " in problem


def test_a_missing_variable_in_a_list_is_one_problem() -> None:
    (problem,) = problems(model_name=["${A}"])
    assert "the variable A is not set" in problem
