"""One parameter of a target, as the most lenient server would read it; every other byte stays."""

from __future__ import annotations

import pytest

from proxy.upstream import query


@pytest.mark.parametrize(
    "target",
    [
        "/v1/x?key=1",
        "/v1/x?a=1&key=2",
        "/v1/x?key",
        "/v1/x?key=",
        "/v1/x?KEY=1",
        "/v1/x?k%65y=1",
        "/v1/x?%4bey=1",
        "/x?&key=1&",
    ],
)
def test_a_parameter_is_found(target: str) -> None:
    assert query.has(target, "key")


@pytest.mark.parametrize(
    "target", ["/v1/key=1", "/v1/x", "/v1/x?", "/v1/x?keys=1", "/v1/x?a=key", "/v1/x?a=1;key=2", "/v1/x?a&&b"]
)
def test_another_is_not(target: str) -> None:
    assert not query.has(target, "key")
    assert query.without(target, "key") == target


@pytest.mark.parametrize(
    ("target", "left"),
    [
        ("/v1/x?key=1", "/v1/x"),
        ("/v1/x?key=1&key=2", "/v1/x"),
        ("/v1/x?a=%20&key=1&&b=+", "/v1/x?a=%20&&b=+"),
        ("/v1/x?Key=1&k%65y=2&c", "/v1/x?c"),
        ("/v1/a%2Fb?q=a?b&key=1", "/v1/a%2Fb?q=a?b"),
    ],
)
def test_it_is_taken_out(target: str, left: str) -> None:
    assert query.without(target, "key") == left


@pytest.mark.parametrize(
    ("target", "whole"),
    [
        ("/v1/x", "/v1/x?key=a%26b%3D%2F%20%25"),
        ("/v1/x?", "/v1/x?key=a%26b%3D%2F%20%25"),
        ("/v1/x?a=1", "/v1/x?a=1&key=a%26b%3D%2F%20%25"),
        ("/v1/x?a=1&", "/v1/x?a=1&key=a%26b%3D%2F%20%25"),
    ],
)
def test_it_is_added_encoded(target: str, whole: str) -> None:
    assert query.added(target, "key", "a&b=/ %") == whole
