"""docs/plugins.md is run as it is read, block by block, and says of the contract what the code says."""

import contextlib
import inspect
import pathlib
import re
import typing
from collections.abc import Awaitable, Iterator, Sequence

import pytest

from proxy import plugin
from proxy.plugin import Plugin, ProxyError
from proxy.registry import EITHER_HOOKS, PLAIN_HOOKS, faults_of
from proxy.stages import BodyFilter, EventFilter, EventTap, Tap
from tests import packages

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs/plugins.md").read_text()
BLOCKS = re.findall(r"^```(\w*) ?(\S*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
HOOKS = sorted(PLAIN_HOOKS | EITHER_HOOKS)
IN_THE_AUTHORS_MIND = {
    **{name: getattr(plugin, name) for name in plugin.__all__},
    "Any": typing.Any,
    "C": plugin.C,
    "ClassVar": typing.ClassVar,
    "Awaitable": Awaitable,
    "Sequence": Sequence,
    "AbstractAsyncContextManager": contextlib.AbstractAsyncContextManager,
}


def snippets() -> dict[str, typing.Any]:
    """What the Python blocks without a file name define."""
    known = dict(IN_THE_AUTHORS_MIND)
    for language, name, text in BLOCKS:
        if language == "python" and not name:
            exec("from __future__ import annotations\n" + text, known)
    return known


def rows(having: str) -> Iterator[list[str]]:
    """The table whose heading row begins with that cell: its rows, without backquotes."""
    table = PAGE.split(f"| {having} |", 1)[1].split("\n\n", 1)[0]
    for line in table.splitlines()[2:]:
        yield [cell.strip().replace("`", "") for cell in line.strip("|").split("|")]


def test_every_block_does_what_the_page_says(tmp_path: pathlib.Path):
    folder, target = tmp_path / "weir-words", tmp_path / "site"
    folder.mkdir()
    said = []
    for language, name, text in BLOCKS:
        if name:
            (folder / name).write_text(text)
        elif language == "sh":
            ran = packages.run(["sh", "-ec", text], target, folder)
            assert ran.returncode == 0, ran.stdout
            said.append(ran.stdout)
        else:
            assert language == "python", "each block of the page is a file, a shell line or a snippet"
    tested, shipped = said
    assert "1 passed" in tested
    assert "words  (weir_words:Words, weir-words)\n    use" in shipped
    assert "    header" in shipped
    assert shipped.endswith("config.yaml: ok (1 upstreams, 1 routes, 1 plugins)\n")


def test_the_plugin_is_about_as_long_as_the_page_says():
    (text,) = (text for _, name, text in BLOCKS if name == "weir_words.py")
    assert sum(bool(line.strip()) for line in text.splitlines()) <= 30


def test_the_snippets_are_sound_plugins():
    made = snippets()
    for name in ("Auth", "Quota", "Fair", "Guard"):
        assert faults_of(made[name]) == []
    (passes,) = made["Mask"]().feed(plugin.Event.of(b"hello"))
    (masked,) = made["Mask"]().feed(plugin.Event.of(b"my secret"))
    assert (passes.raw, masked.raw) == (b"data: hello\n\n", b"data: my ******\n\n")


@pytest.mark.parametrize("hook", ["__init__", *HOOKS])
def test_the_signature_is_that_of_the_contract(hook: str):
    shown, real = getattr(snippets()["Contract"], hook), getattr(Plugin, hook)
    assert inspect.signature(shown) == inspect.signature(real)
    assert inspect.iscoroutinefunction(shown) == inspect.iscoroutinefunction(real)


def test_the_class_has_the_attributes_that_are_shown():
    shown = vars(snippets()["Contract"])
    assert shown["__annotations__"] == Plugin.__annotations__
    assert all(getattr(Plugin, name) == shown[name] for name in Plugin.__annotations__)


def test_the_hook_table_is_whole_and_says_who_may_await():
    table = {row[0]: row[2] for row in rows("hook")}
    assert sorted(table) == HOOKS
    assert {hook for hook, awaits in table.items() if awaits == "yes"} == EITHER_HOOKS


def test_the_stage_table_has_the_methods_of_the_stages():
    table = {row[0]: row[1] for row in rows("stage")}
    assert list(table) == ["none", "Tap", "EventTap", "EventFilter", "BodyFilter"]
    for kind in (Tap, EventTap, EventFilter, BodyFilter):
        methods = [name for name, method in vars(kind).items() if inspect.isfunction(method)]
        assert table[kind.__name__] == ", ".join(methods)


def test_the_refusals_have_the_status_and_the_code_that_are_shown():
    listed = {row[0]: (row[1], row[2]) for row in rows("raise")}
    exported = [getattr(plugin, name) for name in plugin.__all__]
    errors = [e for e in exported if inspect.isclass(e) and issubclass(e, ProxyError)]
    expected = {
        e.__name__: (str(e.status), e.code)
        for e in errors
        if e.__name__ not in {"ProxyError", "PluginFailed", "PassedOver"}
    }
    assert listed == expected
