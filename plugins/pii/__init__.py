"""Reversible redaction of personal data and secrets, in whole bodies and in streams."""

from plugins.pii.pii import Pii
from plugins.pii.settings import PiiConfig

__all__ = ["Pii", "PiiConfig"]
