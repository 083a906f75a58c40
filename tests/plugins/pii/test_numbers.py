import pytest

from plugins.pii.numbers import luhn, mod97
from tests.plugins.pii.found import found


@pytest.mark.parametrize(
    "card",
    [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4012-8888-8888-1881",
        "4222222222222",
        "5555555555554444",
        "2223003122003222",
        "378282246310005",
        "3782 822463 10005",
        "30569309025904",
        "6011111111111117",
        "3530111333300000",
        "6759649826438453",
        "4111\u20111111\u20111111\u20111111",
        "4111\u00a01111\u00a01111\u00a01111",
    ],
)
def test_cards(card):
    assert found(f"Card on file: {card} (exp 11/28).") == [f"credit_card: {card}"]
    assert found(f"card={card}&x=1") == [f"credit_card: {card}"]
    assert found(f"カード番号は{card}です") == [f"credit_card: {card}"]


@pytest.mark.parametrize("behind", ["12/28", "12/28 123", "123", "12 28", "1228", "1228 123"])
def test_what_is_written_behind_a_card_hides_it_not(behind):
    assert found(f"card 4111 1111 1111 1111 {behind}") == ["credit_card: 4111 1111 1111 1111"]


@pytest.mark.parametrize(
    "text",
    [
        "4111 1111 1111 1112",  # its check digit is wrong
        "order 7216572696513882 has shipped",
        "IMEI 356938035643809",
        "1736611320206, 1758048863293725, 1503893962509198411",  # epochs
        "uuid 12345678-4111-1111-1111-111111111111",
        "0.4111111111111111",
        "3348 4111 1111 1111 1111 0995 6543 5469 3926",  # a row of numbers
        "sha256:4111111111111111aa",
        "0000 0000 0000 0000",
    ],
)
def test_no_cards(text):
    assert found(text, "credit_card") == []


@pytest.mark.parametrize(
    "text",
    ["SSN 536-22-1234", "('x', '536 22 1234', 1)", "ssn=536-22-1234&name=x", "**536-22-1234**", "SSN: 536221234"],
)
def test_social_security_numbers(text):
    assert [shown.replace("-", "").replace(" ", "") for shown in found(text)] == ["us_ssn:536221234"]


@pytest.mark.parametrize(
    "text",
    [
        "000-12-3456 666-45-6789 614-00-4780 443-19-0000 903-50-5808",
        "536221234",
        "536-22.1234",
        "394 97 6084 12 33",
        "x536-22-1234 536-22-12345",
        "2024-12-3456",
    ],
)
def test_no_social_security_numbers(text):
    assert found(text, "us_ssn") == []


def test_what_somebody_calls_an_ssn_is_one_though_none_is_issued_like_that():
    assert found("Backup SSN 987-65-4321 recorded.") == ["us_ssn: 987-65-4321"]


@pytest.mark.parametrize(
    "iban",
    [
        "GB82WEST12345698765432",
        "GB82 WEST 1234 5698 7654 32",
        "gb82west12345698765432",
        "DE89 3704 0044 0532 0130 00",
        "NO9386011117947",
        "MT84 MALT 0110 0001 2345 MTLC AST0 01S",
        "FR14-2004-1010-0505-0001-3M02-606",
    ],
)
def test_ibans(iban):
    assert found(f"to {iban} AND more, or 12") == [f"iban: {iban}"]


@pytest.mark.parametrize(
    "text",
    ["GB82WEST12345698765431", "GB82WEST1234569876543", "XX82WEST12345698765432", "GB82WEST12345698765432X"],
)
def test_no_ibans(text):
    assert found(text) == []


def test_checksums():
    assert luhn("79927398713")
    assert not luhn("79927398710")
    assert not luhn("0000000000")
    assert mod97("GB82WEST12345698765432")
    assert not mod97("GB83WEST12345698765432")
