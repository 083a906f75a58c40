"""What an operator may write, and what weir says where it makes no sense."""

import pytest

from plugins.failover import FailoverConfig
from proxy import testing
from proxy.plugin import ConfigError


def test_the_defaults_are_those_of_the_page():
    config = FailoverConfig()
    assert (config.max_attempts, config.deadline, config.first_byte, config.first_token) == (3, 120.0, None, 30.0)
    assert (config.retry_budget, config.backoff.first, config.backoff.most) == (0.1, 0.1, 2.0)
    assert (config.hold, config.hold_bytes, config.hold_full_bytes) == ("none", 65_536, 1_048_576)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("{max_attempts: 0}", "max_attempts: "),
        ("{max_attempts: 33}", "max_attempts: "),
        ("{deadline: 0s}", "deadline: no time at all lets nothing through; write a longer time"),
        ("{first_token: 0s}", "first_token: no time at all lets nothing through; write a longer time"),
        ("{retry_budget: 0.1}", "retry_budget: 0.1 is not a share; write a number up to 100 and %, as in 10%"),
        (
            "{retry_budget: 0%}",
            "retry_budget: is no budget; write more, as in 10%, or `max_attempts: 1` for no retries",
        ),
        (
            "{backoff: {first: 3s}}",
            "backoff.first: the first pause is longer than the most; lower it, or raise most",
        ),
        ("{hold: some}", "hold: "),
    ],
)
async def test_what_makes_no_sense_is_told_with_its_place(settings, told):
    with pytest.raises(ConfigError) as refused:
        async with testing.configured(
            'upstreams: {a: {base_url: "http://localhost:1/v1"}}\n'
            f"plugins:\n  - failover: {settings}\nroutes: [{{name: main, targets: [a]}}]\n"
        ):
            pass
    assert f"config.yaml:3 plugins[0].failover.{told}" in str(refused.value)


@pytest.mark.parametrize("key", ["first_byte", "first_token"])
def test_no_limit_is_written_none(key):
    assert getattr(FailoverConfig.model_validate({key: "none"}), key) is None
