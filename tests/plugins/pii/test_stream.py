"""What a stream says is what its whole text would have said, however it was cut, and else nothing has changed."""

import random

import orjson
import pytest
from hypothesis import example, given

from plugins.pii.channel import revised
from plugins.pii.stream import MOST_HELD, Restoring
from proxy.plugin import Event
from tests.plugins.pii.conversation import (
    CARD,
    EMAIL,
    MADE_UP,
    QUOTED,
    SIZES,
    answers,
    chat,
    chats,
    cut,
    distorted,
    known,
    named,
    prose,
    said,
    streamed,
    table,
    values_of,
)


@given(prose(), SIZES)
@example("\\\\<EMAIL\\_38rv\\>", [1])
@example("<CREDIT_CARD_4vr5>&CREDIT_CARD_4vr5EMAIL\\_38rv<EMAIL_38rv>", [1])
def test_streamed_is_whole(text: str, sizes: list[int]):
    made = answers(known())
    assert said(streamed(made, chats(cut(text, sizes)))) == revised(made.sight, text, is_json=False)


@given(prose(), SIZES)
@example("<SECRET_4jsf" + 6 * "%3CEMAIL_38rv%3E", [1])
def test_streamed_is_whole_in_the_arguments_of_tools(text: str, sizes: list[int]):
    made = answers(known())
    written = orjson.dumps({"to": text, "n": 1}).decode()
    stream = streamed(made, [*(arguments(piece) for piece in cut(written, sizes)), chat({}, "tool_calls")])
    calls = [call for value in values_of(stream) for call in value["choices"][0]["delta"].get("tool_calls", ())]
    whole = "".join(call["function"]["arguments"] for call in calls)
    assert whole == revised(made.sight, written, is_json=True)
    assert orjson.loads(whole)["n"] == 1


def arguments(piece: str, index: int = 0) -> bytes:
    return chat({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})


@pytest.mark.parametrize("value", [EMAIL, CARD])
def test_a_placeholder_is_put_back_wherever_it_is_cut(value: str):
    made = known()
    for form in distorted(named(made, value)):
        for at in range(1, len(form)):
            stream = streamed(answers(made), chats([f"Write to {form[:at]}", f"{form[at:]}, then"]))
            assert said(stream) == f"Write to {value}, then", (form, at)


def test_what_the_model_makes_up_is_masked_and_counted():
    found: list[str] = []
    stream = streamed(answers(table(), found=found), chats(["Ask eve@else", "where.example", ".com or ", "nobody."]))
    assert (said(stream), found) == ("Ask <EMAIL> or nobody.", ["email"])


def test_what_the_app_has_sent_itself_may_be_said():
    made = table()
    made.sent = f'{{"messages":[{{"role":"system","content":"{MADE_UP}"}}]}}'.encode()
    assert said(streamed(answers(made), chats(["Ask ", MADE_UP]))) == f"Ask {MADE_UP}"


def test_events_in_which_nothing_changes_leave_as_they_came():
    name = named(known(), EMAIL)
    events = [
        b'data: {"choices":[{"delta":{"role":"assistant","content":""},"index":0}],"x":1.50}\n\n',
        b'data: {"choices": [{"delta": {"content": "A \\u0077eir"}, "index": 0}]}\r\n\r\n',
        b'id: 7\ndata: {"choices":[{"delta":{"content":" for "},"index":0}]}\n\n',
        b'data: {"choices":[{"delta":{"content":"%b"},"index":0}]}\n\n' % name.encode(),
        b'data: {"choices":[{"delta":{},"index":0,"finish_reason":"stop"}],"n":123456789012345678901}\n\n',
        b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n',
        b"data: [DONE]\n\n",
    ]
    stream = streamed(answers(known()), events)
    unchanged = [event for event in events if name.encode() not in event]
    assert all(event in stream for event in unchanged)
    assert stream.count(b"data:") == len(events)
    assert EMAIL.encode() in stream


def test_an_event_waits_for_no_more_than_the_word_that_it_ends_in():
    stage = Restoring(answers(known()))
    left = [len(list(stage.feed(Event(chat({"content": word}))))) for word in ["One", " word", " after", " another "]]
    assert left == [0, 1, 1, 2]


def test_choices_do_not_mix():
    made = known()
    name = named(made, EMAIL)
    events = [chat({"content": name[:5]}, index=0), chat({"content": MADE_UP[:5]}, index=1)]
    events += [chat({"content": name[5:]}, index=0), chat({"content": MADE_UP[5:]}, index=1)]
    events += [chat({}, "stop", index=0), chat({}, "stop", index=1)]
    stream = streamed(answers(made), events)
    assert (said(stream, index=0), said(stream, index=1)) == (EMAIL, "<EMAIL>")


def test_a_choice_that_goes_on_with_a_call_does_not_hold_it():
    stage = Restoring(answers(known()))
    assert list(stage.feed(Event(chat({"content": "Let me look"})))) == []
    passed = [event.raw for event in stage.feed(Event(arguments("{}")))]
    assert passed[0] == chat({"content": "Let me look"})


def test_one_silent_choice_does_not_hold_the_others_for_ever():
    stage = Restoring(answers(known()))
    stage.feed(Event(chat({"content": "word"}, index=0)))
    left = sum(len(list(stage.feed(Event(chat({"content": "a "}, index=1))))) for _ in range(MOST_HELD))
    assert left == MOST_HELD + 1


def test_values_in_the_arguments_of_tools_are_written_as_json_has_them():
    made = known()
    name = named(made, QUOTED)
    for at in range(1, len(name)):
        stream = streamed(
            answers(made), [arguments(f'{{"key":"{name[:at]}'), arguments(f'{name[at:]}"}}'), chat({}, "stop")]
        )
        calls = [call for value in values_of(stream) for call in value["choices"][0]["delta"].get("tool_calls", ())]
        assert orjson.loads("".join(call["function"]["arguments"] for call in calls)) == {"key": QUOTED}


def test_brackets_that_came_as_escapes_are_part_of_the_placeholder():
    made = known()
    written = r'{"to":"\n\u003c' + named(made, EMAIL)[1:-1] + r'\u003e"}'
    for at in range(1, len(written)):
        stream = streamed(answers(made), [arguments(written[:at]), arguments(written[at:]), chat({}, "stop")])
        calls = [call for value in values_of(stream) for call in value["choices"][0]["delta"].get("tool_calls", ())]
        assert orjson.loads("".join(call["function"]["arguments"] for call in calls)) == {"to": f"\n{EMAIL}"}


def test_tokens_that_spell_the_old_text_are_dropped_with_it():
    made = known()
    logprobs = {"content": [{"token": "x", "logprob": -0.1, "bytes": [1], "top_logprobs": []}]}
    events = [chat({"content": "Hi "}, logprobs=logprobs), chat({"content": named(made, EMAIL)}, logprobs=logprobs)]
    values = values_of(streamed(answers(made), [*events, chat({}, "stop")]))
    assert [value["choices"][0]["logprobs"] for value in values] == [logprobs, None, None]


def test_reasoning_is_a_text_of_its_own():
    made = known()
    for field in ("reasoning", "reasoning_content", "refusal"):
        name = named(made, EMAIL)
        assert said(streamed(answers(made), chats([name[:7], name[7:]], field)), field) == EMAIL


def test_completions():
    made = known()
    name = named(made, EMAIL).encode()
    events = [
        b'data: {"choices":[{"index":0,"text":"%b","logprobs":null}]}\n\n' % part for part in (name[:4], name[4:])
    ]
    values = values_of(streamed(answers(made), events))
    assert "".join(value["choices"][0]["text"] for value in values) == EMAIL


def test_tgi_s_own_events():
    made = known()
    name = named(made, EMAIL)
    events = [
        {"index": 1, "token": {"id": 9, "text": name[:6], "logprob": -1.5, "special": False}, "generated_text": None},
        {"index": 2, "token": {"id": 8, "text": name[6:], "logprob": -1.5, "special": False}, "generated_text": None},
        {"index": 3, "token": {"id": 2, "text": "</s>", "logprob": -0.1, "special": True}, "generated_text": name},
    ]
    values = values_of(streamed(answers(made), [b"data:%b\n\n" % orjson.dumps(event) for event in events]))
    assert [value["token"]["text"] for value in values] == [EMAIL, "", "</s>"]
    assert [value["token"]["id"] for value in values] == [0, 0, 2]
    assert values[-1]["generated_text"] == EMAIL


def test_anthropics_blocks():
    made = known()
    name = named(made, EMAIL)
    events = [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": name[:6]}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": name[6:]}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": f'["{name}'}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '"]'}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 1}},
    ]
    values = values_of(streamed(answers(made), [b"data: %b\n\n" % orjson.dumps(event) for event in events]))
    assert [value["type"] for value in values] == [event["type"] for event in events]
    assert "".join(value["delta"].get("text", "") for value in values if "delta" in value) == EMAIL
    assert "".join(value["delta"].get("partial_json", "") for value in values if "delta" in value) == f'["{EMAIL}"]'


def test_responses_repeat_whole_texts():
    made = known()
    name = named(made, EMAIL)
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": name, "logprobs": [{"token": "x"}], "annotations": []}
    events = [
        {"type": "response.created", "response": {"id": "r", "instructions": f"Know {name}", "output": []}},
        {"type": "response.output_text.delta", **place, "delta": name[:5], "logprobs": []},
        {"type": "response.output_text.delta", **place, "delta": name[5:], "logprobs": [{"token": "x"}]},
        {"type": "response.output_text.done", **place, "text": name, "logprobs": [{"token": "x"}]},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "delta": '{"to":"' + name},
        {"type": "response.function_call_arguments.done", "item_id": "fc_1", "arguments": '{"to":"' + name + '"}'},
        {"type": "response.completed", "response": {"id": "r", "output": [{"content": [part]}]}},
    ]
    named_events = [b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event)) for event in events]
    stream = streamed(answers(made), named_events)
    assert name.encode() not in stream
    blocks = [block for block in stream.split(b"\n\n") if block]
    assert [block.partition(b"\n")[0] for block in blocks] == [event.partition(b"\n")[0] for event in named_events]
    values = [orjson.loads(block.partition(b"data: ")[2]) for block in blocks]
    assert "".join(value["delta"] for value in values if value["type"] == "response.output_text.delta") == EMAIL
    assert values[3]["text"] == values[4]["part"]["text"] == values[7]["response"]["output"][0]["content"][0]["text"]
    assert [values[2]["logprobs"], values[3]["logprobs"], values[4]["part"]["logprobs"]] == [[], [], []]


def test_errors_in_a_stream_are_told_in_the_apps_own_words():
    made = known()
    error = b'data: {"error":{"message":"cannot send to %b","type":"x"}}\n\n' % named(made, EMAIL).encode()
    stream = streamed(
        answers(made), [chat({"content": "so"}), error, b"data: not json: %b\n\n" % named(made, CARD).encode()]
    )
    assert [EMAIL.encode() in stream, CARD.encode() in stream] == [True, True]
    assert stream.startswith(chat({"content": "so"}))


def test_a_thousand_interleavings_of_two_exchanges_never_cross():
    others = "carol@example.com"
    tables = table(("email", EMAIL)), table(("email", others), tenant="eve")
    names = named(tables[0], EMAIL), named(tables[1], others)
    texts = f"To {names[0]}, or to {names[1]}!", f"To {names[1]}, or to {names[0]}!"
    chance = random.Random(7)
    for _ in range(1000):
        stages = [Restoring(answers(one)) for one in tables]
        left = [cut(text, [chance.randint(1, 9) for _ in range(5)]) for text in texts]
        out = [b"", b""]
        while any(left):
            turn = chance.randrange(2)
            if left[turn]:
                out[turn] += b"".join(e.raw for e in stages[turn].feed(Event(chat({"content": left[turn].pop(0)}))))
        out = [stream + b"".join(e.raw for e in stage.finish("ok")) for stream, stage in zip(out, stages, strict=True)]
        assert said(out[0]) == f"To {EMAIL}, or to {names[1]}!"
        assert said(out[1]) == f"To {others}, or to {names[0]}!"
