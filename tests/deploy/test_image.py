"""What the image is made of: a lock that fits, a Dockerfile that keeps to its own rules, a wheel that can start alone."""

import pathlib
import re
import sys
import tomllib

import orjson
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import packages
from tests.deploy.tools import ROOT, run

DOCKERFILE = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = {name: (ROOT / name).read_text() for name in ("requirements.lock", "requirements-build.lock")}


def locked(text):
    """Version and number of hashes by name."""
    entries = re.findall(r"^([a-z0-9-]+)==(\S+)[^\n]*\\\n((?: +--hash=\S+(?: \\)?\n)+)", text, re.MULTILINE)
    return {name: (version, len(hashes.splitlines())) for name, version, hashes in entries}


@pytest.mark.parametrize(
    ("lock", "needed"),
    [
        ("requirements.lock", PROJECT["project"]["dependencies"]),
        ("requirements-build.lock", PROJECT["build-system"]["requires"]),
    ],
)
def test_the_lock_has_what_the_project_needs(lock, needed):
    has = locked(LOCKS[lock])
    for requirement in map(Requirement, needed):
        version, _ = has[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}: run `make lock`"


def test_everything_in_a_lock_has_hashes():
    for text in LOCKS.values():
        assert len(locked(text)) == len(re.findall(r"^\S+==", text, re.MULTILINE))
        assert not re.findall(r"https?://", text)


def test_nothing_gets_in_but_by_hash():
    installs = re.findall(r"pip install .*", DOCKERFILE)
    assert len(installs) == 3
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)


def test_it_runs_as_nobody_in_particular_and_is_asked_without_a_shell():
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (.*)$", final, re.MULTILINE) == ["10001:10001"]
    (probe,) = re.findall(r"^HEALTHCHECK .*?CMD (.*)$", final, re.MULTILINE)
    assert orjson.loads(probe)[:3] == ["python", "-IS", "-c"]
    assert {"ENTRYPOINT", "CMD"} == set(re.findall(r'^(ENTRYPOINT|CMD) \["', final, re.MULTILINE))


def test_what_it_copies_is_there_and_let_through():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(pathlib.PurePath(source).match(rule[1:]) for rule in ignored if rule.startswith("!")), source


def test_its_version_is_the_projects():
    assert f"ARG VERSION={PROJECT['project']['version']}\n" in DOCKERFILE


def test_a_wheel_alone_has_a_config_to_start_with(tmp_path):
    packages.install(ROOT, tmp_path / "target")
    shipped = tmp_path / "target" / "proxy" / "shipped" / "config.yaml"
    assert shipped.read_text() == (ROOT / "config" / "config.yaml").read_text()
    asked = "import proxy.cli as c; o = c._parser().parse_args(['serve']); print(o.config, c._check(type('', (), {'file': o.config})))"
    ran = packages.run([sys.executable, "-c", asked], tmp_path / "target", cwd=tmp_path)
    assert ran.stdout.splitlines() == [f"{shipped}: ok (1 upstreams, 1 routes, 1 plugins)", f"{shipped} 0"]


def test_hadolint_finds_nothing_to_complain_of():
    run("hadolint", ROOT / "Dockerfile")
