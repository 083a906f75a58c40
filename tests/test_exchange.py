"""Facts are typed, and an exchange that somebody holds outlives its app."""

import pytest

from proxy import testing
from proxy.exchange import Exchange, Key

COUNT: Key[int] = Key("count")
NAME: Key[str] = Key("name")


def test_facts_are_found_by_their_key():
    exchange = testing.exchange()
    exchange[COUNT] = 1
    assert (COUNT in exchange, exchange[COUNT], exchange.get(COUNT, 0)) == (True, 1, 1)
    assert (NAME in exchange, exchange.get(NAME, "none")) == (False, "none")
    with pytest.raises(KeyError):
        exchange[NAME]
    assert Key("count") not in exchange
    assert repr(COUNT) == "Key('count')"


def test_an_exchange_that_somebody_holds_goes_on_when_its_app_leaves():
    exchange, stopped = testing.exchange(), []
    exchange.hold()
    exchange.hold()
    assert exchange.leave(lambda: stopped.append("now"))
    exchange.release()
    assert (exchange.goes_on, stopped) == (True, [])
    exchange.release()
    assert stopped == ["now"]


def test_without_one_it_stops_at_once():
    exchange, stopped = testing.exchange(), []
    assert not exchange.leave(lambda: stopped.append("now"))
    assert (exchange.goes_on, stopped) == (False, ["now"])


def test_who_is_told_that_the_app_leaves_can_still_hold_it():
    exchange, stopped = testing.exchange(), []
    exchange.on_leave = Exchange.hold
    assert exchange.leave(lambda: stopped.append("now"))
    assert not stopped
