"""Runs presidio-analyzer, in an environment of its own that has nothing of Weir: an order on stdin, figures on stdout.

Its recognizers of patterns for the entities that both know, with a tokenizer and no model of a language: names and
places, which a model would find, are nobody's here.
"""

import importlib.metadata
import json
import sys
import time
from pathlib import Path

import spacy
from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
from presidio_analyzer.nlp_engine import SpacyNlpEngine
from presidio_analyzer.predefined_recognizers import (
    CreditCardRecognizer,
    EmailRecognizer,
    IbanRecognizer,
    IpRecognizer,
    PhoneRecognizer,
    UsSsnRecognizer,
)

NAMES = {
    "EMAIL_ADDRESS": "EMAIL", "PHONE_NUMBER": "PHONE", "CREDIT_CARD": "CREDIT_CARD", "US_SSN": "US_SSN",
    "IBAN_CODE": "IBAN", "IP_ADDRESS": "IP_ADDRESS",
}  # fmt: skip
THRESHOLD = 0.35


class Blank(SpacyNlpEngine):
    def __init__(self):
        super().__init__()
        self.nlp = {"en": spacy.blank("en")}

    def load(self):
        pass


def engine():
    kinds = (CreditCardRecognizer, EmailRecognizer, IbanRecognizer, IpRecognizer, PhoneRecognizer, UsSsnRecognizer)
    registry = RecognizerRegistry(recognizers=[kind() for kind in kinds], supported_languages=["en"])
    return AnalyzerEngine(registry=registry, nlp_engine=Blank(), supported_languages=["en"])


def main():
    order, analyzer = json.load(sys.stdin), engine()

    def find(text):
        found = analyzer.analyze(text, language="en", entities=list(NAMES), score_threshold=THRESHOLD)
        return [{"start": one.start, "end": one.end, "type": NAMES[one.entity_type]} for one in found]

    for name in ("gold", "negatives") if order["files"] else ():
        lines = map(json.loads, Path(order["files"][name]).read_text(encoding="utf-8").splitlines())
        predicted = [json.dumps({"id": line["id"], "spans": find(line["text"])}) for line in lines]
        Path(order["files"][f"{name}_found"]).write_text("\n".join(predicted), encoding="utf-8")
    print(json.dumps({"version": importlib.metadata.version("presidio-analyzer"), "per_kb": cost(find, order["cost"])}))


def cost(find, kinds):
    """µs of processor time per KB; one round on a quarter of the texts, as it takes its time."""
    figures = {}
    for kind, texts in kinds.items():
        some = texts[::4]
        start = time.process_time()
        for text in some:
            find(text)
        figures[kind] = (time.process_time() - start) / sum(len(text.encode()) for text in some) * 1024 * 1e6
    return figures


if __name__ == "__main__":
    main()
