"""`weir explain`: what a config does with a request, told without asking anybody: no socket is opened."""

from __future__ import annotations

import argparse
import asyncio
import pathlib
import re
import sys
from typing import TYPE_CHECKING

import orjson
from multidict import CIMultiDict, CIMultiDictProxy

from proxy.plan import Plan
from proxy.request import Request
from proxy.scalars import HEADER_NAME
from proxy.server import NEVER_FORWARDED, target_fault
from proxy.source import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

CHAT = "/v1/chat/completions"
MOST_BYTES = 64 * 2**20

_HEADER = re.compile(rf"({HEADER_NAME})\s*:\s*([^\r\n\0]*)")


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "say what a config would do with a request, and why"
    command = commands.add_parser(
        "explain",
        help=about,
        description="Which route a request takes, through which plugins with which settings, to which targets, and "
        "what it may cost. Nobody is asked: what a load, a store or an issuer decides is said to be so.",
    )
    command.add_argument("file", metavar="FILE", help="the config file")
    command.add_argument("--request", metavar="REQ.json", help="the request's body; - is standard input")
    command.add_argument(
        "--header", metavar="'K: V'", dest="headers", type=_header, action="append", default=[], help="may be repeated"
    )
    command.add_argument("--path", metavar="PATH", type=_path, default=CHAT, help=f"with its query (default: {CHAT})")
    command.add_argument("--method", metavar="METHOD", type=_method, help="default: POST with a body, else GET")
    command.add_argument("--json", action="store_true", help="for machines")
    command.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from proxy.narration import narrated  # noqa: PLC0415 - the proxy itself needs none of it
    from proxy.search import find  # noqa: PLC0415

    plan = Plan.load(options.file)
    found = asyncio.run(find(plan, _request(options)))
    text = orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() + "\n" if options.json else narrated(found)
    print(text, end="")
    return 0


def _request(options: argparse.Namespace) -> Request:
    """Raises ConfigError where the body is not what its header says."""
    body = b"" if options.request is None else _read(options.request)
    headers = CIMultiDict(options.headers)
    if body:
        headers.setdefault("content-type", "application/json")
    request = Request(options.method or ("POST" if body else "GET"), options.path, CIMultiDictProxy(headers), body=body)
    if request.content_type == "application/json" and body:
        _check(options.request, body)
    return request


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read(MOST_BYTES) if file == "-" else pathlib.Path(file).read_bytes()
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        raise ConfigError([Problem(file, 1, (), what, "correct the path or the permissions")]) from None


def _check(file: str, body: bytes) -> None:
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        what = f"not valid JSON: {error.msg} (column {error.colno})"
        fix = "write the request's body as the app sends it, or name its type with --header 'content-type: …'"
        raise ConfigError([Problem(file, error.lineno, (), what, fix)]) from None


def _header(text: str) -> Sequence[str]:
    found = _HEADER.fullmatch(text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"write it as in 'x-tier: free', not {text.partition(':')[0]!r}")
    return found.groups()


def _method(text: str) -> str:
    method = text.upper()
    if not re.fullmatch("[A-Z][A-Z-]*", method):
        raise argparse.ArgumentTypeError(f"{text!r} is no method; write it as in POST")
    if method in NEVER_FORWARDED:
        raise argparse.ArgumentTypeError(f"{method} is not served: Weir answers it with 400")
    return method


def _path(text: str) -> str:
    fault = target_fault(text)
    if fault is not None:
        raise argparse.ArgumentTypeError(f"{fault}: Weir answers it with 400")
    return text
