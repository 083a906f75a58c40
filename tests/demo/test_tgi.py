import orjson
import pytest

from .wire import ask, exchange, unchunked

# The client is as old as pydantic 1, and pydantic 2 says so.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def tgi(demo: str):
    from text_generation import AsyncClient

    return AsyncClient(demo)


async def test_generate(tgi):
    answer = await tgi.generate("Once upon a time", max_new_tokens=200, decoder_input_details=True)
    assert "“Once upon a time”" in answer.generated_text
    assert answer.details.finish_reason == "eos_token"
    *tokens, end = answer.details.tokens
    assert "".join(token.text for token in tokens) == answer.generated_text
    assert (end.special, end.text) == (True, "</s>")
    assert answer.details.generated_tokens == len(answer.details.tokens)
    assert "".join(token.text for token in answer.details.prefill) == "Once upon a time"


async def test_generate_stream_is_the_same_answer(tgi):
    whole = await tgi.generate("Once upon a time", max_new_tokens=200, seed=7)
    events = [event async for event in tgi.generate_stream("Once upon a time", max_new_tokens=200, seed=7)]
    assert [event.token for event in events] == whole.details.tokens
    assert [event.generated_text for event in events] == [None] * (len(events) - 1) + [whole.generated_text]
    assert events[-1].details.generated_tokens == len(events)
    assert (events[-1].details.finish_reason, events[-1].details.seed) == ("eos_token", 7)


async def test_limits_and_stop_sequences(tgi):
    short = await tgi.generate("Once upon a time", max_new_tokens=5)
    assert (short.details.finish_reason, short.details.generated_tokens) == ("length", 5)
    stopped = await tgi.generate("Once upon a time", max_new_tokens=99, stop_sequences=["said"])
    assert stopped.details.finish_reason == "stop_sequence"
    full = await tgi.generate("Once upon a time", max_new_tokens=5, return_full_text=True)
    assert full.generated_text == "Once upon a time" + short.generated_text


async def test_chat(tgi):
    from text_generation.types import Message

    answer = await tgi.chat(messages=[Message(role="user", content="Hello there")], max_tokens=100)
    assert "“Hello there”" in answer.choices[0].message.content
    assert answer.model == "tgi"


async def test_the_stream_on_the_wire_has_no_terminal_but_its_text(demo: str):
    body = b'{"inputs": "Hi", "parameters": {"max_new_tokens": 2, "details": true}}'
    status, head, framed = await exchange(demo, "POST", "/generate_stream", body)
    (first, last), ended = unchunked(framed)
    assert (status, ended) == (200, True)
    assert b"x-accel-buffering: no" in head
    assert orjson.loads(first.removeprefix(b"data: "))["generated_text"] is None
    event = orjson.loads(last.removeprefix(b"data: "))
    assert event["details"] == {"finish_reason": "length", "generated_tokens": 2, "seed": None, "input_length": 1}


async def test_a_bare_generate_has_text_and_counts_in_headers(demo: str):
    status, head, body = await exchange(
        demo, "POST", "/generate", b'{"inputs": "Hi there", "parameters": {"max_new_tokens": 2}}'
    )
    assert (status, list(orjson.loads(body))) == (200, ["generated_text"])
    assert b"x-prompt-tokens: 2" in head
    assert b"x-generated-tokens: 2" in head


async def test_tokenize_info_and_health(demo: str):
    _, found = await ask(demo, "POST", "/tokenize", {"inputs": "Ça va 👋?"})
    assert "".join(token["text"] for token in found) == "Ça va 👋?"
    assert [("Ça va 👋?"[token["start"] : token["stop"]]) for token in found] == [token["text"] for token in found]
    _, info = await ask(demo, "GET", "/info")
    assert (info["model_id"], info["max_concurrent_requests"]) == ("weir/demo", 128)
    for path in ("/", "/health"):
        status, _, body = await exchange(demo, "GET", path)
        assert (status, body) == (200, b"")


@pytest.mark.parametrize("path", ["/", "/generate", "/generate_stream", "/tokenize"])
async def test_errors_have_their_own_shape(demo: str, path: str):
    status, error = await ask(demo, "POST", path, {"inputs": ""})
    assert (status, error["error_type"]) == (422, "validation")
    assert "`inputs` cannot be empty" in error["error"]
    status, head, body = await exchange(demo, "POST", path, b"{")
    assert (status, b"content-type: text/plain" in head.lower()) == (400, True)
    assert b"Failed to parse" in body


async def test_the_client_raises_its_own_errors(tgi):
    from text_generation.errors import ValidationError

    with pytest.raises(ValidationError, match="max_new_tokens"):
        await tgi.generate("Hi", max_new_tokens=0)
