"""Reversible redaction of personal data and secrets, in whole bodies and in streams."""

from plugins.pii.custom import Custom
from plugins.pii.pii import Pii
from plugins.pii.settings import Allow, PiiConfig

__all__ = ["Allow", "Custom", "Pii", "PiiConfig"]
