"""Where a path goes at a TGI server: `base_url` is its root."""

from __future__ import annotations

import pytest

from proxy import config
from proxy.upstream.tgi import TGI


@pytest.mark.parametrize(
    ("base_url", "target", "located"),
    [
        ("http://tgi:8080", "/v1/chat/completions", "/v1/chat/completions"),
        ("http://tgi:8080/", "/v1/models/org%2Fname:tag", "/v1/models/org%2Fname:tag"),
        ("http://tgi:8080", "/generate_stream", "/generate_stream"),
        ("http://tgi:8080", "/", "/"),
        ("http://tgi:8080", "/info?x=%20&y", "/info?x=%20&y"),
        ("http://host/models/llama", "/v1/models", "/models/llama/v1/models"),
        ("http://host/models/llama/", "/generate", "/models/llama/generate"),
        ("http://host/models/llama", "/v1", "/models/llama/v1"),
    ],
)
def test_locate(base_url: str, target: str, located: str) -> None:
    assert TGI("gpu", config.Upstream(kind="tgi", base_url=base_url)).locate(target) == located


def test_only_kind_tgi_is_normalized() -> None:
    assert config.Upstream(kind="tgi", base_url="http://tgi", normalize=False).normalize is False
    with pytest.raises(ValueError, match="only kind tgi has this key"):
        config.Upstream(kind="openai", base_url="http://host/v1", normalize=False)
