"""docs/operations.md is true: its metrics, codes, fields and paths are the real ones."""

import pathlib
import re

import orjson
import pytest

from proxy import errors, logs, testing
from proxy.metrics import Metrics
from tests import wire

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "operations.md").read_text()
SWITCHED_ON = {"weir_upstream_load", "weir_upstream_loading", "weir_upstream_seconds"}
"""On the pages of what they belong to."""
BY_HAND = {
    *("bad_http", "bad_method", "bad_target", "bad_body", "invalid_json", "no_route", "shutting_down"),
    *("context_length_exceeded", "model_loading", "queue_full", "queue_timeout"),
}
"""Codes that those who raise an error give it instead of its own."""
OF_PLUGINS = {"forbidden", "invalid_api_key", "rate_limit_exceeded", "insufficient_quota"}
NEVER_SAID = {"invalid_request", "not_found", "upstream_error", "downstream_stalled"}
"""Whoever raises these names another code, or the app has gone."""


def rows(heading):
    table = PAGE.split(f"{heading}\n", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table.splitlines()[1:]]


def words(cell):
    return re.findall(r"`([^`]*)`", cell)


def test_the_metrics_are_those_that_need_no_plugin_with_their_labels():
    shown = {words(name)[0].removesuffix("_total"): words(labels) for name, labels, *_ in rows("| metric | labels | |")}
    families = {family.name: family for family in Metrics().registry._collector_to_names}
    assert shown == {name: list(family.labels) for name, family in families.items() if name not in SWITCHED_ON}


def test_the_outcomes_are_all():
    assert words(re.search(r"`outcome` is (.*?);", PAGE)[1]) == [outcome.value for outcome in errors.Outcome]


def all_errors(kind=errors.ProxyError):
    return {kind, *(found for each in kind.__subclasses__() for found in all_errors(each))}


def test_the_codes_are_those_of_the_core_with_their_status():
    shown = {(status, code) for status, codes, _ in rows("| status | `code` | |") for code in words(codes)}
    own = {(str(kind.status), kind.code) for kind in all_errors() if kind.__module__ == "proxy.errors"}
    told = {pair for pair in own if pair[1] not in OF_PLUGINS | NEVER_SAID | {"upstream_stream_interrupted"}}
    assert {code for _, code in shown} == {code for _, code in told} | BY_HAND | {"upstream_stream_interrupted"}
    assert told <= shown


def test_an_access_line_has_the_fields_of_a_real_one():
    shown = next(text for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL) if '"access"' in text)
    real = orjson.loads(logs.access_line(testing.exchange()))
    assert list(orjson.loads(shown.replace("\n", ""))) == list(real)


@pytest.mark.parametrize(("method", "path"), [words(cell)[0].split(" ") for cell, _ in rows("\n| | |")])
async def test_the_admin_port_has_the_paths(method, path):
    async with testing.upstream(testing.answer(b"{}")) as upstream, testing.weir(upstream) as weir:
        answer = await wire.fetch(
            weir.admin_url, f"{method} {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n".encode()
        )
    assert answer.status not in {404, 405}
