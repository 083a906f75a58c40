"""Compressed bodies read beside their relay: chunk by chunk, bounded, and honest about what cannot be read."""

import gzip
import random
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.encoding import FREE_BYTES, MAX_RATIO, Unreadable, decoded, decoder_for, is_plain

TEXT = b'data: {"choices": [{"delta": {"content": "a weir stands in a stream"}}]}\n\n' * 20


def fed(encoding, *chunks):
    decoder = decoder_for(encoding)
    assert decoder is not None
    return [decoder.feed(chunk) for chunk in chunks]


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (b"gzip", gzip.compress(TEXT)),
        (b"x-gzip", gzip.compress(TEXT)),
        (b" GZIP ", gzip.compress(TEXT)),
        (b"deflate", zlib.compress(TEXT)),
        (b"gzip, gzip", gzip.compress(gzip.compress(TEXT))),
        (b"deflate,gzip", gzip.compress(zlib.compress(TEXT))),
        (b"gzip", gzip.compress(TEXT[:70]) + gzip.compress(TEXT[70:])),
        (b"gzip", gzip.compress(TEXT) + bytes(8)),
    ],
)
def test_an_encoding_is_undone_at_every_split(encoding, body):
    assert b"".join(fed(encoding, body)) == TEXT
    assert b"".join(fed(encoding, *(body[at : at + 1] for at in range(len(body))))) == TEXT
    for at in range(1, len(body)):
        assert b"".join(fed(encoding, body[:at], body[at:])) == TEXT


def test_what_was_flushed_can_be_read_at_once():
    packer = zlib.compressobj(wbits=31)
    pieces = [packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH) for event in (b"data: 1\n\n", b"data: 2\n\n")]
    assert fed(b"gzip", *pieces) == [b"data: 1\n\n", b"data: 2\n\n"]


@pytest.mark.parametrize(
    "encoding", [b"br", b"zstd", b"gzip, br", b"gzip,", b"identity, gzip", b"compress", b"aes128gcm"]
)
def test_an_encoding_that_is_not_known_has_no_decoder(encoding):
    assert decoder_for(encoding) is None
    assert not is_plain(encoding)


@pytest.mark.parametrize("encoding", [b"", b" ", b"identity", b" Identity "])
def test_no_encoding_at_all(encoding):
    assert is_plain(encoding)


@given(st.binary(min_size=2, max_size=50).filter(lambda junk: junk[:1] not in b"\x1f\x78"))
def test_garbage_is_unreadable(junk):
    with pytest.raises(Unreadable):
        fed(b"gzip", junk + bytes(20))


@pytest.mark.parametrize(
    "body",
    [TEXT, gzip.compress(TEXT)[:-8] + b"\1" * 8, gzip.compress(TEXT)[:10] + b"\xff" * 50, zlib.compress(TEXT)[2:-4]],
    ids=["not compressed", "wrong checksum", "noise after its header", "deflate without its frame"],
)
def test_a_body_that_is_not_in_its_encoding_is_unreadable(body):
    with pytest.raises(Unreadable):
        fed(b"gzip", body)


def packed(size, layers=1):
    """So many zero bytes, a thousandth of that."""
    packer = zlib.compressobj(9, wbits=31)
    body = packer.compress(bytes(size)) + packer.flush()
    return body if layers == 1 else gzip.compress(body)


@pytest.mark.parametrize("layers", [1, 2])
def test_a_bomb_ends_the_reading_and_takes_no_more_than_the_limit(layers):
    body = packed(64 * 2**20, layers)
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable, match="unfolds to too much"):
            fed(b", ".join([b"gzip"] * layers), body)
        assert tracemalloc.get_traced_memory()[1] < 2.5 * max(FREE_BYTES, MAX_RATIO * len(body))
    finally:
        tracemalloc.stop()


def test_many_small_members_are_bounded_as_one():
    member = gzip.compress(bytes(2**20))
    with pytest.raises(Unreadable, match="unfolds to too much"):
        fed(b"gzip", member * 65)


def test_many_small_chunks_are_bounded_as_one():
    body, given = packed(64 * 2**20), []

    def drip(decoder):
        given.extend(len(decoder.feed(body[at : at + 1])) for at in range(len(body)))

    with pytest.raises(Unreadable, match="unfolds to too much"):
        drip(decoder_for(b"gzip"))
    assert sum(given) <= FREE_BYTES + MAX_RATIO * len(body)


def test_a_large_body_of_what_shrinks_well_is_read():
    """Events that differ in a token and its number, flushed one by one: 10 MB of them."""
    event = 'data: {"id":"chatcmpl-1","created":1760000000,"model":"m","choices":[{"delta":{"content":"%d"}}]}\n\n'
    packer, decoder, given = zlib.compressobj(9, wbits=31), decoder_for(b"gzip"), 0
    for number in range(100_000):
        packed_event = packer.compress((event % number).encode()) + packer.flush(zlib.Z_SYNC_FLUSH)
        given += len(decoder.feed(packed_event))
    assert given > 2 * FREE_BYTES


def test_one_chunk_may_unfold_to_so_much(monkeypatch):
    noise = random.Random(1).randbytes(2**20)
    body = gzip.compress(noise)
    monkeypatch.setattr("proxy.encoding.MAX_CHUNK_BYTES", 2**20)
    assert fed(b"gzip", body) == [noise]
    monkeypatch.setattr("proxy.encoding.MAX_CHUNK_BYTES", 2**20 - 1)
    with pytest.raises(Unreadable, match="unfolds to too much"):
        fed(b"gzip", body)


def test_a_whole_body_is_read_as_its_header_says():
    assert decoded(b"text", b"identity") == b"text"
    assert decoded(gzip.compress(b"text"), b"GZIP") == b"text"
    for body, encoding in ((b"text", b"gzip"), (b"text", b"br")):
        with pytest.raises(Unreadable):
            decoded(body, encoding)
