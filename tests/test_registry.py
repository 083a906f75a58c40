"""From config.yaml to plugin instances: what is shared, what is refused at the start, and with which line."""

import contextlib
import io
import pathlib
import re
from importlib.metadata import EntryPoint
from typing import Any

import pytest
from typing_extensions import override

from proxy import app, cli, registry, testing
from proxy.plugin import REDACTED, BodyFilter, Exchange, FailureMode, Key, Plugin, PluginConfig, Response
from proxy.source import ConfigError
from tests.recording import entry, journal

PRINCIPAL: Key[str] = Key("principal")
HERE = __name__
YAML = """\
upstreams: {up: {base_url: "http://127.0.0.1:1/v1"}}
plugins:
%s
routes:
  - name: default
    targets: [up]
"""


class Config(PluginConfig):
    size: int = 1


class Sized(Plugin[Config]):
    Config = Config


class Auth(Plugin[PluginConfig]):
    provides = (PRINCIPAL,)


class SizedAuth(Sized):
    provides = (PRINCIPAL,)


class Budget(Plugin[PluginConfig]):
    needs = (PRINCIPAL,)


class Breaks(Plugin[PluginConfig]):
    def __init__(self, config: PluginConfig, *, name: str) -> None:
        raise KeyError("COLOUR")


class Privacy(Plugin[PluginConfig]):
    provides = (REDACTED,)


class Keeps(Plugin[PluginConfig]):
    follows = (REDACTED,)


class Misspelt(Plugin[PluginConfig]):
    async def on_requst(self, exchange): ...


class Inherits(Misspelt):
    pass


class Async(Plugin[PluginConfig]):
    async def on_attempt_end(self, exchange, attempt): ...


class AsyncLifespan(Plugin[PluginConfig]):
    async def lifespan(self, services): ...


class BareLifespan(Plugin[PluginConfig]):
    async def lifespan(self, services):
        yield


class NoTuple(Plugin[PluginConfig]):
    needs = PRINCIPAL


class ForeignConfig(Plugin[PluginConfig]):
    Config = dict


class Picky(Plugin[PluginConfig]):
    def __init__(self, config: PluginConfig, *, name: str) -> None:
        raise ValueError("these two settings do not go together")


class NotAPlugin:
    pass


class Whole(Plugin[PluginConfig]):
    @override
    async def on_response(self, exchange: Exchange, response: Response) -> BodyFilter | None:
        return None


def plan(tmp_path: pathlib.Path, text: str) -> app.Plan:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    return app.Plan.load(file)


def refusal(tmp_path: pathlib.Path, *lines: str) -> str:
    """What `weir check` says of that list of plugins, without the folder."""
    with pytest.raises(ConfigError) as refused:
        plan(tmp_path, YAML % "\n".join(lines))
    return str(refused.value).replace(f"{tmp_path}/", "")


def used(name: str, cls: str, settings: str = "") -> str:
    return f"  - {name}: {{use: '{HERE}:{cls}'{settings}}}"


# -- what a class is refused for


@pytest.mark.parametrize(
    ("cls", "said"),
    [
        ("Misspelt", r"there is no hook 'on_requst'; did you mean 'on_request'\?"),
        ("Inherits", r"there is no hook 'on_requst'; did you mean 'on_request'\?"),
        ("Async", "hook 'on_attempt_end' has the wrong kind; write it as `def on_attempt_end`"),
        ("AsyncLifespan", "hook 'lifespan' has the wrong kind; write it as `def lifespan`"),
        ("BareLifespan", "'lifespan' is a bare generator; put `@contextlib.asynccontextmanager` above it"),
        ("NoTuple", "'needs' is not a tuple of keys; write it as `needs = \\(KEY,\\)`"),
        ("ForeignConfig", "its Config is not a PluginConfig; write it as `class Config\\(PluginConfig\\)`"),
    ],
)
def test_a_class_that_could_never_work_is_a_start_up_error_with_the_line(tmp_path: pathlib.Path, cls: str, said: str):
    told = refusal(tmp_path, used("ok", "Auth"), used("it", cls))
    assert re.fullmatch(rf"config\.yaml:4 plugins\[1\]\.it: plugin 'it' \({cls}\): {said}", told), told


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (used("it", "NotAPlugin"), "is not a subclass of proxy.plugin.Plugin"),
        (used("it", "Nowhere"), "has no attribute 'Nowhere'"),
        ("  - it: {use: 'no.such.module:It'}", "No module named 'no'"),
        (used("it", "Picky"), "these two settings do not go together"),
        (used("it", "Sized", ", sise: 2"), "did you mean 'size'?"),
        (used("it", "Sized", ", size: two"), "size"),
        (used("it", "Sized", ", failure_mode: ajar"), "failure_mode"),
    ],
)
def test_what_cannot_be_built_is_a_start_up_error_with_the_line(tmp_path: pathlib.Path, entry: str, said: str):
    told = refusal(tmp_path, used("ok", "Auth"), entry)
    assert told.startswith("config.yaml:4 plugins[1].it")
    assert said in told


def test_all_faults_are_told_at_once(tmp_path: pathlib.Path):
    told = refusal(tmp_path, used("a", "Misspelt"), used("b", "Async"), used("c", "Sized", ", x: 1"))
    assert [line.partition(" ")[0] for line in told.splitlines()] == ["config.yaml:3", "config.yaml:4", "config.yaml:5"]


def test_a_plugin_that_breaks_while_it_is_made_is_told_with_its_line_and_its_trace_is_logged(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
):
    assert refusal(tmp_path, used("it", "Breaks")) == (
        "config.yaml:3 plugins[0].it: plugin 'it' cannot be made: KeyError: 'COLOUR'; "
        "the log has where it failed; without its entry here Weir starts"
    )
    assert 'raise KeyError("COLOUR")' in caplog.text


# -- order


def test_a_plugin_that_needs_a_fact_stands_after_the_one_that_provides_it(tmp_path: pathlib.Path):
    chain = plan(tmp_path, YAML % "\n".join([used("auth", "Auth"), used("budget", "Budget")])).chains[0]
    assert [plugin.name for plugin in chain] == ["auth", "budget"]


def test_a_wrong_order_is_a_start_up_error_that_names_the_line(tmp_path: pathlib.Path):
    assert refusal(tmp_path, used("budget", "Budget"), used("auth", "Auth")) == (
        "config.yaml:3 plugins[0].budget: plugin 'budget' needs 'principal', which none before it gives on route "
        "'default'; put auth before it"
    )


def test_who_gives_a_fact_is_named_once_whatever_routes_set_otherwise(tmp_path: pathlib.Path):
    text = YAML % "\n".join([used("budget", "Budget"), used("sized", "SizedAuth")])
    other = "  - {name: other, match: {path: /v1/x}, targets: [up], plugins: {sized: {size: 2}}}\n"
    with pytest.raises(ConfigError, match=r"on route 'default'; put sized before it"):
        plan(tmp_path, text.replace("routes:\n", f"routes:\n{other}"))


def test_a_fact_that_a_route_switches_off_is_missing_there(tmp_path: pathlib.Path):
    text = YAML % "\n".join([used("auth", "Auth"), used("budget", "Budget")])
    with pytest.raises(ConfigError) as refused:
        plan(tmp_path, text + "    plugins: {auth: off}\n")
    assert str(refused.value).partition("config.yaml")[2] == (
        ":4 plugins[1].budget: plugin 'budget' needs 'principal', which none before it gives on route 'default'; "
        "auth is off there: switch budget off, too, or leave auth on"
    )


def test_a_fact_that_nobody_of_the_chain_gives_names_who_could(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    points = {
        "broken": EntryPoint("broken", "no_such_module:Broken", registry.GROUP),
        "keyring": EntryPoint("keyring", f"{HERE}:Auth", registry.GROUP),
        "sized": EntryPoint("sized", f"{HERE}:Sized", registry.GROUP),
        "token": EntryPoint("token", f"{HERE}:Auth", registry.GROUP),
    }
    monkeypatch.setattr(registry, "installed", lambda: points)
    assert refusal(tmp_path, used("budget", "Budget")).endswith("; put keyring or token before it")
    monkeypatch.setattr(registry, "installed", dict)
    assert refusal(tmp_path, used("budget", "Budget")).endswith("; put a plugin that provides it before it")


def test_what_follows_a_fact_stands_behind_who_gives_it(tmp_path: pathlib.Path):
    assert refusal(tmp_path, used("keeps", "Keeps"), used("privacy", "Privacy")) == (
        "config.yaml:3 plugins[0].keeps: plugin 'keeps' stands before 'privacy', which gives 'redacted text', on route "
        "'default'; put privacy before it"
    )
    chain = plan(tmp_path, YAML % "\n".join([used("privacy", "Privacy"), used("keeps", "Keeps")])).chains[0]
    assert [plugin.name for plugin in chain] == ["privacy", "keeps"]


def test_what_follows_a_fact_that_nobody_gives_stands_anywhere(tmp_path: pathlib.Path):
    text = YAML % "\n".join([used("keeps", "Keeps"), used("privacy", "Privacy")])
    assert plan(tmp_path, YAML % used("keeps", "Keeps")).chains[0]
    assert plan(tmp_path, text + "    plugins: {privacy: off}\n").chains[0]


# -- instances


TWO_ROUTES = """\
upstreams: {up: {base_url: "http://127.0.0.1:1/v1"}}
plugins:
  - sized: {use: '%s:Sized', size: 5}
routes:
  - {name: one, match: {path: /v1/one}, targets: [up]%s}
  - {name: two, targets: [up]%s}
"""


def chains(tmp_path: pathlib.Path, one: str = "", two: str = "") -> list[list[Any]]:
    return plan(tmp_path, TWO_ROUTES % (HERE, one, two)).chains


def test_routes_with_the_same_settings_share_one_instance(tmp_path: pathlib.Path):
    (one,), (two,) = chains(tmp_path)
    assert one is two


def test_other_settings_get_another_instance_of_the_same_name(tmp_path: pathlib.Path):
    (one,), (two,) = chains(tmp_path, ", plugins: {sized: {size: 7}}")
    assert (one.name, one.config.size) == ("sized", 7)
    assert (two.name, two.config.size) == ("sized", 5)


def test_an_override_changes_what_it_names_and_keeps_the_rest(tmp_path: pathlib.Path):
    (one,), _ = chains(tmp_path, ", plugins: {sized: {failure_mode: open}}")
    assert (one.config.size, one.config.failure_mode) == (5, FailureMode.OPEN)


def test_off_leaves_the_plugin_out_of_a_route(tmp_path: pathlib.Path):
    one, two = chains(tmp_path, ", plugins: {sized: off}")
    assert one == []
    assert [plugin.name for plugin in two] == ["sized"]


def test_a_plugin_that_is_off_everywhere_is_still_checked(tmp_path: pathlib.Path):
    off = ", plugins: {sized: off}"
    with pytest.raises(ConfigError, match=r"config\.yaml:3 plugins\[0\]\.sized\.size"):
        plan(tmp_path, (TWO_ROUTES % (HERE, off, off)).replace("size: 5", "size: five"))


def test_a_fault_in_an_override_names_the_routes_line(tmp_path: pathlib.Path):
    with pytest.raises(ConfigError, match=r"config\.yaml:5 routes\[0\]\.plugins\.sized\.sise"):
        chains(tmp_path, ", plugins: {sized: {sise: 7}}")


# -- names


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two plugins as packages offer them, of which one breaks when it is imported."""
    points = {
        "sized": EntryPoint("sized", f"{HERE}:Sized", registry.GROUP),
        "broken": EntryPoint("broken", "no_such_module:Broken", registry.GROUP),
    }
    monkeypatch.setattr(registry, "installed", lambda: points)


@pytest.mark.usefixtures("installed")
def test_a_name_of_an_entry_point_needs_no_use_and_others_are_not_imported(tmp_path: pathlib.Path):
    (plugin,) = plan(tmp_path, YAML % "  - sized").chains[0]
    assert isinstance(plugin, Sized)


@pytest.mark.usefixtures("installed")
def test_one_class_serves_under_several_names(tmp_path: pathlib.Path):
    lines = "  - small: {use: sized, size: 1}\n  - large: {use: sized, size: 9}"
    assert [(p.name, p.config.size) for p in plan(tmp_path, YAML % lines).chains[0]] == [("small", 1), ("large", 9)]


@pytest.mark.usefixtures("installed")
def test_an_unknown_plugin_is_told_with_the_nearest_of_those_installed(tmp_path: pathlib.Path):
    told = refusal(tmp_path, "  - sizzed")
    assert told == "config.yaml:3 plugins[0].sizzed: no plugin is named 'sizzed'; did you mean 'sized'?"
    assert refusal(tmp_path, "  - gzip").endswith("no plugin is named 'gzip'; installed plugins: sized, broken")


@pytest.mark.usefixtures("installed")
def test_weir_plugins_lists_them_with_their_settings(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["plugins"]) == 0
    said = capsys.readouterr().out
    assert f"sized  ({HERE}:Sized" in said
    assert "    size" in said
    assert "broken  (no_such_module:Broken" in said


# -- lifespan


async def test_lifespans_are_entered_in_order_and_left_in_reverse_before_and_after_all_requests():
    journal.clear()
    async with testing.upstream(testing.chat("hi")) as upstream, testing.weir(upstream, [entry("a"), entry("b")]):
        assert journal == ["a lifespan", "b lifespan"]
    assert journal == ["a lifespan", "b lifespan", "b left", "a left"]


async def test_a_lifespan_that_fails_stops_the_start_and_leaves_those_before():
    journal.clear()
    async with testing.upstream(testing.chat("hi")) as upstream:
        starts = testing.weir(upstream, [entry("a"), entry("b", fails="lifespan"), entry("c")])
        with pytest.raises(ConfigError, match=r"config\.yaml:3 .*plugin 'b' cannot start: RuntimeError: b fails"):
            async with starts:
                pytest.fail("it started")
    assert journal == ["a lifespan", "b lifespan", "a left"]


def test_weir_serve_says_which_plugin_cannot_start(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    for prepares in ("logs.configure", "process.make_room_for_sockets"):  # of the whole process, which is pytest's
        monkeypatch.setattr(f"proxy.cli.{prepares}", lambda: None)
    file = tmp_path / "config.yaml"
    server = "server: {listen: '127.0.0.1:0', admin: '127.0.0.1:0'}\n"
    file.write_text(server + YAML % "  - bad: {use: 'tests.recording:Recording', fails: lifespan}")
    with contextlib.redirect_stderr(io.StringIO()) as said:
        assert cli.main(["serve", "--config", str(file)]) == 1
    assert said.getvalue().startswith(f"{file}:4 plugins[0].bad: plugin 'bad' cannot start: RuntimeError: bad fails in")


# -- warnings


def test_a_body_filter_is_told_at_the_start_where_the_hook_is_annotated(tmp_path: pathlib.Path):
    said = plan(tmp_path, YAML % used("whole", "Whole")).warnings()
    assert said == ["plugin 'whole' holds whole bodies: on streams its routes lose the time to the first token"]
    assert plan(tmp_path, YAML % used("sized", "Sized")).warnings() == []
