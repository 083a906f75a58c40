"""Exact answers once more: kept per caller, whole ones only, and one upstream call for all who ask the same at once."""

from plugins.cache.cache import Cache
from plugins.cache.settings import CacheConfig, Memory

__all__ = ["Cache", "CacheConfig", "Memory"]
