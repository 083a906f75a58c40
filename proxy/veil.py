"""Settings as they may be shown: as they were written, without anything that could be a secret.

What came through `${...}` is shown as its reference. A value is hidden where its model keeps it out of its repr, and
where a text's key says that it is one, since a plugin's author may have forgotten to.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, get_args

from pydantic import BaseModel, SecretStr

from proxy.wording import fields

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from proxy.source import Path, Source

HIDDEN: Final = "***"

_SECRET: Final = re.compile(
    r"(secret|password|passwd|key|token|credential|authorization|cookie|webhook|dsn)s?$", re.IGNORECASE
)
_USER: Final = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY: Final = re.compile(r"(://[^?\s]*\?)\S+")


def veiled(source: Source, model: type[BaseModel], at: Path, key: str, value: Any) -> Any:
    """The value of the model's `key`, which stands at `at`, as plain data."""
    return _Veil(source, model, at).of(value, (key,))


def default_of(field: FieldInfo) -> Any:
    """As an operator would write it."""
    if field.default_factory is not None:
        made = field.get_default(call_default_factory=True, validated_data={})
        return "its defaults" if isinstance(made, BaseModel) else made
    plain = isinstance(field.default, str | int | float | list | dict | None)
    return field.default if plain else str(field.default)


def masked_url(url: str) -> str:
    """Without a user, a password or values in its query."""
    return _QUERY.sub(rf"\1{HIDDEN}", _USER.sub(f"{HIDDEN}@", url))


class _Veil:
    def __init__(self, source: Source, model: type[BaseModel], at: Path) -> None:
        self._source = source
        self._model = model
        self._at = at

    def of(self, value: Any, path: Path) -> Any:
        filled = self._source.filled.get((*self._at, *path[1:]))
        if filled is not None:
            return filled.references
        if value is not None and isinstance(path[-1], str) and self._is_secret(value, path):
            return HIDDEN
        if isinstance(value, dict):
            return {key: self.of(each, (*path, key)) for key, each in value.items()}
        if isinstance(value, list):
            return [self.of(each, (*path, place)) for place, each in enumerate(value)]
        return masked_url(value) if isinstance(value, str) else value

    def _is_secret(self, value: Any, path: Path) -> bool:
        key = str(path[-1])
        field = fields(self._model, path).get(key)
        if field is not None and (not field.repr or _may_be(field.annotation, SecretStr)):
            return True
        is_text = isinstance(value, str) and (field is None or _may_be(field.annotation, str))
        return is_text and _SECRET.search(key) is not None


def _may_be(kind: Any, wanted: type) -> bool:
    return kind is wanted or any(_may_be(part, wanted) for part in get_args(kind))
