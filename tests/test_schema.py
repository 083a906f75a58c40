"""`weir schema`: a valid JSON Schema that takes what `weir check` takes, and refuses what an editor can know to be wrong."""

import pathlib
import re

import jsonschema
import orjson
import pytest
import yaml

from proxy import cli
from proxy.config import Config

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "configuration.md").read_text()
LEAST = {"upstreams": {"up": {"base_url": "http://a/v1"}}, "routes": [{"name": "a", "targets": ["up"]}]}
VALIDATOR = jsonschema.Draft202012Validator(Config.model_json_schema())


def faults(config):
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in VALIDATOR.iter_errors(config)]


def test_what_is_printed_is_a_valid_schema(capsys):
    assert cli.main(["schema"]) == 0
    schema = orjson.loads(capsys.readouterr().out)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema == VALIDATOR.schema


def test_the_config_that_ships_fits():
    assert faults(yaml.safe_load((ROOT / "config" / "config.yaml").read_text())) == []


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL), ids=lambda block: block[:12])
def test_what_the_reference_shows_fits(block):
    assert faults({**LEAST, **yaml.safe_load(block)}) == []


@pytest.mark.parametrize(
    "change",
    [
        {"sever": {}},
        {"server": {"listen": 8080}},
        {"server": {"drain_timeout": "30"}},
        {"server": {"max_request_bytes": "64M"}},
        {"upstreams": {}},
        {"upstreams": {"up": {}}},
        {"upstreams": {"up": {"base_url": "http://a", "kind": "azur"}}},
        {"upstreams": {"up": {"base_url": "http://a", "timeouts": {"idle": "never"}}}},
        {"routes": []},
        {"routes": [{"name": "a", "targets": []}]},
        {"routes": [{"targets": ["up"]}]},
        {"routes": [{"name": "a b", "targets": ["up"]}]},
        {"plugins": [7]},
        {"plugins": {"cache": {}}},
    ],
    ids=str,
)
def test_what_an_editor_can_know_to_be_wrong_is_refused(change):
    assert faults(LEAST) == []
    assert len(faults({**LEAST, **change})) > 0
