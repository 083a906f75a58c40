"""The downstream edge: aiohttp's low-level server, what it lets in, and what its own refusals look like.

aiohttp parses; the answer is written by `Downstream`, straight to the transport. The handler is cancelled when the app
leaves, in any phase. Paths are looked at and never decoded (DESIGN §10).
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import aiohttp
from aiohttp import web
from typing_extensions import override

from proxy.downstream import Downstream
from proxy.errors import ClientFault, Interrupted, ProxyError, TooLarge
from proxy.exchange import Exchange, Request, Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Serve = Callable[[Exchange, Downstream], Awaitable[None]]

log = logging.getLogger("weir.server")

MAX_HEADER_BYTES = 64 * 1024
LINGER_SECONDS = 5.0
"""How long a refused upload is read on, so that its sender gets to see the answer."""

# DESIGN §10: a segment that is `.` or `..` in any spelling, its border `/`, `%2f` or `%5c`
_DOT = r"(?:\.|%2e)"
_BORDER = r"(?:/|%2f|%5c)"
_AMBIGUOUS = re.compile(rf"//|\\|%5c|(?:^|{_BORDER}){_DOT}{_DOT}?(?:{_BORDER}|\?|$)", re.IGNORECASE)
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f#]")
_SEEN = 1024  # verdicts kept at hand: an app asks for the same few paths
_HOST = re.compile(r"(?:\[[0-9a-fA-F:.%]+\]|[A-Za-z0-9_.~!$&'()*+,;=%-]*)(?::\d*)?")


class Server(web.Server):
    """Hands each request as an Exchange to `serve`. `is_draining`: answers say `Connection: close`."""

    def __init__(self, serve: Serve, *, max_request_bytes: int) -> None:
        super().__init__(
            self._handle,  # type: ignore[arg-type]  # what it returns is all that the protocol looks at
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            lingering_time=LINGER_SECONDS,
        )
        self._serve = serve
        self._limit = max_request_bytes
        self.is_draining = False
        self.in_flight = 0
        self._idle = asyncio.Event()

    @override
    def __call__(self) -> web.RequestHandler:
        return Edge(self, loop=self._loop, **self._kwargs)

    async def _handle(self, raw: web.BaseRequest) -> Written:
        downstream = _downstream(raw, keep_alive=raw.keep_alive and not self.is_draining)
        request = _request(raw, self._limit, downstream)
        exchange = Exchange(new_id(), request)
        exchange.error = _refusal(raw, self._limit)
        if exchange.error is not None:
            downstream.keep_alive = False
        edge = cast("Edge", raw.protocol)
        edge.downstream = downstream
        self.in_flight += 1
        try:
            await self._serve(exchange, downstream)
            edge.downstream = None  # where it raised, `handle_error` looks at it
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()
        return Written(downstream)

    def interrupt(self) -> None:
        """End what still streams, and say so in each stream."""
        for edge in self.connections:
            downstream = cast("Edge", edge).downstream
            if downstream is not None and downstream.source is not None:
                downstream.source.interrupt(Interrupted("Weir is shutting down", code="shutting_down"))

    async def idle(self) -> None:
        """Wait until no exchange is under way."""
        while self.in_flight:
            self._idle.clear()
            await self._idle.wait()


class Edge(web.RequestHandler):
    """One connection of an app: tells the upstream's side when the app reads too slowly."""

    __slots__ = ("downstream",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.downstream: Downstream | None = None

    @override
    def resume_reading(self, resume_parser: bool = True) -> None:
        """Aiohttp calls this after every read of a body; there is something to do only where reading was paused."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        if self.downstream is not None and self.downstream.source is not None:
            self.downstream.source.pause()

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        if self.downstream is not None and self.downstream.source is not None:
            self.downstream.source.resume()

    @override
    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """What is not HTTP at all gets OpenAI's error shape too."""
        if status >= 500:
            log.error("request failed at the edge", exc_info=exc)
        if self.downstream is not None and self.downstream.is_started:
            raise ConnectionError("the answer has begun already")
        is_ours = status >= 500
        fault = ProxyError("an error inside Weir") if is_ours else ClientFault("this is not HTTP/1.1", code="bad_http")
        response = Response.of_error(fault)
        identity = new_id()
        headers = {**response.headers, "x-weir-request-id": identity, "x-request-id": identity, "connection": "close"}
        answer = web.Response(status=status, body=response.body, headers=headers)
        answer.force_close()
        return answer


class Written:
    """A response that has been written already: all that aiohttp still wants to know is `keep_alive`."""

    __slots__ = ("keep_alive",)

    def __init__(self, downstream: Downstream) -> None:
        self.keep_alive = downstream.keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing is left to do."""

    async def write_eof(self) -> None:
        """Nothing is left to do."""


class Payload:
    """The body of a request as it comes in, with faults of the sender as ClientFault."""

    __slots__ = ("_content",)

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    def is_eof(self) -> bool:
        return self._content.is_eof()

    async def readany(self) -> bytes:
        try:
            return await self._content.readany()
        except (web.RequestPayloadError, aiohttp.ClientError, ConnectionError) as error:
            raise ClientFault(
                "the request body broke off or is not framed as its header says", code="bad_body"
            ) from error


def new_id() -> str:
    """Unique, not secret: a cheap generator will do."""
    return f"req_{random.getrandbits(96):024x}"


def _downstream(raw: web.BaseRequest, *, keep_alive: bool) -> Downstream:
    transport = cast("asyncio.Transport", raw.transport)
    return Downstream(transport, raw.method, is_http11=raw.version >= aiohttp.HttpVersion11, keep_alive=keep_alive)


def _request(raw: web.BaseRequest, limit: int, downstream: Downstream) -> Request:
    content, headers, target = raw.content, raw.headers, origin_form(raw.raw_path)
    if content.is_eof():
        body = content.read_nowait() if content.total_bytes else b""
        request = Request(raw.method, target, headers, body=body, limit=limit)
        request.spelled = raw.raw_headers
        return request
    request = Request(raw.method, target, headers, upload=Payload(content), limit=limit)
    request.spelled = raw.raw_headers
    if "expect" in headers:
        request.call_when_wanted(downstream.ask_for_body)
    return request


def origin_form(target: str) -> str:
    """`http://host/path` means `/path`: which host is meant is not the app's to say."""
    if target.startswith("/"):
        return target
    scheme, separator, rest = target.partition("://")
    if separator and scheme.lower() in {"http", "https"}:
        slash = rest.find("/")
        return rest[slash:] if slash >= 0 else "/"
    return target


def _refusal(raw: web.BaseRequest, limit: int) -> ClientFault | None:
    """What may not pass: decided on the bytes that would be forwarded."""
    if not aiohttp.HttpVersion10 <= raw.version <= aiohttp.HttpVersion11:
        return ClientFault("this is not HTTP/1.1", code="bad_http")
    fault = target_fault(raw.raw_path) or host_fault(tuple(raw.headers.getall("host", ())))
    if fault is not None:
        return ClientFault(fault, code="bad_target")
    if max(int(raw.headers.get("content-length", 0)), raw.content.total_bytes) > limit:
        return TooLarge(f"the request body is larger than {limit} bytes (server.max_request_bytes)")
    return None


@lru_cache(_SEEN)
def target_fault(target: str) -> str | None:
    """Why a request target is refused, or None."""
    path = origin_form(target)
    if not path.startswith("/"):
        return "the request target must be a path"
    if path != target and "@" in target.partition("://")[2].partition("/")[0]:
        return "the request target must not hold a user name"
    if _AMBIGUOUS.search(path.partition("?")[0]) or _FORBIDDEN.search(path):
        return "the path is ambiguous: no empty or dot segments, backslashes, fragments or control characters"
    return None


@lru_cache(_SEEN)
def host_fault(hosts: tuple[str, ...]) -> str | None:
    if len(hosts) > 1 or (hosts and not _HOST.fullmatch(hosts[0])):
        return "the Host header is not a host name"
    return None
