import pathlib
import re
import shutil
import tempfile
from collections.abc import Mapping
from typing import Any

import certifi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.config import Address, Config, Match, PluginEntry, Target, Timeouts, load, parse
from proxy.scalars import Placement
from proxy.source import ConfigError, Problem, Source

GOLDEN = pathlib.Path(__file__).parent / "golden" / "config_errors.txt"
ENVIRON = {"SECRET": "hunter2-hunter2", "NUMBER": "4711"}
SECTIONS = {
    "upstreams": 'upstreams: {openai: {base_url: "https://api.openai.com/v1"}}\n',
    "routes": "routes: [{name: default, targets: [openai]}]\n",
}

SAMPLE = """\
server:
  listen: 127.0.0.1:8080          # data plane: a sidecar serves its own pod only
  admin: 127.0.0.1:9090           # livez, readyz, metrics, state
  workers: 1                      # >1: processes on SO_REUSEPORT
  max_request_bytes: 64MiB
  drain_timeout: 300s
redis: ${REDIS_URL:-}             # empty: in-process memory (single replica)

upstreams:
  openai:
    base_url: https://api.openai.com/v1
    api_key: ${OPENAI_API_KEY}    # replaces the caller's credential; `auth: passthrough` forwards it instead
    timeouts: {connect: 5s, first_byte: 120s, idle: 60s, total: none}
  gpu:
    kind: tgi                     # openai (default) | azure | tgi
    base_url: http://tgi:8080     # tgi: the server's root, its /v1 and native routes are known
    on_disconnect: cancel         # cancel | drain

plugins:                          # the chain: the order in which a request meets them
  - auth: {keys: [{name: search-team, sha256: "9f86d0…", labels: {feature: search}}]}
  - metering: {prices: prices.yaml}               # relative paths start at this file's folder
  - rate_limit: {by: principal, requests: 600/min, tokens: 200000/min, concurrent: 50}
  - budget: {by: principal, usd: 50/day}
  - pii: {entities: [email, phone, credit_card, us_ssn, iban, ip_address, secret]}
  - cache: {ttl: 10m}
  - failover: {max_attempts: 3, deadline: 120s, first_token: 30s}   # hold, continue_midstream: §10
  - circuit_breaker: {fail_max: 5, reset_timeout: 30s}

routes:                           # first match wins; no match is a 404 that says so
  - name: cheap
    match: {path: /v1/chat/completions, model: "gpt-4o-mini*", header: {x-tier: free}}
    targets: [{upstream: gpu, model: meta-llama/Llama-3.1-8B-Instruct}, openai]   # order = failover order
    balance: ordered              # ordered | weighted | least_busy | ewma | sticky | prefix
    plugins: {cache: {ttl: 1h}, pii: off}                                          # per-route overrides
  - name: default
    targets: [openai]
"""


def completed(text: str) -> str:
    """With the sections that the text lacks, unless it is no mapping at all."""
    missing = (more for key, more in SECTIONS.items() if f"{key}:" not in text and not text.startswith("-"))
    return text.rstrip("\n") + "\n" + "".join(missing)


def written(folder: pathlib.Path, text: str) -> pathlib.Path:
    file = folder / "config.yaml"
    file.write_text(completed(text))
    return file


def config(folder: pathlib.Path, text: str, environ: Mapping[str, str] = ENVIRON) -> Config:
    return load(written(folder, text), environ)[1]


def bad_configs() -> list[Any]:
    _, *blocks = re.split(r"^=== ", GOLDEN.read_text(), flags=re.MULTILINE)
    cases = []
    for block in blocks:
        name, *lines = block.rstrip().split("\n")
        yaml = "".join(f"{line}\n" for line in lines if not line.startswith("> "))
        cases.append(pytest.param(yaml, [line[2:] for line in lines if line.startswith("> ")], id=name))
    return cases


@pytest.mark.parametrize(("yaml", "errors"), bad_configs())
def test_every_error_names_its_line_and_the_fix(tmp_path, yaml, errors):
    file = written(tmp_path, yaml)
    with pytest.raises(ConfigError) as refused:
        load(file, ENVIRON)
    assert str(refused.value).replace(f"{file}:", "").split("\n") == errors
    assert "hunter2" not in str(refused.value)


def test_the_documented_sample_loads(tmp_path):
    source, loaded = load(written(tmp_path, SAMPLE), {"OPENAI_API_KEY": "sk-1"})
    assert loaded.server.listen == Address("127.0.0.1", 8080)
    assert loaded.server.max_request_bytes == 64 * 2**20
    assert loaded.redis is None
    assert loaded.upstreams["openai"].api_key.get_secret_value() == "sk-1"
    assert loaded.upstreams["openai"].timeouts == Timeouts.model_construct(
        connect=5.0, first_byte=120.0, idle=60.0, total=None
    )
    assert loaded.upstreams["gpu"].kind == "tgi"
    names = ["auth", "metering", "rate_limit", "budget", "pii", "cache", "failover", "circuit_breaker"]
    assert [entry.name for entry in loaded.plugins] == names
    assert loaded.plugins[5] == PluginEntry(name="cache", settings={"ttl": "10m"})
    cheap, default = loaded.routes
    assert cheap.targets == [
        Target(upstream="gpu", model="meta-llama/Llama-3.1-8B-Instruct"),
        Target(upstream="openai"),
    ]
    assert cheap.match.header == {"x-tier": "free"}
    assert cheap.plugins == {"cache": {"ttl": "1h"}, "pii": False}
    assert default.match == Match()
    assert source.line(("plugins", 5, "cache", "ttl")) == 25


def test_what_is_not_written_has_its_documented_default(tmp_path):
    loaded = config(tmp_path, "")
    assert dict(loaded.server) == {
        "listen": Address("127.0.0.1", 8080),
        "admin": Address("127.0.0.1", 9090),
        "workers": 1,
        "max_request_bytes": 67_108_864,
        "drain_timeout": 300.0,
    }
    assert loaded.upstreams["openai"].model_dump() == {
        "kind": "openai",
        "base_url": "https://api.openai.com/v1",
        "api_key": None,
        "api_key_in": None,
        "token": None,
        "api_version": None,
        "deployments": {},
        "headers": {},
        "auth": "replace",
        "timeouts": {"connect": 5.0, "first_byte": 120.0, "idle": 60.0, "total": None},
        "on_disconnect": "cancel",
        "include_usage": True,
        "normalize": True,
        "replay_safe": False,
        "max_connections": 1000,
        "max_waiting": 1000,
        "health": None,
        "load": {"server": "auto", "path": None, "port": None, "interval": 2.0, "timeout": 1.0},
        "capacity": None,
        "cold_start": None,
        "keepalive": None,
        "tls": {"ca_file": None, "verify": True},
        "prices": {},
        "usd_per_hour": None,
        "without_api_key": None,
    }
    assert (loaded.redis, loaded.plugins) == (None, [])


def test_the_three_ways_to_write_a_plugin(tmp_path):
    loaded = config(tmp_path, "plugins:\n  - auth\n  - pii:\n  - cache: {ttl: 10m}\n")
    assert [(entry.name, entry.settings) for entry in loaded.plugins] == [
        ("auth", {}),
        ("pii", {}),
        ("cache", {"ttl": "10m"}),
    ]


def test_two_plugins_of_one_kind_have_names_of_their_own(tmp_path):
    loaded = config(tmp_path, "plugins:\n  - cache: {ttl: 10m}\n  - long_cache: {use: cache, ttl: 1d}\n")
    assert [entry.name for entry in loaded.plugins] == ["cache", "long_cache"]


def test_header_names_are_lower_cased_and_their_globs_are_not(tmp_path):
    loaded = config(
        tmp_path, "routes: [{name: a, match: {header: {X-Tier: Fr*}}, targets: [openai]}, {name: b, targets: [openai]}]"
    )
    assert loaded.routes[0].match.header == {"x-tier": "Fr*"}


@pytest.mark.parametrize(
    "url", ["https://api.openai.com/v1/", "http://[::1]:8080/v1", "http://10.0.0.1:3000", "https://h/a%20b/v1"]
)
def test_a_base_url_keeps_all_but_its_last_slash(tmp_path, url):
    loaded = config(tmp_path, f"upstreams: {{openai: {{base_url: '{url}'}}}}\n")
    assert loaded.upstreams["openai"].base_url == url.rstrip("/")


def test_variables_that_are_empty_leave_optional_values_unset(tmp_path):
    text = """\
redis: "${NOTHING:-}"
upstreams:
  openai:
    base_url: https://api.openai.com/v1
    api_key: "${NOTHING:-}"
    tls: {ca_file: "${NOTHING:-}"}
    without_api_key: demo
routes:
  - name: default
    match: {path: "${NOTHING:-}", model: "${NOTHING:-}"}
    targets: [{upstream: openai, model: "${NOTHING:-}"}]
"""
    loaded = config(tmp_path, text)
    upstream = loaded.upstreams["openai"]
    assert (loaded.redis, upstream.api_key, upstream.tls.ca_file) == (None, None, None)
    assert loaded.routes[0].match == Match()
    assert loaded.routes[0].targets == [Target(upstream="openai")]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("least_busy", {"by": "least_busy"}),
        ("{by: ordered}", {"by": "ordered"}),
        ("sticky", {"by": "sticky", "key": "conversation"}),
        ("{by: sticky, key: 'header:X-Session'}", {"by": "sticky", "key": "header:X-Session"}),
        ("prefix", {"by": "prefix", "bytes": 2048, "spill": 1.25}),
        ("{by: prefix, bytes: 1KiB, spill: 2}", {"by": "prefix", "bytes": 1024, "spill": 2.0}),
        ("{by: weighted, header: {X-Canary: openai}}", {"by": "weighted", "header": {"x-canary": "openai"}}),
    ],
)
def test_a_balance_is_a_word_or_has_settings(tmp_path, written, read):
    balance = config(tmp_path, f"routes: [{{name: a, targets: [openai], balance: {written}}}]\n").routes[0].balance
    assert {key: getattr(balance, key) for key in read} == read


def test_a_target_has_a_weight_and_may_know_its_window(tmp_path):
    text = (
        "routes: [{name: a, targets: [openai, {upstream: openai, weight: 0, context_window: 8192}, {static: Sorry.}]}]"
    )
    first, second, last = config(tmp_path, text).routes[0].targets
    assert (first.weight, first.context_window, first.static) == (1, None, None)
    assert (second.weight, second.context_window) == (0, 8192)
    assert (last.upstream, last.static) == (None, "Sorry.")


@pytest.mark.parametrize(
    ("written", "server", "interval"),
    [
        ("vllm", "vllm", 2.0),
        ("off", "off", 2.0),
        ("{server: triton, port: 8002, interval: 5s}", "triton", 5.0),
        ("{}", "auto", 2.0),
    ],
)
def test_a_load_is_a_word_or_has_settings(tmp_path, written, server, interval):
    load = (
        config(tmp_path, f"upstreams: {{openai: {{base_url: 'https://h', load: {written}}}}}\n")
        .upstreams["openai"]
        .load
    )
    assert (load.server, load.interval) == (server, interval)


@pytest.mark.parametrize("bounded", ["kind: tgi", "capacity: {concurrent: 8}"])
def test_a_queue_has_upstreams_that_can_be_full(tmp_path, bounded):
    text = f"upstreams: {{openai: {{base_url: 'https://h', {bounded}}}}}\n"
    route = config(tmp_path, text + "routes: [{name: a, targets: [openai], queue: {}}]\n").routes[0]
    assert (route.queue.max, route.queue.timeout) == (100, 30.0)


def test_a_price_by_the_hour_is_exact_and_may_come_from_the_environment(tmp_path):
    text = "upstreams: {openai: {base_url: 'https://h', usd_per_hour: '${PRICE:-}'}}\n"
    assert config(tmp_path, text).upstreams["openai"].usd_per_hour is None
    assert str(config(tmp_path, text, {"PRICE": "2.50"}).upstreams["openai"].usd_per_hour) == "2.50"


def test_a_static_answer_may_stand_alone(tmp_path):
    loaded = config(tmp_path, "routes: [{name: a, targets: [{static: Closed for the weekend.}]}]\n")
    assert [target.static for target in loaded.routes[0].targets] == ["Closed for the weekend."]


def test_health_checks_have_defaults(tmp_path):
    health = config(tmp_path, "upstreams: {openai: {base_url: 'https://h', health: {}}}\n").upstreams["openai"].health
    assert dict(health) == {
        "path": "/health",
        "interval": 10.0,
        "timeout": 2.0,
        "unhealthy_after": 3,
        "healthy_after": 1,
    }


@pytest.mark.parametrize("key", ["sk-proj-1", "12345", "0123", "1e9", "true", "null", "2024-10-21", "a: b # c", "${X}"])
def test_a_key_from_the_environment_is_text_whatever_it_looks_like(tmp_path, key):
    text = "upstreams:\n  openai:\n    base_url: https://api.openai.com/v1\n    api_key: ${KEY}\n"
    if key == "null":
        text = text.replace("${KEY}", '"${KEY}"')
    loaded = config(tmp_path, text, {"KEY": key})
    assert loaded.upstreams["openai"].api_key.get_secret_value() == key


def test_values_from_the_environment_have_the_type_that_is_asked_for(tmp_path):
    text = "server:\n  workers: ${N:-1}\n  listen: ${HOST}:${PORT}\n  max_request_bytes: ${BYTES}\n"
    loaded = config(tmp_path, text, {"HOST": "localhost", "PORT": "0", "BYTES": "1024"})
    assert loaded.server.listen == Address("localhost", 0)
    assert loaded.server.max_request_bytes == 1024


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ("bearer", Placement("bearer")),
        ("header:X-API-Key", Placement("header", "X-API-Key")),
        ("header:authorization", Placement("header", "authorization")),
        ("query:key", Placement("query", "key")),
    ],
)
def test_a_key_has_its_place(tmp_path, written, place):
    text = f"upstreams: {{openai: {{base_url: 'https://h', api_key: k, api_key_in: {written}}}}}\n"
    assert config(tmp_path, text).upstreams["openai"].api_key_in == place


def test_blanks_around_a_key_are_no_part_of_it(tmp_path):
    text = "upstreams: {openai: {base_url: 'https://h', api_key: '${KEY}'}}\n"
    upstream = config(tmp_path, text, {"KEY": " sk-1\r\n\n"}).upstreams["openai"]
    assert upstream.api_key.get_secret_value() == "sk-1"


def test_a_token_is_looked_for_beside_the_config_and_need_not_be_there_yet(tmp_path):
    text = "upstreams: {openai: {base_url: 'https://h', token: {file: run/token, refresh: 5m}}}\n"
    token = config(tmp_path, text).upstreams["openai"].token
    assert (token.file, token.refresh, token.timeout) == (tmp_path / "run/token", 300.0, 10.0)


def test_a_tokens_command_does_not_show(tmp_path):
    text = "upstreams: {openai: {base_url: 'https://h', token: {command: [curl, -H, 'X-Key: ${SECRET}']}}}\n"
    source, loaded = load(written(tmp_path, text), ENVIRON)
    assert "hunter2" not in f"{source!r} {loaded!r}"
    assert loaded.upstreams["openai"].token.command[2] == "X-Key: hunter2-hunter2"


@pytest.mark.parametrize(
    "settings",
    [
        "base_url: 'https://name.openai.azure.com', api_version: 2024-10-21",
        "base_url: 'https://name.openai.azure.com/', api_version: 2025-04-01-preview, deployments: {gpt-4o: prod}",
        "base_url: 'https://name.openai.azure.com/openai/v1'",
        "base_url: 'https://name.openai.azure.com/openai/v1/', api_version: preview",
        "base_url: 'https://gate.example/openai-eu', api_version: 2024-10-21",
    ],
)
def test_the_ways_to_azure(tmp_path, settings):
    assert config(tmp_path, f"upstreams: {{openai: {{kind: azure, {settings}}}}}\n").upstreams["openai"].kind == "azure"


def test_a_certificate_is_looked_for_beside_the_config(tmp_path):
    shutil.copy(certifi.where(), tmp_path / "ca.pem")
    text = "upstreams:\n  openai:\n    base_url: https://host\n    tls: {ca_file: ca.pem, verify: false}\n"
    tls = config(tmp_path, text).upstreams["openai"].tls
    assert (tls.ca_file, tls.verify) == (tmp_path / "ca.pem", False)


def test_a_path_that_matches_all_may_be_the_last_route(tmp_path):
    text = "routes: [{name: chat, match: {model: 'gpt*'}, targets: [openai]}, {name: all, match: {path: '/*'}, targets: [openai]}]"
    assert [route.name for route in config(tmp_path, text).routes] == ["chat", "all"]


def test_secrets_do_not_show_in_a_config(tmp_path):
    text = "redis: redis://:${SECRET}@host\nupstreams: {openai: {base_url: 'https://host', api_key: '${SECRET}'}}\n"
    source, loaded = load(written(tmp_path, text), ENVIRON)
    assert "hunter2" not in f"{source!r} {loaded!r} {loaded}"


def test_parse_leaves_its_problems_to_the_caller(tmp_path):
    file = written(tmp_path, "plugins: [cache, cache]\n")
    problems: list[Problem] = []
    assert parse(Source.read(file, {}), problems) is not None
    assert [problem.path for problem in problems] == [("plugins", 1)]


def test_the_schema_describes_what_one_writes():
    schema = Config.model_json_schema()
    server = schema["$defs"]["Server"]["properties"]
    assert (server["listen"]["type"], server["listen"]["default"]) == ("string", "127.0.0.1:8080")
    assert (server["drain_timeout"]["default"], server["max_request_bytes"]["default"]) == ("300s", "64MiB")
    assert re.search(server["drain_timeout"]["pattern"], "1.5s")
    targets = schema["$defs"]["Route"]["properties"]["targets"]["items"]
    assert targets == {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/Target"}]}
    assert {"type": "string"} in schema["properties"]["plugins"]["items"]["anyOf"]
    assert list(schema["properties"]["upstreams"]["patternProperties"]) == ["^[A-Za-z0-9_.-]{1,64}$"]
    assert schema["required"] == ["upstreams", "routes"]


def test_every_key_of_the_schema_is_described():
    schema = Config.model_json_schema()
    parts = {"Config": schema, **schema["$defs"]}
    bare = [
        f"{part}.{key}"
        for part in parts
        for key, field in parts[part]["properties"].items()
        if "description" not in field
    ]
    assert bare == []


SHARDS = [
    "",
    "\t",
    "  ",
    "\n",
    "- ",
    ": ",
    "{",
    "}",
    "[",
    "]",
    "${",
    "${A:-",
    "${file:",
    "$$",
    "&a ",
    "*a",
    "<<: *a\n",
    "? ",
]
SHARDS += [
    '"',
    "'",
    "|",
    "!!int ",
    "~",
    "off",
    "0x_",
    "0b_",
    "1e999",
    ".nan",
    "\0",
    "\x85",
    "é",
    "\ud800",
    "---\n",
    "# ",
]
SHARDS += [
    "9" * 5000,
    "[" * 2000,
    "routes",
    "0s",
    "none",
    '"\\0"',
    '"\\ud800"',
    "=",
    "1:30",
    "2024-01-01",
    "%YAML 1.1\n",
]

mutations = st.lists(
    st.tuples(st.integers(0, len(SAMPLE)), st.integers(0, 40), st.sampled_from(SHARDS) | st.text(max_size=8)),
    max_size=6,
)


def mutated(changes: list[tuple[int, int, str]]) -> str:
    text = SAMPLE
    for start, length, shard in changes:
        text = text[:start] + shard + text[start + length :]
    return text


def problems_of(content: bytes) -> tuple[Problem, ...]:
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "config.yaml"
        file.write_bytes(content)
        try:
            load(file, {"OPENAI_API_KEY": "hunter2-hunter2", "A": "\ud800"})
        except ConfigError as refused:
            return refused.problems
        return ()


def is_fit_to_print(content: bytes) -> bool:
    """Whatever the file holds: each problem is one line, about a line that is there, and without a secret."""
    problems = problems_of(content)
    texts = [str(problem) for problem in problems]
    lines = len(content.decode(errors="replace").splitlines())
    assert all(1 <= problem.line <= lines + 1 for problem in problems)
    return all(text.isprintable() and "hunter2" not in text for text in texts)


@settings(max_examples=150)
@given(mutations)
def test_no_change_to_a_good_file_crashes(changes):
    assert is_fit_to_print(mutated(changes).encode(errors="surrogatepass"))


@settings(max_examples=50)
@given(st.text().map(str.encode) | st.binary())
def test_no_text_crashes(content):
    assert is_fit_to_print(content)
