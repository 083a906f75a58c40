"""What Redis is asked and what its answers mean: pure, the scripts' (`*.lua`) side of the words.

Keys are `weir:{subject}:name`, so that a cluster has what is one subject's in one place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.store.claims import Claim, Standing, Taken

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    Part = Sequence[int]
    Command = tuple[str | int, ...]


def key(subject: str, name: str) -> str:
    return f"weir:{{{subject}}}:{name}"


def parts(claims: Sequence[Claim], *, apart: bool) -> list[Part]:
    """The places of what is decided in one script: all claims, or with `apart` those of one subject."""
    if not apart:
        return [range(len(claims))]
    by_subject: dict[str, list[int]] = {}
    for place, claim in enumerate(claims):
        by_subject.setdefault(claim.subject, []).append(place)
    return list(by_subject.values())


def take(identity: str, claims: Sequence[Claim], part: Part, slot_ms: int) -> tuple[str, Command]:
    """The subject, and what follows `EVALSHA sha`."""
    subject, keys = _keys(identity, claims, part)
    said: list[str | int] = [*keys, identity, slot_ms]
    for place in part:
        claim = claims[place]
        said += (claim.kind, claim.limit, claim.amount, int(claim.seconds * 1000))
    return subject, tuple(said)


def settle(
    identity: str, claims: Sequence[Claim], amounts: Sequence[int], part: Part, *, is_sure: bool
) -> tuple[str, Command]:
    """`is_sure`: the claims were granted; else nobody knows whether they ever arrived."""
    subject, keys = _keys(identity, claims, part)
    said: list[str | int] = [*keys, "sure" if is_sure else "unsure"]
    for place in part:
        claim = claims[place]
        said += (claim.kind, claim.amount, amounts[place], int(claim.seconds * 1000))
    return subject, tuple(said)


def renew(subject: str, name: str, slot_ms: int, identities: Iterable[str]) -> tuple[str, Command]:
    return subject, (1, key(subject, name), slot_ms, *identities)


def taken(identity: str, claims: Sequence[Claim], by_part: Sequence[Part], answers: Sequence[Sequence[int]]) -> Taken:
    standings = [Standing(0, 0.0)] * len(claims)
    refused: int | None = None
    for part, (refusing, *told) in zip(by_part, answers, strict=True):
        if refusing and refused is None:
            refused = part[refusing - 1]
        for at, place in enumerate(part):
            standings[place] = _refused(told, at) if refusing else Standing(told[at], claims[place].seconds)
    return Taken(identity, claims, standings, refused=refused, at=0.0)


def _refused(told: Sequence[int], at: int) -> Standing:
    return Standing(told[2 * at], told[2 * at + 1] / 1000)


def _keys(identity: str, claims: Sequence[Claim], part: Part) -> tuple[str, list[str | int]]:
    """The subject, then the number of keys and the keys: the reservation's, and the claims'."""
    subject = claims[part[0]].subject
    named = [key(claims[place].subject, claims[place].key) for place in part]
    return subject, [len(named) + 1, key(subject, identity), *named]
