"""OAuth tokens, as Vertex and Azure's Entra want them: from a command or a file, renewed in the background.

A renewal that fails leaves the old token in use until it expires. What the command prints is never logged, nor what it
says on stderr: both may hold secrets.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import re
import signal
import subprocess
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from typing_extensions import override

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Sequence

    from proxy import config
    from proxy.upstream.credentials import Credential

MAX_BYTES = 64 * 1024
LIFE_SHARE = 0.8
"""How much of a token's life it is used before it is renewed."""
LEAST_SECONDS = 1.0
"""Between two renewals."""
MOST_SECONDS = 60.0
"""Between two tries of a renewal that fails."""

_TOKENS = ("access_token", "accessToken", "token")
_EXPIRIES = ("expires_on", "expiry", "expireTime")
_BEARER = re.compile(r"[A-Za-z0-9._~+/=-]+")

log = logging.getLogger("weir.credentials")


class NoToken(Exception):
    """Why there is none, as a log may tell it."""


class Issued(NamedTuple):
    text: str
    seconds: float
    """What is left of its life; infinity where it does not say."""


class Renewal:
    """Keeps a credential's token fresh while `run` runs. `is_tried` is set once the first try is over."""

    def __init__(self, settings: config.Token, folder: pathlib.Path, credential: Credential) -> None:
        """`folder`: where the command runs."""
        self._settings = settings
        self._folder = folder
        self._credential = credential
        self._failures = 0
        self._expires = -math.inf
        self._woken = asyncio.Event()
        self.is_tried = asyncio.Event()

    def wake(self) -> None:
        """Renew now: the file has changed."""
        self._woken.set()

    async def run(self) -> None:
        while True:
            try:
                seconds = await self._renew()
            finally:
                self.is_tried.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
            self._woken.clear()

    async def _renew(self) -> float:
        """Seconds until the next time."""
        loop = asyncio.get_running_loop()
        try:
            issued = token_in(await self._output(), datetime.now(UTC).timestamp())
        except NoToken as reason:
            return self._fail(str(reason), self._expires - loop.time())
        self._failures = 0
        self._expires = loop.time() + issued.seconds
        self._credential.put(issued.text)
        return max(LEAST_SECONDS, min(self._settings.refresh, LIFE_SHARE * issued.seconds))

    def _fail(self, reason: str, left: float) -> float:
        told = {"upstream": self._credential.name, "reason": reason}
        pause = min(LEAST_SECONDS * 2.0**self._failures, MOST_SECONDS)
        self._failures = min(self._failures + 1, 16)
        if left > 0:
            log.warning("a token cannot be renewed: the old one serves until it expires", extra=told)
            return min(pause, left)
        self._credential.drop()
        log.error("no token: requests to this upstream are refused", extra=told)
        return pause

    async def _output(self) -> bytes:
        if self._settings.command is not None:
            return await printed(self._settings.command, self._folder, self._settings.timeout)
        assert self._settings.file is not None
        try:
            with self._settings.file.open("rb") as file:
                return file.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            raise NoToken(f"its file cannot be read: {_reason(error)}") from None


def token_in(output: bytes, now: float) -> Issued:
    """A bare token, or JSON with one; `now` is the epoch's. Raises NoToken."""
    if len(output) > MAX_BYTES:
        raise NoToken(f"the output is longer than {MAX_BYTES} bytes")
    output = output.strip()
    held: Any = output.decode("ascii", "replace")
    if output.startswith(b"{"):
        try:
            held = orjson.loads(output)
        except ValueError:
            raise NoToken("the output begins as JSON and is none") from None
    text = held if isinstance(held, str) else next((held[name] for name in _TOKENS if held.get(name)), None)
    if not isinstance(text, str) or not _BEARER.fullmatch(text):
        raise NoToken("the output is neither a token nor JSON that holds one")
    seconds = math.inf if isinstance(held, str) else _life(held, now)
    if not seconds > 0:
        raise NoToken("the token has expired already")
    return Issued(text, seconds)


def _life(held: dict[str, Any], now: float) -> float:
    """Seconds that are left; infinity where nothing says so, or the year 1 as Go writes it."""
    try:
        if held.get("expires_in") is not None:
            return float(held["expires_in"])
        at = next((_epoch(held[name]) for name in _EXPIRIES if held.get(name)), 0.0)
    except (TypeError, ValueError, OverflowError):
        raise NoToken("the token's expiry cannot be read") from None
    return at - now if at > 0 else math.inf


def _epoch(moment: Any) -> float:
    """Of seconds, or of ISO 8601; without a zone it is UTC."""
    try:
        return float(moment)
    except ValueError:
        at = datetime.fromisoformat(moment)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


async def printed(command: Sequence[str], folder: pathlib.Path, seconds: float) -> bytes:
    """What a command writes to stdout; more than MAX_BYTES stop it. Raises NoToken."""
    loop = asyncio.get_running_loop()
    devnull = subprocess.DEVNULL
    try:
        transport, printing = await loop.subprocess_exec(
            _Printing, *command, cwd=folder, stdin=devnull, stderr=devnull, start_new_session=True
        )
    except (OSError, ValueError) as error:
        raise NoToken(f"its command cannot be run: {_reason(error)}") from None
    try:
        async with asyncio.timeout(seconds):
            await printing.over.wait()
    except TimeoutError:
        raise NoToken(f"its command took longer than {seconds:g}s") from None
    finally:
        if not printing.is_complete:
            _kill(transport.get_pid())
        transport.close()
        await printing.exited.wait()
    if printing.is_complete and transport.get_returncode():
        raise NoToken(f"its command exited with {transport.get_returncode()}; run it by hand to see what it says")
    return bytes(printing.output)


class _Printing(asyncio.SubprocessProtocol):
    """`over`: there is nothing more to wait for."""

    def __init__(self) -> None:
        self.output = bytearray()
        self.over = asyncio.Event()
        self.exited = asyncio.Event()
        self.is_complete = False

    @override
    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.output += data
        if len(self.output) > MAX_BYTES:
            self.over.set()

    @override
    def process_exited(self) -> None:
        self.exited.set()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.is_complete = not self.over.is_set()
        self.over.set()


def _kill(leader: int) -> None:
    """A process with all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def _reason(error: Exception) -> str:
    return error.strerror or type(error).__name__ if isinstance(error, OSError) else type(error).__name__
