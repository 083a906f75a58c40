import pathlib
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from proxy.scalars import Duration, ExistingFile
from proxy.source import EACH, ConfigError, Path, Problem, Source, read_yaml, validate
from proxy.wording import fault

TEXT = """\
plugins:
  - auth:
      keys:
        - {name: a, token: "${TOKEN}"}
        - {name: b}
routes:
  - name: default
    plugins:
      auth: {limit: 5}
"""


def read(folder: pathlib.Path, text: str, environ: Mapping[str, str] | None = None) -> Source:
    file = folder / "config.yaml"
    file.write_text(text)
    return Source.read(file, environ or {})


@pytest.fixture
def source(tmp_path):
    return read(tmp_path, TEXT, {"TOKEN": "hunter2"})


class Settings(BaseModel):
    """As a plugin would have them."""

    model_config = ConfigDict(extra="forbid", strict=True)


def errors(source: Source, model: type[BaseModel], at: Path = ()) -> list[str]:
    problems: list[Problem] = []
    data = source.data
    for step in at:
        data = data[step]
    assert validate(source, model, data, at, problems) is None
    return [str(problem).removeprefix(f"{source.file}:") for problem in problems]


def test_a_line_is_that_of_the_key_or_of_what_it_stands_in(source):
    assert source.line(("plugins", 0, "auth", "keys", 1, "name")) == 5
    assert source.line(("plugins", 0, "auth", "keys", 1, "token")) == 5
    assert source.line(("plugins", 7, "cache")) == 1
    assert source.line(("nothing",)) == 1


def test_a_problem_reads_as_a_line_to_jump_to(source):
    problem = source.problem(
        ("routes", 0, "targets", 1, "upstream"), "no upstream is named 'gpuu'", "did you mean 'gpu'?"
    )
    assert str(problem) == (
        f"{source.file}:7 routes[0].targets[1].upstream: no upstream is named 'gpuu'; did you mean 'gpu'?"
    )


def test_read_tells_all_that_is_wrong_with_the_text(tmp_path):
    with pytest.raises(ConfigError) as refused:
        read(tmp_path, "b: ${B}\na: ${A}\na: 1\n")
    assert [problem.line for problem in refused.value.problems] == [1, 2, 3]


def test_scan_goes_on_where_a_value_is_missing(tmp_path):
    (tmp_path / "config.yaml").write_text("a: ${A}\nb: 1\n")
    problems: list[Problem] = []
    source = Source.scan(tmp_path / "config.yaml", {}, problems)
    assert source is not None
    assert source.data["b"] == 1
    assert [problem.path for problem in problems] == [("a",)]


def test_paths_start_at_the_folder_of_the_file(tmp_path, source):
    assert (source.file, source.folder) == (tmp_path / "config.yaml", tmp_path)


def test_find_walks_keys_and_indexes(source):
    assert list(source.find("plugins", EACH, "auth", "keys", EACH, "name")) == [
        (("plugins", 0, "auth", "keys", 0, "name"), "a"),
        (("plugins", 0, "auth", "keys", 1, "name"), "b"),
    ]
    assert list(source.find("routes", "name")) == []


def test_values_are_shown_unless_they_came_through_a_reference(source):
    at = ("plugins", 0, "auth", "keys", 0, "token")
    assert source.show(at, "hunter2") == "the value made from ${TOKEN}"
    assert source.show((*at, "below"), "x") == "the value made from ${TOKEN}"
    assert source.show((), "copied: hunter2") == "the value made from ${TOKEN}"
    shown = {"a": "'a'", 5: "5", 1.5: "1.5", True: "true", None: "nothing"}
    assert {value: source.show((), value) for value in shown} == shown
    assert [source.show((), value) for value in ([], {}, "x" * 100)] == ["a list", "a mapping", f"'{'x' * 59}…'"]


def test_scrub_takes_secrets_out_of_any_text(tmp_path):
    source = read(
        tmp_path, "a: ${LONG}\nb: ${SHORT}\nc: '${LINES}'\n", {"LONG": "s3cr3t", "SHORT": "ab", "LINES": "x\ny'z"}
    )
    assert source.scrub("Bearers3cr3t ab cab 'x\\ny'z' x\ny'z") == "Bearer${LONG} ${SHORT} cab '${LINES}' ${LINES}"


def test_settings_become_a_model(source):
    class Key(Settings):
        name: str
        token: SecretStr | None = None

    class Auth(Settings):
        keys: list[Key]

    at = ("plugins", 0, "auth")
    problems: list[Problem] = []
    found = validate(source, Auth, source.data["plugins"][0]["auth"], at, problems)
    assert found == Auth(keys=[Key(name="a", token=SecretStr("hunter2")), Key(name="b")])
    assert problems == []


def test_an_error_in_settings_has_the_line_in_the_file(source):
    class Key(Settings):
        name: str
        sha256: str = Field(examples=["9f86d0"])

    class Auth(Settings):
        keys: list[Key]

    assert errors(source, Auth, ("plugins", 0, "auth")) == [
        "4 plugins[0].auth.keys[0].sha256: missing key 'sha256'; add `sha256: 9f86d0`",
        "4 plugins[0].auth.keys[0].token: unknown key 'token'; valid keys: name, sha256",
        "5 plugins[0].auth.keys[1].sha256: missing key 'sha256'; add `sha256: 9f86d0`",
    ]


def test_text_from_the_environment_stays_text_where_text_is_wanted(tmp_path):
    class Plugin(Settings):
        names: list[str]
        count: int

    source = read(tmp_path, "names:\n- ${DIGITS}\n- ${SWITCH}\ncount: ${DIGITS}\n", {"DIGITS": "007", "SWITCH": "no"})
    assert validate(source, Plugin, source.data, (), []) == Plugin(names=["007", "no"], count=7)


def test_what_yaml_has_no_type_for_is_written_as_text_or_list(tmp_path):
    text = "colour: green\nmoney: '0.1'\npair: [3, 4]\npart: 1\n"
    source = read(tmp_path, text)
    assert validate(source, Wide, source.data, (), []) == Wide(
        colour=Colour.GREEN, money=Decimal("0.1"), pair=(3, 4), part=1.0
    )


def test_a_value_without_its_variable_is_told_once(tmp_path):
    class Plugin(Settings):
        token: str
        count: int

    (tmp_path / "config.yaml").write_text("token: ${TOKEN}\ncount: x\n")
    problems: list[Problem] = []
    source = Source.scan(tmp_path / "config.yaml", {}, problems)
    assert source is not None
    assert validate(source, Plugin, source.data, (), problems) is None
    assert [problem.path for problem in problems] == [("token",), ("count",)]


def test_validators_of_authors_cannot_spill_a_secret(tmp_path):
    class Plugin(Settings):
        token: str
        kind: str
        url: str

        @field_validator("token")
        @classmethod
        def _token(cls, token: str) -> str:
            raise ValueError(f"bad token {token}\n  and {token!r}; write another than {token}")

        @field_validator("kind")
        @classmethod
        def _kind(cls, kind: str) -> str:
            raise fault("{value} is no kind ({kind})", "write a or b")

        @field_validator("url")
        @classmethod
        def _url(cls, url: str) -> str:
            raise AssertionError("must be empty")

    text = 'token: "${T}"\nkind: ${K}\nurl: http://${T}/\n'
    assert errors(read(tmp_path, text, {"T": "hunter2\n'", "K": "k"}), Plugin) == [
        '1 token: bad token ${T} and "${T}"; write another than ${T}',
        "2 kind: the value made from ${K} is no kind (text); write a or b",
        "3 url: must be empty; change this value",
    ]


def test_a_fault_may_point_to_a_key_below(tmp_path):
    class Plugin(Settings):
        low: int
        high: int

        @model_validator(mode="after")
        def _order(self) -> "Plugin":
            if self.low > self.high:
                raise fault("low is more than high", "swap them", key="high")
            return self

    assert errors(read(tmp_path, "low: 2\nhigh: 1\n"), Plugin) == ["2 high: low is more than high; swap them"]


def test_a_file_of_a_plugins_own_is_read_as_config_is(tmp_path):
    class Limits(BaseModel):
        model_config = ConfigDict(strict=True, extra="forbid")

        low: int
        list_in: ExistingFile

    (tmp_path / "list.txt").touch()
    file = tmp_path / "limits.yaml"
    file.write_text("low: ${LOW}\nlist_in: list.txt\n")
    assert read_yaml(file, Limits, {"LOW": "5"}) == Limits.model_construct(low=5, list_in=tmp_path / "list.txt")
    file.write_text("low: ${HIGH}\nlist_in: ${LOW}\nlower: 1\n")
    with pytest.raises(ConfigError) as refused:
        read_yaml(file, Limits, {"LOW": "none"})
    told = [str(problem).removeprefix(f"{file}:") for problem in refused.value.problems]
    assert told[0] == "1 low: the variable HIGH is not set; set it, or give a default: ${HIGH:-x}"
    assert told[1].startswith("2 list_in: the value made from ${LOW} is not a file that exists; mount it, or correct")
    assert told[2:] == ["3 lower: unknown key 'lower'; did you mean 'low'?"]
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        read_yaml(tmp_path / "none.yaml", Limits, {})


def test_an_override_shows_the_lines_of_what_it_leaves_alone(tmp_path):
    class Cache(Settings):
        ttl: Duration
        size: int
        token: str
        tags: dict[str, int]

    text = """\
plugins:
  - cache:
      ttl: ten
      size: x
      token: ${TOKEN}
      tags: {a: 1, b: x}
routes:
  - plugins:
      cache:
        size: y
        tags: {a: z}
"""
    source = read(tmp_path, text, {"TOKEN": "12345"})
    base, over = ("plugins", 0, "cache"), ("routes", 0, "plugins", "cache")
    data = {**source.data["plugins"][0]["cache"], **source.data["routes"][0]["plugins"]["cache"]}
    problems: list[Problem] = []
    assert validate(source.overlaid(base, over), Cache, data, over, problems) is None
    assert [(problem.line, problem.path[4:]) for problem in problems] == [
        (3, ("ttl",)),
        (10, ("size",)),
        (11, ("tags", "a")),
    ]


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


class Cat(Settings):
    kind: Literal["cat"]
    lives: int


class Dog(Settings):
    kind: Literal["dog"]


class Wide(Settings):
    text: str = Field(default="abc", min_length=2, max_length=3, pattern="^[a-z]+$")
    whole: int = Field(default=1, gt=0, lt=10, multiple_of=2)
    part: float = Field(default=0.5, ge=0, le=1, allow_inf_nan=False)
    switch: bool = True
    money: Decimal = Decimal(1)
    many: list[int] = Field(default=[], max_length=2)
    pair: tuple[int, int] = (1, 2)
    table: dict[str, float] = {}
    colour: Colour = Colour.RED
    either: int | list[int] = 1
    pet: Annotated[Cat | Dog, Field(discriminator="kind")] | None = None
    nested: Cat | None = None
    file: ExistingFile | None = None
    nothing: None = None
    raw: bytes = b""


@pytest.mark.parametrize(
    ("yaml", "expected"),
    [
        ("text: a", "must have 2 or more characters; write a longer text"),
        ("text: abcd", "must have at most 3 characters; write a shorter text"),
        ("text: AB", "'AB' does not match ^[a-z]+$; write it in that form"),
        ("text: 5", "must be text, not a number; put it in quotes"),
        ("text:", "is empty; write a value or remove the key"),
        ("whole: 0", "must be more than 0, not 0; write a larger number"),
        ("whole: 10", "must be less than 10, not 10; write a smaller number"),
        ("whole: 3", "must be a multiple of 2, not 3; write such a number"),
        ("part: -1", "must be 0.0 or more, not -1; write a larger number"),
        ("part: 1.5", "must be 1.0 or less, not 1.5; write a smaller number"),
        ("part: .nan", "must be a finite number; write a number, as in 0.5"),
        ("part: x", "must be a number, not text; write it without quotes, as in 0.5"),
        ("switch: 1", "must be true or false, not a number; write true or false, without quotes"),
        ("many: [1, 2, 3]", "must have at most 2 entries; remove some"),
        ("many: {a: 1}", "must be a list, not a mapping; write it as [a, b], or as lines that start with `- `"),
        ("table: []", "must be a mapping, not a list; write `key: value` lines below it"),
        (
            "file: gone.txt",
            "'gone.txt' is not a file that exists; mount it, or correct the path; it starts at this file's folder",
        ),
        ("nothing: 1", "must be empty, not a number; remove the value"),
        ("raw: [1]", "a list is not valid (bytes type); change this value"),
        ("either: x", "must be a whole number, not text; write it without quotes and without a point, as in 1"),
        ("pet: {lives: 9}", "lacks the key 'kind' that says which kind it is; add it"),
        ("pet: {kind: cow}", "is of no known kind; set 'kind' to one of 'cat', 'dog'"),
    ],
)
def test_what_pydantic_refuses_is_said_in_our_words(tmp_path, yaml, expected):
    path = yaml.partition(":")[0]
    assert f"1 {path}: {expected}" in errors(read(tmp_path, yaml), Wide)


def test_paths_have_no_names_that_only_pydantic_knows(tmp_path):
    yaml = "table: {a b: x}\neither: [x]\npet: {kind: cat, lifes: 9}\nnested: {kind: cat}\npair: [1]\n"
    assert errors(read(tmp_path, yaml), Wide) == [
        "5 pair[1]: must have 2 or more entries; add one",
        "1 table['a b']: must be a number, not text; write it without quotes, as in 0.5",
        "2 either: must be a whole number, not a list; write it without quotes and without a point, as in 1",
        "2 either[0]: must be a whole number, not text; write it without quotes and without a point, as in 1",
        "3 pet.lives: missing key 'lives'; add `lives: ...`",
        "3 pet.lifes: unknown key 'lifes'; did you mean 'lives'?",
        "4 nested.lives: missing key 'lives'; add `lives: ...`",
    ]


@pytest.mark.parametrize("field", list(Wide.model_fields))
def test_nothing_of_pydantics_own_shows(tmp_path, field):
    class Lax(Wide):
        model_config = ConfigDict(strict=False)

    problems: list[Problem] = []
    for value in ("x", "5", "1.5", "true", "[x]", "{x: y}", "''", "2024-01-01", "-1", "[[]]", "9" * 20, ".inf", "~"):
        for model in (Wide, Lax):
            source = read(tmp_path, f"{field}: {value}")
            validate(source, model, source.data, (), problems)
    assert problems
    for problem in problems:
        text = f"{problem.what}; {problem.fix}"
        assert not any(
            word in text for word in ("Input", "input", "type=", "http", "string", "dictionary", "{", "None")
        )
