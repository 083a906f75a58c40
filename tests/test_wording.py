from typing import Annotated

import pytest
from pydantic import BaseModel, Field

from proxy.wording import fields, kind, nearest


class Leaf(BaseModel):
    colour: str
    kind_: str = Field(alias="kind")


class Stem(BaseModel):
    leaf: Leaf | None
    leaves: list[Annotated[Leaf, "as written"]]
    named: dict[str, Leaf]
    pair: tuple[Leaf, ...]
    either: Annotated[Leaf, "a"] | dict[str, Leaf] | int


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        (("x",), ["leaf", "leaves", "named", "pair", "either"]),
        (("leaf", "x"), ["colour", "kind"]),
        (("leaves", 0, "x"), ["colour", "kind"]),
        (("named", "leaf", "x"), ["colour", "kind"]),
        (("pair", 1, "x"), ["colour", "kind"]),
        (("either", "x"), ["colour", "kind"]),
        (("either", "any", "x"), ["colour", "kind"]),
        (("leaf", "colour", "x"), []),
        (("nowhere", "x"), []),
    ],
)
def test_the_keys_that_a_place_may_have(path, keys):
    assert list(fields(Stem, path)) == keys


def test_the_nearest_name_or_all_of_them():
    assert nearest("time_outs", ["timeouts", "tls"], "valid keys") == "did you mean 'timeouts'?"
    assert nearest("x", ["timeouts", "tls"], "valid keys") == "valid keys: timeouts, tls"
    assert nearest("x", [], "the chain") == "the chain: none"


def test_kinds_of_values_in_words():
    values = [None, True, False, 1, 1.5, "", [], {}]
    words = ["nothing", "true", "false", "a number", "a decimal number", "text", "a list", "a mapping"]
    assert [kind(value) for value in values] == words
