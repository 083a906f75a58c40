"""Texts for the tests: what is in them, how they are cut, and answers that come in pieces."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import strategies as st

from plugins.pii import PiiConfig
from plugins.pii.answer import Answers
from plugins.pii.detector import Detector
from plugins.pii.placeholder import Table, grammar
from plugins.pii.sight import Sight
from plugins.pii.stream import Restoring
from proxy import testing
from proxy.plugin import Event

CONFIG = PiiConfig()
NAMES = CONFIG.names
DETECTOR = Detector(CONFIG.entities)
KEY = b"a key of the tests"

EMAIL, CARD, SSN, IBAN = "bob@example.com", "4111 1111 1111 1111", "078-05-1120", "DE89 3704 0044 0532 0130 00"
QUOTED = 'pa"ss\\wörd\n'
MADE_UP = "eve@elsewhere.example.com"


def table(*values: tuple[str, str], tenant: str = "ada") -> Table:
    """A table that knows these entities and values."""
    made = Table(grammar(NAMES), KEY, tenant)
    for entity, value in values:
        made.name(entity, value, "")
    return made


def known() -> Table:
    return table(("email", EMAIL), ("credit_card", CARD), ("secret", QUOTED))


def named(made: Table, value: str) -> str:
    """The placeholder of a value."""
    return f"<{next(name for name, known in made.values.items() if known == value)}>"


def answers(made: Table, *, masks: bool = True, says_json: bool = False, found: list[str] | None = None) -> Answers:
    """`found` gets the entities of what the model has made up."""
    counted = [] if found is None else found
    actions = dict.fromkeys(NAMES, "restore")
    sight = Sight(DETECTOR.reading, made, actions, counted.append, masks=masks)
    return Answers(sight, made, says_json=says_json)


def streamed(made: Answers, events: list[bytes]) -> bytes:
    stage = Restoring(made)
    passed = [out for event in events for out in stage.feed(Event(event))]
    return b"".join(event.raw for event in [*passed, *stage.finish("ok")])


def values_of(stream: bytes) -> list[Any]:
    events = [line.removeprefix(b"data: ") for line in stream.split(b"\n\n") if line]
    return [orjson.loads(event) for event in events if event != b"[DONE]"]


def said(stream: bytes, field: str = "content", index: int = 0) -> str:
    """What a client puts together of one choice."""
    choices = [choice for value in values_of(stream) for choice in value["choices"]]
    return "".join(choice["delta"].get(field) or "" for choice in choices if choice["index"] == index)


def chat(delta: dict[str, Any], finish_reason: str | None = None, index: int = 0, **more: Any) -> bytes:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason, **more}
    told = {"id": "c", "object": "chat.completion.chunk", "created": 1760000000, "model": "m"}
    return b"data: %b\n\n" % orjson.dumps({**told, "choices": [choice]})


def chats(pieces: list[str], field: str = "content") -> list[bytes]:
    return [*(chat({field: piece}) for piece in pieces), testing.chat_event({}, "stop"), b"data: [DONE]\n\n"]


def cut(text: str, sizes: list[int]) -> list[str]:
    """In pieces of these sizes, in turn."""
    pieces, at, turn = [], 0, 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        pieces.append(text[at : at + size])
        at, turn = at + size, turn + 1
    return pieces


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=12)


def distorted(name: str) -> list[str]:
    """How models write a placeholder."""
    inner = name[1:-1]
    word, _, letters = inner.rpartition("_")
    return [
        name,
        name.lower(),
        name.upper(),
        inner,
        f"< {inner} >",
        f"<{word.replace('_', ' ')} {letters}>",
        inner.replace("_", "\\_"),
        f"\\<{inner}\\>".replace("_", "\\_"),
        f"&lt;{inner}&gt;",
        f"%3C{inner}%3E",
        f"<{inner}",
        f"{inner}>",
        inner.replace("_", "-"),
    ]


@st.composite
def prose(draw: st.DrawFn) -> str:
    """Words, values, placeholders and their like, in any order and barely apart."""
    made = known()
    names = [form for value in made.values.values() for form in distorted(named(made, value))]
    words = [
        "a",
        "the word ",
        "IBAN",
        "Email ",
        "email",
        " < ",
        "<",
        ">",
        "&",
        "%",
        "\\",
        "_",
        "1.2.3",
        "é",
        "日本",
        "\n",
    ]
    words += ["password: ", "pass", EMAIL, CARD, SSN, IBAN, MADE_UP, "+49 30 901820", "10.1.2.3", "<EMAIL_9zzz>", " "]
    return "".join(draw(st.lists(st.sampled_from(names + words + [" ", " ", ", "]), max_size=14)))
