import pytest

from plugins.pii.announced import Announced, announced


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Tel.: ", Announced.PHONE),
        ("phoneNumber: ", Announced.PHONE),
        ("Desk: ", Announced.PHONE),
        ("Телефон ", Announced.PHONE),
        ("携帯は", Announced.PHONE),
        ("please call me at ", Announced.TALK),
        ("my number is ", Announced.TALK),
        ("call about order ", Announced.OTHER),
        ("tracking number ", Announced.OTHER),
        ("phone\n", None),
        ("phone, and then so many other words that it means nothing ", None),
        ("", None),
    ],
)
def test_the_last_word_that_says_anything_counts(line, said):
    assert announced(line, len(line)) is said
