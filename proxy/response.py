"""A response: an upstream's, or one made here, with a header that stays bytes until somebody looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson
from multidict import CIMultiDict

from proxy.headers import Fields, decode, encode, unbroken

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.errors import ProxyError
    from proxy.upstream.incoming import Flow, Incoming


class Response:
    """An answer: an upstream's, whose body is still to come, or one that Weir or a plugin made, with its `body`."""

    __slots__ = ("_fields", "_headers", "_index", "_lines", "body", "error", "head_at", "incoming", "reason", "status")

    def __init__(self, status: int, *, headers: Mapping[str, str] | None = None, body: bytes = b"") -> None:
        self.status = status
        self.reason: bytes | None = None
        self.head_at = 0.0
        self.body = body
        self.error: ProxyError | None = None
        self.incoming: Flow | None = None
        self._fields: Fields = []
        self._lines = b""
        self._index: dict[bytes, bytes] | None = None
        self._headers: CIMultiDict[str] | None = CIMultiDict(headers) if headers else None

    @classmethod
    def of_json(cls, status: int, value: Any) -> Response:
        return cls(status, headers={"content-type": "application/json"}, body=orjson.dumps(value))

    @classmethod
    def of_error(cls, error: ProxyError) -> Response:
        response = cls(error.status, headers={"content-type": "application/json", **error.headers}, body=error.body())
        response.error = error
        return response

    @classmethod
    def of_incoming(cls, incoming: Incoming, fields: Fields) -> Response:
        response = cls(incoming.status)
        response.reason, response.incoming, response.head_at = incoming.reason, incoming, incoming.head_at
        response._fields, response._headers, response._index = fields, None, incoming.index
        return response

    @classmethod
    def of_fields(cls, response: Response, fields: Fields) -> Response:
        """The same answer with another header, its body to be given."""
        other = cls(response.status)
        other.reason, other.error, other.head_at = response.reason, response.error, response.head_at
        other._fields, other._headers = fields, None
        return other

    @property
    def headers(self) -> CIMultiDict[str]:
        """Decoded when first looked at: most answers pass without."""
        if self._headers is None or self._lines:
            self._headers = decode(self.fields())
        return self._headers

    @property
    def is_event_stream(self) -> bool:
        if self._headers is None and self._index is not None and b"content-type" in self._index:
            return self._index[b"content-type"][:17].lower() == b"text/event-stream"
        return self.content_type == b"text/event-stream"

    @property
    def content_type(self) -> bytes:
        return self.field(b"content-type").partition(b";")[0].strip().lower()

    def field(self, name: bytes) -> bytes:
        """The value of that (lower-case) name, or nothing, without decoding the header."""
        if self._lines and name in self._lines:
            self.fields()
        if self._headers is not None or self._index is None:
            self._index = {key.lower(): value for key, value in self._read()}
        return self._index.get(name, b"")

    def fields(self) -> Fields:
        fields = self._read()
        if self._lines:
            added = [(name, value) for name, _, value in (line.partition(b": ") for line in self._lines.splitlines())]
            fields = self._fields = fields + added
            self._lines, self._headers, self._index = b"", None, None
        return fields

    def _read(self) -> Fields:
        return self._fields if self._headers is None else unbroken(encode(self._headers))

    def set_fields(self, fields: Mapping[bytes, bytes]) -> None:
        """These (lower-case) names have these values from now on; a header that nobody has decoded stays bytes."""
        if self._lines:
            self.fields()
        if self._headers is not None:
            self._headers.update(decode(list(fields.items())))
            return
        if self._index is None or not self._index.keys().isdisjoint(fields):
            self._fields = [field for field in self._fields if field[0].lower() not in fields]
        self._fields = [*self._fields, *fields.items()]
        self._index = {**self._index, **fields} if self._index is not None else None

    def put_lines(self, lines: bytes, *, instead_of: bytes) -> None:
        """Add these (lower-case) lines to the header as they are, and drop what begins with that (lower-case) text."""
        known = self._index if self._headers is None and not self._lines else None
        if known is None or instead_of in b"\n".join(known):
            self._fields = [field for field in self.fields() if not field[0].lower().startswith(instead_of)]
            self._headers = self._index = None
        self._lines = lines

    def take_lines(self) -> bytes:
        """What was added as lines, to be written behind `fields()`, which have it no more."""
        lines, self._lines = self._lines, b""
        return lines
