"""The systems of docs/upstreams.md as an upstream double: their answers and streams, byte for byte from tests/golden/systems.

One Weir has an upstream and a route for each system, beside a second server that always serves; the request's header says
which golden answer the double shall give.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import pathlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
import yaml

from proxy import testing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from proxy import app

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
CASE, SPARE = "x-golden", "x-spare"
CHAT = testing.CHAT
SECONDS = 10
CONFIG = """
server: {{listen: "127.0.0.1:0", admin: "127.0.0.1:0"}}
upstreams:
  plain: {{base_url: "{url}/v1"}}
  spare: {{base_url: "{spare}/v1"}}
{upstreams}
plugins:
  - metering: {{ledger: stdout}}
  - failover: {{max_attempts: 2, backoff: {{first: 1ms, most: 1ms}}}}
routes:
{routes}
"""


@dataclass(frozen=True)
class Golden:
    """An answer, or a stream where it has `events`: what the upstream sends, and what Weir and an SDK make of it."""

    system: str
    name: str
    path: str = CHAT
    asks: Mapping[str, Any] = field(default_factory=dict)
    include_usage: bool = True
    body: str = ""
    content_type: str = "application/json"
    events: tuple[str, ...] | None = None
    tail: str = ""
    """Stands behind the last event, without the blank line that would make it one."""
    newline: str = "lf"
    asked_for: int = 0
    """The event, from 1, that comes only because a usage was asked for, where it has choices."""
    ends: str = "whole"
    """`whole`; `told`: by an error that the app can read; `cut`: Weir has to say so, and cuts the connection."""
    kind: str | None = None
    """Of the fault that failover and breaker see."""
    first: int = 0
    """The event with the first token, from 1."""
    tokens: Mapping[str, int] = field(default_factory=dict)
    text: str | None = None
    """That the `openai` SDK makes of it; None where the SDK is not asked."""
    sdk: bool = True

    @property
    def id(self) -> str:
        return f"{self.system}: {self.name}{', streamed' if self.is_stream else ''}"

    @property
    def is_stream(self) -> bool:
        return self.events is not None

    @property
    def pieces(self) -> list[bytes]:
        """Each event with its end, as it comes from the wire."""
        end = {"lf": "\n", "crlf": "\r\n"}[self.newline]
        events = [(event + "\n\n").replace("\n", end).encode() for event in self.events or ()]
        return [*events, self.tail.encode()] if self.tail else events

    @property
    def usage(self) -> bytes:
        """The event that comes only because a usage was asked for, if there is one."""
        if self.asked_for:
            return self.pieces[self.asked_for - 1]
        return next((piece for piece in self.pieces if b'"choices":[]' in piece and b'"usage":{' in piece), b"")

    @property
    def request(self) -> dict[str, Any]:
        asks: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **self.asks}
        if self.is_stream:
            asks["stream"] = True
        if self.is_stream and self.include_usage:
            asks["stream_options"] = {"include_usage": True}
        return asks


@dataclass(frozen=True)
class System:
    """`gets`: the target and the fields with which a chat arrives there."""

    name: str
    gets: Mapping[str, str]
    base: str = "/v1"
    settings: str = ""
    refuses: str = ""
    """What it answers, with a 422, to a request that has `stream_options`."""
    answers: tuple[Golden, ...] = ()


@functools.cache
def systems() -> dict[str, System]:
    return {file.stem: _system(file) for file in sorted((GOLDEN / "systems").glob("*.yaml"))}


def _system(file: pathlib.Path) -> System:
    parts = yaml.safe_load(file.read_text())
    told = [*parts.pop("answers", ()), *parts.pop("streams", ())]
    made = [Golden(file.stem, **_frozen(case)) for case in told]
    return System(file.stem, **parts, answers=tuple(made))


def _frozen(case: dict[str, Any]) -> dict[str, Any]:
    return {**case, "events": tuple(case["events"])} if "events" in case else case


def goldens() -> list[Golden]:
    return [golden for system in systems().values() for golden in system.answers]


@functools.cache
def faults() -> dict[str, dict[str, Any]]:
    """tests/golden/faults.yaml by name."""
    return {case["name"]: case for case in yaml.safe_load((GOLDEN / "faults.yaml").read_text())}


class Double:
    """The upstream: gives the golden answer that the request's header names, whole or in pieces of `size` bytes."""

    def __init__(self) -> None:
        self.size = 0
        self._goldens = {golden.id: golden for golden in goldens()}

    async def __call__(self, received: testing.Received, wire: testing.Wire) -> None:
        name = received.headers[CASE]
        golden = self._goldens.get(name)
        if golden is None:
            await _fails(faults()[name])(received, wire)
        elif (refusal := systems()[golden.system].refuses) and b"stream_options" in received.body:
            await testing.answer(refusal.encode(), status=422)(received, wire)
        elif golden.is_stream:
            await testing.stream(*self._cut(golden.pieces))(received, wire)
        else:
            await testing.answer(golden.body.encode(), content_type=golden.content_type)(received, wire)

    def _cut(self, pieces: list[bytes]) -> list[bytes]:
        if not self.size:
            return pieces
        whole = b"".join(pieces)
        return [whole[at : at + self.size] for at in range(0, len(whole), self.size)]


def fault_body(case: Mapping[str, Any]) -> bytes:
    return orjson.dumps(case["body"]) if case["body"] else b""


def _fails(case: Mapping[str, Any]) -> testing.Script:
    fields = {name.replace("-", "_"): value for name, value in case.get("fields", {}).items()}
    return testing.answer(fault_body(case), status=case.get("status", 200), **fields)


@dataclass
class House:
    weir: app.Weir
    upstream: testing.Upstream
    double: Double
    stdout: io.BytesIO

    async def ask(self, name: str, request: Any, path: str = CHAT, **headers: str) -> testing.Answer:
        """With the golden answer or fault of that name."""
        return await testing.ask(self.weir, request, path=path, headers={CASE: name, **headers})

    async def lines(self, answers: Sequence[testing.Answer]) -> list[Any]:
        """Their lines in the ledger."""
        ids = [answer.headers["x-weir-request-id"] for answer in answers]
        async with asyncio.timeout(SECONDS):
            while True:
                entries = map(orjson.loads, self.stdout.getvalue().splitlines())
                found = {entry["id"]: entry for entry in entries if entry["log"] == "ledger"}
                if found.keys() >= set(ids):
                    return [found[request_id] for request_id in ids]
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def house() -> AsyncIterator[House]:
    stdout, double = io.BytesIO(), Double()
    async with (
        testing.upstream(double) as upstream,
        testing.upstream(testing.chat("spare")) as spare,
        testing.configured(_config(upstream.url, spare.url), stdout) as weir,
    ):
        yield House(weir, upstream, double, stdout)


def _config(url: str, spare: str) -> str:
    upstreams, routes = [], []
    for system in systems().values():
        settings = f", {system.settings}" if system.settings else ""
        upstreams.append(f'  {system.name}: {{base_url: "{url}{system.base}"{settings}}}')
    for name in ("plain", *systems()):
        is_it = f'{CASE}: "{name}: *"' if name != "plain" else ""
        beside = f'{SPARE}: "yes"'
        match = ", ".join(filter(None, (is_it, beside)))
        routes.append(f"  - {{name: {name}-or-spare, match: {{header: {{{match}}}}}, targets: [{name}, spare]}}")
        alone = f"match: {{header: {{{is_it}}}}}, " if is_it else ""
        routes.append(f"  - {{name: {name}, {alone}targets: [{name}], plugins: {{failover: off}}}}")
    routes = [*routes[2:], *routes[:2]]
    return CONFIG.format(url=url, spare=spare, upstreams="\n".join(upstreams), routes="\n".join(routes))
