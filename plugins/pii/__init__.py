"""Reversible redaction of personal data and secrets, in whole bodies and in streams."""
