"""The downstream edge: aiohttp's low-level server, what it lets in, and what its own refusals look like.

aiohttp parses; the answer is written by `Downstream`, straight to the transport. When the app leaves, in any phase, the
handler is cancelled, unless somebody holds its exchange. Paths are looked at and never decoded (DESIGN §10).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

import aiohttp
from aiohttp import web
from aiohttp.http import HttpProcessingError, RawRequestMessage
from multidict import CIMultiDict, CIMultiDictProxy
from typing_extensions import override

from proxy.downstream import Downstream
from proxy.errors import ClientFault, Interrupted, ProxyError, TooLarge
from proxy.exchange import Exchange
from proxy.request import Request
from proxy.response import Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from proxy.downstream import Sink

    Serve = Callable[[Exchange, Downstream], Awaitable[None]]

log = logging.getLogger("weir.server")

MAX_LINES = 128
MAX_LINE_BYTES = 64 * 1024
"""Of a request's header."""
_UNREADABLE = "this is not HTTP/1.1, or its header is too large: a line may have 64 KiB, and there may be 128"
HEADER_SECONDS = 60.0
"""How long a new connection may take until its first request's header is here."""
EMPTY_SECONDS = 0.05
LINGER_SECONDS = 5.0
"""How long a refused upload is read on, so that its sender gets to see the answer."""

# DESIGN §10: a segment that is `.` or `..` in any spelling, its border `/`, `%2f` or `%5c`
_DOT = r"(?:\.|%2e)"
_BORDER = r"(?:/|%2f|%5c)"
_AMBIGUOUS = re.compile(rf"//|\\|%5c|(?:^|{_BORDER}){_DOT}{_DOT}?(?:{_BORDER}|\?|$)", re.IGNORECASE)
_FORBIDDEN = re.compile(r"[\x00-\x20\x7f#]")
_SEEN = 1024  # verdicts kept at hand: an app asks for the same few paths
NEVER_FORWARDED = frozenset({"CONNECT", "TRACE", "TRACK"})
"""They ask for a tunnel, or for the request as the upstream got it, our credential included."""

_NO_HEADER: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())
_VERSIONS = (aiohttp.HttpVersion11, aiohttp.HttpVersion10)

_HOST = re.compile(r"(?:\[[0-9a-fA-F:.%]+\]|[A-Za-z0-9_.~!$&'()*+,;=%-]*)(?::\d*)?")


class Server(web.Server):
    """Hands each request as an Exchange to `serve`, which a reload replaces. `is_draining`: answers say
    `Connection: close`.

    `left` are connections whose app has gone while their exchange goes on.
    """

    def __init__(self, serve: Serve, *, max_request_bytes: int) -> None:
        super().__init__(
            self._handle,  # type: ignore[arg-type]  # what it returns is all that the protocol looks at
            handler_cancellation=False,  # `Edge.connection_lost` decides
            access_log=None,
            auto_decompress=False,
            max_headers=MAX_LINES,
            max_line_size=MAX_LINE_BYTES,
            max_field_size=MAX_LINE_BYTES,
            lingering_time=LINGER_SECONDS,
        )
        self.serve = serve
        self.max_request_bytes = max_request_bytes
        self.is_draining = False
        self.in_flight = 0
        self.left: set[Edge] = set()
        self._idle = asyncio.Event()

    @override
    def __call__(self) -> web.RequestHandler:
        return Edge(self, loop=self._loop, **self._kwargs)

    def _handle(self, raw: web.BaseRequest) -> Awaitable[Written]:
        edge, content = cast("Edge", raw.protocol), raw.content
        downstream = _downstream(raw, keep_alive=raw.keep_alive and not self.is_draining)
        request = _request(raw, content, self.max_request_bytes, downstream)
        exchange = Exchange(new_id(), request)
        exchange.error = _refusal(raw, request, content.total_bytes, self.max_request_bytes)
        if exchange.error is not None:
            downstream.keep_alive = False
        edge.begin(exchange, downstream, content)
        if "upgrade" in request.headers and _may_switch(raw, request) and edge.is_switched:
            request.is_upgrade, downstream.app = True, edge
        return self._answer(exchange, downstream, edge)

    def refuse(self, raw: web.BaseRequest) -> Awaitable[Written]:
        """What aiohttp cannot parse is an exchange too, counted and logged, but it has no target."""
        downstream = _downstream(raw, keep_alive=False)
        exchange = Exchange(new_id(), Request(raw.method, "", _NO_HEADER))
        exchange.error = ClientFault(_UNREADABLE, code="bad_http")
        edge = cast("Edge", raw.protocol)
        edge.begin(exchange, downstream, None)
        return self._answer(exchange, downstream, edge)

    async def _answer(self, exchange: Exchange, downstream: Downstream, edge: Edge) -> Written:
        self.in_flight += 1
        try:
            await self.serve(exchange, downstream)
            edge.downstream = edge.content = None  # where it raised, `handle_error` looks at it
        finally:
            edge.exchange = None
            self.left.discard(edge)
            self.in_flight -= 1
            if not self.in_flight:
                self._idle.set()
        return Written(downstream)

    def interrupt(self) -> None:
        """End what still streams, and say so in each stream."""
        for edge in (*cast("list[Edge]", self.connections), *self.left):
            downstream = edge.downstream
            if downstream is not None and downstream.source is not None:
                downstream.source.interrupt(Interrupted("Weir is shutting down", code="shutting_down"))

    async def is_idle_in(self, seconds: float) -> bool:
        """Wait until no exchange is under way, so long; whether it came to that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.in_flight:
                    self._idle.clear()
                    await self._idle.wait()
        return not self.in_flight

    async def emptied(self, seconds: float) -> None:
        """Wait until all connections have gone, so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.connections:  # noqa: ASYNC110 - aiohttp tells nobody, and there is no haste
                    await asyncio.sleep(EMPTY_SECONDS)

    @override
    async def shutdown(self, timeout: float | None = None) -> None:
        """What goes on for apps that have gone ends as well."""
        going_on = {edge.work for edge in self.left if edge.work is not None}
        for work in going_on:
            work.cancel()
        if going_on:
            await asyncio.wait(going_on, timeout=timeout)
        await super().shutdown(timeout)


class Edge(web.RequestHandler):
    """One connection of an app: tells the upstream's side when the app reads too slowly, or has gone."""

    __slots__ = ("content", "downstream", "exchange", "opening", "sink", "work")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.content: aiohttp.StreamReader | None = None
        self.downstream: Downstream | None = None
        self.exchange: Exchange | None = None
        self.sink: Sink | None = None
        self.work: asyncio.Task[None] | None = None
        self.opening: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.opening = self._loop.call_later(HEADER_SECONDS, self.force_close)

    def _opened(self) -> None:
        """Its first request is here, or it has gone."""
        if self.opening is not None:
            self.opening.cancel()
            self.opening = None

    def begin(self, exchange: Exchange, downstream: Downstream, content: aiohttp.StreamReader | None) -> None:
        """A request is under way; `content` is its body, which may still be coming."""
        self._opened()
        self.exchange, self.downstream, self.content = exchange, downstream, content
        if self._messages:
            self._notice_failure()

    @override
    def connection_lost(self, exc: BaseException | None) -> None:
        """Who serves is cancelled, at once or when nobody needs the answer any more."""
        self._opened()
        work, server = self._task_handler, cast("Server | None", self._manager)
        super().connection_lost(exc)
        if work is None or server is None:
            return
        self.work = work
        if self.exchange is None:
            work.cancel()
        elif self.exchange.leave(work.cancel):
            server.left.add(self)
            if self.downstream is not None and self.downstream.source is not None:
                self.downstream.source.resume()

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._messages:
            self._notice_failure()

    def _notice_failure(self) -> None:
        """Aiohttp queues what its parser refuses like the next request; its compiled one tells nobody else.

        Who waits for the present body would wait for ever.
        """
        content, last = self.content, self._messages[-1][0]
        if content is None or content.is_eof() or isinstance(last, RawRequestMessage):
            return
        content.set_exception(web.RequestPayloadError("the body is not framed as its header says"))
        content.feed_eof()
        if self.downstream is not None:
            self.downstream.keep_alive = False

    @property
    def is_switched(self) -> bool:
        """Whether the parser takes all that follows the present request for another protocol's.

        aiohttp sets `_upgraded` where it has parsed a request for a WebSocket, and parses no further; that one is the
        present one when none is left in `_messages`.
        """
        return self._upgraded and not self._messages

    def join(self, sink: Sink) -> None:
        """From now on the app's bytes go to `sink`, what came behind the handshake first."""
        self.sink = sink
        self.set_parser(cast("Any", Pushed(sink)))

    @override
    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp declares None; asyncio takes a bool
        return self.sink is not None and self.sink.app_ended()

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
        """What nobody foresaw gets OpenAI's error shape too."""
        log.error("request failed at the edge", exc_info=exc)
        if self.downstream is not None and self.downstream.is_started:
            raise ConnectionError("the answer has begun already")
        response, identity = Response.of_error(ProxyError("an error inside Weir")), new_id().encode()
        fields = [*response.fields(), (b"Content-Length", b"%d" % len(response.body))]
        fields += [(b"x-weir-request-id", identity), (b"x-request-id", identity)]
        downstream = _downstream(request, keep_alive=False)
        downstream.start(status, None, fields, b"", is_framed=True)
        downstream.write(response.body)
        downstream.flush()
        return cast("web.StreamResponse", Written(downstream))

    @override
    def _make_error_handler(self, err_info: Any) -> Any:
        """Called where aiohttp's parser gave up."""
        return cast("Server", self._manager).refuse


class Pushed:
    """What aiohttp takes for its reader of WebSockets: hands every byte on as it came."""

    __slots__ = ("_sink",)

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Never at its end, and nothing is left over."""
        self._sink.send(data)
        return False, b""

    def feed_eof(self) -> None:
        """The app is lost: its handler, which is cancelled, knows."""


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
    """The body of a request as it comes in, bounded; faults of its sender are ClientFaults, and end the connection."""

    __slots__ = ("_content", "_downstream", "_limit", "_room")

    def __init__(self, content: aiohttp.StreamReader, limit: int, downstream: Downstream) -> None:
        self._content = content
        self._limit = self._room = limit
        self._downstream = downstream

    def is_eof(self) -> bool:
        return self._content.is_eof()

    async def readany(self) -> bytes:
        try:
            chunk = await self._content.readany()
        except (web.RequestPayloadError, HttpProcessingError, aiohttp.ClientError, ConnectionError) as error:
            self._downstream.keep_alive = False
            raise ClientFault(
                "the request body broke off or is not framed as its header says", code="bad_body"
            ) from error
        self._room -= len(chunk)
        if self._room < 0:
            self._downstream.keep_alive = False
            raise _too_large(self._limit)
        return chunk


def new_id() -> str:
    """Unique, not secret: a cheap generator will do."""
    return f"req_{random.getrandbits(96).to_bytes(12).hex()}"


def _downstream(raw: web.BaseRequest, *, keep_alive: bool) -> Downstream:
    transport = cast("asyncio.Transport", raw.transport)
    return Downstream(transport, raw.method, is_http11=raw.version >= aiohttp.HttpVersion11, keep_alive=keep_alive)


def _request(raw: web.BaseRequest, content: aiohttp.StreamReader, limit: int, downstream: Downstream) -> Request:
    upload = None if content.is_eof() else Payload(content, limit, downstream)
    body = content.read_nowait() if upload is None and content.total_bytes else b""
    request = Request(raw.method, origin_form(raw.raw_path), raw.headers, body=body, upload=upload)
    request.spelled = raw.raw_headers
    if upload is not None and "expect" in request.headers:
        request.call_when_wanted(downstream.ask_for_body)
    return request


def _may_switch(raw: web.BaseRequest, request: Request) -> bool:
    return raw.version >= aiohttp.HttpVersion11 and request.method == "GET" and request.at_hand == b""


def origin_form(target: str) -> str:
    """`http://host/path` means `/path`: which host is meant is not the app's to say."""
    if target.startswith("/"):
        return target
    scheme, separator, rest = target.partition("://")
    if separator and scheme.lower() in {"http", "https"}:
        slash = rest.find("/")
        return rest[slash:] if slash >= 0 else "/"
    return target


def _refusal(raw: web.BaseRequest, request: Request, received: int, limit: int) -> ClientFault | None:
    """What may not pass: decided on the bytes that would be forwarded; `received` are those of the body so far."""
    version, headers = raw.version, request.headers
    if version not in _VERSIONS:
        return ClientFault("this is not HTTP/1.1", code="bad_http")
    coding = headers.get("transfer-encoding")
    if coding is not None and (version < aiohttp.HttpVersion11 or coding.strip().lower() != "chunked"):
        return ClientFault("the only transfer coding is `chunked`, and of HTTP/1.1", code="bad_http")
    if request.method in NEVER_FORWARDED:
        return ClientFault(f"{request.method} is not served here", code="bad_method")
    fault = target_fault(raw.raw_path) or host_fault(tuple(headers.getall("host", ())))
    if fault is not None:
        return ClientFault(fault, code="bad_target")
    if received > limit or int(headers.get("content-length", 0)) > limit:
        return _too_large(limit)
    return None


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the request body is larger than {limit} bytes (server.max_request_bytes)")


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
