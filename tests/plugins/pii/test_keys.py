import random

import pytest

from tests.plugins.pii.found import found
from tests.plugins.pii.secret_texts import FORM_CONTEXTS, FORMATS, labelled


@pytest.mark.parametrize("form", FORMATS)
def test_keys_of_a_provider_are_found_wherever_they_stand(form):
    rng = random.Random(form)
    for context in FORM_CONTEXTS:
        text, start, end = labelled(context, FORMATS[form](rng))
        assert found(text) == [f"secret: {text[start:end]}"]


@pytest.mark.parametrize(
    "text",
    [
        "risk-assessment-and-mitigation-strategies-2024",
        "sk-fading-circle-spinner-animation",
        "/v1/files/file-Tbw646MnSpvmAD2UWBZsggHC/content",
        "chatcmpl-9aBcDeFgHiJkLmNoPqRsTuVwXyZ12 req_011CSHoEeqs5C35K2UUqR7Fy",
        "pk_" + "test_TYooMQauvdEDq54NiTphI7jx",
        "commit be9a07a799ae8f6001ef4b902ec0fa6cde3fd0ea",
        "hf_hub_download npm_config_registry pypi-simple",
        "xAKIAABCDEFGHIJKLMNOP1 AKIAABC",
    ],
)
def test_no_keys(text):
    assert found(text) == []
