"""Text Generation Inference: `base_url` is the server's root, and its `/v1` and native routes stand below it."""

from __future__ import annotations

from typing_extensions import override

from proxy.upstream.openai import OpenAI


class TGI(OpenAI):
    @override
    def locate(self, target: str, model: str | None = None) -> str:
        return self._base + target
