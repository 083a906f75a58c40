"""What a detector of all entities finds in a text, as a reader sees it."""

import functools
from collections.abc import Sequence

from plugins.pii.detector import Detector
from plugins.pii.findings import ENTITIES, Finding
from plugins.pii.tail import Reading, Tail

WITHOUT_URLS = tuple(entity for entity in ENTITIES if entity != "url")


@functools.cache
def detector(*entities: str) -> Detector:
    return Detector(entities or WITHOUT_URLS)


def found(text: str, *entities: str) -> list[str]:
    """`entity: value` of each finding, in order."""
    return [f"{entity}: {text[start:end]}" for start, end, entity in detector(*entities).find(text)]


def streamed(reading: Reading, pieces: Sequence[str]) -> tuple[str, list[Finding]]:
    """What comes out of a tail that is fed these pieces: the text, and the findings at their places in it."""
    tail, text, findings = Tail(reading), "", []
    for decided in (*map(tail.feed, pieces), tail.finish()):
        findings += [Finding(len(text) + start, len(text) + end, entity) for start, end, entity in decided.findings]
        text += decided.text
    return text, findings
