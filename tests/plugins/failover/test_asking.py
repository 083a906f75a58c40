"""What a request says of how it may be tried."""

import orjson
import pytest

from plugins.failover.asking import asks_for_stream, is_bound, keeps
from proxy import testing


def request(path, body=b"", method="POST"):
    return testing.exchange(method, path, body=body if isinstance(body, bytes) else orjson.dumps(body)).request


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"stream": True}),
        ("/v1/completions", b'{"prompt": "", "stream" : true}'),
        ("/v1/responses", {"stream": True}),
        ("/generate_stream", {"inputs": "hi"}),
        ("/", {"inputs": "hi", "stream": True}),
    ],
)
def test_these_ask_for_a_stream(path, body):
    assert asks_for_stream(request(path, body))


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {}),
        ("/v1/chat/completions", b""),
        ("/v1/chat/completions", {"stream": False}),
        ("/v1/chat/completions", {"stream": None}),
        ("/v1/chat/completions", {"metadata": {"stream": True}}),
        ("/v1/chat/completions", {"messages": [{"content": '"stream": true'}]}),
        ("/v1/chat/completions", b'{"stream": true'),
        ("/v1/chat/completions", b'["stream"]'),
        ("/v1/embeddings", {"stream": True}),
        ("/generate", {"inputs": "hi"}),
    ],
)
def test_these_do_not(path, body):
    assert not asks_for_stream(request(path, body))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/files", b""),
        ("GET", "/v1/files/file-1/content", b""),
        ("POST", "/v1/uploads/u/parts", b""),
        ("GET", "/v1/batches", b""),
        ("POST", "/v1/threads/t/runs", b"{}"),
        ("GET", "/v1/responses/resp_1", b""),
        ("POST", "/v1/responses/resp_1/cancel", b""),
        ("POST", "/v1/responses", {"previous_response_id": "resp_1"}),
        ("POST", "/v1/responses", {"conversation": {"id": "conv_1"}}),
    ],
)
def test_one_upstream_alone_can_serve_these(method, path, body):
    assert is_bound(request(path, body, method))


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/chat/completions", {"messages": []}),
        ("POST", "/v1/embeddings", {"input": "files"}),
        ("POST", "/v1/responses", {"input": "hi", "previous_response_id": None}),
        ("POST", "/v1/responses", b"not JSON"),
        ("POST", "/v1/audio/transcriptions", b""),
        ("GET", "/v1/models", b""),
        ("POST", "/v1/rerank", {}),
        ("GET", "/files", b""),
        ("POST", "/v1/filesystem", {}),
    ],
)
def test_any_upstream_can_serve_these(method, path, body):
    assert not is_bound(request(path, body, method))


def test_the_path_alone_tells_what_is_kept():
    assert keeps(request("/v1/files"))
    assert not keeps(request("/v1/responses/resp_1"))
