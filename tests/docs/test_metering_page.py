"""docs/metering.md is true: its ledger line has the fields of a real one, its metrics their labels."""

import asyncio
import pathlib
import re

import orjson

from plugins.metering import ledger
from plugins.metering.bill import bill
from plugins.metering.prices import PriceBook, PriceList
from proxy import testing
from proxy.plugin import Attempt, Feedback, Target

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "metering.md").read_text()


def fields(value):
    """Keys at every depth, but for labels: those are the operator's."""
    if isinstance(value, list):
        return fields(value[0])
    return (
        {key: None if key == "labels" else fields(part) for key, part in value.items()}
        if isinstance(value, dict)
        else None
    )


def test_the_line_has_the_fields_of_a_real_one():
    shown = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1].replace("\n", "")
    exchange = testing.exchange()
    exchange.attempts.append(Attempt(1, Target("openai"), [], b""))
    made = bill(exchange, PriceBook(PriceList({}), {}))
    known = ledger.about(exchange, made)
    assert fields(orjson.loads(shown)) == fields(orjson.loads(ledger.line(exchange, made, known)))


def test_a_line_of_feedback_has_the_fields_of_a_real_one():
    shown = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[2].replace("\n", "")
    feedback = Feedback(request_id="req_4f1c0a6b2d3e4f5a6b7c8d9e", score=1.0)
    exchange = testing.exchange()
    known = ledger.about(exchange, bill(exchange, PriceBook(PriceList({}), {})))
    assert fields(orjson.loads(shown)) == fields(orjson.loads(ledger.feedback_line(feedback, known)))


async def test_the_metrics_have_their_labels():
    rows = re.findall(r"^\| `(\w+_(?:total|seconds))` \| ([^|]+) \|", PAGE, re.MULTILINE)
    shown = {name: re.findall(r"`(\w+)`", labels.partition(":")[0]) for name, labels in rows}
    async with testing.upstream(testing.chat("hi you")) as upstream, testing.weir(upstream, ["metering"]) as weir:
        await testing.ask(weir, {"model": "m", "stream": True})
        await asyncio.sleep(0)
        families = {
            family.name: {label for sample in family.samples for label in sample.labels} - {"le"}
            for family in weir.metrics.registry.collect()
            if weir.metrics.page()
        }
    for name, labels in shown.items():
        found = families[name.removesuffix("_total")]
        assert found in (set(), set(labels)), name
    assert len(shown) == 10
