"""A double of Hugging Face's text-generation-inference, written from its contract; `Tgi(...).script` is for an upstream.

It says what a real one says: its framing, its headers, its quirks on the OpenAI routes, its limits, and its errors over
HTTP and within a 200. What a prompt says decides what happens to it: see `ERRORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from proxy.testing import Received, Wire

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
WORDS = (" A", " weir", " meets", " a", " river", " ☕", "</s>")
MAX_TOTAL = 64
PAYLOAD_LIMIT = 20_000

OVERLOADED = ("Model is overloaded", "overloaded", 429)
FAILED = ("Request failed during generation: Server error: CUDA out of memory", "generation", 424)
INCOMPLETE = ("Incomplete generation", "incomplete_generation", 500)
INVALID = ("Input validation error: `temperature` must be strictly positive", "validation", 422)
TOO_LONG = (
    "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 64. Given: 60 `inputs` tokens and 20 `max_new_tokens`",
    "validation",
    422,
)
NO_TOOL = ("Tool error: Grammar and tools are mutually exclusive", "tool_error", 422)
NO_TEMPLATE = ("Template error: Conversation roles must alternate", "template_error", 422)
BROKEN_STREAM = ("Incomplete generation stream", "incomplete_generation_stream", 500)

ERRORS = {
    "overloaded": OVERLOADED,
    "failed": FAILED,
    "incomplete": INCOMPLETE,
    "invalid": INVALID,
    "too long": TOO_LONG,
    "no tool": NO_TOOL,
    "no template": NO_TEMPLATE,
}
"""By the prompt; `later: failed` streams two tokens before."""

INFO = {
    "model_id": MODEL,
    "model_sha": None,
    "model_pipeline_tag": "text-generation",
    "max_concurrent_requests": 128,
    "max_best_of": 2,
    "max_stop_sequences": 4,
    "max_input_tokens": MAX_TOTAL - 1,
    "max_total_tokens": MAX_TOTAL,
    "validation_workers": 2,
    "max_client_batch_size": 4,
    "router": "text-generation-router",
    "version": "3.3.7",
    "sha": None,
    "docker_label": "sha-0000000",
}
METRICS = (
    b"# TYPE tgi_queue_size gauge\ntgi_queue_size 0\n# TYPE tgi_batch_current_size gauge\ntgi_batch_current_size 1\n"
)

JSON, TEXT, EVENTS = "application/json", "text/plain; charset=utf-8", "text/event-stream"


@dataclass
class Tgi:
    """`space` is false of releases before axum 0.7, `done` before 2.2; `objects`: tool calls as 2.x wrote them.

    Where `[DONE]` ends them, streams of tool calls have no finish_reason.
    `comments`: keep-alives before the first token. `pieces`: bytes per write, all at once where it is None.
    """

    space: bool = True
    done: bool = True
    objects: bool = False
    comments: int = 0
    pieces: int | None = None
    api_key: str = ""
    permits: int = 128
    active: int = field(default=0, init=False)

    async def script(self, received: Received, wire: Wire) -> None:
        self.active += 1
        try:
            await self._answer(received, wire)
        finally:
            self.active -= 1

    async def _answer(self, received: Received, wire: Wire) -> None:
        path = received.target.partition("?")[0]
        if received.method == "GET":
            status, kind, body = _got(path)
            await self._whole(wire, status, kind, body)
            return
        refusal = self._refusal(received, path)
        if refusal is not None:
            await self._whole(wire, *refusal)
            return
        await _ROUTES[path](self, received.json(), wire)

    def _refusal(self, received: Received, path: str) -> tuple[int, str, bytes] | None:
        """What the framework says before TGI has seen the request."""
        headers = received.headers
        if self.api_key and path != "/chat_tokenize" and headers.get("authorization") != f"Bearer {self.api_key}":
            return 401, "", b""
        if path not in _ROUTES:
            return 404, "", b""
        if not headers.get("content-type", "").startswith(JSON):
            return 415, TEXT, b"Expected request with `Content-Type: application/json`"
        if len(received.body) > PAYLOAD_LIMIT:
            return 413, TEXT, b"Failed to buffer the request body: length limit exceeded"
        try:
            asked = received.json()
        except ValueError:
            return 400, TEXT, b"Failed to parse the request body as JSON: EOF while parsing a value at line 1 column 0"
        if isinstance(asked.get("stop"), str):
            said = 'Failed to deserialize the JSON body into the target type: stop: invalid type: string "x", expected a sequence'
            return 422, TEXT, said.encode()
        return None

    # -- native

    async def _compatible(self, asked: dict[str, Any], wire: Wire) -> None:
        """`POST /`: the model's pipeline makes the prompt a part of the text unless the request says otherwise."""
        parameters = asked.get("parameters") or {}
        if parameters.get("return_full_text") is None:
            asked = {**asked, "parameters": {**parameters, "return_full_text": True}}
        if asked.get("stream"):
            await self._generate_stream(asked, wire)
        else:
            await self._generated(asked, wire, listed=True)

    async def _generate(self, asked: dict[str, Any], wire: Wire) -> None:
        await self._generated(asked, wire, listed=False)

    async def _generated(self, asked: dict[str, Any], wire: Wire, *, listed: bool) -> None:
        error = self._error(asked["inputs"])
        if error is not None:
            await self._failed(wire, error)
            return
        parameters, tokens = asked.get("parameters") or {}, _tokens(asked)
        answer: dict[str, Any] = {"generated_text": _text(asked, tokens)}
        if parameters.get("details") or parameters.get("decoder_input_details"):
            prefill = [{"id": n, "text": word, "logprob": None} for n, word in enumerate(_prompt(asked).split())]
            asked_for = prefill if parameters.get("decoder_input_details") else []
            answer["details"] = {**_ending(asked, tokens), "prefill": asked_for, "tokens": tokens}
        fields = _counts(asked, tokens)
        await self._whole(wire, 200, JSON, orjson.dumps([answer] if listed else answer), fields)

    async def _generate_stream(self, asked: dict[str, Any], wire: Wire) -> None:
        error, tokens = self._error(asked["inputs"]), _tokens(asked)
        if error is not None:
            events = [] if not asked["inputs"].startswith("later") else list(_native_events(asked, tokens))[:2]
            await self._stream(wire, [*events, orjson.dumps({"error": error[0], "error_type": error[1]})], done=False)
            return
        await self._stream(wire, list(_native_events(asked, tokens)), done=False)

    async def _invocations(self, asked: dict[str, Any], wire: Wire) -> None:
        route = "/" if "inputs" in asked else "/v1/chat/completions" if "messages" in asked else "/v1/completions"
        await _ROUTES[route](self, asked, wire)

    async def _tokenize(self, asked: dict[str, Any], wire: Wire) -> None:
        await self._whole(wire, 200, JSON, orjson.dumps(_pieces(asked["inputs"])))

    async def _chat_tokenize(self, asked: dict[str, Any], wire: Wire) -> None:
        text = " ".join(message["content"] for message in asked["messages"])
        body = {"tokenize_response": _pieces(text), "templated_text": text}
        await self._whole(wire, 200, JSON, orjson.dumps(body))

    # -- OpenAI's

    async def _chat(self, asked: dict[str, Any], wire: Wire) -> None:
        said = asked["messages"][-1]["content"]
        error, tokens = self._error(said), _tokens({"inputs": said, "parameters": {"max_new_tokens": _limit(asked)}})
        if error is not None and not (asked.get("stream") and error is not NO_TEMPLATE):
            await self._failed(wire, error)
        elif error is not None:
            told = orjson.dumps({"error": {"message": error[0], "http_status_code": 422}})
            before = list(self._chat_events(asked, tokens))[:2] if said.startswith("later") else []
            await self._stream(wire, [*before, told])
        elif asked.get("stream"):
            await self._stream(wire, list(self._chat_events(asked, tokens)))
        else:
            await self._whole(wire, 200, JSON, orjson.dumps(self._chat_whole(asked, tokens)), _counts(asked, tokens))

    def _chat_whole(self, asked: dict[str, Any], tokens: list[dict[str, Any]]) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": "".join(_shown(tokens))}
        if asked.get("tools"):
            arguments: Any = '{"city":"Rome"}' if not self.objects else {"city": "Rome"}
            function = {"description": None, "name": "get_weather", "arguments": arguments}
            call = {"id": "0" if not self.objects else 0, "type": "function", "function": function}
            message = {"role": "assistant", "tool_calls": [call]}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _chat_reason(asked, tokens)}
        return {"object": "chat.completion", **_SHELL, "choices": [choice], "usage": _usage(tokens)}

    def _chat_events(self, asked: dict[str, Any], tokens: list[dict[str, Any]]) -> Iterator[bytes]:
        if asked.get("tools"):
            deltas = [self._fragment(place, part) for place, part in enumerate(("{", ' "city"', ': "Rome"', "}"))]
        else:
            deltas = [{"content": "" if token["special"] else token["text"]} for token in tokens]
        shell = {"object": "chat.completion.chunk", **_SHELL}
        for place, delta in enumerate(deltas):
            is_last = place == len(deltas) - 1 and not (asked.get("tools") and self.done)
            reason = _chat_reason(asked, tokens) if is_last else None
            choice = {"index": 0, "delta": {"role": "assistant", **delta}, "logprobs": None, "finish_reason": reason}
            yield orjson.dumps({**shell, "choices": [choice], "usage": None})
        if (asked.get("stream_options") or {}).get("include_usage"):
            yield orjson.dumps({**shell, "choices": [], "usage": _usage(tokens)})

    def _fragment(self, place: int, part: str) -> dict[str, Any]:
        function = {"name": "get_weather" if place == 0 else None, "arguments": part}
        call = {"index": 0, "id": "" if self.objects else "0", "type": "function", "function": function}
        return {"tool_calls": call if self.objects else [call]}

    async def _completions(self, asked: dict[str, Any], wire: Wire) -> None:
        prompts = asked["prompt"] if isinstance(asked["prompt"], list) else [asked["prompt"]]
        error = self._error(prompts[0])
        if error is not None and not asked.get("stream"):
            await self._failed(wire, error)
        elif error is not None:
            await self._stream(wire, [orjson.dumps({"error": {"message": error[0], "http_status_code": 422}})])
        elif asked.get("stream"):
            await self._stream(wire, list(_completion_events(asked, prompts)))
        else:
            await self._whole(wire, 200, JSON, orjson.dumps(_completion(asked, prompts)))

    # -- how it says it

    def _error(self, prompt: str) -> tuple[str, str, int] | None:
        if self.active > self.permits:
            return OVERLOADED
        return ERRORS.get(prompt.removeprefix("later: "))

    async def _failed(self, wire: Wire, error: tuple[str, str, int]) -> None:
        message, kind, status = error
        await self._whole(wire, status, JSON, orjson.dumps({"error": message, "error_type": kind}))

    async def _whole(self, wire: Wire, status: int, kind: str, body: bytes, fields: tuple[str, ...] = ()) -> None:
        lines = [f"HTTP/1.1 {status} Said", *([f"content-type: {kind}"] if kind else []), *fields]
        head = "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode()
        await wire.send(*self._cut(head + body))

    async def _stream(self, wire: Wire, events: list[bytes], *, done: bool = True) -> None:
        """The header goes out before anybody looks at the request."""
        lines = [f"content-type: {EVENTS}", "cache-control: no-cache", "x-accel-buffering: no"]
        head = "\r\n".join(["HTTP/1.1 200 OK", *lines, "transfer-encoding: chunked", "", ""]).encode()
        mark = b"data: " if self.space else b"data:"
        told = [mark + event + b"\n\n" for event in events]
        told += [mark + b"[DONE]\n\n"] if done and self.done else []
        frames = b"".join(_chunk(frame) for frame in [b":\n\n"] * self.comments + told)
        await wire.send(*self._cut(head + frames + b"0\r\n\r\n"))

    def _cut(self, data: bytes) -> Iterator[bytes]:
        size = self.pieces or len(data)
        return (data[at : at + size] for at in range(0, len(data), size))


Route = Callable[[Tgi, dict[str, Any], "Wire"], Any]
_ROUTES: dict[str, Route] = {
    "/": Tgi._compatible,
    "/generate": Tgi._generate,
    "/generate_stream": Tgi._generate_stream,
    "/invocations": Tgi._invocations,
    "/tokenize": Tgi._tokenize,
    "/chat_tokenize": Tgi._chat_tokenize,
    "/v1/chat/completions": Tgi._chat,
    "/v1/completions": Tgi._completions,
}
_SHELL: dict[str, Any] = {"id": "", "created": 1760000000, "model": MODEL, "system_fingerprint": "3.3.7-native"}
_CHAT_REASONS = {"eos_token": "stop", "stop_sequence": "stop_sequence", "length": "length"}


def _got(path: str) -> tuple[int, str, bytes]:
    if path in {"/", "/health", "/ping"}:
        return 200, "", b""
    if path == "/metrics":
        return 200, TEXT, METRICS
    if path == "/info":
        return 200, JSON, orjson.dumps(INFO)
    if path == "/v1/models":
        listed = [{"id": MODEL, "object": "model", "created": 0, "owned_by": MODEL}]
        return 200, JSON, orjson.dumps({"object": "list", "data": listed})
    return 404, "", b""


def _tokens(asked: dict[str, Any]) -> list[dict[str, Any]]:
    limit = (asked.get("parameters") or {}).get("max_new_tokens") or len(WORDS)
    words = WORDS[:limit]
    return [{"id": 300 + n, "text": word, "logprob": -0.25, "special": word == "</s>"} for n, word in enumerate(words)]


def _shown(tokens: list[dict[str, Any]]) -> list[str]:
    return [token["text"] for token in tokens if not token["special"]]


def _prompt(asked: dict[str, Any]) -> str:
    said = asked.get("inputs") or asked.get("messages") or ""
    return said if isinstance(said, str) else " ".join(str(message["content"]) for message in said)


def _text(asked: dict[str, Any], tokens: list[dict[str, Any]]) -> str:
    echoes = (asked.get("parameters") or {}).get("return_full_text")
    return (asked["inputs"] if echoes else "") + "".join(_shown(tokens))


def _ending(asked: dict[str, Any], tokens: list[dict[str, Any]]) -> dict[str, Any]:
    reason = "eos_token" if tokens[-1]["special"] else "length"
    seed = (asked.get("parameters") or {}).get("seed")
    return {"finish_reason": reason, "generated_tokens": len(tokens), "seed": seed}


def _counts(asked: dict[str, Any], tokens: list[dict[str, Any]]) -> tuple[str, ...]:
    prompt = _prompt(asked)
    return (
        "x-compute-type: gpu+optimized",
        f"x-compute-characters: {len(prompt)}",
        "x-queue-time: 1",
        f"x-prompt-tokens: {len(prompt.split())}",
        f"x-generated-tokens: {len(tokens)}",
    )


def _native_events(asked: dict[str, Any], tokens: list[dict[str, Any]]) -> Iterator[bytes]:
    details = {**_ending(asked, tokens), "input_length": len(_prompt(asked).split())}
    for number, token in enumerate(tokens, 1):
        is_last = number == len(tokens)
        wanted = is_last and (asked.get("parameters") or {}).get("details")
        text = _text(asked, tokens) if is_last else None
        yield orjson.dumps(
            {"index": number, "token": token, "generated_text": text, "details": details if wanted else None}
        )


def _pieces(text: str) -> list[dict[str, Any]]:
    found, at = [], 0
    for number, word in enumerate(text.split(" ")):
        found.append({"id": number, "text": word, "start": at, "stop": at + len(word)})
        at += len(word) + 1
    return found


def _limit(asked: dict[str, Any]) -> int | None:
    limit: int | None = asked.get("max_tokens")
    return limit


def _chat_reason(asked: dict[str, Any], tokens: list[dict[str, Any]]) -> str:
    if asked.get("stop"):
        return "stop_sequence"
    return _CHAT_REASONS[_ending({}, tokens)["finish_reason"]]


def _usage(tokens: list[dict[str, Any]], prompt: int = 5) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": len(tokens), "total_tokens": prompt + len(tokens)}


def _completion(asked: dict[str, Any], prompts: list[str]) -> dict[str, Any]:
    """The choices in the order in which they were done: the last prompt's first."""
    tokens = _tokens({"parameters": {"max_new_tokens": _limit(asked)}})
    reason = "stop" if tokens[-1]["special"] else "length"
    choices = [
        {"index": index, "text": f"{prompt}:{''.join(_shown(tokens))}", "logprobs": None, "finish_reason": reason}
        for index, prompt in enumerate(prompts)
    ]
    usage = _usage(tokens * len(prompts), sum(len(prompt.split()) for prompt in prompts))
    return {"object": "text_completion", **_SHELL, "choices": choices[::-1], "usage": usage}


def _completion_events(asked: dict[str, Any], prompts: list[str]) -> Iterator[bytes]:
    """All prompts' tokens in turn; each prompt's last chunk has its own usage."""
    tokens = _tokens({"parameters": {"max_new_tokens": _limit(asked)}})
    for place, token in enumerate(tokens):
        for index, prompt in enumerate(prompts):
            is_last = place == len(tokens) - 1
            reason = _ending({}, tokens)["finish_reason"] if is_last else ""
            text = "" if token["special"] else token["text"]
            choice = {"index": index, "text": text, "logprobs": None, "finish_reason": reason}
            usage = _usage(tokens, len(prompt.split())) if is_last else None
            yield orjson.dumps({"object": "text_completion", **_SHELL, "choices": [choice], "usage": usage})


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)
