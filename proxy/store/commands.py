"""What Redis is asked and what its answers mean: pure, the scripts' (`*.lua`) side of the words.

Keys are `weir:{=subject}:name`, so that a cluster has what is one subject's in one place; the `=` keeps a tag that is
empty, or begins with a brace, from being none.
"""

from __future__ import annotations

import hashlib
import math
import pathlib
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from proxy.store.claims import Claim, Taken

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Command = tuple[str | int, ...]
    Answer = Sequence[int]

_WINDOWS: Final = {"take", "settle"}


def _script(name: str) -> str:
    names = ("window", name) if name in _WINDOWS else (name,)
    return "".join((pathlib.Path(__file__).parent / f"{part}.lua").read_text() for part in names)


SCRIPTS: Final = {name: _script(name) for name in ("take", "settle", "renew")}
SHAS: Final = {name: hashlib.sha1(text.encode()).hexdigest() for name, text in SCRIPTS.items()}  # noqa: S324 - Redis's
ASKED_BEFORE: Final = [-1]
"""The answer where an exchange was settled, or taken, before its claims arrived."""


def key(subject: str, name: str) -> str:
    return f"weir:{{={subject}}}:{name}"


def by_subject(claims: Sequence[Claim]) -> list[list[int]]:
    """The places of what one script can decide in a cluster: the claims of one subject."""
    found: dict[str, list[int]] = {}
    for place, claim in enumerate(claims):
        found.setdefault(claim.subject, []).append(place)
    return list(found.values())


def take(identity: str, claims: Sequence[Claim], slot_ms: int) -> Command:
    """What follows `EVALSHA sha`."""
    said = _keys(identity, claims[0].subject, claims)
    said += (identity, slot_ms)
    for kind, _, _, limit, amount, seconds, _ in claims:
        said += (kind, limit, amount, _ms(seconds))
    return tuple(said)


def settle(
    identity: str, claims: Sequence[Claim], amounts: Sequence[int], *, is_sure: bool, taken: float, known: float
) -> Command:
    """`is_sure`: the claims were granted, and only what has changed is told; else nobody knows whether they arrived.

    `taken` and `known`: how many seconds ago the claims were taken, and what was used became known.
    """
    changed = [
        (claim, amount)
        for claim, amount in zip(claims, amounts, strict=True)
        if claim.kind != "slot" and not (is_sure and claim.amount == amount)
    ]
    said = _keys(identity, claims[0].subject, [claim for claim, _ in changed])
    said += ("sure" if is_sure else "unsure", int(taken * 1000), int(known * 1000))
    for claim, amount in changed:
        said += (claim.kind, claim.amount, amount, _ms(claim.seconds))
    return tuple(said)


def renew(subject: str, name: str, slot_ms: int, identities: Iterable[str]) -> Command:
    return (1, key(subject, name), slot_ms, *identities)


def taken(identity: str, claims: Sequence[Claim], parts: Sequence[Sequence[int]], answers: Sequence[Answer]) -> Taken:
    """Of the answers to each part of the claims: all are taken, or it is refused by the one that waits longest."""
    if len(parts) == 1:
        place, wait, *left = answers[0]
        return Taken(identity, claims, left, 0.0, refused=place - 1 if place else None, wait=wait / 1000)
    remaining, refused, longest = [0] * len(claims), None, -1
    for part, (refusing, wait, *left) in zip(parts, answers, strict=True):
        for place, rest in zip(part, left, strict=True):
            remaining[place] = rest
        if refusing and wait > longest:
            refused, longest = part[refusing - 1], wait
    return Taken(identity, claims, remaining, 0.0, refused=refused, wait=max(longest, 0) / 1000)


def _keys(identity: str, subject: str, claims: Sequence[Claim]) -> list[str | int]:
    """The number of keys and the keys: the reservation's, and the claims'."""
    said: list[str | int] = [len(claims) + 1, f"weir:{{={subject}}}:{identity}"]
    said += [f"weir:{{={claim.subject}}}:{claim.key}" for claim in claims]
    return said


@lru_cache(1024)
def _ms(seconds: float) -> int:
    return max(math.ceil(seconds * 1000), 1)
