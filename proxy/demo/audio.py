"""``/v1/audio``: speech is a tone as long as its text; a transcription says which file came, and how large."""

import asyncio
import io
import math
import struct
import wave
from typing import Any

from aiohttp import web

from proxy.demo import payload, stream
from proxy.demo.answers import Answer, output_tokens
from proxy.demo.engine import ENGINE, Engine
from proxy.demo.errors import invalid
from proxy.demo.payload import Upload
from proxy.demo.prose import tokens

RATE = 24_000  # samples per second, 16 bit, mono
FREQUENCY = 440
FRAMES_PER_CHARACTER = RATE // 100
MAX_SECONDS = 10
CHUNK = 4800  # bytes: a tenth of a second


async def speech(request: web.Request) -> web.StreamResponse:
    body = await payload.model_request(request)
    text = body.get("input")
    if not isinstance(text, str) or not text:
        raise invalid("Missing required parameter: 'input'.", "input")
    engine = request.app[ENGINE]
    await engine.think(body["model"])
    response = web.StreamResponse(headers={"content-type": "audio/wav"})
    await response.prepare(request)
    sound = _wave(min(len(text) * FRAMES_PER_CHARACTER, RATE * MAX_SECONDS))
    for at in range(0, len(sound), CHUNK):
        await response.write(sound[at : at + CHUNK])
        await asyncio.sleep(engine.pace)
    return response


def _wave(frames: int) -> bytes:
    period = [round(4000 * math.sin(2 * math.pi * FREQUENCY * at / RATE)) for at in range(RATE // 20)]
    tone = struct.pack(f"<{len(period)}h", *period)  # 22 whole waves
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((tone * (frames // len(period) + 1))[: 2 * frames])
    return buffer.getvalue()


async def transcriptions(request: web.Request) -> web.StreamResponse:
    parts = await payload.form(request)
    model = parts.get("model")
    payload.check_model(model)
    upload = payload.upload(parts, "file")
    kind = parts.get("response_format") or "json"
    if kind not in ("json", "text"):
        raise invalid("This server writes the response_format 'json' or 'text'.", "response_format")
    engine = request.app[ENGINE]
    answer = Answer(tokens(_heard(upload)), "end")
    await engine.think(str(model))
    if parts.get("stream") == "true":
        return await stream.send(request, _frames(upload, answer, engine, str(model)))
    await engine.complete(str(model), [answer])
    if kind == "text":
        return web.Response(text=f"{answer.text}\n")
    return payload.answer({"text": answer.text, "usage": _usage(upload, answer)})


def _heard(upload: Upload) -> str:
    received = f"I received “{upload.name}” ({len(upload.content)} bytes)."
    return f"{received} The demo upstream has no ears, but your upload arrived whole 🎧 Voilà, déjà là."


def _usage(upload: Upload, answer: Answer) -> dict[str, Any]:
    heard = max(1, len(upload.content) // CHUNK)
    said = output_tokens([answer])
    details = {"text_tokens": 0, "audio_tokens": heard}
    counts = {"input_tokens": heard, "output_tokens": said, "total_tokens": heard + said}
    return {"type": "tokens", **counts, "input_token_details": details}


async def _frames(upload: Upload, answer: Answer, engine: Engine, model: str) -> stream.Frames:
    async for _, token in engine.speak(model, [answer]):
        if token is not None:
            yield stream.data({"type": "transcript.text.delta", "delta": token})
    yield stream.data({"type": "transcript.text.done", "text": answer.text, "usage": _usage(upload, answer)})
