"""What a request asks for, as far as the cache must know: whether its answer can be given again, and in which way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from plugins.cache import generation

SHAPES: Final = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "responses",
    "/": generation.SHAPE,
    "/generate": generation.SHAPE,
    "/generate_stream": generation.SHAPE,
}
"""By path, what answers look like. What stands below `/v1/responses` is about one that there is already."""

HAVE_USAGE_EVENTS: Final = frozenset({"chat", "completions"})

_ACTING: Final = frozenset(
    {
        "audio",
        "background",
        "conversation",
        "plugins",
        "previous_response_id",
        "search_parameters",
        "store",
        "web_search_options",
    }
)
"""Where one of these is set, the upstream looks at something else than the request, or remembers it."""

_DOUBTFUL: Final = _ACTING | {"tools"}

_OWN_TOOLS: Final = frozenset({"function", "custom"})
"""Tools that the app runs; all others act upstream."""


@dataclass(slots=True)
class Asked:
    """`key`: under what the answer is kept; `form`: who shares a flight asks for the very same bytes.

    `wants_usage`: a stream with an event for its usage.
    """

    shape: str
    key: str
    form: str
    streams: bool
    wants_usage: bool

    @property
    def hides_usage(self) -> bool:
        """Whether the usage event of a stream is not for this app."""
        return self.streams and not self.wants_usage and self.shape in HAVE_USAGE_EVENTS


def is_repeatable(body: dict[str, Any]) -> bool:
    if _DOUBTFUL.isdisjoint(body):
        return True
    tools = body.get("tools")
    if tools and not (isinstance(tools, list) and all(map(_is_apps_own, tools))):
        return False
    return not any(map(body.get, _ACTING))


def asked(shape: str, body: dict[str, Any], key: str, path: str = "") -> Asked:
    form, streams, wants_usage = key, False, False
    if shape == generation.SHAPE:  # neither form can be made of the other, and the key knows them apart
        return Asked(shape, key, key, generation.streams(path, body), wants_usage=False)
    if body.get("stream") is True and shape != "embeddings":
        options = body.get("stream_options")
        streams, wants_usage = True, isinstance(options, dict) and options.get("include_usage") is True
        form = f"{key}{'u' if wants_usage else 's'}"
    return Asked(shape, key, form, streams, wants_usage)


def wants_one_choice(body: dict[str, Any]) -> bool:
    return body.get("n") in {None, 1} and not isinstance(body.get("prompt"), list)


def _is_apps_own(tool: Any) -> bool:
    return isinstance(tool, dict) and tool.get("type", "function") in _OWN_TOOLS
