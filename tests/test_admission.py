"""What an exchange claims: collected from its plugins, taken together or not at all, and given back."""

from __future__ import annotations

import gc

import pytest

from proxy import testing
from proxy.admission import Admission
from proxy.errors import RateLimited, StoreDown
from proxy.exchange import Exchange
from proxy.plugin import Grant, Plugin, PluginConfig
from proxy.store.claims import Taken
from proxy.store.memory import Memory
from tests.store.house import SLOT, Clock, window


class Desk:
    """A store in memory, an exchange, and what its plugins were asked about."""

    def __init__(self) -> None:
        self.store, self.exchange, self.asked = Memory(Clock()), testing.exchange(), []

    def claim(self, *claims, refuses: bool = True):
        def refuse(exchange, claim, standing):
            self.asked.append((claim.key, standing.remaining, standing.seconds > 0))
            return RateLimited(claim.key) if refuses else None

        return self.store.claim(self.exchange, claims, refuse)

    async def decide(self) -> None:
        await self.exchange.admission.decided(self.exchange)

    def left(self, claim) -> int:
        return self.store.take_now("look", [claim._replace(amount=0)]).remaining[0]


@pytest.fixture
def desk():
    return Desk()


async def test_claims_of_all_plugins_are_taken_together(desk):
    one, two = desk.claim(window()), desk.claim(window("tokens", 100, 30), SLOT)
    assert not one.is_taken
    await desk.decide()
    assert (one.is_taken, one.remaining) == (True, [9])
    assert (two.is_taken, two.remaining, two.is_local) == (True, [70, 1], False)


async def test_one_refusal_takes_nothing_of_the_others(desk):
    one, two = desk.claim(window()), desk.claim(window("tokens", 20, 30))
    with pytest.raises(RateLimited, match="tokens"):
        await desk.decide()
    assert desk.asked == [("tokens", 20, False)]
    assert (one.is_taken, two.is_taken, one.remaining, two.remaining) == (False, False, [10], [20])
    assert (desk.left(window()), desk.left(SLOT)) == (10, 2)


async def test_who_does_not_mind_goes_on_without_its_own(desk):
    one, two = desk.claim(window()), desk.claim(window("tokens", 20, 30), refuses=False)
    await desk.decide()
    assert (one.is_taken, two.is_taken) == (True, False)
    desk.exchange.admission.settle()
    assert (desk.left(window()), desk.left(window("tokens", 20))) == (9, 20)


async def test_who_asks_before_the_others_have_claimed_takes_what_is_there(desk):
    """A cache that is looked up: what stands behind it claims later."""
    first = desk.claim(window(), SLOT)
    assert await desk.store.get("k", desk.exchange) is None
    assert first.is_taken
    desk.claim(window("tokens", 20, 30))
    with pytest.raises(RateLimited, match="tokens"):
        await desk.decide()
    assert not first.is_taken
    assert (desk.left(window()), desk.left(SLOT)) == (10, 2)


async def test_decided_again_it_takes_nothing(desk):
    desk.claim(window())
    await desk.decide()
    await desk.decide()
    assert desk.left(window()) == 9


async def test_slots_are_free_at_the_end_and_what_was_used_counts_a_moment_later(desk):
    grant = desk.claim(window("tokens", 100, 30), SLOT)
    await desk.decide()
    grant.settle([12, 1])
    desk.exchange.admission.free()
    assert (desk.left(window("tokens", 100)), desk.left(SLOT)) == (70, 2)
    desk.exchange.admission.settle()
    desk.exchange.admission.settle()
    assert (desk.left(window("tokens", 100)), desk.left(SLOT)) == (88, 2)


async def test_what_nobody_settles_stays_as_it_was_claimed(desk):
    desk.claim(window("tokens", 100, 30))
    await desk.decide()
    desk.exchange.admission.settle()
    assert desk.left(window("tokens", 100)) == 70


async def test_what_has_just_ended_is_settled_before_anybody_is_refused(desk):
    ended = Desk()
    ended.store = desk.store
    ended.claim(window("tokens", 100, 90)).settle([10])
    await ended.decide()
    desk.store.settle_ended = lambda: bool(ended.exchange.admission.has_taken and not ended.exchange.admission.settle())
    grant = desk.claim(window("tokens", 100, 90))
    await desk.decide()
    assert (grant.is_taken, grant.remaining, desk.asked) == (True, [0], [])


def alive() -> int:
    return sum(isinstance(each, Admission | Exchange | Grant | Taken) for each in gc.get_objects())


async def test_nothing_of_it_is_left_to_the_garbage_collector():
    gc.disable()
    try:
        before = alive()
        for _ in range(10):
            desk = Desk()
            desk.claim(window("tokens", 100, 30), SLOT).settle([12, 1])
            await desk.decide()
            desk.exchange.admission.free()
            desk.exchange.admission.settle()
        del desk
        assert alive() == before
    finally:
        gc.enable()


class Claims(Plugin[PluginConfig]):
    uses_store = True

    def lifespan(self, services):
        self.store = services.store

    def on_request(self, exchange):
        self.store.claim(exchange, [window()], lambda *_: None)


async def test_a_store_that_is_away_and_must_not_be_is_a_503(monkeypatch):
    def away(*_):
        raise StoreDown("it does not answer", headers={"retry-after": "1"})

    monkeypatch.setattr(Memory, "take_now", away)
    claims = {"claims": {"use": f"{__name__}:Claims"}}
    async with testing.upstream(testing.chat("hi")) as upstream, testing.weir(upstream, [claims]) as weir:
        answer = await testing.ask(weir, {"model": "m"})
        assert (answer.status, answer.json()["error"]["code"]) == (503, "store_unavailable")
        assert answer.headers["retry-after"] == "1"
        assert upstream.requests == []


async def test_an_answer_of_a_plugin_waits_for_the_claims_too():
    claims = {"claims": {"use": f"{__name__}:Claims"}}
    answers = {"answers": {"use": "tests.plugins.rate_limit.test_rate_limit:Answers"}}
    async with testing.upstream(testing.chat("hi")) as upstream, testing.weir(upstream, [claims, answers]) as weir:
        assert (await testing.ask(weir, {"model": "m"})).status == 200
        assert (await weir.store.take("look", [window(amount=0)])).remaining == [9]
