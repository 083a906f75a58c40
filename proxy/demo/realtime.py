"""``GET /v1/realtime``: a session over a WebSocket, in text only."""

import itertools
import secrets
from typing import Any

import orjson
from aiohttp import WSMsgType, web

from proxy.demo import conversation, payload
from proxy.demo.answers import Answer, Prompt, answer
from proxy.demo.conversation import Turn
from proxy.demo.engine import ENGINE, Engine
from proxy.demo.errors import ApiError, invalid

INSTRUCTIONS = "You are a demo."


async def connect(request: web.Request) -> web.StreamResponse:
    model = request.query.get("model", "")
    payload.check_model(model)
    socket = web.WebSocketResponse(protocols=("realtime",))
    await socket.prepare(request)
    session = Session(socket, request.app[ENGINE], model)
    await session.say("session.created", session=session.settings)
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await session.hear(message.data)
    return socket


class Session:
    def __init__(self, socket: web.WebSocketResponse, engine: Engine, model: str) -> None:
        self.settings: dict[str, Any] = {
            "type": "realtime",
            "object": "realtime.session",
            "id": f"sess_{secrets.token_hex(12)}",
            "model": model,
            "output_modalities": ["text"],
            "instructions": INSTRUCTIONS,
        }
        self._socket = socket
        self._engine = engine
        self._turns: list[Turn] = []
        self._number = itertools.count(1)

    async def say(self, kind: str, **fields: Any) -> None:
        event = {"type": kind, "event_id": f"event_{next(self._number)}", **fields}
        await self._socket.send_str(orjson.dumps(event).decode())

    async def hear(self, text: str) -> None:
        """One event of the client's; what is wrong with it is told, and the session goes on."""
        try:
            await self._follow(orjson.loads(text))
        except orjson.JSONDecodeError as error:
            await self.say("error", error=invalid(f"The event is not valid JSON: {error}.").body()["error"])
        except ApiError as error:
            await self.say("error", error=error.body()["error"])

    async def _follow(self, event: Any) -> None:
        match event:
            case {"type": "session.update", "session": dict(settings)}:
                self.settings.update(settings)
                await self.say("session.updated", session=self.settings)
            case {"type": "conversation.item.create", "item": dict(item)}:
                self._turns += conversation.from_input([item])
                item = {"id": f"item_{len(self._turns)}", "object": "realtime.item", "status": "completed", **item}
                await self.say("conversation.item.added", previous_item_id=None, item=item)
                await self.say("conversation.item.done", previous_item_id=None, item=item)
            case {"type": "response.create"}:
                await self._respond()
            case _:
                raise invalid("This server knows session.update, conversation.item.create and response.create.", "type")

    async def _respond(self) -> None:
        turns = (Turn("system", str(self.settings["instructions"])), *self._turns)
        prompt = Prompt(model=str(self.settings["model"]), turns=turns)
        made, identity = answer(prompt), f"resp_{prompt.digest.hex()}"
        at = {"response_id": identity, "item_id": f"item_{identity}", "output_index": 0, "content_index": 0}
        await self.say("response.created", response=_response(identity, "in_progress", prompt, made))
        await self._engine.think(prompt.model)
        async for _, token in self._engine.speak(prompt.model, [made]):
            if token is not None:
                await self.say("response.output_text.delta", **at, delta=token)
        self._turns.append(Turn("assistant", made.text))
        await self.say("response.output_text.done", **at, text=made.text)
        await self.say("response.done", response=_response(identity, "completed", prompt, made))


def _response(identity: str, status: str, prompt: Prompt, made: Answer) -> dict[str, Any]:
    ended = status == "completed"
    content = [{"type": "output_text", "text": made.text}]
    item = {"id": f"item_{identity}", "type": "message", "status": status, "role": "assistant", "content": content}
    return {
        "object": "realtime.response",
        "id": identity,
        "status": status,
        "output_modalities": ["text"],
        "output": [item] if ended else [],
        "usage": _usage(prompt.tokens, len(made.tokens)) if ended else None,
    }


def _usage(given: int, said: int) -> dict[str, Any]:
    return {
        "total_tokens": given + said,
        "input_tokens": given,
        "output_tokens": said,
        "input_token_details": {"text_tokens": given, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": 0},
        "output_token_details": {"text_tokens": said, "audio_tokens": 0},
    }
