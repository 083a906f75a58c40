"""docs/upstreams.md says of each system what its golden file shows, and calls tried what is."""

from __future__ import annotations

import pathlib
import re

import pytest

from tests.contract import systems
from tests.integration import servers

PAGE = (pathlib.Path(__file__).parents[2] / "docs/upstreams.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.partition("| system |")[2].partition("\n\n")[0].splitlines()[2:]
]
GOLDEN = {found[1]: row for row in ROWS if (found := re.search(r"golden/systems/(.+)\.yaml", row[-1]))}
PROCESSES = {
    "LiteLLM": servers.litellm,
    "LitServe": servers.litserve,
    "llama-cpp-python": servers.llama,
    "transformers serve": servers.transformers,
}


def name(row: list[str]) -> str:
    return row[0].removeprefix("[").partition("]")[0]


def anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")


def test_each_system_has_a_section_with_a_block():
    sections = {
        section.partition("\n")[0]: section for section in re.split(r"^#{2,3} ", PAGE, flags=re.MULTILINE) if section
    }
    for row in ROWS:
        assert row[0].endswith(f"(#{anchor(name(row))})")
        assert "```yaml\nupstreams:" in sections[name(row)]


def test_each_golden_file_is_in_the_table_and_each_process_has_been_run():
    assert set(GOLDEN) == set(systems.systems())
    assert {name(row) for row in ROWS if "process" in row[-1]} == set(PROCESSES)
    assert all(row[-1] == "facts" for row in ROWS if row not in GOLDEN.values())


@pytest.mark.parametrize("system", systems.systems())
def test_usage_and_end_are_those_of_its_streams(system: str):
    """Of the first that is whole."""
    stream = next(golden for golden in systems.systems()[system].answers if golden.is_stream and golden.ends == "whole")
    counted = "always" if "input" in stream.tokens else "never"
    is_done = any("[DONE]" in event for event in stream.events or ())
    assert GOLDEN[system][2:4] == ["asked" if stream.usage else counted, "yes" if is_done else "no"]


@pytest.mark.parametrize("system", systems.systems())
def test_its_kind_is_the_one_that_the_tests_use(system: str):
    used = re.search(r"kind: (\w+)", systems.systems()[system].settings)
    said = GOLDEN[system][1].strip("`")
    assert said == (used[1] if used else "openai") or system == "tgi"  # of which the tests show what it says unrepaired
