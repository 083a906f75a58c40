"""E-mail addresses, IP addresses and URLs: their form alone proves them.

Each is looked for by the sign that it cannot do without, then read to both sides: much faster than a pattern that
starts with what any word starts with.
"""

from __future__ import annotations

import re
import string
from ipaddress import AddressValueError, IPv6Address
from typing import TYPE_CHECKING

from plugins.pii.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

EMAIL_GATE = r"[A-Za-z0-9_+-]@[A-Za-z0-9]"
IP_GATE = r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|:[0-9A-Fa-f]{0,4}:"
URL_GATE = r"(?i:https?|ftp)://[A-Za-z0-9]"

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?"
_DOMAIN = re.compile(
    rf"(?:{_LABEL}\.){{1,8}}(?:[A-Za-z]{{2,24}}|xn--[A-Za-z0-9-]{{2,59}})(?![A-Za-z0-9_@(-]|\.[A-Za-z0-9])"
)
_LOCAL = string.ascii_letters + string.digits + "_.%+'-"
_LONGEST_LOCAL = 64
_FILES = frozenset(
    re.findall("[a-z0-9]+", "png jpg jpeg gif svg webp ico css js mjs ts tsx jsx json map py rb rs so dll whl gz")
)


def emails(text: str, start: int, end: int) -> Iterator[Finding]:
    at = text.find("@", start, end)
    while at >= 0:
        domain = _DOMAIN.match(text, at + 1)
        if domain is not None:
            begin = _local_start(text, at)
            if begin < at and not _is_login(text, begin, at) and not _is_file(domain[0]):
                yield Finding(begin, domain.end(), "email")
        at = text.find("@", at + 1, end)


def _local_start(text: str, at: int) -> int:
    """Where the part before the @ begins; `at` where there is none. Quotes and dots before it are not its own."""
    before = text[max(0, at - _LONGEST_LOCAL - 1) : at]
    local = before[len(before.rstrip(_LOCAL)) :]
    if len(local) > _LONGEST_LOCAL or local.endswith((".", "'", "%")):
        return at
    begin = at - len(local.lstrip(".%+'-"))
    is_escape = text[begin - 1 : begin] == "\\" and text[begin] in "nrt"  # text that quotes JSON: `\nme@example.com`
    return min(at, begin + is_escape)


def _is_login(text: str, begin: int, at: int) -> bool:
    """`git@host.org:path` and `scheme://user:password@host`, which name no mailbox."""
    if text[begin:at] == "git":
        return True
    _, scheme, login = text[max(0, begin - 80) : begin].rpartition("://")
    return bool(scheme) and not re.search(r"[/?#\s]", login)


def _is_file(domain: str) -> bool:
    """`icon@2x.png`, and versions such as `package@18.2.0-rc.next`."""
    labels = domain.lower().split(".")
    return labels[-1] in _FILES or (len(labels) > 2 and labels[0].isdigit() and labels[1].isdigit())


_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(rf"[0-9]{{1,3}}(?:\.{_OCTET}){{3}}(?![A-Za-z0-9_]|\.[0-9]{{1,3}}\.[0-9])")
_FIRST_OCTET = re.compile(rf"{_OCTET}\.")
_ATTACHED = re.compile(r"[A-Za-z0-9_.-]")
_VERSION = re.compile(r"(?i)(?:version|release|build|firmware|driver|\bver|\bv|==|>=|<=|~=)[\s:=.\"']{0,4}\Z")
_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:")
_HEX = string.hexdigits + ":"
_IPV6 = re.compile(r"[0-9A-Fa-f:]{2,45}(?:(?<=:)[0-9]{1,3}(?:\.[0-9]{1,3}){3})?(?![A-Za-z0-9_:]|\.[0-9])")
_LOOPBACK = "::1"  # in brackets it is a slice as often


def addresses(text: str, start: int, end: int) -> Iterator[Finding]:
    for match in _IPV4.finditer(text, start, end):
        begin = match.start()
        if not _FIRST_OCTET.match(match[0]):
            continue
        if not (begin and _ATTACHED.match(text[begin - 1])) and not _VERSION.search(text, max(0, begin - 16), begin):
            yield Finding(begin, match.end(), "ip_address")
    yield from _ipv6(text, start, end)


def _ipv6(text: str, start: int, end: int) -> Iterator[Finding]:
    done = start
    for colons in _COLONS.finditer(text, start, end):
        if colons.start() < done:
            continue
        before = text[max(done, colons.start() - 5) : colons.start()]
        begin = colons.start() - (len(before) - len(before.rstrip(_HEX)))
        match = _IPV6.match(text, begin)
        if match is None or (begin and (text[begin - 1].isalnum() or text[begin - 1] in "_.:")):
            continue
        done = match.end()
        stop = _ipv6_end(text, begin, done)
        if stop is not None and not (text[begin:stop] == _LOOPBACK and text[begin - 1 : begin] == "["):
            yield Finding(begin, stop, "ip_address")


def _ipv6_end(text: str, begin: int, end: int) -> int | None:
    """Its end, None where it is none; a port behind eight groups is left out."""
    shown = text[begin:end]
    for length in (len(shown), shown.rfind(":")):
        if _is_ipv6(shown[:length]):
            return begin + length
    return None


def _is_ipv6(written: str) -> bool:
    """As addresses are written: not `a::b`, nor slices such as `1::2`, nor hardware addresses of eight octets."""
    if written == _LOOPBACK:
        return True
    if not any(len(group) > 2 for group in written.split(":")) or not any(char.isdigit() for char in written):
        return False
    try:
        IPv6Address(written)
    except AddressValueError:
        return False
    return True


_URL = re.compile(r"(?i)(?:https?|ftp)://[a-z0-9][a-z0-9_.+\-@:/%#&=?~!$*'()]{1,2000}")
_CLOSERS = ".:!?'*"


def urls(text: str, start: int, end: int) -> Iterator[Finding]:
    for match in _URL.finditer(text, start, end):
        begin = match.start()
        if begin and text[begin - 1].isalnum() and text[begin - 1].isascii():
            continue
        shown = match[0].rstrip(_CLOSERS)
        while shown.endswith(")") and shown.count("(") < shown.count(")"):
            shown = shown[:-1].rstrip(_CLOSERS)
        host = shown.partition("://")[2]
        if "." in host or host.startswith("localhost"):
            yield Finding(begin, begin + len(shown), "url")
