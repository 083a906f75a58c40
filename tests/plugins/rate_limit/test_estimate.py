"""What a request will need, before anybody knows."""

import orjson
import pytest

from plugins.rate_limit.estimate import FIRST_GUESS, REMEMBERED, Answers, choices, estimate, longest
from proxy import testing
from proxy.plugin import rough_prompt_tokens


def body(**settings: object) -> bytes:
    return orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **settings})


@pytest.mark.parametrize("key", ["max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens"])
def test_an_answer_is_as_long_as_it_may_be(key):
    assert longest(body(**{key: 50})) == 50
    assert longest(b'{"' + key.encode() + b'" : 50}') == 50


def test_what_a_text_says_of_it_is_not_read():
    assert longest(body(user='say "max_tokens": 9')) is None
    assert longest(body(user='say "max_tokens": 9', max_tokens=50)) == 50
    assert longest(body(max_tokens=None)) is None
    assert longest(body(max_retries=3)) is None
    assert choices(body(user='say "n": 9')) == 1


def test_each_choice_is_an_answer():
    assert choices(body()) == choices(body(n=1)) == choices(body(n=None)) == 1
    assert choices(body(n=3)) == choices(body(best_of=3)) == choices(body(n=2, best_of=3)) == 3
    assert choices(body(n=0)) == 1
    assert choices(body(n=5000)) == 128


@pytest.mark.parametrize(
    "settings", [{}, {"n": 3}, {"best_of": 2, "max_tokens": 7}, {"max_tokens": 7, "user": "data:"}]
)
def test_a_body_that_is_read_once_says_the_same(settings):
    asked = body(**settings)
    request = testing.exchange(body=asked).request
    assert estimate(request, asked) == (rough_prompt_tokens(request), longest(asked), choices(asked))


def test_four_bytes_are_a_token_but_not_of_a_picture():
    plain = testing.exchange(body=body()).request
    assert rough_prompt_tokens(plain) == -(-len(body()) // 4)
    picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{'A' * 100_000}"}}
    seen = body(messages=[{"role": "user", "content": [picture, {"type": "text", "text": "what is it"}]}])
    assert rough_prompt_tokens(testing.exchange(body=seen).request) == 3


def test_answers_are_as_long_as_they_have_been_lately():
    answers = Answers()
    assert answers.expected("bob") == FIRST_GUESS
    answers.learn("bob", 1000)
    assert answers.expected("bob") == 1000
    for _ in range(100):
        answers.learn("bob", 10)
    assert answers.expected("bob") == 10
    assert answers.expected("eve") == FIRST_GUESS


def test_what_is_remembered_is_bounded():
    answers = Answers()
    for number in range(REMEMBERED + 10):
        answers.learn(str(number), 1)
    assert len(answers._means) <= REMEMBERED
