"""Content-Encoding: reading a compressed body beside its relay. gzip and deflate are known; others stay opaque."""

from __future__ import annotations

import zlib

MAX_CHUNK_BYTES = 64 * 2**20
MAX_RATIO = 100
FREE_BYTES = 4 * 2**20
"""What one chunk may unfold to, and what a body may as a multiple of its own size, from FREE_BYTES on: a bomb ends the
reading, never the process. Chats and their events shrink to a tenth, seldom to a fiftieth."""

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_MEMBER = b"\x1f"


class Unreadable(Exception):
    """The bytes are not in the encoding that the header names, or unfold to too much."""


class Decoder:
    """Undoes the encodings of one Content-Encoding field, chunk by chunk."""

    def __init__(self, layers: int) -> None:
        self._layers = [zlib.decompressobj(_GZIP_OR_ZLIB) for _ in range(layers)]
        self._taken = self._given = 0

    def feed(self, chunk: bytes) -> bytes:
        """Raises Unreadable."""
        self._taken += len(chunk)
        room = min(MAX_CHUNK_BYTES, max(FREE_BYTES, MAX_RATIO * self._taken) - self._given)
        for place in range(len(self._layers)):
            chunk = self._unfolded(place, chunk, room)
        self._given += len(chunk)
        return chunk

    def _unfolded(self, place: int, chunk: bytes, room: int) -> bytes:
        """A body may be several gzip members in a row; other bytes after the last one are padding."""
        layer, pieces = self._layers[place], []
        while chunk and (not layer.eof or chunk.startswith(_MEMBER)):
            if layer.eof:
                layer = self._layers[place] = zlib.decompressobj(_GZIP_OR_ZLIB)
            try:
                pieces.append(layer.decompress(chunk, room + 1))
            except zlib.error as error:
                raise Unreadable(str(error)) from error
            room -= len(pieces[-1])
            if room < 0:
                raise Unreadable("it unfolds to too much")
            chunk = layer.unused_data
        return b"".join(pieces)


def is_plain(content_encoding: bytes) -> bool:
    return content_encoding.strip().lower() in {b"", b"identity"}


def decoded(body: bytes, content_encoding: bytes) -> bytes:
    """A whole body, or its beginning. Raises Unreadable, also where an encoding is not known here."""
    if is_plain(content_encoding):
        return body
    decoder = decoder_for(content_encoding)
    if decoder is None:
        raise Unreadable("the encoding is not known")
    return decoder.feed(body)


def decoder_for(content_encoding: bytes) -> Decoder | None:
    """A decoder, or None where an encoding is not known here."""
    names = [name.strip().lower() for name in content_encoding.split(b",")]
    if all(name in {b"gzip", b"x-gzip", b"deflate"} for name in names):
        return Decoder(len(names))
    return None
