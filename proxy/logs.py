"""Logs: what happened in the house as JSON lines on stderr, and one access line per exchange on stdout.

Neither ever holds a header, a query, a body or a credential.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import orjson
from typing_extensions import override

if TYPE_CHECKING:
    from typing import Any

    from proxy.exchange import Exchange

SHOWN_PATH = 300

_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z
_PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """With what every line of this process says: of several workers, which one it is."""

    def __init__(self, **facts: Any) -> None:
        super().__init__()
        self._facts = facts

    @override
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._facts,
        }
        line.update((key, value) for key, value in vars(record).items() if key not in _PLAIN)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


def configure(level: int = logging.INFO, **facts: Any) -> None:
    stderr = logging.StreamHandler(sys.stderr)
    stderr.setFormatter(JsonLines(**facts))
    root = logging.getLogger()
    root.handlers[:] = [stderr]
    root.setLevel(level)


def access_line(exchange: Exchange) -> bytes:
    return _line(_entry(exchange))


def _line(entry: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(entry, option=_OPTIONS)
    except orjson.JSONEncodeError:  # a path that is not UTF-8
        return orjson.dumps({**entry, "path": entry["path"].encode("ascii", "replace").decode()}, option=_OPTIONS)


def _entry(exchange: Exchange) -> dict[str, Any]:
    response, error, token = exchange.response, exchange.error, exchange.first_token_at
    return {
        "log": "access",
        "time": datetime.now(UTC),
        "id": exchange.id,
        "method": exchange.request.method,
        "path": exchange.request.shown_path[:SHOWN_PATH],
        "route": exchange.route or None,
        "upstream": None if (served_by := exchange.served_by) is None else served_by.target.upstream,
        "attempts": len(exchange.attempts),
        "status": response.status if response else None,
        "outcome": exchange.outcome,
        "error": error.error_code if error else None,
        "bytes": exchange.response_bytes,
        "duration_ms": _ms(exchange.ended - exchange.started),
        "ttft_ms": None if token is None else _ms(token - exchange.started),
    }


def _ms(seconds: float) -> float:
    """To two decimals; `round(x, 2)` would go by way of text."""
    return round(seconds * 100_000) / 100
