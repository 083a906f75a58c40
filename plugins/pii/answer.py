"""Values of an answer's JSON: their texts as they go on, and what tells the same in other words taken away.

Nothing is changed in place: what is handed back is the object that came, unless something in it had to change.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import orjson
from typing_extensions import override

from plugins.pii.channel import revised
from proxy.plugin import BodyFilter

if TYPE_CHECKING:
    from collections.abc import Callable

    from plugins.pii.placeholder import Table
    from plugins.pii.sight import Sight

STRUCTURE: Final = frozenset(
    {
        "b64_json",
        "created",
        "created_at",
        "encrypted_content",
        "finish_reason",
        "id",
        "index",
        "item_id",
        "logprobs",
        "model",
        "obfuscation",
        "object",
        "partial_image_b64",
        "prefill",
        "role",
        "sequence_number",
        "service_tier",
        "signature",
        "status",
        "system_fingerprint",
        "tokens",
        "top_tokens",
        "type",
        "usage",
    }
)
"""Of these keys no text is read. Tokens are pieces of one that is."""

LONG: Final = 128 * 1024
"""Bytes of a body from which on it is read in a thread."""

READ: Final = frozenset({str, dict, list})
"""What may hold a text."""

JSON_KEYS: Final = frozenset({"arguments", "partial_json"})
CONTENT: Final = frozenset({"content", "text", "generated_text", "delta"})
_TOKENS: Final = frozenset({"logprobs", "token_ids", "tokens", "top_tokens", "prefill", "prompt_logprobs"})
_NUMBERS: Final = (int, float)


class Answers:
    """Of one exchange. `says_json`: the app has asked for content that is JSON."""

    __slots__ = ("_table", "says_json", "sight")

    def __init__(self, sight: Sight, table: Table, *, says_json: bool) -> None:
        self.sight = sight
        self.says_json = says_json
        self._table = table

    def is_json(self, key: str) -> bool:
        return key in JSON_KEYS or (self.says_json and key in CONTENT)

    def of(self, value: Any, key: str = "") -> Any:
        """`value`, which stands under `key`, as it goes on."""
        match value:
            case str():
                return revised(self.sight, value, is_json=self.is_json(key)) if value else value
            case dict():
                return self._of_object(value)
            case list() if value and not isinstance(value[0], _NUMBERS):
                return self._of_list(value, key)
            case _:
                return value

    def _of_list(self, values: list[Any], key: str) -> list[Any]:
        after = [self.of(value, key) for value in values]
        return after if any(new is not old for new, old in zip(after, values, strict=True)) else values

    def _of_object(self, value: dict[str, Any]) -> dict[str, Any]:
        changed = {
            key: new
            for key, old in value.items()
            if type(old) in READ and key not in STRUCTURE and (new := self.of(old, key)) is not old
        }
        if changed:
            value = without_tokens({**value, **changed})
        return self._with_keys(value) if self._table.values else value

    def _with_keys(self, value: dict[str, Any]) -> dict[str, Any]:
        """Keys can hold placeholders: the request's were looked through as well."""
        within = self._table.grammar.within
        if not any(next(within(key), None) for key in value):
            return value
        return {revised(self.sight, key, is_json=False): member for key, member in value.items()}


def without_tokens(value: dict[str, Any]) -> dict[str, Any]:
    """Of an object whose text has changed, without the tokens that spell the old text, and their probabilities."""
    spelled: dict[str, Any] = {
        key: [] if isinstance(old, list) else None for key, old in value.items() if key in _TOKENS and old
    }
    details = value.get("details")
    if "generated_text" in value and isinstance(details, dict):
        spelled["details"] = without_tokens(details)
    return {**value, **spelled} if spelled else value


class Whole(BodyFilter):
    """An answer that is here as a whole, as JSON (`json_of`) or as text (`text_of`)."""

    __slots__ = ("_answers", "_read")

    def __init__(self, answers: Answers, read: Callable[[Answers, bytes], bytes]) -> None:
        self._answers = answers
        self._read = read

    @override
    async def apply(self, body: bytes) -> bytes:
        if len(body) <= LONG:
            return self._read(self._answers, body)
        return await asyncio.to_thread(self._read, self._answers, body)  # it would hold up everybody else


def json_of(answers: Answers, body: bytes) -> bytes:
    try:
        value = orjson.loads(body)
    except ValueError:
        return text_of(answers, body)
    after = answers.of(value)
    return body if after is value else orjson.dumps(after)


def text_of(answers: Answers, body: bytes) -> bytes:
    """What is no UTF-8 is read byte by byte, so that bytes which nobody changes stay what they are."""
    try:
        text, encoding = body.decode(), "utf-8"
    except UnicodeDecodeError:
        text, encoding = body.decode("latin-1"), "latin-1"
    after = answers.of(text)
    return body if after is text else bytes(after.encode(encoding, "replace"))
