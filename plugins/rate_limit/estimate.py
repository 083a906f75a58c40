"""How many tokens a request will need, before anybody knows: four bytes of its body are one, and its answer is as long
as it may be at most, or else as answers to the same subject have been lately.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from proxy.plugin import rough_prompt_tokens

if TYPE_CHECKING:
    from proxy.plugin import Request

BYTES_PER_TOKEN = 4
MOST_CHOICES = 128
FIRST_GUESS = 256
WEIGHT = 0.1
REMEMBERED = 10_000

_LONGEST = re.compile(rb'"max_(?:completion_|output_|new_)?tokens"\s*:\s*([0-9]{1,9})\b')
_RARE = re.compile(rb'"(?:n"|best_of"|data:)')
_CHOICES = re.compile(rb'"(?:n|best_of)"\s*:\s*([0-9]{1,4})\b')


def estimate(request: Request, body: bytes) -> tuple[int, int | None, int]:
    """Tokens of the prompt, what an answer may have at most, and how many it asks for; the body is read only once."""
    most = 0 if request.endpoint == "embeddings" else longest(body)
    if _RARE.search(body) is None:
        return -(-len(body) // BYTES_PER_TOKEN), most, 1
    return rough_prompt_tokens(request), most, choices(body)


def longest(body: bytes) -> int | None:
    """What an answer may have at most. The body is searched, not parsed: text within it has other quotes.

    From its end, where clients say so.
    """
    last = body.rfind(b'"max_')
    if last < 0:
        return None
    found = _LONGEST.match(body, last) or _LONGEST.search(body)
    return int(found[1]) if found else None


def choices(body: bytes) -> int:
    """How many answers it asks for."""
    return min(max(1, 1, *map(int, _CHOICES.findall(body))), MOST_CHOICES)


class Answers:
    """How long answers are, by subject: an average that moves."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}

    def expected(self, subject: str) -> int:
        return round(self._means.get(subject, FIRST_GUESS))

    def learn(self, subject: str, tokens: float) -> None:
        mean = self._means.get(subject)
        if mean is None and len(self._means) >= REMEMBERED:
            self._means.clear()
        self._means[subject] = tokens if mean is None else mean + WEIGHT * (tokens - mean)
