"""What real clients receive from an OpenAI-compatible server, in a form that two servers can be compared in.

Every client here is a function from a `Server` to plain data. `python -m tests.integration.clients ROOT MODEL` prints it
all as JSON; a `ROOT` is `http://127.0.0.1:8080`, without `/v1`. What is new in every answer (ids, moments) is starred.
"""

import asyncio
import io
import re
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp
import httpx2
import openai
import orjson
import websockets
from huggingface_hub import InferenceClient
from openai import AsyncOpenAI, OpenAI

SAID: Any = [{"role": "user", "content": "Grüße ☕ from Rome"}]
ASKED: Any = [{"role": "user", "content": "What is the weather in Rome?"}]
FUNCTION = {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}
TOOLS: Any = [{"type": "function", "function": FUNCTION}]
PROTOCOLS = ("more", "realtime")
SOUND = b"RIFF" + bytes(range(256)) * 40
MOMENTS = re.compile(r"created|\w+_at")
WRITTEN_MOMENTS = re.compile(r'("(?:created|\w+_at)": ?)[\d.]+')
IDS = re.compile(r"\b(?:[a-z]+[-_])?(?:[0-9a-f]{24,32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b")


@dataclass(frozen=True)
class Server:
    root: str
    model: str
    key: str = "sk-test"

    @property
    def base_url(self) -> str:
        return f"{self.root}/v1"


Client = Callable[[Server], Any]
OPENAI: dict[str, Client] = {}
NATIVE: dict[str, Client] = {}


def speaks(dialect: dict[str, Client]) -> Callable[[Client], Client]:
    def register(client: Client) -> Client:
        dialect[client.__name__] = lambda server: canonical(client(server))
        return client

    return register


def canonical(value: Any, key: str = "") -> Any:
    """Models become dicts, headers a list of pairs; new ids and moments become `*`."""
    if hasattr(value, "model_dump"):
        value = value.model_dump(mode="json", exclude_unset=True, warnings=False)
    if isinstance(value, dict):
        return {name: canonical(one, name) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [canonical(one) for one in value]
    if isinstance(value, str):
        return IDS.sub("*", WRITTEN_MOMENTS.sub(r"\1*", value))
    if isinstance(value, (int, float)) and MOMENTS.fullmatch(key):
        return "*"
    return value if isinstance(value, (int, float, bool, type(None))) else repr(value)


def sync(server: Server) -> OpenAI:
    return OpenAI(base_url=server.base_url, api_key=server.key, max_retries=0, timeout=20)


def failure(call: Callable[[], Any]) -> dict[str, Any]:
    """What `openai` says about an answer that is an error."""
    try:
        return {"unexpected": call()}
    except openai.APIStatusError as error:
        kind, headers = type(error).__name__, error.response.headers
        said = {name: headers.get(name) for name in ("content-type", "retry-after", "content-length")}
        return {"raised": kind, "status": error.status_code, "body": error.body, "headers": said}


@speaks(OPENAI)
def openai_chat(server: Server) -> Any:
    with sync(server) as client:
        return client.chat.completions.create(model=server.model, messages=SAID, max_tokens=8, temperature=0)


@speaks(OPENAI)
def openai_chat_stream(server: Server) -> Any:
    options: Any = {"include_usage": True}
    with (
        sync(server) as client,
        client.chat.completions.create(
            model=server.model, messages=SAID, max_tokens=24, temperature=0, stream=True, stream_options=options
        ) as stream,
    ):
        return list(stream)


@speaks(OPENAI)
def openai_headers(server: Server) -> Any:
    with sync(server) as client:
        answer = client.chat.completions.with_raw_response.create(model=server.model, messages=SAID, max_tokens=3)
        return {"status": answer.status_code, "names": sorted(own(answer.headers.keys()))}


def own(names: Iterable[str]) -> list[str]:
    """Header names that the upstream sent: `x-weir-*` says which way an answer came."""
    return [name for name in names if not name.lower().startswith("x-weir-")]


@speaks(OPENAI)
def openai_tools(server: Server) -> Any:
    with sync(server) as client:
        return client.chat.completions.create(model=server.model, messages=ASKED, tools=TOOLS, max_tokens=30)


@speaks(OPENAI)
def openai_tools_stream(server: Server) -> Any:
    with (
        sync(server) as client,
        client.chat.completions.stream(model=server.model, messages=ASKED, tools=TOOLS, max_tokens=30) as stream,
    ):
        return [event.type for event in stream], stream.get_final_completion()


@speaks(OPENAI)
def openai_completions(server: Server) -> Any:
    with sync(server) as client:
        whole = client.completions.create(model=server.model, prompt="Once", max_tokens=5)
        stream = client.completions.create(model=server.model, prompt="Once", max_tokens=5, stream=True)
        return whole, list(stream)


@speaks(OPENAI)
def openai_responses(server: Server) -> Any:
    with sync(server) as client:
        whole = client.responses.create(model=server.model, input="Once", max_output_tokens=20)
        stream = client.responses.create(model=server.model, input="Once", max_output_tokens=20, stream=True)
        return whole, list(stream)


@speaks(OPENAI)
def openai_embeddings(server: Server) -> Any:
    with sync(server) as client:
        plain: Any = client.embeddings.create(model=server.model, input=["a", "ü"], encoding_format="float")
        return plain, client.embeddings.create(model=server.model, input="a", dimensions=8)


@speaks(OPENAI)
def openai_models(server: Server) -> Any:
    with sync(server) as client:
        listed = client.models.list().data
        return listed, client.models.retrieve(listed[0].id), client.models.retrieve("org/name:tag")


@speaks(OPENAI)
def openai_speech(server: Server) -> Any:
    with sync(server) as client:
        whole = client.audio.speech.create(model=server.model, voice="alloy", input="Hello there").content
        streamed = client.audio.speech.with_streaming_response
        with streamed.create(model=server.model, voice="alloy", input="Hello there") as answer:
            return whole.hex(), b"".join(answer.iter_bytes()).hex()


@speaks(OPENAI)
def openai_transcription(server: Server) -> Any:
    file = ("grüße.wav", SOUND, "audio/wav")
    with sync(server) as client:
        create: Any = client.audio.transcriptions.create
        kinds: list[dict[str, Any]] = [{}, {"response_format": "text"}]
        whole = [create(model=server.model, file=file, **kind) for kind in kinds]
        return whole, list(create(model=server.model, file=file, stream=True))


@speaks(OPENAI)
def openai_files(server: Server) -> Any:
    with sync(server) as client:
        made = client.files.create(file=io.BytesIO(b'{"a": 1}\n' * 9000), purpose="batch")
        content = client.files.content(made.id).text
        batch = client.batches.create(
            input_file_id=made.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
        )
        ended = client.batches.cancel(batch.id)
        return made, client.files.retrieve(made.id), content, batch, ended, client.files.delete(made.id)


@speaks(OPENAI)
def openai_images_and_moderations(server: Server) -> Any:
    with sync(server) as client:
        image = client.images.generate(model=server.model, prompt="A weir", response_format="b64_json")
        return image, client.moderations.create(model=server.model, input="A weir")


@speaks(OPENAI)
def openai_errors(server: Server) -> Any:
    with sync(server) as client:
        chat = client.chat.completions.create
        wrong = client.with_options(api_key="wrong-key").chat.completions.create
        models = ("unknown-model", "demo-429", "demo-500", "")
        return [
            *(failure(partial(chat, model=model, messages=SAID)) for model in models),
            failure(lambda: wrong(model=server.model, messages=SAID)),
            failure(lambda: client.files.retrieve("file-none")),
            failure(lambda: client.get("/no/such/path", cast_to=object)),
        ]


@speaks(OPENAI)
def openai_async(server: Server) -> Any:
    return asyncio.run(in_parallel(server))


async def in_parallel(server: Server) -> Any:
    async with AsyncOpenAI(base_url=server.base_url, api_key=server.key, max_retries=0, timeout=20) as client:
        chat = client.chat.completions.create
        whole = [chat(model=server.model, messages=SAID, max_tokens=count, temperature=0) for count in range(1, 7)]
        streams = [streamed(client, server.model, count) for count in range(1, 7)]
        return await asyncio.gather(*whole, *streams)


async def streamed(client: AsyncOpenAI, model: str, count: int) -> Any:
    create = client.chat.completions.create
    stream = await create(model=model, messages=SAID, max_tokens=count, temperature=0, stream=True)
    return [chunk async for chunk in stream]


@speaks(OPENAI)
def openai_async_tools_and_embeddings(server: Server) -> Any:
    async def both() -> Any:
        async with AsyncOpenAI(base_url=server.base_url, api_key=server.key, max_retries=0, timeout=20) as client:
            chosen: Any = "required"
            return await asyncio.gather(
                client.chat.completions.create(model=server.model, messages=ASKED, tools=TOOLS, tool_choice=chosen),
                client.embeddings.create(model=server.model, input=["b"] * 20, encoding_format="base64"),
            )

    return asyncio.run(both())


@speaks(OPENAI)
def openai_realtime(server: Server) -> Any:
    """Two turns of one session, each with an event that the demo does not know."""

    async def session() -> Any:
        async with (
            AsyncOpenAI(base_url=server.base_url, api_key=server.key) as client,
            client.realtime.connect(model=server.model) as socket,
        ):
            events = [await socket.recv()]
            for said in ("Hello there", "Grüße ☕"):
                content: Any = [{"type": "input_text", "text": said}]
                await socket.conversation.item.create(item={"type": "message", "role": "user", "content": content})
                await socket.response.create()
                while events[-1].type != "response.done":
                    events.append(await socket.recv())
                await socket.input_audio_buffer.append(audio="AAAA")
                events.append(await socket.recv())
            return events

    return asyncio.run(session())


@speaks(OPENAI)
def openai_realtime_refused(server: Server) -> Any:
    """What is wrong is told before the protocols are switched."""

    async def refused(model: str, key: str) -> Any:
        async with AsyncOpenAI(base_url=server.base_url, api_key=key) as client:
            try:
                async with client.realtime.connect(model=model):
                    return "connected"
            except websockets.InvalidStatus as error:
                return error.response.status_code, error.response.body.decode()

    return [asyncio.run(refused(*ask)) for ask in (("unknown-model", "sk-test"), (server.model, "wrong-key"))]


@speaks(OPENAI)
def aiohttp_socket(server: Server) -> Any:
    """With a subprotocol, compression, pings, and a close of its own."""

    async def session() -> Any:
        async with (
            aiohttp.ClientSession() as client,
            client.ws_connect(
                f"{server.base_url}/realtime?model={server.model}", protocols=PROTOCOLS, compress=15
            ) as it,
        ):
            first = await it.receive_json()
            await it.ping(b"there?")
            await it.send_str("{")
            second = await it.receive_json()
            closed = await it.close(code=4001, message=b"enough")
            return it.protocol, it.compress, first, second, closed, it.close_code

    return asyncio.run(session())


def interrupted(server: Server) -> tuple[list[str], str]:
    """The text of a stream that is cut off, and what the client makes of its end."""
    said: list[str] = []
    with sync(server) as client:
        stream = client.chat.completions.create(model=server.model, messages=SAID, stream=True)
        try:
            said.extend(chunk.choices[0].delta.content or "" for chunk in stream)
        except (openai.OpenAIError, httpx2.TransportError) as error:
            return said, type(error).__name__
    return said, "a whole answer"


def left(server: Server) -> None:
    """A client that goes away after the third chunk of a long answer."""
    endless = {"ignore_eos": True}
    with sync(server) as client:
        create = client.chat.completions.create
        with create(model=server.model, messages=SAID, max_tokens=4096, stream=True, extra_body=endless) as stream:
            for _ in range(3):
                next(stream)


@speaks(OPENAI)
def huggingface_chat(server: Server) -> Any:
    client = InferenceClient(base_url=server.base_url, api_key=server.key, timeout=20)
    ask: dict[str, Any] = {"messages": SAID, "model": server.model, "max_tokens": 6, "temperature": 0.0}
    return dict(client.chat_completion(**ask)), [dict(chunk) for chunk in client.chat_completion(**ask, stream=True)]


@speaks(NATIVE)
def huggingface_generation(server: Server) -> Any:
    client = InferenceClient(model=server.root, token=server.key, timeout=20)
    whole = dict(client.text_generation("Once ☕", max_new_tokens=6, details=True))
    return whole, [dict(one) for one in client.text_generation("Once", max_new_tokens=6, details=True, stream=True)]


@speaks(NATIVE)
def text_generation_client(server: Server) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package speaks pydantic 1's dialect
        return asyncio.run(generated(server))


async def generated(server: Server) -> Any:
    from text_generation import AsyncClient  # type: ignore[import-untyped]
    from text_generation.types import Message  # type: ignore[import-untyped]

    client = AsyncClient(server.root, headers={"authorization": f"Bearer {server.key}"})
    tokens: AsyncIterator[Any] = client.generate_stream("Once ☕", max_new_tokens=12)
    chat: Any = await client.chat([Message(role="user", content="Hi")], max_tokens=5)
    whole = await client.generate("Once ☕", max_new_tokens=12, decoder_input_details=True)
    return whole, [token async for token in tokens], chat


def main(root: str, model: str, *chosen: str) -> None:
    """Clients named on the command line, or all."""
    clients = OPENAI | NATIVE
    server = Server(root, model)
    for name in chosen or clients:
        try:
            received = clients[name](server)
        except Exception as error:  # noqa: BLE001 - what a server cannot do is a result too
            received = f"{type(error).__name__}: {error}"
        sys.stdout.buffer.write(orjson.dumps({name: received}, option=orjson.OPT_APPEND_NEWLINE))


if __name__ == "__main__":
    main(*sys.argv[1:])
