"""Logs: what happened in the house as JSON lines on stderr, and one access line per exchange on stdout.

Neither ever holds a header, a query, a body or a credential. Access lines are collected and written a few times a
second, so that a request does not pay for a system call.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

import orjson
from typing_extensions import override

if TYPE_CHECKING:
    from typing import Any

    from proxy.exchange import Exchange

FLUSH_SECONDS = 0.1
FLUSH_BYTES = 64 * 1024
SHOWN_PATH = 300

_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((key, value) for key, value in vars(record).items() if key not in _PLAIN)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def configure(level: int = logging.INFO) -> None:
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [stderr]
    root.setLevel(level)


class AccessLog:
    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._lines: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    def write(self, exchange: Exchange) -> None:
        line = _line(_entry(exchange))
        self._lines.append(line)
        self._size += len(line)
        if self._size > FLUSH_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines, self._size = self._lines, [], 0
        try:
            self._out.write(b"".join(lines))
            self._out.flush()
        except (OSError, ValueError):
            logging.getLogger("weir.access").warning("the access log cannot be written", exc_info=True)


def _line(entry: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(entry, option=_OPTIONS)
    except orjson.JSONEncodeError:  # a path that is not UTF-8
        return orjson.dumps({**entry, "path": entry["path"].encode("ascii", "replace").decode()}, option=_OPTIONS)


def _entry(exchange: Exchange) -> dict[str, Any]:
    response, error, token = exchange.response, exchange.error, exchange.first_token_at
    return {
        "time": datetime.now(UTC),
        "id": exchange.id,
        "method": exchange.request.method,
        "path": exchange.request.path[:SHOWN_PATH],
        "route": exchange.route or None,
        "upstream": exchange.attempts[-1].target.upstream if exchange.attempts else None,
        "attempts": len(exchange.attempts),
        "status": response.status if response else None,
        "outcome": exchange.outcome,
        "error": error.error_code if error else None,
        "bytes": exchange.response_bytes,
        "duration_ms": round((exchange.ended - exchange.started) * 1000, 2),
        "ttft_ms": None if token is None else round((token - exchange.started) * 1000, 2),
    }
