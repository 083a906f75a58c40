"""Lines on their way to a stream or a file: collected, and written a few times a second.

So a request does not pay for a system call. A file is opened for each write, which follows whoever rotates it; what it
does not take waits for the next time, up to a limit.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pathlib
from select import PIPE_BUF
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FLUSH_SECONDS = 0.1
FLUSH_BYTES = 64 * 1024
MAX_WAITING = 16 * 2**20

log = logging.getLogger("weir.lines")


class Lines:
    def __init__(self, out: BinaryIO | pathlib.Path, *, shares: bool = False) -> None:
        """`shares`: others write to the same stream, and lines must not be torn; an appended file is shared anyway."""
        writer = _Appender(out) if isinstance(out, pathlib.Path) else _Writer(out, PIPE_BUF if shares else MAX_WAITING)
        self._send: Callable[[bytes], int] = writer.send
        self._name = str(out) if isinstance(out, pathlib.Path) else "standard output"
        self._waiting: list[bytes] = []
        self._size = 0
        self._full_at = FLUSH_BYTES
        self._timer: asyncio.TimerHandle | None = None

    def write(self, line: bytes) -> None:
        """`line` ends with a line break."""
        self._waiting.append(line)
        self._size += len(line)
        if self._size > self._full_at:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            data = b"".join(self._waiting)
            rest = self._bounded(data[self._send(data) :])
            self._waiting, self._size = [rest] if rest else [], len(rest)
            self._full_at = len(rest) + FLUSH_BYTES

    def _bounded(self, rest: bytes) -> bytes:
        """The newest half of what would be too much."""
        if len(rest) <= MAX_WAITING:
            return rest
        kept = rest[rest.find(b"\n", len(rest) - MAX_WAITING // 2) + 1 :]
        log.error("lines are lost", extra={"to": self._name, "lines": rest.count(b"\n") - kept.count(b"\n")})
        return kept


class _Writer:
    """A stream does not say how much of a failed write it took: what it refuses is gone."""

    def __init__(self, out: BinaryIO, most: int) -> None:
        """`most`: bytes that a pipe takes at one stroke; a line that is longer may be torn."""
        self._out = out
        self._most = most

    def send(self, data: bytes) -> int:
        try:
            for piece in _pieces(data, self._most):
                self._out.write(piece)
                self._out.flush()
        except (OSError, ValueError):
            log.warning("standard output cannot be written", exc_info=True)
        return len(data)


def _pieces(data: bytes, most: int) -> Iterator[bytes]:
    """Whole lines, as many as fit."""
    begin = 0
    while len(data) - begin > most:
        end = data.rfind(b"\n", begin, begin + most) + 1 or data.find(b"\n", begin) + 1 or len(data)
        yield data[begin:end]
        begin = end
    if begin < len(data):
        yield data[begin:]


class _Appender:
    def __init__(self, file: pathlib.Path) -> None:
        self._file = file
        self._fails = False

    def send(self, data: bytes) -> int:
        """How many bytes the file took."""
        sent = 0
        try:
            descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
            try:
                while sent < len(data):
                    sent += os.write(descriptor, data[sent:])
            finally:
                os.close(descriptor)
            self._fails = False
        except OSError:
            if not self._fails:
                log.exception("a file cannot be written", extra={"file": str(self._file)})
            self._fails = True
        return sent
