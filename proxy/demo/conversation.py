"""A conversation, whichever endpoint it came through: who said what, and about how many tokens that is."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from proxy.demo.errors import invalid

CHARACTERS_PER_TOKEN = 4


@dataclasses.dataclass(frozen=True, slots=True)
class Turn:
    role: str  # user, assistant, system, developer; tool: what a tool answered
    text: str


def tokens(characters: int) -> int:
    return max(1, math.ceil(characters / CHARACTERS_PER_TOKEN))


def said(turns: Sequence[Turn]) -> str:
    """What the user said last."""
    return next((turn.text for turn in reversed(turns) if turn.role == "user"), "")


def from_messages(messages: object) -> tuple[Turn, ...]:
    """Chat completions' ``messages``."""
    if not isinstance(messages, list) or not messages:
        raise invalid("Missing required parameter: 'messages' must be a non-empty array.", "messages")
    return tuple(_turn(message, f"messages[{at}]") for at, message in enumerate(messages))


def from_input(items: object) -> tuple[Turn, ...]:
    """Responses' ``input``: a string, or messages, calls and their outputs."""
    if isinstance(items, str):
        return (Turn("user", items),)
    if not isinstance(items, list) or not items:
        raise invalid("Missing required parameter: 'input' must be a string or a non-empty array.", "input")
    return tuple(_item(item, f"input[{at}]") for at, item in enumerate(items))


def _item(item: Any, where: str) -> Turn:
    if not isinstance(item, dict) or "role" in item:
        return _turn(item, where)
    if item.get("type") == "function_call_output":
        return Turn("tool", _text(item.get("output"), f"{where}.output"))
    return Turn("assistant", "")


def _turn(message: Any, where: str) -> Turn:
    if not isinstance(message, dict):
        raise invalid(f"Invalid type for '{where}': expected an object.", where)
    role = message.get("role")
    if not isinstance(role, str):
        raise invalid(f"Missing required parameter: '{where}.role'.", f"{where}.role")
    return Turn(role, _text(message.get("content"), f"{where}.content"))


def _text(content: object, where: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise invalid(f"Invalid type for '{where}': expected a string or an array of content parts.", where)
    return " ".join(part["text"] for part in content if isinstance(part.get("text"), str))
