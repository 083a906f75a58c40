"""Tokens: what a command prints or a file holds, when it is renewed, and what happens while it cannot be."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import pathlib
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from proxy import config
from proxy.scalars import Placement
from proxy.upstream import token
from proxy.upstream.credentials import Credential
from proxy.upstream.token import MAX_BYTES, Issued, NoToken, Renewal, printed, token_in
from tests.upstream.double import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NOW = 1_760_000_000.0
SECRET = "ya29.canary-token_1~+/="


def at(seconds: float, zone: timezone = UTC) -> datetime:
    return datetime.fromtimestamp(NOW + seconds, zone)


@pytest.mark.parametrize(
    ("output", "seconds"),
    [
        (SECRET, math.inf),
        (f"  {SECRET}\r\n\n", math.inf),
        ({"access_token": SECRET}, math.inf),
        ({"accessToken": SECRET}, math.inf),
        ({"token": SECRET}, math.inf),
        ({"access_token": None, "token": SECRET}, math.inf),
        ({"access_token": SECRET, "expires_in": 3599}, 3599),
        ({"access_token": SECRET, "expires_in": "3599", "expires_on": str(NOW + 60)}, 3599),
        ({"access_token": SECRET, "expires_on": int(NOW) + 60}, 60),
        ({"accessToken": SECRET, "expiresOn": "2025-10-09 10:00:00.000000", "expires_on": int(NOW) + 60}, 60),
        ({"token": SECRET, "expiry": at(60).isoformat()}, 60),
        ({"token": SECRET, "expiry": at(60, timezone(timedelta(hours=-7))).isoformat()}, 60),
        ({"token": SECRET, "expiry": at(60).strftime("%Y-%m-%dT%H:%M:%S.123456789Z")}, 60.123456),
        ({"accessToken": SECRET, "expireTime": at(60).strftime("%Y-%m-%dT%H:%M:%SZ")}, 60),
        ({"token": SECRET, "expiry": at(60).strftime("%Y-%m-%d %H:%M:%S")}, 60),
        ({"token": SECRET, "expiry": "0001-01-01T00:00:00Z"}, math.inf),
        ({"token": SECRET, "expiry": None, "expires_in": None}, math.inf),
    ],
)
def test_what_a_token_may_come_as(output: Any, seconds: float) -> None:
    written = output.encode() if isinstance(output, str) else orjson.dumps(output, option=orjson.OPT_INDENT_2)
    issued = token_in(written, NOW)
    assert issued.text == SECRET
    assert issued.seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (b"", "neither a token"),
        (b" \n", "neither a token"),
        (b"ERROR: please log in", "neither a token"),
        (b"one\ntwo", "neither a token"),
        (b"tok\xc3\xa9n", "neither a token"),
        (b"tok\x00en", "neither a token"),
        (b'"quoted"', "neither a token"),
        (b'["token"]', "neither a token"),
        (b"{}", "neither a token"),
        (b'{"access_token": ""}', "neither a token"),
        (b'{"access_token": 5}', "neither a token"),
        (b'{"access_token": "a b"}', "neither a token"),
        (b'{"access_token": "a\\r\\nX: y"}', "neither a token"),
        (b'{"access_token": ', "begins as JSON"),
        (b'{"token": "t", "expires_in": "soon"}', "expiry cannot be read"),
        (b'{"token": "t", "expires_in": [1]}', "expiry cannot be read"),
        (b'{"token": "t", "expires_in": "nan"}', "expired"),
        (b'{"token": "t", "expiry": "tomorrow"}', "expiry cannot be read"),
        (b'{"token": "t", "expiry": {"year": 2030}}', "expiry cannot be read"),
        (b'{"token": "t", "expires_in": 0}', "expired"),
        (b'{"token": "t", "expires_on": 1759999999}', "expired"),
        (b"t" * (MAX_BYTES + 1), "longer than"),
    ],
)
def test_what_is_no_token(output: bytes, reason: str) -> None:
    with pytest.raises(NoToken, match=reason):
        token_in(output, NOW)


# -- the command


def script(text: str) -> list[str]:
    return ["/bin/sh", "-c", text]


async def test_a_command_runs_in_its_folder_without_a_shell(tmp_path: pathlib.Path) -> None:
    (tmp_path / "tell").write_text("#!/bin/sh\npwd\nprintf '%s|' \"$@\"\n")
    (tmp_path / "tell").chmod(0o755)
    output = await printed(["./tell", "$HOME", "a b", "*"], tmp_path, 10)
    assert output.decode() == f"{tmp_path}\n$HOME|a b|*|"


async def test_its_input_is_empty_and_its_complaints_go_nowhere(tmp_path: pathlib.Path, capfd: Any) -> None:
    assert await printed(script("cat; echo canary >&2; printf token"), tmp_path, 10) == b"token"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["no-such-program"], "its command cannot be run: No such file or directory"),
        (["./"], "its command cannot be run: "),
        (["a\0b"], "its command cannot be run: "),
        (script("printf half; exit 3"), "its command exited with 3; run it by hand to see what it says"),
        (script("kill -9 $$"), "its command exited with -9; run it by hand to see what it says"),
    ],
)
async def test_a_command_that_fails(tmp_path: pathlib.Path, command: list[str], reason: str) -> None:
    with pytest.raises(NoToken) as failed:
        await printed(command, tmp_path, 10)
    assert str(failed.value).startswith(reason)


def is_alive(pid: int) -> bool:
    """A zombie is not: in a container nobody may care for orphans."""
    try:
        os.kill(pid, 0)
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except ProcessLookupError:
        return False
    except OSError:
        return not pathlib.Path("/proc/self").exists()


async def test_a_command_that_takes_too_long_is_killed_with_all_that_it_started(tmp_path: pathlib.Path) -> None:
    began = time.monotonic()
    with pytest.raises(NoToken, match=r"took longer than 0\.3s"):
        await printed(script("sleep 600 & echo $! > child; echo $$ > parent; wait"), tmp_path, 0.3)
    assert time.monotonic() - began < 10
    for name in ("child", "parent"):
        pid = int((tmp_path / name).read_text())
        await until(lambda pid=pid: not is_alive(pid))


async def test_a_command_that_prints_without_end_is_stopped(tmp_path: pathlib.Path) -> None:
    output = await printed(script("yes"), tmp_path, 10)
    with pytest.raises(NoToken, match="longer than"):
        token_in(output, NOW)


async def test_a_command_is_killed_when_nobody_waits_any_more(tmp_path: pathlib.Path) -> None:
    running = asyncio.ensure_future(printed(script("echo $$ > parent; exec sleep 600"), tmp_path, 60))
    await until(lambda: (tmp_path / "parent").exists() and (tmp_path / "parent").read_text())
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    pid = int((tmp_path / "parent").read_text())
    await until(lambda: not is_alive(pid))


# -- renewal


@contextlib.asynccontextmanager
async def renewing(folder: pathlib.Path, **settings: Any) -> AsyncIterator[tuple[Credential, Renewal]]:
    block = config.Upstream.model_validate({"base_url": "https://host", "token": settings}, context={"folder": folder})
    assert block.token is not None
    credential = Credential("up", block, Placement("bearer"))
    renewal = Renewal(block.token, folder, credential)
    running = asyncio.ensure_future(renewal.run())
    try:
        async with asyncio.timeout(20):
            await renewal.is_tried.wait()
            yield credential, renewal
    finally:
        running.cancel()
        await asyncio.wait({running})


COUNTING = 'echo x >> calls; n=$(wc -l < calls); printf \'{"token": "token-%%d-of-many", "expires_in": %s}\' $n'


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token, "LEAST_SECONDS", 0.05)


def field(number: int) -> tuple[bytes, bytes]:
    return (b"Authorization", b"Bearer token-%d-of-many" % number)


@pytest.mark.usefixtures("_quick")
async def test_a_token_is_renewed_before_it_expires_and_the_old_one_stays_hidden(tmp_path: pathlib.Path) -> None:
    async with renewing(tmp_path, command=script(COUNTING % "0.5")) as (credential, _):
        assert credential.field == field(1)
        since = credential.since
        await until(lambda: credential.field == field(3))
        assert credential.since == since, "a request could have its credential all the time"
        assert credential.mask.hide(b"token-1-of-many token-2-of-many token-3-of-many") == b"*** *** ***"


@pytest.mark.parametrize(
    ("refresh", "life", "pause"), [("45m", 3600, 2700), ("45m", 1000, 800), ("10s", math.inf, 10), ("1ms", 9, 1)]
)
async def test_when_it_is_renewed(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, refresh: str, life: float, pause: float
) -> None:
    monkeypatch.setattr(token, "token_in", lambda *_: Issued("t", life))
    async with renewing(tmp_path, command=["true"], refresh=refresh) as (_, renewal):
        assert await renewal._renew() == pytest.approx(pause)


@pytest.mark.usefixtures("_quick")
async def test_a_renewal_that_fails_leaves_the_old_token_until_it_expires(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    once = f"[ -e calls ] && {{ echo canary; echo canary >&2; exit 3; }}; {COUNTING % '1'}"
    async with renewing(tmp_path, command=script(once)) as (credential, _):
        await until(lambda: caplog.records)
        assert credential.field == field(1)
        [first, *_] = caplog.records
        assert first.getMessage() == "a token cannot be renewed: the old one serves until it expires"
        assert (first.levelno, first.upstream) == (logging.WARNING, "up")
        await until(lambda: credential.field is None)
        assert credential.since == math.inf
        assert caplog.records[-1].getMessage() == "no token: requests to this upstream are refused"
        assert credential.mask.hide(b"token-1-of-many") == b"***"
    assert "canary" not in "".join(str(vars(record)) for record in caplog.records)


@pytest.mark.usefixtures("_quick")
async def test_it_is_tried_again_until_it_is_there(tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture) -> None:
    async with renewing(tmp_path, command=["cat", "later"]) as (credential, _):
        assert (credential.field, credential.since) == (None, math.inf)
        [record] = caplog.records
        assert (record.levelno, record.reason) == (
            logging.ERROR,
            "its command exited with 1; run it by hand to see what it says",
        )
        (tmp_path / "later").write_text("token-1-of-many\n")
        await until(lambda: credential.field == field(1))
        assert credential.since <= time.monotonic()


async def test_tries_become_rarer_up_to_a_minute(tmp_path: pathlib.Path) -> None:
    async with renewing(tmp_path, file="nowhere") as (_, renewal):
        pauses = [await renewal._renew() for _ in range(30)]
    assert pauses[:7] == [2, 4, 8, 16, 32, 60, 60]
    assert set(pauses[7:]) == {60}


async def test_a_file_is_read_again_when_somebody_says_so(tmp_path: pathlib.Path) -> None:
    (tmp_path / "token").write_text("token-1-of-many")
    async with renewing(tmp_path, file="token") as (credential, renewal):
        assert credential.field == field(1)
        (tmp_path / "token").write_text('{"access_token": "token-2-of-many", "expires_in": 60}')
        renewal.wake()
        await until(lambda: credential.field == field(2))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "its file cannot be read: No such file or directory"),
        (b"", "the output is neither a token nor JSON that holds one"),
        (b"x" * (MAX_BYTES + 1), "the output is longer than 65536 bytes"),
    ],
)
async def test_a_file_that_holds_none(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    async with renewing(tmp_path, file="token") as (credential, _):
        assert credential.field is None
    assert [record.reason for record in caplog.records] == [reason]
