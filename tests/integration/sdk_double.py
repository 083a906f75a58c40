"""A double of the OpenAI API for the official package's own tests: `python sdk_double.py PORT RECORD`.

It reads the operations (method, path, response model) out of the installed package's source, and answers each with the
smallest JSON that the model accepts. RECORD gets one JSON line per request, so that two runs can be compared. It runs in
an environment of its own beside that package (`openai[aiohttp]`, `orjson`), never in the project's.
"""

import ast
import asyncio
import hashlib
import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, TextIO, Union, get_args, get_origin

import openai
import orjson
from aiohttp import web
from openai._legacy_response import HttpxBinaryResponseContent
from pydantic import BaseModel, StrictBool, StrictFloat, StrictInt, StrictStr

CALLS = {"_get": "GET", "_post": "POST", "_put": "PUT", "_patch": "PATCH", "_delete": "DELETE", "_get_api_list": "GET"}
SCALARS: dict[Any, Any] = {
    str: "string",
    bool: True,
    int: 1,
    float: 0.5,
    datetime: "2020-01-01T00:00:00Z",
    date: "2020-01-01",
    StrictStr: "string",
    StrictBool: True,
    StrictInt: 1,
    StrictFloat: 0.5,
    object: "anything",
    Any: "anything",
}
BOUNDARY = re.compile(rb"boundary=\"?([^\";]+)")
EVENT = b"data: %s\n\ndata: [DONE]\n\n"


@dataclass(frozen=True)
class Operation:
    method: str
    template: str
    answer: Any

    @property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(re.sub(r"\\{.*?\\}", "[^/?]+", re.escape(self.template)))


def operations() -> list[Operation]:
    """Literal paths first: `/responses/compact` is no `/responses/{response_id}`."""
    root = Path(openai.__file__).parent
    found: dict[tuple[str, str], Operation] = {}
    for file in sorted((root / "resources").rglob("*.py")):
        module = importlib.import_module(".".join(("openai", *file.relative_to(root).with_suffix("").parts)))
        for operation in in_module(file, vars(module)):
            found.setdefault((operation.method, operation.template), operation)
    return sorted(found.values(), key=lambda operation: operation.template.count("{"))


def in_module(file: Path, names: dict[str, Any]) -> Iterator[Operation]:
    for node in ast.walk(ast.parse(file.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in CALLS
            and node.args
        ):
            yield operation(node, node.func.attr, names)


def operation(call: ast.Call, verb: str, names: dict[str, Any]) -> Operation:
    path = call.args[0].args[0] if isinstance(call.args[0], ast.Call) else call.args[0]
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    method = ast.literal_eval(given["method"]).upper() if "method" in given else CALLS[verb]
    kind = ast.unparse(given.get("page") or given["cast_to"])
    # The expression is the package's own; a transcription's type hangs on an argument.
    answer = eval(kind, names, {"response_format": "json"})
    return Operation(method, ast.literal_eval(path), answer)


def example(kind: Any) -> Any:
    kind = getattr(kind, "__value__", kind)
    if kind in SCALARS:
        return SCALARS[kind]
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return example(inner[0])
    if origin is Literal:
        return inner[0]
    if origin in {Union, UnionType}:
        return None if type(None) in inner else example(inner[0])
    if origin is list:
        return [example(inner[0])]
    return {} if origin is dict else of_model(kind)


def of_model(model: type[BaseModel]) -> dict[str, Any]:
    """Fields with a factory too: the package skips the factories where it does not validate."""
    fields = [(field.alias or name, field) for name, field in model.model_fields.items()]
    return {name: example(field.annotation) for name, field in fields if field.is_required() or field.default_factory}


class Double:
    def __init__(self, record: TextIO) -> None:
        self._operations = [(operation, operation.pattern) for operation in operations()]
        self._record = record

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        self._record.write(orjson.dumps(recorded(request, body)).decode() + "\n")
        self._record.flush()
        found = self._find(request.method, request.raw_path)
        if found is None:
            return web.json_response({"error": {"message": f"no operation {request.raw_path}"}}, status=404)
        return respond(found.answer, streamed(request, body))

    def _find(self, method: str, target: str) -> Operation | None:
        for path in (target, target.partition("?")[0]):
            for operation, pattern in self._operations:
                if operation.method == method and pattern.fullmatch(path):
                    return operation
        return None


def streamed(request: web.BaseRequest, body: bytes) -> bool:
    asked = b'"stream":true' in body or re.search(rb'name="stream"\r\n\r\ntrue', body)
    return bool(asked) or request.query.get("stream") == "true"


def respond(kind: Any, stream: bool) -> web.Response:
    if kind is type(None):
        return web.Response(status=204)
    if kind is HttpxBinaryResponseContent:
        return web.Response(body=bytes(range(256)), content_type="application/octet-stream")
    body = orjson.dumps(example(kind))
    if stream:
        return web.Response(body=EVENT % body, content_type="text/event-stream")
    return web.Response(body=body, content_type="application/json")


def recorded(request: web.BaseRequest, body: bytes) -> dict[str, Any]:
    headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in request.raw_headers]
    boundary = BOUNDARY.search(request.headers.get("content-type", "").encode())
    if boundary:
        body = body.replace(boundary[1], b"boundary")
        headers = [(name, value.replace(boundary[1].decode(), "boundary")) for name, value in headers]
    digest = hashlib.sha256(body).hexdigest()
    return {"method": request.method, "target": request.raw_path, "headers": headers, "body": digest, "size": len(body)}


async def serve(port: int, record: TextIO) -> None:
    runner = web.ServerRunner(web.Server(Double(record).answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with Path(sys.argv[2]).open("a") as lines:
        asyncio.run(serve(int(sys.argv[1]), lines))
