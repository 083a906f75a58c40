"""The bytes of the bench: what the load generator sends and what the upstream answers.

Header names are those of openai-python 3 in its order; sizes are those of a short chat: a body of about 500 bytes, an
answer of 600, events of about 300.
"""

import orjson

CHAT_PATH = "/v1/chat/completions"
EVENT_MARK = b"data: "
EVENT_END = b"\n\n"
STREAM_END = b"0\r\n\r\n"

_NUMBER = b"%010d"
_PROMPT = (
    "Summarise the following ticket in two sentences, name the part of the product that it concerns, and say whether "
    "the customer is still blocked. Ticket 0000000000: since the update of Tuesday the export button answers with an empty file; "
    "smaller reports work, and a colleague in another region sees the same. We need the file before Friday noon, since "
    "the auditors wait for it."
)
_HEAD = (
    f"POST {CHAT_PATH} HTTP/1.1\r\n"
    "Host: 127.0.0.1:{port}\r\n"
    "Accept-Encoding: gzip, deflate\r\n"
    "Connection: keep-alive\r\n"
    "authorization: Bearer sk-bench\r\n"
    "accept: application/json\r\n"
    "content-type: application/json\r\n"
    "user-agent: OpenAI/Python 3.52.0\r\n"
    "x-stainless-lang: python\r\n"
    "x-stainless-package-version: 3.52.0\r\n"
    "x-stainless-os: Linux\r\n"
    "x-stainless-arch: x64\r\n"
    "x-stainless-runtime: CPython\r\n"
    "x-stainless-runtime-version: 3.11.7\r\n"
    "x-stainless-async: false\r\n"
    "x-stainless-retry-count: 0\r\n"
    "x-stainless-read-timeout: 600\r\n"
    "Content-Length: {length}\r\n\r\n"
)
_CHUNK = {
    "id": "chatcmpl-CbENcHmArK0wE1RbEnCh0000000",
    "object": "chat.completion.chunk",
    "created": 1760000000,
    "model": "gpt-4o-mini-2024-07-18",
    "service_tier": "default",
    "system_fingerprint": "fp_0123456789",
}
_ANSWER_BYTES = 600


def _request(port: int, body: dict[str, object]) -> bytes:
    encoded = orjson.dumps({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": _PROMPT}], **body})
    return _HEAD.format(port=port, length=len(encoded)).encode() + encoded


def numbered(request: bytes, number: int) -> bytes:
    """The request as no other one is: a cache knows none of them, and costs each of them what a miss costs."""
    before, mark, after = request.partition(_NUMBER % 0)
    assert mark
    return before + _NUMBER % (number % 10**10) + after


def chat_request(port: int) -> bytes:
    return _request(port, {"max_tokens": 128, "temperature": 0.2})


def stream_request(port: int, events: int, interval_ms: int) -> bytes:
    """The upstream reads its orders from this body: `max_tokens` is the number of events."""
    return _request(port, {"max_tokens": events, "stream": True, "metadata": {"interval_ms": str(interval_ms)}})


def stream_order(body: bytes) -> tuple[int, float, bytes] | None:
    """(events, seconds between two, what comes after them) that a request asks for; None: no stream."""
    if b'"stream":true' not in body:
        return None
    asked = orjson.loads(body)
    end = LAST + USAGE + DONE if "stream_options" in asked else LAST + DONE
    return int(asked["max_tokens"]), int(asked["metadata"]["interval_ms"]) / 1000, end


def _answer(content: str) -> bytes:
    message = {"role": "assistant", "content": content}
    usage = {"prompt_tokens": 87, "completion_tokens": 61, "total_tokens": 148}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return orjson.dumps({**_CHUNK, "object": "chat.completion", "choices": [choice], "usage": usage})


def _event(data: bytes) -> bytes:
    event = EVENT_MARK + data + EVENT_END
    return b"%x\r\n%b\r\n" % (len(event), event)


def _chunk(delta: dict[str, str], finish_reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    return _event(orjson.dumps({**_CHUNK, "choices": [choice]}))


_ANSWER_BODY = _answer("." * (_ANSWER_BYTES - len(_answer(""))))
ANSWER_TAIL = _ANSWER_BODY[-64:]
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_bench\r\n"
    b"openai-processing-ms: 1\r\ncontent-length: %d\r\n\r\n%b" % (len(_ANSWER_BODY), _ANSWER_BODY)
)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
    b"x-request-id: req_bench\r\ntransfer-encoding: chunked\r\n\r\n"
)
TOKEN = _chunk({"content": " token"}, None)
LAST = _chunk({}, "stop")
USAGE = _event(orjson.dumps({**_CHUNK, "choices": [], "usage": {"prompt_tokens": 87, "completion_tokens": 61}}))
DONE = _event(b"[DONE]") + STREAM_END
EVENTS_AFTER_TOKENS = 2  # the finish chunk and [DONE]
