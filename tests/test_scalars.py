import re
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from proxy.scalars import (
    Address,
    Duration,
    DurationOrNone,
    Expiry,
    Labels,
    Name,
    OptionalText,
    Placement,
    Rate,
    Share,
    Size,
    written,
)


def value(kind: Any, text: object) -> Any:
    return TypeAdapter(kind).validate_python(text)


def refusal(kind: Any, text: object) -> str:
    with pytest.raises(ValidationError) as refused:
        value(kind, text)
    return refused.value.errors()[0]["msg"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30.0), ("5m", 300.0), ("1h", 3600.0), ("250ms", 0.25), ("1.5s", 1.5), ("1d", 86400.0), ("0s", 0.0)],
)
def test_durations_are_seconds(text, seconds):
    assert value(Duration, text) == pytest.approx(seconds, abs=1e-12)


@pytest.mark.parametrize(("text", "share"), [("10%", 0.1), ("2.5%", 0.025), ("100%", 1.0), ("0%", 0.0)])
def test_shares_are_parts_of_one(text, share):
    assert value(Share, text) == pytest.approx(share)


@pytest.mark.parametrize("text", [10, 0.1, "10", "0.1", "%", "10 %", "-1%", "100.1%", "1000%", "10%\n", "1e1%", None])
def test_what_is_no_share_is_told(text):
    assert refusal(Share, text) == "{value} is not a share; write a number up to 100 and %, as in 10%"


@pytest.mark.parametrize("text", [30, 1.5, "30", "٣0"])
def test_a_bare_number_is_no_duration(text):
    assert refusal(Duration, text) == "{value} has no unit; write it with one, as in 30s (ms, s, m, h or d)"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "30 s",
        "30s ",
        "30s\n",
        "-1s",
        "+1s",
        "1h30m",
        "1e3s",
        ".5s",
        "5.s",
        "٣s",
        "9" * 400 + "s",
        "none",
        True,
        None,
        [],
        {},
    ],
)
def test_what_is_no_duration(text):
    assert refusal(Duration, text) == "{value} is not a duration; write a number and ms, s, m, h or d, as in 30s"


def test_none_is_no_duration_at_all():
    assert [value(DurationOrNone, text) for text in ("none", None, "30s")] == [None, None, 30.0]
    assert "is not a duration" in refusal(DurationOrNone, "None")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64MiB", 67_108_864),
        ("1GB", 10**9),
        ("512KiB", 524_288),
        ("100B", 100),
        ("1GiB", 2**30),
        ("5KB", 5000),
        (7, 7),
        (0, 0),
    ],
)
def test_sizes_are_bytes(text, size):
    assert value(Size, text) == size


@pytest.mark.parametrize("text", ["64mb", "64Mi", "64", "1.5GiB", "-1B", "1 GB", "1GB\n", "", -1, 1.0, True, None, []])
def test_what_is_no_size(text):
    assert "{value} is not a size" in refusal(Size, text)


@pytest.mark.parametrize(
    ("text", "rate"),
    [("600/min", Rate(600, 60)), ("10/s", Rate(10, 1)), ("1000/hour", Rate(1000, 3600)), ("50/day", Rate(50, 86400))],
)
def test_rates(text, rate):
    assert value(Rate, text) == rate == value(Rate, rate)


@pytest.mark.parametrize("text", ["600", "600/m", "600 / min", "0/s", "1.5/s", "-1/s", "/s", "1/s\n", 600, True, None])
def test_what_is_no_rate(text):
    assert "{value} is not a rate" in refusal(Rate, text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("[::1]:8080", Address("::1", 8080)),
        ("[fe80::1%eth0]:1", Address("fe80::1%eth0", 1)),
        (":8080", Address("", 8080)),
        ("localhost:0", Address("localhost", 0)),
        ("my_host-1.svc:65535", Address("my_host-1.svc", 65535)),
    ],
)
def test_addresses(text, address):
    assert value(Address, text) == address == value(Address, address)


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "::1:80",
        "[::1]",
        "[]:80",
        "[1.2.3.4]:80",
        "h:65536",
        "h:-1",
        "h:٣",
        "h: 80",
        "a b:80",
        "h:80\n",
        "",
        80,
        True,
        None,
    ],
)
def test_what_is_no_address(text):
    assert "{value} is not an address" in refusal(Address, text)


def test_empty_text_is_not_set():
    assert [value(OptionalText, text) for text in ("", None, " ")] == [None, None, " "]


@pytest.mark.parametrize("text", ["", "a b", "a/b", "é", "a\n", "x" * 65])
def test_what_is_no_name(text):
    assert "{value} is not a name" in refusal(Name, text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2027-01-31", datetime(2027, 2, 1, tzinfo=UTC)),
        ("2028-02-29", datetime(2028, 3, 1, tzinfo=UTC)),
        ("2027-01-31T12:30:15Z", datetime(2027, 1, 31, 12, 30, 15, tzinfo=UTC)),
        ("2027-01-31 12:30Z", datetime(2027, 1, 31, 12, 30, tzinfo=UTC)),
        ("2027-01-31T00:30:00+02:00", datetime(2027, 1, 30, 22, 30, tzinfo=UTC)),
    ],
)
def test_the_moment_of_an_expiry(text, moment):
    assert value(Expiry, text) == moment
    assert value(Expiry, text).tzinfo is UTC


@pytest.mark.parametrize(
    "text", ["", "soon", "20270131", "2027-1-31", "2027-01-31Z", "2027-W04-7", "2027-01-31\n", 2027, None]
)
def test_what_is_no_date(text):
    assert "{value} is not a date" in refusal(Expiry, text)


@pytest.mark.parametrize(
    "text", ["2027-02-29", "2027-13-01", "2027-01-31T25:00Z", "9999-12-31", "0001-01-01T00:00+10:00"]
)
def test_a_day_that_there_is_not(text):
    assert "is a day or a time that there is not" in refusal(Expiry, text)


def test_a_time_needs_its_zone():
    assert refusal(Expiry, "2027-01-31T12:00:00").startswith("{value} has no time zone; end it with Z")


def test_labels_are_few_and_short_texts():
    good = {"feature": "search", "cost-center": "4711 – ü"}
    assert value(Labels, good) == good
    assert "{value} is not a name" in refusal(Labels, {"a b": "c"})
    for text in ("", "x" * 257, "a\nb", "\x00"):
        assert "is empty, longer than 256 characters" in refusal(Labels, {"a": text})
    assert "at most 16 items" in refusal(Labels, {str(number): "x" for number in range(17)})


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("bearer", Placement("bearer")),
        ("header:X-Api-Key", Placement("header", "X-Api-Key")),
        ("header:a|b", Placement("header", "a|b")),
        ("query:key_1~", Placement("query", "key_1~")),
    ],
)
def test_places_for_a_key(text, place):
    assert value(Placement, text) == value(Placement, place) == place


@pytest.mark.parametrize(
    "text", ["", "Bearer", "bearer:x", "header", "header:", "header:a b", "header:a:b", "query:a=b", "query:", 1]
)
def test_what_is_no_place_for_a_key(text):
    assert "{value} is no place for a key" in refusal(Placement, text)


@pytest.mark.parametrize(
    "name", ["host", "Connection", "TE", "upgrade", "Content-Type", "content-length", "Proxy-Authorization"]
)
def test_no_key_goes_where_the_request_is_framed(name):
    assert "{value} is a header that says how the request is sent" in refusal(Placement, f"header:{name}")


@pytest.mark.parametrize("kind", [Duration, DurationOrNone, Size, Rate, Address, Placement])
def test_the_schema_allows_its_own_examples_and_so_does_the_type(kind):
    schema = TypeAdapter(kind).json_schema()
    text = next(part for part in (schema, *schema.get("anyOf", [])) if "pattern" in part)
    examples = schema.get("examples") or text["examples"]
    for example in examples:
        assert re.search(text["pattern"], example)
        assert value(kind, example) is not None


def test_a_default_is_given_as_it_is_written():
    class Settings(BaseModel):
        ttl: Duration = written("10m", "how long")

    assert Settings().ttl == 600
    assert Settings.model_json_schema()["properties"]["ttl"]["default"] == "10m"
