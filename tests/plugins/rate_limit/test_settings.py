"""What an operator may write, and what weir says where it makes no sense."""

import pytest

from plugins.rate_limit import RateLimit, RateLimitConfig
from proxy import testing
from proxy.plugin import PRINCIPAL, ConfigError, Rate
from tests.plugins.rate_limit.house import SOMEBODY


def test_a_rate_or_a_list_of_rates():
    config = RateLimitConfig.model_validate({"requests": "10/s", "tokens": ["5/s", "100/min"]})
    assert config.requests == (Rate(10, 1),)
    assert config.tokens == (Rate(5, 1), Rate(100, 60))
    assert (config.by, config.when_store_down) == ("principal", "local")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("{}", ": limits nothing; write `requests: 600/min`, `tokens: 200000/min` or `concurrent: 50`"),
        ("{by: route}", ": limits nothing; write `requests: 600/min`, `tokens: 200000/min` or `concurrent: 50`"),
        ("{requests: 600}", ".requests: 600 is not a rate; write a whole number from 1 per s, min, hour or day"),
        ("{requests: 0/min}", ".requests: '0/min' is not a rate; "),
        ("{tokens: [1/s, 5/month]}", ".tokens[1]: '5/month' is not a rate; "),
        ("{requests: []}", ".requests: is an empty list; write a rate, as in 600/min, or remove it"),
        ("{requests: [1/s, 2/s]}", ".requests: has two rates of one period; leave the lower one"),
        ("{request: 1/s}", ".request: unknown key 'request'; did you mean 'requests'?"),
        (
            "{requests: 1/s, limits: {bob: {token: 1/s}}}",
            ".limits.bob.token: unknown key 'token'; did you mean 'tokens'?",
        ),
        ("{concurrent: 0}", ".concurrent: "),
        ("{tokens: 1/s, burst: 5}", ".burst: shapes one rate of requests, and there is none or a list; remove it"),
        ("{requests: [1/s, 5/min], burst: 5}", ".burst: shapes one rate of requests, and there is none or a list"),
        ("{requests: 1/s, limits: {bob: {burst: 5}}}", ".limits.bob.burst: shapes one rate of requests"),
        (
            "{requests: 1/s, by: user}",
            ".by: 'user' is nothing to limit by; write principal, route, model or header:NAME",
        ),
        ("{requests: 1/s, by: 'header:'}", ".by: 'header:' is nothing to limit by; "),
        ("{requests: 1/s, when_store_down: never}", ".when_store_down: "),
    ],
)
async def test_what_makes_no_sense_is_told_with_its_place(settings, told):
    with pytest.raises(ConfigError) as refused:
        async with testing.configured(
            'upstreams: {a: {base_url: "http://localhost:1/v1"}}\n'
            f"plugins:\n  - somebody: {{use: '{SOMEBODY['somebody']['use']}'}}\n  - rate_limit: {settings}\n"
            "routes: [{name: main, targets: [a]}]\n"
        ):
            pass
    assert f"config.yaml:4 plugins[1].rate_limit{told}" in str(refused.value)


async def test_to_limit_callers_that_nobody_tells_apart_stops_the_start():
    """Field case 60: a policy whose prerequisite is missing must not be silently inactive."""
    with pytest.raises(ConfigError) as refused:
        async with testing.configured(
            'upstreams: {a: {base_url: "http://localhost:1/v1"}}\n'
            "plugins:\n  - rate_limit: {requests: 1/s}\nroutes: [{name: main, targets: [a]}]\n"
        ):
            pass
    assert "plugin 'rate_limit' needs 'principal', which none before it gives" in str(refused.value)


@pytest.mark.parametrize("by", ["route", "model", "header:x-user"])
def test_other_limits_need_nobody(by):
    assert RateLimit(RateLimitConfig(by=by, requests="1/s"), name="rate_limit").needs == ()
    assert RateLimit(RateLimitConfig(requests="1/s"), name="rate_limit").needs == (PRINCIPAL,)


def test_usage_is_read_only_where_tokens_count():
    def reads(**settings: object) -> bool:
        return RateLimit(RateLimitConfig.model_validate(settings), name="rate_limit").reads_usage

    assert not reads(requests="1/s", concurrent=1)
    assert reads(tokens="1/s")
    assert reads(requests="1/s", limits={"bob": {"output_tokens": "1/s"}})
