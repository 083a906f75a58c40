"""All detectors behind one gate: built once from the settings, then `find` is a function of the text alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from plugins.pii import addresses, keys, numbers, pem, secrets, words
from plugins.pii.findings import ENTITIES, Finding, settled
from plugins.pii.gate import gate
from plugins.pii.tail import CAP, Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from plugins.pii.custom import Custom


class Family(NamedTuple):
    """`find` gives what begins within the bounds; `gate` is a pattern that matches within all that it could find."""

    gate: str
    find: Callable[[str, int, int], Iterable[Finding]]
    in_runs: bool = False  # only within `numbers.RUN`


_FAMILIES = {
    "email": (Family(addresses.EMAIL_GATE, addresses.emails),),
    "credit_card": (Family(numbers.CARD_GATE, numbers.cards, in_runs=True),),
    "us_ssn": (Family(numbers.SSN_GATE, numbers.ssns, in_runs=True),),
    "iban": (Family(numbers.IBAN_GATE, numbers.ibans),),
    "ip_address": (Family(addresses.IP_GATE, addresses.addresses),),
    "secret": (
        Family(f"{keys.GATE}|{keys.GATE_WITHIN}", keys.keys),
        *(Family(stem.gate, stem.find) for stem in secrets.STEMS),
        Family(secrets.LOGIN_GATE, secrets.logins),
        Family(pem.GATE, pem.blocks),
    ),
    "url": (Family(addresses.URL_GATE, addresses.urls),),
}


def _families(entity: str) -> tuple[Family, ...]:
    if entity == "phone":
        from plugins.pii import phones  # noqa: PLC0415 - its metadata is for those who ask for it

        return (Family(phones.GATE, phones.phones, in_runs=True),)
    return _FAMILIES[entity]


class Detector:
    """Finds the configured entities in texts. Safe to share: it keeps nothing between two texts.

    `own_domains`: e-mail addresses there, and below there, are no findings. `allowed`: values that are none, as they
    are written.
    """

    def __init__(
        self,
        entities: Sequence[str],
        custom: Sequence[Custom] = (),
        *,
        own_domains: Sequence[str] = (),
        allowed: Sequence[str] = (),
    ) -> None:
        families = [family for entity in ENTITIES if entity in entities for family in _families(entity)]
        families += [Family(one.pattern, one.finder()) for one in custom]
        self._families = families
        self._gate = gate([family.gate for family in families])
        ranked = (*(one.name for one in custom), *ENTITIES)
        self._rank = {entity: at for at, entity in enumerate(ranked)}.__getitem__
        self._domains = tuple(domain.lower().removeprefix("@") for domain in own_domains)
        self._allowed = frozenset(allowed)
        plain = _never if any(one.may_be_plain for one in custom) else words.plain
        self.reading = Reading(self.find, _opening, plain, words.arming, _limit)

    def find(self, text: str) -> list[Finding]:
        """In order and without overlaps; the longest and most specific wins."""
        places = self._gate(text)
        if not places:
            return []
        found = settled(self._found(text, places), self._rank)
        return [one for one in found if not self._is_allowed(text, one)] if self._domains or self._allowed else found

    def _found(self, text: str, places: Sequence[int]) -> Iterator[Finding]:
        hit = [self._families[place] for place in places]
        in_runs = [family.find for family in hit if family.in_runs]
        for family in hit:
            if not family.in_runs:
                yield from family.find(text, 0, len(text))
        for run in numbers.RUN.finditer(text) if in_runs else ():
            for find in in_runs:
                yield from find(text, run.start(), run.end())

    def _is_allowed(self, text: str, one: Finding) -> bool:
        value = text[one.start : one.end]
        if value in self._allowed:
            return True
        domain = value.rpartition("@")[2].lower() if one.entity == "email" else ""
        return any(domain == own or domain.endswith(f".{own}") for own in self._domains)


def _opening(text: str) -> int:
    at = words.opening(text)
    while (start := min(secrets.opening(text, at), pem.opening(text, at))) < at:
        at = words.opening(text[:start])  # nor is there a cut within the word that it begins in
    return at


def _limit(held: str) -> int:
    return pem.LIMIT if "-----BEGIN" in held else CAP


def _never(_: str) -> bool:
    return False
