"""What a request's `cache-control` asks for. What is not understood asks for nothing."""

from __future__ import annotations

import math
from typing import NamedTuple


class Wish(NamedTuple):
    """`max_age` in seconds: older answers are not read, and with 0 none is."""

    is_off: bool = False
    max_age: float = math.inf


ANY = Wish()
OFF = Wish(is_off=True, max_age=0)


def wish(value: str | None) -> Wish:
    """`no-store` neither reads nor stores, `no-cache` does not read."""
    if value is None:
        return ANY
    told = dict(_told(part) for part in value.lower().split(","))
    if "no-store" in told:
        return OFF
    if "no-cache" in told:
        return Wish(max_age=0)
    seconds = told.get("max-age", "")
    return Wish(max_age=float(seconds)) if seconds.isascii() and seconds.isdigit() else ANY


def _told(part: str) -> tuple[str, str]:
    name, _, value = part.partition("=")
    return name.strip(), value.strip().strip('"')
