import io
import wave

import orjson
import pytest
from openai import AsyncOpenAI, BadRequestError

from .wire import exchange, unchunked


async def test_speech_is_a_wave_file_that_comes_in_chunks(client: AsyncOpenAI, demo: str):
    answer = await client.audio.speech.create(model="m", voice="alloy", input="Hello there", response_format="mp3")
    assert answer.response.headers["content-type"] == "audio/wav"
    with wave.open(io.BytesIO(answer.content)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (24_000, 1, 11 * 240)
    body = b'{"model": "m", "voice": "alloy", "input": "A text that takes more than a tenth of a second"}'
    chunks, ended = unchunked((await exchange(demo, "POST", "/v1/audio/speech", body))[2])
    assert ended
    assert len(chunks) > 1


async def test_speech_is_bounded(client: AsyncOpenAI):
    answer = await client.audio.speech.create(model="m", voice="alloy", input="x" * 100_000)
    with wave.open(io.BytesIO(answer.content)) as file:
        assert file.getnframes() == 10 * file.getframerate()


async def test_a_transcription_names_the_file_and_its_size(client: AsyncOpenAI):
    sound = ("hellö.wav", bytes(range(256)) * 40, "audio/wav")
    answer = await client.audio.transcriptions.create(model="m", file=sound)
    assert "“hellö.wav” (10240 bytes)" in answer.text
    plain = await client.audio.transcriptions.create(model="m", file=sound, response_format="text")
    assert plain == answer.text + "\n"
    events = [event async for event in await client.audio.transcriptions.create(model="m", file=sound, stream=True)]
    assert "".join(event.delta for event in events[:-1]) == events[-1].text == answer.text
    assert events[-1].usage.output_tokens == len(events) - 1 == answer.usage.output_tokens


@pytest.mark.parametrize("form", [{"response_format": "srt"}, {"model": ""}])
async def test_what_it_cannot_do_is_refused(client: AsyncOpenAI, form: dict[str, str]):
    with pytest.raises(BadRequestError) as refused:
        await client.audio.transcriptions.create(**({"model": "m", "file": b"abc"} | form))
    assert refused.value.param in form


async def test_a_form_without_its_file_is_refused(demo: str):
    form = b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n--x--\r\n'
    status, _, answer = await exchange(
        demo, "POST", "/v1/audio/transcriptions", form, "multipart/form-data; boundary=x"
    )
    assert (status, orjson.loads(answer)["error"]["param"]) == (400, "file")


async def test_speech_without_text_is_refused(client: AsyncOpenAI):
    with pytest.raises(BadRequestError) as refused:
        await client.audio.speech.create(model="m", voice="alloy", input="")
    assert refused.value.param == "input"
