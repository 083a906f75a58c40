"""What curl, requests, httpx2 and a bare socket see of an answer: its status line, its headers and every byte of its body.

`SENDERS` by `ASKS`: each sender sends each request, `seen` in a form that two servers can be compared in.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx2
import orjson
import requests

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json", "authorization": "Bearer sk-test"}
SECONDS = 30
# Of their moment; that they are there counts all the same.
VOLATILE = {
    "date",
    "x-request-id",
    "openai-processing-ms",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
}
# A connection's own, not the answer's: their place among the others means nothing.
FRAMING = {"connection", "content-length", "transfer-encoding"}
ADDED = "x-weir-"
FORM = (
    b'--edge\r\ncontent-disposition: form-data; name="model"\r\n\r\nwhisper\r\n'
    b'--edge\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\ncontent-type: audio/wav\r\n\r\n'
    + bytes(range(256)) * 1000
    + b"\r\n--edge--\r\n"
)


@dataclass(frozen=True)
class Ask:
    method: str
    target: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: dict(JSON))


@dataclass(frozen=True)
class Seen:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


def chat(**settings: object) -> bytes:
    said = [{"role": "user", "content": "Grüße ☕"}]
    return orjson.dumps({"model": "demo", "messages": said, "max_tokens": 9, **settings})


ASKS = {
    "chat": Ask("POST", CHAT, chat()),
    "stream": Ask("POST", CHAT, chat(stream=True, stream_options={"include_usage": True})),
    "choices": Ask("POST", CHAT, chat(stream=True, n=3)),
    "odd JSON": Ask("POST", CHAT, b' {"model" :"demo", "messages": [{"role":"user","content":"\\u00fc"}],"x":1.0 }\n'),
    "not JSON": Ask("POST", CHAT, b'{"model": '),
    "empty body": Ask("POST", CHAT),
    "no key": Ask("GET", "/v1/models", headers={}),
    "models": Ask("GET", "/v1/models"),
    "model, encoded": Ask("GET", "/v1/models/org%2Fname:tag"),
    "query": Ask("GET", "/v1/models?a=1&b=%20%2B&&c"),
    "trailing slash": Ask("GET", "/v1/models/"),
    "unknown path": Ask("GET", "/v1/none"),
    "wrong method": Ask("DELETE", CHAT),
    "HEAD": Ask("HEAD", "/v1/models"),
    "OPTIONS": Ask("OPTIONS", CHAT),
    "embeddings": Ask("POST", "/v1/embeddings", orjson.dumps({"model": "demo", "input": ["a", "b"] * 40})),
    "speech": Ask(
        "POST", "/v1/audio/speech", orjson.dumps({"model": "demo", "voice": "alloy", "input": "Hello " * 20})
    ),
    "multipart": Ask(
        "POST", "/v1/audio/transcriptions", FORM, JSON | {"content-type": "multipart/form-data; boundary=edge"}
    ),
    "refused": Ask("POST", CHAT, chat(), JSON | {"authorization": "Bearer wrong-key"}),
    "429": Ask("POST", CHAT, chat(model="demo-429")),
    "500": Ask("POST", CHAT, chat(model="demo-500")),
    "expects 100": Ask("POST", CHAT, chat(), JSON | {"expect": "100-continue"}),
    "big upload": Ask("POST", CHAT, chat(padding="ü" * 1_000_000)),
}

PROMPT = orjson.dumps({"inputs": "Grüße ☕", "parameters": {"max_new_tokens": 9, "details": True}})
NATIVE_ASKS = {
    "generate": Ask("POST", "/generate", PROMPT),
    "generate_stream": Ask("POST", "/generate_stream", PROMPT),
    "compatible": Ask("POST", "/", PROMPT),
    "tokenize": Ask("POST", "/tokenize", PROMPT),
    "invalid": Ask("POST", "/generate", b'{"inputs": ""}'),
    "info": Ask("GET", "/info", headers={}),
    "health": Ask("GET", "/health", headers={}),
    "chat": ASKS["chat"],
    "stream": ASKS["stream"],
}


def visible(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """In their order, framing last; each name as it was written."""
    own = [(name, value) for name, value in headers if not name.lower().startswith(ADDED)]
    own.sort(key=lambda header: header[0].lower() if header[0].lower() in FRAMING else "")
    return [(name, "*" if name.lower() in VOLATILE else value) for name, value in own]


async def by_requests(root: str, ask: Ask) -> Seen:
    def send() -> Seen:
        with requests.Session() as session:
            session.trust_env = False
            body = ask.body or None
            answer = session.request(ask.method, root + ask.target, data=body, headers=ask.headers, timeout=SECONDS)
            return Seen(answer.status_code, visible(list(answer.headers.items())), answer.content)

    return await asyncio.to_thread(send)


async def by_httpx2(root: str, ask: Ask) -> Seen:
    async with httpx2.AsyncClient(timeout=SECONDS, trust_env=False) as client:
        answer = await client.request(ask.method, root + ask.target, content=ask.body, headers=ask.headers)
        return Seen(answer.status_code, visible(answer.headers.multi_items()), answer.content)


async def by_curl(root: str, ask: Ask) -> Seen:
    headers = [word for name, value in ask.headers.items() for word in ("-H", f"{name}: {value}")]
    method = ["--head"] if ask.method == "HEAD" else ["-X", ask.method]
    body = ["--data-binary", "@-"] if ask.body else []
    command = ["curl", "-sS", "-i", "-N", "--raw", "-q", "--noproxy", "*", *method, *headers, *body, root + ask.target]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    out, _ = await asyncio.wait_for(process.communicate(ask.body), SECONDS)
    return parsed(out)


async def by_socket(root: str, ask: Ask) -> Seen:
    """Half of the body, then the rest; the connection stays open for writing until the answer is whole."""
    url = urlsplit(root)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    length = {"content-length": str(len(ask.body))} if ask.body else {}
    headers = {"Host": url.netloc, "Connection": "close", **ask.headers, **length}
    lines = [f"{ask.method} {ask.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    middle = len(ask.body) // 2
    for piece in (head, ask.body[:middle], ask.body[middle:]):
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    async with asyncio.timeout(SECONDS):
        out = await reader.read()
    writer.close()
    return parsed(out)


def parsed(answer: bytes) -> Seen:
    """The last head is the answer's; those before it are interim."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 1"):
        return parsed(body)
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    chunked = re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head)
    return Seen(int(first.split()[1]), visible(headers), unchunked(body) if chunked else body)


def unchunked(body: bytes) -> bytes:
    """A cut body keeps its tail as it came, so that it equals no whole one."""
    out = b""
    while body:
        size, found, rest = body.partition(b"\r\n")
        length = int(size, 16) if found else -1
        if length == 0 and rest == b"\r\n":
            return out
        if length <= 0 or rest[length : length + 2] != b"\r\n":
            break
        out, body = out + rest[:length], rest[length + 2 :]
    return out + b"<cut>" + body


SENDERS: dict[str, Callable[[str, Ask], Awaitable[Seen]]] = {
    "requests": by_requests,
    "httpx2": by_httpx2,
    "curl": by_curl,
    "socket": by_socket,
}
