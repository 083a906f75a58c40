import pathlib
from collections.abc import Mapping
from typing import Any

import pytest
import yaml

from proxy import document
from proxy.document import UNKNOWN, ConfigError, Document, Path, UnfilledError


@pytest.fixture(params=["CSafeLoader", "SafeLoader"], autouse=True)
def _both_loaders(request, monkeypatch):
    """PyYAML comes without libyaml on some machines."""
    monkeypatch.setattr(document, "_LOADER", getattr(yaml, request.param))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "config.yaml"


def read(file: pathlib.Path, text: str, environ: Mapping[str, str] | None = None) -> Document:
    file.write_text(text)
    return Document(file, environ or {})


def data(file: pathlib.Path, text: str, **environ: str) -> Any:
    found = read(file, text, environ)
    assert found.problems == []
    return found.data


def problems(file: pathlib.Path, text: str, **environ: str) -> list[tuple[int, Path, str]]:
    return [(problem.line, problem.path, problem.what) for problem in read(file, text, environ).problems]


def refusal(file: pathlib.Path, text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        read(file, text)
    return str(refused.value).removeprefix(f"{file}:")


def test_scalars_are_what_yaml_says(file):
    text = "{a: 1, b: 1.5, c: true, d: off, e: null, f: ~, g: , h: x, i: '1', j: \"off\", k: 0x10, l: .inf}"
    values = [1, 1.5, True, False, None, None, None, "x", "1", "off", 16, float("inf")]
    assert data(file, text) == dict(zip("abcdefghijkl", values, strict=True))


@pytest.mark.parametrize("text", ["2024-10-21", "0b_", "0x_", "=", "<<", "9" * 5000, "1:2:x"])
def test_what_yaml_has_no_good_value_for_is_text(file, text):
    assert data(file, f"a: {text}") == {"a": text}


def test_keys_are_text_as_written(file):
    assert data(file, "{1: a, off: b, ~: c, 2024-01-01: d, '${X}': e}") == {
        "1": "a",
        "off": "b",
        "~": "c",
        "2024-01-01": "d",
        "${X}": "e",
    }


def test_every_key_and_item_has_its_line(file):
    text = "a:\n  b: 1\n  c:\n    - x\n    -\n      d: 2\n\n# nothing\ne: |\n  text\n"
    assert read(file, text).lines == {
        (): 1,
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "c"): 3,
        ("a", "c", 0): 4,
        ("a", "c", 1): 6,
        ("a", "c", 1, "d"): 6,
        ("e",): 9,
    }


def test_aliases_and_merges(file):
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: *a\nd: {<<: *a, y: 3}\ne: {z: 4, <<: [*a, *b]}\nf:\n  <<: *a\n  <<: *b\n"
    found = data(file, text)
    assert found["c"] == {"x": 1, "y": 1}
    assert found["d"] == {"x": 1, "y": 3}
    assert found["e"] == {"x": 1, "y": 1, "z": 4}
    assert found["f"] == {"x": 1, "y": 1, "z": 2}


def test_a_merged_key_has_the_line_where_it_is_written(file):
    found = read(file, "a: &a\n  x: 1\nb:\n  <<: *a\n  y: 2\n")
    assert (found.lines["b", "x"], found.lines["b", "y"]) == (2, 5)


def test_a_merge_of_what_is_no_mapping(file):
    assert problems(file, "a: &a [1]\nb: {<<: 5}\nc:\n  <<: [*a]\n") == [
        (2, ("b",), "`<<` takes a mapping or a list of mappings"),
        (1, ("c",), "`<<` takes a mapping or a list of mappings"),
    ]


def test_keys_that_are_lists_or_twice_there(file):
    assert problems(file, "a: 1\n? [b]\n: 2\na: 3\nc:\n  d: 1\n  d: 1\n") == [
        (2, (), "a key must be text, not a list or a mapping"),
        (4, ("a",), "this key is already on line 1"),
        (7, ("c", "d"), "this key is already on line 6"),
    ]


def test_references_are_filled_in(file):
    environ = {"A": "1", "EMPTY": "", "HOST": "h"}
    cases = {
        "${A}": 1,
        "'${A}'": "1",
        "x${A}y${A}": "x1y1",
        "${EMPTY}": None,
        "'${EMPTY}'": "",
        "${EMPTY:-5}": 5,
        "${UNSET:-}": None,
        "${UNSET:-true}": True,
        "${UNSET:-a:-b}": "a:-b",
        "${UNSET:-a$$b}": "a$b",
        "$$": "$",
        "$${A}": "${A}",
        "$$$${A}": "$${A}",
        "$$${A}": "$1",
        "^a$": "^a$",
        "$A": "$A",
        "http://${HOST}:${A}/": "http://h:1/",
    }
    for written, value in cases.items():
        assert data(file, f"a: {written}", **environ) == {"a": value}, written


def test_a_value_is_not_filled_in_twice(file):
    assert data(file, "a: ${A}", A="${B} $$") == {"a": "${B} $$"}


def test_block_scalars_are_filled_in(file):
    assert data(file, "a: |\n  key ${A}\n  end\n", A="1") == {"a": "key 1\nend\n"}


@pytest.mark.parametrize(
    ("content", "value"), [("sk-1\n", "sk-1"), ("sk-1", "sk-1"), ("sk-1\r\n", "sk-1"), ("a\nb\n\n", "a\nb\n"), ("", "")]
)
def test_a_file_without_its_last_newline(file, content, value):
    (file.parent / "secrets").mkdir()
    (file.parent / "secrets" / "key").write_bytes(content.encode())
    assert data(file, 'a: "${file:secrets/key}"') == {"a": value}
    assert data(file, f'a: "${{file:{file.parent}/secrets/key}}"') == {"a": value}


def test_a_file_that_is_not_text(file):
    (file.parent / "key").write_bytes(b"\xff\xfe")
    assert problems(file, "a: ${file:key}") == [(1, ("a",), f"'{file.parent}/key' is not UTF-8 text")]


def test_a_variable_that_is_not_text(file):
    assert problems(file, "a: ${A}", A="caf\udce9") == [(1, ("a",), "${A} is not UTF-8 text")]


@pytest.mark.parametrize("text", ['a: 1\n"\\ud800": 1', 'a: 1\nb: "\\ud800"'])
def test_half_a_surrogate_pair(file, text):
    assert refusal(file, text).startswith("2: ")


def test_a_file_name_with_a_null_byte(file):
    [(line, path, what)] = problems(file, 'a: "${file:x\\0}"')
    assert (line, path) == (1, ("a",))
    assert "cannot be read: embedded null byte" in what


def test_what_has_no_value_is_unknown_and_the_rest_is_there(file):
    found = read(file, "a: ${UNSET}\nb:\n  - ${A} ${ALSO_UNSET}\n  - ${A}\n", {"A": "1"})
    assert found.data == {"a": UNKNOWN, "b": [UNKNOWN, 1]}
    assert [problem.what for problem in found.problems] == [
        "the variable UNSET is not set",
        "the variable ALSO_UNSET is not set",
    ]
    assert {path: (filled.references, filled.text) for path, filled in found.filled.items()} == {
        ("a",): ("${UNSET}", None),
        ("b", 0): ("${A} and ${ALSO_UNSET}", None),
        ("b", 1): ("${A}", "1"),
    }


@pytest.mark.parametrize("text", ["", "\n", "# only a remark\n", "---\n", "~", "\ufeff"])
def test_an_empty_file(file, text):
    assert refusal(file, text) == "1: the file is empty; write a mapping of keys, or point to another file"


def test_a_byte_order_mark_is_no_part_of_a_key(file):
    assert data(file, "\ufeffa: 1") == {"a": 1}


def test_two_documents(file):
    assert refusal(file, "a: 1\n---\nb: 2\n") == "2: a second document starts here; keep one document in a file"


@pytest.mark.parametrize(
    "text", ["a:\n  !!str 5", "a:\n  !secret x", "a:\n  !!python/object:os.system {}", "a:\n  ! 5"]
)
def test_tags_have_no_meaning(file, text):
    assert refusal(file, text).startswith("2: tags such as '")


def test_a_file_that_is_not_there(file):
    with pytest.raises(ConfigError) as refused:
        Document(file, {})
    assert str(refused.value) == (
        f"{file}:1: cannot be read: No such file or directory; correct the path or the permissions"
    )


def test_a_folder_instead_of_a_file(file):
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        Document(file.parent, {})


def test_bytes_that_are_not_utf8_have_a_line(file):
    file.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(ConfigError, match=r":2: this line is not UTF-8 text; save the file as UTF-8$"):
        Document(file, {})


def test_characters_that_yaml_forbids_have_a_line(file):
    assert refusal(file, "a: 1\nb: \x07\n") == "2: the character U+0007 may not stand in YAML; remove it"


def test_brackets_that_would_break_the_c_stack(file):
    assert refusal(file, "a: 1\nb: " + "[" * 200_000) == "2: nested deeper than 64 levels; use fewer levels"


def test_aliases_that_nest_deeper_than_the_text(file):
    text = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 100))
    assert "aliases nest deeper than 64 levels; use fewer levels" in refusal(file, text)


def test_merges_that_nest_deeper_than_the_text(file):
    text = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: *a{n - 1}}}\n" for n in range(1, 5000))
    assert "aliases nest deeper than 64 levels; use fewer levels" in refusal(file, text)


@pytest.mark.parametrize("level", ["[{}]", "{{<<: [{}]}}"])
def test_a_billion_laughs(file, level):
    text = "a0: &a0 {x: y}\n"
    for n in range(1, 20):
        text += f"a{n}: &a{n} {level.format(', '.join([f'*a{n - 1}'] * 10))}\n"
    assert "aliases add more than 100000 values; use fewer aliases" in refusal(file, text)


def test_a_long_file_is_no_billion_laughs(file):
    assert len(data(file, f"a: [{'[],' * 60_000}]")["a"]) == 60_000


@pytest.mark.parametrize("text", ["a: 1\nb: &b [*b]", "a: 1\nb: &b {c: {d: *b}}", "a: 1\nb: &b {<<: *b}"])
def test_an_alias_inside_itself(file, text):
    assert "2 b" in refusal(file, text)
    assert "an alias stands inside what it repeats; write the value out" in refusal(file, text)


def test_problems_of_the_same_file_are_told_by_line_and_once(file):
    with pytest.raises(ConfigError) as refused:
        read(file, "a: ${X}\nb: &b [*b]\n")
    first, second = refused.value.problems
    assert (first.line, second.line) == (1, 2)
    assert len(ConfigError([second, first, first]).problems) == 2


def test_an_error_is_one_line_whatever_the_key(file):
    with pytest.raises(ConfigError) as refused:
        raise ConfigError(read(file, '"a\\nb": 1\n"a\\nb": 1\n"a.b": {"c d": "${X}"}').problems)
    assert [line.removeprefix(f"{file}:").partition(": ")[0] for line in str(refused.value).split("\n")] == [
        "2 ['a\\nb']",
        "3 ['a.b']['c d']",
    ]


def test_what_files_fill_can_be_filled_again(file):
    (file.parent / "key").write_text("one\n")
    (file.parent / "a:-b").write_text("x")
    text = "a: {key: 'Bearer ${file:key}$$${N}', other: '${file:a:-b}${file:key}', plain: '${N}'}"
    filled = read(file, text, {"N": "1"}).filled
    key, other, plain = (filled["a", name] for name in ("key", "other", "plain"))
    assert [each.files for each in (key, other, plain)] == [
        (file.parent / "key",),
        (file.parent / "a:-b", file.parent / "key"),
        (),
    ]
    assert [each.again() == each.text for each in (key, other, plain)] == [True] * 3
    (file.parent / "key").write_text("two ${N}\r\n")
    assert [each.again() for each in (key, other, plain)] == ["Bearer two ${N}$1", "xtwo ${N}", "1"]
    (file.parent / "key").unlink()
    with pytest.raises(UnfilledError, match="cannot be read: No such file"):
        key.again()


def test_each_use_of_an_anchor_knows_its_files(file):
    (file.parent / "key").write_text("one")
    found = read(file, "a: &a {key: '${file:key}'}\nb: *a\nc: {<<: *a, d: 1}\n")
    assert [found.filled[name, "key"].files for name in "abc"] == [(file.parent / "key",)] * 3
