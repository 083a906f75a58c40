"""The plugin: what it looks at on the way up, and which stage an answer needs on its way down."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from typing_extensions import override

from plugins.pii import header
from plugins.pii.answer import LONG, Answers, Whole, json_of, text_of
from plugins.pii.detector import Detector
from plugins.pii.placeholder import Table, grammar
from plugins.pii.redactor import Redactor
from plugins.pii.settings import PiiConfig
from plugins.pii.sight import Sight
from plugins.pii.stream import Restoring
from proxy.plugin import PRINCIPAL, REDACTED, ClientFault, Key, Plugin, Rejected

if TYPE_CHECKING:
    from collections.abc import Awaitable, Sequence

    from proxy.plugin import Exchange, Request, Response, Services, Stage

TABLE: Key[Table] = Key("what stands for the values of this exchange")

_OWN_KEY: Final = secrets.token_bytes(32)
"""This process's, for those that have none in their settings: it outlives a reload."""

_CREDENTIALS: Final = ("authorization", "api-key", "x-api-key")
_KNOWN_ENDPOINTS: Final = frozenset(
    {"chat", "completions", "responses", "embeddings", "moderations", "messages", "generate", "models"}
)
_KNOWN_FAMILIES: Final = (
    "/v1/responses/",
    "/v1/images/",
    "/v1/audio/",
    "/v1/rerank",
    "/rerank",
    "/info",
    "/health",
    "/tokenize",
)
_PLAIN_TARGETS: Final = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/messages",
        "/v1/models",
        "/v1/moderations",
        "/v1/responses",
        "/generate",
        "/generate_stream",
    }
)


class Pii(Plugin[PiiConfig]):
    Config = PiiConfig
    provides = (REDACTED,)

    def __init__(self, config: PiiConfig, *, name: str) -> None:
        super().__init__(config, name=name)
        self._detector = Detector(
            config.entities, config.custom, own_domains=config.allow.domains, allowed=config.allow.values
        )
        self._grammar = grammar(config.names)
        key = config.key
        self._key = _OWN_KEY if key is None else key.get_secret_value().encode()[:64]
        self._actions = {entity: config.action_of(entity) for entity in config.names}
        self._masks = config.answers == "mask"
        self._blocks_unknown = config.unknown == "block"

    @override
    def lifespan(self, services: Services) -> None:
        counter = services.counter(
            "weir_pii_found_total", "values found, of the request's and of the model's own", ("entity", "direction")
        )
        found = counter.values
        for entity in self.config.names:
            for direction in ("request", "response"):
                found[entity, direction] += 0

        def sent(entity: str) -> None:
            found[entity, "request"] += 1

        def said(entity: str) -> None:
            found[entity, "response"] += 1

        self._said = said
        self._redactor = Redactor(self.config, self._detector.find, sent)

    @override
    def on_request(self, exchange: Exchange) -> Awaitable[None] | None:
        request = exchange.request
        table = exchange.facts[TABLE] = Table(self._grammar, self._key, _tenant(exchange))
        self._judge(request, table)
        self._read_headers(request, table)
        body = request.at_hand
        if body is None or len(body) > LONG:
            return self._read_long(request, table)
        if body:
            self._redact(request, body, table)
        return None

    @override
    def on_response(self, exchange: Exchange, response: Response) -> Stage | None:
        table = exchange.facts.get(TABLE)
        if table is None:
            return None
        if table.found:
            response.set_fields({b"x-weir-pii": b"%d" % table.found})
        if response.error is not None or exchange.is_static or not (self._masks or table.values):
            return None
        if response.is_event_stream:
            return Restoring(self._answers(exchange.request, table))
        kind = response.content_type
        if kind.endswith(b"json"):
            says_numbers = exchange.request.endpoint == "embeddings" and response.status == 200
            return None if says_numbers else Whole(self._answers(exchange.request, table), json_of)
        return Whole(self._answers(exchange.request, table), text_of) if kind.startswith(b"text/") or not kind else None

    @override
    async def explain(self, exchange: Exchange, services: Services) -> Sequence[str]:
        found: list[str] = []
        self._redactor = Redactor(self.config, self._detector.find, found.append)
        waiting = self.on_request(exchange)
        if waiting is not None:
            await waiting
        told = [f"{count} of the kind '{entity}' ({self._actions[entity]})" for entity, count in Counter(found).items()]
        return [f"finds {', '.join(told)}" if told else "finds nothing"]

    # -- the request

    def _judge(self, request: Request, table: Table) -> None:
        """Raises what is refused without a look at the body."""
        if request.is_upgrade:
            what = "what a WebSocket says cannot be looked through; use HTTP, or switch 'pii' off on this route"
            raise Rejected(what, code="pii_websocket")
        if self._blocks_unknown and not _is_known(request):
            what = "this endpoint is not known here, and what is not known is not passed on ('pii' has unknown: block)"
            raise Rejected(what, code="pii_unknown_endpoint")
        if request.target not in _PLAIN_TARGETS:
            self._judge_target(request, table)
        encoding = request.headers.get("content-encoding")
        if encoding is not None and encoding.strip().lower() not in {"", "identity"}:
            what = "a compressed body cannot be looked through; send it without content-encoding"
            raise ClientFault(what, code="unreadable_body")

    def _judge_target(self, request: Request, table: Table) -> None:
        """A URL cannot be changed. A secret in it is a credential: some upstreams want it there."""
        try:
            self._redactor.refuse(
                unquote(request.target.encode("ascii", "replace").decode()), "the URL", table, but="secret"
            )
        except Rejected:
            request.hide_path()
            raise

    def _read_headers(self, request: Request, table: Table) -> None:
        """Secrets stay: where a credential is in a header of its own, it is meant to go up."""
        changed = header.read(request.fields(), lambda text: self._redactor.plain(text, table, but="secret"))
        if changed is not None:
            request.replace_fields(changed)

    async def _read_long(self, request: Request, table: Table) -> None:
        body = await request.body()
        if len(body) > LONG:
            await asyncio.to_thread(self._redact, request, body, table)
        elif body:
            self._redact(request, body, table)

    def _redact(self, request: Request, body: bytes, table: Table) -> None:
        table.sent = body
        changed = self._redactor.body(body, request.headers.get("content-type", ""), table)
        if changed is not body:
            request.replace_body(changed)

    # -- the answer

    def _answers(self, request: Request, table: Table) -> Answers:
        sight = Sight(self._detector.reading, table, self._actions, self._said, masks=self._masks)
        return Answers(sight, table, says_json=_asks_json(request, table.sent))


def _tenant(exchange: Exchange) -> str:
    principal = exchange.facts.get(PRINCIPAL)
    if principal is not None:
        return str(principal.name)
    headers = exchange.request.headers
    return next((f"key {headers[name]}" for name in _CREDENTIALS if name in headers), "")


def _is_known(request: Request) -> bool:
    return request.endpoint in _KNOWN_ENDPOINTS or request.path.startswith(_KNOWN_FAMILIES)


def _asks_json(request: Request, sent: bytes) -> bool:
    """Whether the answer's content is to be JSON: then values in it are written as JSON has them."""
    if b'"response_format"' not in sent and b'"format"' not in sent and b'"grammar"' not in sent:
        return False
    body: Any = request.glimpse()
    if not isinstance(body, dict):
        return False
    text, parameters = body.get("text"), body.get("parameters")
    asked = (
        body.get("response_format"),
        text.get("format") if isinstance(text, dict) else None,
        parameters.get("grammar") if isinstance(parameters, dict) else None,
    )
    return any(isinstance(form, dict) and str(form.get("type", "")).startswith("json") for form in asked)
