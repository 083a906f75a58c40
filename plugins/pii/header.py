"""Which fields of a request's header are looked through: all but those that say nothing of a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Fields = Sequence[tuple[bytes, bytes]]

_SAY_NOTHING: Final = frozenset(
    b"""
    accept accept-charset accept-encoding accept-language api-key authorization cache-control connection
    content-encoding content-length content-type cookie date expect host idempotency-key if-none-match keep-alive
    openai-beta openai-organization openai-project origin pragma priority proxy-authorization sec-fetch-dest
    sec-fetch-mode sec-fetch-site te trace traceparent trailer transfer-encoding upgrade user-agent x-api-key
    x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto x-goog-api-key x-request-id x-stainless-arch
    x-stainless-async x-stainless-helper-method x-stainless-lang x-stainless-os x-stainless-package-version
    x-stainless-raw-response x-stainless-read-timeout x-stainless-retry-count x-stainless-runtime
    x-stainless-runtime-version x-stainless-timeout
    """.split()
)
"""Nor are those that hold the caller's credential, or do not go up."""


def read(fields: Fields, change: Callable[[str], str]) -> list[tuple[bytes, bytes]] | None:
    """The fields with what `change` makes of their values; None where nothing changes."""
    told = [(at, name, value) for at, (name, value) in enumerate(fields) if name.lower() not in _SAY_NOTHING]
    changed = list(fields) if told else []
    for at, name, value in told:
        text = value.decode("latin-1")
        if (after := change(text)) is not text:
            changed[at] = (name, after.encode("latin-1"))
    return changed if told and changed != list(fields) else None
