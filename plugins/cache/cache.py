"""The plugin: finds what is kept, lets who asks the same share one upstream call, and keeps what is whole.

An answer that has come to its end is judged when exchanges are counted, together with others, which costs half; or at
once, where somebody asks for it before.
"""

from __future__ import annotations

import logging
import time
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Final, Literal

from typing_extensions import override

from plugins.cache import generation, shape
from plugins.cache.directives import ANY, OFF, wish
from plugins.cache.entry import Entry, unpacked
from plugins.cache.key import SHARED, callers, key_of, origin_of, principals, says_once
from plugins.cache.replay import Replay
from plugins.cache.report import report_of
from plugins.cache.request import SHAPES, asked, is_repeatable, wants_one_choice
from plugins.cache.ride import TRIES, Paced, Ride
from plugins.cache.settings import CacheConfig
from plugins.cache.stream import HideUsage
from plugins.cache.verdict import is_kept
from proxy.plugin import (
    PRINCIPAL,
    REDACTED,
    SAVED,
    FailureMode,
    Flight,
    Key,
    Plugin,
    ProxyError,
    Response,
    Saved,
    Usage,
    prompt_tokens,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from plugins.cache.directives import Wish
    from plugins.cache.key import Origin, Scope
    from plugins.cache.request import Asked
    from proxy.plugin import Exchange, Outcome, Request, Services, Target

    Answer = Awaitable[Response | None] | Response | None
    Result = Literal["hit", "miss", "bypass"]

RESULT: Key[Result] = Key("what the cache did")
LED: Key[Ride] = Key("the ride that this exchange leads")
JOINED: Key[Ride] = Key("the ride that this exchange shares")

PRIVATE: Final = {b"cache-control": b"no-store", b"vary": b"authorization"}
"""What keeps caches between here and the app from giving one caller's answer to another."""

MARKED: Final[Mapping[Result | None, Mapping[bytes, bytes]]] = {
    None: PRIVATE,
    "hit": {b"x-weir-cache": b"hit", **PRIVATE},
    "miss": {b"x-weir-cache": b"miss", **PRIVATE},
    "bypass": {b"x-weir-cache": b"bypass", **PRIVATE},
}
AT_HAND: Final = 1024
"""Of so many principals and routes the parts of a key are remembered."""

_MISS: Final = ("miss",)
_PLAIN: Final = frozenset({b"", b"identity"})

log = logging.getLogger("weir.cache")


class Cache(Plugin[CacheConfig]):
    Config = CacheConfig
    uses_store = True
    follows = (REDACTED,)
    failure_mode = FailureMode.OPEN

    @override
    def lifespan(self, services: Services) -> None:
        self._store = services.store
        self._store.bound(self.config.memory.entries, self.config.memory.size)
        self._bases = {name: upstream.base_url for name, upstream in services.upstreams.items()}
        self._origin = lru_cache(AT_HAND)(self._origin_of)
        self._is_shared = self.config.scope == "shared"
        self._principal = lru_cache(AT_HAND)(principals)
        self._rides: dict[str, Ride] = {}
        self._ended: dict[str, Ride] = {}
        self._flight = Flight if self.config.pace == "at_once" else Paced
        self._count = services.counter("weir_cache_requests_total", "what the cache did for a request", ("result",))
        self._has_warned = False

    @override
    def on_request(self, exchange: Exchange) -> Answer:
        request = exchange.request
        kind = SHAPES.get(request.path)
        if kind is None or request.method != "POST":
            return None
        return self._answer(exchange, kind) if request.is_buffered else self._read(exchange, kind)

    @override
    def on_response(self, exchange: Exchange, response: Response) -> None:
        ride: Ride | None = exchange.facts.get(LED)
        if ride is None:
            _mark(response, exchange.facts.get(RESULT))
            return
        _mark(response, "miss")
        incoming = response.incoming
        if incoming is None or response.status != 200 or not self._can_share(exchange, response):
            self._forget(ride)
            if incoming is None:
                ride.tell(response)
            return
        ride.begin(response)
        body = incoming.at_hand
        if body is None or ride.is_awaited:
            ride.board(response, self._flight(self.config.max_entry, partial(self._over, ride), exchange))
        else:
            self._leave(ride)
            self._whole(ride, body)

    @override
    def on_complete(self, exchange: Exchange, outcome: Outcome) -> None:
        if self._ended:
            self._keep_all()
        led, joined = exchange.facts.pop(LED, None), exchange.facts.get(JOINED)
        if led is not None and led.response is None:
            self._forget(led)
        if joined is not None:
            exchange[SAVED] = _saved(joined)

    @override
    def explain(self, exchange: Exchange, services: Services) -> Sequence[str]:
        self.lifespan(services)
        request = exchange.request
        kind = SHAPES.get(request.path) if request.method == "POST" else None
        if kind is None:
            return ["keeps no answers of this endpoint"]
        wanted = wish(request.headers.get("cache-control"))
        if wanted is OFF or self._asked(exchange, kind) is None:
            return ["is passed by: no-store, an answer that would not be the same again, or nobody knows whose it is"]
        return [
            "looks for the answer, and keeps it" if wanted.max_age else "does not look for the answer, but keeps it"
        ]

    @override
    def state(self) -> dict[str, Any]:
        return {"rides": len(self._rides)}

    # -- the request

    async def _read(self, exchange: Exchange, kind: str) -> Response | None:
        await exchange.request.body()
        return await _awaited(self._answer(exchange, kind))

    def _answer(self, exchange: Exchange, kind: str) -> Answer:
        """What there is instead of an upstream's answer. The body is at hand."""
        directives = exchange.request.headers.get("cache-control")
        wanted = ANY if directives is None else wish(directives)
        wants = None if wanted is OFF else self._asked(exchange, kind)
        if wants is None:
            return self._note(exchange, "bypass")
        if wants.key in self._ended:
            self._keep(self._ended.pop(wants.key))
        found = self._store.find(wants.key, exchange) if wanted.max_age else None
        if found is None or isinstance(found, bytes):
            return self._found(exchange, wants, wanted, found)
        return self._finding(exchange, wants, wanted, found)

    async def _finding(
        self, exchange: Exchange, wants: Asked, wanted: Wish, finding: Awaitable[bytes | None]
    ) -> Response | None:
        """Raises what the store refuses the exchange; a store that fails has nothing."""
        try:
            found = await finding
        except ProxyError:
            raise
        except Exception:
            log.exception("the store failed")
            found = None
        return await _awaited(self._found(exchange, wants, wanted, found))

    def _found(self, exchange: Exchange, wants: Asked, wanted: Wish, found: bytes | None) -> Answer:
        entry = None if found is None else unpacked(found)
        kept = None if entry is None else self._given(exchange, entry, wants, wanted)
        if kept is not None or exchange.detour:
            return kept or self._note(exchange, "bypass")
        shares = self.config.single_flight and wanted.max_age > 0
        if shares and wants.form in self._rides:
            return self._shared(exchange, wants)
        self._lead(exchange, wants, shares=shares)
        return None

    def _asked(self, exchange: Exchange, kind: str) -> Asked | None:
        """None where its answer cannot be given again, or nobody knows to whom."""
        request = exchange.request
        body = request.glimpse()
        if not isinstance(body, dict) or not is_repeatable(body):
            return None
        if kind == generation.SHAPE and not isinstance(body.get("inputs"), str):  # another server's own
            return None
        principal = exchange.facts.get(PRINCIPAL)
        scope = self._scope(request, body) if principal is None or self._is_shared else self._principal(principal.name)
        if scope is None:
            return None
        key = key_of(scope, self._origin(exchange.route, exchange.offered, request.target), request, kind, body)
        return None if key is None else asked(kind, body, key, request.path)

    def _scope(self, request: Request, body: dict[str, Any]) -> Scope | None:
        if self._is_shared:
            return SHARED if says_once(request.at_hand or b"", body) else None
        return callers(request)

    def _origin_of(self, route: str, offered: tuple[Target, ...], path: str) -> Origin:
        return origin_of(route, offered, path, self._bases)

    def _note(self, exchange: Exchange, result: Result) -> Response | None:
        """No response, for those who have nothing else to say."""
        exchange.facts[RESULT] = result
        self._count.values[(result,)] += 1
        return None

    # -- what is kept

    def _given(self, exchange: Exchange, entry: Entry, wants: Asked, wanted: Wish) -> Response | None:
        """The entry as this app asks for it, if it is what that asks for."""
        age = max(time.time() - entry.at, 0.0)  # noqa: TID251 - other processes must understand it
        if age > min(wanted.max_age, self.config.ttl):
            return None
        report = report_of(entry.body)
        if report.usage is None and shape.needs_usage(entry, wants):
            entry = shape.with_usage(entry, wants, prompt_tokens(exchange.request))
            report = report_of(entry.body)
        self._note(exchange, "hit")
        exchange.usage = Usage()
        exchange[SAVED] = Saved(
            entry.upstream, entry.model, report.served, report.usage or _used(exchange, entry, wants)
        )
        response = Response(200)
        kind = b"text/event-stream; charset=utf-8" if wants.streams else b"application/json"
        response.set_fields({b"content-type": kind, **MARKED["hit"], b"age": b"%d" % age})
        if entry.pace and wants.streams and self.config.pace == "original":
            response.incoming = Replay(entry).flight.join(HideUsage if wants.hides_usage else None)
        else:
            response.body = shape.body_for(entry, wants)
        return response

    # -- what is on its way

    async def _shared(self, exchange: Exchange, wants: Asked) -> Response | None:
        """The answer of who asks the same now."""
        for _ in range(TRIES):
            ride = self._rides.get(wants.form)
            if ride is None or not ride.admits:
                break
            response = await ride.answer()
            if response is not None:
                return self._aboard(exchange, ride, response)
        self._lead(exchange, wants, shares=True)
        return None

    def _aboard(self, exchange: Exchange, ride: Ride, response: Response) -> Response:
        exchange.usage = Usage()
        if response.incoming is None:
            self._note(exchange, "miss")
        else:
            exchange[JOINED] = ride
            self._note(exchange, "hit")
            response.set_fields({**MARKED["hit"], b"age": b"0"})
        return response

    def _lead(self, exchange: Exchange, wants: Asked, *, shares: bool) -> None:
        ride = exchange.facts[LED] = Ride(wants, exchange)
        if shares:
            self._rides[wants.form] = ride
        self._count.values[_MISS] += 1

    def _can_share(self, exchange: Exchange, response: Response) -> bool:
        if exchange.stages and exchange.is_filtered:
            self._warn(exchange.route)
            return False
        return not exchange.detour and response.field(b"content-encoding") in _PLAIN

    def _warn(self, route: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning("answers of route '%s' are changed behind the cache, so none is kept", route)

    def _forget(self, ride: Ride) -> None:
        self._leave(ride)
        ride.end()

    def _leave(self, ride: Ride) -> None:
        form = ride.asked.form
        if self._rides.get(form) is ride:
            del self._rides[form]

    # -- what is to be kept

    def _over(self, ride: Ride, flight: Flight) -> None:
        self._forget(ride)
        if flight.is_complete and flight.is_open:
            self._whole(ride, b"".join(flight.chunks))

    def _whole(self, ride: Ride, body: bytes) -> None:
        """It has come to its end."""
        ride.body, key = body, ride.asked.key
        if key in self._ended:
            self._keep(self._ended[key])
        self._ended[key] = ride

    def _keep_all(self) -> None:
        ended, self._ended = self._ended, {}
        for ride in ended.values():
            self._keep(ride)

    def _keep(self, ride: Ride) -> None:
        """If it is worth it."""
        wants, body, streams = ride.asked, ride.body, ride.is_stream
        if len(body) > self.config.max_entry or not self._is_worth_it(ride):
            return
        pace = ride.flight.pace() if isinstance(ride.flight, Paced) and streams else ()
        upstream, model = _source(ride)
        entry = Entry(time.time(), streams, upstream, model, pace, body)  # noqa: TID251 - other processes must know it
        try:
            self._store.put(wants.key, entry.packed(), self.config.ttl)
        except Exception:
            log.exception("the store failed")

    def _is_worth_it(self, ride: Ride) -> bool:
        wants, body, streams, request = ride.asked, ride.body, ride.is_stream, ride.leader.request.glimpse()
        if wants.shape == generation.SHAPE:
            made = b"" if ride.response is None else ride.response.field(b"x-generated-tokens")
            told, limit = int(made) if made.isdigit() else None, generation.limit_of(request)
            return streams == wants.streams and generation.is_kept(body, is_stream=streams, limit=limit, made=told)
        one, calls = wants_one_choice(request), self.config.tool_calls
        return is_kept(wants.shape, body, is_stream=streams, has_one_choice=one, tool_calls=calls)


async def _awaited(answer: Answer) -> Response | None:
    return answer if answer is None or isinstance(answer, Response) else await answer


def _used(exchange: Exchange, entry: Entry, wants: Asked) -> Usage:
    """What an answer has used that reports no usage."""
    if wants.shape != generation.SHAPE:
        return Usage()
    return generation.usage_of(entry.body, is_stream=entry.is_stream, prompt=prompt_tokens(exchange.request))


def _saved(ride: Ride) -> Saved:
    """What the leader has used; one that reads slowly does not know yet."""
    usage, served = ride.leader.usage, ride.leader.model
    if usage is None and ride.body:
        usage, served = report_of(ride.body)
    return Saved(*_source(ride), served, usage or Usage())


def _source(ride: Ride) -> tuple[str, str | None]:
    """Which upstream, and the model that it was asked for."""
    attempt, body = ride.leader.served_by, ride.leader.request.glimpse()
    target = None if attempt is None else attempt.target
    model = (target and target.model) or body.get("model")
    return target.upstream if target is not None else "", model if isinstance(model, str) else None


def _mark(response: Response, result: Result | None) -> None:
    fields, vary = MARKED[result], response.field(b"vary")
    response.set_fields({**fields, b"vary": vary + b", authorization"} if vary else fields)
