"""Traces of exchanges and their attempts, sent to an OpenTelemetry collector."""

from plugins.tracing.settings import TracingConfig
from plugins.tracing.tracing import Tracing

__all__ = ["Tracing", "TracingConfig"]
