import subprocess
import sys
import time

import pytest

from tests.plugins.pii.found import found


@pytest.mark.parametrize(
    "phone",
    [
        "+14155552671",
        "+1 (415) 555-2671",
        "+44 20 7946 0958",
        "+49 (0)30 901820",
        "0049 30 901820",
        "001 212-941-6493",
        "+91 81234 63878",
        "+41.78.123.46.22",
        "+1\u202f415\u2011555\u20112671",
        "415-555-2671",
        "(415) 555-2671",
        "(415)555-2671",
        "415.555.2671",
        "1-800-555-0199",
        "+1-210-601-6761x84723",
        "07400 123456",
        "020 7946 0958",
    ],
)
def test_numbers_that_need_no_word(phone):
    assert found(f"Ann Lee, {phone}, Berlin") == [f"phone: {phone}"]
    assert found(f"ご連絡先は{phone}、") == [f"phone: {phone}"]


@pytest.mark.parametrize(
    ("text", "phone"),
    [
        ("Telefon: 222 103 2560\nE-Mail:", "222 103 2560"),
        ("Tel.: 081234 57524, Mobil:", "081234 57524"),
        ("please call me at 9747 6578 today", "9747 6578"),
        ("You can reach me on 03.93.92.16.85", "03.93.92.16.85"),
        ('{"phone": "4155552671"}', "4155552671"),
        ("phone_number=4155552671&x=1", "4155552671"),
        ("Fax: 9498777106", "9498777106"),
        ("her number was 2063773592", "2063773592"),
        ("電話 03-1251-8338", "03-1251-8338"),
        ("0431 35 06 90-Office", "0431 35 06 90"),
    ],
)
def test_numbers_that_a_word_announces(text, phone):
    assert found(text) == [f"phone: {phone}"]


@pytest.mark.parametrize(
    "text",
    [
        "order 8753793113 was refunded; Case 9353729612: pending; id=6431977396",
        "tracking number 7004720336",
        "Part number: 471-768-1303-A, serial 954-987-6319X, model 247.138.0646",
        "SKU 8885-0672; Total: $49,076.73",
        '{"created": 1501736334, "t": 1644401499384}',
        "lat 82.411503, lon -87.274477",
        "call me on 2024-10-11 or 11.10.2024, at 10.0.0.1",
        "ISBN 978-0-9984814-2-5 / 0-604-67419-8",
        "pages 321-794, years 1999-2024, ports 8000-8080",
        "3348 114 989 344 0995 6543 469 392 236 470 4919 7420",
        "loss=0.7839179090442066 lr=0.000543373939",
        "request_id=9168782e-1b79-5148-af2d-8780712310a6",
        "+0.123456789, a +12345678 b",
        "FR76 0020 0128 0000 0012 0052",
        "4155552671",
    ],
)
def test_no_phone_numbers(text):
    assert found(text, "phone") == []


def test_without_a_country_code_or_a_word_the_shapes_of_north_america_and_britain_count():
    assert found("Ann, 415-555-2671, Berkeley", "phone") == ["phone: 415-555-2671"]
    assert found("Ann, 020 7946 0958, London", "phone") == ["phone: 020 7946 0958"]
    assert found("Ann, 030 901820, Berlin", "phone") == []


def test_the_metadata_are_only_loaded_where_phones_are_looked_for():
    code = (
        "import sys; from plugins.pii.detector import Detector; Detector(['email', 'secret', 'iban']);"
        "print('phonenumbers' in sys.modules); Detector(['phone']); print('phonenumbers' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=True)
    assert ran.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("digits", ["0042 79462", "004-279462", "00 4279462", "0021/44441000"])
def test_what_calls_a_country_that_there_is_not_is_none_and_breaks_nothing(digits):
    assert found(digits, "phone") == []


@pytest.mark.parametrize("row", ["+" + "4" * 200, "+4" + "4" * 40, "4" * 200, "(4" * 100, "+4)" * 70])
def test_no_row_of_digits_is_cut_in_every_way(row):
    """Of 40 there are millions of ways; the text is an app's, and everybody waits for it."""
    began = time.process_time()
    assert found(f"{row}x " * 20, "phone") == []
    assert time.process_time() - began < 2
