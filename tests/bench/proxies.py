"""The proxies that stand side by side: nginx, and Weir once per plugin chain that has a price to show.

A further Weir variant is one more entry of `VARIANTS`: a name, what its config has beyond the plain one, its budgets.
"""

import getpass
import hashlib
import http.client
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.measures import (
    EVENT_US,
    IDLE_MB,
    NGINX,
    REQUEST_US,
    STREAM_KB,
    WIDE,
    Budget,
    first_event_key,
    stalled_key,
)
from tests.bench.processes import free_port, listens

_NGINX_CONFIG = """\
daemon off;
{user}
worker_processes 1;
worker_rlimit_nofile 8192;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log warn;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    tcp_nodelay on;
    keepalive_requests 10000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream mock {{
        server 127.0.0.1:{upstream};
        keepalive 512;
        keepalive_requests 10000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location / {{
            proxy_pass http://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
        }}
    }}
}}
"""
_KEY = hashlib.sha256(b"sk-bench").hexdigest()
_PRICES = Path(__file__).parents[2] / "config/prices.yaml"
_WEIR_CONFIG = """\
server: {{listen: "127.0.0.1:{port}", admin: "127.0.0.1:{admin}"}}
upstreams: {{mock: {{base_url: "http://127.0.0.1:{upstream}/v1", api_key: bench-key}}}}
routes: [{{name: default, targets: [mock]}}]
"""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A proxy that is ready to be started: what to run, where it will listen, how to ask whether it does."""

    command: tuple[str, ...]
    port: int
    is_ready: Callable[[], bool]
    redis: tuple[tuple[str, ...], int] | None = None  # a server that it needs beside it: command and port


@dataclass(frozen=True, slots=True)
class Proxy:
    name: str
    prepare: Callable[[Path, int], Prepared]  # an empty folder of its own, the upstream's port
    budgets: Mapping[str, Budget] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Variant:
    name: str
    extra_config: str
    budgets: Mapping[str, Budget]
    shares: bool = False

    def prepare(self, folder: Path, upstream: int) -> Prepared:
        port, admin, redis = free_port(), free_port(), free_port()
        config = folder / "weir.yaml"
        text = _WEIR_CONFIG.format(port=port, admin=admin, upstream=upstream) + self.extra_config
        config.write_text(f"redis: redis://127.0.0.1:{redis}\n{text}" if self.shares else text)
        command = (sys.executable, "-m", "proxy.cli", "serve", "--config", str(config))
        server = ("redis-server", "--port", str(redis), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder))
        return Prepared(command, port, lambda: _answers_ready(admin), (server, redis) if self.shares else None)


_AUTH_AND_METERING = f'{{auth: {{keys: [{{name: bench, sha256: "{_KEY}"}}]}}}}, {{metering: {{prices: "{_PRICES}"}}}}'
_LIMITS = (
    "{rate_limit: {requests: 60000000/min, tokens: 20000000000/min, concurrent: 5000}}, {budget: {usd: 500000/day}}"
)
_LAST = "{cache: {ttl: 10m}}, {failover: {first_token: 30s}}, circuit_breaker"
_CHAIN = f"plugins: [{_AUTH_AND_METERING}, {_LIMITS}, {_LAST}]\n"
"""All of the design's own chain but privacy, with limits that nobody reaches; each request is a miss of the cache."""

_WHOLE_CHAIN = f"plugins: [{_AUTH_AND_METERING}, {_LIMITS}, pii, {_LAST}]\n"
_REDACTING = """\
plugins: [{pii: {custom: [{name: serial, pattern: "[0-9]{10}", examples: ["0000000042"]}]}}]
"""
"""In each request a number is found, and its placeholder looked for in each event."""

_MEMORY_CHAIN = "weir + chain"

VARIANTS = (
    Variant(
        "weir",
        "",
        {
            REQUEST_US: Budget(4.5, times_nginx=True),
            EVENT_US: Budget(1.4, times_nginx=True, goal=1.2),
            first_event_key(WIDE[-1], 99): Budget(2.0),
            stalled_key(WIDE[-1]): Budget(0),
            IDLE_MB: Budget(60),
            STREAM_KB: Budget(30, goal=25),
        },
    ),
    Variant(
        "weir + auth and metering",
        f"plugins: [{_AUTH_AND_METERING}]\n",
        {REQUEST_US: Budget(5.5, times_nginx=True), EVENT_US: Budget(1.45, times_nginx=True, goal=1.25)},
    ),
    Variant(
        "weir + failover and breaker", "plugins: [failover, circuit_breaker]\n", {REQUEST_US: Budget(8, beyond="weir")}
    ),
    Variant(
        _MEMORY_CHAIN,
        _CHAIN,
        {REQUEST_US: Budget(5.5, times_nginx=True), EVENT_US: Budget(1.45, times_nginx=True), IDLE_MB: Budget(60)},
    ),
    Variant("weir + chain, Redis", _CHAIN, {REQUEST_US: Budget(30, beyond=_MEMORY_CHAIN)}, shares=True),
    Variant(
        "weir + chain and pii",
        _WHOLE_CHAIN,
        {REQUEST_US: Budget(5.5, times_nginx=True), EVENT_US: Budget(2, times_nginx=True), IDLE_MB: Budget(60)},
    ),
    Variant(
        "weir + pii at work",
        _REDACTING,
        {EVENT_US: Budget(2, times_nginx=True), first_event_key(WIDE[-1], 50): Budget(1)},
    ),
    Variant(
        "weir + tap and filter",
        'plugins: [{tap: {use: "tests.bench.stages:TapEveryEvent"}}, {filter: {use: "tests.bench.stages:FilterEveryEvent"}}]\n',
        {EVENT_US: Budget(1.7, times_nginx=True)},
    ),
)


FLOOR = "bare uvloop"


def nginx_binary() -> str | None:
    """Debian keeps it where a plain user's PATH does not look."""
    return shutil.which(NGINX, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


def proxies() -> tuple[Proxy, ...]:
    weirs = tuple(Proxy(variant.name, variant.prepare, variant.budgets) for variant in VARIANTS)
    binary = nginx_binary()
    floor = Proxy(FLOOR, _floor)
    if binary is None:
        return (floor, *weirs)
    return (Proxy(NGINX, lambda folder, upstream: _nginx(binary, folder, upstream)), floor, *weirs)


def _floor(_: Path, upstream: int) -> Prepared:
    port = free_port()
    command = (sys.executable, "-m", "tests.bench.bare", str(port), str(upstream))
    return Prepared(command, port, lambda: listens(port))


def _nginx(binary: str, folder: Path, upstream: int) -> Prepared:
    port = free_port()
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""  # else the worker cannot enter the folder
    config = folder / "nginx.conf"
    config.write_text(_NGINX_CONFIG.format(folder=folder, port=port, upstream=upstream, user=user))
    return Prepared((binary, "-p", str(folder), "-c", str(config)), port, lambda: listens(port))


def _answers_ready(admin: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
