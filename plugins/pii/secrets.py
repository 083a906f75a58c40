"""Secrets that only their surroundings give away: `password=…`, `"api_key": "…"`, `Bearer …`, `https://user:…@host`.

What stands there is a secret unless it looks like something else: a placeholder, a variable, a call, a type, a path,
words. A rule looks back at most about 100 characters, and its value is one word, or what quotes enclose.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from plugins.pii.findings import Finding
from plugins.pii.words import WORD, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

_KEYS_OF = tuple(
    re.findall(
        "[a-z]+",
        """
        api access secret private auth account encryption encrypt signing signature shared sharedaccess master app
        application consumer client subscription storage service session license admin deploy write personal bot
        user webhook ssh hmac aes jwt function host root crypto integration developer dev prod live server search
        ingest sas
        """,
    )
)  # whose `key` is a secret
_PASSWORDS = ("pass", "pwd", "contrase", "senha", "kennwort", "пароль", "パスワード", "密码")
_WORD_OF = {  # by the stem that is looked for first, as this is fast
    "pass": r"(?i:pass(?:word|wd|wort|phrase|code|wrd)|(?<=mot de )passe)"
    r"|(?:(?<![A-Za-z])pass|Pass|(?<![A-Z])PASS)(?![a-z])",
    "pwd": r"(?i:pwd)",
    "contrase": r"(?i:contrase[nñ]a)",
    "senha": r"(?i:senha)",
    "kennwort": r"(?i:kennwort)",
    "пароль": r"(?i:пароль)",
    "パスワード": r"パスワード",
    "密码": r"密码",
    "secret": r"(?i:secret)",
    "token": r"(?i:token)",
    "key": r"(?i:key)",
    "cred": r"(?i:cred(?:ential)?s?)(?![a-z])",
    "auth": r"(?i:auth(?:orization)?)(?![a-z])",
    "bearer": r"(?i:bearer)",
}
_LOWER = {ord(letter): letter.lower() for letter in string.ascii_uppercase + "ПАРОЛЬ"}
LOGIN_GATE = r"://[^\s/@:]*:[^\s/@]+@|curl [^\n]*(?:-u|--user)[ =]"

_BEHIND = re.compile(
    r"""(?x)
    (?P<suffix>[A-Za-z0-9_.-]{0,28}+)
    (?P<closed>\\?["'`\])]{0,2}+)
    (?:(?P<verb>\ (?:is|was|ist|est|es)(?:\ (?:now|set\ to|still))?)|\ (?:string|String|str))?
    (?:[ \t]{0,4}(?P<sign>=>|:{0,3}=|[?.+]=|={2,3}|:|>|,|->|→|\ value=)[ \t]{0,4}
       (?::[ \t]|(?:string|String|str|&str|char\*?)[ \t]=[ \t])?
       (?:[>|]-?\r?\n?[ \t]{0,12}|\r?\n[ \t]{1,12})?
     | [ ]{1,2})
    (?P<scheme>(?:Bearer|Basic|Token|bearer|token)[ ])?
    (?:[bfruLB@]{1,2}(?=["'`]))?(?P<quote>\\?["'`])?
    """
)
_NO_VALUE = re.compile(  # what such a name holds is about a secret, not one
    r"(?i)[_.-]?(?:s|types?|counts?|izers?|ized|ization|ize|ization|ur[il]s?|endpoints?|names?|files?|paths?|dir|limits?|ttl|expir\w*|len|length|sizes?"
    r"|polic\w*|fields?|env\w*|usage|class|prefix|labels?|placeholder|hint|help|text|inputs?|id|ids|index|idx|pos\w*|hash|digest|sha\d*|algo\w*"
    r"|version|state|status|error|required|valid\w*|check\w*|strength|min|max|age|ring|board|words?|phrases?|ref|refs|at|manager|provider|store|ed|"
    r"port|ive|ing|able|er|owner|budget|rate|per\w*|threshold|num|number|total|ticat\w*|format|callback|handler)\Z"
)
_LONGEST = 2000
_TELLING = 128  # so many characters show what a value is
_QUOTED = {quote: re.compile(rf"[^{quote}\n\r]{{1,200}}(?=\\?{quote})") for quote in "\"'`"}
_BARE = re.compile(f"[{re.escape(WORD)}]{{1,{_LONGEST + 1}}}")
_NEXT_FIELD = re.compile(r"&[A-Za-z_][A-Za-z0-9_.-]*=")
_TRAILING = ".:!?)'*"

_PLACEHOLDER = re.compile(
    r"""(?ix)
      [<{\[(].*[>}\])] | [$%@]?\{.* | \$[A-Z_(].* | %[A-Z_]+%?
    | .*(?:\*{3}|\.{3}|x{4}|•|…|\#{3}|_{3}|\$\{|\{\{|%\().*
    | .*(?:your|placeholder|change[_-]?me|redacted|masked|hidden|dummy
      |insert|replace|put[_-]|enter[_-]|fill|todo|\bmy[_-]).*
    | (?:.*[^a-z])?(?:example|sample)(?:[^a-z].*)?
    | (?:none|null|nil|true|false|undefined|empty|string|str|int|bool|bytes|object|any|void|auto|required|optional
      |default|yes|no|on|off)
    | (.)\1*
    """
)
_CODE = re.compile(
    r"[A-Za-z_][A-Za-z0-9_]*(?:(?:\.|::|->)[A-Za-z_][A-Za-z0-9_]*)+\W*"  # a.b.c
    r"|[A-Za-z_][A-Za-z0-9_.:]*[(\[][^#!@%^&]*"  # a call, an index
    r"|&?\*?[A-Za-z_]+[0-9]?|[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+"  # a name
)
_WORDS = re.compile(r"[A-Za-z]+(?:[-_./:][A-Za-z]*[0-9]{0,3})*")
_PLACE = re.compile(
    r"(?i)(?:https?|wss?|file|ftp)://.*|(?:\.{0,2}|~)/[a-z0-9_.-]+(?:/[a-z0-9_.-]*)*|[a-z]:\\.*|[\w./-]+\.(?:pem|key|txt|ya?ml|json|py|env|crt|js|ts|go|rs|md)"
)
_MEASURE = re.compile(r"[0-9][0-9.,:/_-]*(?:[a-z]{1,5}|%)?")
_TECHNICAL = re.compile(
    r"(?i)(?:sha|md|rfc|utf|base|oauth|http|ipv|x|argon|pbkdf|aes|rsa|ed|hs|rs|es|v|s|k|ec|tls|ssl|bcrypt|hmac)[-_]?[0-9]{1,5}(?:[-_./][a-z0-9]+)*|[0-9]+[-_]?[a-z]+|2fa|mfa[0-9]*"
)


class _Said(Enum):
    """How a value is tied to its key."""

    ASSIGNED = "assigned"
    TOLD = "told"  # `the password is …`
    NEXT = "next"  # `password …`


class _Keyword(NamedTuple):
    end: int
    shown: str
    is_pass: bool


class Stem:
    """Finds the values behind the words of one stem: each has a gate of its own, as few texts have many of them."""

    def __init__(self, stem: str) -> None:
        self.gate = f"(?i:{stem})"
        self._stem = stem
        self._word = re.compile(_WORD_OF[stem])
        self._is_pass = stem in _PASSWORDS

    def find(self, text: str, start: int, end: int) -> Iterator[Finding]:
        for keyword in self.keywords(text, start, end):
            value = _value_behind(text, keyword)
            if value is not None:
                yield Finding(*value, "secret")

    def keywords(self, text: str, start: int, end: int) -> Iterator[_Keyword]:
        lowered = text.lower()
        if len(lowered) != len(text):  # a letter became two: slower, but it keeps every offset
            lowered = text.translate(_LOWER)
        place = lowered.find(self._stem, start, end)
        while place >= 0:
            match = self._word.match(text, place)
            if match is not None and (self._stem != "key" or _is_secret_key(lowered, place)):
                yield _Keyword(match.end(), match[0], self._is_pass)
            place = lowered.find(self._stem, place + 1, end)


def _is_secret_key(lowered: str, place: int) -> bool:
    before = lowered[max(0, place - 16) : place]
    return (before[:-1] if before[-1:] in {" ", "_", ".", "-"} else before).endswith(_KEYS_OF)


STEMS = tuple(Stem(stem) for stem in _WORD_OF)


def _value_behind(text: str, keyword: _Keyword) -> tuple[int, int] | None:
    behind = _BEHIND.match(text, keyword.end)
    if behind is None or _NO_VALUE.match(behind["suffix"]):
        return None
    quote = (behind["quote"] or "")[-1:]
    if behind["sign"] == "," and not quote:
        return None
    value = (_QUOTED[quote] if quote else _BARE).match(text, behind.end())
    if value is None:
        return None
    shown = value[0].rstrip("\\") if quote else _NEXT_FIELD.split(value[0], maxsplit=1)[0].rstrip(_TRAILING)
    if not behind["sign"] and plain(shown):
        return None
    if behind["scheme"] or keyword.shown.lower() == "bearer":
        is_secret = _is_credential(shown)
    else:
        said = _Said.ASSIGNED if behind["sign"] else _Said.TOLD if behind["verb"] else _Said.NEXT
        is_secret = _is_secret(shown, keyword, said, is_quoted=bool(quote))
    return (value.start(), value.start() + len(shown)) if is_secret else None


def _is_secret(shown: str, keyword: _Keyword, said: _Said, *, is_quoted: bool) -> bool:
    if len(shown) < 6 or len(shown) > _LONGEST or _stands_for_another(shown):
        return False
    if shown.lower().startswith(keyword.shown.lower()) or (
        not is_quoted and _CODE.fullmatch(shown) and not _is_mixed(shown)
    ):
        return False
    return _is_password(shown, said, is_quoted=is_quoted) if keyword.is_pass else _is_token(shown, said)


def _stands_for_another(shown: str) -> bool:
    """A placeholder, or where the secret lies; neither is long."""
    return len(shown) <= _TELLING and bool(_PLACEHOLDER.fullmatch(shown) or _PLACE.fullmatch(shown))


def _is_password(shown: str, said: _Said, *, is_quoted: bool) -> bool:
    if " " in shown:
        return False
    kinds = _kinds(shown)
    if said is _Said.ASSIGNED or is_quoted:
        is_words = _WORDS.fullmatch(shown) and kinds < 3 and not shown[-1].isdigit()
        return shown.isdigit() or (kinds >= 2 and not is_words) or _is_mixed(shown)
    if _TECHNICAL.fullmatch(shown) or _MEASURE.fullmatch(shown):
        return False
    if said is _Said.TOLD:
        return kinds >= 2 and any(char.isdigit() for char in shown)
    return kinds >= 3 and any(char.isdigit() or char in "!@#$%^&*" for char in shown[1:-1])


def _is_token(shown: str, said: _Said) -> bool:
    if " " in shown or shown.isdigit() or _MEASURE.fullmatch(shown):
        return False
    if _WORDS.fullmatch(shown) and not _is_mixed(shown):
        return False
    has_digit = any(char.isdigit() for char in shown)
    if said is not _Said.ASSIGNED and (len(shown) < 16 or not has_digit):
        return False
    if len(shown) < 8:
        return False
    if not has_digit:
        return len(shown) >= 20 and _is_mixed(shown)
    return entropy(shown) >= (2.5 if len(shown) < 16 else 3.0) or _kinds(shown) >= 4


def _is_credential(shown: str) -> bool:
    """Behind `Bearer` and its like, where prose has a word."""
    if len(shown) < 8 or " " in shown or _stands_for_another(shown):
        return False
    has_digit = any(char.isdigit() for char in shown)
    return (has_digit and entropy(shown) >= 2.5) or (len(shown) >= 16 and _is_mixed(shown))


def _kinds(shown: str) -> int:
    """Of lower and upper case letters, digits and signs, how many there are."""
    return (
        any(char.islower() for char in shown)
        + any(char.isupper() for char in shown)
        + any(char.isdigit() for char in shown)
        + any(not char.isalnum() for char in shown)
    )


_TURNS = re.compile("[a-z][A-Z]|[0-9][A-Za-z]|[A-Z]{2}[a-z]")


def _is_mixed(shown: str) -> bool:
    """Letters and digits as no name has them: case and kind turn every few characters."""
    return len(shown) >= 12 and len(_TURNS.findall(shown)) * 6 >= len(shown) and entropy(shown) >= 3.2


def entropy(shown: str) -> float:
    """Shannon's, in bits per character; of a long text that of its beginning."""
    shown = shown[:_TELLING]
    return -sum(count / len(shown) * math.log2(count / len(shown)) for count in Counter(shown).values())


_LOGIN = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]{1,20}://([A-Za-z0-9_.%~+!$*-]{0,64}):([A-Za-z0-9_.%~+!$*&=?#()'^-]{1,200})@(?=[A-Za-z0-9\[_$])"
)
_CURL = re.compile(r"curl [^\n]{0,100}?(?:-u|--user)[ =][\"']?[A-Za-z0-9_.@-]{1,64}:")
_LOGIN_WORDS = frozenset({"password", "pass", "passwd", "pwd", "secret", "pw", "token", "key"})


def logins(text: str, start: int, end: int) -> Iterator[Finding]:
    """Passwords in the authority of URLs and on curl's command line."""
    for match in _LOGIN.finditer(text, start, end):
        if _is_login(match[2]):
            yield Finding(*match.span(2), "secret")
    for match in _CURL.finditer(text, start, end):
        value = _BARE.match(text, match.end())
        if value is not None and _is_login(value[0]):
            yield Finding(*value.span(), "secret")


def _is_login(shown: str) -> bool:
    return len(shown) > 2 and shown.lower() not in _LOGIN_WORDS and not _PLACEHOLDER.fullmatch(shown)


_QUOTE = re.compile(r"(?<=[ \t\n=:>,(\[\\bfruLB@])[\"'`]")
_OPEN_SPAN = 202


def opening(text: str, at: int) -> int:
    """Where a quoted value begins that is not closed before `at`; `at` where there is none."""
    for quote in _QUOTE.finditer(text, max(0, at - _OPEN_SPAN)):
        start = quote.end()
        closed = text.find(quote[0], start)
        if "\n" not in text[start:] and not 0 <= closed < at and _holds_value(text, start):
            return min(at, start)
    return at


def _holds_value(text: str, start: int) -> bool:
    keywords = (keyword for stem in STEMS for keyword in stem.keywords(text, max(0, start - 110), start))
    behinds = (_BEHIND.match(text, keyword.end) for keyword in keywords)
    return any(behind is not None and behind.end() == start for behind in behinds)
