"""WebSocket frames (RFC 6455), sans-io: where they end, what closes the connection, and the text messages.

This only looks at bytes that pass anyway. What cannot be read (compressed, larger than the limit) is skipped, never
held; after bytes that are no frames the reader `is_lost` and looks no more.
"""

from __future__ import annotations

NORMAL, GOING_AWAY, NO_CODE = 1000, 1001, 1005

_CONTINUATION, _TEXT, _BINARY, _CLOSE = 0x0, 0x1, 0x2, 0x8
_DATA = frozenset({_CONTINUATION, _TEXT, _BINARY})
_CONTROLS = frozenset({_CLOSE, 0x9, 0xA})
_FINAL, _RESERVED, _OPCODE, _MASKED, _LENGTH = 0x80, 0x70, 0x0F, 0x80, 0x7F
_WIDTHS = {126: 2, 127: 8}
_MAX_HEAD = 14
_MAX_CONTROL = 125


def close_frame(code: int) -> bytes:
    """A server's: not masked."""
    return bytes((_FINAL | _CLOSE, 2)) + code.to_bytes(2, "big")


class Frames:
    """One direction, from its first byte on. `limit`: bytes of the longest text message that is handed out; 0 for none.

    `close_code` is the close frame's, NO_CODE where it has none; nothing counts after it.
    """

    __slots__ = (
        "_head",
        "_held",
        "_in_frame",
        "_in_message",
        "_left",
        "_limit",
        "_mask",
        "_message",
        "_opcode",
        "close_code",
        "is_lost",
    )

    def __init__(self, limit: int) -> None:
        self.close_code: int | None = None
        self.is_lost = False
        self._limit = limit
        self._head = b""
        self._in_frame = self._in_message = False
        self._opcode = self._left = 0
        self._mask = b""
        self._held: bytearray | None = None
        self._message: bytearray | None = None

    @property
    def at_boundary(self) -> bool:
        """Whether another frame may stand here."""
        return not (self._in_frame or self._head or self.is_lost)

    @property
    def is_amid(self) -> bool:
        """Whether a frame or a message has begun whose end is not here yet."""
        return not self.is_lost and (self._in_message or not self.at_boundary)

    def feed(self, chunk: bytes) -> list[bytes]:
        """The text messages that this chunk completes."""
        found: list[bytes] = []
        at, end = 0, len(chunk)
        while at < end and self.close_code is None:
            if not self._in_frame:
                at = self._begin(chunk, at)
                if not self._in_frame:
                    break
            came = min(self._left, end - at)
            if self._held is not None:
                self._held += chunk[at : at + came]
            at += came
            self._left -= came
            if not self._left:
                self._end(found)
        return found

    def _begin(self, chunk: bytes, at: int) -> int:
        """Where the frame's payload begins, if its header is complete."""
        if self.is_lost:
            return at
        head = self._head + chunk[at : at + _MAX_HEAD - len(self._head)]
        size = _head_size(head)
        if len(head) < size:
            self._head = head
            return len(chunk)
        at += size - len(self._head)
        self._head = b""
        is_masked = bool(head[1] & _MASKED)
        self._mask = head[size - 4 : size] if is_masked else b""
        short = head[1] & _LENGTH
        length = int.from_bytes(head[2 : 2 + _WIDTHS[short]], "big") if short in _WIDTHS else short
        self._note(head[0], length)
        return at

    def _note(self, first: int, length: int) -> None:
        self._opcode, is_final = first & _OPCODE, bool(first & _FINAL)
        if self._opcode in _CONTROLS and is_final and length <= _MAX_CONTROL:
            self._held = bytearray() if self._opcode == _CLOSE else None
        elif self._opcode in _DATA and (self._opcode == _CONTINUATION) is self._in_message and not length >> 63:
            self._note_data(length, is_plain=not first & _RESERVED)
            self._in_message = not is_final
        else:
            self._lose()
            return
        self._left, self._in_frame = length, True

    def _note_data(self, length: int, *, is_plain: bool) -> None:
        if self._opcode != _CONTINUATION:
            self._message = bytearray() if self._opcode == _TEXT and is_plain and self._limit else None
        if self._message is not None and len(self._message) + length > self._limit:
            self._message = None
        self._held = None if self._message is None else bytearray()

    def _end(self, found: list[bytes]) -> None:
        self._in_frame = False
        if self._held is None:
            return
        payload = _unmasked(self._held, self._mask)
        if self._opcode == _CLOSE:
            self._close(payload)
        elif self._message is not None:
            self._message += payload
            if not self._in_message:
                found.append(bytes(self._message))
                self._message = None

    def _close(self, payload: bytes | bytearray) -> None:
        if len(payload) == 1:
            self._lose()
        else:
            self.close_code = int.from_bytes(payload[:2], "big") if payload else NO_CODE

    def _lose(self) -> None:
        self.is_lost = True
        self._held = self._message = None


def _head_size(head: bytes) -> int:
    """In bytes, as far as what has come of it tells."""
    if len(head) < 2:
        return 2
    return 2 + _WIDTHS.get(head[1] & _LENGTH, 0) + (4 if head[1] & _MASKED else 0)


def _unmasked(payload: bytes | bytearray, mask: bytes) -> bytes | bytearray:
    if not mask:
        return payload
    size = len(payload)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")
