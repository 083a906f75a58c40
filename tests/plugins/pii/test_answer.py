"""Answers that are here as a whole: what goes on, and what is taken away with the text that it tells."""

import orjson
import pytest

from plugins.pii.answer import Whole, json_of, text_of
from tests.plugins.pii.conversation import CARD, EMAIL, MADE_UP, QUOTED, answers, known, named

MADE = known()
NAME = named(MADE, EMAIL)


async def passed(value: object, *, says_json: bool = False) -> object:
    body = value if isinstance(value, bytes) else orjson.dumps(value)
    after = await Whole(answers(MADE, says_json=says_json), json_of).apply(body)
    return after if isinstance(value, bytes) else orjson.loads(after)


async def test_an_answer_in_which_nothing_is_found_stays_as_it_is():
    body = b'{ "id":"chatcmpl-1", "choices":[{"message":{"content":"A \\u0077eir."}}], "n":123456789012345678901 }'
    assert await passed(body) is body


async def test_texts_at_any_depth_and_keys():
    value = {"a": [{"b": f"to {NAME}", "c": [[NAME]]}], "id": NAME, f"x{NAME}": {"d": MADE_UP}}
    assert await passed(value) == {
        "a": [{"b": f"to {EMAIL}", "c": [[EMAIL]]}],
        "id": NAME,
        f"x{EMAIL}": {"d": "<EMAIL>"},
    }


async def test_log_probabilities_go_with_the_text_that_changed():
    told = {"content": [{"token": "x", "top_logprobs": []}]}
    value = {"choices": [{"message": {"content": text}, "logprobs": told} for text in ("no", NAME)]}
    after = await passed(value)
    assert [choice["logprobs"] for choice in after["choices"]] == [told, None]


async def test_tgi_s_tokens_go_with_the_text_that_changed():
    details = {"generated_tokens": 1, "tokens": [{"text": "x"}], "prefill": [], "seed": 1}
    after = await passed([{"generated_text": NAME, "details": details}])
    assert after == [{"generated_text": EMAIL, "details": {**details, "tokens": []}}]


async def test_arguments_stay_json_and_content_that_was_to_be_json_as_well():
    secret = named(MADE, QUOTED)
    written = orjson.dumps({"key": secret}).decode()
    value = {"function": {"arguments": written}, "content": written}
    after = await passed(value, says_json=True)
    assert [orjson.loads(after["function"]["arguments"]), orjson.loads(after["content"])] == [{"key": QUOTED}] * 2
    assert (await passed({"content": f"It is {secret}"}))["content"] == f"It is {QUOTED}"


async def test_numbers_are_not_read():
    value = {"data": [{"embedding": [0.1, 4111111111111111]}]}
    assert await passed(value) == value


@pytest.mark.parametrize("body", [f"It is {NAME}".encode(), f"{{broken {NAME}".encode()])
async def test_what_is_no_json_is_read_as_text(body: bytes):
    assert await passed(body) == body.replace(NAME.encode(), EMAIL.encode())


async def test_long_answers():
    text = "a word and another one. " * 8_000
    assert (await passed({"content": f"{text} {NAME}"}))["content"] == f"{text} {EMAIL}"


async def test_plain_text_keeps_the_bytes_that_are_none():
    stage = Whole(answers(MADE), text_of)
    assert await stage.apply(b"\xff " + named(MADE, CARD).encode()) == b"\xff " + CARD.encode()
    plain = b"\xff\xfe nothing"
    assert await stage.apply(plain) is plain
