"""TGI's errors as OpenAI would tell them, with text-generation's own classes and without its package."""

from __future__ import annotations

import subprocess
import sys

import orjson
import pytest
import text_generation.errors

from proxy.fault import fault_of_response
from proxy.kind import Kind
from proxy.plugin import in_band_error
from proxy.response import Response
from proxy.upstream.taxonomy import classes, error_in, refusal

INVALID = "invalid_request_error"

ERRORS = {
    "validation": (422, "Input validation error: `top_p` must be > 0.0 and < 1.0", "validation", (400, INVALID, "validation"), Kind.CLIENT),
    "too long": (422, "Input validation error: `inputs` must have less than 1024 tokens. Given: 1534", "validation", (400, INVALID, "context_length_exceeded"), Kind.CONTEXT_LENGTH),
    "tools": (422, "Tool error: Grammar and tools are mutually exclusive", "tool_error", (400, INVALID, "tool_error"), Kind.CLIENT),
    "template": (422, "Template error: template not found", "template_error", (400, INVALID, "template_error"), Kind.CLIENT),
    "template variable": (422, "Missing template vatiable: x", "missing_template_variable", (400, INVALID, "missing_template_variable"), Kind.CLIENT),
    "suffix": (422, "Suffix is not supported and can be achieved by preprocessing the prompt.", "suffix not supported", (400, INVALID, "suffix_not_supported"), Kind.CLIENT),
    "batch": (422, "Number of prompts exceeds the maximum allowed batch size of 4", "batch size exceeded", (400, INVALID, "batch_size_exceeded"), Kind.CLIENT),
    "overloaded": (429, "Model is overloaded", "overloaded", (429, "overloaded_error", "overloaded"), Kind.RATE_LIMITED),
    "generation": (424, "Request failed during generation: CUDA out of memory", "generation", (500, "server_error", "generation"), Kind.SERVER_ERROR),
    "incomplete": (500, "Incomplete generation", "incomplete_generation", (500, "server_error", "incomplete_generation"), Kind.SERVER_ERROR),
    "incomplete stream": (500, "Incomplete generation stream", "incomplete_generation_stream", (500, "server_error", "incomplete_generation_stream"), Kind.SERVER_ERROR),
    "serialization": (500, "Stream event serialization error", "stream_serialization_error", (500, "server_error", "stream_serialization_error"), Kind.SERVER_ERROR),
    "unhealthy": (503, "unhealthy", "healthcheck", (503, "server_error", "healthcheck"), Kind.OVERLOADED),
    "without a kind": (503, "503 Service Unavailable", None, (503, "server_error", None), Kind.OVERLOADED),
    "not found": (404, "no such adapter", None, (404, INVALID, None), Kind.UNSUPPORTED),
}  # fmt: skip
"""Status, text and kind over HTTP; what OpenAI would make of it; and what that is to failover and breaker."""

IN_BAND = [name for name in ERRORS if name in {"validation", "too long", "tools", "template", "template variable", "overloaded", "generation", "incomplete", "incomplete stream"}]  # fmt: skip


@pytest.mark.parametrize(("status", "message", "word", "told", "kind"), ERRORS.values(), ids=ERRORS)
def test_over_http(status, message, word, told, kind):
    error = error_in(status, {"error": message, **({"error_type": word} if word else {})})
    assert error is not None
    assert error.message == message
    assert (error.status, error.type, error.code) == told
    assert fault_of_response(answer(error)).kind is kind


@pytest.mark.parametrize("name", IN_BAND)
def test_within_a_200_the_text_alone_tells(name):
    _, message, _, told, kind = ERRORS[name]
    error = error_in(200, {"error": {"message": message, "http_status_code": 422}})
    assert error is not None
    assert (error.status, error.type) == told[:2]
    assert fault_of_response(answer(error)).kind is kind


def test_within_a_200_what_nobody_knows_is_the_servers():
    error = error_in(200, {"error": {"message": "Stream event serialization error", "http_status_code": 422}})
    assert error == (500, "Stream event serialization error", "server_error", None, None)


@pytest.mark.parametrize(
    "value", [{"error": {"message": "no", "type": "invalid_request_error", "code": None}}, {"detail": "no"}, {}, [], None, {"error": None}]
)  # fmt: skip
def test_what_is_no_error_of_tgis_stays(value):
    assert error_in(422, value) is None


def test_its_body_is_openais():
    error = error_in(422, {"error": "Input validation error: no", "error_type": "validation"})
    assert error is not None
    assert orjson.loads(error.body()) == {
        "error": {"message": "Input validation error: no", "type": INVALID, "code": "validation", "param": None},
        "error_type": "validation",
    }
    told = in_band_error(orjson.loads(error.body()))
    assert (told.message, told.type) == ("Input validation error: no", INVALID)


@pytest.mark.parametrize(("status", "message", "word"), [each[:3] for each in ERRORS.values()], ids=ERRORS)
def test_text_generation_raises_for_it_what_it_raises_for_tgis_own(status, message, word):
    parse, own = text_generation.errors.parse_error, {"error": message, **({"error_type": word} if word else {})}
    error = error_in(status, own)
    raised, direct = type(parse(error.status, orjson.loads(error.body()))), type(parse(status, own))
    assert raised is direct or direct is text_generation.errors.UnknownError


def test_what_the_framework_refuses():
    assert refusal(422, "Failed to deserialize ☕".encode()) == (
        400,
        "Failed to deserialize ☕",
        INVALID,
        None,
        "validation",
    )
    assert refusal(413, b"length limit exceeded").status == 413


def test_the_classes_are_text_generations_own():
    assert {name for name in vars(classes()) if name.endswith("Error")} == {
        name for name in vars(text_generation.errors) if name.endswith("Error")
    }


def test_the_package_itself_is_not_imported():
    asked = (
        "import sys\nfrom proxy.upstream import taxonomy\ntaxonomy.classes()\n"
        "print(*sorted({'text_generation', 'huggingface_hub', 'requests'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=50, check=True)
    assert ran.stdout.strip() == ""


def answer(error) -> Response:
    return Response(error.status, headers={"content-type": "application/json"}, body=error.body())
