"""Phone numbers. Digits alone prove little: a number counts by its country code, by the shape that numbers have in
North America or Britain, or by a word before it (`Tel.:`, `call me at`), never as a bare run of digits.

Only imported where `phone` is configured: libphonenumber's metadata cost about 20 ms and 2 MB.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from phonenumbers import NumberParseException, is_possible_number, is_valid_number, parse

from plugins.pii.announced import Announced, announced
from plugins.pii.findings import Finding
from plugins.pii.numbers import BEHIND, among_numbers
from plugins.pii.words import DASHES, JOINERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from phonenumbers import PhoneNumber

_SEP = f"[{JOINERS}{DASHES}./-]"

GATE = (
    rf"\+[0-9(]|\b00[1-9 ]|[0-9]{{7}}|[0-9]{{3}}\)?{_SEP}?[0-9]{{3}}{_SEP}[0-9]{{4}}"
    rf"|[0-9]{_SEP}\(?[0-9]{{2,5}}\)?{_SEP}?[0-9]{{2,4}}|[0-9]\){_SEP}?[0-9]{{3}}|[0-9]{{3}}{_SEP}[0-9]{{3}}"
)

_EXTENSION = rf"(?:[{JOINERS}]?(?:x|ext\.?|#)[0-9]{{1,6}})?"
_BEFORE_NATIONAL = r"(?<![A-Za-z0-9_.+/-])(?<![$€£][0-9])(?<![$€£#])"
_AFTER = r"(?![A-Za-z0-9_@]|[.,:/-][0-9]|-[A-Za-z](?![A-Za-z]{2}))"

# Digits are never given back: a long row of them could be cut into groups in millions of ways, and each be tried.
_INTERNATIONAL = re.compile(
    rf"(?<![A-Za-z0-9_.+/-])\(?(?:\+|00[{JOINERS}]?|011[{JOINERS}-])\(?[1-9][0-9]{{0,3}}+\)?"
    rf"(?:{_SEP}?\(?[0-9]{{1,12}}+\)?){{1,7}}{_EXTENSION}{_AFTER}"
)
_AMERICAN = re.compile(
    rf"{_BEFORE_NATIONAL}(?:1{_SEP})?(?:\([2-9][0-9]{{2}}\)[{JOINERS}]?|[2-9][0-9]{{2}}({_SEP}))"
    rf"[0-9]{{3}}{_SEP}[0-9]{{4}}{_EXTENSION}{_AFTER}"
)
_NATIONAL = re.compile(
    rf"{_BEFORE_NATIONAL}\(?[0-9]{{1,46}}+\)?"
    rf"(?:(?:{_SEP}|(?<=\))|(?=\())\(?[0-9]{{2,40}}+\)?){{0,5}}{_EXTENSION}{_AFTER}"
)

_NO_PHONE = re.compile(
    r"""(?x)
      [0-9]{4}[./-][0-9]{1,2}[./-][0-9]{1,4} | [0-9]{1,2}[./-][0-9]{1,2}[./-][0-9]{2,4}  # a date
    | [0-9]{3}([ -])[0-9]{2}\1[0-9]{4}                                                # a social security number
    | [0-9]{1,3}(?:\.[0-9]{1,3}){3}                                                   # an IP address
    | [0-9]{1,3}(?:\.[0-9]{3})+                                                      # an amount
    | (?:19|20)[0-9]{2}[ /-](?:19|20)[0-9]{2}                                         # years
    """
)
_LABEL_BEHIND = re.compile(r"(?i)-(?:office|fax|mobile|home|work|cell|desk|tel)")
_NOT_DIGITS = re.compile("[^0-9]+")
_EXTENSIONS = re.compile("x|ext|#")
_AMERICAN_DIGITS = re.compile("1?[2-9][0-9]{2}[2-9][0-9]{6}")
_GROUP_BEFORE = re.compile(rf"[0-9][A-Za-z0-9]*[{JOINERS}]\Z")  # `00` within a row of groups calls no country


def phones(text: str, start: int, end: int) -> Iterator[Finding]:
    start = max(0, start - 1)  # its plus or bracket may be another one's last
    yield from _international(text, start, end)
    yield from _american(text, start, end)
    yield from _national(text, start, end)


def _matches(pattern: re.Pattern[str], text: str, start: int, end: int) -> Iterator[re.Match[str]]:
    """Those that begin within these bounds."""
    return (match for match in pattern.finditer(text, start, end + BEHIND) if match.start() < end)


def _international(text: str, start: int, end: int) -> Iterator[Finding]:
    if "+" not in text[start:end] and "00" not in text[start:end] and "011" not in text[start:end]:
        return
    for match in _matches(_INTERNATIONAL, text, start, end):
        begin = match.start()
        if "+" not in match[0][:2] and _GROUP_BEFORE.search(text, max(0, begin - 12), begin):
            continue
        length = _valid_length(match[0])
        if length:
            yield Finding(begin, begin + length, "phone")


def _valid_length(shown: str) -> int:
    """How much of it is a number: the groups at its end may belong to the text. 0: nothing is."""
    possible, length = 0, len(shown)
    while length > 7:
        if shown[length - 1] == ")" and shown.count("(", 0, length) < shown.count(")", 0, length):
            length -= 1
        number = _parsed(shown[:length])
        if number is not None and is_valid_number(number):
            return length
        if number is not None and not possible and is_possible_number(number) and _is_grouped(shown[:length]):
            possible = length
        length = max(shown.rfind(joiner, 0, length) for joiner in JOINERS)
    return possible


def _is_grouped(shown: str) -> bool:
    return len(_NOT_DIGITS.findall(shown.lstrip("+("))) >= 2


def _parsed(shown: str) -> PhoneNumber | None:
    digits = _digits(shown.replace("(0)", ""))
    if "+" not in shown[:2]:
        digits = digits[3:] if digits.startswith("011") else digits[2:]
    try:
        return parse(f"+{digits}")
    except NumberParseException:
        return None


def _digits(shown: str) -> str:
    return _NOT_DIGITS.sub("", _EXTENSIONS.split(shown, maxsplit=1)[0])


def _american(text: str, start: int, end: int) -> Iterator[Finding]:
    """By its shape; a number plan that assigns area codes does not prove more, and a word before it may disprove."""
    for match in _matches(_AMERICAN, text, start, end):
        if (match[1] or "-") in JOINERS and among_numbers(text, *match.span()):
            continue
        if announced(text, match.start()) is not Announced.OTHER:
            yield Finding(*match.span(), "phone")


def _national(text: str, start: int, end: int) -> Iterator[Finding]:
    for match in _matches(_NATIONAL, text, start, end):
        shown, digits = match[0], _digits(match[0])
        if not 6 <= len(digits) <= 13 or _NO_PHONE.fullmatch(shown):
            continue
        said = announced(text, match.start())
        if _counts(said, shown, digits) or _LABEL_BEHIND.match(text, match.end()):
            yield Finding(*match.span(), "phone")
            continue
        is_alone = len(digits) < len(shown) and not among_numbers(text, *match.span())
        if said is None and is_alone and _is_british(digits):
            yield Finding(*match.span(), "phone")


def _counts(said: Announced | None, shown: str, digits: str) -> bool:
    is_grouped = len(digits) < len(shown)
    if said is Announced.PHONE:
        return is_grouped or len(digits) >= 7
    return said is Announced.TALK and (is_grouped or _AMERICAN_DIGITS.fullmatch(digits) is not None)


def _is_british(digits: str) -> bool:
    return digits.startswith("0") and 9 <= len(digits) <= 12 and _is_valid(digits, "GB")


def _is_valid(digits: str, region: str) -> bool:
    try:
        return is_valid_number(parse(digits, region))
    except NumberParseException:  # of digits that call a country from there, and none that exists
        return False
