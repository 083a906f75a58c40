"""Where the parts of a multipart form lie: their headers, which name files, and their contents."""

from __future__ import annotations

from email.message import Message
from typing import Final

_HEAD_BYTES: Final = 4096


def parts_of(body: bytes, content_type: str) -> list[tuple[int, int, str]] | None:
    """Places in the body, each with its kind: a header is `text/plain`. None where it is no such form."""
    header = Message()
    header["content-type"] = content_type
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str) or not boundary:
        return None
    fence = b"--" + boundary.encode("utf-8", "surrogateescape")
    at, parts = body.find(fence), list[tuple[int, int, str]]()
    if at < 0 or body[:at].strip():
        return None
    while not body.startswith(b"--", at + len(fence)):
        begin = at + len(fence) + 2
        head_end, following = (
            body.find(b"\r\n\r\n", begin - 2, begin + _HEAD_BYTES),
            body.find(b"\r\n" + fence, begin - 2),
        )
        if head_end < 0 or following < head_end:
            return None
        parts.append((begin, max(begin, head_end), "text/plain"))
        parts.append((head_end + 4, max(head_end + 4, following), _kind(body[begin:head_end])))
        at = following + 2
    return None if body[at + len(fence) + 2 :].strip() else parts


def _kind(head: bytes) -> str:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-type":
            return value.strip().decode("latin-1").lower()
    return ""
