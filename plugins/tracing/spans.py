"""What spans say: OpenTelemetry's conventions for generative AI and HTTP, and `weir.*` for what these have no word for.

Never anything of a message: no prompt, no answer, no tool's arguments. Names of models are bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from proxy.plugin import PRINCIPAL, TARIFF, Outcome, asked_model, consumed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.plugin import Attempt, Exchange, Request, Services

    Attributes = dict[str, str | int | float | bool]

LONGEST: Final = 256

OPERATIONS: Final = {
    "chat": "chat",
    "responses": "chat",
    "completions": "text_completion",
    "generate": "text_completion",
    "embeddings": "embeddings",
}
ROUTES: Final = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "moderations": "/v1/moderations",
    "models": "/v1/models",
    "files": "/v1/files",
    "images": "/v1/images",
    "audio": "/v1/audio",
    "batches": "/v1/batches",
    "realtime": "/v1/realtime",
}
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
PROVIDERS: Final = {
    "api.openai.com": "openai",
    "openai.azure.com": "azure.ai.openai",
    "services.ai.azure.com": "azure.ai.inference",
    "anthropic.com": "anthropic",
    "generativelanguage.googleapis.com": "gcp.gemini",
    "aiplatform.googleapis.com": "gcp.vertex_ai",
    "amazonaws.com": "aws.bedrock",
    "mistral.ai": "mistral_ai",
    "groq.com": "groq",
    "deepseek.com": "deepseek",
    "x.ai": "x_ai",
    "cohere.com": "cohere",
    "cohere.ai": "cohere",
    "perplexity.ai": "perplexity",
}
"""By the end of the host's name; all others by the API that they speak."""

KINDS: Final = {"openai": "openai", "azure": "azure.ai.openai", "tgi": "huggingface.tgi"}
NUMBERS: Final = {
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "max_output_tokens": "gen_ai.request.max_tokens",
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
    "seed": "gen_ai.request.seed",
    "n": "gen_ai.request.choice.count",
}
WHOLE: Final = frozenset({"gen_ai.request.max_tokens", "gen_ai.request.seed", "gen_ai.request.choice.count"})
FAILED: Final = frozenset({Outcome.UPSTREAM_ERROR, Outcome.STREAM_INTERRUPTED})


def peers(services: Services) -> dict[str, Attributes]:
    """What is known of each upstream, by its name."""
    return {name: dict(_peer(name, each.kind, each.base_url)) for name, each in services.upstreams.items()}


def _peer(name: str, kind: str, base_url: str) -> Iterator[tuple[str, str | int]]:
    url = urlsplit(base_url)
    host = url.hostname or ""
    known = (provider for end, provider in PROVIDERS.items() if host == end or host.endswith(f".{end}"))
    yield "gen_ai.provider.name", next(known, KINDS[kind])
    yield "server.address", host
    yield "server.port", url.port or (443 if url.scheme == "https" else 80)
    yield "weir.upstream", name


# -- the exchange


def exchange_name(request: Request) -> str:
    """Of few kinds, as names of spans have to be."""
    method, route = _method(request), ROUTES.get(request.endpoint)
    return method if route is None else f"{method} {route}"


def exchange_attributes(exchange: Exchange) -> Attributes:
    return {name: value for name, value in _of_exchange(exchange) if value is not None}


def _of_exchange(exchange: Exchange) -> Iterator[tuple[str, Any]]:
    request, response = exchange.request, exchange.response
    yield "http.request.method", _method(request)
    yield "url.path", _text(request.shown_path)
    yield "url.scheme", "http"
    yield "http.route", ROUTES.get(request.endpoint)
    yield "http.response.status_code", response.status if response else None
    yield "error.type", _error(exchange) if is_failed(exchange.outcome) else None
    yield "weir.request_id", exchange.id
    yield "weir.route", exchange.route or None
    yield "weir.detour", exchange.detour or None
    yield "weir.outcome", str(exchange.outcome) if exchange.outcome else None
    yield "weir.attempts", len(exchange.attempts)
    yield "weir.cache", response.field(b"x-weir-cache").decode("latin-1") or None if response else None
    principal, tariff = exchange.get(PRINCIPAL, None), exchange.get(TARIFF, None)
    yield "weir.principal", _text(principal.name) if principal else None
    yield "weir.prompt_version", _text(request.headers.get("x-weir-prompt-version"))
    yield "weir.cost_usd", float(tariff.spent(exchange)) if tariff else None


def is_failed(outcome: Outcome | None) -> bool:
    return outcome in FAILED


def _error(exchange: Exchange) -> str:
    return exchange.error.error_code if exchange.error else str(exchange.response.status if exchange.response else 0)


# -- the attempts


def attempt_name(exchange: Exchange, attempt: Attempt) -> str:
    operation, model = OPERATIONS.get(exchange.request.endpoint), _model(exchange, attempt)
    if operation is None:
        return _method(exchange.request)
    return operation if model is None else f"{operation} {model}"


def attempt_attributes(exchange: Exchange, attempt: Attempt, peer: Attributes) -> Attributes:
    told = {name: value for name, value in _of_attempt(exchange, attempt) if value is not None}
    return {**peer, **dict(_of_request(exchange.request)), **told}


def _of_attempt(exchange: Exchange, attempt: Attempt) -> Iterator[tuple[str, Any]]:
    yield "gen_ai.operation.name", OPERATIONS.get(exchange.request.endpoint)
    yield "gen_ai.request.model", _model(exchange, attempt)
    yield "http.request.method", _method(exchange.request)
    yield "http.response.status_code", attempt.status or None
    yield "http.request.resend_count", attempt.number - 1 or None
    yield "weir.outcome", str(attempt.outcome) if attempt.outcome else None
    if attempt.fault is not None and attempt.outcome is not Outcome.CLIENT_ABORT:
        yield "error.type", str(attempt.fault.kind)
    if attempt is exchange.served_by:
        yield from _of_answer(exchange, attempt)


def _of_answer(exchange: Exchange, attempt: Attempt) -> Iterator[tuple[str, Any]]:
    yield "gen_ai.response.model", _text(exchange.model)
    if exchange.first_token_at is not None:
        yield "gen_ai.response.time_to_first_chunk", exchange.first_token_at - attempt.started
    used = consumed(exchange)
    if used.did_work:
        usage = used.usage
        yield "gen_ai.usage.input_tokens", usage.input_tokens
        yield "gen_ai.usage.output_tokens", usage.output_tokens
        yield "gen_ai.usage.cache_read.input_tokens", usage.cached_input_tokens or None
        yield "gen_ai.usage.cache_creation.input_tokens", usage.cache_write_tokens or None
        yield "gen_ai.usage.reasoning.output_tokens", usage.reasoning_tokens or None
        yield "weir.usage_estimated", used.is_estimated or None


def _of_request(request: Request) -> Iterator[tuple[str, Any]]:
    """How the answer was asked for: numbers alone, of a body that is at hand."""
    asked = request.glimpse() if request.endpoint in OPERATIONS else None
    if not isinstance(asked, dict):
        return
    for key, name in NUMBERS.items():
        value = asked.get(key)
        if type(value) is int or (type(value) is float and name not in WHOLE):
            yield name, _bounded(value) if name in WHOLE else float(value)
    if asked.get("stream") is True:
        yield "gen_ai.request.stream", True


def _bounded(value: float) -> int:
    """To what a protobuf integer holds."""
    return max(min(int(value), 2**63 - 1), -(2**63))


def _model(exchange: Exchange, attempt: Attempt) -> str | None:
    return _text(attempt.target.model or asked_model(exchange.request))


def _method(request: Request) -> str:
    return request.method if request.method in METHODS else "_OTHER"


def _text(text: str | None) -> str | None:
    """Bounded, and UTF-8, which header fields need not be."""
    return None if text is None else text[:LONGEST].encode("utf-8", "replace").decode()
