"""``/v1/files``: kept in memory until they are deleted or the server ends, at most 100 of 64 MiB together."""

import dataclasses
import datetime as dt
import secrets
from typing import Any

from aiohttp import web

from proxy.demo import payload
from proxy.demo.errors import invalid, missing
from proxy.demo.payload import Upload

MAX_FILES = 100
MAX_BYTES = 64 * 1024 * 1024


@dataclasses.dataclass(frozen=True, slots=True)
class File:
    upload: Upload
    purpose: str
    created: int
    id: str = dataclasses.field(default_factory=lambda: f"file-{secrets.token_hex(12)}")

    def described(self) -> dict[str, Any]:
        about = {"filename": self.upload.name, "bytes": len(self.upload.content), "purpose": self.purpose}
        ends = {"status": "processed", "expires_at": None, "status_details": None}
        return {"id": self.id, "object": "file", "created_at": self.created, **about, **ends}


FILES = web.AppKey("files", dict[str, File])


def now() -> int:
    return int(dt.datetime.now(dt.UTC).timestamp())


async def create(request: web.Request) -> web.Response:
    parts = await payload.form(request)
    files = request.app[FILES]
    purpose = parts.get("purpose")
    if not isinstance(purpose, str) or not purpose:
        raise invalid("Missing required parameter: 'purpose'.", "purpose")
    file = File(payload.upload(parts, "file"), purpose, now())
    stored = sum(len(one.upload.content) for one in files.values())
    if len(files) >= MAX_FILES or stored + len(file.upload.content) > MAX_BYTES:
        message = "The demo upstream keeps at most 100 files and 64 MiB: delete some first."
        raise invalid(message, "file", "storage_limit_exceeded")
    files[file.id] = file
    return payload.answer(file.described())


async def listed(request: web.Request) -> web.Response:
    purpose = request.query.get("purpose")
    found = [file for file in request.app[FILES].values() if purpose in (None, file.purpose)]
    ends = {"first_id": found[0].id, "last_id": found[-1].id} if found else {"first_id": None, "last_id": None}
    return payload.answer({"object": "list", "data": [file.described() for file in found], "has_more": False, **ends})


async def retrieve(request: web.Request) -> web.Response:
    return payload.answer(_file(request).described())


async def content(request: web.Request) -> web.Response:
    upload = _file(request).upload
    return web.Response(body=upload.content, headers={"content-type": upload.content_type})


async def delete(request: web.Request) -> web.Response:
    file = _file(request)
    del request.app[FILES][file.id]
    return payload.answer({"id": file.id, "object": "file", "deleted": True})


def _file(request: web.Request) -> File:
    name = request.match_info["id"]
    file = request.app[FILES].get(name)
    if file is None:
        raise missing("file", name)
    return file
