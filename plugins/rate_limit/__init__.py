"""How many requests and tokens a caller may have, and how many at the same time; right over all replicas."""

from plugins.rate_limit.rate_limit import RateLimit
from plugins.rate_limit.settings import RateLimitConfig

__all__ = ["RateLimit", "RateLimitConfig"]
