"""docs/explain.md shows what the command says: `python -m tests.docs.test_explain_page` puts it there."""

import pathlib
import re

from tests.test_explain import PROMPT, TRANSCRIPT

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "explain.md"
_REGION = re.compile(r"(```text explain\n).*?(```)", re.DOTALL)


def renewed(page):
    first = TRANSCRIPT.read_text().split("\n", 1)[1].split(f"\n{PROMPT}")[0]
    return _REGION.sub(lambda region: f"{region[1]}{first}\n{region[2]}", page)


def test_the_page_shows_the_first_of_the_transcript():
    assert renewed(PAGE.read_text()) == PAGE.read_text()


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
