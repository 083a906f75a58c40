"""What a request asks for, as far as the cache must know: whether its answer can be given again, and in which way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from proxy.plugin import Request

SHAPES: Final = frozenset({"chat", "completions", "responses", "embeddings"})
STREAMING: Final = frozenset({"chat", "completions", "responses"})
HAVE_USAGE_EVENTS: Final = frozenset({"chat", "completions"})

_ACTING: Final = (
    "audio",
    "background",
    "conversation",
    "plugins",
    "previous_response_id",
    "search_parameters",
    "store",
    "web_search_options",
)
"""Where one of these is set, the upstream looks at something else than the request, or remembers it."""

_OWN_TOOLS: Final = frozenset({"function", "custom"})
"""Tools that the app runs; all others act upstream."""


class Asked(NamedTuple):
    """`key`: under what the answer is kept. `wants_usage`: a stream with an event for its usage."""

    shape: str
    key: str
    model: str | None
    streams: bool
    wants_usage: bool
    choices: int

    @property
    def hides_usage(self) -> bool:
        """Whether the usage event of a stream is not for this app."""
        return self.streams and not self.wants_usage and self.shape in HAVE_USAGE_EVENTS

    @property
    def form(self) -> str:
        """Who shares a flight asks for the very same bytes."""
        return f"{self.key}{'s' if self.streams else ''}{'u' if self.wants_usage else ''}"


def can_be_kept(request: Request) -> bool:
    """What stands below `/v1/responses` is about one that there is already."""
    shape = request.endpoint if request.method == "POST" else ""
    return shape in SHAPES and (shape != "responses" or request.path.rstrip("/") == "/v1/responses")


def is_repeatable(body: dict[str, Any]) -> bool:
    tools = body.get("tools")
    if tools and not (isinstance(tools, list) and all(map(_is_apps_own, tools))):
        return False
    return not any(map(body.get, _ACTING))


def asked(request: Request, body: dict[str, Any], key: str) -> Asked:
    shape, model = request.endpoint, body.get("model")
    streams = body.get("stream") is True and shape in STREAMING
    options = body.get("stream_options")
    wants_usage = streams and isinstance(options, dict) and options.get("include_usage") is True
    return Asked(shape, key, model if isinstance(model, str) else None, streams, wants_usage, _choices(body))


def _is_apps_own(tool: Any) -> bool:
    return isinstance(tool, dict) and tool.get("type", "function") in _OWN_TOOLS


def _choices(body: dict[str, Any]) -> int:
    """For each prompt `n`; 0 where that is not plain."""
    wanted, prompt = body.get("n"), body.get("prompt")
    if isinstance(prompt, list):
        return 0
    return 1 if wanted is None else wanted if type(wanted) is int else 0
