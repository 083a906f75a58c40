"""Asks again, or another target, when an attempt fails before a token of its answer has gone down."""

from plugins.failover.failover import Failover
from plugins.failover.settings import Backoff, FailoverConfig

__all__ = ["Backoff", "Failover", "FailoverConfig"]
