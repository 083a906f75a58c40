"""Lines on their way to a stream or a file: collected, and written a few times a second.

So a request does not pay for a system call, and never waits: a pipe that nobody reads, like a full disk, gets no more
than it takes. The rest waits here, up to a limit. A file is opened for each write, which follows whoever rotates it.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import pathlib
import select
from collections import deque
from typing import BinaryIO

FLUSH_SECONDS = 0.1
FLUSH_BYTES = 64 * 1024
MAX_WAITING = 16 * 2**20

log = logging.getLogger("weir.lines")


class Lines:
    def __init__(self, out: BinaryIO | io.RawIOBase | pathlib.Path) -> None:
        self._out = _File(out) if isinstance(out, pathlib.Path) else _Stream(out)
        self._name = str(out) if isinstance(out, pathlib.Path) else "standard output"
        self._lines: list[bytes] = []
        self._size = 0
        self._blocks: deque[bytes] = deque()
        self._sent = 0
        """Of the first block."""
        self._fails = False
        self._timer: asyncio.TimerHandle | None = None

    def write(self, line: bytes) -> None:
        """`line` ends with a line break."""
        self._lines.append(line)
        self._size += len(line)
        if self._size > FLUSH_BYTES:
            self.flush()
        elif self._timer is None:
            self._later()

    def flush(self) -> None:
        """As much as is taken at once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            self._blocks.append(b"".join(self._lines))
            self._lines, self._size = [], 0
        self._send()
        if self._blocks:
            self._bound()
            self._later()

    def close(self) -> None:
        """What is not taken now is lost."""
        self.flush()
        if self._timer is not None:
            self._timer.cancel()
        if lost := self._waiting():
            self._tell_lost(lost)

    def _later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def _send(self) -> None:
        try:
            while self._blocks and (taken := self._out.send(self._blocks[0], self._sent)):
                self._fails = False
                self._sent += taken
                if self._sent == len(self._blocks[0]):
                    self._blocks.popleft()
                    self._sent = 0
        except (OSError, ValueError):
            if not self._fails:
                log.exception("lines cannot be written, and wait", extra={"to": self._name})
            self._fails = True

    def _bound(self) -> None:
        """The older half of what would be too much goes, but for the rest of a line that is half there."""
        if sum(map(len, self._blocks)) <= MAX_WAITING:
            return
        before, rest = self._waiting(), b""
        while sum(map(len, self._blocks)) > MAX_WAITING // 2:
            oldest = self._blocks.popleft()
            if self._sent and oldest[self._sent - 1 : self._sent] != b"\n":
                rest = oldest[self._sent : oldest.find(b"\n", self._sent) + 1]
            self._sent = 0
        if rest:
            self._blocks.appendleft(rest)
        self._tell_lost(before - self._waiting())

    def _waiting(self) -> int:
        """Lines."""
        sent = self._blocks[0].count(b"\n", 0, self._sent) if self._sent else 0
        return sum(block.count(b"\n") for block in self._blocks) - sent

    def _tell_lost(self, lines: int) -> None:
        log.error("lines are lost", extra={"to": self._name, "lines": lines})


def standard_output() -> Lines:
    """Unbuffered: a buffer does not say how much of a failed write was taken."""
    return Lines(io.FileIO(1, "w", closefd=False))


class _Stream:
    """A pipe that is ready takes PIPE_BUF bytes at one stroke: at once, and untorn where others write to it as well."""

    def __init__(self, out: BinaryIO | io.RawIOBase) -> None:
        self._out = out
        self._ready = select.poll()
        try:
            self._ready.register(out.fileno(), select.POLLOUT)
            self._is_polled = True
        except (OSError, ValueError):  # one in memory
            self._is_polled = False

    def send(self, block: bytes, at: int) -> int:
        """How many bytes of `block`, from `at` on, it took; raises OSError, and ValueError where it was closed."""
        if self._is_polled and not self._ready.poll(0):
            return 0
        return self._out.write(block[at : _end(block, at)]) or 0


def _end(block: bytes, at: int) -> int:
    """Of whole lines, as many as fit."""
    most = at + select.PIPE_BUF
    if len(block) <= most:
        return len(block)
    return block.rfind(b"\n", at, most) + 1 or block.find(b"\n", at) + 1 or len(block)


class _File:
    def __init__(self, file: pathlib.Path) -> None:
        self._file = file

    def send(self, block: bytes, at: int) -> int:
        """Likewise."""
        descriptor = os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        try:
            return os.write(descriptor, memoryview(block)[at:])
        finally:
            os.close(descriptor)
