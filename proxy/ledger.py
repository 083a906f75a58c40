"""`weir ledger`: sums the lines that the metering plugin leaves, in files, compressed files or standard input.

A ledger on standard output has other lines between its own: these are skipped. A line that is one and cannot be read
(cut off by a crash, say) is told with its number, and not summed.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import decimal
import gzip
import os
import sys
import time
import zlib
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

import orjson

from proxy import statement
from proxy.sums import FIELDS, LABEL, TIMES, Sums, column
from proxy.wording import nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxy.sums import Column

LONGEST_LINE = 1024 * 1024
SHOWN_BROKEN = 5
DIGITS = 100
"""Of sums: more than any ledger needs to be exact."""

QUIET_SECONDS, TOLD_EVERY, LOOK_EVERY = 2.0, 0.5, 20_000
"""Progress: not in the first seconds, then twice a second; the clock is looked at after so many lines."""

_GZIP = b"\x1f\x8b"
_MARKS = {"ledger": b'"ledger"', "feedback": b'"feedback"'}
_WHERE_THEY_COME_FROM = "the metering plugin writes them, where its `ledger` says: to a file, or to standard output"


class Unreadable(Exception):
    """Nothing can be summed; the text says why, and what to do."""


class Period(NamedTuple):
    """Days, both in it; None is open."""

    since: str | None = None
    until: str | None = None

    def has(self, day: str) -> bool:
        return (self.since is None or self.since <= day) and (self.until is None or day <= self.until)


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "sum a ledger by who, what, where or when"
    command = commands.add_parser(
        "ledger", help=about, description="Sum the lines of ledgers, what costs most first. Sums are exact."
    )
    command.add_argument(
        "files", metavar="FILE", nargs="+", help="a ledger, also compressed by gzip; - is standard input"
    )
    command.add_argument(
        "--by",
        metavar="COLUMN",
        action="append",
        type=_column,
        help=f"{', '.join((*FIELDS, *TIMES))}, or a label's name; may be repeated (default: principal)",
    )
    command.add_argument("--since", metavar="DATE", type=_day, help="the first day, in UTC, as in 2026-11-01")
    command.add_argument("--until", metavar="DATE", type=_day, help="the last day")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_const", dest="form", const=statement.json, help="one object per line")
    form.add_argument("--csv", action="store_const", dest="form", const=statement.as_csv, help="comma-separated values")
    command.set_defaults(run=_run, form=statement.table)


def _run(options: argparse.Namespace) -> int:
    reading = Reading(Sums(options.by or [column("principal")]), Period(options.since, options.until))
    try:
        with decimal.localcontext(prec=DIGITS):
            text = reading.told(options.files, options.form)
    except Unreadable as error:
        print(f"weir ledger: {error}", file=sys.stderr)
        return 1
    print(text, end="")
    return 0


class Reading:
    """What was read so far: `found` counts the ledger's lines, `first` and `last` are their days."""

    def __init__(self, sums: Sums, period: Period) -> None:
        self.sums = sums
        self.broken = 0
        self._period = period
        self._found = 0
        self._first, self._last = "9", ""
        self._progress = Progress()

    def told(self, files: list[str], form: Callable[[Sums], str]) -> str:
        """Raises Unreadable."""
        self._progress.expect(files)
        for file in files:
            self._read(file)
        self._progress.clear()
        if self.broken > SHOWN_BROKEN:
            _note(f"{self.broken - SHOWN_BROKEN} more lines cannot be read")
        self._check(files)
        text = form(self.sums)
        self._note_limits()
        return text

    def _read(self, file: str) -> None:
        try:
            with _opened(file) as stream:
                for number, line in enumerate(_lines(stream), 1):
                    if any(mark in line for mark in _MARKS.values()) and not self._take(line):
                        self._note_broken(f"{file}:{number}: a line of a ledger that cannot be read; it is not summed")
                    self._progress.step(len(line))
        except (EOFError, zlib.error):
            self._note_broken(f"{file}: the compressed file ends too early; what came before is summed")
        except OSError as error:
            raise Unreadable(f"cannot read {file}: {error.strerror or error}") from None

    def _take(self, line: bytes) -> bool:
        """Whether it could be read."""
        try:
            entry = orjson.loads(line[line.find(b"{") :])
            if entry["log"] in _MARKS:
                self._sum(entry)
        except (KeyError, AttributeError, TypeError, ValueError, ArithmeticError):
            return False
        return True

    def _sum(self, entry: dict[str, Any]) -> None:
        day = entry["time"][:10]
        self._first, self._last = min(day, self._first), max(day, self._last)
        self._found += 1
        if self._period.has(day):
            self.sums.add(entry)

    def _note_broken(self, what: str) -> None:
        self.broken += 1
        if self.broken <= SHOWN_BROKEN:
            self._progress.clear()
            _note(what)

    def _check(self, files: list[str]) -> None:
        """Raises Unreadable where there is nothing to show, or nothing that was asked for."""
        if not self._found:
            raise Unreadable(f"no line of a ledger in {', '.join(files)}; {_WHERE_THEY_COME_FROM}")
        if not self.sums.total.requests and not self.sums.total.feedbacks:
            raise Unreadable(f"no line is of these days; the ledger goes from {self._first} to {self._last}")
        for name in self.sums.unknown_labels():
            fix = nearest(name, (*FIELDS, *TIMES), "columns beside labels")
            raise Unreadable(f"no line has a label '{name}', nor is it a column; {fix}")

    def _note_limits(self) -> None:
        if self.sums.total.unpriced:
            _note(f"{self.sums.total.unpriced:,} requests had no price: they are not in the cost")
        if self.sums.others.requests:
            _note("there are too many groups to hold: those that cost least are summed as (others)")


class Progress:
    """How much of how much was read: on a terminal, where it takes long."""

    def __init__(self) -> None:
        self._is_wanted = sys.stderr.isatty()
        self._told_at = time.monotonic() + QUIET_SECONDS
        self._lines = self._bytes = self._size = 0
        self._is_shown = False

    def expect(self, files: list[str]) -> None:
        with contextlib.suppress(OSError):
            self._size = sum(os.stat(file).st_size for file in files if not file.endswith(".gz"))  # noqa: PTH116 - as open() takes it

    def step(self, size: int) -> None:
        self._lines += 1
        self._bytes += size
        if self._is_wanted and not self._lines % LOOK_EVERY and time.monotonic() >= self._told_at:
            self._tell()

    def clear(self) -> None:
        if self._is_shown:
            self._is_shown = False
            sys.stderr.write("\r\x1b[K")

    def _tell(self) -> None:
        self._is_shown = True
        self._told_at = time.monotonic() + TOLD_EVERY
        of_size = f" of {self._size / 1e6:,.0f}" if self._size >= self._bytes else ""
        sys.stderr.write(f"\r{self._lines:,} lines, {self._bytes / 1e6:,.0f}{of_size} MB\x1b[K")
        sys.stderr.flush()


@contextlib.contextmanager
def _opened(file: str) -> Iterator[IO[bytes]]:
    with contextlib.ExitStack() as stack:
        stream = sys.stdin.buffer if file == "-" else stack.enter_context(open(file, "rb"))  # noqa: PTH123 - as it was written
        if cast("Any", stream).peek(2)[:2] == _GZIP:
            stream = stack.enter_context(gzip.open(stream))
        yield cast("IO[bytes]", stream)


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Longer ones come in pieces: these are no ledger's."""
    while line := stream.readline(LONGEST_LINE):
        yield line


def _column(name: str) -> Column:
    if not name.removeprefix(LABEL):
        raise argparse.ArgumentTypeError("names nothing; write a column, or a label's name")
    return column(name)


def _day(text: str) -> str:
    try:
        return dt.date.fromisoformat(text).isoformat()
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a date; write it as in 2026-11-01") from None


def _note(text: str) -> None:
    print(f"weir ledger: {text}", file=sys.stderr)
