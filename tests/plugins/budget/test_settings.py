"""What an operator writes of a budget, and what is said of what cannot be."""

from decimal import Decimal

import orjson
import pytest
from pydantic import ValidationError

from plugins.budget.settings import Amount, BudgetConfig


def config(**settings):
    return BudgetConfig.model_validate_json(
        orjson.dumps({"usd": "50/day", **settings}), context={"routes": ["cheap", "default"]}
    )


def refused(**settings):
    with pytest.raises(ValidationError) as told:
        config(**settings)
    (error,) = told.value.errors()
    return error["ctx"]["what"], error["ctx"]["fix"]


def test_amounts_are_exact():
    assert config(usd="0.000001/day").usd == [Amount(Decimal("0.000001"), "day")]
    assert config(usd=["50/day", "500.5/month"]).usd[1].micro == 500_500_000
    assert str(config().usd[0]) == "$50 a day"


def test_what_is_not_written_has_its_default():
    made = config()
    assert (made.by, made.limits, made.warn_at, made.webhook, made.downgrade_to) == ("principal", {}, [], None, None)
    assert (made.time_zone.key, made.unpriced, made.when_store_down) == ("UTC", "allow", "local")


REFUSED = {
    "no period": ({"usd": 50}, "{value} does not say for how long", "write it with a period, as in 50/day (day, week or month)"),
    "no period, in quotes": ({"usd": "50"}, "{value} does not say for how long", "write it with a period, as in 50/day (day, week or month)"),
    "a currency": ({"usd": "$50/day"}, "{value} has a currency", "write the number alone: it is US dollars, as in 50/day"),
    "another period": ({"usd": "5/hour"}, "{value} is not an amount per period", "write dollars per day, week or month, as in 50/day or 0.5/day"),
    "less than can be counted": ({"usd": "0.0000001/day"}, "{value} is not an amount per period", "write dollars per day, week or month, as in 50/day or 0.5/day"),
    "a debt": ({"usd": "-5/day"}, "{value} is not an amount per period", "write dollars per day, week or month, as in 50/day or 0.5/day"),
    "none at all": ({"usd": []}, "is an empty list", "write dollars per day, week or month, as in 50/day or 0.5/day"),
    "two of a kind": ({"usd": ["5/day", "6/day"]}, "is a second amount per day", "keep one of the two"),
    "by nothing": ({"by": "user"}, "{value} is nothing to budget by", "write principal, label:NAME, route, model or header:NAME"),
    "by no header": ({"by": "header:"}, "{value} is nothing to budget by", "write principal, label:NAME, route, model or header:NAME"),
    "no zone": ({"time_zone": "Europe/Berln"}, "no time zone is named {value}", "did you mean 'Europe/Berlin'?"),
    "a path as a zone": ({"time_zone": "../../etc/passwd"}, "no time zone is named {value}", "as in Europe/Berlin"),
    "no level": ({"warn_at": ["0%"]}, "is no level: nothing is spent then", "write one above, as in 80%"),
    "no URL": ({"warn_at": ["80%"], "webhook": "hooks.example.com"}, "is no URL to tell of it", "write it as in https://hooks.example.com/budget"),
    "told of nothing": ({"webhook": "https://hooks.example.com"}, "is told of levels, and 'warn_at' names none", "add `warn_at: [80%, 100%]`"),
    "no route": ({"downgrade_to": "chaep"}, "no route is named {value}", "did you mean 'cheap'?"),
}  # fmt: skip


@pytest.mark.parametrize(("settings", "what", "fix"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_told_with_what_to_do(settings, what, fix):
    assert refused(**settings) == (what, fix)


def test_a_webhook_that_is_not_set_is_none():
    assert config(webhook="").webhook is None


def test_a_secret_url_is_shown_nowhere():
    assert "secret" not in repr(config(warn_at=["80%"], webhook="https://hooks.example.com/secret"))
