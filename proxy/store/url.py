"""Where the shared store is: one Redis, a primary that Sentinels know, or a Redis Cluster.

redis://[user:password@]host[:port][/db]                 `rediss` instead of `redis` is over TLS
redis+sentinel://[user:password@]host[:port],…/name[/db]  the primary that these Sentinels call by that name
redis+cluster://[user:password@]host[:port],…             any of the cluster's nodes
unix://[user:password@]/path/to/redis.sock[?db=N]

With TLS: `?ca_file=/path` trusts these authorities, `?verify=false` any certificate. `?timeout=100ms`: how long an
answer may take.
"""

from __future__ import annotations

import re
import ssl
import urllib.parse
from typing import Literal, NamedTuple

from proxy.wording import fault

Kind = Literal["single", "sentinel", "cluster"]

_KINDS: dict[str, Kind] = {"": "single", "sentinel": "sentinel", "cluster": "cluster"}
_HOW = (
    "write it as in redis://host:6379/0, rediss://…, redis+sentinel://host,host/name, redis+cluster://host,host "
    "or unix:///path"
)
_OPTIONS = {"redis": {"timeout"}, "rediss": {"timeout", "ca_file", "verify"}, "unix": {"timeout", "db"}}
_PORTS = {"single": 6379, "sentinel": 26379, "cluster": 6379}


TIMEOUT = 0.05


class StoreUrl(NamedTuple):
    """`path`: of a socket in the file system; `primary`: its name at the Sentinels."""

    kind: Kind
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    user: str = ""
    password: str = ""
    db: int = 0
    primary: str = ""
    tls: ssl.SSLContext | None = None
    ca_file: str | None = None
    verify: bool = True
    timeout: float = TIMEOUT


def parse(url: str) -> StoreUrl:
    """Raises a fault that says how to write it, without what it holds."""
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError:
        raise fault("is not the URL of a Redis", _HOW) from None
    credentials, _, netloc = parts.netloc.rpartition("@")
    user, _, password = (urllib.parse.unquote(part) for part in credentials.partition(":"))
    if user and not password:
        raise fault("names a user without a password", "write it as in redis://user:password@host")
    scheme, _, suffix = parts.scheme.partition("+")
    if parts.scheme == "unix":
        found = _socket(parts, netloc)
    elif scheme in {"redis", "rediss"} and suffix in _KINDS:
        found = _server(parts, netloc, _KINDS[suffix])
    else:
        raise fault("is not the URL of a Redis", _HOW)
    options = _options(parts.query, _OPTIONS[scheme])
    return found._replace(
        user=user,
        password=password,
        db=_db(options["db"], found.kind) if "db" in options else found.db,
        tls=_tls(options) if scheme == "rediss" else None,
        ca_file=options.get("ca_file"),
        verify=options.get("verify") != "false",
        timeout=_timeout(options.get("timeout", "50ms")),
    )


def _socket(parts: urllib.parse.SplitResult, netloc: str) -> StoreUrl:
    path = urllib.parse.unquote(parts.path)
    if netloc or len(path) < 2:
        raise fault("names no socket", "write its whole path, as in unix:///run/redis.sock")
    return StoreUrl("single", hosts=((path, 0),), path=path)


def _server(parts: urllib.parse.SplitResult, netloc: str, kind: Kind) -> StoreUrl:
    segments = [urllib.parse.unquote(segment) for segment in parts.path.split("/")[1:] if segment]
    primary = segments.pop(0) if kind == "sentinel" and segments else ""
    if kind == "sentinel" and not primary:
        raise fault("does not name the primary that the Sentinels watch", _HOW)
    if kind == "single" and "," in netloc:
        raise fault("names several hosts", "write redis+sentinel:// or redis+cluster:// if they are one store")
    hosts = tuple(_host(part, _PORTS[kind]) for part in netloc.split(","))
    return StoreUrl(kind, hosts=hosts, db=_db("/".join(segments) or "0", kind), primary=primary)


def _host(text: str, port: int) -> tuple[str, int]:
    try:
        parts = urllib.parse.urlsplit(f"//{text}")
        if parts.hostname and not parts.path:
            return parts.hostname, parts.port or port
    except ValueError:
        pass
    raise fault("has no valid host and port", _HOW)


def _db(text: str, kind: Kind) -> int:
    if not (text.isascii() and text.isdecimal()) or (kind == "cluster" and text != "0"):
        raise fault("names no database: a cluster has none, others have numbers", _HOW)
    return int(text)


def _options(query: str, known: set[str]) -> dict[str, str]:
    options = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    if options.keys() - known:
        raise fault("has an option that it cannot have", f"write {', '.join(sorted(known))}, or remove it")
    return options


def _timeout(text: str) -> float:
    found = re.fullmatch(r"([1-9][0-9]{0,4})ms", text)
    if found is None:
        raise fault("has a timeout that is none", "write it as in timeout=50ms, up to 99999ms")
    return int(found[1]) / 1000


def _tls(options: dict[str, str]) -> ssl.SSLContext:
    if options.get("verify", "true") not in {"true", "false"}:
        raise fault("has a value of verify that is neither true nor false", "write verify=false, or remove it")
    try:
        context = ssl.create_default_context(cafile=options.get("ca_file"))
    except OSError:
        raise fault("names a ca_file that cannot be read", "mount it, or correct the path") from None
    if options.get("verify") == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
