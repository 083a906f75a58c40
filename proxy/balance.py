"""Which of a route's targets is tried first, and in which order the others follow.

An orderer is made once per route, and looks at the exchange and at what its upstreams are doing; it changes neither.
Where it sticks, it hashes as every replica does, and a target that comes or goes moves only what was its own.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from typing import TYPE_CHECKING, Protocol

from proxy import static
from proxy.exchange import PRINCIPAL
from proxy.fit import fitting
from proxy.kind import Kind
from proxy.prompt import beginning, opening
from proxy.upstream.pace import Pace
from proxy.upstream.work import Work, usual_pace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from proxy.attempt import Attempt, Target
    from proxy.exchange import Exchange
    from proxy.fit import Capacity
    from proxy.targets import Balance

    Orderer = Callable[[Exchange, Sequence[Target]], list[Target]]
    Compiled = Callable[[Exchange], list[Target]]

NOT_ITS_OWN = frozenset(
    {
        Kind.CLIENT,
        Kind.CLIENT_GONE,
        Kind.CONTEXT_LENGTH,
        Kind.CONTENT_FILTER,
        Kind.LATE,
        Kind.LOADING,
        Kind.OURS,
    }
)
"""Failures that tell nothing of the upstream's pace."""

LESS_SURE = 0.2
"""What the beginnings of late answers weigh beside a queue that is known; found with `make bench-balance`."""


class Load(Protocol):
    """An upstream, as far as it matters here; its `pace` and its `work` are kept where an orderer asks for them."""

    in_flight: int
    is_watched: bool
    is_healthy: bool
    pace: Pace | None
    work: Work | None
    capacity: Capacity | None

    @property
    def can_load(self) -> bool: ...
    @property
    def is_loading(self) -> bool: ...
    @property
    def is_full(self) -> bool: ...


def compiled(balance: Balance, targets: Sequence[Target], upstreams: Mapping[str, Load]) -> Compiled | None:
    """None: as they stand. What is compiled raises ClientFault for a request that none of them can take.

    An upstream whose checks fail is left out while another one is there, one that is full or still loading follows the
    others; a static answer is last.
    """
    served = [target for target in targets if target.static is None]
    last = [target for target in targets if target.static is not None]
    loads = {target.upstream: upstreams[target.upstream] for target in served}
    if balance.by == "ordered" and not last and not any(_is_watched(load) for load in loads.values()):
        return None
    by = _orderer(balance, loads)
    is_limited = any(load.capacity is not None for load in loads.values())
    stands_back = _standing_back(loads)

    def ordered(exchange: Exchange) -> list[Target]:
        able = fitting(exchange.request, served, loads) if is_limited else served
        healthy = [target for target in able if loads[target.upstream].is_healthy]
        found = by(exchange, healthy or able)
        if stands_back is not None:
            found.sort(key=stands_back)
        return found + last if last and static.can_answer(exchange.request) else found

    return ordered


def _is_watched(load: Load) -> bool:
    return load.is_watched or load.can_load or load.capacity is not None


def _standing_back(loads: Mapping[str, Load]) -> Callable[[Target], int] | None:
    """How far a target stands back, whatever the balance; None: nobody ever does."""
    if not any(load.can_load or load.capacity is not None for load in loads.values()):
        return None

    def place(target: Target) -> int:
        load = loads[target.upstream]
        return 2 if load.is_loading else int(load.is_full)

    return place


def _orderer(balance: Balance, loads: Mapping[str, Load]) -> Orderer:
    match balance.by:
        case "weighted":
            return weighted(balance.header)
        case "least_busy":
            return least_busy(loads)
        case "ewma":
            return fastest(loads)
        case "queue":
            return shortest(loads)
        case "sticky":
            return sticky(_keyed(balance.key))
        case "prefix":
            return prefixed(balance.bytes, balance.spill, loads)
        case _:
            return lambda _, targets: list(targets)


def needs_body(balance: Balance, loads: Mapping[str, Load] | None = None) -> bool:
    """Whether the order depends on what the request says, or on how much that is."""
    if any(load.capacity is not None for load in (loads or {}).values()):
        return True
    return balance.by == "prefix" or (balance.by == "sticky" and balance.key == "conversation")


def needs_principal(balance: Balance) -> bool:
    return balance.by == "sticky" and balance.key == "principal"


# -- orderers


def weighted(canaries: Mapping[str, str], draw: Callable[[], float] = random.random) -> Orderer:
    """By chance, each as often as its share. `canaries`: the upstream to begin with, by the name of a header."""

    def order(exchange: Exchange, targets: Sequence[Target]) -> list[Target]:
        drawn = _drawn(targets, draw)
        headers = exchange.request.headers
        chosen = next((upstream for name, upstream in canaries.items() if name in headers), None)
        return drawn if chosen is None else sorted(drawn, key=lambda target: target.upstream != chosen)

    return order


def least_busy(loads: Mapping[str, Load], draw: Callable[[], float] = random.random) -> Orderer:
    """The least under way for its weight, this request included."""

    def order(_: Exchange, targets: Sequence[Target]) -> list[Target]:
        return sorted(targets, key=lambda t: (_per_weight(loads[t.upstream].in_flight + 1, t), draw()))

    return order


def fastest(
    loads: Mapping[str, Load],
    draw: Callable[[], float] = random.random,
    clock: Callable[[], float] = time.monotonic,
) -> Orderer:
    """Of two by chance the one that answers sooner, then the other one and the rest by the same measure.

    The best of all would get every request of the moment, and be the best no more.
    """

    def order(_: Exchange, targets: Sequence[Target]) -> list[Target]:
        now = clock()
        costs = {target: _per_weight(_cost(loads[target.upstream], now), target) for target in targets}
        shuffled = sorted(targets, key=lambda _: draw())
        first = min(shuffled[:2], key=costs.__getitem__, default=None)
        return sorted(shuffled, key=lambda target: (target is not first, costs[target]))

    for load in loads.values():
        load.pace = load.pace or Pace()
    return order


def shortest(
    loads: Mapping[str, Load],
    draw: Callable[[], float] = random.random,
    clock: Callable[[], float] = time.monotonic,
) -> Orderer:
    """Of two by chance the one with the shorter queue, in seconds, then the other one and the rest by the same measure.

    The two are drawn as often as they are fast, and none of the rest is first: replicas that all go by the same
    readings would meet at the server that was idle a second ago.
    """
    works = have_work(loads.values())

    def order(_: Exchange, targets: Sequence[Target]) -> list[Target]:
        now = clock()
        for work in works:
            work.advance()
        usual = usual_pace(works)
        costs = {target: _per_weight(_queued(loads[target.upstream], usual, now), target) for target in targets}
        drawn = sorted(targets, key=lambda t: _waited(1.0 - draw(), t) * _work(loads[t.upstream]).pace(usual))
        first = min(drawn[:2], key=costs.__getitem__, default=None)
        return sorted(drawn, key=lambda target: (target is not first, costs[target]))

    for load in loads.values():
        load.pace = load.pace or Pace()
    return order


def have_work(loads: Iterable[Load]) -> list[Work]:
    """From now on what they have to do is counted."""
    works = []
    for load in loads:
        load.work = load.work or Work()
        works.append(load.work)
    return works


def sticky(key_of: Callable[[Exchange], bytes], draw: Callable[[], float] = random.random) -> Orderer:
    """The same target for the same key; by chance where a request has none."""

    def order(exchange: Exchange, targets: Sequence[Target]) -> list[Target]:
        key = key_of(exchange)
        return rendezvous(key, targets) if key else _drawn(targets, draw)

    return order


def prefixed(size: int, spill: float, loads: Mapping[str, Load], draw: Callable[[], float] = random.random) -> Orderer:
    """The target that has seen prompts with this beginning, unless it has `spill` times more to do than the average."""
    in_hash_order = sticky(lambda exchange: beginning(exchange.request.glimpse(), size), draw)

    def order(exchange: Exchange, targets: Sequence[Target]) -> list[Target]:
        total = sum(loads[target.upstream].in_flight for target in targets) + 1
        share = spill * total / (sum(target.weight for target in targets) or 1)
        found = in_hash_order(exchange, targets)
        return sorted(found, key=lambda t: loads[t.upstream].in_flight >= math.ceil(share * t.weight))

    return order


def rendezvous(key: bytes, targets: Sequence[Target]) -> list[Target]:
    """Every target draws a number from the key, larger for more weight; the largest is first."""
    digest = hashlib.blake2b(key).digest()
    return sorted(targets, key=lambda target: _distance(digest, target))


# -- inside


def _keyed(key: str) -> Callable[[Exchange], bytes]:
    if key == "conversation":
        return lambda exchange: opening(exchange.request.glimpse())
    if key == "principal":
        return _principal
    name = key.removeprefix("header:")
    return lambda exchange: exchange.request.headers.get(name, "").encode("utf-8", "surrogateescape")


def _principal(exchange: Exchange) -> bytes:
    principal = exchange.get(PRINCIPAL, None)
    return principal.name.encode() if principal is not None else b""


def _distance(digest: bytes, target: Target) -> float:
    name = f"{target.upstream}\0{target.model or ''}".encode()
    drawn = int.from_bytes(hashlib.blake2b(name, key=digest, digest_size=6).digest())
    return _waited((drawn + 1) / 2**48, target)


def _drawn(targets: Sequence[Target], draw: Callable[[], float]) -> list[Target]:
    """By chance and weight: the first as often as its share, then the next as often as its share of the rest."""
    return sorted(targets, key=lambda target: _waited(1.0 - draw(), target))


def _waited(number: float, target: Target) -> float:
    """When it comes, if it comes at random `weight` times a second; `number` is the chance, above 0."""
    return _per_weight(-math.log(number), target)


def _per_weight(amount: float, target: Target) -> float:
    return amount / target.weight if target.weight else math.inf


def _cost(load: Load, now: float) -> float:
    return 0.0 if load.pace is None else load.pace.cost(load.in_flight, now)


def _queued(load: Load, usual: float, now: float) -> float:
    """Where a server's own queue is not known, what is left is how its answers began, times what it has to do."""
    work = _work(load)
    assert load.pace is not None
    begins = load.pace.cost(work.load() if load.pace.is_fresh(now) else work.in_flight, now)
    return work.wait(usual) + LESS_SURE * begins


def _work(load: Load) -> Work:
    assert load.work is not None
    return load.work


# -- what attempts tell


def note_end(exchange: Exchange, attempt: Attempt) -> None:
    """Of an attempt that is over: for the pace of its upstream, and for what that gets done."""
    if attempt.pace is not None:
        note_pace(exchange, attempt, attempt.pace)
    if attempt.work is not None and attempt.fault is None and exchange.request.method == "POST":
        attempt.work.served()


def note_pace(exchange: Exchange, attempt: Attempt, pace: Pace) -> None:
    """The first token of a stream has been noted when it came."""
    now = time.monotonic()
    fault, response = attempt.fault, exchange.response
    if fault is not None and fault.kind not in NOT_ITS_OWN:
        pace.note_failure(now - attempt.started, now)
    elif fault is None and exchange.first_token_at is None and response is not None and exchange.request.generates:
        pace.note(response.head_at - attempt.started, now)
