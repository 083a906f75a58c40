"""docs/metering.md is true: its ledger line has the fields of a real one, its metrics their labels."""

import asyncio
import pathlib
import re

import orjson

from plugins.metering import ledger
from plugins.metering.bill import bill
from plugins.metering.prices import PriceBook, PriceList
from proxy import testing
from proxy.plugin import Attempt, Target

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
    real = ledger.line(exchange, bill(exchange, PriceBook(PriceList({}), {})))
    assert fields(orjson.loads(shown)) == fields(orjson.loads(real))


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
    assert len(shown) == 8
