"""google-re2 where there is a wheel for it, None elsewhere (musl, and what is neither x86-64 nor aarch64)."""

from __future__ import annotations

from typing import Any

try:
    import re2 as _re2
except ImportError:
    _re2 = None

re2: Any = _re2

__all__ = ["re2"]
