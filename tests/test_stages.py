import pytest

from proxy.plugin import BodyFilter, Event, EventFilter, EventTap, Outcome, Stage, Tap


def test_a_filter_that_overrides_nothing_hands_on_the_very_event():
    event = Event.of(b"x")
    assert list(EventFilter().feed(event)) == [event]
    assert list(EventFilter().finish(Outcome.OK)) == []


async def test_a_body_filter_that_overrides_nothing_hands_on_the_body():
    assert await BodyFilter().apply(b"x") == b"x"


def test_taps_that_override_nothing_do_nothing():
    for tap, what in ((Tap(), b"x"), (EventTap(), Event.of(b"x"))):
        assert tap.feed(what) is None
        assert tap.finish(Outcome.OK) is None


@pytest.mark.parametrize("kind", [Tap, EventTap, EventFilter, BodyFilter])
def test_a_stage_with_slots_has_no_dict(kind: type[Stage]):
    class Slotted(kind):
        __slots__ = ("seen",)

    with pytest.raises(AttributeError):
        Slotted().other = 1
