"""JSON that fits a simple JSON schema: what a model under a grammar would write."""

import itertools
from typing import Any

import orjson

from proxy.demo.errors import invalid

MAX_NODES = 1000  # a schema that refers to itself has no end
MAX_DEPTH = 8
MAX_ITEMS = 64
MAX_LENGTH = 1024

FORMATS = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "email": "demo@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
}


def written(schema: dict[str, Any], text: str) -> str:
    """JSON for ``schema`` (JSON Schema without ``pattern`` and ``not``), with ``text`` where any string will do.

    Of an object's properties the required ones are given, or all where none is required.
    """
    try:
        return orjson.dumps(_Writer(schema, text).value(schema, 0)).decode()
    except (AttributeError, LookupError, TypeError, ValueError):  # "minimum": [], "$ref": 3
        raise invalid("Invalid schema: it is not a valid JSON Schema.") from None


class _Writer:
    def __init__(self, root: dict[str, Any], text: str) -> None:
        self._root = root
        self._text = text
        self._nodes = 0

    def value(self, schema: Any, depth: int) -> Any:
        self._nodes += 1
        if not isinstance(schema, dict) or self._nodes > MAX_NODES or depth > 4 * MAX_DEPTH:
            return None
        for key in ("const", "default"):
            if key in schema:
                return schema[key]
        for key in ("enum", "examples"):
            if isinstance(schema.get(key), list) and schema[key]:
                return schema[key][0]
        return self._composed(schema, depth)

    def _composed(self, schema: dict[str, Any], depth: int) -> Any:
        if "$ref" in schema:
            return self.value(self._resolve(schema["$ref"]), depth + 1)
        for key in ("anyOf", "oneOf"):
            if schema.get(key):
                return self.value(_variant(schema[key], depth), depth + 1)
        if schema.get("allOf"):
            return self.value(_merged([*schema["allOf"], schema]), depth + 1)
        return self._typed(schema, depth)

    def _resolve(self, reference: str) -> Any:
        found: Any = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        return found

    def _typed(self, schema: dict[str, Any], depth: int) -> Any:
        match _type(schema, depth):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "integer" | "number":
                return _number(schema)
            case "boolean":
                return True
            case "null":
                return None
        return self._string(schema)

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        names = schema.get("required") or properties
        names = itertools.islice(names, MAX_NODES)
        return {name: self.value(properties.get(name, {"type": "string"}), depth + 1) for name in names}

    def _array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        least = min(schema.get("minItems", 0), MAX_ITEMS)
        count = least if depth > MAX_DEPTH or schema.get("maxItems") == 0 else max(1, least)
        return [self.value(schema.get("items", {"type": "string"}), depth + 1) for _ in range(count)]

    def _string(self, schema: dict[str, Any]) -> str:
        text = FORMATS.get(schema.get("format", ""), self._text)
        return text.ljust(min(schema.get("minLength", 0), MAX_LENGTH), ".")[: schema.get("maxLength")]


def _variant(variants: list[Any], depth: int) -> Any:
    """The first one; deep down the one that ends."""
    if depth > MAX_DEPTH:
        return next((one for one in variants if isinstance(one, dict) and one.get("type") == "null"), variants[-1])
    return variants[0]


def _merged(schemas: list[dict[str, Any]]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for schema in schemas:
        properties = {**whole.get("properties", {}), **schema.get("properties", {})}
        required = [*whole.get("required", []), *schema.get("required", [])]
        whole |= {**schema, "properties": properties, "required": required}
    del whole["allOf"]
    return whole


def _type(schema: dict[str, Any], depth: int) -> str | None:
    kind = schema.get("type")
    if isinstance(kind, list):
        return "null" if depth > MAX_DEPTH and "null" in kind else next(iter(kind), None)
    if kind is None and "properties" in schema:
        return "object"
    return kind


def _number(schema: dict[str, Any]) -> int | float:
    value: int | float = schema.get("minimum", 1)
    if "exclusiveMinimum" in schema:
        value = schema["exclusiveMinimum"] + 1
    value = min(value, schema.get("maximum", value))
    step = schema.get("multipleOf")
    return -(-value // step) * step if step else value
