"""An OpenAI-compatible upstream: where a path goes, which credential it gets, and one request to it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import ssl
import time
import urllib.parse
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from proxy.encoding import is_plain
from proxy.errors import ConnectFailed, Dropped, OutOfTime, PluginFailed, ProxyError, Unavailable
from proxy.fit import Capacity
from proxy.headers import downstream_fields, upgrade_fields, upstream_fields
from proxy.upstream.connection import Connection, Limits
from proxy.upstream.credentials import BEARER, Credential
from proxy.upstream.dial import Dialer, Origin
from proxy.upstream.incoming import whole
from proxy.upstream.pool import REST_PLAIN, REST_TLS, Pool
from proxy.watch import mark

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from proxy import config
    from proxy.attempt import Attempt
    from proxy.headers import Fields
    from proxy.request import Request
    from proxy.scalars import Placement
    from proxy.upstream.incoming import Incoming
    from proxy.upstream.pace import Pace
    from proxy.upstream.warming import Warming
    from proxy.upstream.work import Work
    from proxy.watch import Mark

    OnInterim = Callable[[int, bytes, Fields], None]

MAX_CONTEXTS = 16
LAST_CHUNK = b"0\r\n\r\n"
PROBE_BYTES = 64 * 1024
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS"})


class OpenAI:
    KEY_IN: ClassVar[Placement] = BEARER

    def __init__(self, name: str, settings: config.Upstream) -> None:
        self.name = name
        self.settings = settings
        self.credential = Credential(name, settings, self.KEY_IN)
        told = settings.headers.items()
        self._own = [(name.encode(), value.get_secret_value().strip().encode()) for name, value in told]
        self._displaced = {self.credential.displaces, *(name.lower() for name, _ in self._own)} - {b""}
        self.drains = settings.on_disconnect == "drain"
        self.in_flight = 0
        self.is_watched = settings.health is not None
        self.is_healthy = True
        self.pace: Pace | None = None
        self.work: Work | None = None
        self.warming: Warming | None = None
        self.capacity = None if settings.capacity is None else Capacity(**settings.capacity.model_dump())
        self._passthrough = settings.auth == "passthrough"
        self._base = urllib.parse.urlsplit(settings.base_url).path.rstrip("/")
        self._origin = _origin(settings)
        self._host = b"Host: " + self._origin.authority.encode()
        self._limits = _limits(settings.timeouts)
        rest = REST_TLS if self._origin.tls else REST_PLAIN
        self._dialer = Dialer(name, self._origin)
        self.pool = Pool(
            name,
            self._dialer,
            size=settings.max_connections,
            waiting=settings.max_waiting,
            connect=settings.timeouts.connect,
            rest=rest if settings.keepalive is None else settings.keepalive,
        )

    @property
    def can_load(self) -> bool:
        """Whether time to load its model is given to it."""
        return self.settings.cold_start is not None

    @property
    def is_loading(self) -> bool:
        return self.warming is not None and self.warming.is_loading

    @property
    def is_full(self) -> bool:
        return self.room() < 1

    def room(self) -> float:
        """How many more it takes now; infinite where nobody says."""
        most = self.capacity.concurrent if self.capacity is not None else None
        if most is None:
            return math.inf
        return most - (self.work.load() if self.work is not None else self.in_flight)

    def begin(self, attempt: Attempt) -> None:
        self.in_flight += 1
        if self.work is not None:
            attempt.work, attempt.mark = self.work, self.work.begin()

    def end(self, attempt: Attempt) -> None:
        self.in_flight -= 1
        if attempt.work is not None:
            attempt.busy_seconds = attempt.work.end(attempt.mark)

    def asks_model(self, request: Request) -> bool:  # noqa: ARG002 - for those who override
        """Whether `locate` needs to know the request's model."""
        return False

    def locate(self, target: str, model: str | None = None) -> str:  # noqa: ARG002 - for those who override
        """The request target at the upstream for one at Weir: below `/v1` it continues `base_url`, as in OpenAI's SDKs.

        Any other path stands beside the `/v1` of `base_url`: `/health` of `http://host/v1` is `http://host/health`.
        """
        if target.startswith(("/v1/", "/v1?")) or target == "/v1":
            return (self._base + target[3:]) or "/"
        return self._base.removesuffix("/v1") + target

    def request_fields(self, request: Request, *, readable: bool = False) -> Fields:
        """A fresh copy of what may go up, with this upstream's own fields and credential.

        `readable`: plugins want to read the answer, so an app that accepts encodings gets it without one.
        """
        readable = readable and "accept-encoding" in request.headers
        connection = request.headers.getall("connection", ())
        fields = upstream_fields(request.fields(), connection, passthrough=self._passthrough, readable=readable)
        if request.is_upgrade:
            fields = upgrade_fields(fields, passthrough=self._passthrough)
        if self._displaced:
            fields = [field for field in fields if field[0].lower() not in self._displaced]
            fields += self._own
        if self.credential.field is not None:
            fields.append(self.credential.field)
        return fields

    def response_fields(self, incoming: Incoming) -> Fields:
        """What may go down of an answer's header; where that is no success, without our own credential."""
        fields = downstream_fields(incoming.fields, incoming.index, passthrough=self._passthrough)
        return fields if incoming.status < 300 else self.credential.mask.hide_fields(fields)

    async def send(self, request: Request, attempt: Attempt, on_interim: OnInterim) -> Incoming:
        """One request; returns when status and header are here. Raises UpstreamFault, or what the upload raised.

        A request is written a second time only if it cannot do anything twice: no body, a method that only asks, and a
        connection that had rested and went without a word.
        """
        data = self._written(request, attempt)
        connection = self.pool.rested() or await self._usable(attempt)
        while True:
            is_harmless = connection.is_reused and attempt.body == b"" and request.method in IDEMPOTENT
            incoming = self._start(connection, data, request, attempt, on_interim)
            try:
                await incoming.head
            except BaseException as error:
                incoming.cancel()
                if not (is_harmless and isinstance(error, Dropped)):
                    raise
            else:
                self._guard(incoming)
                return incoming
            connection = await self._usable(attempt)

    async def probe(self, path: str) -> int:
        """The status of a GET on a connection of its own: a full pool says nothing of health. Raises ProxyError."""
        async with self.asked(path) as incoming:
            with contextlib.suppress(ProxyError):
                await whole(incoming, PROBE_BYTES)
            return incoming.status

    @contextlib.asynccontextmanager
    async def asked(self, path: str, port: int | None = None) -> AsyncIterator[Incoming]:
        """The answer's head to such a GET. On another `port` it goes without our credential. Raises ProxyError."""
        target, credential = (self.locate(path), self.credential) if port is None else (path, None)
        target = credential.signed(target) if credential is not None and credential.is_in_query else target
        lines = [f"GET {target} HTTP/1.1".encode(), self._host, b"Accept: */*", b"Connection: close"]
        if credential is not None:
            lines += map(b": ".join, self._own)
            lines += [b": ".join(credential.field)] if credential.field is not None else []
        dialer = self._dialer if port is None else Dialer(self.name, dataclasses.replace(self._origin, port=port))
        connection = await dialer.dial(lambda: Connection(self.name, _nothing, _nothing))
        try:
            if not connection.is_usable():
                raise ConnectFailed(f"upstream '{self.name}' closes connections as soon as they are made")
            data = b"\r\n".join(lines) + b"\r\n\r\n"
            incoming = connection.start("GET", data, Limits(), lambda *_: None, more=False)
            await incoming.head
            yield incoming
        finally:
            connection.abort()

    def _guard(self, incoming: Incoming) -> None:
        """Keeps our credential out of errors; where one is the whole answer, its body is the business of refusals."""
        mask, index = self.credential.mask, incoming.index
        if incoming.status >= 300:
            incoming.reason = mask.hide(incoming.reason)
        elif (
            mask
            and index.get(b"content-type", b"").lower().startswith(b"text/event-stream")
            and is_plain(index.get(b"content-encoding", b""))
        ):
            incoming.guard = mask.before

    async def _usable(self, attempt: Attempt) -> Connection:
        try:
            async with asyncio.timeout(attempt.deadline if attempt.deadline < math.inf else None):
                for _ in range(3):
                    connection = await self.pool.fresh()
                    if connection.is_usable():
                        return connection
        except TimeoutError:
            raise OutOfTime(f"upstream '{self.name}' was not reached before the request's deadline") from None
        raise ConnectFailed(f"upstream '{self.name}' closes connections as soon as they are made")

    def _start(
        self, connection: Connection, data: bytes, request: Request, attempt: Attempt, on_interim: OnInterim
    ) -> Incoming:
        has_more = attempt.body is None
        limits = self._limits
        if attempt.first_byte < limits.first_byte or attempt.deadline < limits.first_byte:
            limits = _shortened(limits, attempt)
        incoming = connection.start(request.method, data, limits, on_interim, more=has_more)
        incoming.may_upgrade = request.is_upgrade
        if has_more:
            incoming.uploading = asyncio.ensure_future(_upload(request, connection, incoming))
        return incoming

    def _target(self, request: Request, attempt: Attempt) -> str:
        """Raises Unavailable where the attempt could not have got its credential."""
        if self.credential.since > attempt.started:
            raise Unavailable(f"upstream '{self.name}' has no valid token now; Weir's log says why")
        target = self.locate(request.target, attempt.target.model or request.model)
        return self.credential.signed(target) if self.credential.is_in_query else target

    def _written(self, request: Request, attempt: Attempt) -> bytes:
        """The request as bytes: its head, and its body where that is at hand."""
        start = f"{request.method} {self._target(request, attempt)} HTTP/1.1"
        lines = [start.encode("utf-8", "surrogateescape"), self._host, *map(b": ".join, attempt.fields())]
        is_chunked = _is_chunked(attempt, request)
        if is_chunked:
            lines.append(b"Transfer-Encoding: chunked")
        if (unbroken := b"".join(lines)).find(b"\n") >= 0 or unbroken.find(b"\r") >= 0:
            raise PluginFailed("a plugin put a line break into a request header")
        head = b"\r\n".join(lines) + b"\r\n\r\n"
        if attempt.body is None:
            return head
        if is_chunked:
            return head + (_chunk(attempt.body) if attempt.body else b"") + LAST_CHUNK
        return head + attempt.body


def _shortened(limits: Limits, attempt: Attempt) -> Limits:
    """To what the attempt is given, or else to what its request has left."""
    if attempt.first_byte <= attempt.deadline:
        return Limits(attempt.first_byte, limits.idle, limits.total)
    left = max(attempt.started + attempt.deadline - time.monotonic(), 0.0)  # connecting took its part
    return Limits(left, limits.idle, limits.total, is_cut=True)


def _nothing(connection: Connection) -> None:
    """It belongs to no pool."""


async def _upload(request: Request, connection: Connection, incoming: Incoming) -> None:
    is_chunked = "content-length" not in request.headers
    try:
        async for chunk in request.upload():
            await connection.upload(_chunk(chunk) if is_chunked else chunk)
        if is_chunked:
            await connection.upload(LAST_CHUNK)
        connection.end_upload()
    except ProxyError as error:
        incoming.fail(error)
        incoming.cancel()


def _is_chunked(attempt: Attempt, request: Request) -> bool:
    """A body without a length: one that came chunked goes on chunked, also where nothing is in it."""
    return "content-length" not in request.headers and (attempt.body != b"" or "transfer-encoding" in request.headers)


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _origin(settings: config.Upstream) -> Origin:
    url = urllib.parse.urlsplit(settings.base_url)
    tls = _tls(settings.tls) if url.scheme == "https" else None
    return Origin(url.hostname or "", url.port or (443 if tls else 80), tls)


def _tls(settings: config.Tls) -> ssl.SSLContext:
    file = settings.ca_file
    return _context(None if file is None else str(file), None if file is None else mark(file), verify=settings.verify)


@lru_cache(MAX_CONTEXTS)
def _context(ca_file: str | None, _mark: Mark | None, *, verify: bool) -> ssl.SSLContext:
    """Upstreams that trust alike share one: the system's authorities take 20 ms and half a megabyte."""
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(["http/1.1"])
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _limits(timeouts: config.Timeouts) -> Limits:
    given = (timeouts.first_byte, timeouts.idle, timeouts.total)
    first_byte, idle, total = (math.inf if limit is None else limit for limit in given)
    return Limits(first_byte, idle, total)
