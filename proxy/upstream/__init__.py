"""The upstream side: bytes are pushed, `data_received` to the downstream transport's `write` in one callback."""
