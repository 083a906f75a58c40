"""TGI's errors, told as OpenAI tells its own: by the class that text-generation, TGI's client, has for each.

TGI says `{"error": TEXT, "error_type": KIND}` over HTTP. Within a chat's stream it says `{"error": {"message": TEXT,
"http_status_code": 422}}`, 422 whatever it is, so that only the first words tell the kind.

text-generation's package imports two HTTP clients (0.4 s, 50 MB), its module of errors nothing: only that is loaded.
"""

from __future__ import annotations

import importlib.util
import pathlib
import sys
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from proxy.answer import in_band_error
from proxy.complaint import kind_of
from proxy.kind import Kind

if TYPE_CHECKING:
    from types import ModuleType

    from proxy.answer import InBandError

_INVALID, _FAILED = "invalid_request_error", "server_error"

_CLASSES = {
    "ValidationError": (400, _INVALID),
    "OverloadedError": (429, "overloaded_error"),
    "GenerationError": (500, _FAILED),
    "IncompleteGenerationError": (500, _FAILED),
}
"""Status and type by class. The others of text-generation are classes of statuses, and tell no more than these."""

_VALIDATIONS = frozenset(
    {"tool_error", "template_error", "missing_template_variable", "suffix not supported", "batch size exceeded"}
)
_SAME = {**dict.fromkeys(_VALIDATIONS, "validation"), "incomplete_generation_stream": "incomplete_generation"}
"""Kinds that TGI has, and text-generation takes for nothing in particular."""

_BEGINNINGS = (
    ("Model is overloaded", "overloaded"),
    ("Request failed during generation", "generation"),
    ("Incomplete generation", "incomplete_generation"),
    ("Input validation error", "validation"),
    ("Tool error", "tool_error"),
    ("Template error", "template_error"),
    ("Missing template", "missing_template_variable"),
)


class Error(NamedTuple):
    """As OpenAI would tell it: `code` is TGI's word for it, or `context_length_exceeded`.

    `word`: what text-generation calls it. It stands beside the error, so that TGI's own client raises the same for its
    chats as it does without Weir.
    """

    status: int
    message: str
    type: str
    code: str | None
    word: str | None = None

    def body(self) -> bytes:
        told = {"message": self.message, "type": self.type, "code": self.code, "param": None}
        beside = {} if self.word is None else {"error_type": self.word}
        return orjson.dumps({"error": told, **beside})


@cache
def classes() -> ModuleType:
    """`text_generation.errors`, by itself."""
    name = "text_generation.errors"
    if name in sys.modules:
        return sys.modules[name]
    package = importlib.util.find_spec("text_generation")
    assert package is not None
    assert package.origin is not None
    spec = importlib.util.spec_from_file_location(name, pathlib.Path(package.origin).with_name("errors.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def error_in(status: int, value: Any) -> Error | None:
    """Of the JSON of an answer or an event; None where it is no error, or is told in OpenAI's way already."""
    detail = value.get("error") if isinstance(value, dict) else None
    is_tgis = isinstance(detail, str) or (isinstance(detail, dict) and "http_status_code" in detail)
    told = in_band_error(value) if is_tgis else None
    return None if told is None else error_of(status, told)


def refusal(status: int, text: bytes) -> Error:
    """What TGI's framework says of a request that TGI never saw."""
    right, kind = _by_status(status)
    return Error(right, text.decode("utf-8", "replace"), kind, None, "validation")


def error_of(status: int, told: InBandError) -> Error:
    """`status`: the answer's; within a 200 the kind decides alone."""
    word = told.type or next((kind for words, kind in _BEGINNINGS if told.message.startswith(words)), None)
    payload: dict[str, Any] = {"error": told.message}
    if word is not None:
        payload["error_type"] = _SAME.get(word, word)
    known = _CLASSES.get(type(classes().parse_error(status, payload)).__name__)
    right, kind = known or _by_status(status)
    is_too_long = kind_of(right, told) is Kind.CONTEXT_LENGTH
    code = "context_length_exceeded" if is_too_long else _slug(word)
    return Error(right, told.message, kind, code, payload.get("error_type"))


def reason(status: int) -> bytes:
    return HTTPStatus(status).phrase.encode()


def _by_status(status: int) -> tuple[int, str]:
    """What neither its kind nor its first words explain keeps its status, if it has one."""
    if status < 400:
        return 500, _FAILED
    return (400 if status == 422 else status), (_INVALID if status < 500 else _FAILED)


def _slug(word: str | None) -> str | None:
    return None if word is None else word.replace(" ", "_")
