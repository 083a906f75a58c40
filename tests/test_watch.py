"""A file that changes is seen, however it is changed."""

import logging

import pytest

from proxy.services import Tasks
from proxy.watch import Watch
from tests import wire


@pytest.fixture
async def watch():
    tasks = Tasks()
    watch = Watch(tasks, seconds=0.01)
    yield watch
    watch.stop()
    await tasks.drain(1)


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "keys.yaml"
    file.write_text("one")
    return file


async def test_a_write_in_place(watch, file):
    seen = []
    watch.add(file, lambda: seen.append(file.read_text()))
    file.write_text("other")
    await wire.until(lambda: seen == ["other"])


async def test_a_file_moved_over_it(watch, file, tmp_path):
    seen = []
    watch.add(file, lambda: seen.append(file.read_text()))
    (tmp_path / "new").write_text("two")
    (tmp_path / "new").rename(file)
    await wire.until(lambda: seen == ["two"])


async def test_the_swap_of_a_mounted_config_map(watch, tmp_path):
    for version in ("v1", "v2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "key").write_text(version)
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "key").symlink_to("..data/key")
    seen = []
    watch.add(tmp_path / "key", lambda: seen.append((tmp_path / "key").read_text()))
    (tmp_path / "..next").symlink_to("v2")
    (tmp_path / "..next").replace(tmp_path / "..data")
    await wire.until(lambda: seen == ["v2"])


async def test_a_file_that_is_away_for_a_while_has_not_changed(watch, file):
    seen, passed = [], []
    other = file.with_name("other")
    other.write_text("a")
    watch.add(file, lambda: seen.append("file"))
    watch.add(other, lambda: passed.append("other"))
    file.unlink()
    other.write_text("bc")
    await wire.until(lambda: passed)
    assert seen == []
    file.write_text("back again")
    await wire.until(lambda: seen == ["file"])


async def test_a_callback_that_raises_is_logged_and_called_again(watch, file, caplog):
    calls = []

    def failing() -> None:
        calls.append(1)
        raise ValueError("not YAML")

    watch.add(file, failing)
    file.write_text("two two")
    await wire.until(lambda: calls)
    file.write_text("three three")
    await wire.until(lambda: len(calls) == 2)
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
