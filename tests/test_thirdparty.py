"""A plugin that a third party ships as a package: installed by pip, found by its entry point, at work over HTTP."""

import asyncio
import pathlib
import subprocess
import sys

import pytest

from proxy import testing
from tests import packages, wire
from tests.integration.weir import free_ports, ready, stop

ROOT = pathlib.Path(__file__).parents[1]
WEIR = [sys.executable, "-m", "proxy.cli"]
YAML = """\
server: {{listen: "127.0.0.1:{port}", admin: "127.0.0.1:{admin}"}}
upstreams: {{up: {{base_url: "{url}/v1"}}}}
plugins:
  - stamp: {{word: fragile}}
routes:
  - {{name: default, targets: [up]}}
"""


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("site")
    packages.install(ROOT / "tests/thirdparty", folder)
    return folder


def weir(target: pathlib.Path, *arguments: str) -> tuple[int, str]:
    ran = packages.run([*WEIR, *arguments], target, ROOT)
    return ran.returncode, ran.stdout


def config(folder: pathlib.Path, url: str = "http://127.0.0.1:1", ports: tuple[int, int] = (1, 2)) -> pathlib.Path:
    file = folder / "config.yaml"
    file.write_text(YAML.format(url=url, port=ports[0], admin=ports[1]))
    return file


def test_weir_plugins_lists_it_with_its_package_and_settings(target: pathlib.Path):
    code, said = weir(target, "plugins")
    assert code == 0
    assert "stamp  (weir_stamp:Stamp, weir-stamp)\n" in said
    assert "    word" in said


def test_weir_check_builds_it_and_imports_no_other(target: pathlib.Path, tmp_path: pathlib.Path):
    file = config(tmp_path)
    assert weir(target, "check", str(file)) == (0, f"{file}: ok (1 upstreams, 1 routes, 1 plugins)\n")


def test_weir_check_tells_its_wrong_settings_with_the_line(target: pathlib.Path, tmp_path: pathlib.Path):
    file = config(tmp_path)
    file.write_text(file.read_text().replace("word: fragile", "wrd: fragile"))
    code, said = weir(target, "check", str(file))
    assert code == 1
    assert f"{file}:4 plugins[0].stamp.wrd: unknown key 'wrd'; did you mean 'word'?" in said


async def test_weir_serve_runs_it(target: pathlib.Path, tmp_path: pathlib.Path):
    port, admin = ports = free_ports()
    async with testing.upstream(testing.chat("hi")) as upstream:
        command = [*WEIR, "serve", "--config", str(config(tmp_path, upstream.url, ports))]
        environment = packages.environment(target)
        quiet = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        process = await asyncio.to_thread(subprocess.Popen, command, cwd=ROOT, env=environment, **quiet)
        try:
            assert await asyncio.to_thread(ready, f"http://127.0.0.1:{admin}", process)
            served = await wire.fetch(f"http://127.0.0.1:{port}", request(b"x-owner: me\r\n"))
            refused = await wire.fetch(f"http://127.0.0.1:{port}", request(b""))
        finally:
            await asyncio.to_thread(stop, process)
            process.communicate()
    assert (served.status, served.head.get("x-stamped-for")) == (200, "me")
    assert [received.headers["x-stamp"] for received in upstream.requests] == ["fragile"]
    assert (refused.status, b'"code":"no_owner"' in refused.body) == (403, True)


def request(fields: bytes) -> bytes:
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\n"
    return head + fields + b"content-length: 2\r\n\r\n{}"
