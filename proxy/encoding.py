"""Content-Encoding: reading a compressed body beside its relay. gzip and deflate are known; others stay opaque."""

from __future__ import annotations

import zlib

MAX_RATIO_BYTES = 64 * 1024 * 1024
"""What one chunk may unfold to: a bomb ends the reading, never the process."""

_GZIP_OR_ZLIB = zlib.MAX_WBITS | 32
_MEMBER = b"\x1f"


class Unreadable(Exception):
    """The bytes are not in the encoding that the header names, or unfold to too much."""


class Decoder:
    """Undoes the encodings of one Content-Encoding field, chunk by chunk."""

    def __init__(self, layers: int) -> None:
        self._layers = [zlib.decompressobj(_GZIP_OR_ZLIB) for _ in range(layers)]

    def feed(self, chunk: bytes) -> bytes:
        """Raises Unreadable."""
        for place in range(len(self._layers)):
            chunk = self._unfolded(place, chunk)
        return chunk

    def _unfolded(self, place: int, chunk: bytes) -> bytes:
        """A body may be several gzip members in a row; other bytes after the last one are padding."""
        layer, pieces, room = self._layers[place], [], MAX_RATIO_BYTES + 1
        while chunk and (not layer.eof or chunk.startswith(_MEMBER)):
            if layer.eof:
                layer = self._layers[place] = zlib.decompressobj(_GZIP_OR_ZLIB)
            try:
                pieces.append(layer.decompress(chunk, room))
            except zlib.error as error:
                raise Unreadable(str(error)) from error
            room -= len(pieces[-1])
            if room <= 0:
                raise Unreadable(f"a chunk unfolds to more than {MAX_RATIO_BYTES} bytes")
            chunk = layer.unused_data
        return b"".join(pieces)


def is_plain(content_encoding: bytes) -> bool:
    return content_encoding.strip().lower() in {b"", b"identity"}


def decoder_for(content_encoding: bytes) -> Decoder | None:
    """A decoder, or None where an encoding is not known here."""
    names = [name.strip().lower() for name in content_encoding.split(b",")]
    if all(name in {b"gzip", b"x-gzip", b"deflate"} for name in names):
        return Decoder(len(names))
    return None
