"""Settings as they may be shown: what could be a secret is not, everything else is as it was written."""

import pathlib

import pytest
from pydantic import BaseModel, Field, SecretStr

from proxy.config import Upstream
from proxy.plugin import PluginConfig
from proxy.scalars import DurationOrNone
from proxy.source import Source
from proxy.veil import default_of, veiled


class Part(BaseModel):
    password: str
    url: str


class Settings(PluginConfig):
    api_key: SecretStr | None = None
    hidden: str = Field(default="x", repr=False)
    hook_token: str = "t"
    first_token: DurationOrNone = 3.0
    headers: dict[str, str] = Field(default_factory=dict)
    parts: list[Part] = Field(default_factory=list)
    name: str = "n"


@pytest.fixture
def source(tmp_path):
    def read(text):
        file = pathlib.Path(tmp_path / "c.yaml")
        file.write_text(text)
        return Source.read(file, {"NAME": "canary", "HOST": "gpu"})

    return read


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("api_key", "canary", "***"),
        ("hidden", "canary", "***"),
        ("hook_token", "canary", "***"),
        ("first_token", "30s", "30s"),
        ("headers", {"Authorization": "canary", "x-team": "blue"}, {"Authorization": "***", "x-team": "blue"}),
        (
            "parts",
            [{"password": "canary", "url": "https://canary:canary@host/a?key=canary"}],
            [{"password": "***", "url": "https://***@host/a?***"}],
        ),
        ("name", "blue", "blue"),
        ("name", None, None),
        ("unknown_secret", "canary", "***"),
    ],
)
def test_what_could_be_a_secret_is_hidden(source, key, value, shown):
    assert veiled(source("a: 1\n"), Settings, ("plugins", 0, "p", key), key, value) == shown


def test_what_came_through_a_reference_is_shown_as_that(source):
    read = source("p: {name: '${NAME}', headers: {x-host: 'at ${HOST}', plain: b}}\n")
    assert veiled(read, Settings, ("p", "name"), "name", read.data["p"]["name"]) == "${NAME}"
    shown = veiled(read, Settings, ("p", "headers"), "headers", read.data["p"]["headers"])
    assert shown == {"x-host": "${HOST}", "plain": "b"}


def test_defaults_are_as_an_operator_writes_them():
    told = {key: default_of(field) for key, field in Upstream.model_fields.items()}
    assert (told["api_key"], told["max_connections"], told["prices"]) == (None, 1000, {})
    assert (told["timeouts"], told["on_disconnect"]) == ("its defaults", "cancel")
