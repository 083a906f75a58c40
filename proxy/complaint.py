"""What upstreams say when they do not serve, and which kind of fault each means: by words first, then by status.

Servers quote requests in their errors. So what can stand anywhere in a message makes no kind that harms an upstream's
standing: overload and breakdown are told by status, type or code, and of TGI by a message's first words.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from proxy.kind import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from proxy.answer import InBandError

SEARCHED = 4096
"""Characters of a message that are looked at: the reason comes first, what it quotes may be long."""


def kind_of(status: int | None, told: InBandError) -> Kind:
    """`status`: None where neither the answer has one nor its error stands for one."""
    words = _words(told)
    return (
        (Kind.LOADING if status in _AWAY and _LOADING.search(told.message, 0, SEARCHED) else None)
        or _first(words, _CERTAIN)
        or _kind_of_text(told)
        or (None if status == 429 else _first(words, _LIKELY))
        or (_kind_of_status(status) if status else _kind_of_rest(words, told))
    )


def status_in(told: InBandError) -> int | None:
    """The HTTP status that an error within a 200 stands for, if any."""
    code = told.code
    if code in {None, 422}:
        code = next((status for words, status in _TGI if told.message.startswith(words)), code)
    if isinstance(code, str) and len(code) == 3 and code.isdecimal():
        code = int(code)
    return code if isinstance(code, int) and 400 <= code < 600 else None


def _kind_of_status(status: int) -> Kind:
    known = _STATUSES.get(status)
    if known is not None:
        return known
    return Kind.SERVER_ERROR if status >= 500 else Kind.CLIENT


def _kind_of_rest(words: Iterable[str], told: InBandError) -> Kind:
    if _LIMIT.search(told.message, 0, SEARCHED):
        return Kind.RATE_LIMITED
    return Kind.SERVER_ERROR if _REQUESTS.isdisjoint(words) else Kind.CLIENT


def _kind_of_text(told: InBandError) -> Kind | None:
    texts = (told.message, told.inner or "")
    return next((kind for said, kind in _TEXTS for text in texts if text and said.search(text, 0, SEARCHED)), None)


def _words(told: InBandError) -> list[str]:
    """The shorter ones are names of errors, also where they stand as messages."""
    given = (told.code, told.inner, told.type, told.message)
    return [_ENDING.sub("", _MARKS.sub("", word.lower())) for word in given if isinstance(word, str) and len(word) < 64]


def _first(words: Iterable[str], meanings: Mapping[str, Kind]) -> Kind | None:
    return next((meanings[word] for word in words if word in meanings), None)


def _each(kinds: Mapping[Kind, str]) -> dict[str, Kind]:
    return {word: kind for kind, words in kinds.items() for word in words.split()}


_MARKS = re.compile(r"[^a-z]")
_ENDING = re.compile(r"(?:error|exception)$")

_CERTAIN = _each(
    {
        Kind.QUOTA: "insufficientquota insufficientbalance insufficientcredits insufficientuserquota quotaexceeded "
        "servicequotaexceeded exceededcurrentquota billing billinghardlimitreached billingnotactive paymentrequired "
        "tokenlimitexceeded",
        Kind.CONTEXT_LENGTH: "contextlengthexceeded contextwindowexceeded exceedcontextsize "
        "modelmaxprompttokensexceeded",
        Kind.TOO_LARGE: "requesttoolarge stringtoolong stringabovemaxlength",
        Kind.CONTENT_FILTER: "contentfilter contentpolicyviolation responsibleaipolicyviolation moderationblocked "
        "prohibitedcontent safety blocklist datainspectionfailed",
        Kind.REFUSED: "invalidapikey authentication invalidauthentication unauthenticated unauthorized permission "
        "permissiondenied accessdenied accountdeactivated ipnotauthorized unsupportedcountryregionterritory",
        Kind.UNSUPPORTED: "modelnotfound modelnotavailable modeldecommissioned invalidmodel deploymentnotfound "
        "notfound",
    }
)
"""Types and codes in small letters, without punctuation and a closing `error` or `exception`, with whatever status."""

_LIKELY = _each(
    {
        Kind.RATE_LIMITED: "ratelimit ratelimited ratelimitexceeded ratelimitreached toomanyrequests requests tokens "
        "resourceexhausted throttling throttled slowdown",
        Kind.OVERLOADED: "overloaded serveroverloaded serverisoverloaded engineoverloaded provideroverloaded "
        "capacityexceeded overcapacity unavailable serviceunavailable modelnotready healthcheck",
        Kind.TIMEOUT: "timeout modeltimeout requesttimeout gatewaytimeout deadlineexceeded",
    }
)
"""Of these a 429 knows better."""

_REQUESTS = frozenset({"invalidrequest", "badrequest", "invalidargument", "validation"})
"""Of these every status knows better: some servers say so whatever went wrong."""

_STATUSES = {
    401: Kind.REFUSED,
    402: Kind.QUOTA,
    403: Kind.REFUSED,
    404: Kind.UNSUPPORTED,
    405: Kind.UNSUPPORTED,
    408: Kind.SERVER_ERROR,
    409: Kind.BUSY,
    410: Kind.UNSUPPORTED,
    423: Kind.BUSY,
    424: Kind.SERVER_ERROR,
    425: Kind.BUSY,
    429: Kind.RATE_LIMITED,
    498: Kind.OVERLOADED,
    499: Kind.SERVER_ERROR,
    501: Kind.UNSUPPORTED,
    503: Kind.OVERLOADED,
    504: Kind.TIMEOUT,
    524: Kind.TIMEOUT,
    529: Kind.OVERLOADED,
}

_TGI = (
    ("Model is overloaded", 429),
    ("Request failed during generation", 424),
    ("Incomplete generation", 500),
    ("Stream event serialization error", 500),
)
"""Its code within a 200 is 422 whatever it says; these are the statuses that it sends where it can."""

_AWAY = frozenset({502, 503})
_LOADING = re.compile(
    r"(?i)\bloading (?:the )?model\b|\bmodel (?:is )?not ready|\bscaled to (?:zero|0)\b|scaledToZero|\bwarming up\b"
    r"|\bmodel\b.{0,200}\bis (?:currently |still |being )*(?:load|start|initializ)(?:ed|ing)"
    r"|\b(?:server|endpoint|service) is starting"
)
"""While servers load or start they say so in a 503; the kind harms nobody's standing, so a quote is harmless."""

_LIMIT = re.compile(r"(?i)rate.?limit|too many requests")
_TEXTS = (
    (re.compile(r"\ARequest too large for|length limit exceeded"), Kind.TOO_LARGE),
    (
        re.compile(
            r"(?i)maximum (?:context|prompt|model) length|context length (?:is|of) only"
            r"|longer than the model's context|exceed(?:s|ed)? [^.]{0,40}\bcontext (?:length|window|size|limit)"
            r"|exceed context (?:window|limit)|(?:prompt|input)(?: is)? too long|\binput length \(|input tokens exceed"
            r"|token count\b.{0,20} exceeds|`inputs` (?:tokens \+|must have less)|too many tokens: "
            r"|too large (?:for model with|to process)|reduce the length of the (?:messages|prompt|input)"
            r"|should not exceed max_"
        ),
        Kind.CONTEXT_LENGTH,
    ),
    (
        re.compile(
            r"(?i)content (?:management|filtering) policy|ResponsibleAIPolicyViolation|PROHIBITED_CONTENT"
            r"|(?:prompt|input|request) was flagged|by our safety system|our safety system\.|content exists risk"
        ),
        Kind.CONTENT_FILTER,
    ),
    (
        re.compile(
            r"(?i)credit balance is too low|insufficient (?:balance|credits)|(?:all|any|more) [\w ]{0,20}credits"
        ),
        Kind.QUOTA,
    ),
    (re.compile(r"\A(?:Server is pinned to '|/[\w/]{1,40}: Invalid model name passed in )"), Kind.UNSUPPORTED),
    (re.compile(r"(?i)\A(?:API key not valid|(?:invalid|incorrect) api key)"), Kind.REFUSED),
)
