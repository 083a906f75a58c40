"""Who used what, and what it cost: usage, prices, the ledger, and the metrics of tokens and money."""

from plugins.metering.metering import Metering, MeteringConfig

__all__ = ["Metering", "MeteringConfig"]
