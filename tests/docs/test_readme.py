"""What the README shows is run: its shell lines, its snippet, its YAML, and the error that it promises."""

import os
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.integration.weir import Weir, free_ports, ready, stop

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def block(language: str, having: str = "") -> str:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return next(text for text in blocks if having in text)


@pytest.fixture(scope="module")
def weir() -> Iterator[Weir]:
    """`make run` without a key: the config that ships, on ports that are free here."""
    port, admin = free_ports()
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("OPENAI", "WEIR"))}
    environ |= {"WEIR_LISTEN": f"127.0.0.1:{port}", "WEIR_ADMIN": f"127.0.0.1:{admin}"}
    command = [sys.executable, "-m", "proxy.cli", "serve"]
    process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert ready(f"http://127.0.0.1:{admin}", process)
        yield Weir(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin}", process.pid)
    finally:
        stop(process)
        process.communicate()


def test_the_curl_line_answers_as_a_stream(weir: Weir) -> None:
    line = block("sh", "curl").replace("http://127.0.0.1:8080", weir.root)
    said = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=30, check=True).stdout
    assert said.startswith("data: {")
    assert said.endswith("data: [DONE]\n\n")


def test_the_openai_snippet_prints_an_answer(weir: Weir) -> None:
    snippet = block("python", "OpenAI").replace("http://127.0.0.1:8080", weir.root)
    said = subprocess.run(
        [sys.executable, "-c", snippet], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    assert len(said.split()) > 3


def test_the_routes_of_the_tour_are_a_valid_config(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(block("yaml", "routes:"))
    done = subprocess.run(
        [sys.executable, "-m", "proxy.cli", "check", str(file)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_mistyped_key_is_told_as_promised(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("upstreams:\n  openai: {base_ur: http://x/v1}\nroutes: [{name: a, targets: [openai]}]\n")
    command = [sys.executable, "-m", "proxy.cli", "check", "config.yaml"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert done.returncode == 1
    assert block("text", "unknown key").strip() in done.stderr


def test_every_page_that_it_names_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target
