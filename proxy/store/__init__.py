"""What policies count and keep: a few atomic operations, in this process's memory or in a Redis that replicas share."""
