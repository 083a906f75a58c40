"""What the words before a number say that it is: a phone number, or something else that has as many digits."""

from __future__ import annotations

import re
from enum import Enum

_WINDOW = 48
_MOST_WORDS = 6
_WORDS = re.compile("[A-Za-z\u00c0-\u024f]+|[#$€£]|[\u0400-\u04ff]+")


class Announced(Enum):
    PHONE = "phone"  # `Tel.:`; even bare digits count
    TALK = "talk"  # `call me at`; digits count that are grouped as numbers are
    OTHER = "other"  # `order`, `part no.`; nothing counts


_SAID = {
    word: said
    for said, words in {
        Announced.PHONE: """
            phone phones phonenumber phoneno telephone telephones tel tele telefon telefono teléfono téléphone telefone
            telefoon telefonnummer rufnummer mobile mobil mobiles mobilenumber móvil movil celular cell cellphone
            cellular fax faxes telefax handy handynummer gsm portable whatsapp whats sms hotline helpline dial dialed
            dialled msisdn landline pager тел телефон телефону мобильный факс numer nummer
        """,
        Announced.TALK: """
            call calls called calling callback caller reach reached ring answer answering answered contact contacted
            contacts message messages text texted texting desk office voicemail emergency signal telegram
        """,
        Announced.OTHER: """
            order orders invoice ticket case ref reference part serial model sku isbn issn version id ids tracking
            account acct routing policy claim license licence passport card build error port iban zip postal postcode
            total price amount tax vat ean upc imei epoch timestamp time date section sections chapter page pages line
            lines year years commit issue bug lat lon lng latitude longitude coordinates score size bytes count offset
            swift bic bank pin otp # $ € £
        """,
    }.items()
    for word in words.split()
}
_ASIAN = ("電話", "携帯", "連絡先", "电话", "手机", "联系", "전화", "연락처")
_NUMBER = frozenset({"number", "numbers", "no", "nr", "num", "numéro", "número", "numero"})
_OWNERS = frozenset(
    {"my", "his", "her", "our", "your", "their", "old", "new", "home", "work", "emergency", "personal", "private"}
)
_LABELS = frozenset({"desk", "office", "home", "work", "direct", "main"})


def announced(text: str, start: int) -> Announced | None:
    """By the last word of the line, of the few before `start`, that says anything."""
    line = text[max(0, start - _WINDOW) : start].rpartition("\n")[2]
    if not line.isascii() and any(word in line for word in _ASIAN):
        return Announced.PHONE
    words = _WORDS.findall(line.lower())[-_MOST_WORDS:]
    if words and words[-1] in _LABELS and line.rstrip().endswith(":"):
        return Announced.PHONE
    for at in range(len(words) - 1, -1, -1):
        said = _SAID.get(words[at])
        if said is not None:
            return said
        if words[at] in _NUMBER and at and words[at - 1] in _OWNERS:
            return Announced.TALK
    return None
