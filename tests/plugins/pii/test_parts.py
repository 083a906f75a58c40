"""The parts of a form: header and content of each."""

import pytest

from plugins.pii.parts import parts_of

KIND = 'multipart/form-data; boundary="B"'
BODY = (
    b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\none\r\n'
    b'--B\r\nContent-Disposition: form-data; name="f"; filename="x"\r\ncontent-type: Application/JSON\r\n\r\n{}\r\n--B--\r\n'
)


def test_headers_and_contents():
    parts = parts_of(BODY, KIND)
    assert parts is not None
    assert [(BODY[start:end], kind) for start, end, kind in parts] == [
        (b'Content-Disposition: form-data; name="a"', "text/plain"),
        (b"one", ""),
        (b'Content-Disposition: form-data; name="f"; filename="x"\r\ncontent-type: Application/JSON', "text/plain"),
        (b"{}", "application/json"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"bob",
        b"bob\r\n" + BODY,
        BODY + b"bob",
        BODY[:-8],
        b"--B\r\n\r\n",
        BODY.replace(b"\r\n\r\none", b"\r\none", 1)[:60],
    ],
)
def test_what_is_no_such_form(body: bytes):
    assert parts_of(body, KIND) is None


def test_a_form_needs_a_boundary():
    assert parts_of(BODY, "multipart/form-data") is None


def test_empty_contents():
    body = b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n--B--'
    parts = parts_of(body, KIND)
    assert parts is not None
    assert body[slice(*parts[1][:2])] == b""
