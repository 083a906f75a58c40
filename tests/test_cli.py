"""The `weir` command as its users run it: exit codes, exact texts, and a process that stops well."""

import contextlib
import importlib.metadata
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import orjson
import pytest

from proxy import app, cli
from tests.integration.weir import free_ports, ready

ROOT = pathlib.Path(__file__).parents[1]
SHIPPED = ROOT / "config" / "config.yaml"
GOOD = """
upstreams: {openai: {base_url: "https://api.openai.com/v1", api_key: "${KEY:-}"}}
routes: [{name: default, targets: [openai]}]
"""
BAD = """upstreams:
  openai: {base_ur: https://api.openai.com/v1}
routes:
  - {name: default, targets: [opanai]}
"""


def run(*arguments, cwd=ROOT, **environ):
    command = [sys.executable, "-m", "proxy.cli", *map(str, arguments)]
    env = {
        **{key: value for key, value in os.environ.items() if key != "WEIR_CONFIG"},
        "PYTHONPATH": str(ROOT),
        **environ,
    }
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=40)


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return pathlib.Path("config.yaml")


def said(capsys):
    captured = capsys.readouterr()
    return captured.out, captured.err


# -- check


def test_check_says_that_a_good_config_is_good(file, capsys):
    file.write_text(GOOD)
    assert cli.main(["check", "config.yaml"]) == 0
    assert said(capsys) == ("config.yaml: ok (1 upstreams, 1 routes, 0 plugins)\n", "")


def test_check_says_all_that_is_wrong_with_a_bad_one(file, capsys):
    file.write_text(BAD)
    assert cli.main(["check", "config.yaml"]) == 1
    assert said(capsys) == (
        "",
        (
            "config.yaml:2 upstreams.openai.base_url: missing key 'base_url'; add `base_url: https://api.openai.com/v1`\n"
            "config.yaml:2 upstreams.openai.base_ur: unknown key 'base_ur'; did you mean 'base_url'?\n"
            "config.yaml:4 routes[0].targets[0]: no upstream is named 'opanai'; did you mean 'openai'?\n"
        ),
    )


def test_check_finds_what_is_wrong_with_plugins_too(file, capsys):
    file.write_text("plugins: [{mine: {use: nowhere:Class}}]\n" + GOOD)
    assert cli.main(["check", "config.yaml"]) == 1
    assert said(capsys) == (
        "",
        (
            "config.yaml:1 plugins[0].mine: plugin 'mine' cannot be imported: No module named 'nowhere'; "
            "check `use:` and what is installed\n"
        ),
    )


def test_check_warns_of_what_works_but_not_as_one_may_think(file, capsys):
    file.write_text("redis: redis://127.0.0.1\n" + GOOD)
    assert cli.main(["check", "config.yaml"]) == 0
    out, err = said(capsys)
    assert out == "config.yaml: ok (1 upstreams, 1 routes, 0 plugins)\n"
    assert err == "config.yaml: warning: redis is set, but no plugin of this config keeps anything in a store\n"


def test_check_warns_of_a_key_whose_file_is_empty(file, capsys):
    pathlib.Path("key").write_text("\n")
    file.write_text(GOOD.replace("${KEY:-}", "${file:key}"))
    assert cli.main(["check", "config.yaml"]) == 0
    assert said(capsys)[1] == (
        "config.yaml: warning: upstream 'openai': the file of its api_key is empty, so that requests go up "
        "without a credential\n"
    )


@pytest.mark.parametrize("command", [["check", "none.yaml"], ["serve", "--config", "none.yaml"]])
def test_a_file_that_is_not_there_is_told_without_a_traceback(command, tmp_path):
    done = run(*command, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"none\.yaml:1[^\n]*\n", done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def test_the_config_that_ships_is_good():
    done = run("check", "config/config.yaml", OPENAI_API_KEY="")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "config/config.yaml: ok (1 upstreams, 1 routes, 1 plugins)\n"


# -- schema, plugins, help


def test_schema_is_a_json_schema_of_every_key(capsys):
    assert cli.main(["schema"]) == 0
    schema = orjson.loads(said(capsys)[0])
    assert schema["type"] == "object"
    assert list(schema["properties"]) == ["server", "redis", "upstreams", "plugins", "routes"]
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["upstreams", "routes"]
    described = [schema, *schema["$defs"].values()]
    assert not [name for part in described for name, key in part["properties"].items() if not key.get("description")]


def test_plugins_says_where_none_are_installed(capsys, monkeypatch):
    monkeypatch.setattr("proxy.registry.installed", dict)
    assert cli.main(["plugins"]) == 0
    assert said(capsys)[0] == "no plugins are installed (entry-point group weir.plugins)\n"


def test_plugins_lists_names_packages_and_settings(capsys, monkeypatch):
    from importlib.metadata import EntryPoint

    points = {
        "recording": EntryPoint("recording", "tests.recording:Recording", "weir.plugins"),
        "broken": EntryPoint("broken", "tests.nowhere:Class", "weir.plugins"),
    }
    monkeypatch.setattr("proxy.registry.installed", lambda: points)
    assert cli.main(["plugins"]) == 0
    lines = said(capsys)[0].splitlines()
    assert lines[0] == "broken  (tests.nowhere:Class, ?)"
    assert lines[1] == "recording  (tests.recording:Recording, ?)"
    assert "    failure_mode: `open` or `closed`: overrides what the plugin does when it fails" in lines
    assert "    stage" in lines
    assert "    answers (default: false)" in lines


HELP = {
    (): ["--version", "serve", "check", "explain", "demo", "plugins", "schema"],
    ("serve",): ["--config FILE", "$WEIR_CONFIG, else config/config.yaml", "SIGTERM"],
    ("explain",): ["--request REQ.json", "Nobody is asked"],
    ("check",): ["FILE the config file", "Everything of a start but the sockets."],
    ("demo",): ["Start a demo upstream"],
    ("plugins",): ["List the installed plugins"],
    ("keys",): ["new", "for the auth plugin"],
    ("keys", "new"): ["NAME", "--label K=V", "--expires DATE", "It is printed once"],
    ("ledger",): ["FILE", "--by COLUMN", "--since DATE", "principal, user", "--csv"],
    ("schema",): ["Settings of plugins are not in it."],
}


@pytest.mark.parametrize(("command", "words"), HELP.items(), ids=lambda value: " ".join(value) or "-")
def test_help(command, words, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main([*command, "--help"])
    out, _ = said(capsys)
    assert left.value.code == 0
    assert out.startswith(" ".join(["usage: weir", *command]))
    assert not [word for word in words if word not in " ".join(out.split())]


@pytest.mark.parametrize("arguments", [[], ["sreve"], ["serve", "--confg", "x"], ["check"], ["schema", "x"]])
def test_a_wrong_command_says_how_it_is_used(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 2
    assert said(capsys)[1].startswith("usage: weir")


@pytest.mark.parametrize(
    ("arguments", "usage"),
    [
        (["serve", "config.yaml"], "usage: weir serve [-h] [--config FILE]\nweir serve: error: "),
        (["check", "a.yaml", "config.yaml"], "usage: weir check [-h] FILE\nweir check: error: "),
        (["keys", "new", "ops", "config.yaml"], "usage: weir keys new [-h] [--label K=V] [--expires DATE] NAME\n"),
    ],
)
def test_what_a_command_does_not_take_is_told_with_its_own_usage(arguments, usage, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 2
    err = said(capsys)[1]
    assert err.startswith(usage)
    assert err.endswith("error: unrecognized arguments: config.yaml\n")


def test_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0
    assert said(capsys)[0] == f"weir {importlib.metadata.version('weir-proxy')}\n"


@pytest.mark.parametrize("command", ["schema", "plugins"])
def test_a_reader_that_has_seen_enough_is_no_traceback(command):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "proxy.cli", command], cwd=ROOT, stdout=closed, stderr=subprocess.PIPE, timeout=40
        )
    assert (done.returncode, done.stderr) == (0, b"")


# -- serve


@contextlib.contextmanager
def serving(folder, yaml=GOOD, *, arguments=("--config", "config.yaml"), more="", **environ):
    """A process that serves; its stdout and stderr are files in the folder."""
    port, admin = free_ports()
    head = f'server: {{listen: "127.0.0.1:{port}", admin: "127.0.0.1:{admin}"{more}}}\n'
    (folder / "config.yaml").write_text(head + yaml)
    command = [sys.executable, "-m", "proxy.cli", "serve", *arguments]
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        env = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=err)
    try:
        assert ready(f"http://127.0.0.1:{admin}", process), (folder / "err").read_text()
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def log(folder):
    return [orjson.loads(line) for line in (folder / "err").read_text().splitlines()]


DEMO = """
upstreams: {openai: {base_url: "https://api.openai.com/v1", api_key: "${KEY:-}", without_api_key: demo}}
routes: [{name: default, targets: [openai]}]
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_serves_and_stops_well(tmp_path, number):
    with serving(tmp_path, DEMO) as (process, url):
        body = b'{"model": "demo", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}'
        request = urllib.request.Request(f"{url}/v1/chat/completions", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert orjson.loads(answer.read())["choices"]
            identity = answer.headers["x-weir-request-id"]
        process.send_signal(number)
        assert process.wait(15) == 0
    told = log(tmp_path)
    messages = [line["message"] for line in told]
    assert "exception" not in {key for line in told for key in line}
    assert messages[-3:] == ["listening", "draining", "stopped"]
    assert told[-3]["url"] == url
    assert any("no API key" in message for message in messages)
    [line] = [orjson.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert (line["id"], line["outcome"], line["status"]) == (identity, "ok", 200)


def test_serve_finds_its_config_in_the_environment(tmp_path):
    with serving(tmp_path, arguments=(), WEIR_CONFIG=str(tmp_path / "config.yaml")) as (process, _):
        process.terminate()
        assert process.wait(15) == 0
    assert log(tmp_path)[-3]["config"] == str(tmp_path / "config.yaml")


def test_serve_lets_a_running_stream_end_and_exits_0(tmp_path):
    with serving(tmp_path, DEMO) as (process, url):
        body = b'{"model": "demo", "stream": true, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 20}'
        request = urllib.request.Request(f"{url}/v1/chat/completions", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            first = answer.readline()
            process.terminate()
            rest = answer.read()
        assert process.wait(15) == 0
    assert first.startswith(b"data: {")
    assert rest.endswith(b"data: [DONE]\n\n")


def test_serve_waits_no_longer_than_the_drain_timeout(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yaml = (
            f'upstreams: {{up: {{base_url: "http://127.0.0.1:{silent.getsockname()[1]}/v1"}}}}\n'
            "routes: [{name: default, targets: [up]}]\n"
        )
        with (
            serving(tmp_path, yaml, more=", drain_timeout: 200ms") as (process, url),
            socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as client,
        ):
            client.sendall(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n")
            upstream, _ = silent.accept()
            assert upstream.recv(10)
            began = time.monotonic()
            process.terminate()
            assert process.wait(20) == 0
            assert time.monotonic() - began < 15
            upstream.close()
    assert "Traceback" not in (tmp_path / "err").read_text()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("which", ["listen", "admin"])
def test_serve_says_which_port_is_taken_and_exits_1(tmp_path, which, workers):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        other = "admin" if which == "listen" else "listen"
        server = f'{which}: "{address}", {other}: "127.0.0.1:0", workers: {workers}'
        (tmp_path / "config.yaml").write_text(f"server: {{{server}}}\n{GOOD}")
        done = run("serve", "--config", "config.yaml", cwd=tmp_path)
    assert done.returncode == 1
    [line] = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert line == (
        f"weir: cannot listen: server.{which} {address}: address already in use; choose another address, or stop who has it"
    )
    assert "Traceback" not in done.stderr


def test_serve_says_which_host_is_none(tmp_path):
    (tmp_path / "config.yaml").write_text(f"server: {{listen: 'nowhere.invalid:80', admin: '127.0.0.1:0'}}\n{GOOD}")
    done = run("serve", "--config", "config.yaml", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("weir: cannot listen: server.listen nowhere.invalid:80: ")


def test_serve_starts_nothing_with_a_bad_config(tmp_path):
    (tmp_path / "config.yaml").write_text(BAD)
    done = run("serve", "--config", "config.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 3
    assert done.stderr.startswith("config.yaml:2 upstreams.openai.base_url: missing key")


def test_ctrl_c_is_no_traceback(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(app.Plan, "load", interrupted)
    assert cli.main(["check", str(SHIPPED)]) == 130
