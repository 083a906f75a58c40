"""What an attempt failed of: real errors of all upstreams, our own errors, and that no bytes can upset the classifier."""

from __future__ import annotations

import gzip
import pathlib
import time
import zlib
from typing import Any

import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from proxy import errors
from proxy.answer import Answer, in_band_error
from proxy.errors import Outcome
from proxy.fault import READ_BYTES, Fault, Kind, fault_in_band, fault_of_end, fault_of_error, fault_of_response
from proxy.response import Response
from proxy.sse import Event

CASES = yaml.safe_load(pathlib.Path(__file__).with_name("golden").joinpath("faults.yaml").read_text())
TOO_LONG = (
    b'{"error":{"message":"This model\'s maximum context length is 8192 tokens.","type":"invalid_request_error"}}'
)


def fault_of(case: dict[str, Any]) -> Fault:
    if "status" not in case:
        told = in_band_error(case["body"])
        assert told is not None
        return fault_in_band(told)
    body = orjson.dumps(case["body"]) if case["body"] else b""
    return fault_of_response(Response(case["status"], headers=case.get("fields"), body=body))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_what_upstreams_say(case: dict[str, Any]) -> None:
    kind, wait, _ = fault_of(case)
    assert (kind.value, wait) == (case["kind"], pytest.approx(case["wait"]) if "wait" in case else None)


@pytest.mark.parametrize(
    ("said", "should_retry"),
    [("true", True), ("false", False), (" False ", False), ("", None), ("maybe", None), (None, None)],
)
def test_what_openai_says_of_asking_again(said: str | None, should_retry: bool | None) -> None:
    headers = {} if said is None else {"x-should-retry": said}
    fault = fault_of_response(Response(500, headers=headers))
    assert fault == Fault(Kind.SERVER_ERROR, None, should_retry)


def test_the_table_has_each_kind_that_can_be_told() -> None:
    untold = {Kind.UNREACHABLE, Kind.BROKEN, Kind.SLOW, Kind.LATE, Kind.DROPPED, Kind.CLIENT_GONE, Kind.OURS}
    assert {case["kind"] for case in CASES} == set(Kind) - untold
    assert len({case["name"] for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", [case for case in CASES if "status" not in case], ids=lambda case: case["name"])
def test_the_same_within_a_stream(case: dict[str, Any]) -> None:
    answer = Answer(expected=True)
    answer.see(Event.of_json(case["body"]))
    assert answer.error is not None
    assert fault_in_band(answer.error) == fault_of(case)


def test_an_answer_that_a_filter_cut_short_is_one() -> None:
    served = {"choices": [{"index": 0, "message": {"content": ""}, "finish_reason": "content_filter"}]}
    assert in_band_error(served) is None


@pytest.mark.parametrize("error", [{}, {"code": None, "message": None, "param": None}, "", None, []])
def test_a_form_in_which_nothing_stands_is_no_error(error: Any) -> None:
    assert in_band_error({"object": "fine_tuning.job", "error": error}) is None
    assert in_band_error({"object": "fine_tuning.job", "error": {"code": None, "message": "x"}}) is not None


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Kind.CLIENT),
        (401, Kind.REFUSED),
        (402, Kind.QUOTA),
        (403, Kind.REFUSED),
        (404, Kind.UNSUPPORTED),
        (408, Kind.SERVER_ERROR),
        (409, Kind.BUSY),
        (413, Kind.CLIENT),
        (422, Kind.CLIENT),
        (429, Kind.RATE_LIMITED),
        (500, Kind.SERVER_ERROR),
        (501, Kind.UNSUPPORTED),
        (502, Kind.SERVER_ERROR),
        (503, Kind.OVERLOADED),
        (504, Kind.TIMEOUT),
        *((status, Kind.SERVER_ERROR) for status in (520, 521, 522, 523, 525, 526, 527, 599)),
        (524, Kind.TIMEOUT),
        (529, Kind.OVERLOADED),
    ],
)
@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"null", b"no JSON", b'{"error":{"code":"nope"}}', b'{"error":0}'])
def test_a_status_without_words(status: int, kind: Kind, body: bytes) -> None:
    assert fault_of_response(Response(status, body=body)) == Fault(kind)


@pytest.mark.parametrize("status", [400, 422, 500])
@pytest.mark.parametrize(
    "words", ["Model is overloaded", "Request failed during generation", "Incomplete generation", "server_error", "503"]
)
def test_what_an_error_quotes_of_the_request_harms_no_upstream(status: int, words: str) -> None:
    told = {"error": {"message": f"invalid value: {words}", "type": "invalid_request_error", "code": "invalid_value"}}
    fault = fault_of_response(Response(status, body=orjson.dumps(told)))
    assert fault.kind is (Kind.SERVER_ERROR if status == 500 else Kind.CLIENT)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "identity", "GZIP"])
def test_a_compressed_error_is_read(encoding: str) -> None:
    body = {"gzip": gzip.compress, "deflate": zlib.compress}.get(encoding.lower(), bytes)(TOO_LONG)
    fault = fault_of_response(Response(400, headers={"content-encoding": encoding}, body=body))
    assert fault.kind is Kind.CONTEXT_LENGTH


@pytest.mark.parametrize(
    ("encoding", "body"), [("br", TOO_LONG), ("gzip", TOO_LONG), ("gzip", gzip.compress(bytes(10**9 // 20))[:-9])]
)
def test_of_an_unreadable_error_the_status_is_left(encoding: str, body: bytes) -> None:
    assert fault_of_response(Response(503, headers={"content-encoding": encoding}, body=body)).kind is Kind.OVERLOADED


def test_of_a_long_error_the_beginning_counts() -> None:
    long = TOO_LONG[:-2] + b',"input":"%b"}}' % bytes(2 * READ_BYTES).replace(b"\0", b"x")
    assert fault_of_response(Response(400, body=long)).kind is Kind.CONTEXT_LENGTH
    late = b"x" * READ_BYTES + TOO_LONG
    assert fault_of_response(Response(400, body=late)).kind is Kind.CLIENT


@pytest.mark.parametrize("text", ["x", "exceed context ", "all any more ", "all a b ", "token count ", "try again in "])
def test_a_huge_error_costs_little(text: str) -> None:
    body = (text * (2 * 2**20 // len(text))).encode()
    began = time.process_time()
    for _ in range(10):
        fault_of_response(Response(429, headers={"retry-after": text * 1000}, body=body))
    assert time.process_time() - began < 2


def test_an_error_nested_deeply_is_one() -> None:
    for body in (b'{"error":%b1%b}', b'{"error":{"message":%b1%b}}', b'{"detail":%b1%b}'):
        deep = body % (b"[" * 1000, b"]" * 1000)
        assert fault_of_response(Response(500, body=deep)) == Fault(Kind.SERVER_ERROR)


NAMES = [
    "error",
    "message",
    "type",
    "code",
    "status",
    "error_type",
    "innererror",
    "metadata",
    "raw",
    "detail",
    "choices",
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=12,
)
BODIES = st.binary(max_size=60) | JSON.map(orjson.dumps)
FIELDS = st.dictionaries(
    st.sampled_from(
        ["retry-after", "retry-after-ms", "x-ratelimit-reset-tokens", "x-should-retry", "date", "content-encoding"]
    ),
    st.binary(max_size=40).map(lambda value: value.decode("utf-8", "surrogateescape")),
)


@given(st.integers(400, 999), BODIES, FIELDS)
def test_no_answer_raises(status: int, body: bytes, fields: dict[str, str]) -> None:
    kind, wait, _ = fault_of_response(Response(status, headers=fields, body=body))
    assert isinstance(kind, Kind)
    assert wait is None or 0 <= wait <= 86_400


@given(JSON.map(lambda value: {"error": value}), st.sampled_from(["", "error"]))
def test_no_error_within_an_answer_raises(value: Any, name: str) -> None:
    told = in_band_error(value, name)
    assert told is None or isinstance(fault_in_band(told).kind, Kind)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.ConnectFailed("x"), Kind.UNREACHABLE),
        (errors.Unavailable("all connections are in use"), Kind.BUSY),
        (errors.UpstreamTimeout("x"), Kind.TIMEOUT),
        (errors.OutOfTime("x"), Kind.LATE),
        (errors.Dropped("x"), Kind.DROPPED),
        (errors.Interrupted("closed"), Kind.BROKEN),
        (errors.Interrupted("fell silent", code="upstream_timeout"), Kind.TIMEOUT),
        (errors.Interrupted("Weir is shutting down", code="shutting_down"), Kind.OURS),
        (errors.BadAnswer("x"), Kind.BROKEN),
        (errors.BadAnswer("held, and fell silent", code="upstream_timeout"), Kind.TIMEOUT),
        (errors.UpstreamFault("x"), Kind.BROKEN),
        (errors.ClientFault("the request body broke off", code="bad_body"), Kind.CLIENT),
        (errors.TooLarge("x"), Kind.CLIENT),
        (errors.DownstreamStalled("x"), Kind.CLIENT_GONE),
        (errors.Rejected("x"), Kind.OURS),
        (errors.UploadStalled("x"), Kind.CLIENT),
        (errors.RateLimited("our own"), Kind.OURS),
        (errors.PluginFailed("x"), Kind.OURS),
        (errors.StoreDown("x"), Kind.OURS),
        (errors.ProxyError("x"), Kind.OURS),
    ],
    ids=lambda given: type(given).__name__ if isinstance(given, errors.ProxyError) else str(given),
)
def test_our_own_errors(error: errors.ProxyError, kind: Kind) -> None:
    assert fault_of_error(error) == Fault(kind)


@pytest.mark.parametrize(
    ("outcome", "error", "kind"),
    [
        (Outcome.CLIENT_ABORT, None, Kind.CLIENT_GONE),
        (Outcome.CLIENT_ABORT, errors.Interrupted("and then it broke"), Kind.CLIENT_GONE),
        (Outcome.STREAM_INTERRUPTED, None, Kind.BROKEN),
        (Outcome.STREAM_INTERRUPTED, errors.Interrupted("x"), Kind.BROKEN),
        (Outcome.STREAM_INTERRUPTED, errors.Interrupted("x", code="upstream_timeout"), Kind.TIMEOUT),
        (Outcome.UPSTREAM_ERROR, errors.PluginFailed("x"), Kind.OURS),
        (Outcome.UPSTREAM_ERROR, errors.BadAnswer("x"), Kind.BROKEN),
        (Outcome.REJECTED, None, Kind.OURS),
        (Outcome.REJECTED, errors.Rejected("a filter"), Kind.OURS),
        (Outcome.CLIENT_ERROR, None, Kind.OURS),
    ],
)
def test_ends(outcome: Outcome, error: errors.ProxyError | None, kind: Kind) -> None:
    assert fault_of_end(outcome, error) == Fault(kind)
