"""How many tokens a request will need, before anybody knows: four bytes of its body are one, and its answer is as long
as it may be at most, or else as answers to the same subject have been lately.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from proxy.plugin import prompt_tokens

if TYPE_CHECKING:
    from proxy.plugin import Request

BYTES_PER_TOKEN = 4
MOST_CHOICES = 128
FIRST_GUESS = 256
WEIGHT = 0.1
REMEMBERED = 10_000

_LONGEST = re.compile(rb'"max_(?:completion_|output_|new_)?tokens"\s*:\s*([0-9]{1,9})\b')
_CHOICES = re.compile(rb'"(?:n|best_of)"\s*:\s*([0-9]{1,4})\b')


def input_tokens(request: Request, body: bytes) -> int:
    """Pictures within the body are not text."""
    return prompt_tokens(request) if b'"data:' in body else -(-len(body) // BYTES_PER_TOKEN)


class Answers:
    """How long answers are, by subject: an average that moves."""

    def __init__(self) -> None:
        self._means: dict[str, float] = {}

    def expected(self, subject: str, body: bytes) -> int:
        """In tokens, of all choices. The body is searched, not parsed: text within it has other quotes."""
        longest = _LONGEST.search(body) if b'"max_' in body else None
        each = int(longest[1]) if longest else round(self._means.get(subject, FIRST_GUESS))
        choices = _CHOICES.search(body)
        return each * min(max(int(choices[1]), 1), MOST_CHOICES) if choices else each

    def learn(self, subject: str, tokens: int) -> None:
        mean = self._means.get(subject)
        if mean is None and len(self._means) >= REMEMBERED:
            self._means.clear()
        self._means[subject] = tokens if mean is None else mean + WEIGHT * (tokens - mean)
