"""What an operator writes for `tracing`. All of it may be left to the variables that OpenTelemetry knows."""

from __future__ import annotations

import importlib.util
import re
from typing import Annotated, Final, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from proxy.plugin import NotSet, PluginConfig, Share, fault

PATH: Final = "/v1/traces"
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_NEEDED: Final = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")


def _endpoint(url: str | None) -> str | None:
    """With the path that traces have, unless it is there already."""
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        is_sound = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        is_sound = False
    if not is_sound or not re.fullmatch(r"[!-~]+", url) or "?" in url or "#" in url:
        raise fault("is no URL of a collector", "write it as in http://otel-collector:4318; secrets go into headers")
    base = url.rstrip("/")
    return base if base.endswith(PATH) else base + PATH


def _headers(headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise fault(f"{name!r} is not a header's name", "write it as in x-api-key", key=name)
        if not value.get_secret_value().isprintable():
            raise fault("has a line break or a control character", "write the value alone", key=name)
    return headers


class TracingConfig(PluginConfig):
    endpoint: Annotated[str | None, NotSet, AfterValidator(_endpoint)] = Field(
        default=None,
        description="the collector, by OTLP over HTTP; by default `$OTEL_EXPORTER_OTLP_ENDPOINT`, else port 4318 here",
    )
    headers: Annotated[dict[str, SecretStr], AfterValidator(_headers)] = Field(
        default_factory=dict, description="sent to the collector, beside `$OTEL_EXPORTER_OTLP_HEADERS`"
    )
    sample: Share | None = Field(
        default=None,
        description="how many of the traces that begin here; by default `$OTEL_TRACES_SAMPLER_ARG`, else all",
    )
    service_name: str | None = Field(
        default=None, min_length=1, description="by default `$OTEL_SERVICE_NAME`, else `weir`"
    )

    @model_validator(mode="after")
    def _is_installed(self) -> Self:
        if not all(map(_is_there, _NEEDED)):
            raise fault("needs OpenTelemetry, which is not installed", "run `pip install 'weir-proxy[otel]'`")
        return self


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
