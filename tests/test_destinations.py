"""Targets as `weir explain` tells them: shares where chance decides, names where a header does, and no value of a query."""

import pytest

from proxy.destinations import shown_target
from proxy.search import find
from tests.test_search import plan_of, request_of

HEAD = """upstreams:
  a: {base_url: "https://a.example/v1"}
  b: {kind: azure, base_url: "https://b.openai.azure.com", api_version: 2024-10-21, token: {command: [print-token]}}
routes:
  - {name: all, targets: %s, balance: %s}
"""
TWO = "[{upstream: a, weight: 3}, {upstream: b, model: m}]"
CHAT = "/v1/chat/completions"


@pytest.mark.parametrize(
    ("targets", "balance", "headers", "found", "why"),
    [
        (TWO, "ordered", {}, [("a", None), ("b", None)], "as they are written"),
        (TWO, "weighted", {}, [("a", 0.75), ("b", 0.25)], "by chance, each as often as its weight says"),
        (
            TWO,
            "{by: weighted, header: {x-canary: b}}",
            {"X-Canary": ""},
            [("b", None), ("a", None)],
            "b is first by a header of the request, then by chance, each as often as its weight says",
        ),
        ("[a]", "weighted", {}, [("a", None)], "by chance, each as often as its weight says"),
        (TWO, "ewma", {}, [("a", 0.75), ("b", 0.25)], "ewma, by what is under way then; idle ones by chance"),
        (
            TWO,
            "{by: sticky, key: principal}",
            {},
            [("a", 0.75), ("b", 0.25)],
            "sticky by principal, which this request lacks: by chance",
        ),
        ("[a, {static: sorry}]", "ordered", {}, [("a", None), (None, None)], "as they are written"),
    ],
)
async def test_the_order_says_why(tmp_path, targets, balance, headers, found, why):
    told = await find(plan_of(tmp_path, HEAD % (targets, balance)), request_of(CHAT, "gpt-x", headers))
    assert ([(target.upstream, target.share) for target in told.targets], told.order) == (found, why)


async def test_each_has_its_url_its_credential_and_its_model(tmp_path):
    plan = plan_of(tmp_path, HEAD % (TWO, "ordered"))
    first, second = (await find(plan, request_of(CHAT, "gpt-x", {}))).targets
    assert (first.model, first.credential) == ("gpt-x", "none; the caller's stays here")
    assert (second.model, second.credential) == ("m", "an OAuth token, as bearer")
    assert second.url == "https://b.openai.azure.com/openai/deployments/m/chat/completions?api-version=2024-10-21"


async def test_what_an_upstream_cannot_be_asked_is_told(tmp_path):
    plan = plan_of(tmp_path, HEAD % ("[b]", "ordered"))
    (target,) = (await find(plan, request_of(CHAT, None, {}))).targets
    assert (target.url, target.note) == (None, "400: the request names no model, and Azure serves models by name")


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/v1/models", "/v1/models"),
        ("/v1/models?key=canary&a", "/v1/models?key=***&a"),
        ("/x?api-version=2024-10-21&sig=canary=", "/x?api-version=2024-10-21&sig=***"),
    ],
)
def test_a_query_is_shown_without_its_values(target, shown):
    assert shown_target(target) == shown
