"""Feedback at the admin port: who takes it, what is remembered, and what is wrong with what is not taken."""

import aiohttp
import orjson
import pytest

from proxy import testing
from proxy.errors import ClientFault, NotFound
from proxy.feedback import Feedback, Inbox

IDS = [f"req_{number:024x}" for number in range(4)]


def body(**fields):
    return orjson.dumps({"request_id": IDS[0], "score": 1, **fields})


async def post(weir, data, content_type="application/json"):
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{weir.admin_url}/feedback", data=data, headers={"content-type": content_type}) as answer,
    ):
        return answer.status, await answer.json()


# -- the inbox


def test_who_remembers_an_exchange_takes_what_is_said_of_it():
    inbox, taken = Inbox(), []
    inbox.remember(IDS[0], lambda feedback, facts: taken.append((feedback.score, facts)), "facts")
    assert inbox.hand_in(body(score=0.25)) == (IDS[0], True)
    assert inbox.hand_in(body(score=1)) == (IDS[0], True)
    assert taken == [(0.25, "facts"), (1.0, "facts")]


def test_what_nobody_remembers_is_taken_by_the_first_who_takes_any():
    inbox, taken = Inbox(room=2), []
    with inbox.open(lambda *both: taken.append(both)), inbox.open(lambda *_: pytest.fail("is the second")):
        for each in IDS[:3]:
            inbox.remember(each, lambda *_: pytest.fail("was forgotten"), None)
        assert inbox.hand_in(body(label="thumb")) == (IDS[0], False)
    assert taken == [(Feedback(request_id=IDS[0], score=1.0, label="thumb"), None)]
    with pytest.raises(NotFound, match="no plugin of this config takes feedback"):
        inbox.hand_in(body())


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"{", "the body is not valid JSON"),
        (b"[]", "must be a mapping, not a list"),
        (b"{}", "request_id: missing key 'request_id'"),
        (body(request_id="no"), "request_id: the value does not match"),
        (body(score="1"), "score: must be a number, not text"),
        (body(score=True), "score: must be a number, not true"),
        (body(score=2), "score: 2 is no score; send a number from 0, for useless, to 1, for right"),
        (body(score=-0.5), "score: -0.5 is no score"),
        (body(score=None), "score: is empty"),
        (body(scor=1), "scor: unknown key 'scor'; did you mean 'score'?"),
        (body(label="a\nb"), "label: has control characters"),
        (body(label="x" * 65), "label: must have at most 64 characters"),
        (body(comment="x" * 2001), "comment: must have at most 2000 characters"),
    ],
)
def test_what_is_wrong_is_told_without_repeating_it(sent, said):
    with pytest.raises(ClientFault) as refused:
        Inbox().hand_in(sent)
    assert said in refused.value.message


# -- the port


async def test_the_app_hands_in_what_it_thinks_of_an_answer():
    async with testing.upstream(testing.chat("hi")) as upstream, testing.weir(upstream, ["metering"]) as weir:
        answer = await testing.ask(weir, {"model": "m"})
        weir.metrics.page()  # settles what has ended
        request_id = answer.headers["x-weir-request-id"]
        known = await post(weir, orjson.dumps({"request_id": request_id, "score": 0.5}))
        late = await post(weir, body(score=1))
        page = weir.metrics.page().decode()
    assert known == (200, {"request_id": request_id, "known": True})
    assert late == (202, {"request_id": IDS[0], "known": False})
    assert 'weir_feedback_total{model="other",principal="none",route="default"} 1.0' in page
    assert 'weir_feedback_score_total{model="other",principal="none",route="default"} 0.5' in page
    assert 'weir_feedback_total{model="other",principal="unknown",route="unknown"} 1.0' in page


async def test_what_was_answered_before_a_reload_is_known_after_it():
    async with testing.upstream(testing.chat("hi")) as upstream, testing.weir(upstream, ["metering"]) as weir:
        answer = await testing.ask(weir, {"model": "m"})
        file = weir.plan.source.file
        file.write_text(file.read_text().replace("default", "other"))
        assert await weir.reloads.reload() == "ok"
        told = await post(weir, body(request_id=answer.headers["x-weir-request-id"]))
    assert (told[0], told[1]["known"]) == (200, True)


async def test_what_cannot_be_taken_is_refused_as_openai_would():
    async with testing.upstream(testing.chat("hi")) as upstream, testing.weir(upstream) as weir:
        refusals = [
            await post(weir, body()),
            await post(weir, b"{}"),
            await post(weir, body(), "text/plain"),
            await post(weir, b"x" * 20_000),
        ]
    assert [(status, told["error"]["code"]) for status, told in refusals] == [
        (404, "no_feedback"),
        (400, "invalid_request"),
        (415, "unsupported_media_type"),
        (413, "request_too_large"),
    ]
