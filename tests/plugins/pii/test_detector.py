import pytest

from plugins.pii.detector import Detector
from tests.plugins.pii.found import found


def test_everything_at_once_in_order():
    text = (
        "ann@example.com, 4111111111111111, 536-22-1234, DE89370400440532013000, 10.1.2.3, +14155552671, hvs."
        + "aB3" * 9
    )
    assert [shown.partition(":")[0] for shown in found(text)] == [
        *("email", "credit_card", "us_ssn", "iban", "ip_address", "phone", "secret"),
    ]


def test_only_what_is_configured_is_found():
    assert found("ann@example.com 10.1.2.3", "ip_address") == ["ip_address: 10.1.2.3"]


def test_own_domains_and_allowed_values_are_no_findings():
    detector = Detector(
        ["email", "credit_card", "phone"], own_domains=["example.com", "@Corp.test"], allowed=["4111 1111 1111 1111"]
    )
    text = "ann@example.com bob@mail.EXAMPLE.com c@corp.test d@notexample.com 4111 1111 1111 1111 4111111111111111"
    assert [text[start:end] for start, end, _ in detector.find(text)] == ["d@notexample.com", "4111111111111111"]


@pytest.mark.parametrize(
    "text",
    [
        "import std::collections::HashMap; let x: Vec<u8> = vec![1, 2, 3];",
        "2024-10-11T10:30:00.123456Z INFO worker-3 took 12.5ms request_id=9168782e-1b79-5148-af2d-8780712310a6",
        "commit be9a07a799ae8f6001ef4b902ec0fa6cde3fd0ea\nMerge: b228f36 69c75ec",
        "pip install foo==3.35.362; kernel 5.8.5-965-generic; Chrome/123.0.6071.9570",
        "Total: $49,076.73; tax 7.55%; SKU 8885-0672; order 4253405573151646",
        '{"created": 1501736334, "ts_us": 1758048863293725, "object": "chat.completion"}',
        "ISBN 978-0-9984814-2-5 / 0-604-67419-8, IMEI 356938035643809",
        "eth0 hwaddr c8:7b:51:1a:6a:5a mtu 1500",
        "CVE-2019-64929 is fixed; see RFC 9589 section 5.5.5.a",
        "[-1.9613, -3.5070, 3.1988, 4.1014, 1.5218, -2.9073, 0.4420]",
        "for (int i = 0; i < 100; ++i) { sum += a[i] * 0x7fff; }  // O(n^2)",
    ],
)
def test_code_logs_and_ids_pass_untouched(text):
    assert found(text) == []
    assert found(text, "url", "phone", "credit_card", "secret", "iban") == []
