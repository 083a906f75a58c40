import random

import pytest

from plugins.pii import pem
from tests.plugins.pii import secret_texts
from tests.plugins.pii.found import found


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\\n", '\\n" +\n  "'])
def test_private_keys_are_found_whole(seed, line_break):
    block = secret_texts.pem(random.Random(seed)).replace("\n", line_break)
    assert found(f"key = '{block}', and so on") == [f"secret: {block}"]


def test_headers_belong_to_a_block():
    body = secret_texts.pem(random.Random(1)).split("\n", 1)[1]
    block = f"-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,0A1B\n\n{body}"
    assert found(f"{block}\n") == [f"secret: {block}"]


def test_a_block_without_an_end_is_found_as_far_as_it_looks_like_one():
    head = secret_texts.pem(random.Random(1)).rpartition("\n")[0]
    assert found(f"{head}\n[...] and so on") == [f"secret: {head}"]


def test_a_block_is_cut_at_the_limit():
    block = secret_texts.pem(random.Random(1), lines=400)
    shown = found(f"{block} a@b.com")
    assert len(shown[0]) == len("secret: ") + pem.LIMIT
    assert shown[-1] == "email: a@b.com"


@pytest.mark.parametrize(
    "text",
    [
        "-----BEGIN PRIVATE KEY-----",
        'if text.startswith("-----BEGIN PRIVATE KEY-----"): return True',
        "-----BEGIN CERTIFICATE-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkq\n-----END CERTIFICATE-----",
        "-----BEGIN PUBLIC KEY-----\nMIIDdzCCAl+gAwIBAgIEAgAAuTANBgkq\n-----END PUBLIC KEY-----",
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
    ],
)
def test_no_private_keys(text):
    assert found(text) == []
