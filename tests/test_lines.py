"""Lines are collected, and a flush loses none."""

import asyncio
import io
import logging
import os
from select import PIPE_BUF

import pytest

from proxy import lines
from proxy.lines import FLUSH_BYTES, Lines
from tests import wire

LINE = b'{"id": "req_1"}\n'


async def test_lines_are_collected_and_written_soon(monkeypatch):
    monkeypatch.setattr(lines, "FLUSH_SECONDS", 0.02)
    out = Counting()
    log = Lines(out)
    for _ in range(50):
        log.write(LINE)
    assert out.getvalue() == b""
    await wire.until(lambda: out.writes)
    assert (out.getvalue(), out.writes) == (50 * LINE, 1)
    log.write(LINE)
    await wire.until(lambda: out.writes == 2)


async def test_many_lines_do_not_wait_for_the_clock():
    out = Counting()
    log = Lines(out)
    while not out.writes:
        log.write(LINE)
    assert FLUSH_BYTES < len(out.getvalue()) < 2 * FLUSH_BYTES
    log.flush()
    await asyncio.sleep(2 * lines.FLUSH_SECONDS)
    assert set(out.getvalue().splitlines(keepends=True)) == {LINE}


class Counting(io.BytesIO):
    def __init__(self):
        super().__init__()
        self.pieces = []

    @property
    def writes(self):
        return len(self.pieces)

    def write(self, data):
        self.pieces.append(bytes(data))
        return super().write(data)


class Full(io.BytesIO):
    """Has room for so many bytes."""

    room = 0

    def write(self, data):
        if not self.room:
            raise OSError(28, "No space left on device")
        taken = super().write(data[: self.room])
        self.room -= taken
        return taken


@pytest.mark.parametrize("out", [Full(), io.BytesIO()], ids=["full", "closed"])
async def test_a_stream_that_cannot_be_written_stops_nothing_and_is_told_once(out, caplog):
    if type(out) is io.BytesIO:
        out.close()
    log = Lines(out)
    for _ in range(3):
        log.write(LINE)
        log.flush()
    assert [record.message for record in caplog.records] == ["lines cannot be written, and wait"]
    log.close()
    assert (caplog.records[-1].message, caplog.records[-1].lines) == ("lines are lost", 3)


async def test_what_a_stream_had_no_room_for_goes_on_where_it_stopped():
    out = Full()
    log, out.room = Lines(out), len(LINE) + 4
    for number in range(3):
        log.write(b'{"id": "req_%d"}\n' % number)
    log.flush()
    assert out.getvalue() == b'{"id": "req_0"}\n{"id'
    out.room = 1000
    await wire.until(lambda: out.getvalue() == b'{"id": "req_0"}\n{"id": "req_1"}\n{"id": "req_2"}\n')


async def test_a_pipe_that_nobody_reads_holds_nobody_up():
    """And what waits comes by itself when it is read again."""
    reads, writes = os.pipe()
    with os.fdopen(reads, "rb", 0) as reader, os.fdopen(writes, "wb", 0) as writer:
        log, told = Lines(writer), b"".join(b"%06d\n" % number for number in range(40_000))
        for line in told.splitlines(keepends=True):
            log.write(line)
        log.flush()
        got = b""
        while len(got) < len(told):
            got += await asyncio.to_thread(reader.read, 65536)
        assert got == told


async def test_lines_are_appended_to_a_file(tmp_path):
    file = tmp_path / "ledger.jsonl"
    file.write_bytes(b"before\n")
    log = Lines(file)
    log.write(LINE)
    log.flush()
    assert file.read_bytes() == b"before\n" + LINE


async def test_a_file_that_was_rotated_away_is_made_anew(tmp_path):
    file = tmp_path / "ledger.jsonl"
    log = Lines(file)
    log.write(b"one\n")
    log.flush()
    file.rename(tmp_path / "ledger.jsonl.1")
    log.write(b"two\n")
    log.flush()
    assert (tmp_path / "ledger.jsonl.1").read_bytes() == b"one\n"
    assert file.read_bytes() == b"two\n"


async def test_what_a_file_did_not_take_is_written_later_and_said_once(tmp_path, caplog):
    folder = tmp_path / "not-mounted-yet"
    log = Lines(folder / "ledger.jsonl")
    for number in range(3):
        log.write(b"%d\n" % number)
        log.flush()
    assert [record.message for record in caplog.records] == ["lines cannot be written, and wait"]
    folder.mkdir()
    log.write(b"3\n")
    log.flush()
    assert (folder / "ledger.jsonl").read_bytes() == b"0\n1\n2\n3\n"


async def test_what_waits_is_bounded_and_the_loss_is_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(lines, "MAX_WAITING", 100)
    folder = tmp_path / "away"
    log = Lines(folder / "ledger.jsonl")
    for number in range(13):
        log.write(b"line %02d\n" % number)
        log.flush()
    (lost,) = [record for record in caplog.records if record.message == "lines are lost"]
    assert (lost.levelno, lost.lines) == (logging.ERROR, 7)
    folder.mkdir()
    log.flush()
    assert (folder / "ledger.jsonl").read_bytes() == b"".join(b"line %02d\n" % number for number in range(7, 13))


async def test_lines_for_a_pipe_are_cut_between_lines_only():
    """So that others can write to it, too."""
    lines_ = [b"%d %b\n" % (place, b"x" * (place * 37 % 900)) for place in range(300)]
    out = Counting()
    log = Lines(out)
    for line in lines_:
        log.write(line)
    log.flush()
    assert out.getvalue() == b"".join(lines_)
    assert all(len(piece) <= PIPE_BUF and piece.endswith(b"\n") for piece in out.pieces)
    long = b"y" * (PIPE_BUF + 1) + b"\n"
    for line in (b"a\n", long, b"b\n"):
        log.write(line)
    log.flush()
    assert out.pieces[-3:] == [b"a\n", long, b"b\n"]


async def test_a_line_that_is_half_there_is_completed_before_older_ones_are_dropped(monkeypatch):
    monkeypatch.setattr(lines, "MAX_WAITING", 100)
    out = Full()
    log, out.room = Lines(out), 3
    for number in range(13):
        log.write(b"line %02d\n" % number)
        log.flush()
    out.room = 1000
    log.flush()
    assert out.getvalue() == b"line 00\n" + b"".join(b"line %02d\n" % number for number in range(7, 13))
