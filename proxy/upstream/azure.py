"""Azure OpenAI: `base_url` is the resource's root, and the model's deployment stands in the path.

Where `base_url` ends in /openai/v1 it is OpenAI's API but for the header of the key.
"""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING, ClassVar

from typing_extensions import override

from proxy.errors import ClientFault
from proxy.scalars import Placement
from proxy.upstream import query
from proxy.upstream.openai import OpenAI

if TYPE_CHECKING:
    from proxy import config
    from proxy.request import Request

OF_A_DEPLOYMENT = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/images/generations",
        "/v1/images/edits",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/audio/speech",
    }
)
LONGEST_NAME = 200
VERSION = "api-version"


class Azure(OpenAI):
    KEY_IN: ClassVar[Placement] = Placement("header", "api-key")

    def __init__(self, name: str, settings: config.Upstream) -> None:
        super().__init__(name, settings)
        self._is_classic = not self._base.endswith("/openai/v1")
        self._api = self._base.removesuffix("/openai/v1") + "/openai/"

    @override
    def asks_model(self, request: Request) -> bool:
        is_known = request.is_model_read and not request.is_replaced
        return self._is_classic and request.path in OF_A_DEPLOYMENT and not is_known

    @override
    def locate(self, target: str, model: str | None = None) -> str:
        """Raises ClientFault where a deployment is needed and nothing names one."""
        located = self._placed(target, model) if self._is_classic else super().locate(target)
        version = self.settings.api_version
        if version is None or not located.startswith(self._api) or query.has(located, VERSION):
            return located
        return query.added(located, VERSION, version)

    def _placed(self, target: str, model: str | None) -> str:
        path = target.partition("?")[0]
        if path in OF_A_DEPLOYMENT:
            return f"{self._api}deployments/{self._segment(model)}{target[3:]}"
        return self._api + target[4:] if path.startswith("/v1/") else self._base + target

    def _segment(self, model: str | None) -> str:
        """The deployment's name as one segment of a path."""
        if not model:
            raise ClientFault("the request names no model, and Azure serves models by name", param="model")
        name = self.settings.deployments.get(model, model)
        if name in {".", ".."} or len(name) > LONGEST_NAME:
            raise ClientFault("the request's model is no name of a deployment", param="model")
        return urllib.parse.quote(name, safe="")
