"""Which word decides where an upstream's words, its codes and its status disagree."""

import pytest

from proxy.answer import InBandError
from proxy.complaint import SEARCHED, kind_of, status_in
from proxy.kind import Kind


@pytest.mark.parametrize(
    ("told", "status"),
    [
        (InBandError("x"), None),
        (InBandError("x", code=503), 503),
        (InBandError("x", code="503"), 503),
        (InBandError("x", code=200), None),
        (InBandError("x", code=1300), None),
        (InBandError("x", code="3051"), None),
        (InBandError("x", code="rate_limit_exceeded"), None),
        (InBandError("x", code=422), 422),
        (InBandError("Model is overloaded"), 429),
        (InBandError("Model is overloaded", code=422), 429),
        (InBandError("Model is overloaded", code=503), 503),
        (InBandError("Request failed during generation: x", code=422), 424),
        (InBandError("Incomplete generation stream"), 500),
        (InBandError("invalid: Model is overloaded", code=422), 422),
    ],
)
def test_the_status_that_an_error_within_a_200_stands_for(told: InBandError, status: int | None) -> None:
    assert status_in(told) == status


@pytest.mark.parametrize(
    ("status", "told", "kind"),
    [
        (500, InBandError("x", "server_error", "context_length_exceeded"), Kind.CONTEXT_LENGTH),
        (503, InBandError("x", code="model_not_found"), Kind.UNSUPPORTED),
        (429, InBandError("x", "requests", "insufficient_quota"), Kind.QUOTA),
        (429, InBandError("x", "engine_overloaded_error"), Kind.RATE_LIMITED),
        (400, InBandError("x", "OverloadedError"), Kind.OVERLOADED),
        (400, InBandError("x", code="RATE_LIMIT_EXCEEDED"), Kind.RATE_LIMITED),
        (403, InBandError("x", code="rateLimitExceeded"), Kind.RATE_LIMITED),
        (503, InBandError("x", "invalid_request_error"), Kind.OVERLOADED),
        (None, InBandError("x", "invalid_request_error"), Kind.CLIENT),
        (None, InBandError("x", "invalid_request_error", "rate_limit_exceeded"), Kind.RATE_LIMITED),
        (None, InBandError("Provider returned error", inner="context_length_exceeded"), Kind.CONTEXT_LENGTH),
        (None, InBandError("Rate limit reached"), Kind.RATE_LIMITED),
        (None, InBandError("over_capacity"), Kind.OVERLOADED),
        (None, InBandError("x"), Kind.SERVER_ERROR),
    ],
)
def test_what_decides(status: int | None, told: InBandError, kind: Kind) -> None:
    assert kind_of(status, told) is kind


def test_only_the_beginning_of_a_message_is_looked_at() -> None:
    reason = "the prompt is too long"
    assert kind_of(400, InBandError(" " * (SEARCHED - len(reason)) + reason)) is Kind.CONTEXT_LENGTH
    assert kind_of(400, InBandError(" " * SEARCHED + reason)) is Kind.CLIENT
