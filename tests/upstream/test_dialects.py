"""What servers write on their pages of metrics, and what is read of it: two numbers, however the page is cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.upstream.dialects import DIALECTS, LINE_BYTES, Page
from proxy.upstream.work import Reading

PAGES = {
    "tgi": """\
# TYPE tgi_queue_size gauge
tgi_queue_size 3

# TYPE tgi_batch_current_size gauge
tgi_batch_current_size 12

# TYPE tgi_request_queue_duration histogram
tgi_request_queue_duration_bucket{le="0.001"} 4
tgi_request_queue_duration_count 4
""",
    "vllm": """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 7.0
vllm:num_requests_running{engine="1",model_name="meta-llama/Llama-3.1-8B-Instruct"} 5.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="meta-llama/Llama-3.1-8B-Instruct"} 2.0
vllm:num_requests_waiting{engine="1",model_name="meta-llama/Llama-3.1-8B-Instruct"} 1.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 2.0
""",
    "sglang": """\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{model_name="m",note="a } brace and num_queue_reqs 9"} 12.0
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs{model_name="m"} 3.0 1700000000000
""",
    "llamacpp": """\
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 12
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 3
""",
    "trtllm": """\
trtllm_num_requests_running{engine_type="trtllm",model_name="m"} 12.0
trtllm_num_requests_waiting{engine_type="trtllm",model_name="m"} 3.0
""",
    "triton_trtllm": """\
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 3
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 12
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} 15
""",
    "triton": """\
nv_inference_pending_request_count{model="a",version="1"} 10
nv_inference_pending_request_count{model="b",version="1"} 5
""",
}
TOLD = {name: Reading(12.0, 3.0) for name in PAGES} | {"triton": Reading(0.0, 15.0)}


def read(*pieces):
    page = Page(tuple(DIALECTS.values()))
    for piece in pieces:
        page.feed(piece)
    page.end()
    return {name: told for name, dialect in DIALECTS.items() if (told := page.reading(dialect)) is not None}


def test_every_dialect_has_its_page_here():
    assert PAGES.keys() == DIALECTS.keys()


@pytest.mark.parametrize("name", PAGES)
def test_of_all_dialects_the_right_one_is_found(name):
    assert read(PAGES[name].encode()) == {name: TOLD[name]}


@pytest.mark.parametrize("name", PAGES)
def test_wherever_the_page_is_cut(name):
    text = PAGES[name].encode()
    for at in range(len(text)):
        assert read(text[:at], text[at:]) == {name: TOLD[name]}


@given(st.sampled_from(sorted(PAGES)), st.lists(st.integers(1, 40), min_size=1))
def test_in_however_small_pieces(name, sizes):
    text, pieces = PAGES[name].encode(), []
    for size in sizes:
        pieces.append(text[:size])
        text = text[size:]
    assert read(*pieces, text) == {name: TOLD[name]}


@pytest.mark.parametrize("value", [b"NaN", b"+Inf", b"-3", b"", b"many"])
def test_what_is_no_number_of_requests_says_nothing(value):
    assert read(b"tgi_queue_size %b\ntgi_batch_current_size 2\n" % value) == {"tgi": Reading(2.0, 0.0)}


def test_a_line_break_may_be_missing_and_lines_may_end_as_on_windows():
    assert read(b"tgi_queue_size 4\r\ntgi_batch_current_size 2") == {"tgi": Reading(2.0, 4.0)}


def test_a_line_without_end_is_not_kept():
    page = Page((DIALECTS["tgi"],))
    for _ in range(100):
        page.feed(b"x" * LINE_BYTES)
    assert len(page._rest) <= LINE_BYTES
    page.feed(b"tgi_queue_size 9\ntgi_queue_size 4\n")
    assert page.reading(DIALECTS["tgi"]) == Reading(0.0, 4.0)


@given(st.binary(max_size=300))
def test_nothing_that_a_server_writes_breaks_it(data):
    read(data, b"\ntgi_queue_size{" + data + b"} " + data + b"\n")
