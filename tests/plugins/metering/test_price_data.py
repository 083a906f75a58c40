"""config/prices.yaml is what the script makes of the data that it names, and what providers ask for."""

from __future__ import annotations

import datetime as dt
import pathlib
import re
import subprocess
from decimal import Decimal

import pytest
import yaml

from plugins.metering import price_data
from plugins.metering.prices import FREE, PriceList

FILE = pathlib.Path(__file__).parents[3] / "config/prices.yaml"
TEXT = FILE.read_text()
DAY = dt.date.fromisoformat(re.search(r"prices as of (\S+)\.", TEXT)[1])


@pytest.fixture(scope="module")
def shipped() -> PriceList:
    return PriceList.load(FILE)


def test_the_file_is_what_the_script_makes_of_the_data_that_it_names(tmp_path):
    try:
        wheel = price_data.downloaded(tmp_path, "--retries", "0", "--timeout", "5")
    except subprocess.CalledProcessError:
        pytest.skip(f"{price_data.PACKAGE} {price_data.VERSION} cannot be downloaded here")
    assert price_data.text(price_data.providers(wheel), DAY) == TEXT


def test_the_file_says_where_it_comes_from():
    head = TEXT.partition("\nmodels:\n")[0]
    assert f"Source: genai-prices {price_data.VERSION}, MIT licence, Copyright (c) Pydantic Services Inc." in head
    assert f"Made by: python -m plugins.metering.price_data {DAY} > config/prices.yaml" in head


def test_no_amount_is_a_float_and_no_line_is_too_long_to_review():
    models = yaml.safe_load(TEXT)["models"]
    assert {type(value) for price in models.values() for value in price.values()} == {str, bool}
    assert len(TEXT.splitlines()) < 1500
    assert max(map(len, TEXT.splitlines())) < 160


def test_names_stand_in_order_within_their_section():
    for section in TEXT.split("\n  # ")[1:]:
        names = list(yaml.safe_load(section.partition("\n")[2]))
        assert names == sorted(names)


SPOT_CHECKS = {
    "gpt-4o": ("2.5", "1.25", "2.5", "10", "10"),
    "gpt-4o-2024-05-13": ("5", "5", "5", "15", "15"),
    "gpt-4o-mini-2024-07-18": ("0.15", "0.075", "0.15", "0.6", "0.6"),
    "gpt-35-turbo": ("0.5", "0.5", "0.5", "1.5", "1.5"),  # as Azure writes it
    "o3": ("2", "0.5", "2", "8", "8"),  # of two prices in time the one of the day
    "gpt-5-nano-2025-08-07": ("0.05", "0.005", "0.05", "0.4", "0.4"),
    "gpt-5.4": ("2.5", "0.25", "2.5", "15", "15"),  # the lowest tier
    "text-embedding-3-small": ("0.02", "0.02", "0.02", "0", "0"),
    "claude-3-5-sonnet-20241022": ("3", "0.3", "3.75", "15", "15"),
    "claude-opus-4-1-20250805": ("15", "1.5", "18.75", "75", "75"),
    "claude-opus-4-5-20251101": ("5", "0.5", "6.25", "25", "25"),
    "claude-opus-4-5@20251101": ("5", "0.5", "6.25", "25", "25"),
    "gemini-2.5-pro": ("1.25", "0.125", "1.25", "10", "10"),
    "gemini-2.5-flash-lite-preview-06-17": ("0.1", "0.01", "0.1", "0.4", "0.4"),
    "mistral-small-latest": ("0.15", "0.015", "0.15", "0.6", "0.6"),
    "grok-4": ("3", "0.75", "3", "15", "15"),
    "deepseek-reasoner": ("0.55", "0.14", "0.55", "2.19", "2.19"),  # of prices in a day the one that holds longest
    "llama-3.3-70b-versatile": ("0.59", "0.59", "0.59", "0.79", "0.79"),
    "openai/gpt-4o": ("2.5", "1.25", "2.5", "10", "10"),
    "google/gemini-2.5-pro": ("1.25", "0.125", "1.25", "10", "10"),  # its cache write comes on top of input
}


@pytest.mark.parametrize(("name", "usd"), SPOT_CHECKS.items(), ids=SPOT_CHECKS)
def test_known_prices(shipped, name, usd):
    assert (shipped.named(name) or shipped.matching(name)) == tuple(Decimal(amount) / 10**6 for amount in usd)


@pytest.mark.parametrize(
    "name",
    [
        "gpt-4o-realtime-preview",  # audio tokens have prices of their own
        "gpt-image-1",
        "whisper-1",  # by the minute
        "omni-moderation-latest",
        "meta-llama/Llama-3.1-8B-Instruct",  # anyone's
        "openai/gpt-oss-120b",
        "deepseek-r1:8b",
        "gpt-4o:batch",
        "my-deployment",
        "",
    ],
)
def test_what_it_does_not_know_has_no_price(shipped, name):
    assert shipped.named(name) is None
    assert shipped.matching(name) is None


def test_openrouters_free_variants_are_free(shipped):
    assert shipped.matching("meta-llama/llama-3.3-70b-instruct:free") == FREE


def node(kind, *args, **named):
    return {"is": kind, "args": list(args), **named}


def usd(amount):
    return node("Decimal", amount)


def model(match, **prices):
    return {"id": "m", "match": match, "prices": node("ModelPrice", **prices)}


def equals(name):
    return node("ClauseEquals", equals=name)


@pytest.mark.parametrize(
    ("match", "names"),
    [
        (equals("a"), ["a"]),
        (node("ClauseStartsWith", starts_with="a-"), ["a-*"]),
        (node("ClauseContains", contains="a"), ["a*"]),
        (node("ClauseEndsWith", ends_with="a"), ["a"]),
        (node("ClauseRegex", regex=r"^a-1\.5-\d{4}-\d{2}$"), ["a-1.5-[0-9][0-9][0-9][0-9]-[0-9][0-9]"]),
        (node("ClauseRegex", regex=r"^a[-@]\d"), ["a[-@][0-9]*"]),
        (node("ClauseRegex", regex=r"^(?!.*tts)"), []),
        (node("ClauseOr", or_=[equals("a"), node("ClauseAnd", and_=[equals("b")])]), ["a", "b"]),
    ],
    ids=lambda value: value["is"] if isinstance(value, dict) else "",
)
def test_how_the_data_matches_becomes_names_and_globs(match, names):
    assert price_data.names(match) == names


def test_of_prices_in_time_the_days_own_counts_and_of_those_in_a_day_the_longest():
    night = node("TimeOfDateConstraint", start_time=node("time", 22, 0), end_time=node("time", 6, 0))
    start = node("StartDateConstraint", start_date=node("date", 2026, 3, 1))
    prices = [
        {"prices": node("ModelPrice", input_mtok=usd("3"))},
        {"constraint": start, "prices": node("ModelPrice", input_mtok=usd("2"))},
        {"constraint": night, "prices": node("ModelPrice", input_mtok=usd("1"))},
    ]
    assert price_data.amounts_on(prices, dt.date(2026, 2, 28)) == {"input": "3", "output": "0"}
    assert price_data.amounts_on(prices, dt.date(2026, 3, 1)) == {"input": "2", "output": "0"}


def test_a_name_that_hosts_sell_at_different_prices_is_nobodys():
    def provider(*models):
        return {"models": models}

    one, two = ({"input_mtok": usd(amount), "output_mtok": usd("1")} for amount in ("1", "2"))
    known = {
        **{section.provider: provider() for section in price_data.SECTIONS},
        "openai": provider(model(equals("gpt-x"), **one)),
        "groq": provider(model(equals("gpt-x"), **two), model(equals("a/b"), **one), model(equals("a/c"), **one)),
        "another": provider(model(equals("a/b"), **two), model(equals("a/c"), **one)),
    }
    models = yaml.safe_load(price_data.text(known, DAY))["models"]
    price = {"input": "1", "output": "1"}
    assert models == {"gpt-x": price, "a/c": price, "*/*:free": {"free": True}}
