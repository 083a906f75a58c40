"""Which tool a model would call."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from proxy.demo.errors import invalid

_SIGNIFICANT = 4  # letters: "get" and "my" in a tool's name say nothing


@dataclasses.dataclass(frozen=True, slots=True)
class Tool:
    name: str
    parameters: dict[str, Any]


def parse(tools: object) -> list[Tool]:
    """The functions among ``tools``, nested as chat has them or flat as responses do."""
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise invalid("Invalid type for 'tools': expected an array.", "tools")
    functions = [
        (at, tool) for at, tool in enumerate(tools) if isinstance(tool, dict) and tool.get("type") == "function"
    ]
    return [_function(tool.get("function", tool), f"tools[{at}]") for at, tool in functions]


def _function(function: Any, where: str) -> Tool:
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise invalid(f"Missing required parameter: '{where}.function.name'.", f"{where}.function.name")
    parameters = function.get("parameters")
    return Tool(function["name"], parameters if isinstance(parameters, dict) else {"type": "object"})


def choose(tools: Sequence[Tool], choice: object, said: str) -> Tool | None:
    """``required`` and a named tool are obeyed; ``auto`` calls the first tool that the user's words mention."""
    if choice == "none":
        return None
    mentioned = next((tool for tool in tools if _mentions(said, tool.name)), None)
    if choice in (None, "auto"):
        return mentioned
    if not tools:
        raise invalid("'tool_choice' is only allowed when 'tools' are specified.", "tool_choice")
    if choice in ("required", "any"):
        return mentioned or tools[0]
    return _named(tools, choice, mentioned)


def _named(tools: Sequence[Tool], choice: object, mentioned: Tool | None) -> Tool | None:
    name = _name(choice)
    if name is None:  # allowed_tools and other kinds: as auto
        return mentioned
    found = next((tool for tool in tools if tool.name == name), None)
    if found is None:
        raise invalid(f"Tool choice '{name}' not found in 'tools' parameter.", "tool_choice")
    return found


def _name(choice: object) -> str | None:
    if isinstance(choice, str):
        return choice
    if not isinstance(choice, dict):
        raise invalid("Invalid type for 'tool_choice': expected a string or an object.", "tool_choice")
    function = choice.get("function", choice)
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def _mentions(said: str, name: str) -> bool:
    """The name itself, or its longest word: "What is the weather in Rome?" means ``get_weather``."""
    said = said.lower()
    word = max(re.split(r"[^a-z]+", name.lower()), key=len)
    return name.lower() in said or (len(word) >= _SIGNIFICANT and word in said)
