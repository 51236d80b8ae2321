"""The outcome table, row by row, for everything that a row leaves open.

`tests/outcomes` has the rows as examples. Here each row of the design is a statement about all
exchanges that it covers: whatever the operation, the headers, the body's words and the call's
history, unless the row names them.
"""

from __future__ import annotations

import datetime
import email.utils
import math
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from router import errors
from router.messages import ErrorBody
from router.observations import BOTH, READS, SUBMITS, Cause
from router.outcomes import (
    Effect,
    Eject,
    Exchange,
    Fault,
    Outcome,
    is_callers_fault,
    judge,
    seconds_in,
)
from router.types import Operation

AT = 1_800_000_000  # a second, so that a date can say it

operations = st.sampled_from(Operation)
submits = st.sampled_from([operation for operation in Operation if operation.is_submit])
reads = st.sampled_from([operation for operation in Operation if not operation.is_submit])

# What bodies say -----------------------------------------------------------------------------

# Each in the words of some provider; in a body that means something else, they are a temptation.
BILLING = [
    "insufficient_quota",
    "You exceeded your current quota, please check your plan and billing details.",
    "Billing hard limit has been reached",
    "You do not have enough credit: out of credits",
    "insufficient balance",
]
MISSING = [
    "model_not_found",
    "DeploymentNotFound",
    "The model `sora-2` does not exist or you do not have access to it.",
    "The API deployment 'sora-2' for this resource does not exist.",
    "unknown model sora-2",
]
POLICY = [
    "moderation_blocked",
    "content_policy_violation",
    "Your request was rejected by our safety system",
    "blocked by the content filter",
    "this looks like a third party's likeness",
]
UNFINISHED = [
    "Video is not ready yet, use GET to check status",
    "Video with id 'video_1' is not completed.",
    "it is still processing",
    "the job's status is in_progress: its status: in_progress",
]
RATE = ["rate_limit_exceeded", "Rate limit reached for sora-2 on requests per min (RPM): Limit 3"]
TEMPTATIONS = [*BILLING, *MISSING, *POLICY, *UNFINISHED, *RATE]

# Words in which nothing can be found, whatever comes before and after.
neutral = st.text("xyzéÄ東 .,!?'\n`", max_size=30)
any_words = st.text(max_size=40) | st.sampled_from(TEMPTATIONS)


@st.composite
def saying(draw: st.DrawFn, phrases: list[str]) -> ErrorBody:
    """A body that says one of these in one of its fields, and nothing else."""
    phrase = draw(st.sampled_from(phrases))
    phrase = draw(st.sampled_from([phrase, phrase.upper(), phrase.lower()]))
    said = f"{draw(neutral)} {phrase} {draw(neutral)}"
    where = draw(st.sampled_from(["message", "code", "type"]))
    words: dict[str, Any] = {"message": draw(neutral), "code": None, "type": None}
    return ErrorBody(**(words | {where: said}))


any_body = st.builds(
    ErrorBody, message=any_words, code=st.none() | any_words, type=st.none() | any_words
) | st.builds(" ".join, st.lists(st.sampled_from(TEMPTATIONS), max_size=4)).map(ErrorBody)
neutral_body = st.builds(ErrorBody, neutral, st.none() | neutral, st.none() | neutral)

# What headers say ----------------------------------------------------------------------------

DATE_BITS = ["Fri", "Fri,", "31", "Dec", "2026", "0", "99999", "23:59:59", "25:61", "GMT", "-0000"]
DATE_BITS += ["+2500", "1e9", "Sunday,", "06-Nov-94", "(x", '"', ":", "+", "-", "", "٣", "\0"]
odd_waits = st.one_of(
    st.text(max_size=12),
    st.floats().map(str),
    st.integers().map(str),
    st.lists(st.sampled_from(DATE_BITS), max_size=8).map(" ".join),
    st.datetimes().map(lambda when: when.strftime("%a, %d %b %Y %H:%M:%S GMT")),
    st.sampled_from(["soon", "1_0", "1,5", " 5 ", "0x10", "infinity", "nan", "-0", "1e400", "५"]),
)
any_headers = st.fixed_dictionaries(
    {},
    optional={
        "retry-after": odd_waits,
        "retry-after-ms": odd_waits,
        "x-should-retry": st.sampled_from(["true", "false", "False", "FALSE", "", "no"]),
        "content-type": st.text(max_size=5),
    },
)
# Of those headers, what says neither when to come back nor that it is of no use.
plain_headers = st.dictionaries(st.sampled_from(["content-type", "x-request-id"]), st.text())


@st.composite
def waits(draw: st.DrawFn) -> tuple[dict[str, str], float]:
    """Headers that say how long to wait, and the seconds that they mean."""
    wait = draw(st.integers(0, 10**6) | st.floats(0, 1e6))
    match draw(st.sampled_from(["seconds", "ms", "date", "both"])):
        case "seconds":
            return {"retry-after": str(wait)}, wait
        case "date":
            whole = int(wait)
            return {"retry-after": email.utils.formatdate(AT + whole, usegmt=True)}, whole
        case "ms":
            return {"retry-after-ms": str(wait * 1000)}, wait
        case _:
            return {"retry-after-ms": str(wait * 1000), "retry-after": draw(odd_waits)}, wait


# What happens --------------------------------------------------------------------------------

HISTORY: dict[str, st.SearchStrategy[Any]] = {
    "operation": operations,
    "names_id": st.booleans(),
    "worked_before": st.booleans(),
    "sent_before": st.booleans(),
    "retry_on_5xx": st.booleans(),
    "throttled_in_a_row": st.integers(0, 2000),
    "deadline_passed": st.booleans(),
    "at": st.floats(0, 4e9),
}


def answered(**given: Any) -> st.SearchStrategy[Exchange]:
    """Exchanges that brought a status: of everything that is not given, anything."""
    facts = HISTORY | {"status": statuses(100, 599), "headers": any_headers, "body": any_body}
    return st.builds(Exchange, **(facts | given))


def unanswered(**given: Any) -> st.SearchStrategy[Exchange]:
    facts = HISTORY | {"fault": st.sampled_from(Fault), "sent_whole": st.booleans()}
    return st.builds(Exchange, **(facts | given))


WITH_ROWS = (200, 301, 400, 401, 403, 404, 409, 422, 429, 500, 501, 503, 504)


def statuses(first: int, last: int, *without: int) -> st.SearchStrategy[int]:
    # Those that have rows of their own, more often than the crowd between them.
    named = [s for s in WITH_ROWS if first <= s <= last and s not in without]
    crowd = st.integers(first, last).filter(lambda status: status not in without)
    return st.sampled_from(named) | crowd if named else crowd


def exchanges(**given: Any) -> st.SearchStrategy[Exchange]:
    # Only a success is looked at for being valid.
    return answered(invalid=st.none() | st.text(), **given) | unanswered(**given)


anything = exchanges()

CALLERS = sorted({*range(400, 500)} - {401, 402, 403, 404, 429})
REFUSED = "no"


def assert_nobodys_fault(outcome: Outcome) -> None:
    assert outcome.effect is Effect.NOTHING
    assert outcome.eject is None


def assert_ambiguous(outcome: Outcome) -> None:
    assert outcome.accepted == "maybe"
    assert outcome.error is errors.AmbiguousSubmitError
    assert not outcome.again
    assert outcome.eject is None


def assert_another(outcome: Outcome, exchange: Exchange) -> None:
    """The call may go on, unless the provider said that this is of no use."""
    said_no = exchange.headers.get("x-should-retry", "").lower() == "false"
    assert outcome.again is not said_no
    assert outcome.accepted == REFUSED
    assert outcome.error is not None


# The rows ------------------------------------------------------------------------------------


@given(answered(status=statuses(200, 299)))
def test_a_valid_2xx_is_success_and_returned(exchange: Exchange) -> None:
    outcome = judge(exchange)

    assert outcome.error is None
    assert outcome.effect is Effect.SUCCESS
    assert outcome.accepted == "yes"
    assert not outcome.again
    assert outcome.eject is None


unreached = [Fault.CONNECT, Fault.TIMEOUT, Fault.BROKEN, Fault.ENDLESS]


@given(
    unanswered(
        fault=st.sampled_from(unreached),
        sent_whole=st.just(False),
        deadline_passed=st.just(False),
    )
)
def test_a_body_that_surely_did_not_go_over_whole_is_a_failure_and_another_is_asked(
    exchange: Exchange,
) -> None:
    outcome = judge(exchange)

    assert outcome.effect is Effect.FAILURE
    assert outcome.eject is None
    assert_another(outcome, exchange)


@given(unanswered(fault=st.just(Fault.POOL), sent_whole=st.just(False)))
def test_no_free_connection_of_our_own_says_nothing_of_the_deployment(exchange: Exchange) -> None:
    outcome = judge(exchange)

    assert_nobodys_fault(outcome)
    assert outcome.error is errors.CapacityError
    assert outcome.accepted == REFUSED
    assert outcome.retry_after is not None


@given(unanswered(fault=st.just(Fault.LOCAL), sent_whole=st.just(False)))
def test_a_request_that_cannot_be_sent_says_nothing_of_the_deployment(exchange: Exchange) -> None:
    outcome = judge(exchange)

    assert_nobodys_fault(outcome)
    assert not outcome.again
    assert outcome.accepted == REFUSED


def assert_throttled(exchange: Exchange, seconds: float) -> None:
    outcome = judge(exchange)
    scope = SUBMITS if exchange.operation.is_submit else READS

    assert outcome.eject == Eject(scope, pytest.approx(seconds), Cause.THROTTLED)
    assert outcome.retry_after == outcome.eject.seconds
    assert outcome.effect is Effect.NOTHING
    assert_another(outcome, exchange)
    if exchange.status == 429:
        assert outcome.error is errors.RateLimitError


throttled_body = neutral_body | saying(RATE) | saying(UNFINISHED) | saying(MISSING) | saying(POLICY)


@given(answered(status=st.just(429), body=throttled_body, at=st.just(float(AT))), waits())
def test_a_429_puts_one_side_out_for_as_long_as_it_says(
    exchange: Exchange, wait: tuple[dict[str, str], float]
) -> None:
    headers, seconds = wait

    assert_throttled(replace(exchange, headers=headers), min(max(seconds, 1.0), 300.0))


@given(answered(status=st.just(503), at=st.just(float(AT))), waits())
def test_a_503_that_says_when_to_come_back_was_not_accepted(
    exchange: Exchange, wait: tuple[dict[str, str], float]
) -> None:
    headers, seconds = wait

    assert_throttled(replace(exchange, headers=headers), min(max(seconds, 1.0), 300.0))


@given(answered(status=st.just(429), body=throttled_body, headers=plain_headers))
def test_a_429_that_says_no_time_puts_one_side_out_for_a_doubling_time(exchange: Exchange) -> None:
    assert_throttled(exchange, min(5.0 * 2.0 ** min(exchange.throttled_in_a_row, 60), 300.0))


@given(answered(status=st.just(429), body=saying(BILLING)))
def test_an_ordinary_throttling_may_end_in_advice_on_billing(exchange: Exchange) -> None:
    words = f"Rate limit reached on requests per min. {exchange.body.message}"
    body = replace(exchange.body, message=words, code="rate_limit_exceeded")
    outcome = judge(replace(exchange, body=body))

    assert outcome.eject is not None
    assert outcome.eject.cause is Cause.THROTTLED
    assert not outcome.eject.whole_account


DENIED = st.one_of(
    answered(status=st.just(401)),
    answered(status=st.sampled_from([402, 429]), body=saying(BILLING)),
    answered(
        status=st.just(403),
        worked_before=st.just(True),
        body=neutral_body | saying([*BILLING, *MISSING, *UNFINISHED, *RATE]),
    ),
)


@given(DENIED)
def test_a_key_or_a_bill_that_is_refused_puts_the_whole_account_out(exchange: Exchange) -> None:
    outcome = judge(exchange)

    assert outcome.eject == Eject(BOTH, 300.0, Cause.DENIED, whole_account=True)
    assert outcome.effect is Effect.NOTHING
    assert_another(outcome, exchange)
    assert outcome.error is {
        401: errors.AuthenticationError,
        402: errors.StatusError,
        403: errors.PermissionDeniedError,
        429: errors.RateLimitError,
    }.get(exchange.status or 0)


@given(
    answered(status=st.just(501))
    | answered(status=st.just(404), names_id=st.just(False))
    | answered(status=st.just(404), body=saying(MISSING))
)
def test_what_a_deployment_does_not_offer_puts_it_out_for_that_operation(
    exchange: Exchange,
) -> None:
    outcome = judge(exchange)

    assert outcome.eject == Eject(exchange.operation, 300.0, Cause.MISSING)
    assert outcome.effect is Effect.NOTHING
    assert_another(outcome, exchange)


def assert_callers_error(outcome: Outcome) -> None:
    assert_nobodys_fault(outcome)
    assert outcome.error is not None
    assert not outcome.again
    assert outcome.accepted == REFUSED


@given(answered())
def test_the_callers_error_is_an_error_at_once_and_never_a_matter_of_health(
    exchange: Exchange,
) -> None:
    for status in CALLERS:
        assert_callers_error(judge(replace(exchange, status=status)))


@given(answered(status=st.just(402), body=neutral_body))
def test_a_402_that_speaks_of_no_bill_is_the_callers_error(exchange: Exchange) -> None:
    assert_callers_error(judge(exchange))


@given(
    answered(status=st.just(403), worked_before=st.just(False))
    | answered(status=st.just(403), body=saying(POLICY))
)
def test_a_403_to_what_never_worked_or_for_its_content_is_the_callers_error(
    exchange: Exchange,
) -> None:
    assert_callers_error(judge(exchange))


of_an_id = neutral_body | saying([*BILLING, *POLICY, *UNFINISHED, *RATE])


@given(
    answered(status=st.just(404), names_id=st.just(True), sent_before=st.just(False), body=of_an_id)
)
def test_a_404_of_an_id_is_the_callers_error(exchange: Exchange) -> None:
    for operation in Operation:
        assert_callers_error(judge(replace(exchange, operation=operation)))


NAMED = {
    400: errors.BadRequestError,
    403: errors.PermissionDeniedError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    413: errors.BadRequestError,
    415: errors.BadRequestError,
    422: errors.BadRequestError,
}


@given(
    answered(
        status=st.sampled_from(sorted(NAMED)),
        body=neutral_body | saying(POLICY),
        names_id=st.just(True),
        worked_before=st.just(False),
        sent_before=st.just(False),
    )
)
def test_the_callers_error_has_the_name_of_its_status(exchange: Exchange) -> None:
    assert judge(exchange).error is NAMED[exchange.status or 0]


@given(
    answered(
        status=st.sampled_from([404, *CALLERS]),
        names_id=st.just(True),
        sent_before=st.just(False),
        body=saying(UNFINISHED),
    )
)
def test_a_4xx_whose_body_says_unfinished_says_when_to_come_back(exchange: Exchange) -> None:
    outcome = judge(exchange)

    assert outcome.error is errors.VideoNotReadyError
    assert outcome.retry_after is not None
    assert 0 < outcome.retry_after <= 300
    assert not outcome.again


@given(answered(status=st.sampled_from(CALLERS), names_id=st.just(False), body=saying(UNFINISHED)))
def test_a_call_that_names_nothing_has_nothing_to_be_unfinished(exchange: Exchange) -> None:
    assert judge(exchange).error is not errors.VideoNotReadyError


@given(
    answered(
        operation=st.just(Operation.DELETE),
        status=st.just(404),
        names_id=st.just(True),
        sent_before=st.just(True),
        body=of_an_id,
    )
)
def test_a_delete_that_was_sent_before_and_finds_nothing_has_succeeded(exchange: Exchange) -> None:
    outcome = judge(exchange)

    assert outcome.error is None
    assert not outcome.again
    assert_nobodys_fault(outcome)


@given(answered())
def test_a_redirect_is_a_failure_and_not_followed(exchange: Exchange) -> None:
    for status in range(300, 400):
        outcome = judge(replace(exchange, status=status))

        assert outcome.effect is Effect.FAILURE
        assert outcome.eject is None
        assert_another(outcome, exchange)


def assert_server_error(exchange: Exchange) -> None:
    outcome = judge(exchange)

    assert outcome.effect is Effect.FAILURE
    assert outcome.eject is None
    if exchange.operation.is_submit and not exchange.retry_on_5xx:
        assert_ambiguous(outcome)
    else:
        assert_another(outcome, exchange)
        assert outcome.error is errors.InternalServerError


@given(answered())
def test_any_other_5xx_is_a_failure_and_to_a_submit_ambiguous(exchange: Exchange) -> None:
    for status in {*range(500, 600)} - {501, 503}:
        assert_server_error(replace(exchange, status=status))


@given(answered(status=st.just(503), headers=plain_headers))
def test_a_503_that_says_no_time_is_a_5xx_like_the_others(exchange: Exchange) -> None:
    assert_server_error(exchange)


LOST = st.one_of(
    # No fault is a word for a refusal: what was handed over whole may have arrived.
    unanswered(operation=submits, sent_whole=st.just(True), deadline_passed=st.just(False)),
    unanswered(
        operation=reads,
        fault=st.sampled_from([Fault.TIMEOUT, Fault.BROKEN, Fault.ENDLESS]),
        sent_whole=st.just(True),
        deadline_passed=st.just(False),
    ),
    answered(status=statuses(200, 299), invalid=st.text()),
    answered(status=statuses(100, 199)),
)


@given(LOST)
def test_an_answer_that_was_lost_is_a_failure_and_the_submit_is_never_sent_again(
    exchange: Exchange,
) -> None:
    outcome = judge(exchange)

    assert outcome.effect is Effect.FAILURE
    assert outcome.eject is None
    if exchange.operation.is_submit:
        assert_ambiguous(outcome)
    else:
        assert_another(outcome, exchange)


@given(unanswered(fault=st.just(Fault.TIMEOUT), deadline_passed=st.just(True)))
def test_a_call_whose_deadline_passed_stops_and_teaches_a_lower_bound(exchange: Exchange) -> None:
    outcome = judge(exchange)

    assert outcome.effect is Effect.AT_LEAST
    assert outcome.eject is None
    assert not outcome.again
    if exchange.operation.is_submit and exchange.sent_whole:
        assert_ambiguous(outcome)
    else:
        assert outcome.error is errors.DeadlineExceededError
        assert outcome.accepted == REFUSED


CODES = ["moderation_blocked", "content_policy_violation", "invalid_request", "SAFETY.INPUT.TEXT"]


@given(st.none() | any_words, st.sampled_from(CODES), st.sampled_from([str.upper, str.lower]))
def test_a_job_that_failed_with_a_callers_code_is_the_callers_fault(
    message: str | None, code: str, written: Callable[[str], str]
) -> None:
    assert is_callers_fault(written(code), message)


@given(st.none() | any_words, saying(POLICY))
def test_a_job_that_failed_by_its_content_is_the_callers_fault(
    code: str | None, said: ErrorBody
) -> None:
    assert is_callers_fault(code, said.message + (said.code or "") + (said.type or ""))


@given(st.none() | neutral, st.none() | neutral | st.sampled_from([*UNFINISHED, *RATE]))
def test_a_job_that_failed_otherwise_is_not_the_callers_fault(
    code: str | None, message: str | None
) -> None:
    assert not is_callers_fault(code, message)


# What holds in every row ---------------------------------------------------------------------


@given(exchanges(operation=submits))
def test_a_submit_goes_on_only_where_its_refusal_is_certain(exchange: Exchange) -> None:
    outcome = judge(exchange)
    if not outcome.again:
        return
    status = exchange.status
    if status is None:
        assert not exchange.sent_whole
    else:
        comes_back = status == 503 and {"retry-after", "retry-after-ms"} & set(exchange.headers)
        assert 300 <= status < 500 or status == 501 or comes_back or exchange.retry_on_5xx
    assert outcome.accepted == REFUSED


@given(
    unanswered(operation=submits, sent_whole=st.just(True))
    | answered(operation=submits, status=statuses(100, 299), invalid=st.text())
    | answered(
        operation=submits,
        status=statuses(500, 599, 501, 503),
        retry_on_5xx=st.just(False),
    )
)
def test_a_submit_that_was_sent_whole_and_has_no_sure_refusal_may_have_been_accepted(
    exchange: Exchange,
) -> None:
    assert_ambiguous(judge(exchange))


@given(anything)
def test_maybe_accepted_is_said_of_submits_alone_and_ends_the_call(exchange: Exchange) -> None:
    outcome = judge(exchange)

    assert (outcome.accepted == "maybe") is (outcome.error is errors.AmbiguousSubmitError)
    if outcome.accepted == "maybe":
        assert exchange.operation.is_submit
        assert exchange.sent_whole
        assert_ambiguous(outcome)


@given(anything)
def test_there_is_no_error_exactly_where_there_is_success(exchange: Exchange) -> None:
    outcome = judge(exchange)
    valid = exchange.status is not None and 200 <= exchange.status < 300
    valid = valid and exchange.invalid is None and exchange.fault is None
    deleted = exchange.operation is Operation.DELETE and exchange.status == 404
    deleted = deleted and exchange.sent_before and exchange.names_id

    assert (outcome.error is None) is (valid or (deleted and outcome.eject is None))
    assert (outcome.accepted == "yes") is (outcome.error is None)
    assert (outcome.effect is Effect.SUCCESS) is valid


@given(anything)
def test_nobody_is_put_out_for_longer_than_five_minutes_nor_for_less_than_a_second(
    exchange: Exchange,
) -> None:
    outcome = judge(exchange)

    if outcome.eject is not None:
        assert 1.0 <= outcome.eject.seconds <= 300.0
        # Their own word, not our judgement: it is no failure as well.
        assert outcome.effect is Effect.NOTHING
        assert outcome.eject.cause is not Cause.FAILURES
        assert outcome.eject.whole_account is (outcome.eject.cause is Cause.DENIED)


@given(anything)
def test_an_error_that_says_try_later_says_when(exchange: Exchange) -> None:
    outcome = judge(exchange)

    if outcome.error is not None and issubclass(outcome.error, errors.TryLaterError):
        assert isinstance(outcome.retry_after, float)
        assert math.isfinite(outcome.retry_after)
        assert 0.0 < outcome.retry_after <= 300.0


@given(anything, st.sampled_from(["false", "False", "FALSE"]))
def test_x_should_retry_false_ends_the_call_and_changes_nothing_else(
    exchange: Exchange, written: str
) -> None:
    without = {k: v for k, v in exchange.headers.items() if k != "x-should-retry"}
    told = replace(exchange, headers=without | {"x-should-retry": written})

    assert judge(told) == replace(judge(replace(exchange, headers=without)), again=False)


@given(anything, st.sampled_from(["true", "", "no", "1"]))
def test_nothing_else_that_x_should_retry_says_makes_a_difference(
    exchange: Exchange, written: str
) -> None:
    without = {k: v for k, v in exchange.headers.items() if k != "x-should-retry"}
    told = replace(exchange, headers=without | {"x-should-retry": written})

    # Above all not `true`: the provider does not know what a second job costs.
    assert judge(told) == judge(replace(exchange, headers=without))


def _is_5xx(exchange: Exchange) -> bool:
    return exchange.status is not None and exchange.status >= 500 and exchange.operation.is_submit


# What a fact may make a difference to; to everything else it makes none.
MATTERS = {
    "retry_on_5xx": _is_5xx,
    "worked_before": lambda exchange: exchange.status == 403,
    "sent_before": lambda exchange: (
        exchange.status == 404 and exchange.operation is Operation.DELETE
    ),
    "throttled_in_a_row": lambda exchange: exchange.status == 429,
    "deadline_passed": lambda exchange: exchange.fault is Fault.TIMEOUT,
    "names_id": lambda exchange: exchange.status is not None and 400 <= exchange.status < 500,
    "body": lambda exchange: exchange.status is not None and 400 <= exchange.status < 500,
    "at": lambda exchange: "retry-after" in exchange.headers,
}


@given(anything, anything, st.sampled_from(sorted(MATTERS)))
def test_a_fact_that_a_row_does_not_name_makes_no_difference_to_it(
    exchange: Exchange, other: Exchange, name: str
) -> None:
    assume(not MATTERS[name](exchange))

    assert judge(replace(exchange, **{name: getattr(other, name)})) == judge(exchange)


@given(
    answered(status=st.just(404)),
    st.sampled_from(
        ["model_not_found", "DeploymentNotFound", "unknown model", "no such deployment"]
    ),
    st.text(max_size=5),
)
def test_a_word_of_the_callers_that_is_quoted_says_nothing(
    exchange: Exchange, word: str, around: str
) -> None:
    echo = f"{around}{word}{around}"
    said = ErrorBody(f"Video with id '{echo}' not found.")
    quoted = replace(exchange, body=said, names_id=True, echoes=(echo,))

    assert judge(quoted).eject is None


def test_every_fact_of_an_exchange_is_drawn() -> None:
    drawn = {*HISTORY, "status", "headers", "body", "invalid", "fault", "sent_whole", "echoes"}

    assert {field.name for field in fields(Exchange)} == drawn


# Waiting -------------------------------------------------------------------------------------


@given(odd_waits | st.none(), st.sampled_from([1.0, 0.001]))
@example("9" * 5000, 1.0)
@example("nan", 0.001)
def test_a_number_in_a_header_is_read_as_seconds_to_wait_or_not_at_all(
    written: str | None, scale: float
) -> None:
    seconds = seconds_in(written, scale)

    assert seconds is None or 0.0 <= seconds <= 300.0


@given(st.sampled_from([429, 503]), odd_waits, operations)
def test_an_odd_retry_after_is_waited_out_within_bounds_or_not_there(
    status: int, written: str, operation: Operation
) -> None:
    odd = judge(Exchange(operation, status=status, headers={"retry-after": written}, at=AT))
    plain = judge(Exchange(operation, status=status, at=AT))

    assert odd == plain or (odd.eject is not None and 1.0 <= odd.eject.seconds <= 300.0)


@given(st.integers(-(10**6), 10**6), st.sampled_from([429, 503]))
def test_a_date_is_waited_for_until_it_has_come(after: int, status: int) -> None:
    when = datetime.datetime.fromtimestamp(AT + after, datetime.UTC)
    written = [
        when.strftime("%a, %d %b %Y %H:%M:%S GMT"),
        when.strftime("%A, %d-%b-%y %H:%M:%S GMT"),
    ]
    for date in written:
        outcome = judge(
            Exchange(Operation.STATUS, status=status, headers={"retry-after": date}, at=float(AT))
        )
        assert outcome.eject is not None
        assert outcome.eject.seconds == min(max(after, 1), 300)
