"""The dashboards beside this file. `.venv/bin/python deploy/grafana/dashboards.py` writes them; panels.py says how."""

from __future__ import annotations

import pathlib

from panels import Dashboard, Panel, percentile, percentiles, share, stat, written

HERE = pathlib.Path(__file__).parent
OUTCOMES = {
    "ok": "green",
    "client_abort": "blue",
    "client_error": "yellow",
    "rejected": "purple",
    "upstream_error": "red",
    "stream_interrupted": "orange",
}
FIRST_TOKEN = "gen_ai_server_time_to_first_token_seconds"  # noqa: S105 - no secret
PER_TOKEN = "gen_ai_server_time_per_output_token_seconds"  # noqa: S105
FAILED = 'outcome=~"upstream_error|stream_interrupted"'
BAD_SHARE = {0: "green", 0.01: "orange", 0.05: "red"}

OVERVIEW = Dashboard(
    "overview.json",
    "Weir / overview",
    "Is the traffic well, and who is to blame where it is not?",
    ("route", "model"),
    {
        "Now": (
            4,
            [
                stat(
                    "Requests", "All that ended, each second.", "reqps", "sum(rate(weir_requests_total{ROUTE}[RATE]))"
                ),
                stat(
                    "Failed",
                    "Share of requests that an upstream failed, before or within the answer.",
                    "percentunit",
                    share("weir_requests_total", "ROUTE", FAILED, ""),
                    BAD_SHARE,
                ),
                stat("In flight", "Requests under way.", "short", "sum(weir_in_flight_requests{ROUTE})"),
                stat(
                    "First token, p95",
                    "From an attempt's start to the first content.",
                    "s",
                    percentile(0.95, FIRST_TOKEN, "MODEL"),
                ),
                stat(
                    "Weir adds, p99",
                    "The part of a request's time that was Weir's, not the upstream's.",
                    "s",
                    percentile(0.99, "weir_overhead_seconds", "ROUTE"),
                    {0: "green", 0.05: "orange", 0.25: "red"},
                ),
                stat(
                    "Cost per hour",
                    "At this moment's pace.",
                    "currencyUSD",
                    "3600 * sum(rate(weir_cost_usd_total{ALL}[RATE]))",
                ),
            ],
        ),
        "Traffic": (
            8,
            [
                Panel(
                    "Requests by outcome",
                    "upstream_error and stream_interrupted are the upstreams'; client_error, client_abort the app's, "
                    "and rejected is what Weir's rules refused.",
                    "reqps",
                    {"{{outcome}}": "sum by (outcome) (rate(weir_requests_total{ROUTE}[RATE]))"},
                    stacked=True,
                    colours=OUTCOMES,
                ),
                Panel(
                    "Failed, by route",
                    "Share of a route's requests that an upstream failed; the error budget of the alerts is 1 %.",
                    "percentunit",
                    {"{{route}}": share("weir_requests_total", "ROUTE", FAILED, "route")},
                ),
                Panel(
                    "Requests by endpoint",
                    "chat, embeddings, ...; `other` is what Weir passes without knowing it.",
                    "reqps",
                    {"{{endpoint}}": "sum by (endpoint) (rate(weir_requests_total{ROUTE}[RATE]))"},
                    stacked=True,
                ),
            ],
        ),
        "How long it takes": (
            8,
            [
                Panel(
                    "Time to the first token",
                    "From an attempt's start to the first content, reasoning or tool delta.",
                    "s",
                    percentiles(FIRST_TOKEN, "MODEL"),
                ),
                Panel(
                    "Time per output token",
                    "From the first token to the last, per token after the first.",
                    "s",
                    percentiles(PER_TOKEN, "MODEL"),
                ),
                Panel(
                    "Whole requests",
                    "From the request to the answer's last byte.",
                    "s",
                    percentiles("weir_request_duration_seconds", "ROUTE"),
                ),
            ],
        ),
        "Weir itself": (
            7,
            [
                Panel(
                    "Weir adds",
                    "Before the first attempt, and between the upstream's header and the app's.",
                    "s",
                    percentiles("weir_overhead_seconds", "ROUTE"),
                ),
                Panel(
                    "Event loop lag",
                    "How late the event loop was, lately: all streams of that process are delayed by so much.",
                    "s",
                    {"{{job}}": "max by (job) (weir_event_loop_lag_seconds{ALL})"},
                ),
                Panel(
                    "Plugins that raised",
                    "Each was a refusal, or a request without the plugin, as its failure_mode says.",
                    "short",
                    {"{{plugin}}": "sum by (plugin) (increase(weir_plugin_errors_total{ALL}[RATE]))"},
                ),
            ],
        ),
        "Its config and its store": (
            7,
            [
                Panel(
                    "Config reloads",
                    "failed: the old config still serves, and the log has the line.",
                    "short",
                    {"{{result}}": "sum by (result) (increase(weir_config_reloads_total{ALL}[RATE]))"},
                ),
                Panel(
                    "Configs in use",
                    "How many pods have which, by the file's hash; one for each app, but for a minute after a change.",
                    "short",
                    {"{{job}} · {{hash}}": "count by (job, hash) (weir_config_info{ALL})"},
                    stacked=True,
                ),
                Panel(
                    "Redis answers",
                    "0 while it is away: limits are each replica's own then.",
                    "short",
                    {"{{job}}": "min by (job) (weir_store_up{ALL})"},
                ),
            ],
        ),
    },
)

MONEY = Dashboard(
    "money.json",
    "Weir / money",
    "Who spends what, what of it was for nothing, and what the cache has saved. Metrics are for looking: "
    "`weir ledger FILE` sums exactly, also by feature and any other label of a caller.",
    ("route", "model", "principal"),
    {
        "In the time on the screen": (
            4,
            [
                stat("Cost", "US dollars.", "currencyUSD", "sum(increase(weir_cost_usd_total{PAYER}[RANGE]))"),
                stat(
                    "Cost per day",
                    "At the pace of the last hour.",
                    "currencyUSD",
                    "86400 * sum(rate(weir_cost_usd_total{PAYER}[1h]))",
                ),
                stat(
                    "Saved by the cache",
                    "What its answers would have cost.",
                    "currencyUSD",
                    "sum(increase(weir_saved_cost_usd_total{PAYER}[RANGE]))",
                ),
                stat(
                    "Spent for nothing",
                    "Answers that nobody read to the end, and attempts that failed before another served.",
                    "currencyUSD",
                    "sum(increase(weir_wasted_cost_usd_total{ALL}[RANGE]))",
                ),
                stat(
                    "Requests without a price",
                    "They cost null in the ledger, and no budget holds them.",
                    "short",
                    "sum(increase(weir_unpriced_requests_total{ALL}[RANGE]))",
                    {0: "green", 1: "orange"},
                ),
            ],
        ),
        "Who and what": (
            8,
            [
                Panel(
                    "Cost per hour, by principal",
                    "Callers that the config names; `none` without auth. By feature: `weir ledger FILE --by feature`.",
                    "currencyUSD",
                    {"{{principal}}": "3600 * sum by (principal) (rate(weir_cost_usd_total{PAYER}[RATE]))"},
                    stacked=True,
                ),
                Panel(
                    "Cost per hour, by model",
                    "Models that the price list or the config names; the ledger has the others' names.",
                    "currencyUSD",
                    {"{{model}}": "3600 * sum by (model) (rate(weir_cost_usd_total{PAYER}[RATE]))"},
                    stacked=True,
                ),
                Panel(
                    "Cost per hour, by route",
                    "And by the upstream that served it.",
                    "currencyUSD",
                    {
                        "{{route}} · {{upstream}}": "3600 * sum by (route, upstream) "
                        "(rate(weir_cost_usd_total{PAYER}[RATE]))"
                    },
                    stacked=True,
                ),
            ],
        ),
        "Sums": (
            8,
            [
                Panel(
                    "Cost by principal and model",
                    "In the time on the screen, the dearest first.",
                    "currencyUSD",
                    {"": "topk(50, sum by (principal, model) (increase(weir_cost_usd_total{PAYER}[RANGE])))"},
                    kind="table",
                ),
                Panel(
                    "Tokens",
                    "Input has the cached ones in it, output those of reasoning.",
                    "short",
                    {"{{kind}}": "sum by (kind) (rate(weir_tokens_total{PAYER}[RATE]))"},
                ),
                Panel(
                    "Cost of a million tokens",
                    "Input and output together, as they came.",
                    "currencyUSD",
                    {
                        "{{model}}": "1e6 * sum by (model) (rate(weir_cost_usd_total{PAYER}[RATE]))"
                        ' / sum by (model) (rate(weir_tokens_total{PAYER, kind=~"input|output"}[RATE]))'
                    },
                ),
            ],
        ),
        "Budgets": (
            8,
            [
                Panel(
                    "Spent of the budget",
                    "In the period that runs. Callers that the config names.",
                    "percentunit",
                    {
                        "{{principal}} · {{budget}} per {{period}}": "max by (principal, budget, period) "
                        "(weir_budget_used_ratio{PRINCIPAL})"
                    },
                    kind="bargauge",
                    steps={0: "green", 0.8: "orange", 1: "red"},
                ),
                Panel(
                    "Warnings",
                    "How often a level of `warn_at` was reached, since the pods started.",
                    "short",
                    {"{{budget}} at {{level}}": "sum by (budget, level) (weir_budget_warnings_total{ALL})"},
                ),
                Panel(
                    "Served by another route",
                    "Requests beyond their budget that `downgrade_to` served.",
                    "reqps",
                    {"{{budget}}": "sum by (budget) (rate(weir_budget_detours_total{ALL}[RATE]))"},
                ),
            ],
        ),
        "Waste and savings": (
            8,
            [
                Panel(
                    "Spent for nothing, per hour",
                    "abort: the app left; retry: an attempt that failed before another served.",
                    "currencyUSD",
                    {"{{reason}}": "3600 * sum by (reason) (rate(weir_wasted_cost_usd_total{ALL}[RATE]))"},
                    stacked=True,
                ),
                Panel(
                    "Saved by the cache, per hour",
                    "What its answers would have cost.",
                    "currencyUSD",
                    {"{{model}}": "3600 * sum by (model) (rate(weir_saved_cost_usd_total{PAYER}[RATE]))"},
                    stacked=True,
                ),
                Panel(
                    "Tokens that the cache saved",
                    "Each second.",
                    "short",
                    {"{{kind}}": "sum by (kind) (rate(weir_saved_tokens_total{PAYER}[RATE]))"},
                ),
                Panel(
                    "Without a price",
                    "`other`: a model that neither the price list nor the config names; the ledger has its name.",
                    "short",
                    {"{{model}}": "sum by (model) (increase(weir_unpriced_requests_total{MODEL}[RATE]))"},
                ),
            ],
        ),
    },
)

UPSTREAMS = Dashboard(
    "upstreams.json",
    "Weir / upstreams",
    "How each upstream serves, and what Weir does where one does not.",
    ("upstream", "model"),
    {
        "Do they serve": (
            8,
            [
                Panel(
                    "Attempts that failed",
                    "Share of an upstream's attempts.",
                    "percentunit",
                    {"{{upstream}}": share("weir_attempts_total", "UPSTREAM", FAILED, "upstream")},
                ),
                Panel(
                    "Breakers",
                    "Open: left alone until it is tried again. The worst of all pods.",
                    "short",
                    {"{{upstream}}": "max by (upstream) (weir_breaker_state{UPSTREAM})"},
                    kind="state-timeline",
                    names={0: ("closed", "green"), 1: ("half-open", "orange"), 2: ("open", "red")},
                ),
                Panel(
                    "Attempts for each request",
                    "1 is none but the first. Failover's retry budget bounds it.",
                    "short",
                    {
                        "attempts": "sum(rate(weir_attempts_total{UPSTREAM}[RATE]))"
                        " / sum(rate(weir_requests_total{ALL}[RATE]))"
                    },
                ),
            ],
        ),
        "Load": (
            8,
            [
                Panel(
                    "Attempts by outcome",
                    "Each second.",
                    "reqps",
                    {
                        "{{upstream}} · {{outcome}}": "sum by (upstream, outcome) "
                        "(rate(weir_attempts_total{UPSTREAM}[RATE]))"
                    },
                    stacked=True,
                ),
                Panel(
                    "In flight",
                    "Attempts under way.",
                    "short",
                    {"{{upstream}}": "sum by (upstream) (weir_upstream_in_flight{UPSTREAM})"},
                    stacked=True,
                ),
                Panel(
                    "Tokens",
                    "Generated each second.",
                    "short",
                    {
                        "{{upstream}} · {{model}}": "sum by (upstream, model) "
                        '(rate(weir_tokens_total{TARGET, kind="output"}[RATE]))'
                    },
                    stacked=True,
                ),
            ],
        ),
        "Waiting for room": (
            7,
            [
                Panel(
                    "In the queue",
                    "Requests that wait until their route's upstreams have room.",
                    "short",
                    {"{{route}}": "sum by (route) (weir_queue_waiting{ALL})"},
                    stacked=True,
                ),
                Panel(
                    "How long they wait, p95",
                    "Of those that had to, served or not.",
                    "s",
                    {"{{route}}": percentile(0.95, "weir_queue_wait_seconds", "ALL", by="route")},
                ),
                Panel(
                    "Without a turn",
                    "The queue was full, or the wait too long.",
                    "reqps",
                    {"{{route}} · {{reason}}": "sum by (route, reason) (rate(weir_queue_refused_total{ALL}[RATE]))"},
                    stacked=True,
                ),
            ],
        ),
        "How fast": (
            9,
            [
                Panel(
                    "Time to the first token, p95, by target",
                    "A target is an upstream with a model.",
                    "s",
                    {"{{upstream}} · {{model}}": percentile(0.95, FIRST_TOKEN, "TARGET", by="upstream, model")},
                ),
                Panel(
                    "Time per output token, p95, by target",
                    "From the first token to the last, per token after the first.",
                    "s",
                    {"{{upstream}} · {{model}}": percentile(0.95, PER_TOKEN, "TARGET", by="upstream, model")},
                ),
                Panel(
                    "Time to the first token",
                    "How it is spread.",
                    "s",
                    {"{{le}}": f"sum by (le) (increase({FIRST_TOKEN}_bucket{{TARGET}}[RATE]))"},
                    kind="heatmap",
                ),
            ],
        ),
    },
)

PRIVACY = Dashboard(
    "privacy-and-limits.json",
    "Weir / privacy and limits",
    "What Weir held back: personal data, requests beyond a limit, questions that the cache had answered before.",
    ("route", "principal"),
    {
        "Personal data": (
            8,
            [
                Panel(
                    "Found, by kind",
                    "What the pii plugin found and put a placeholder for; never what it was.",
                    "short",
                    {"{{entity}}": "sum by (entity) (rate(weir_pii_found_total{ALL}[RATE]))"},
                    stacked=True,
                ),
                Panel(
                    "Found, by direction",
                    "In requests, or in answers.",
                    "short",
                    {"{{direction}}": "sum by (direction) (rate(weir_pii_found_total{ALL}[RATE]))"},
                    stacked=True,
                ),
            ],
        ),
        "Refused": (
            8,
            [
                Panel(
                    "Refused by a rule",
                    "401, 403, 429 and spent budgets.",
                    "reqps",
                    {"{{route}}": 'sum by (route) (rate(weir_requests_total{ROUTE, outcome="rejected"}[RATE]))'},
                    stacked=True,
                ),
                Panel(
                    "By limit",
                    "requests, tokens, concurrent, ...; `usd/day` and the like are budgets.",
                    "reqps",
                    {"{{limit}}": "sum by (limit) (rate(weir_rate_limited_total{PRINCIPAL}[RATE]))"},
                    stacked=True,
                ),
                Panel(
                    "By principal",
                    "Who meets their limits.",
                    "reqps",
                    {"{{principal}}": "sum by (principal) (rate(weir_rate_limited_total{PRINCIPAL}[RATE]))"},
                    stacked=True,
                ),
            ],
        ),
        "Answered before": (
            8,
            [
                Panel(
                    "Cache",
                    "bypass: the app said no-store, or the request is none that can be kept.",
                    "reqps",
                    {"{{result}}": "sum by (result) (rate(weir_cache_requests_total{ALL}[RATE]))"},
                    stacked=True,
                    colours={"hit": "green", "miss": "yellow", "bypass": "blue"},
                ),
                Panel(
                    "Share of hits",
                    "Of those that could have been one.",
                    "percentunit",
                    {"hits": share("weir_cache_requests_total", 'ALL, result!="bypass"', 'result="hit"', "")},
                ),
                Panel(
                    "What apps got wrong",
                    "400, 404 and 413 of Weir's own, and 4xx of upstreams.",
                    "reqps",
                    {"{{route}}": 'sum by (route) (rate(weir_requests_total{ROUTE, outcome="client_error"}[RATE]))'},
                    stacked=True,
                ),
            ],
        ),
    },
)

DASHBOARDS = (OVERVIEW, MONEY, UPSTREAMS, PRIVACY)

if __name__ == "__main__":
    for each in DASHBOARDS:
        (HERE / each.file).write_text(written(each))
