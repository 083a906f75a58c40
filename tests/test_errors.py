"""The table of failures: what a client, the metrics and the log see of each."""

import logging

import orjson
import pytest

from proxy import errors
from proxy.errors import Outcome, ProxyError, error_body

TABLE = """
class              status  type                   code                         outcome             level
ProxyError         500     server_error           internal_error               upstream_error      ERROR
ClientFault        400     invalid_request_error  invalid_request              client_error        INFO
NotFound           404     invalid_request_error  not_found                    client_error        INFO
TooLarge           413     invalid_request_error  request_too_large            client_error        INFO
UploadStalled      408     invalid_request_error  request_timeout              client_error        INFO
Rejected           403     invalid_request_error  forbidden                    rejected            INFO
Unauthorized       401     invalid_request_error  invalid_api_key              rejected            INFO
RateLimited        429     requests               rate_limit_exceeded          rejected            INFO
QuotaExceeded      429     insufficient_quota     insufficient_quota           rejected            INFO
UpstreamFault      502     upstream_error         upstream_error               upstream_error      WARNING
ConnectFailed      502     upstream_error         upstream_unreachable         upstream_error      WARNING
Dropped            502     upstream_error         upstream_closed              upstream_error      WARNING
UpstreamTimeout    504     upstream_error         upstream_timeout             upstream_error      WARNING
OutOfTime          504     upstream_error         deadline_exceeded            upstream_error      WARNING
BadAnswer          502     upstream_error         upstream_bad_answer          upstream_error      WARNING
Interrupted        502     upstream_error         upstream_stream_interrupted  stream_interrupted  WARNING
Unavailable        503     upstream_error         upstream_unavailable         upstream_error      WARNING
PassedOver         503     upstream_error         upstream_unavailable         upstream_error      WARNING
DownstreamStalled  500     server_error           downstream_stalled           client_abort        INFO
PluginFailed       500     server_error           plugin_failed                upstream_error      ERROR
StoreDown          503     server_error           store_unavailable            upstream_error      WARNING
"""
ROWS = [line.split() for line in TABLE.strip().splitlines()[1:]]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_what_each_failure_means(row):
    name, status, kind, code, outcome, level = row
    error = getattr(errors, name)("what is wrong")
    assert (error.status, error.type, error.error_code) == (int(status), kind, code)
    assert (error.outcome, error.level) == (Outcome(outcome), logging.getLevelNamesMapping()[level])
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
