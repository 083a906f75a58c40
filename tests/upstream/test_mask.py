"""What is hidden of an upstream's own words: each spelling of each value that was current, and nothing else."""

from __future__ import annotations

import itertools
import re
import urllib.parse
from typing import TYPE_CHECKING

import orjson
import pytest

from proxy.errors import Interrupted
from proxy.upstream.mask import HELD_BYTES, KEPT, RECOGNISABLE, Mask

if TYPE_CHECKING:
    from proxy.errors import ProxyError
    from proxy.headers import Fields

KEY = 'sk-Our0wn/Secret+"Key"\\=='
PLAIN = "sk-Our0wn-secret-key"


def masking(*secrets: str) -> Mask:
    masked = Mask()
    for secret in secrets:
        masked.add(secret)
    return masked


SPELLINGS = {
    "as it is": KEY.encode(),
    "as JSON": orjson.dumps(KEY)[1:-1],
    "as JSON with slashes escaped": orjson.dumps(KEY)[1:-1].replace(b"/", b"\\/"),
    "all as JSON's codes": b"".join(b"\\u%04x" % ord(letter) for letter in KEY),
    "all as JSON's codes, in capitals": b"".join(b"\\u%04X" % ord(letter) for letter in KEY),
    "as part of a query": urllib.parse.quote(KEY, safe="").encode(),
    "as part of a query, in small letters": re.sub(
        b"%..", lambda code: code[0].lower(), urllib.parse.quote(KEY, safe="").encode()
    ),
    "as part of a path": urllib.parse.quote(KEY).encode(),
    "all percent-encoded": b"".join(b"%%%02x" % ord(letter) for letter in KEY),
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
@pytest.mark.parametrize("around", [b"%b", b"bad key %b.", b"%b%b", b'{"key":"%b","again":"x%bx"}'])
def test_each_spelling_is_hidden(spelling: bytes, around: bytes) -> None:
    said = around.replace(b"%b", spelling)
    assert masking(KEY).hide(said) == around.replace(b"%b", b"***")


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"nothing",
        PLAIN.encode()[:-1] + b".",
        PLAIN[:7].encode(),
        PLAIN.upper().encode(),
        b"sk-Our0wn%2Esecret",
        b"\\",
        b"%",
        b"\\u00",
        b"sk-Our0\\",
    ],
)
def test_what_is_no_secret_stays(said: bytes) -> None:
    assert masking(PLAIN).hide(said) == said


def test_nothing_is_hidden_where_there_is_no_secret() -> None:
    assert not Mask()
    assert Mask().hide(PLAIN.encode()) == PLAIN.encode()


def test_a_secret_within_another_leaves_no_rest() -> None:
    for secrets in itertools.permutations((PLAIN, f"{PLAIN}-long", f"x{PLAIN}")):
        assert masking(*secrets).hide(f"{PLAIN}-long x{PLAIN} {PLAIN}".encode()) == b"*** *** ***"


@pytest.mark.parametrize("word", ["EMPTY", "any", "k", "e"])
def test_a_key_that_is_a_word_is_hidden_where_it_stands_alone(word: str) -> None:
    said = f'{{"error":{{"message":"x{word} {word}y key {word}: {word}"}}}}'
    assert masking(word).hide(said.encode()).decode() == said.replace(f"key {word}: {word}", "key ***: ***")


def test_values_of_before_stay_hidden_and_are_forgotten_at_last() -> None:
    secrets = [f"sk-number-{number:03}" for number in range(KEPT + 1)]
    masked = masking(*secrets)
    assert masked.hide(secrets[1].encode()) == masked.hide(secrets[-1].encode()) == b"***"
    assert masked.hide(secrets[0].encode()) == secrets[0].encode()


def test_a_value_that_comes_back_is_as_good_as_new() -> None:
    masked = masking(PLAIN, *(f"sk-number-{number:03}" for number in range(KEPT - 1)), PLAIN, "sk-another-one")
    assert masked.hide(PLAIN.encode()) == b"***"


def test_a_long_token_is_hidden_to_its_end() -> None:
    token = "eyJhbGciOiJSUzI1NiJ9." + "a1-_" * 500
    said = orjson.dumps({"error": f"Bearer {token} expired"}).replace(b"_", b"\\u005f")
    assert masking(token).hide(said) == b'{"error":"Bearer *** expired"}'


def test_what_breaks_off_within_a_secret_shows_none_of_it() -> None:
    codes = b"".join(b"\\u%04x" % ord(letter) for letter in PLAIN)
    percents = b"".join(b"%%%02X" % ord(letter) for letter in PLAIN)
    for spelling, size in ((PLAIN.encode(), 1), (codes, 6), (percents, 3)):
        for length in range(RECOGNISABLE * size, len(spelling)):
            assert masking(PLAIN).hide(b"bad key " + spelling[:length]) == b"bad key ***"


def test_header_values_are_hidden_and_names_stay() -> None:
    fields = [(b"X-Key", PLAIN.encode()), (b"Location", f"/x?key={PLAIN}&a=1".encode())]
    assert masking(PLAIN).hide_fields(fields) == [(b"X-Key", b"***"), (b"Location", b"/x?key=***&a=1")]


# -- event streams


class Sink:
    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.end_: list[object] = []

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def feed(self, chunk: bytes) -> None:
        assert chunk
        self.chunks.append(chunk)

    def end(self, trailers: Fields) -> None:
        self.end_.append(trailers)

    def fail(self, error: ProxyError) -> None:
        self.end_.append(error)


def passed(*chunks: bytes, key: str = PLAIN) -> Sink:
    sink = Sink()
    guard = masking(key).before(sink)
    for chunk in chunks:
        guard.feed(chunk)
    guard.end([])
    assert sink.end_ == [[]]
    return sink


TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"the word error"}}]}\n\n'
KEYED = b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % PLAIN.encode()
FAILED = b'event: error\ndata: {"error":{"message":"bad key %b"}}\n\n' % PLAIN.encode()
SHOWN = FAILED.replace(PLAIN.encode(), b"***")


def test_only_events_that_speak_of_an_error_are_searched() -> None:
    assert passed(KEYED + FAILED + KEYED + TOKEN).body == KEYED + SHOWN + KEYED + TOKEN


@pytest.mark.parametrize("line", [b"\n", b"\r\n", b"\r"])
def test_each_line_ending(line: bytes) -> None:
    stream = (KEYED + FAILED + KEYED).replace(b"\n", line)
    assert passed(stream).body == (KEYED + SHOWN + KEYED).replace(b"\n", line)


def test_whole_events_go_on_at_once() -> None:
    assert passed(KEYED, FAILED, TOKEN).chunks == [KEYED, SHOWN, TOKEN]


def test_half_an_event_goes_on_at_once_where_it_speaks_of_no_error() -> None:
    assert passed(KEYED[:20], KEYED[20:]).chunks == [KEYED[:20], KEYED[20:]]


def test_at_every_split() -> None:
    stream = KEYED + FAILED + TOKEN
    for at in range(1, len(stream)):
        assert passed(stream[:at], stream[at:]).body == KEYED + SHOWN + TOKEN


def test_byte_by_byte() -> None:
    stream = TOKEN + FAILED + TOKEN
    assert passed(*(stream[at : at + 1] for at in range(len(stream)))).body == TOKEN + SHOWN + TOKEN


@pytest.mark.parametrize(("cut", "shown"), [(2, SHOWN[:-2]), (5, SHOWN[:-5]), (10, SHOWN[:-5]), (30, FAILED[:-30])])
def test_half_an_error_is_told_before_the_end_and_before_a_failure(cut: int, shown: bytes) -> None:
    assert passed(KEYED, FAILED[:-cut]).body == KEYED + shown
    sink = Sink()
    guard, broken = masking(PLAIN).before(sink), Interrupted("cut")
    guard.feed(FAILED[:-cut])
    guard.fail(broken)
    assert (sink.body, sink.end_) == (shown, [broken])


def test_an_endless_error_is_not_held_for_ever() -> None:
    sink = Sink()
    guard = masking(PLAIN).before(sink)
    guard.feed(b"data: error " + b"x" * HELD_BYTES)
    assert len(sink.body) > HELD_BYTES
    guard.feed(FAILED)
    assert sink.body.endswith(SHOWN)
