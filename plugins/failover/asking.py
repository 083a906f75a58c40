"""What a request says of how it may be tried: whether it asks for a stream, whether one upstream alone can serve it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.plugin import Request

KEEPING = frozenset(
    {
        "assistants",
        "batches",
        "containers",
        "conversations",
        "evals",
        "files",
        "fine_tuning",
        "threads",
        "uploads",
        "vector_stores",
        "videos",
    }
)
"""Below these paths upstreams keep what they were given: another one would say that it does not exist."""

HARMLESS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that may be carried out twice."""


def keeps(request: Request) -> bool:
    """Whether it is about something that an upstream keeps, as far as the path tells."""
    path = request.path
    return path.startswith("/v1/") and path[4:].partition("/")[0] in KEEPING


def is_bound(request: Request) -> bool:
    """Whether only the upstream that was asked first can serve it; the body, if it has one, is at hand."""
    if request.endpoint != "responses":
        return keeps(request) or request.path.startswith("/v1/responses/")
    if request.method != "POST" or request.path.rstrip("/") != "/v1/responses":
        return True
    asked = request.glimpse()
    return isinstance(asked, dict) and bool(asked.get("previous_response_id") or asked.get("conversation"))


def asks_for_stream(request: Request) -> bool:
    """Whether its first token comes long before its end; the body is at hand."""
    body = request.at_hand
    if not body or b'"stream"' not in body:
        return request.path == "/generate_stream"
    asked = request.glimpse() if request.generates else None
    return isinstance(asked, dict) and asked.get("stream") is True
