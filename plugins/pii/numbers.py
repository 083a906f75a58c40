"""Payment cards, IBANs and US social security numbers: numbers that checksums and issuing rules prove."""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING

from plugins.pii.findings import Finding
from plugins.pii.words import DASHES, JOINERS

if TYPE_CHECKING:
    from collections.abc import Iterator

_JOIN = f"[{JOINERS}{DASHES}-]"

CARD_GATE = f"[0-9]{{12}}|[0-9]{{4}}{_JOIN}(?:[0-9]{{4}}|[0-9]{{6}}){_JOIN}[0-9]{{4}}"
SSN_GATE = f"[0-9]{{3}}{_JOIN}[0-9]{{2}}{_JOIN}[0-9]{{4}}|[0-9]{{9}}"
IBAN_GATE = f"[A-Za-z]{{2}}[0-9]{{2}}{_JOIN}?[A-Za-z0-9]{{4}}"

_NOT_DIGITS = re.compile("[^0-9]+")

RUN = re.compile(rf"[+(0-9][0-9()./{JOINERS}{DASHES}-]{{5,}}")
"""Where a number of several groups could be: found fast, and within these few places patterns may be slow."""
BEHIND = 24
"""Characters behind a run that patterns may still look at: an extension, and what shows that the number ends."""

_SHORTEST_CARD, _SHORTEST_SSN = 12, 9
_BEFORE = r"(?<![A-Za-z0-9_.])(?<![0-9][-,/])"
_AFTER = r"(?![A-Za-z0-9_]|[.,/-][0-9]|-[A-Za-z])"
_CARD = re.compile(
    rf"{_BEFORE}(?:[0-9]{{12,19}}"
    rf"|[0-9]{{4}}({_JOIN})[0-9]{{4}}(?:\1[0-9]{{4}}){{1,2}}(?:\1[0-9]{{1,4}})?"
    rf"|[0-9]{{4}}({_JOIN})[0-9]{{6}}\2[0-9]{{4,5}}){_AFTER}"
)
_ISSUERS = re.compile(
    r"""(?x)
      4[0-9]{12}(?:[0-9]{3}|[0-9]{6})?                                          # Visa
    | (?:5[1-5][0-9]{2}|222[1-9]|22[3-9][0-9]|2[3-6][0-9]{2}|27[01][0-9]|2720)[0-9]{12}  # Mastercard
    | 3[47][0-9]{13}                                                            # American Express
    | 3(?:0[0-59]|[689][0-9])[0-9]{11}(?:[0-9]{2})?                             # Diners Club
    | (?:6011|64[4-9][0-9]|65[0-9]{2})[0-9]{12}(?:[0-9]{3})?                    # Discover
    | 35[0-9]{14} | (?:2131|1800)[0-9]{11}                                      # JCB; an IMEI is 35 and 13 more
    | 1[0-9]{14}                                                                # UATP
    | (?:62|81)[0-9]{14,17}                                                     # UnionPay
    | 220[0-4][0-9]{12,15}                                                      # Mir
    | (?:60|82|508)[0-9]{13,14}                                                 # RuPay
    | (?:5018|5020|5038|5[6-8][0-9]{2}|6304|6390|67[0-9]{2}|0604)[0-9]{8,15}    # Maestro
    """
)


def cards(text: str, start: int, end: int) -> Iterator[Finding]:
    match = _CARD.search(text, start, end + BEHIND) if end - start >= _SHORTEST_CARD else None
    while match is not None and match.start() < end:
        start = match.start() + 4  # a group of something else may stand before the card's
        length = _card_length(text, match)
        if length:
            yield Finding(match.start(), match.start() + length, "credit_card")
            start = match.end()
        match = _CARD.search(text, start, end + BEHIND)


def _card_length(text: str, match: re.Match[str]) -> int:
    """How much of it is a card's number: a year may stand behind it, in a group of four. 0: nothing is."""
    shown, join = match[0], match[1] or match[2] or "-"
    if join in JOINERS and _is_in_row(text, *match.span()):
        return 0
    for length in (len(shown), shown.rfind(join) if match[1] else 0):
        digits = _NOT_DIGITS.sub("", shown[:length])
        if _ISSUERS.fullmatch(digits) and luhn(digits):
            return length
    return 0


_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)


def luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, with the check digit last; zeros alone do not count."""
    numbers = [int(digit) for digit in reversed(digits)]
    total = sum(numbers[::2]) + sum(_DOUBLED[number] for number in numbers[1::2])
    return total > 0 and total % 10 == 0


_IBAN_HEAD = re.compile("[A-Z]{2}[0-9]{2}")
_MOST_BESIDE = 3  # an expiry date's two and the check value
_BEFORE_SPAN = 40
_JOINER = re.compile(f"[{JOINERS}]")
_NUMBERS_AFTER = re.compile(rf"(?:[{JOINERS}][0-9]{{1,9}}(?![0-9A-Za-z/:.-])){{0,6}}")


def _is_in_row(text: str, start: int, end: int) -> bool:
    """Whether more numbers stand beside it than belong to a card, or an IBAN's first group."""
    *groups, rest = _JOINER.split(text[max(0, start - _BEFORE_SPAN) : start])
    if rest or not groups:
        groups = []
    elif _IBAN_HEAD.fullmatch(groups[-1]):
        return True
    before = next((at for at, group in enumerate(reversed(groups)) if not group.isdigit()), len(groups))
    after = _NUMBERS_AFTER.match(text, end)
    return before + len(_JOINER.findall(after[0] if after else "")) > _MOST_BESIDE


_NUMBER_BEFORE = re.compile(rf"(?<![0-9A-Za-z.{DASHES}-])[0-9]{{1,6}}[{JOINERS}]\Z")
_NUMBER_AFTER = re.compile(rf"[{JOINERS}][0-9]{{1,6}}(?![0-9A-Za-z:/{DASHES}-])")


def among_numbers(text: str, start: int, end: int) -> bool:
    """Whether it stands in a row of numbers, of which its groups are some."""
    return bool(_NUMBER_BEFORE.search(text, max(0, start - 9), start) or _NUMBER_AFTER.match(text, end))


_SSN = re.compile(
    rf"(?<![A-Za-z0-9_.])(?<![0-9][-,/ ])[0-9]{{3}}(?:({_JOIN})[0-9]{{2}}\1[0-9]{{4}}|[0-9]{{6}}){_AFTER}"
)
_SSN_WORDS = re.compile(r"(?i)(?:\bssn|social[ _-]?sec(?:urity)?|\bsoc(?:ial)?\b|\bitin\b)[^0-9\n]{0,40}\Z")


def ssns(text: str, start: int, end: int) -> Iterator[Finding]:
    for match in _SSN.finditer(text, start, end + BEHIND) if end - start >= _SHORTEST_SSN else ():
        begin, stop = match.span()
        digits = _NOT_DIGITS.sub("", match[0])
        if digits[:3] in {"000", "666"} or digits[3:5] == "00" or digits[5:] == "0000":
            continue
        is_bare = match[1] is None
        if (is_bare or digits[0] == "9") and not _SSN_WORDS.search(text, max(0, begin - 60), begin):
            continue
        if begin < end and (is_bare or match[1] not in JOINERS or not among_numbers(text, begin, stop)):
            yield Finding(begin, stop, "us_ssn")


# Lengths: the SWIFT registry of IBAN formats, with the countries that use them unregistered.
_IBAN_LENGTHS = {
    country: int(length)
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV", 22: "BG BH CR DE GB GE IE IM JE GG ME RS VA", 23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG DZ", 25: "LY PT ST CV", 26: "IS TR", 27: "FR GR IT MC MR SM BF BI DJ",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV BJ CI GW ML MG SN", 29: "BR EG PS QA UA", 30: "JO KW MU YE",
        31: "MT SC", 32: "LC", 33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip
_IBAN = re.compile(
    rf"[0-9]{{2}}(?<=[A-Za-z]{{2}}..)(?<![A-Za-z0-9_.]....)(?:(?<=[A-Z]{{2}}..)(?:{_JOIN}?[A-Z0-9]){{11,30}}|[A-Za-z0-9]{{11,30}})"
)
_SEPARATORS = re.compile(_JOIN)
_AS_NUMBER = {ord(letter): str(10 + at) for at, letter in enumerate(string.ascii_uppercase)}


def ibans(text: str, start: int, end: int) -> Iterator[Finding]:
    for match in _IBAN.finditer(text, start, end):
        begin = match.start() - 2
        length = _IBAN_LENGTHS.get(text[begin : begin + 2].upper(), 0)
        stop = _end_of(text, begin, match.end(), length) if length else None
        if stop is None or text[stop : stop + 1].isalnum() or text[stop : stop + 1] == "_":
            continue
        if mod97(_SEPARATORS.sub("", text[begin:stop]).upper()):
            yield Finding(begin, stop, "iban")


def _end_of(text: str, start: int, most: int, length: int) -> int | None:
    """Where so many characters end, separators not counted; what follows in the line may look like more groups."""
    for end in range(start + length, most + 1):
        if end - start - len(_SEPARATORS.findall(text, start, end)) == length:
            return end
    return None


def mod97(compact: str) -> bool:
    """ISO 7064 mod 97-10, as IBANs use it: country and check digits first, capitals."""
    return int((compact[4:] + compact[:4]).translate(_AS_NUMBER)) % 97 == 1
