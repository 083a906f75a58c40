"""The plugin: finds what is kept, lets who asks the same share one upstream call, and keeps what is whole.

An answer that has come to its end is judged when its exchange is counted, together with others, which costs half; or at
once, where somebody asks for it before.
"""

from __future__ import annotations

import logging
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

from typing_extensions import override

from plugins.cache import shape
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
from proxy.plugin import PRINCIPAL, SAVED, FailureMode, Flight, Key, Plugin, ProxyError, Response, Saved, Usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from plugins.cache.directives import Wish
    from plugins.cache.key import Origin, Scope
    from plugins.cache.request import Asked
    from proxy.plugin import Exchange, Outcome, Request, Services, Target

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
AT_HAND: Final = 4096
"""Of so many principals and routes the parts of a key are remembered."""

_PLAIN: Final = frozenset({b"", b"identity"})

log = logging.getLogger("weir.cache")


class Cache(Plugin[CacheConfig]):
    Config = CacheConfig
    uses_store = True
    failure_mode = FailureMode.OPEN

    @override
    def lifespan(self, services: Services) -> None:
        self._store = services.store
        self._store.bound(self.config.memory.entries, self.config.memory.size)
        self._bases = {name: upstream.base_url for name, upstream in services.upstreams.items()}
        self._origin = lru_cache(AT_HAND)(self._origin_of)
        self._principal = lru_cache(AT_HAND)(principals)
        self._rides: dict[str, Ride] = {}
        self._ended: dict[str, Ride] = {}
        self._flight = Flight if self.config.pace == "at_once" else Paced
        self._count = services.counter("weir_cache_requests_total", "what the cache did for a request", ("result",))
        self._has_warned = False

    @override
    async def on_request(self, exchange: Exchange) -> Response | None:
        request = exchange.request
        kind = SHAPES.get(request.path)
        if kind is None or request.method != "POST":
            return None
        if not request.is_buffered:
            await request.body()
        directives = request.headers.get("cache-control")
        wanted = ANY if directives is None else wish(directives)
        wants = None if wanted is OFF else self._asked(exchange, kind)
        if wants is None:
            return self._note(exchange, "bypass")
        if wants.key in self._ended:
            self._keep(self._ended.pop(wants.key))
        kept = await self._kept(exchange, wants, wanted) if wanted.max_age else None
        if kept is not None or exchange.detour:
            return kept or self._note(exchange, "bypass")
        shares = self.config.single_flight and wanted.max_age > 0
        if shares and wants.form in self._rides and (shared := await self._shared(exchange, wants)):
            return shared
        self._lead(exchange, wants, shares=shares)
        return None

    @override
    def on_response(self, exchange: Exchange, response: Response) -> None:
        _mark(response, exchange.facts.get(RESULT))
        ride: Ride | None = exchange.facts.get(LED)
        if ride is None:
            return
        if response.incoming is not None and response.status == 200 and self._can_share(exchange, response):
            ride.begin(response)
            return
        self._forget(ride)
        if response.incoming is None:
            ride.tell(response)

    @override
    def on_complete(self, exchange: Exchange, outcome: Outcome) -> None:
        led, joined = exchange.facts.pop(LED, None), exchange.facts.get(JOINED)
        if led is not None:
            self._completed(led)
        if joined is not None:
            exchange[SAVED] = _saved(joined)

    def _completed(self, led: Ride) -> None:
        led.is_counted = True
        if not led.has_begun:
            self._forget(led)
        elif self._ended.get(led.asked.key) is led:
            self._keep(self._ended.pop(led.asked.key))

    @override
    def state(self) -> dict[str, Any]:
        return {"rides": len(self._rides)}

    # -- the request

    def _asked(self, exchange: Exchange, kind: str) -> Asked | None:
        """None where its answer cannot be given again, or nobody knows to whom. The body is at hand."""
        request = exchange.request
        body = request.glimpse()
        if not isinstance(body, dict) or not is_repeatable(body):
            return None
        scope = self._scope(exchange, request, body)
        if scope is None:
            return None
        key = key_of(scope, self._origin(exchange.route, exchange.offered), request, kind, body)
        return None if key is None else asked(kind, body, key)

    def _scope(self, exchange: Exchange, request: Request, body: dict[str, Any]) -> Scope | None:
        if self.config.scope == "shared":
            return SHARED if says_once(request.at_hand or b"", body) else None
        principal = exchange.facts.get(PRINCIPAL)
        return callers(request) if principal is None else self._principal(principal.name)

    def _origin_of(self, route: str, offered: tuple[Target, ...]) -> Origin:
        return origin_of(route, offered, self._bases)

    def _note(self, exchange: Exchange, result: Result) -> Response | None:
        """No response, for those who have nothing else to say."""
        exchange.facts[RESULT] = result
        self._count.values[(result,)] += 1
        return None

    # -- what is kept

    async def _kept(self, exchange: Exchange, wants: Asked, wanted: Wish) -> Response | None:
        """Raises what the store refuses the exchange; a store that fails has nothing."""
        try:
            value = await self._store.get(wants.key, exchange)
        except ProxyError:
            raise
        except Exception:
            log.exception("the store failed")
            return None
        entry = None if value is None else unpacked(value)
        return None if entry is None else self._given(exchange, entry, wants, wanted)

    def _given(self, exchange: Exchange, entry: Entry, wants: Asked, wanted: Wish) -> Response | None:
        """The entry as this app asks for it, if it is what that asks for."""
        age = max(time.time() - entry.at, 0.0)  # noqa: TID251 - other processes must understand it
        report = report_of(entry.body)
        is_old = age > min(wanted.max_age, self.config.ttl)
        if is_old or (report.usage is None and shape.needs_usage(entry, wants)):
            return None
        self._note(exchange, "hit")
        exchange.usage = Usage()
        exchange[SAVED] = Saved(entry.upstream, entry.model, report.served, report.usage or Usage())
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
                return None
            response = await ride.answer()
            if response is not None:
                return self._aboard(exchange, ride, response)
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
        self._note(exchange, "miss")
        flight = self._flight(self.config.max_entry, lambda flight: self._over(ride, flight), exchange)
        ride = exchange.facts[LED] = Ride(wants, exchange, flight)
        if shares:
            self._rides[wants.form] = ride

    def _can_share(self, exchange: Exchange, response: Response) -> bool:
        if exchange.is_filtered and not self._has_warned:
            self._has_warned = True
            log.warning("answers of route '%s' are changed behind the cache, so none is kept", exchange.route)
        if exchange.is_filtered or exchange.detour:
            return False
        return response.field(b"content-encoding") in _PLAIN

    def _forget(self, ride: Ride) -> None:
        if self._rides.get(ride.asked.form) is ride:
            del self._rides[ride.asked.form]
        ride.end()

    # -- what is to be kept

    def _over(self, ride: Ride, flight: Flight) -> None:
        self._forget(ride)
        if not (flight.is_complete and flight.is_open):
            return
        if ride.is_counted or ride.asked.key in self._ended:
            self._keep(ride)
        else:
            self._ended[ride.asked.key] = ride

    def _keep(self, ride: Ride) -> None:
        wants, is_stream, flight = ride.asked, ride.is_stream, ride.flight
        chunks = flight.chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        has_one_choice = wants_one_choice(ride.leader.request.glimpse())
        kept = {"is_stream": is_stream, "has_one_choice": has_one_choice, "tool_calls": self.config.tool_calls}
        if not is_kept(wants.shape, body, **kept):
            return
        pace = flight.pace() if isinstance(flight, Paced) and is_stream else ()
        entry = Entry(time.time(), is_stream, *_source(ride), pace, body)  # noqa: TID251 - likewise
        try:
            self._store.put(wants.key, entry.packed(), self.config.ttl)
        except Exception:
            log.exception("the store failed")


def _saved(ride: Ride) -> Saved:
    """What the leader has used; one that reads slowly does not know yet."""
    leader, flight = ride.leader, ride.flight
    usage, served = leader.usage, leader.model
    if usage is None and flight.is_complete and flight.is_open:
        usage, served = report_of(b"".join(flight.chunks))
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
