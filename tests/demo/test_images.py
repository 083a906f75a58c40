import base64
import struct
import zlib

import pytest
from openai import AsyncOpenAI, BadRequestError


def pixels(png: bytes) -> bytes:
    """The rows of a PNG whose chunks are whole and whose checksums are right."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, data = 8, b""
    while at < len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        (checksum,) = struct.unpack_from(">I", png, at + 8 + length)
        assert checksum == zlib.crc32(png[at + 4 : at + 8 + length])
        data += png[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += 12 + length
    return zlib.decompress(data)


async def test_images_are_small_pngs(client: AsyncOpenAI):
    answer = await client.images.generate(model="m", prompt="A weir at dawn", n=2)
    first, second = (pixels(base64.b64decode(image.b64_json)) for image in answer.data)
    assert len(first) == len(second) == 16 * (1 + 16 * 3)
    assert first != second
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens


@pytest.mark.parametrize(("wrong", "param"), [({"prompt": ""}, "prompt"), ({"n": 11}, "n")])
async def test_what_is_wrong_is_named(client: AsyncOpenAI, wrong: dict[str, object], param: str):
    with pytest.raises(BadRequestError) as refused:
        await client.images.generate(**({"model": "m", "prompt": "A weir"} | wrong))
    assert refused.value.param == param
