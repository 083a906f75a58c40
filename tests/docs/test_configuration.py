"""The pages in docs are true: their tables are the models', their YAML passes `weir check`, errors are the real ones."""

import os
import pathlib
import re
import shutil
import sys
import types

import certifi
import pytest
import yaml

from proxy import cli
from proxy.plugin import Plugin, PluginConfig
from tests.docs.reference import MODELS, PAGES, fields, renewed, sections

ROOT = pathlib.Path(__file__).parents[2]
TEXTS = {page.name: page.read_text() for page in PAGES}
TEXT = TEXTS["configuration.md"]
BLOCKS = [block for text in TEXTS.values() for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
FILES = [found for text in TEXTS.values() for found in re.findall(r"```yaml (keys\.yaml)\n(.*?)```", text, re.DOTALL)]
WRONG = re.search(r"```yaml wrong\n(.*?)```\n\n```text\n(.*?)```", TEXT, re.DOTALL)
SECTIONS = {
    "upstreams": 'upstreams: {openai: {base_url: "https://api.openai.com/v1"}}\n',
    "routes": "routes: [{name: default, targets: [openai]}]\n",
}


class TaggingConfig(PluginConfig):
    team: str


class Tagging(Plugin[TaggingConfig]):
    Config = TaggingConfig


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the pages' files, variables and plugin are."""
    module = types.ModuleType("tagging")
    module.Tagging = Tagging
    monkeypatch.setitem(sys.modules, "tagging", module)
    monkeypatch.chdir(tmp_path)
    for name in re.findall(r"\$\{([A-Z_]+)\}", "".join(BLOCKS)):
        monkeypatch.setenv(name, "sk-1")
    for file, text in FILES:
        pathlib.Path(file).write_text(text)
    shutil.copy(ROOT / "config/prices.yaml", tmp_path)
    for folder in ("secrets", "certs"):
        pathlib.Path(folder).mkdir()
    pathlib.Path("secrets/openai").write_text("sk-2\n")
    shutil.copy(certifi.where(), "certs/ca.pem")
    return tmp_path


def test_the_tables_are_the_models():
    for text in TEXTS.values():
        assert renewed(text) == text, "run `python -m tests.docs.reference --write`"
    assert sorted(name for text in TEXTS.values() for name in sections(text)) == sorted(MODELS)


def test_every_key_says_what_it_means():
    described = [
        (name, key) for name, model in MODELS.items() for key, field in model.model_fields.items() if field.description
    ]
    assert len(described) == sum(len(model.model_fields) for model in MODELS.values())


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.splitlines()[0])
def test_every_block_passes_weir_check(block, folder, capsys):
    missing = [more for key, more in SECTIONS.items() if not re.search(f"^{key}:", block, re.MULTILINE)]
    pathlib.Path("config.yaml").write_text(block + "".join(missing))
    assert cli.main(["check", "config.yaml"]) == 0, capsys.readouterr().err


def test_the_errors_are_those_that_weir_tells(folder, capsys):
    config, errors = WRONG.groups()
    pathlib.Path("config.yaml").write_text(config)
    assert cli.main(["check", "config.yaml"]) == 1
    assert capsys.readouterr().err == errors


def keys(value):
    if isinstance(value, dict):
        return {key for name, below in value.items() for key in {name, *keys(below)}}
    return {key for below in value for key in keys(below)} if isinstance(value, list) else set()


def test_every_key_has_an_example():
    shown = {key for block in BLOCKS for key in keys(yaml.safe_load(block))}
    every = {key for model in MODELS.values() for key in fields(model)}
    assert every - shown == set()


def test_every_page_that_they_name_is_there():
    for text in TEXTS.values():
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (PAGES[0].parent / target).exists(), target


def test_the_config_that_ships_passes_without_a_key_and_with_one(monkeypatch, capsys):
    for key in ("", "sk-1"):
        monkeypatch.setitem(os.environ, "OPENAI_API_KEY", key)
        assert cli.main(["check", str(ROOT / "config" / "config.yaml")]) == 0
        assert capsys.readouterr().err == ""
