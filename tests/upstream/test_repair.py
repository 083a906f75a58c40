"""What TGI says on OpenAI's routes, and what an app gets of it: golden, and however the bytes are cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Interrupted
from proxy.upstream.repair import Repair, repaired_body

ID = re.compile(r"\b(chatcmpl|cmpl|call)[-_][0-9a-f]{24}\b")
SHELL = '"created":1,"model":"m","system_fingerprint":"3.3.7-native"'


class Down:
    """A receiver that keeps what it is given."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.ended: str = ""

    def feed(self, chunk: bytes) -> None:
        assert chunk
        self.chunks.append(chunk)

    def end(self, trailers) -> None:
        self.ended = "end"

    def fail(self, error) -> None:
        self.ended = "fail"

    def text(self) -> str:
        return ID.sub(r"\1-*", b"".join(self.chunks).decode())


def repaired(*chunks: bytes, sums: bool = False, fails: bool = False, prefix: bytes = b"chatcmpl-") -> str:
    down = Down()
    repair = Repair(down, prefix, sums=sums)
    for chunk in chunks:
        repair.feed(chunk)
    repair.fail(Interrupted("cut")) if fails else repair.end([])
    assert down.ended == ("fail" if fails else "end")
    return down.text()


def chat(delta: str, finish: str = "null", usage: str = "null", identity: str = "") -> str:
    choice = f'{{"index":0,"delta":{{{delta}}},"logprobs":null,"finish_reason":{finish}}}'
    return (
        f'data: {{"object":"chat.completion.chunk","id":"{identity}",{SHELL},"choices":[{choice}],"usage":{usage}}}\n\n'
    )


def text(index: int, said: str, finish: str, usage: str = "null", identity: str = "") -> str:
    choice = f'{{"index":{index},"text":"{said}","logprobs":null,"finish_reason":{finish}}}'
    return f'data: {{"object":"text_completion","id":"{identity}",{SHELL},"choices":[{choice}],"usage":{usage}}}\n\n'


def call(part: str, *, name: str = "null", identity: str = '"id":"0",', kind: str = ',"type":"function"', opening: str = "[", closing: str = "]") -> str:  # fmt: skip
    return f'"role":"assistant","tool_calls":{opening}{{"index":0,{identity}"type":"function","function":{{"name":{name},"arguments":"{part}"}}}}{closing}'


def usage(given: int, made: int) -> str:
    return f'{{"prompt_tokens":{given},"completion_tokens":{made},"total_tokens":{given + made}}}'


ROLE, DONE = '"role":"assistant",', "data: [DONE]\n\n"
OWN, TEXT = "chatcmpl-*", "cmpl-*"
CALLED = '"tool_calls":[{"index":0,"id":"0","type":"function","function":{"name":"get_weather","arguments":"{"}}]'
WENT_ON = '"tool_calls":[{"index":0,"function":{"name":null,"arguments":"}"}}]'
NEW_CALL = CALLED.replace('"id":"0"', '"id":"call-*"')
CLOSING = f'data: {{"object":"chat.completion.chunk","id":"{OWN}",{SHELL},"choices":[{{"index":0,"delta":{{}},"logprobs":null,"finish_reason":"tool_calls"}}],"usage":null}}\n\n'
COUNTED = f'data: {{"object":"chat.completion.chunk","id":"",{SHELL},"choices":[],"usage":{usage(5, 2)}}}\n\n'
SUMMED = f'data: {{"object":"text_completion","id":"{TEXT}",{SHELL},"choices":[],"usage":{usage(7, 6)}}}\n\n'
PROMPTS = (
    text(1, "a", '""') + text(0, "b", '""') + text(0, "", '"eos_token"', usage(3, 2)) + text(1, "", '"length"', usage(4, 4))
)  # fmt: skip

STREAMS = {
    "ids and roles": (
        chat(ROLE + '"content":"Hi"') + chat(ROLE + '"content":" ☕"') + chat(ROLE + '"content":""', '"stop"') + DONE,
        chat(ROLE + '"content":"Hi"', identity=OWN) + chat('"content":" ☕"', identity=OWN) + chat('"content":""', '"stop"', identity=OWN) + DONE,
    ),
    "an id of its own": (chat('"content":"Hi"', identity="x") + DONE, chat('"content":"Hi"', identity="x") + DONE),
    "text that looks like a key": (
        chat(r'"content":"\"id\":\"\" \"role\":\"assistant\", \"finish_reason\":\"\" \"tool_calls\":[ \"error\":{"', identity="x"),
        chat(r'"content":"\"id\":\"\" \"role\":\"assistant\", \"finish_reason\":\"\" \"tool_calls\":[ \"error\":{"', identity="x"),
    ),
    "TGI's own reasons": (chat("", '"stop_sequence"') + DONE, chat("", '"stop"', identity=OWN) + DONE),
    "length": (chat("", '"length"', identity="x"), chat("", '"length"', identity="x")),
    "the usage of a chat": (chat('"content":"Hi"', '"stop"') + COUNTED + DONE, chat('"content":"Hi"', '"stop"', identity=OWN) + COUNTED.replace('"id":""', f'"id":"{OWN}"') + DONE),
    "tools that never end": (
        chat(call("{", name='"get_weather"')) + chat(call("}")) + DONE,
        chat(ROLE + CALLED, identity=OWN) + chat(WENT_ON, identity=OWN) + CLOSING + DONE,
    ),
    "tools that never end, and a usage": (
        chat(call("{", name='"get_weather"')) + COUNTED + DONE,
        chat(ROLE + CALLED, identity=OWN) + CLOSING + COUNTED.replace('"id":""', f'"id":"{OWN}"') + DONE,
    ),
    "tools that end with stop": (
        chat(call("{", name='"get_weather"')) + chat(ROLE + '"content":""', '"stop"') + DONE,
        chat(ROLE + CALLED, identity=OWN) + chat('"content":""', '"tool_calls"', identity=OWN) + DONE,
    ),
    "tools as an object": (
        chat(call("{", name='"get_weather"', identity='"id":"",', opening="", closing="")) + chat(call("}", identity='"id":"",', opening="", closing="")) + DONE,
        chat(ROLE + NEW_CALL, identity=OWN) + chat(WENT_ON, identity=OWN) + CLOSING + DONE,
    ),
    "tools that were cut": (
        chat(call("{", name='"get_weather"')),
        chat(ROLE + CALLED, identity=OWN),
    ),
    "an error": (
        chat('"content":"Hi"', identity="x") + 'data: {"error":{"message":"Request failed during generation: OOM","http_status_code":422}}\n\n' + DONE,
        chat('"content":"Hi"', identity="x") + 'data: {"error":{"message":"Request failed during generation: OOM","type":"server_error","code":"generation","param":null},"error_type":"generation"}\n\n' + DONE,
    ),
    "an error in OpenAI's shape": ('data: {"error":{"message":"no","type":"x","code":1}}\n\n', 'data: {"error":{"message":"no","type":"x","code":1}}\n\n'),
    "no spaces": (chat('"content":"Hi"').replace("data: ", "data:"), chat('"content":"Hi"', identity=OWN).replace("data: ", "data:")),
    "keep-alives": (":\n\n:\n\n" + chat('"content":"Hi"') + ":\n\n", ":\n\n:\n\n" + chat('"content":"Hi"', identity=OWN) + ":\n\n"),
    "no JSON": ('data: {"tool_calls":[ "id":""\n\ndata: [1]\n\ndata:\n\n', 'data: {"tool_calls":[ "id":""\n\ndata: [1]\n\ndata:\n\n'),
    "no tools that anybody knows": (chat('"tool_calls":[7],"error":1', identity="x"), chat('"tool_calls":[7],"error":1', identity="x")),
    "the last one is half": (chat('"content":"Hi"', identity="x") + 'data: {"id":"', chat('"content":"Hi"', identity="x") + 'data: {"id":"'),
}  # fmt: skip
SUMS = {
    "one usage of all prompts": (
        PROMPTS + DONE,
        text(1, "a", "null", identity=TEXT) + text(0, "b", "null", identity=TEXT) + text(0, "", '"stop"', identity=TEXT) + text(1, "", '"length"', identity=TEXT) + SUMMED + DONE,
    ),
    "without an end": (
        PROMPTS,
        text(1, "a", "null", identity=TEXT) + text(0, "b", "null", identity=TEXT) + text(0, "", '"stop"', identity=TEXT) + text(1, "", '"length"', identity=TEXT) + SUMMED,
    ),
    "a server that sums by itself": (
        text(0, "", '"length"', usage(4, 4)) + SUMMED.replace(TEXT, "") + DONE,
        text(0, "", '"length"', identity=TEXT) + SUMMED + DONE,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("came", "goes"), STREAMS.values(), ids=STREAMS)
def test_streams(came, goes):
    assert repaired(came.encode()) == goes


@pytest.mark.parametrize(("came", "goes"), SUMS.values(), ids=SUMS)
def test_usages(came, goes):
    assert repaired(came.encode(), sums=True, prefix=b"cmpl-") == goes


def test_usages_that_nobody_asked_to_sum():
    came = text(0, "", '"length"', usage(3, 2), identity="x") + text(1, "", '"length"', usage(4, 4), identity="x")
    assert repaired(came.encode(), prefix=b"cmpl-") == came


@pytest.mark.parametrize(("came", "goes"), STREAMS.values(), ids=STREAMS)
def test_byte_by_byte(came, goes):
    data = came.encode()
    assert repaired(*(data[at : at + 1] for at in range(len(data)))) == goes


@given(st.sampled_from([*STREAMS]), st.lists(st.integers(1, 400), max_size=12))
def test_however_it_is_cut(name, sizes):
    came, goes = STREAMS[name]
    data, chunks = came.encode(), []
    for size in sizes:
        chunks.append(data[:size])
        data = data[size:]
    assert repaired(*filter(None, [*chunks, data])) == goes


@given(st.binary(max_size=60).filter(lambda data: b'"' not in data))
def test_what_is_no_stream_passes_as_it_came(data):
    down = Down()
    repair = Repair(down, b"chatcmpl-", sums=True)
    repair.feed(data)
    repair.end([])
    assert b"".join(down.chunks) == data


def test_whole_events_are_handed_on_in_the_read_that_brought_them():
    down = Down()
    repair = Repair(down, b"chatcmpl-", sums=False)
    for said in ("Hi", " you", "!"):
        repair.feed(chat(f'"content":"{said}"').encode())
    assert len(down.chunks) == 3


def test_events_that_differ_only_in_their_text_and_those_that_look_so():
    """The first after a keep-alive, then what goes on as before, and what does not."""
    events = [
        ":\n\n",
        chat(ROLE + '"content":"a"'),
        chat(ROLE + '"content":"b"'),
        chat(ROLE + '"content":"c"'),
        chat(ROLE + r'"content":"\"d\""'),
        chat(ROLE + '"content":""'),
        chat(ROLE + '"content":"e","tool_calls":[{"index":0,"id":"7","type":"function","function":{"name":"f","arguments":"x"}}],"x":"y"'),
        chat(ROLE + '"content":"f"') + chat(ROLE + '"content":"g"'),
        chat(ROLE + '"content":"h"', '"stop_sequence"'),
    ]  # fmt: skip
    goes = (
        "".join(events).replace('"id":""', f'"id":"{OWN}"').replace(ROLE, "").replace('"stop_sequence"', '"tool_calls"')
    )
    at = goes.index('"content":"a"')
    assert repaired(*(event.encode() for event in events)) == goes[:at] + ROLE + goes[at:]


@given(st.lists(st.sampled_from(["a", "", r"\"", "☕", r"\n", '","x":"y', "b"]), max_size=8))
def test_chunk_by_chunk_is_as_all_at_once(texts):
    events = [chat(ROLE + f'"content":"{text}"').encode() for text in texts]
    assert repaired(*events) == repaired(b"".join(events))
    clean = [chat(f'"content":"{text}"', identity="x").encode() for text in texts]
    assert repaired(*clean) == b"".join(clean).decode()


def test_a_cut_tells_the_usage_that_was_held():
    assert repaired(text(0, "", '"length"', usage(7, 6)).encode(), sums=True, fails=True, prefix=b"cmpl-").endswith(
        SUMMED
    )


def whole(message: str, finish: str, identity: str = "") -> str:
    return f'{{"object":"chat.completion","id":"{identity}",{SHELL},"choices":[{{"index":0,"message":{{{message}}},"logprobs":null,"finish_reason":"{finish}"}}],"usage":{usage(5, 2)}}}'


def function(arguments: str, identity: str) -> str:
    return f'"role":"assistant","tool_calls":[{{"id":{identity},"type":"function","function":{{"description":null,"name":"get_weather","arguments":{arguments}}}}}]'


TOLD = r'"{\"city\":\"Rome\"}"'
BODIES = {
    "an id": (whole('"content":"Hi"', "stop"), whole('"content":"Hi"', "stop", OWN)),
    "TGI's own reason": (whole('"content":"Hi"', "stop_sequence"), whole('"content":"Hi"', "stop", OWN)),
    "tools": (whole(function(TOLD, '"0"'), "stop"), whole(function(TOLD, '"0"'), "tool_calls", OWN)),
    "tools of 2.x": (whole(function('{"city":"Rome"}', "0"), "eos_token"), whole(function(TOLD, '"0"'), "tool_calls", OWN)),
    "tools without an id": (whole(function(TOLD, '""'), "stop"), whole(function(TOLD, '"call-*"'), "tool_calls", OWN)),
    "tools as an object": (
        whole(function(TOLD, '"0"').replace("[", "").replace("]", ""), "stop"),
        whole(function(TOLD, '"0"'), "tool_calls", OWN),
    ),
    "choices out of order": (
        '{"id":"x","choices":[{"index":1,"text":"b","finish_reason":"stop"},{"index":0,"text":"a","finish_reason":"length"}]}',
        '{"id":"x","choices":[{"index":0,"text":"a","finish_reason":"length"},{"index":1,"text":"b","finish_reason":"stop"}]}',
    ),
}  # fmt: skip


@pytest.mark.parametrize(("came", "goes"), BODIES.values(), ids=BODIES)
def test_bodies(came, goes):
    assert ID.sub(r"\1-*", repaired_body(came.encode(), b"chatcmpl-").decode()) == goes


UNTOUCHED = {
    "nothing to repair": '{"id": "x", "choices": [{"index": 0, "finish_reason":"stop"}]}',
    "choices in order": '{"id":"x","choices":[{"index": 0,"finish_reason":"stop"},{"index": 1,"finish_reason":"stop"}]}',
    "no JSON": '"tool_calls":[',
    "no choices": '{"tool_calls":[1]}',
    "no tools that anybody knows": '{"choices":[{"index":0,"message":{"tool_calls":[7]}}]}',
    "no numbers": '{"choices":[{"finish_reason":null},{"finish_reason":null}]}',
}


@pytest.mark.parametrize("body", UNTOUCHED.values(), ids=UNTOUCHED)
def test_a_body_with_nothing_to_repair_is_the_very_same(body):
    data = body.encode()
    assert repaired_body(data, b"chatcmpl-") is data
