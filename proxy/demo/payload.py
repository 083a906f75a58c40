"""JSON bodies and multipart forms as they come in, with the checks that OpenAI makes, and the JSON that goes out."""

import dataclasses
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import BodyPartReader, web

from proxy.demo.errors import ApiError, invalid, printable

MAX_BODY = 64 * 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Upload:
    name: str
    content_type: str
    content: bytes


async def read(request: web.Request) -> dict[str, Any]:
    try:
        body = orjson.loads(await request.read())
    except orjson.JSONDecodeError as error:
        raise invalid(f"The body of your request is not valid JSON: {error}.") from None
    if not isinstance(body, dict):
        raise invalid("The body of your request must be a JSON object.")
    return body


async def model_request(request: web.Request) -> dict[str, Any]:
    body = await read(request)
    check_model(body.get("model"))
    return body


def check_model(model: object) -> None:
    """Raises what OpenAI answers where there is no model, or where it is one of those that always fail."""
    if not isinstance(model, str) or not model:
        raise invalid("You must provide a model parameter.", "model")
    match model:
        case "unknown-model":
            message = "The model 'unknown-model' does not exist or you do not have access to it."
            raise ApiError(HTTPStatus.NOT_FOUND, message, param="model", code="model_not_found")
        case "demo-429":
            message = "Rate limit reached for demo-429 on requests per min. Try again in 1s."
            headers = {"retry-after": "1", "x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s"}
            raise ApiError(HTTPStatus.TOO_MANY_REQUESTS, message, code="rate_limit_exceeded", headers=headers)
        case "demo-500":
            raise ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, "The server had an error while processing your request.")


def integer(body: dict[str, Any], name: str, default: int, most: int = 2**63, *, least: int = 1) -> int:
    """A whole number from ``least`` to ``most``; null and absent are the default."""
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise invalid(f"Invalid value for '{name}': expected an integer from {least} to {most}.", name)
    return value


def includes_usage(body: dict[str, Any]) -> bool:
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def strings(value: object, name: str) -> tuple[str, ...]:
    """``None``, a string or a list of strings."""
    if value is None:
        return ()
    many = value if isinstance(value, list) else [value]
    if not all(isinstance(one, str) for one in many):
        raise invalid(f"Invalid type for '{name}': expected a string or an array of strings.", name)
    return tuple(many)


async def form(request: web.Request) -> dict[str, str | Upload]:
    """The parts of a multipart body by name; all of them together are bounded as any body is."""
    if request.content_type != "multipart/form-data":
        raise invalid("Expected a multipart/form-data body.")
    parts: dict[str, str | Upload] = {}
    room = MAX_BODY
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                raise invalid("A part of the form is itself multipart.")
            content = bytes(await part.read(decode=True))
            room -= len(content)
            if room < 0:
                raise ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The form is larger than 64 MiB.")
            parts[part.name or ""] = _part(part, content)
    except (ValueError, RuntimeError) as error:
        raise invalid(f"The multipart body cannot be read: {error}") from None
    return parts


def _part(part: BodyPartReader, content: bytes) -> str | Upload:
    if part.filename is None:
        return content.decode()
    return Upload(printable(part.filename), part.headers.get("content-type", "application/octet-stream"), content)


def upload(parts: dict[str, str | Upload], name: str) -> Upload:
    part = parts.get(name)
    if not isinstance(part, Upload):
        raise invalid(f"Missing required file: '{name}'.", name)
    return part


def answer(data: object, status: HTTPStatus = HTTPStatus.OK) -> web.Response:
    return web.Response(body=orjson.dumps(data), status=status, content_type="application/json")
