"""Where the shared store is: one Redis, a primary that Sentinels know, or a Redis Cluster.

redis://[user:password@]host[:port][/db]                 `rediss` instead of `redis` is over TLS
redis+sentinel://[user:password@]host[:port],…/name[/db]  the primary that these Sentinels call by that name
redis+cluster://[user:password@]host[:port],…             any of the cluster's nodes
unix://[user:password@]/path/to/redis.sock

With TLS: `?ca_file=/path` trusts these authorities, `?verify=false` any certificate.
"""

from __future__ import annotations

import ssl
import urllib.parse
from typing import Literal, NamedTuple

from proxy.wording import fault

Kind = Literal["single", "sentinel", "cluster"]

_KINDS: dict[str, Kind] = {"": "single", "sentinel": "sentinel", "cluster": "cluster"}
_HOW = "write it as in redis://host:6379/0, rediss://…, redis+sentinel://host,host/name or redis+cluster://host,host"
_PORTS = {"single": 6379, "sentinel": 26379, "cluster": 6379}


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


def parse(url: str) -> StoreUrl:
    """Raises a fault that says how to write it, without what it holds."""
    parts = urllib.parse.urlsplit(url)
    credentials, _, netloc = parts.netloc.rpartition("@")
    user, _, password = (urllib.parse.unquote(part) for part in credentials.partition(":"))
    segments = [urllib.parse.unquote(segment) for segment in parts.path.split("/")[1:] if segment]
    if parts.scheme == "unix":
        return StoreUrl("single", path=parts.path, user=user, password=password)
    scheme, _, suffix = parts.scheme.partition("+")
    if scheme not in {"redis", "rediss"} or suffix not in _KINDS:
        raise fault("is not the URL of a Redis", _HOW)
    kind, is_tls = _KINDS[suffix], scheme == "rediss"
    primary = segments.pop(0) if kind == "sentinel" and segments else ""
    if kind == "sentinel" and not primary:
        raise fault("does not name the primary that the Sentinels watch", _HOW)
    return StoreUrl(
        kind,
        hosts=tuple(_host(part, _PORTS[kind]) for part in netloc.split(",")),
        user=user,
        password=password,
        db=_db(segments, kind),
        primary=primary,
        tls=_tls(parts.query) if is_tls else None,
    )


def _host(text: str, port: int) -> tuple[str, int]:
    try:
        parts = urllib.parse.urlsplit(f"//{text}")
        if parts.hostname and not parts.path:
            return parts.hostname, parts.port or port
    except ValueError:
        pass
    raise fault("has no valid host and port", _HOW)


def _db(segments: list[str], kind: Kind) -> int:
    if not segments:
        return 0
    if len(segments) > 1 or not segments[0].isdecimal() or kind == "cluster":
        raise fault("names no database: a cluster has none, others have numbers", _HOW)
    return int(segments[0])


def _tls(query: str) -> ssl.SSLContext:
    options = dict(urllib.parse.parse_qsl(query))
    if unknown := options.keys() - {"ca_file", "verify"}:
        raise fault(f"has an unknown option {min(unknown)!r}", "the options are ca_file and verify")
    try:
        context = ssl.create_default_context(cafile=options.get("ca_file"))
    except OSError:
        raise fault("names a ca_file that cannot be read", "mount it, or correct the path") from None
    if options.get("verify") == "false":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
