"""The plugin: finds what is kept, lets who asks the same share one upstream call, and keeps what is whole."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import override

from plugins.cache import request as requests
from plugins.cache import shape
from plugins.cache.directives import OFF, wish
from plugins.cache.entry import Entry, unpacked
from plugins.cache.key import SHARED, key_of, origin_of, says_once, scope_of
from plugins.cache.replay import Replay
from plugins.cache.ride import TRIES, Paced, Ride
from plugins.cache.settings import CacheConfig
from plugins.cache.stream import HideUsage
from plugins.cache.verdict import verdict
from proxy.plugin import SAVED, FailureMode, Flight, Key, Plugin, ProxyError, Response, Saved, Usage

if TYPE_CHECKING:
    from plugins.cache.directives import Wish
    from plugins.cache.key import Origin, Scope
    from plugins.cache.request import Asked
    from proxy.plugin import Exchange, Outcome, Services, Target

RESULT: Key[bytes] = Key("what the cache did")
LED: Key[Ride] = Key("the ride that this exchange leads")
SHARED_RIDE: Key[Ride] = Key("the ride that this exchange shares")

PREFIX: Final = "cache1:"
_NOT_FOR_OTHERS: Final = {b"cache-control": b"no-store"}
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
        self._origins: dict[str, tuple[tuple[Target, ...], Origin]] = {}
        self._rides: dict[str, Ride] = {}
        self._flight = Flight if self.config.pace == "at_once" else Paced
        self._count = services.counter("weir_cache_requests_total", "what the cache did for a request", ("result",))
        self._has_warned = False

    @override
    async def on_request(self, exchange: Exchange) -> Response | None:
        request = exchange.request
        if not requests.can_be_kept(request):
            return None
        wanted = wish(request.headers.get("cache-control"))
        asked = None if wanted is OFF else await self._asked(exchange)
        if asked is None:
            self._note(exchange, b"bypass")
            return None
        return await self._kept(exchange, asked, wanted) or await self._shared(exchange, asked, wanted)

    @override
    def on_response(self, exchange: Exchange, response: Response) -> None:
        response.set_fields(_fields(exchange.get(RESULT, b""), response))
        ride = exchange.get(LED, None)
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
        led, shared = exchange.facts.pop(LED, None), exchange.get(SHARED_RIDE, None)
        if led is not None and not led.has_begun:
            self._forget(led)
        if shared is not None:
            exchange[SAVED] = _saved(shared)

    @override
    def state(self) -> dict[str, Any]:
        return {"rides": len(self._rides)}

    # -- the request

    async def _asked(self, exchange: Exchange) -> Asked | None:
        """None where its answer cannot be given again, or nobody knows to whom."""
        request = exchange.request
        raw = await request.body()
        body = request.glimpse()
        scope = self._scope(exchange, raw, body)
        if scope is None or not requests.is_repeatable(body):
            return None
        key = key_of(scope, self._origin(exchange), request, body)
        return None if key is None else requests.asked(request, body, f"{PREFIX}{key}")

    def _scope(self, exchange: Exchange, raw: bytes, body: Any) -> Scope | None:
        if not isinstance(body, dict):
            return None
        if self.config.scope == "shared":
            return SHARED if says_once(raw, body) else None
        return scope_of(exchange)

    def _origin(self, exchange: Exchange) -> Origin:
        known = self._origins.get(exchange.route)
        if known is None or known[0] is not exchange.offered:
            origin = origin_of(exchange.route, exchange.offered, self._bases)
            known = self._origins[exchange.route] = (exchange.offered, origin)
        return known[1]

    def _note(self, exchange: Exchange, result: bytes) -> None:
        exchange[RESULT] = result
        self._count.add((result.decode(),))

    # -- what is kept

    async def _kept(self, exchange: Exchange, asked: Asked, wanted: Wish) -> Response | None:
        entry = await self._entry(exchange, asked) if wanted.reads else None
        if entry is None:
            return None
        age = max(_now() - entry.at, 0.0)
        if age > min(wanted.max_age, self.config.ttl) or not shape.can_serve(entry, asked):
            return None
        response = self._hit(exchange, age, is_stream=asked.streams)
        exchange[SAVED] = entry.saved
        if entry.pace and asked.streams and self.config.pace == "original":
            response.incoming = Replay(entry).flight.join(HideUsage if asked.hides_usage else None)
        else:
            response.body = shape.body_for(entry, asked)
        return response

    async def _entry(self, exchange: Exchange, asked: Asked) -> Entry | None:
        """Raises what the store refuses the exchange; one that fails has nothing."""
        try:
            value = await self._store.get(asked.key, exchange)
        except ProxyError:
            raise
        except Exception:
            log.exception("the store failed")
            return None
        return None if value is None else unpacked(value)

    def _hit(self, exchange: Exchange, age: float, *, is_stream: bool) -> Response:
        self._note(exchange, b"hit")
        exchange.usage = Usage()
        response = Response(200)
        kind = b"text/event-stream; charset=utf-8" if is_stream else b"application/json"
        response.set_fields({b"content-type": kind, **_fields(b"hit", response), b"age": b"%d" % age})
        return response

    # -- what is on its way

    async def _shared(self, exchange: Exchange, asked: Asked, wanted: Wish) -> Response | None:
        """The answer of who asks the same now; else this exchange leads."""
        shares = self.config.single_flight and wanted.reads
        for _ in range(TRIES if shares else 0):
            ride = self._rides.get(asked.form)
            if ride is None or not ride.admits:
                break
            response = await ride.answer()
            if response is not None:
                return self._aboard(exchange, ride, response)
        self._lead(exchange, asked, shares=shares)
        return None

    def _aboard(self, exchange: Exchange, ride: Ride, response: Response) -> Response:
        exchange.usage = Usage()
        if response.incoming is None:
            self._note(exchange, b"miss")
        else:
            exchange[SHARED_RIDE] = ride
            self._note(exchange, b"hit")
            response.set_fields({**_fields(b"hit", response), b"age": b"0"})
        return response

    def _lead(self, exchange: Exchange, asked: Asked, *, shares: bool) -> None:
        self._note(exchange, b"miss")
        flight = self._flight(self.config.max_entry, lambda flight: self._over(ride, flight), exchange)
        ride = exchange[LED] = Ride(asked, exchange, flight)
        if shares:
            self._rides[asked.form] = ride

    def _can_share(self, exchange: Exchange, response: Response) -> bool:
        if exchange.is_filtered and not self._has_warned:
            self._has_warned = True
            log.warning("answers of route '%s' are changed behind the cache, so none is kept", exchange.route)
        return not exchange.is_filtered and response.field(b"content-encoding").strip().lower() in _PLAIN

    def _forget(self, ride: Ride) -> None:
        if self._rides.get(ride.asked.form) is ride:
            del self._rides[ride.asked.form]
        ride.end()

    # -- what is to be kept

    def _over(self, ride: Ride, flight: Flight) -> None:
        self._forget(ride)
        if flight.is_complete and flight.is_open:
            self._keep(ride, flight)

    def _keep(self, ride: Ride, flight: Flight) -> None:
        body = b"".join(flight.chunks)
        made = verdict(ride.asked, body, is_stream=ride.is_stream, tool_calls=self.config.tool_calls)
        if made is None:
            return
        ride.usage, ride.served = made.usage, made.served
        pace = flight.pace() if isinstance(flight, Paced) and ride.is_stream else ()
        entry = Entry(_now(), ride.is_stream, made.tells_usage, _saved(ride), body, pace)
        try:
            self._store.put(ride.asked.key, entry.packed(), self.config.ttl)
        except Exception:
            log.exception("the store failed")


def _saved(ride: Ride) -> Saved:
    attempt = ride.leader.served_by
    upstream = "" if attempt is None else attempt.target.upstream
    model = (attempt and attempt.target.model) or ride.asked.model
    return Saved(upstream, model, ride.served or ride.leader.model, ride.usage or ride.leader.usage or Usage())


def _fields(result: bytes, response: Response) -> dict[bytes, bytes]:
    """What keeps caches between here and the app from giving one caller's answer to another."""
    vary = response.field(b"vary")
    fields = {**_NOT_FOR_OTHERS, b"vary": b"%b, authorization" % vary if vary else b"authorization"}
    return {b"x-weir-cache": result, **fields} if result else fields


def _now() -> float:
    return datetime.now(UTC).timestamp()
