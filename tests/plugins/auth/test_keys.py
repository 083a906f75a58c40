"""Keys by their hashes, and the file of keys that changes while Weir runs."""

import asyncio
import contextlib
import logging
import pathlib

import pytest

from plugins.auth import Auth
from plugins.auth.keys import Keys
from proxy import testing
from proxy.plugin import ConfigError, Unauthorized
from tests import wire

from .house import KEY, SHOWS, bearer, code, digest, entry, house

UNKNOWN = (401, "invalid_api_key")


def listed(*keys: tuple[str, str]) -> str:
    lines = [f'  - {{name: {name}, sha256: "{digest(key)}"}}\n' for name, key in keys]
    return "keys:\n" + "".join(lines) if lines else "keys: []\n"


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "keys.yaml"
    file.write_text(listed(("one", "first")))
    return file


async def told(weir, key: str, wanted: tuple[int, str | None]) -> None:
    """Returns once the key gets that answer."""
    async with asyncio.timeout(10):
        while await code(weir, bearer(key)) != wanted:  # noqa: ASYNC110 - polled, bounded
            await asyncio.sleep(0.01)


def test_only_the_very_key_is_found():
    keys = Keys(Auth.Config.model_validate_json(testing.orjson.dumps({"keys": [entry()]})), "auth")
    with contextlib.closing(Watched()) as services:
        keys.watch(services)
    assert keys.grant(KEY).principal.name == "team"
    for wrong in (KEY.upper(), KEY[:-1], KEY + "x", digest(KEY), "x", ""):
        with pytest.raises(Unauthorized):
            keys.grant(wrong)


class Watched:
    """No file is watched."""

    def close(self) -> None: ...


async def test_the_hash_may_be_in_capitals():
    async with house(keys=[{"name": "team", "sha256": digest(KEY).upper()}]) as (weir, _):
        assert await code(weir, bearer(KEY)) == (200, None)


async def test_keys_of_the_config_and_of_the_file_count_together(file):
    async with house(SHOWS, keys=[entry()], keys_file=str(file)) as (weir, _):
        answers = [(await testing.ask(weir, {}, headers=bearer(key))).json() for key in (KEY, "first")]
    assert [answer["name"] for answer in answers] == ["team", "one"]


async def test_a_key_is_rotated_without_a_refusal(file):
    async with house(keys_file=str(file)) as (weir, _):
        assert await code(weir, bearer("second")) == UNKNOWN
        file.write_text(listed(("one", "first"), ("two", "second")))
        await told(weir, "second", (200, None))
        assert await code(weir, bearer("first")) == (200, None)
        replace(file, listed(("two", "second")))
        await told(weir, "first", UNKNOWN)
        assert await code(weir, bearer("second")) == (200, None)
        replace(file, listed())
        await told(weir, "second", UNKNOWN)


def replace(file: pathlib.Path, text: str) -> None:
    other = file.with_name("new.yaml")
    other.write_text(text)
    other.replace(file)


@pytest.mark.parametrize(
    ("text", "told_at"),
    [
        ("", "keys.yaml:1: the file is empty"),
        ("keys: [", "keys.yaml:1: not valid YAML"),
        ("keys:\n  - {name: a}\n", "keys.yaml:2 keys[0].sha256: missing key 'sha256'"),
        (f"keys:\n  - name: a\n    sha256: {KEY}\n", "keys.yaml:3 keys[0].sha256: is not a SHA-256"),
        (listed(("a", "1"), ("a", "2")), "keys.yaml:3 keys[1]: another key is named 'a'"),
        (listed(("a", "1"), ("b", "1")), "keys.yaml:3 keys[1]: is the key of 'a'"),
        (listed(("a", "1"), ("team", "2")), "keys.yaml:3 keys[1]: another key is named 'team'"),
        (listed(("a", "1"), ("b", KEY)), "keys.yaml:3 keys[1]: is the key of 'team'"),
        ("kyes: []\n", "keys.yaml:1 kyes: unknown key 'kyes'"),
    ],
)
async def test_a_file_that_is_wrong_keeps_the_old_keys(file, text, told_at, caplog):
    async with house(keys=[entry()], keys_file=str(file)) as (weir, _):
        replace(file, text)
        await wire.until(lambda: caplog.records)
        assert await code(weir, bearer("first")) == (200, None)
        assert b"weir_plugin_errors_total{" not in weir.metrics.page()
        replace(file, listed(("two", "second")))
        await told(weir, "second", (200, None))
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert (record.message, record.exc_info) == ("the old keys stay: their file is wrong", None)
    assert any(told_at in problem for problem in record.problems), record.problems
    assert KEY not in str(record.problems)


async def test_a_file_that_goes_away_for_a_while_keeps_the_keys(file):
    async with house(keys_file=str(file)) as (weir, _):
        file.unlink()
        await asyncio.sleep(0.05)
        assert await code(weir, bearer("first")) == (200, None)
        file.write_text(listed(("two", "second")))
        await told(weir, "second", (200, None))


async def test_a_file_that_is_wrong_at_the_start_stops_it(file):
    file.write_text(listed(("a", "1"), ("a", "2")))
    with pytest.raises(ConfigError) as refused:
        async with house(keys_file=str(file)):
            pass
    assert "keys.yaml:3 keys[1]: another key is named 'a'; give it a name of its own" in str(refused.value)


async def test_each_read_warns_of_expired_keys(file, caplog):
    async with house(keys_file=str(file)) as (weir, _):
        assert "a key has expired" not in caplog.messages
        replace(file, listed(("two", "second")).replace('"}', '", expires: 2020-01-01}'))
        await wire.until(lambda: "a key has expired" in caplog.messages)
        refusal = await testing.ask(weir, {}, headers=bearer("second"))
    assert "has expired" in refusal.json()["error"]["message"]
    assert [(record.key, record.plugin) for record in caplog.records if "expired" in record.message] == [
        ("two", "auth")
    ]
