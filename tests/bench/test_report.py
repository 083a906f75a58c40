"""The bench's arithmetic and its tables, on figures made up here: no proxy is started."""

import pytest
from pydantic import ValidationError

from tests.bench import payload, report
from tests.bench.measures import (
    DIRECT,
    EVENT_US,
    NGINX,
    REQUEST_LOAD,
    REQUEST_US,
    REQUESTS_S,
    STREAM_KB,
    Budget,
    first_event_key,
    load_busy_key,
    percentile,
    proxy_waited_key,
    stalled_key,
)
from tests.bench.runs import ORDER, StreamOrder, StreamResult, Window
from tests.bench.trials import stream_figures

P99 = first_event_key(512, 99)


def test_percentiles_lie_between_the_values_around_them() -> None:
    values = [float(value) for value in range(101)]
    assert percentile(values, 50) == 50
    assert percentile(values, 99) == 99
    assert percentile([1.0, 2.0], 50) == 1.5


def test_rounds_become_the_least_cpu_the_best_rate_and_the_worst_count() -> None:
    rounds = [
        {NGINX: {REQUEST_US: 14.0, REQUESTS_S: 60e3, stalled_key(512): 0.0, STREAM_KB: 17.0}},
        {NGINX: {REQUEST_US: 13.0, REQUESTS_S: 70e3, stalled_key(512): 3.0, STREAM_KB: 19.0}},
        {NGINX: {REQUEST_US: 15.0, REQUESTS_S: 50e3, stalled_key(512): 0.0, STREAM_KB: 18.0}},
    ]
    assert report.summary(rounds) == {
        NGINX: {REQUEST_US: 13.0, REQUESTS_S: 70e3, stalled_key(512): 3.0, STREAM_KB: 18.0}
    }


def test_ttft_is_what_the_proxy_adds_and_unknown_without_the_direct_way() -> None:
    noisy, quiet = {DIRECT: {P99: 0.9}, "weir": {P99: 1.5}}, {DIRECT: {P99: 0.5}, "weir": {P99: 2.5}}
    assert report.summary([noisy, quiet])["weir"][P99] == pytest.approx(1.0)
    assert report.summary([{DIRECT: {}, "weir": {P99: 1.5}}]) == {"weir": {}}


@pytest.mark.parametrize(
    ("budget", "value", "others", "said"),
    [
        (Budget(30), 30.0, {}, "≤ 30: met"),
        (Budget(30), 30.1, {}, "≤ 30: **missed**"),
        (Budget(30, goal=25), 28.0, {}, "≤ 30: met (goal 25 missed)"),
        (Budget(4.5, times_nginx=True), 58.0, {NGINX: 13.0}, "≤ 4.5 ×: met"),
        (Budget(1.4, times_nginx=True, goal=1.2), 15.0, {NGINX: 13.0}, "≤ 1.4 ×: met (goal 1.2 met)"),
        (Budget(1.4, times_nginx=True), 20.0, {NGINX: 13.0}, "≤ 1.4 ×: **missed**"),
        (Budget(1.4, times_nginx=True), 20.0, {}, "≤ 1.4 ×: no nginx"),
        (Budget(8, beyond="weir"), 107.0, {"weir": 100.0}, "≤ 8 more than weir (+7.0): met"),
        (Budget(8, beyond="weir"), 109.0, {"weir": 100.0}, "≤ 8 more than weir (+9.0): **missed**"),
        (Budget(8, beyond="weir"), 109.0, {}, "≤ 8 more: no weir"),
    ],
)
def test_a_budget_is_judged_in_its_unit_or_against_another_proxy(
    budget: Budget, value: float, others: dict[str, float], said: str
) -> None:
    assert report.verdict(budget, value, others) == said


def test_no_two_requests_of_a_load_are_the_same() -> None:
    request = payload.chat_request(8080)
    one, other = payload.numbered(request, 7), payload.numbered(request, 10**10 + 8)
    assert len({request, one, other}) == 3
    assert len(one) == len(other) == len(request)


def test_the_table_has_the_ratio_and_the_budget_beside_each_weir() -> None:
    summed = {NGINX: {EVENT_US: 12.0, stalled_key(512): 0.0}, "weir": {EVENT_US: 15.0}}
    assert report.table(summed, {"weir": {EVENT_US: Budget(1.4, times_nginx=True)}}).splitlines() == [
        "| measure | nginx | weir | × nginx | budget |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| CPU per SSE event at 200 paced streams, µs | 12.0 | 15.0 | 1.25 | ≤ 1.4 ×: met |",
        "| stalled streams of 512 | 0 | – | – |  |",
    ]


def test_a_busy_load_core_and_a_shared_proxy_core_are_warned_of() -> None:
    busy, waited = load_busy_key(REQUEST_LOAD), proxy_waited_key(REQUEST_LOAD)
    assert report.warnings({"weir": {busy: 90.0, waited: 10.0}}) == []
    load_core, proxy_core = report.warnings({"weir": {busy: 97.4, waited: 12.0}})
    assert load_core == "weir, requests: the load core was 97 % busy, wall-clock figures may be the load's own"
    assert (
        proxy_core
        == "weir, requests: the proxy waited for its core, which others used, 12 % of the time that it had work"
    )


def test_orders_and_results_cross_the_process_border() -> None:
    order = StreamOrder(
        port=1, proxy_pids=(2, 3), upstream_pids=(4,), streams=5, spread_s=1, window_s=2, interval_ms=50
    )
    assert ORDER.validate_json(order.model_dump_json()) == order
    with pytest.raises(ValidationError):
        StreamResult.model_validate_json(b'{"events": 1}')


def test_memory_per_stream_and_cpu_per_event_come_from_a_stream_result() -> None:
    window = Window(wall_ns=10**9, proxy_cpu_ns=50_000_000, proxy_wait_ns=50_000_000, load_cpu_ns=200_000_000)
    result = StreamResult(
        opening=window, window=window, events=4000, first_ms=(1.0, 2.0), stalled=1, rss_before=10**7, rss_open=2 * 10**7
    )
    assert stream_figures(200, result)[EVENT_US] == 12.5
    wide = stream_figures(512, result)
    assert wide[STREAM_KB] == pytest.approx(10**4 / 512)
    assert wide[stalled_key(512)] == 1
    assert wide[load_busy_key("streams-512")] == 20
    assert wide[proxy_waited_key("streams-512")] == 50


def test_the_upstream_reads_its_orders_from_the_request() -> None:
    body = payload.stream_request(8080, events=40, interval_ms=50).partition(b"\r\n\r\n")[2]
    assert payload.stream_order(body) == (40, 0.05, payload.LAST + payload.DONE)
    assert payload.stream_order(payload.chat_request(8080).partition(b"\r\n\r\n")[2]) is None
