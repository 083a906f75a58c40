"""A request of the app's: its head, and its body, which is read and parsed when somebody asks."""

from __future__ import annotations

import asyncio
import time
import urllib.parse
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from proxy.errors import ClientFault, UploadStalled
from proxy.headers import encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from multidict import CIMultiDictProxy

STALL_SECONDS = 60.0
"""How long a body that is read here may stop coming. What streams through goes by the upstream's own limit."""

_UNREAD = object()

_ENDPOINTS = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
    "/v1/embeddings": "embeddings",
    "/v1/models": "models",
    "/v1/moderations": "moderations",
    "/": "generate",
    "/generate": "generate",
    "/generate_stream": "generate",
    "/invocations": "generate",
    "/vertex": "generate",
}
_ENDS = {
    "/chat/completions": "chat",
    "/completions": "completions",
    "/responses": "responses",
    "/v1/messages": "messages",
    "/embeddings": "embeddings",
}
"""Below whatever prefix: Azure's deployments, servers that answer without `/v1`."""

_GENERATING = frozenset({"chat", "completions", "responses", "messages", "generate"})
_FAMILIES = frozenset(
    {"responses", "audio", "images", "files", "batches", "models", "uploads", "fine_tuning", "realtime"}
)


class Upload(Protocol):
    """A request's body on its way in; `readany` raises ClientFault where its sender is at fault."""

    async def readany(self) -> bytes: ...
    def is_eof(self) -> bool: ...


class Request:
    """What the app asked for, as it came: `target` is path and query, never decoded. What goes up is the attempt's.

    `endpoint` is what kind of request this is, from a closed set: `chat`, `embeddings`, … or `other`. `at_hand` is the
    whole body where it has been read, else None.
    """

    __slots__ = (
        "_fault",
        "_json",
        "_on_wanted",
        "_upload",
        "asked_model",
        "at_hand",
        "endpoint",
        "expects_continue",
        "headers",
        "is_model_read",
        "is_replaced",
        "is_upgrade",
        "method",
        "model",
        "path",
        "prompt_tokens",
        "query",
        "shown_path",
        "spelled",
        "target",
        "waited",
    )

    def __init__(
        self,
        method: str,
        target: str,
        headers: CIMultiDictProxy[str],
        *,
        body: bytes | None = b"",
        upload: Upload | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.path, _, self.query = target.partition("?")
        self.shown_path = self.path
        self.endpoint = endpoint_of(self.path)
        self.headers = headers
        self.spelled: Sequence[tuple[bytes, bytes]] = ()
        self.is_replaced = self.is_upgrade = self.expects_continue = False
        self.waited = 0.0
        self.model: str | None = None
        self.is_model_read = False
        self.asked_model: str | None = None
        self.prompt_tokens: int | None = None
        self.at_hand = body if upload is None else None
        self._upload = upload
        self._fault: ClientFault | None = None
        self._json: Any = _UNREAD
        self._on_wanted: Callable[[], None] | None = None

    def fields(self) -> Sequence[tuple[bytes, bytes]]:
        """The header as it came: aiohttp has a spelling of its own for the names that it knows."""
        return self.spelled or encode(self.headers)

    @property
    def generates(self) -> bool:
        """Whether a stream that answers it ends with a terminal."""
        return self.endpoint in _GENERATING

    @property
    def only_reads(self) -> bool:
        """Whether it asks for what was made before: a job that has failed tells of an error, and is an answer."""
        return self.method == "GET"

    @property
    def is_buffered(self) -> bool:
        """Whether the whole body is at hand, so that it can be sent more than once."""
        return self.at_hand is not None

    @property
    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def body(self) -> bytes:
        """The whole body, read on the first call; raises TooLarge and UploadStalled."""
        if self._fault is not None:  # what came of it is gone
            raise self._fault
        if self.at_hand is None:
            if self._on_wanted is not None:
                self._on_wanted()
            began = time.monotonic()
            try:
                self.at_hand = await self._whole()
            except ClientFault as fault:
                self._fault = fault
                raise
            self.waited += time.monotonic() - began
        return self.at_hand

    async def _whole(self) -> bytes:
        chunks, now = [], asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(STALL_SECONDS) as patience:
                async for chunk in self.upload():
                    chunks.append(chunk)
                    patience.reschedule(now() + STALL_SECONDS)
        except TimeoutError as error:
            raise UploadStalled("the request's body stopped coming") from error
        return b"".join(chunks)

    async def json(self) -> Any:
        """The body as JSON, parsed once and shared: do not change it, call `replace_body`. Raises ClientFault."""
        if self._json is _UNREAD:
            try:
                self._json = orjson.loads(await self.body())
            except ValueError as error:
                what = f"the request body is not valid JSON: {error}"
                if self.headers.get("content-encoding", "identity").lower() != "identity":
                    what = "a compressed body cannot be read; send it without content-encoding"
                raise ClientFault(what, code="invalid_json") from error
        return self._json

    def replace_body(self, body: bytes, *, model: str | None = None) -> None:
        """What goes up instead; `model` where it names another one than the app did."""
        self.at_hand = body
        self._json = _UNREAD
        self.asked_model = self.prompt_tokens = None
        self.is_replaced = True
        if model is not None:
            self.model, self.is_model_read = model, True

    def replace_fields(self, fields: Sequence[tuple[bytes, bytes]]) -> None:
        """The header that goes up instead; `headers` stay those of the app."""
        self.spelled = fields

    def hide_path(self) -> None:
        """Logs do not tell it."""
        self.shown_path = "(hidden)"

    async def upload(self) -> AsyncIterator[bytes]:
        """The body as it comes in, once; raises TooLarge when it passes the limit."""
        source, self._upload = self._upload, None
        while source is not None and (chunk := await source.readany()):
            yield chunk

    def call_when_wanted(self, callback: Callable[[], None]) -> None:
        """`callback` runs when the body is wanted here: the time to ask an `Expect: 100-continue` client for it."""
        self._on_wanted, self.expects_continue = callback, True

    def glimpse(self) -> Any:
        """The body as JSON, where it is at hand and is some, else None; as `json()`, parsed once and shared."""
        if self._json is _UNREAD:
            try:
                self._json = orjson.loads(self.at_hand or b"")
            except ValueError:
                return None
        return self._json

    def names_model(self) -> bool:
        """Whether the body, which is at hand, is a JSON object with a model."""
        value = self.glimpse()
        return isinstance(value, dict) and "model" in value


_FREE = ("/cancel", "/input_tokens")
"""Below responses: what generates nothing."""


def endpoint_of(path: str) -> str:
    """As any upstream may read the path, decoded and without case: no spelling is a way around limits and bills."""
    known = _ENDPOINTS.get(path)
    if known is not None:
        return known
    plain = urllib.parse.unquote(path).lower().rstrip("/")
    family = plain[4:].partition("/")[0] if plain.startswith("/v1/") else ""
    if family in _FAMILIES:
        return "other" if family == "responses" and plain.endswith(_FREE) else family
    known = _ENDPOINTS.get(plain)
    return known or next((endpoint for end, endpoint in _ENDS.items() if plain.endswith(end)), "other")
