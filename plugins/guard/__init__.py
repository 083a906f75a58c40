"""Judges requests before they cost anything: well-formed JSON, models, and caps on prompts and answers.

A key that a rule judges may stand only once, and in its own spelling: parsers differ on which of two counts, and some
do not tell upper from lower case. Where a rule changes a body, it changes the bytes of that value alone. Types that no
rule needs, unknown keys and unknown parts pass: they are the upstream's to judge.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator
from typing_extensions import override

from plugins.guard import caps, text
from plugins.guard.endpoints import ENDPOINTS, INVOCATIONS, Endpoint, deployment_of, endpoint_of, invoked
from proxy.plugin import (
    ClientFault,
    Plugin,
    PluginConfig,
    Rejected,
    Size,
    asked_model,
    fault,
    glob,
    multipart_fields,
    output_tokens,
    repeated_key,
    replace_multipart_field,
    replace_value,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxy.plugin import Exchange, Request, Response, Services

_WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})


class GuardConfig(PluginConfig):
    max_tokens: caps.MaxTokens | None = Field(default=None, description="how long an answer may get")
    models: list[str] | None = Field(
        default=None, min_length=1, description="globs: the models that may go up; all others get a 403"
    )
    aliases: dict[str, str] = Field(
        default_factory=dict, description="exact names, and the model that goes up in place of each"
    )
    max_messages: int | None = Field(default=None, ge=1, description="entries of a chat's messages")
    max_message_bytes: Size | None = Field(default=None, description="text of one message, its parts together")
    max_input_bytes: Size | None = Field(default=None, description="all text of the prompt")
    max_choices: int | None = Field(default=None, ge=1, description="answers to one request: `n` and `best_of`")
    require_json: bool = Field(default=True, description="bodies must be JSON objects where the endpoint needs one")

    @model_validator(mode="after")
    def _aliases_may_go_up(self) -> Self:
        for name, model in self.aliases.items():
            if self.models is not None and not any(glob(pattern)(model) for pattern in self.models):
                raise fault(f"'{name}' stands for a model that 'models' does not allow", "add it there", "aliases")
        return self


class Guard(Plugin[GuardConfig]):
    Config = GuardConfig

    def __init__(self, config: GuardConfig, *, name: str) -> None:
        super().__init__(config, name=name)
        limits = (config.max_message_bytes, config.max_input_bytes)
        self._globs = None if config.models is None else [glob(pattern) for pattern in config.models]
        self._text_limit = min((limit for limit in limits if limit is not None), default=math.inf)
        self._judges_messages = config.max_messages is not None or self._text_limit < math.inf
        self._judged = {endpoint: self._keys(endpoint) for endpoint in ENDPOINTS}
        self._judged[INVOCATIONS] = frozenset().union(*self._judged.values())  # it may turn out to be any

    def _keys(self, endpoint: Endpoint) -> frozenset[str]:
        """What the rules look at, but for what lies within messages."""
        config, keys = self.config, set[str]()
        if endpoint.names_model and (config.models or config.aliases):
            keys.add("model")
        if self._judges_messages:
            keys.update(endpoint.texts, endpoint.tools)
        if config.max_tokens and endpoint.caps:
            keys.update(endpoint.caps, endpoint.inside.split())
        if config.max_choices and endpoint.choices:
            keys.update(endpoint.choices, endpoint.inside.split())
        return frozenset(keys)

    @override
    async def on_request(self, exchange: Exchange) -> Response | None:
        request = exchange.request
        endpoint = None if request.method in _WITHOUT_BODY else endpoint_of(request.path)
        if endpoint is None:
            return None
        if endpoint.may_be_form and not request.content_type.endswith("json"):
            if self._judged[endpoint]:
                await self._judge_form(request)
        elif self._judged[endpoint] or self.config.require_json:
            await self._judge_json(request, endpoint)
        return None

    @override
    async def explain(self, exchange: Exchange, services: Services) -> Sequence[str]:
        request = exchange.request
        asked, most, body = asked_model(request), output_tokens(request, 0), request.at_hand
        await self.on_request(exchange)
        if request.at_hand is body:
            return ["lets it pass as it is"]
        changes = (("model", asked, asked_model(request)), ("longest answer", most, output_tokens(request, 0)))
        told = [f"{what} {old or 'not set'} becomes {new}" for what, old, new in changes if old != new]
        return told or ["changes the body"]

    async def _judge_form(self, request: Request) -> None:
        body, kind = await request.body(), request.headers.get("content-type", "")
        models = multipart_fields(body, kind, "model")
        if len(models) > 1:
            raise _repeated("model")
        model = self._pinned(models[0] if models else None, request.path)
        if model is not None:
            request.replace_body(replace_multipart_field(body, kind, "model", model), model=model)

    async def _judge_json(self, request: Request, endpoint: Endpoint) -> None:
        value, body = await request.json(), await request.body()
        if not isinstance(value, dict):
            raise ClientFault("the request body must be a JSON object", code="invalid_json")
        if endpoint is INVOCATIONS:
            endpoint = invoked(value)
        is_long = text.most(body) > self._text_limit
        keys = self._judged[endpoint]
        _refuse_other_cases(value, keys)
        _refuse_repeated(body, keys | text.KEYS if is_long else keys)
        model = self._pinned(value.get("model"), request.path) if "model" in keys else None
        if self._judges_messages and endpoint.dialogue:
            self._judge_count(endpoint, value)
        if is_long:
            self._judge_text(endpoint, value, body)
        changed = self._with_caps(endpoint, value, body)
        if model is not None:
            changed = replace_value(changed, "model", model)
        if changed is not body:
            request.replace_body(changed, model=model)

    def _pinned(self, asked: object, path: str) -> str | None:
        """The model that goes up in place of the one that was asked for, None where that one does."""
        if asked is not None and not isinstance(asked, str):
            raise ClientFault(f"'model' is {caps.shown(asked)}; send a name", code="invalid_type", param="model")
        model = None if asked is None else self.config.aliases.get(asked, asked)
        if self._globs is not None:
            deployment = deployment_of(path)
            for name in {model, deployment} - {None} or {None}:
                self._judge_model(name, self._globs)
        return None if model == asked else model

    def _judge_model(self, model: str | None, globs: Sequence[Callable[[str], object]]) -> None:
        allowed = ", ".join(self.config.models or ())
        if model is None:
            what = f"the request names no 'model'; send one of: {allowed}"
            raise ClientFault(what, code="missing_required_parameter", param="model")
        if not any(matches(model) for matches in globs):
            what = f"the model '{model[: caps.SHOWN]}' is not allowed here; allowed: {allowed}"
            raise Rejected(what, code="model_not_allowed", param="model")

    def _judge_count(self, endpoint: Endpoint, value: dict[str, Any]) -> None:
        """The dialogue's entries; a lone text is one, where the endpoint takes that."""
        key, limit = endpoint.dialogue, self.config.max_messages
        entries = value.get(key)
        if entries is None or (isinstance(entries, str) and endpoint.takes_text):
            return
        if not isinstance(entries, list):
            what = f"'{key}' is {caps.shown(entries)}; send a list of messages"
            raise ClientFault(what, code="invalid_type", param=key)
        if limit is not None and len(entries) > limit:
            what = f"'{key}' has {len(entries)} entries, and at most {limit} are allowed here; send fewer"
            raise ClientFault(what, code="array_above_max_length", param=key)

    def _judge_text(self, endpoint: Endpoint, value: dict[str, Any], body: bytes) -> None:
        total, of_one, of_all = text.tools(endpoint, body), self.config.max_message_bytes, self.config.max_input_bytes
        for param, size in text.messages(endpoint, value):
            total += size
            if of_one is not None and size > of_one:
                raise _too_long(param, f"'{param}' has {size}", f"{of_one} are allowed in one message")
        if of_all is not None and total > of_all:
            raise _too_long(endpoint.texts[0], f"the prompt has {total}", f"{of_all} are allowed here")

    def _with_caps(self, endpoint: Endpoint, value: dict[str, Any], body: bytes) -> bytes:
        max_tokens, max_choices = self.config.max_tokens, self.config.max_choices
        if not (max_tokens and endpoint.caps) and not (max_choices and endpoint.choices):
            return body
        holder = caps.holder_of(endpoint, value)
        if max_choices:
            caps.judge_choices(endpoint, holder, max_choices)
        changes = max_tokens.changes(endpoint, holder) if max_tokens and endpoint.caps else {}
        return caps.written(endpoint, body, changes) if changes else body


def _refuse_other_cases(value: dict[str, Any], keys: frozenset[str]) -> None:
    for key in value:
        if key not in keys and key.casefold() in keys:
            what = f"'{key}' is not how '{key.casefold()}' is written; send that"
            raise ClientFault(what, code="unknown_parameter", param=key)


def _refuse_repeated(body: bytes, keys: frozenset[str]) -> None:
    key = repeated_key(body, keys)
    if key is not None:
        raise _repeated(key)


def _repeated(key: str) -> ClientFault:
    return ClientFault(f"'{key}' stands more than once; send it once", code="repeated_parameter", param=key)


def _too_long(param: str, what: str, limit: str) -> ClientFault:
    return ClientFault(
        f"{what} bytes of text, and at most {limit}; shorten it", code="string_above_max_length", param=param
    )
