"""Settings of pii, and what is wrong with them."""

import pytest
from pydantic import ValidationError

from plugins.pii.settings import PiiConfig


def test_the_defaults():
    config = PiiConfig()
    assert config.names == ("email", "phone", "credit_card", "us_ssn", "iban", "ip_address", "secret")
    assert {config.action_of(name) for name in config.names} == {"restore"}


def test_actions_by_entity():
    config = PiiConfig(action="mask", actions={"secret": "block"})
    assert [config.action_of("email"), config.action_of("secret")] == ["mask", "block"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"actions": {"url": "mask"}}, "'url' is not looked for"),
        ({"entities": []}, "nothing is looked for"),
        ({"custom": [{"name": "email", "pattern": "x"}]}, "an entity that Weir has"),
        ({"custom": [{"name": "a", "pattern": "x"}, {"name": "a", "pattern": "y"}]}, "another entity"),
        ({"key": "short"}, "shorter than 16 characters"),
        ({"entities": ["person"]}, "Input should be"),
        ({"roles": []}, "at least 1 item"),
    ],
)
def test_what_does_not_fit(settings: dict[str, object], said: str):
    with pytest.raises(ValidationError, match=said):
        PiiConfig(**settings)


def test_the_key_is_not_told():
    assert "0123456789abcdef" not in repr(PiiConfig(key="0123456789abcdef"))
