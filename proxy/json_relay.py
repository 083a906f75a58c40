"""A JSON answer on its way down: what it says is read once the app has all of it.

It may be an error although its status is 200, which is a failure of its attempt, and it has the usage. Both are looked
for within bounds: the error only where the bytes `"error"` occur with more than a null behind them, the usage later.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING

import orjson
from typing_extensions import override

from proxy.answer import error_in_body
from proxy.relay import TapRelay
from proxy.usage import Usage, usage_from_body, usage_from_object

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.chain import Placed
    from proxy.downstream import Downstream
    from proxy.encoding import Decoder
    from proxy.exchange import Exchange
    from proxy.headers import Fields
    from proxy.response import Response

MAX_ERROR_BYTES = 64 * 1024
MAX_USAGE_BYTES = 8 * 2**20
"""Larger JSON answers are not held for what they say."""

LONG = 4096
"""Smaller ones are parsed as a whole."""

NEAR = 300
"""Bytes before the usage in which a model is looked for."""

_FLAT = rb'"[^"\\]*"\s*:\s*(?:"[^"\\]*"|[-+.\w]+|\{\}|\[\])\s*'
_MODEL = rb'"model"\s*:\s*"([^"\\]*)"\s*'
_AT_THE_BEGINNING = re.compile(rb"\s*\{\s*(?:%b,\s*)*?%b[,}]" % (_FLAT, _MODEL))
_BEFORE = re.compile(rb",\s*%b,\s*\Z" % _MODEL)
_AT_THE_END = re.compile(rb'(?<=[,\s])"usage"\s*:\s*(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})\s*(?:,\s*%b)*\}\s*\Z' % _FLAT)


class JsonRelay(TapRelay):
    def __init__(
        self,
        exchange: Exchange,
        downstream: Downstream,
        stages: Sequence[Placed],
        decoder: Decoder | None,
        response: Response,
    ) -> None:
        super().__init__(exchange, downstream, stages, decoder)
        self._response = response
        self._chunks: list[bytes] = []
        self._room = MAX_USAGE_BYTES if exchange.chain.reads_usage else MAX_ERROR_BYTES

    @override
    def feed(self, chunk: bytes) -> None:
        self.downstream.write(chunk)
        if self._decoder is not None:
            chunk = self._decoded(chunk)
        self._room -= len(chunk)
        if self._room >= 0:
            self._chunks.append(chunk)
        if self._stages and chunk:
            self._watch(chunk)

    @override
    def end(self, trailers: Fields) -> None:
        super().end(trailers)
        if self._room >= 0:
            chunks = self._chunks
            read(self.exchange, self._response, chunks[0] if len(chunks) == 1 else b"".join(chunks))


def read(exchange: Exchange, response: Response, body: bytes) -> None:
    """Leave on the exchange what an upstream's whole JSON body says."""
    tells = response.status == 200 and not exchange.request.only_reads
    if tells and len(body) <= MAX_ERROR_BYTES and b'"error"' in body:
        exchange.told = error_in_body(body)
    if exchange.chain.reads_usage and exchange.usage is None:
        exchange.read_later(functools.partial(_note_usage, exchange, response, body))


def _note_usage(exchange: Exchange, response: Response, body: bytes) -> None:
    if len(body) >= LONG and (said := _said(body)) is not None:
        exchange.usage, exchange.model = said
        return
    try:
        value = orjson.loads(body)
    except ValueError:
        return
    exchange.usage = _counted(usage_from_body(value), response)
    model = value.get("model") if isinstance(value, dict) else None
    exchange.model = model if isinstance(model, str) else None


def _said(body: bytes) -> tuple[Usage, str] | None:
    """Usage and model, where they stand at the ends of a long body: valid JSON, of which nothing between is parsed.

    Quotes within JSON strings are escaped, and what is closed by the last brace is the answer itself. None: elsewhere.
    """
    found = _AT_THE_END.match(body, max(body.rfind(b'"usage"'), 0))
    model = found and (
        _AT_THE_BEGINNING.match(body) or _BEFORE.search(body, max(found.start() - NEAR, 0), found.start())
    )
    if not found or not model:
        return None
    try:
        usage = usage_from_object(orjson.loads(found[1]))
        return None if usage is None else (usage, model[1].decode())
    except ValueError:
        return None


def _counted(told: Usage | None, response: Response) -> Usage | None:
    """TGI's native answers tell their prompt's length only where its tokens were asked for; the header always does."""
    if told is not None and told.input_tokens:
        return told
    in_header = _usage_from_header(response)
    if told is None or in_header is None:
        return told or in_header
    return told._replace(input_tokens=in_header.input_tokens)


def _usage_from_header(response: Response) -> Usage | None:
    """TGI's native routes say it there."""
    given, made = response.field(b"x-prompt-tokens"), response.field(b"x-generated-tokens")
    return Usage(int(given), int(made)) if given.isdigit() and made.isdigit() else None
