"""`weir explain` as a transcript: each command of tests/golden/explain says just this, and opens no socket.

`python -m tests.test_explain` writes the transcript anew: read what has changed.
"""

import contextlib
import io
import os
import pathlib
import shlex
import socket
import subprocess
import sys

import pytest

from proxy import cli

FOLDER = pathlib.Path(__file__).parent / "golden" / "explain"
TRANSCRIPT = FOLDER / "transcript.txt"
PROMPT = "$ "
SECRETS = {"OPENAI_API_KEY": "canary-of-openai"}


def commands():
    return [line.removeprefix(PROMPT) for line in TRANSCRIPT.read_text().splitlines() if line.startswith(PROMPT)]


def told(command):
    """What it prints, and its exit status where that is not 0; in the folder, with the secrets in the environment."""
    out, err = io.TextIOWrapper(io.BytesIO(), write_through=True), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main(shlex.split(command)[1:])
    return out.buffer.getvalue().decode() + err.getvalue() + (f"(exit {status})\n" if status else "")


@pytest.fixture(autouse=True)
def house(monkeypatch):
    monkeypatch.chdir(FOLDER)
    for name in ("SEARCH_URL", "TTL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def offline(monkeypatch):
    """Whoever looks up a name, connects or listens, fails."""

    def refused(*_):
        raise AssertionError("weir explain asks nobody")

    for name in ("connect", "connect_ex", "bind", "listen"):
        monkeypatch.setattr(socket.socket, name, refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


@pytest.mark.parametrize("command", commands())
def test_it_says_what_the_transcript_says(command, offline):
    expected = TRANSCRIPT.read_text().split(f"{PROMPT}{command}\n", 1)[1].split(f"\n{PROMPT}", 1)[0]
    assert told(command).rstrip("\n") == expected.rstrip("\n")


def test_nothing_of_it_is_secret():
    text = TRANSCRIPT.read_text()
    said = "\n".join(line for line in text.splitlines() if not line.startswith(PROMPT))
    assert "canary" not in said.replace("x-canary", "").replace("${file:canary.key}", "")
    assert "What is a weir" not in said
    assert "cannot say" not in said


def test_a_request_comes_through_standard_input_too():
    command = [sys.executable, "-m", "proxy.cli", *shlex.split(commands()[0].replace("mini.json", "-"))[1:]]
    env = {**os.environ, "PYTHONPATH": str(FOLDER.parents[2])}
    body = (FOLDER / "mini.json").read_bytes()
    said = subprocess.run(command, input=body, env=env, capture_output=True, check=True, timeout=40)
    assert (said.stdout.decode(), said.stderr) == (told(commands()[0]), b"")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--path", "/v1//chat"], "the path is ambiguous"),
        (["--path", "v1"], "the request target must be a path"),
        (["--header", "x tier free"], "write it as in 'x-tier: free'"),
        (["--method", "GE T"], "'GE T' is no method"),
        (["--method", "trace"], "TRACE is not served: Weir answers it with 400"),
    ],
)
def test_what_could_never_arrive_is_a_wrong_use(arguments, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["explain", "config.yaml", *arguments])
    assert said in capsys.readouterr().err


def test_a_config_that_is_wrong_is_told_as_elsewhere(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert told("weir explain config.yaml") == (
        "config.yaml:4 upstreams.openai.api_key: the variable OPENAI_API_KEY is not set; "
        "set it, or give a default: ${OPENAI_API_KEY:-x}\n(exit 1)\n"
    )


def write():
    os.chdir(FOLDER)
    os.environ.update(SECRETS)
    TRANSCRIPT.write_text("\n".join(f"{PROMPT}{command}\n{told(command)}" for command in commands()))


if __name__ == "__main__":
    write()
