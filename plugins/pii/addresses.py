"""E-mail addresses, IP addresses and URLs: what is found is proved by its form alone."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from typing import TYPE_CHECKING

from plugins.pii.findings import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

EMAIL_GATE = r"[A-Za-z0-9_]@[A-Za-z0-9]"
IP_GATE = r"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]|[0-9A-Fa-f]{0,4}:(?:[0-9A-Fa-f]{0,4}:)+[0-9A-Fa-f]"
URL_GATE = r"(?i:https?|ftp)://[A-Za-z0-9]"

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?"
_EMAIL = re.compile(
    rf"(?<![A-Za-z0-9_.%+@-])([A-Za-z0-9_](?:[A-Za-z0-9_.%+'-]{{0,63}}[A-Za-z0-9_+-])?)"
    rf"@((?:{_LABEL}\.){{1,8}}(?:[A-Za-z]{{2,24}}|xn--[A-Za-z0-9-]{{2,59}}))(?![A-Za-z0-9_@(-]|\.[A-Za-z0-9])"
)
_FILES = frozenset(
    re.findall("[a-z0-9]+", "png jpg jpeg gif svg webp ico css js mjs ts tsx jsx json map py rb rs so dll whl gz")
)
_LITERAL_ESCAPES = "nrt"  # text that quotes JSON or code: `\nme@example.com`


def emails(text: str) -> Iterator[Finding]:
    for match in _EMAIL.finditer(text):
        start, end = match.span()
        if text[start - 1 : start] == "\\" and text[start] in _LITERAL_ESCAPES and match.end(1) - start > 1:
            start += 1
        if not _is_login(text, start, end) and not _is_file(match[2]):
            yield Finding(start, end, "email")


def _is_login(text: str, start: int, end: int) -> bool:
    """`git@host.org:path` and `scheme://user:password@host`, which name no mailbox."""
    if text[start:end].startswith("git@"):
        return True
    before = text[max(0, start - 80) : start]
    _, scheme, login = before.rpartition("://")
    return bool(scheme) and not re.search(r"[/?#\s]", login)


def _is_file(domain: str) -> bool:
    """`icon@2x.png`, and versions such as `package@18.2.0-rc.next`."""
    labels = domain.lower().split(".")
    return labels[-1] in _FILES or (len(labels) > 2 and labels[0].isdigit() and labels[1].isdigit())


_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(rf"(?<![A-Za-z0-9_.-])(?:{_OCTET}\.){{3}}{_OCTET}(?![A-Za-z0-9_]|\.[0-9]{{1,3}}\.[0-9])")
_VERSION = re.compile(r"(?i)(?:version|release|build|firmware|driver|\bver|\bv|==|>=|<=|~=)[\s:=.\"']{0,4}\Z")
_IPV6 = re.compile(
    r"(?<![A-Za-z0-9_:.])(?=[0-9A-Fa-f]{0,4}:)[0-9A-Fa-f:]{2,45}(?:(?<=:)[0-9]{1,3}(?:\.[0-9]{1,3}){3})?(?![A-Za-z0-9_:]|\.[0-9])"
)
_LOOPBACK = "::1"  # in brackets it is a slice as often


def addresses(text: str) -> Iterator[Finding]:
    for match in _IPV4.finditer(text):
        if not _VERSION.search(text, max(0, match.start() - 16), match.start()):
            yield Finding(*match.span(), "ip_address")
    for match in _IPV6.finditer(text):
        end = _ipv6_end(text, *match.span())
        if end is not None and not (match[0] == _LOOPBACK and text[match.start() - 1 : match.start()] == "["):
            yield Finding(match.start(), end, "ip_address")


def _ipv6_end(text: str, start: int, end: int) -> int | None:
    """Its end, None where it is none; a port behind eight groups is left out."""
    shown = text[start:end]
    for length in (end - start, shown.rfind(":")):
        written = shown[:length]
        if _is_ipv6(written):
            return start + length
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


_URL = re.compile(r"(?i)(?<![a-z0-9])(?:https?|ftp)://[a-z0-9][a-z0-9_.+\-@:/%#&=?~!$*'()]{1,2000}")
_CLOSERS = ".:!?'*"


def urls(text: str) -> Iterator[Finding]:
    for match in _URL.finditer(text):
        start, end = match.span()
        shown = text[start:end].rstrip(_CLOSERS)
        while shown.endswith(")") and shown.count("(") < shown.count(")"):
            shown = shown[:-1].rstrip(_CLOSERS)
        host = shown.partition("://")[2]
        if "." in host or host.startswith("localhost"):
            yield Finding(start, start + len(shown), "url")
