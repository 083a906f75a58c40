"""The table of failures: what a client, the metrics and the log see of each."""

import logging

import orjson
import pytest

from proxy import errors
from proxy.errors import Outcome, ProxyError, Side, error_body

TABLE = """
class             status type                  code                        side       outcome            retry level
ProxyError        500    server_error          internal_error              weir       upstream_error     no    ERROR
ClientFault       400    invalid_request_error invalid_request             downstream client_error       no    INFO
NotFound          404    invalid_request_error not_found                   downstream client_error       no    INFO
TooLarge          413    invalid_request_error request_too_large           downstream client_error       no    INFO
UploadStalled     408    invalid_request_error request_timeout             downstream client_error       no    INFO
Rejected          403    invalid_request_error forbidden                   downstream rejected           no    INFO
Unauthorized      401    invalid_request_error invalid_api_key             downstream rejected           no    INFO
RateLimited       429    requests              rate_limit_exceeded         downstream rejected           no    INFO
QuotaExceeded     429    insufficient_quota    insufficient_quota          downstream rejected           no    INFO
UpstreamFault     502    upstream_error        upstream_error              upstream   upstream_error     yes   WARNING
ConnectFailed     502    upstream_error        upstream_unreachable        upstream   upstream_error     yes   WARNING
Dropped           502    upstream_error        upstream_closed             upstream   upstream_error     no    WARNING
UpstreamTimeout   504    upstream_error        upstream_timeout            upstream   upstream_error     yes   WARNING
OutOfTime         504    upstream_error        deadline_exceeded           upstream   upstream_error     yes   WARNING
BadAnswer         502    upstream_error        upstream_bad_answer         upstream   upstream_error     yes   WARNING
Interrupted       502    upstream_error        upstream_stream_interrupted upstream   stream_interrupted no    WARNING
Unavailable       503    upstream_error        upstream_unavailable        upstream   upstream_error     yes   WARNING
PassedOver        503    upstream_error        upstream_unavailable        upstream   upstream_error     yes   WARNING
DownstreamStalled 500    server_error          downstream_stalled          downstream client_abort       no    INFO
PluginFailed      500    server_error          plugin_failed               weir       upstream_error     no    ERROR
StoreDown         503    server_error          store_unavailable           weir       upstream_error     no    WARNING
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()[1:]]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_what_each_failure_means(row):
    name, status, kind, code, side, outcome, retry, level = row
    error = getattr(errors, name)("what is wrong")
    assert (error.status, error.type, error.error_code) == (int(status), kind, code)
    assert (error.side, error.outcome) == (Side(side), Outcome(outcome))
    assert (error.retryable, error.level) == (retry == "yes", logging.getLevelNamesMapping()[level])
    body = orjson.loads(error.body())
    assert body == {"error": {"message": "what is wrong", "type": kind, "code": code, "param": None}}


def test_the_table_has_every_failure():
    every = [name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, ProxyError)]
    assert sorted(every) == sorted(row[0] for row in ROWS)


def test_what_the_one_who_raises_may_say():
    error = errors.RateLimited("slow down", code="tokens", param="model", headers={"retry-after": "2"})
    assert orjson.loads(error.body())["error"] == {
        "message": "slow down",
        "type": "requests",
        "code": "tokens",
        "param": "model",
    }
    assert error.headers == {"retry-after": "2"}
    assert str(error) == error.message == "slow down"


def test_headers_belong_to_one_error():
    headers = {"retry-after": "2"}
    error = errors.RateLimited("slow down", headers=headers)
    headers["retry-after"] = "3"
    assert error.headers == {"retry-after": "2"}
    assert errors.RateLimited("again").headers == {}


def test_any_text_makes_valid_json():
    assert orjson.loads(error_body('a "quote"\n☺', "t", 7, "p")) == {
        "error": {"message": 'a "quote"\n☺', "type": "t", "code": 7, "param": "p"}
    }


def test_outcomes_are_the_closed_set_of_the_metrics():
    assert [str(outcome) for outcome in Outcome] == [
        "ok",
        "client_error",
        "upstream_error",
        "stream_interrupted",
        "client_abort",
        "rejected",
    ]
    assert {Outcome.OK: 1}["ok"] == 1
