"""What a detector finds in a text, and what wins where findings overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ENTITIES = ("email", "phone", "credit_card", "us_ssn", "iban", "ip_address", "secret", "url")


class Finding(NamedTuple):
    """Character offsets, end exclusive; `entity` is the word that the config uses."""

    start: int
    end: int
    entity: str


def settled(found: Iterable[Finding], rank: Callable[[str], int]) -> list[Finding]:
    """In order and without overlaps: of two that overlap the longer stays, of two as long the one of lower rank."""
    best_first = sorted(found, key=lambda one: (one.start - one.end, rank(one.entity), one.start))
    if len(best_first) < 2:
        return best_first
    return _disjoint(best_first)


def _disjoint(best_first: list[Finding]) -> list[Finding]:
    """Greedy, with a bitmap of what is taken: linear in the findings' lengths, however many they are."""
    taken = bytearray(max(one.end for one in best_first))
    kept = []
    for one in best_first:
        # The longest come first, so that one which overlaps an earlier one has an end of its own inside that.
        if not taken[one.start] and not taken[one.end - 1]:
            taken[one.start : one.end] = b"\1" * (one.end - one.start)
            kept.append(one)
    return sorted(kept)
