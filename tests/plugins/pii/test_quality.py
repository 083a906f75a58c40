"""What the README promises of what is found, on public texts; skipped where these are not at hand."""

import pytest

from tests.plugins.pii import quality
from tests.plugins.pii.found import detector

pytestmark = pytest.mark.skipif(not quality.IS_HERE, reason="the labelled texts are not at hand")


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    find = detector().find
    return quality.score(
        lambda text: [(start, end, entity.upper()) for start, end, entity in find(text)], tmp_path_factory.mktemp("pii")
    )


def test_what_is_found_is_right(scores):
    assert scores["ALL"]["P"] >= 0.99


def test_what_is_there_is_found(scores):
    assert scores["ALL"]["R"] >= 0.95
    assert scores["ALL"]["Rstd"] >= 0.98
    assert scores["SECRET"]["R"] >= 0.95
    assert min(scores[entity]["Rstd"] for entity in ("EMAIL", "CREDIT_CARD", "US_SSN", "IBAN", "IP_ADDRESS")) >= 0.98


def test_what_is_not_there_is_not_found(scores):
    assert scores["NEG"]["fp_per_1000_texts"] <= 15


def test_next_to_nothing_leaks(scores):
    assert scores["ALL"]["leak"] <= 0.05
