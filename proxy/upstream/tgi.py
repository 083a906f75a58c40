"""Text Generation Inference: `base_url` is the server's root, and its `/v1` and native routes stand below it.

With `normalize`, what its OpenAI routes answer is what OpenAI's clients expect (see `repair` and `taxonomy`). TGI sends
the header of a stream before it looks at the request, so a stream is looked at until its first event, or its first
keep-alive: an error there gets the status that it should have had. On native routes only what is no JSON at all is
changed, to an error that TGI's own clients can read; all else passes as it came.
"""

from __future__ import annotations

import math
import re
import time
from typing import TYPE_CHECKING, Any

import orjson
from typing_extensions import override

from proxy.encoding import is_plain
from proxy.kind import Kind
from proxy.preview import Preview
from proxy.sse import Reader
from proxy.upstream import taxonomy
from proxy.upstream.openai import OpenAI
from proxy.upstream.repair import Repair, repaired_body

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy import config
    from proxy.attempt import Attempt
    from proxy.fault import Fault
    from proxy.headers import Fields
    from proxy.request import Request
    from proxy.sse import Event
    from proxy.upstream.incoming import Incoming, Receiver
    from proxy.upstream.openai import OnInterim

MAX_BODY = 8 * 2**20
"""A larger answer passes as it came."""
MAX_ERROR = 64 * 1024
COMMIT_SECONDS = 15.0
"""How long a stream's first event is waited for: after so long a silence TGI says something by itself."""

_IDS = {"chat": b"chatcmpl-", "completions": b"cmpl-"}
_NATIVE = frozenset({"/", "/generate", "/generate_stream", "/invocations", "/tokenize", "/chat_tokenize", "/vertex"})
_REQUESTS_FAULT = frozenset({400, 413, 415, 422})
_WANTS_USAGE = re.compile(rb'"include_usage"\s*:\s*true')


class TGI(OpenAI):
    def __init__(self, name: str, settings: config.Upstream) -> None:
        super().__init__(name, settings)
        self._normalizes = settings.normalize
        if self._normalizes:
            taxonomy.classes()

    @override
    def locate(self, target: str, model: str | None = None) -> str:
        return self._base + target

    @override
    def request_fields(self, request: Request, *, readable: bool = False) -> Fields:
        readable = readable or (self._normalizes and request.endpoint in _IDS)
        return super().request_fields(request, readable=readable)

    @override
    async def send(self, request: Request, attempt: Attempt, on_interim: OnInterim) -> Incoming:
        incoming = await super().send(request, attempt, on_interim)
        if not self._normalizes or request.method != "POST" or not is_plain(_field(incoming, b"content-encoding")):
            return incoming
        if (prefix := _IDS.get(request.endpoint)) is not None:
            await _as_openai(incoming, attempt, prefix)
        elif incoming.status >= 400 and request.path in _NATIVE:
            await _as_native(incoming)
        return incoming


async def _as_openai(incoming: Incoming, attempt: Attempt, prefix: bytes) -> None:
    kind = _field(incoming, b"content-type").lower()
    if incoming.status >= 400:
        _tell(incoming, await _error(incoming, kind))
    elif incoming.status == 200 and kind.startswith(b"text/event-stream"):
        first = await _first(incoming, attempt)
        error = None if first is None else taxonomy.error_in(200, _json(first.data))
        if error is None:
            asked = attempt.body or b""
            sums = prefix == b"cmpl-" and _WANTS_USAGE.search(asked) is not None
            incoming.guard = _before(incoming.guard, lambda receiver: Repair(receiver, prefix, sums=sums))
        else:
            _tell(incoming, error)
    elif incoming.status == 200 and kind.startswith(b"application/json"):
        body = await _whole(incoming, MAX_BODY)
        if body is not None and (repaired := repaired_body(body, prefix)) is not body:
            incoming.replace(repaired)


async def _error(incoming: Incoming, kind: bytes) -> taxonomy.Error | None:
    """None where it can pass as it is, or is not TGI's."""
    body = await _whole(incoming, MAX_ERROR)
    if not body:
        return None
    if kind.startswith(b"text/plain") and incoming.status in _REQUESTS_FAULT:
        return taxonomy.refusal(incoming.status, body)
    return taxonomy.error_in(incoming.status, _json(body))


async def _as_native(incoming: Incoming) -> None:
    """What its framework refuses comes as text, or as nothing at all."""
    body = await _whole(incoming, MAX_ERROR)
    kind = _field(incoming, b"content-type").lower()
    if body is None or (body and not kind.startswith(b"text/plain")):
        return
    said = body.decode("utf-8", "replace") or taxonomy.reason(incoming.status).decode()
    word = "validation" if incoming.status in _REQUESTS_FAULT else "refused"
    incoming.replace(orjson.dumps({"error": said, "error_type": word}), kind=b"application/json")


def _tell(incoming: Incoming, error: taxonomy.Error | None) -> None:
    if error is not None:
        incoming.replace(error.body(), kind=b"application/json", status=error.status)
        incoming.reason = taxonomy.reason(error.status)


class _First:
    """Clear once an event or a comment is whole."""

    is_clear = has_begun = False
    fault: Fault | None = None
    event: Event | None = None

    def __init__(self) -> None:
        self._reader = Reader()

    def see(self, chunk: bytes) -> None:
        for event in self._reader.feed(chunk):
            if not self.is_clear and event.raw.strip(b"\r\n\xef\xbb\xbf"):
                self.is_clear, self.event = True, event

    def end(self, broken: Fault | None) -> None:
        del broken  # the incoming has it
        self.is_clear = True


class _Body:
    """Clear at its end; `is_whole` says whether that came in order."""

    is_clear = is_whole = False
    has_begun = True
    fault: Fault | None = None

    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    def see(self, chunk: bytes) -> None:
        self.chunks.append(chunk)

    def end(self, broken: Fault | None) -> None:
        self.is_clear, self.is_whole = True, broken is None


async def _first(incoming: Incoming, attempt: Attempt) -> Event | None:
    """The first event, where it came in time; what the header waits for is the upstream's time."""
    look = _First()
    hold = attempt.hold.seconds if attempt.hold is not None else COMMIT_SECONDS
    await Preview(incoming, look, MAX_BODY, None).over(
        attempt.started + min(hold, COMMIT_SECONDS, attempt.deadline), Kind.SLOW
    )
    incoming.head_at = time.monotonic()
    return look.event


async def _whole(incoming: Incoming, limit: int) -> bytes | None:
    """The body, which stays to be delivered; None where it is longer, or is not whole."""
    body = incoming.at_hand
    if body is None:
        look = _Body()
        await Preview(incoming, look, limit, None).over(math.inf, Kind.SLOW)
        incoming.head_at = time.monotonic()
        body = b"".join(look.chunks) if look.is_whole else None
    return body if body is None or len(body) <= limit else None


def _before(
    first: Callable[[Receiver], Receiver] | None, then: Callable[[Receiver], Receiver]
) -> Callable[[Receiver], Receiver]:
    """Two guards, one behind the other."""
    return then if first is None else lambda receiver: first(then(receiver))


def _field(incoming: Incoming, name: bytes) -> bytes:
    return incoming.index.get(name, b"")


def _json(data: bytes | None) -> Any:
    try:
        return orjson.loads(data or b"")
    except ValueError:
        return None
