"""One parameter in the query of a request target: looked for, taken out, added; the rest stays as it is spelled."""

from __future__ import annotations

import urllib.parse


def has(target: str, name: str) -> bool:
    return any(_is_named(part, name) for part in target.partition("?")[2].split("&"))


def without(target: str, name: str) -> str:
    if not has(target, name):
        return target
    path, _, query = target.partition("?")
    kept = [part for part in query.split("&") if not _is_named(part, name)]
    return f"{path}?{'&'.join(kept)}" if kept else path


def added(target: str, name: str, value: str) -> str:
    mark = "?" if "?" not in target else "" if target.endswith(("?", "&")) else "&"
    return f"{target}{mark}{name}={quoted(value)}"


def quoted(value: str) -> str:
    return urllib.parse.quote(value, safe="")


def _is_named(part: str, name: str) -> bool:
    """As the most lenient server would read it: escapes undone, in either case."""
    return urllib.parse.unquote_plus(part.partition("=")[0]).lower() == name.lower()
