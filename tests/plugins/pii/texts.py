"""Texts that hold a bit of everything, and a strategy that puts such bits together in ways that nobody would think of."""

from hypothesis import strategies as st

TEXTS = (
    "Please call Ann Lee at +1 (415) 555-2671 or write to ann.lee@example.com before 2024-10-11.",
    "Card 4111 1111 1111 1111 12/28 123, IBAN GB82 WEST 1234 5698 7654 32 AND SSN 536-22-1234",
    'ERROR 2024-10-11T10:30:00Z client=10.1.2.3 [fe80::1]:443 {"password": "Tr0ub4dor", "n": 1}',
    "see https://user:Tr0ub4dor@example.com/a?b=c and tokens: 4096; token=9f86d081884c7d659a2feaa0c55ad015",
    "番号は+819012345678、メールはann@example.comで",
    "def get(self, key: str) -> str:\n    return self._values[key][1::2]  # a::b::c",
    "",
)

BITS = (
    *("call me at ", "order ", "+1 415 555 2671", "555", " 4111 1111 1111 1111", "GB82 WEST 1234 5698 7654 32", "FBI "),
    *(
        " ",
        "  ",
        "\n",
        ": ",
        "= '",
        '"',
        "'",
        "(",
        ")",
        ",",
        ".",
        "-",
        "--",
        "/",
        "::",
        "@",
        "&x=",
        "\\n",
        "\\",
        "é",
        "は",
    ),
    *("password", "token", "key", "api_", "is ", "Bearer ", "abcDEFghiJKL123", "a@b.com", "12", "345", "x", "fe80::1"),
    *("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----", "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC", "://u:p4ss@h"),
    *("sk-", "10.0.0.1", "536-22-1234", "https://", "EMP-123456", "curl -u a:b1c2d3 ", "\u00a0", "\u2011"),
)

texts = st.lists(st.sampled_from(BITS), max_size=14).map("".join)
