"""Prices as an operator writes them: exact amounts, and for every fault its line and what to do."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from proxy.prices import Price, PriceFile, Prices, Usd
from proxy.source import ConfigError, read_yaml


class Upstreams(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    gpu: Prices


def read(folder, text: str, model: type[BaseModel] = PriceFile) -> Any:
    file = folder / "prices.yaml"
    file.write_text(text)
    return read_yaml(file, model)


def refused(folder, text: str, model: type[BaseModel] = PriceFile) -> list[str]:
    with pytest.raises(ConfigError) as told:
        read(folder, text, model)
    return str(told.value).replace(f"{folder}/prices.yaml:", "").split("\n")


def test_a_file_has_prices_by_name_and_glob(tmp_path):
    text = """\
models:
  gpt-4o: {input: "2.50", cached_input: "1.25", output: 10}
  text-embedding-3-small: {input: "0.02", output: 0}
  "qwen*": {free: true}
  odd: {input: "999999.999999999", cache_write: "000000.000000001", output: "0", reasoning: 999999, free: false}
"""
    assert read(tmp_path, text).models == {
        "gpt-4o": Price(input=Decimal("2.5"), cached_input=Decimal("1.25"), output=Decimal(10)),
        "text-embedding-3-small": Price(input="0.02", output=0),
        "qwen*": Price(free=True),
        "odd": Price(input="999999.999999999", cache_write="0.000000001", output=0, reasoning=999999, free=False),
    }


NOT_A_PRICE = 'is not a price; write dollars per million tokens in quotes, as in "0.15"'
UNQUOTED = 'is not in quotes, and YAML would round it; put it in quotes, as in "0.15"'


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("0.15", f"0.15 {UNQUOTED}"),
        ("-0.5", f"-0.5 {UNQUOTED}"),
        ('"-0.5"', f"'-0.5' {NOT_A_PRICE}"),
        ("-1", f"-1 {NOT_A_PRICE}"),
        ("1000000", f"1000000 {NOT_A_PRICE}"),
        ('"1e-3"', f"'1e-3' {NOT_A_PRICE}"),
        ('"0.0000000001"', f"'0.0000000001' {NOT_A_PRICE}"),
        ('"1,5"', f"'1,5' {NOT_A_PRICE}"),
        ('"$1"', f"'$1' {NOT_A_PRICE}"),
        ('"1\\n"', f"'1\\n' {NOT_A_PRICE}"),
        ('"٣"', f"'٣' {NOT_A_PRICE}"),
        ('""', f"'' {NOT_A_PRICE}"),
        ("NaN", f"'NaN' {NOT_A_PRICE}"),
        (".nan", f"nan {NOT_A_PRICE}"),
        (".inf", f"inf {NOT_A_PRICE}"),
        ("true", f"true {NOT_A_PRICE}"),
        ("", f"nothing {NOT_A_PRICE}"),
        ("[1]", f"a list {NOT_A_PRICE}"),
        ("{a: 1}", f"a mapping {NOT_A_PRICE}"),
    ],
)
def test_what_is_no_price(tmp_path, written, told):
    assert refused(tmp_path, f"models:\n  gpt-4o:\n    output: 1\n    input: {written}\n") == [
        f"4 models.gpt-4o.input: {told}"
    ]


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ('{input: "1"}', "missing key 'output'; add it (output: 0 where there is none), or `free: true`"),
        ('{output: "1"}', "missing key 'input'; add it (input: 0 where there is none), or `free: true`"),
        ("{}", "missing key 'input'; add it (input: 0 where there is none), or `free: true`"),
        ("{free: false}", "missing key 'input'; add it (input: 0 where there is none), or `free: true`"),
        ("3", "must be a mapping, not a number; write `key: value` lines below it"),
    ],
)
def test_what_is_half_a_price(tmp_path, written, told):
    assert refused(tmp_path, f"models:\n  gpt-4o: {written}\n") == [f"2 models.gpt-4o: {told}"]


def test_what_is_free_has_no_price_beside_it(tmp_path):
    assert refused(tmp_path, "models:\n  gpt-4o:\n    input: 0\n    output: 0\n    free: true\n") == [
        "5 models.gpt-4o.free: free: true stands beside a price; remove one of the two"
    ]
    assert refused(tmp_path, 'models:\n  gpt-4o: {free: "yes"}\n') == [
        "2 models.gpt-4o.free: must be true or false, not text; write true or false, without quotes"
    ]


def test_a_misspelt_key_is_told(tmp_path):
    assert refused(tmp_path, "models:\n  gpt-4o: {input: 1, output: 1, cached: 1}\n") == [
        "2 models.gpt-4o.cached: unknown key 'cached'; did you mean 'cached_input'?"
    ]
    assert refused(tmp_path, "prices: {}\n") == [
        '1 models: missing key \'models\'; add `models: {gpt-4o: {input: "2.50", output: "10"}}`',
        "1 prices: unknown key 'prices'; valid keys: models",
    ]


PLAIN = 'gpu:\n  llama: {input: "0.1", output: "0.4"}\n  "*": {free: true}\n'


def test_an_upstreams_prices_may_be_written_as_in_a_prices_file(tmp_path):
    below = PLAIN.replace("gpu:", "gpu:\n  models:").replace("  llama", "    llama").replace('  "*"', '    "*"')
    assert read(tmp_path, below, Upstreams) == read(tmp_path, PLAIN, Upstreams)
    assert read(tmp_path, PLAIN, Upstreams).gpu == {"llama": Price(input="0.1", output="0.4"), "*": Price(free=True)}


def test_a_model_may_be_called_models(tmp_path):
    assert read(tmp_path, "gpu: {models: {input: 1, output: 2}}\n", Upstreams).gpu == {
        "models": Price(input=1, output=2)
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("gpu:\n  llama: {input: 0.1}\n", f"2 gpu.llama.input: 0.1 {UNQUOTED}"),
        ("gpu:\n  models:\n    llama: {input: 0.1}\n", f"3 gpu.models.llama.input: 0.1 {UNQUOTED}"),
        ("gpu:\n  models: {input: 0.1, output: 1}\n", f"2 gpu.models.input: 0.1 {UNQUOTED}"),
        ("gpu: 3\n", "1 gpu: must be a mapping, not a number; write `key: value` lines below it"),
    ],
)
def test_faults_of_an_upstreams_prices_have_the_lines_of_both_ways(tmp_path, text, told):
    assert refused(tmp_path, text, Upstreams) == [told]


def test_prices_do_not_change():
    with pytest.raises(ValidationError):
        Price(free=True).free = False


def test_an_editor_is_told_the_same():
    assert TypeAdapter(Usd).json_schema() == {
        "type": ["string", "integer"],
        "pattern": "^[0-9]{1,6}(\\.[0-9]{1,9})?$",
        "minimum": 0,
    }
