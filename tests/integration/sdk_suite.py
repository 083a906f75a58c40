"""The official `openai` package's own tests, as released, run against a base URL."""

import contextlib
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree as ET

import orjson

from tests.integration import environments
from tests.integration.weir import free_ports, stop

DOUBLE = Path(__file__).with_name("sdk_double.py")
# Every test of the package that talks to the server of TEST_API_BASE_URL.
TESTS = ("tests/api_resources", "tests/lib/test_fine_tuning_positional_arguments.py")
SECONDS = 600
TOOLS = ("pytest", "pytest-asyncio", "pytest-xdist", "rich", "orjson")
# They name the way that a request came, not what it says.
OF_THE_HOP = {"host", "connection"}


@dataclass(frozen=True)
class Suite:
    interpreter: Path
    folder: Path


@dataclass(frozen=True)
class Double:
    root: str
    record: Path

    def requests(self) -> Counter[tuple[object, ...]]:
        """What arrived since the last call, in no order: the package's tests run in parallel."""
        lines = self.record.read_bytes().splitlines()
        os.truncate(self.record, 0)
        return Counter(comparable(orjson.loads(line)) for line in lines)


def comparable(request: dict[str, object]) -> tuple[object, ...]:
    headers = request["headers"]
    assert isinstance(headers, list)
    kept = tuple((name, value) for name, value in headers if name not in OF_THE_HOP)
    return request["method"], request["target"], kept, request["body"]


def suite() -> Suite:
    released = version("openai")
    folder = environments.sources("openai", released)
    extras = f"openai[aiohttp,realtime]=={released}"
    return Suite(environments.python(f"openai-suite-{released}", extras, *TOOLS), folder)


@contextlib.contextmanager
def double(suite: Suite, folder: Path) -> Iterator[Double]:
    port, _ = free_ports()
    record = folder / "requests.jsonl"
    command = [str(suite.interpreter), str(DOUBLE), str(port), str(record)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield Double(f"http://127.0.0.1:{port}", record)
    finally:
        stop(process)
        if process.stdout is not None:
            process.stdout.close()


def outcomes(suite: Suite, base_url: str, report: Path) -> dict[str, str]:
    """`passed`, `failed` or `skipped` by test id."""
    options = ["-q", "-n", "2", "-p", "no:cacheprovider", "--tb=no", f"--junitxml={report}"]
    command = [str(suite.interpreter), "-m", "pytest", *options, *TESTS]
    environment = {**os.environ, "TEST_API_BASE_URL": base_url, "NO_PROXY": "127.0.0.1"}
    environment.pop("PYTHONPATH", None)
    subprocess.run(command, cwd=suite.folder, env=environment, timeout=SECONDS, check=False, stdout=subprocess.DEVNULL)
    cases = ET.parse(report).iter("testcase")
    return {f"{case.get('classname')}::{case.get('name')}": outcome(case) for case in cases}


def outcome(case: ET.Element) -> str:
    kinds = {child.tag for child in case}
    if kinds & {"failure", "error"}:
        return "failed"
    return "skipped" if "skipped" in kinds else "passed"
