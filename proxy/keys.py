"""A new API key for a caller, and the line of YAML that lets it in (`weir keys new`); the key is kept nowhere."""

from __future__ import annotations

import argparse
import hashlib
import secrets
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import orjson
from pydantic import BaseModel, TypeAdapter, ValidationError

from proxy.scalars import Expiry, Labels, Name
from proxy.wording import Refusal, worded

if TYPE_CHECKING:
    from collections.abc import Mapping

T = TypeVar("T")

PREFIX = "weir-"
SECRET_BYTES = 32


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "API keys for those who call Weir, for the auth plugin"
    keys = commands.add_parser("keys", help=about, description=f"{about}.")
    new = keys.add_subparsers(required=True, metavar="COMMAND").add_parser(
        "new",
        help="make a key",
        description="Make a key. It is printed once, and below it what goes into the config: the key's hash.",
    )
    new.add_argument("name", metavar="NAME", type=_name, help="who it is for, as in metrics and bills")
    new.add_argument(
        "--label",
        metavar="K=V",
        dest="labels",
        type=_label,
        action="append",
        default=[],
        help="what the bill says beside the name; may be repeated",
    )
    new.add_argument("--expires", metavar="DATE", type=_expiry, help="as in 2027-01-31, or 2027-01-31T12:00:00Z")
    new.set_defaults(run=_new)


def new_key() -> str:
    return PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def entry(key: str, name: str, labels: Mapping[str, str], expires: str | None) -> str:
    """The key's place in a list of `keys`, as one line of YAML."""
    digest = hashlib.sha256(key.encode()).hexdigest()
    parts = {"name": name, "sha256": digest, "labels": labels, "expires": expires}
    return "- {" + ", ".join(f"{key}: {_flow(value)}" for key, value in parts.items() if value) + "}"


def _new(options: argparse.Namespace) -> int:
    key = new_key()
    print(key, entry(key, options.name, dict(options.labels), options.expires), sep="\n")  # noqa: T201 - the command's purpose
    return 0


def _flow(value: str | Mapping[str, str]) -> str:
    """In quotes, which YAML and JSON share: a name may look like a number. `$` would be a reference."""
    if isinstance(value, str):
        return orjson.dumps(value).decode().replace("$", "$$")
    return "{" + ", ".join(f"{_flow(key)}: {_flow(text)}" for key, text in value.items()) + "}"


def _name(text: str) -> str:
    return _checked(Name, text, text)


def _expiry(text: str) -> str:
    moment: datetime = TypeAdapter(Expiry).validate_python(_checked(Expiry, text, text))
    if moment <= datetime.now(UTC):
        raise argparse.ArgumentTypeError(f"{text!r} is over: the key would let nobody in; write a later one")
    return text


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} has no value; write it as in feature=search")
    return _checked(Labels, {key: value}, (key, value))


def _checked(kind: Any, value: object, written: T) -> T:
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as refused:
        error = refused.errors(include_url=False)[0]
        what, fix = worded(Refusal(error, BaseModel, (), repr(error["input"]), str))
        raise argparse.ArgumentTypeError(f"{what}; {fix}") from None
    return written
