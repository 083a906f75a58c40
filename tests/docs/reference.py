"""The key tables of the pages in docs, made from the models: `python -m tests.docs.reference --write` renews them."""

from __future__ import annotations

import pathlib
import re
import sys
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from plugins import budget, cache, circuit_breaker, failover, guard, metering, pii, rate_limit, sse_keepalive, tracing
from plugins.auth import settings as auth
from plugins.budget.settings import AmountText
from plugins.guard import caps
from plugins.pii.custom import EntityName
from proxy import config, prices, scalars, targets
from proxy.plugin import PluginConfig

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic.fields import FieldInfo

PAGES = sorted((pathlib.Path(__file__).parents[2] / "docs").glob("*.md"))
MODELS: dict[str, type[BaseModel]] = {
    "config": config.Config,
    "server": config.Server,
    "upstream": config.Upstream,
    "timeouts": config.Timeouts,
    "tls": config.Tls,
    "token": config.Token,
    "route": config.Route,
    "match": config.Match,
    "target": config.Target,
    "balance": targets.Balance,
    "health": targets.Health,
    "queue": targets.Queue,
    "capacity": targets.Capacity,
    "load": targets.Load,
    "price": prices.Price,
    "plugin": PluginConfig,
    "auth": auth.AuthConfig,
    "auth_key": auth.KeySettings,
    "auth_jwt": auth.JwtSettings,
    "budget": budget.BudgetConfig,
    "rate_limit": rate_limit.RateLimitConfig,
    "metering": metering.MeteringConfig,
    "cache": cache.CacheConfig,
    "cache_memory": cache.Memory,
    "sse_keepalive": sse_keepalive.KeepaliveConfig,
    "tracing": tracing.TracingConfig,
    "circuit_breaker": circuit_breaker.BreakerConfig,
    "failover": failover.FailoverConfig,
    "failover_backoff": failover.Backoff,
    "guard": guard.GuardConfig,
    "guard_max_tokens": caps.MaxTokens,
    "pii": pii.PiiConfig,
    "pii_allow": pii.Allow,
    "pii_custom": pii.Custom,
}

_REGION = re.compile(r"(<!-- keys: (\w+) -->\n).*?(<!-- end of keys -->)", re.DOTALL)
_HEAD = "| key | value | default | meaning |\n|---|---|---|---|\n"
_PATTERNS = {
    TypeAdapter(kind).json_schema()["pattern"]: word
    for word, kind in {
        "duration": scalars.Duration,
        "address": config.Address,
        "name": scalars.Name,
        "date": scalars.Expiry,
        "price": prices.Usd,
        "share": scalars.Share,
        "rate": scalars.Rate,
        "amount": AmountText,
        "word": EntityName,
        "`bearer`, `header:NAME`, `query:NAME`": scalars.Placement,
    }.items()
}
_TYPES = {"string": "text", "boolean": "`true`, `false`", "number": "number", "array": "list", "object": "mapping"}


def renewed(page: str) -> str:
    return _REGION.sub(lambda region: f"{region[1]}{table(MODELS[region[2]])}{region[3]}", page)


def sections(page: str) -> list[str]:
    return [region[2] for region in _REGION.finditer(page)]


def table(model: type[BaseModel]) -> str:
    schema = model.model_json_schema()
    parts = schema.get("$defs", {})
    rows = (_row(name, field, _resolved(schema["properties"][name], parts)) for name, field in fields(model).items())
    return _HEAD + "".join(rows)


def fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Without those that every plugin has, which have a table of their own."""
    plain = PluginConfig.model_fields if model is not PluginConfig else {}
    return {name: field for name, field in model.model_fields.items() if name not in plain}


def _row(name: str, field: FieldInfo, schema: dict[str, Any]) -> str:
    word = _word(schema)
    cells = (f"`{name}`", word, _default(field, word), field.description or "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _resolved(schema: dict[str, Any], parts: dict[str, Any]) -> dict[str, Any]:
    """With the enums that it refers to in their place; other models have tables of their own."""
    if "anyOf" in schema:
        return {**schema, "anyOf": [_resolved(part, parts) for part in schema["anyOf"]]}
    named = parts.get(schema.get("$ref", "").rpartition("/")[2], {})
    return named if "enum" in named else schema


def _word(schema: dict[str, Any]) -> str:
    """What may be written, in a few words."""
    if "anyOf" in schema:
        words = [_word(part) for part in schema["anyOf"] if part.get("type") != "null"]
        return "size" if "size" in words else " or ".join(dict.fromkeys(words))
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"] if value is not None)
    if "const" in schema:
        return f"`{schema['const']}`" if schema["const"] is not False else "`off`"
    if "pattern" in schema:
        return _PATTERNS.get(schema["pattern"], "size")
    if schema.get("type") == "integer":
        return f"number from {schema['minimum']}" if schema.get("minimum") else "number"
    return _TYPES.get(schema.get("type", ""), "mapping")


def _default(field: FieldInfo, word: str) -> str:
    if field.is_required():
        return "required"
    if field.default_factory is not None:
        return "" if field.default_factory in (dict, list) else "its defaults"
    if field.default is None:
        return "`none`" if "`none`" in word else ""
    written = f"[{', '.join(field.default)}]" if isinstance(field.default, list) else str(field.default)
    return f"`{written.lower() if isinstance(field.default, bool) else written}`"


if __name__ == "__main__":
    for page in PAGES:
        if "--write" in sys.argv:
            page.write_text(renewed(page.read_text()))
        else:
            print(renewed(page.read_text()), end="")
