"""Texts of a request: what is replaced, by what, and what is refused."""

import re

import orjson
import pytest

from plugins.pii.findings import Finding
from plugins.pii.redactor import Redactor
from plugins.pii.settings import PiiConfig
from proxy.plugin import ClientFault, Rejected
from tests.plugins.pii.conversation import CARD, EMAIL, table

JSON = "application/json"


def redactor(**settings: object) -> tuple[Redactor, list[str]]:
    """With a detector that stops at nothing: it finds across the borders of strings as well."""
    wild = re.compile(r"[a-z.]+@[a-z.]+|4111[0-9 ]{12,15}|BEGIN.*", re.DOTALL)
    entity = {"b": "email", "4": "credit_card", "B": "secret"}
    counted: list[str] = []

    def find(text: str) -> list[Finding]:
        return [Finding(match.start(), match.end(), entity[match[0][0]]) for match in wild.finditer(text)]

    return Redactor(PiiConfig(**settings), find, counted.append), counted


def redacted(body: bytes, kind: str = JSON, **settings: object) -> bytes:
    return redactor(**settings)[0].body(body, kind, table())


def test_all_places_of_a_value_get_the_same():
    sent = redacted(orjson.dumps([EMAIL, f"x {EMAIL}", {EMAIL: 1}]))
    assert len(set(re.findall(rb"<EMAIL_[0-9a-z]{4}>", sent))) == 1
    assert sent.count(b"<EMAIL_") == 3


def test_each_finding_is_counted():
    made, counted = redactor(action="report")
    body = orjson.dumps([EMAIL, EMAIL, CARD])
    its = table()
    assert made.body(body, JSON, its) is body
    assert (counted, its.found) == (["email", "email", "credit_card"], 3)


def test_a_number_becomes_a_text():
    assert re.fullmatch(
        rb'\{"n":"<CREDIT_CARD_[0-9a-z]{4}>","seed":4111111111111111\}',
        redacted(b'{"n":4111111111111111,"seed":4111111111111111}'),
    )


def test_what_is_found_across_strings_ends_with_the_first_and_the_rest_is_read_again():
    sent = orjson.loads(redacted(orjson.dumps({"a": "BEGIN x", "b": f"then {EMAIL}"})))
    assert re.fullmatch("<SECRET_[0-9a-z]{4}>", sent["a"])
    assert re.fullmatch("then <EMAIL_[0-9a-z]{4}>", sent["b"])


def test_where_nothing_is_found_the_same_object_goes_up():
    body = b'{"a":"b","c":[1.0,2e5]}'
    assert redacted(body) is body
    assert redacted(b"", "") == b""


@pytest.mark.parametrize("kind", [JSON, "", "text/plain", "application/jsonl", "application/json; charset=UTF-8"])
def test_kinds_that_are_read(kind: str):
    assert b"<EMAIL_" in redacted(f"{EMAIL} is all".encode(), kind)


@pytest.mark.parametrize("kind", ["audio/wav", "image/png", "application/octet-stream"])
def test_what_is_no_text_passes_where_that_is_said(kind: str):
    body = bytes(range(256))
    assert redacted(body, kind) is body
    with pytest.raises(ClientFault, match="not UTF-8"):
        redacted(body, JSON)


def test_a_blocked_entity_is_named_and_its_value_is_not():
    with pytest.raises(Rejected, match="of the kind 'email'") as refused:
        redacted(orjson.dumps(EMAIL), actions={"email": "block"})
    assert EMAIL not in refused.value.message


def test_a_text_in_utf_16_within_a_form_is_refused():
    head = b'--B\r\nContent-Disposition: form-data; name="file"; filename="x.txt"\r\n\r\n'
    for text in (EMAIL.encode("utf-16"), EMAIL.encode("utf-16-be") * 3, "bób".encode("latin-1") * 3):
        with pytest.raises(ClientFault, match="a text in the form"):
            redacted(head + text + b"\r\n--B--", "multipart/form-data; boundary=B")
