"""Errors in OpenAI's shape: ``{"error": {"message", "type", "param", "code"}}``."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import web


class ApiError(Exception):
    def __init__(
        self,
        status: HTTPStatus,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers

    @property
    def kind(self) -> str:
        if self.status == HTTPStatus.TOO_MANY_REQUESTS:
            return "requests"
        return "server_error" if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> web.Response:
        body = orjson.dumps(self.body())
        return web.Response(body=body, status=self.status, headers=self.headers, content_type="application/json")


class ConnectionCutError(Exception):
    """The answer ends here, and the connection with it."""


def invalid(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    return ApiError(HTTPStatus.BAD_REQUEST, message, param=param, code=code)


def missing(kind: str, name: str) -> ApiError:
    return ApiError(HTTPStatus.NOT_FOUND, f"There is no {kind} '{printable(name)}'.", param="id")


def printable(text: str) -> str:
    """Paths and header values may hold bytes that are no UTF-8; JSON cannot."""
    return text.encode(errors="replace").decode()


def routing(request: web.Request, error: web.HTTPException) -> ApiError:
    """What aiohttp says in plain text (404, 405, 413), as OpenAI says it."""
    status = HTTPStatus(error.status)
    where = printable(f"{request.method} {request.path}")
    match status:
        case HTTPStatus.NOT_FOUND:
            return ApiError(status, f"Unknown request URL: {where}.", code="unknown_url")
        case HTTPStatus.METHOD_NOT_ALLOWED:
            allow = {"allow": error.headers.get("allow", "")}
            return ApiError(status, f"Method not supported: {where}.", code="method_not_supported", headers=allow)
    return ApiError(status, error.text or status.phrase)
