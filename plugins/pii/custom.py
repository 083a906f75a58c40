"""An operator's own entities: a pattern, what proves it, and examples that are tried at start-up.

The pattern is RE2's syntax, and less of it: what it matches is one word of bounded length, so that streams can be
decided word by word and no text makes it slow. Where there is no google-re2, `re` runs it with the same findings: what
the two read differently is refused.
"""

from __future__ import annotations

import re
import string
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from plugins.pii import words
from plugins.pii.engine import re2
from plugins.pii.findings import ENTITIES, Finding
from plugins.pii.numbers import luhn, mod97
from proxy.plugin import fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EntityName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]

_MOST_REPEATS = 256
_ALNUM = frozenset(string.ascii_letters + string.digits)


class Custom(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: EntityName = Field(description="its word in metrics and placeholders", examples=["employee_id"])
    pattern: str = Field(
        min_length=1,
        max_length=500,
        description="RE2 syntax; it matches whole words of bounded length: no lookaround, `.`, `*`, `+`, `\\s`",
        examples=[r"EMP-\d{6}"],
    )
    validator: Literal["luhn", "mod97", "none"] = Field(
        default="none", description="a checksum that a match must have besides"
    )
    examples: list[str] = Field(default_factory=list, description="values that must be found whole, tried at start-up")
    not_examples: list[str] = Field(default_factory=list, description="texts in which it must find nothing")

    @model_validator(mode="after")
    def _works(self) -> Self:
        if self.name in ENTITIES:
            raise fault("is an entity that Weir has", "choose another name", "name")
        Pattern(self.pattern)
        find = self.finder()
        for at, example in enumerate(self.examples):
            if [found[:2] for found in find(example, 0, len(example))] != [(0, len(example))]:
                raise fault(
                    f"number {at + 1} is not found whole", "correct it, the pattern or the validator", "examples"
                )
        for at, example in enumerate(self.not_examples):
            if any(find(example, 0, len(example))):
                raise fault(f"in number {at + 1} something is found", "narrow the pattern", "not_examples")
        return self

    @property
    def may_be_plain(self) -> bool:
        """Whether it could match letters alone."""
        return not Pattern(self.pattern).needs_sign

    def finder(self) -> Callable[[str, int, int], Iterator[Finding]]:
        pattern = re.compile(self.pattern, re.ASCII) if re2 is None else re2.compile(self.pattern)
        proves, name = _VALIDATORS[self.validator], self.name

        def find(text: str, start: int, end: int) -> Iterator[Finding]:
            for match in pattern.finditer(text, start, end):
                begin, stop = match.span()
                is_part = text[begin - 1 : begin] in _ALNUM or text[stop : stop + 1] in _ALNUM
                if stop > begin and not is_part and proves(match.group()):
                    yield Finding(begin, stop, name)

        return find


_NOT_ALNUM = re.compile("[^A-Za-z0-9]+")


def _has_luhn(value: str) -> bool:
    return luhn("".join(char for char in value if char in string.digits))


def _has_mod97(value: str) -> bool:
    return mod97(_NOT_ALNUM.sub("", value).upper())


_VALIDATORS: dict[str, Callable[[str], bool]] = {"luhn": _has_luhn, "mod97": _has_mod97, "none": lambda _: True}

_TOKEN = re.compile(
    r"""(?xs)
      \\(?P<escape>.)
    | (?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])
    | (?P<open>\((?:\?(?:P?<[A-Za-z_]\w*>|:|i:|i\)|P?<?.?))?)
    | (?P<close>\))
    | (?P<repeat>\{(?P<least>[0-9]+)(?:,(?P<most>[0-9]*))?\}|[*+?])(?P<lazy>\??)
    | (?P<other>.)
    """
)
_OPENS = re.compile(r"\((?:\?(?:P?<[A-Za-z_]\w*>|:|i:|i\)))?")
_WORDS_ONLY = "a match must be one word, for streams are decided word by word"


class Pattern:
    """A reading of a pattern that refuses, with the reason, what streams and both engines cannot take."""

    def __init__(self, pattern: str) -> None:
        self.needs_sign = False
        self._groups = [False]  # for each that is open: whether anything within it repeats
        self._closed: bool | None = None  # of the group that was closed last
        self._sign = False  # the last token at the outermost level takes no letter
        self._is_outer_choice = False
        tokens = list(_TOKEN.finditer(pattern))
        for token in tokens:
            self._read(token)
        self._settle()
        self.needs_sign = self.needs_sign and not self._is_outer_choice
        self._compile(pattern)

    def _settle(self) -> None:
        self.needs_sign = self.needs_sign or self._sign
        self._sign, self._closed = False, None

    def _read(self, token: re.Match[str]) -> None:
        if token["repeat"]:
            self._repeat(token)
            return
        self._settle()
        if token["open"]:
            self._open(token["open"])
        elif token["close"]:
            self._closed = self._groups.pop() if len(self._groups) > 1 else None
        elif token["escape"]:
            self._escape(token["escape"])
        elif token["set"]:
            self._characters(token["set"])
        elif token["other"] == "|":
            self._is_outer_choice = self._is_outer_choice or len(self._groups) == 1
        elif token["other"] in ".^$":
            what = "a dot, which also matches spaces" if token["other"] == "." else "an anchor"
            raise _refused(f"has {what}", "write which characters, as in [A-Z0-9]; a match is a whole word anyway")
        else:
            self._takes({token["other"]})

    def _open(self, shown: str) -> None:
        if not _OPENS.fullmatch(shown):
            raise _refused("looks around or takes a group back, which needs backtracking", "write it without")
        if shown != "(?i)":
            self._groups.append(False)

    def _repeat(self, token: re.Match[str]) -> None:
        shown, least, most = token["repeat"], token["least"], token["most"]
        if shown in {"*", "+"} or most == "":
            raise _refused(f"repeats without a bound ('{shown}')", "write the most there can be, as in {1,20}")
        if int(most or least or 1) > _MOST_REPEATS:
            raise _refused(f"repeats more than {_MOST_REPEATS} times", "write less")
        if self._closed and shown != "?":
            raise _refused("repeats what repeats, which can be read in too many ways", "write one of them out")
        if shown == "?" or int(least or 0) == 0:
            self._sign = False
        self._groups[-1] = self._groups[-1] or shown != f"{{{least}}}"
        self._settle()

    def _escape(self, letter: str) -> None:
        if letter.isdigit() or letter == "k":
            raise _refused("takes a group back, which needs backtracking", "write it without")
        if letter in "sSDW" or (letter.isalpha() and letter not in "dwb"):
            raise _refused(f"has '\\{letter}'; {_WORDS_ONLY}", "write which characters, as in [A-Z0-9]")
        if letter != "b":
            self._takes(set(string.digits) if letter == "d" else _ALNUM if letter == "w" else {letter})

    def _characters(self, shown: str) -> None:
        if shown.startswith("[^") or re.search(r"\\[sSDW]|\[:", shown):
            raise _refused(f"has a set of what is not ({shown[:12]}); {_WORDS_ONLY}", "write which characters")
        if not shown.isascii():
            raise _refused("has letters other than ASCII", "write it with ASCII alone")
        try:
            characters = re.compile(shown, re.ASCII)
        except re.error as error:
            raise _refused(f"cannot be read: {error}", "correct it") from None
        self._takes({char for char in map(chr, range(128)) if characters.match(char)})

    def _takes(self, characters: set[str] | frozenset[str]) -> None:
        outside = sorted(characters - set(words.WORD) | {char for char in characters if not char.isascii()})
        if outside:
            raise _refused(f"takes {outside[0]!r}; {_WORDS_ONLY}", f"a word is letters, digits and {_SIGNS}")
        self._sign = len(self._groups) == 1 and not any(words.plain(char) for char in characters)

    @staticmethod
    def _compile(pattern: str) -> None:
        try:
            re.compile(pattern, re.ASCII)
            if re2 is not None:
                options = re2.Options()
                options.log_errors = False
                re2.compile(pattern, options)
        except _ERRORS as error:
            raise _refused(f"cannot be read: {error}", "correct it") from None


_ERRORS = (re.error,) if re2 is None else (re.error, re2.error)
_SIGNS = " ".join(char for char in words.WORD if char.isascii() and not char.isalnum())


def _refused(what: str, fix: str) -> Exception:
    return fault(what.replace("{", "(").replace("}", ")"), fix, "pattern")
