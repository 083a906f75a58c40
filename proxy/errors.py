"""Every failure that a client can see, and what it means: one place decides status, type, code, outcome and log level.

The text of an error says what is wrong and what to do; it never holds a URL, a credential or a body.
"""

from __future__ import annotations

import logging
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping


class Outcome(StrEnum):
    """How an exchange or an attempt ended: a closed set, the `outcome` label of the metrics."""

    OK = "ok"
    CLIENT_ERROR = "client_error"
    UPSTREAM_ERROR = "upstream_error"
    STREAM_INTERRUPTED = "stream_interrupted"
    CLIENT_ABORT = "client_abort"
    REJECTED = "rejected"

    __hash__ = str.__hash__  # Enum's own is written in Python, and these are counted for every request


OK = Outcome.OK
"""Before Python 3.12 a look at a member of an Enum costs as much as a call, and this one is looked at all the time."""


class ProxyError(Exception):
    """A request that Weir answers by itself, in OpenAI's error shape.

    Plugins raise a subclass to refuse a request.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str] = "internal_error"
    outcome: ClassVar[Outcome] = Outcome.UPSTREAM_ERROR
    level: ClassVar[int] = logging.ERROR

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.error_code = code or self.code
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        return error_body(self.message, self.type, self.error_code, self.param)


def error_body(message: str, kind: str, code: str | int | None, param: str | None = None) -> bytes:
    """OpenAI's error object as JSON."""
    return orjson.dumps({"error": {"message": message, "type": kind, "code": code, "param": param}})


class ClientFault(ProxyError):
    """The request itself is wrong; sending it again changes nothing."""

    status = 400
    type = "invalid_request_error"
    code = "invalid_request"
    outcome = Outcome.CLIENT_ERROR
    level = logging.INFO


class NotFound(ClientFault):
    status = 404
    code = "not_found"


class TooLarge(ClientFault):
    status = 413
    code = "request_too_large"


class UploadStalled(ClientFault):
    """The app stopped sending its request's body."""

    status = 408
    code = "request_timeout"


class Rejected(ProxyError):
    """A policy said no."""

    status = 403
    type = "invalid_request_error"
    code = "forbidden"
    outcome = Outcome.REJECTED
    level = logging.INFO


class Unauthorized(Rejected):
    status = 401
    code = "invalid_api_key"


class RateLimited(Rejected):
    status = 429
    type = "requests"
    code = "rate_limit_exceeded"


class QuotaExceeded(Rejected):
    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"


class UpstreamFault(ProxyError):
    """The upstream could not be reached, or what it said cannot be passed on."""

    status = 502
    type = "upstream_error"
    code = "upstream_error"
    level = logging.WARNING


class ConnectFailed(UpstreamFault):
    code = "upstream_unreachable"


class Dropped(UpstreamFault):
    """The upstream took the request and closed without a word: it may have done the work."""

    code = "upstream_closed"


class UpstreamTimeout(UpstreamFault):
    status = 504
    code = "upstream_timeout"


class OutOfTime(UpstreamTimeout):
    """The deadline of a request's attempts passed before a limit of the upstream's own did."""

    code = "deadline_exceeded"


class BadAnswer(UpstreamFault):
    code = "upstream_bad_answer"


class Interrupted(UpstreamFault):
    """The answer broke off after its first byte had gone down."""

    code = "upstream_stream_interrupted"
    outcome = Outcome.STREAM_INTERRUPTED


class Unavailable(UpstreamFault):
    """No target can serve now: all out, or all their connections are taken.

    `wait`: raised by `select_targets`, so many seconds make it worth to select again.
    """

    status = 503
    code = "upstream_unavailable"
    wait: float | None = None


class PassedOver(Unavailable):
    """Raised by `on_attempt`: not this target, and no attempt; the next one is tried."""


class DownstreamStalled(ProxyError):
    """The app stopped reading its answer."""

    code = "downstream_stalled"
    outcome = Outcome.CLIENT_ABORT
    level = logging.INFO


class PluginFailed(ProxyError):
    """A plugin that fails closed raised something unforeseen."""

    code = "plugin_failed"


class StoreDown(ProxyError):
    """A plugin that fails closed could not reach its store."""

    status = 503
    code = "store_unavailable"
    level = logging.WARNING
