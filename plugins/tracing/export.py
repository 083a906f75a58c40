"""From facts to a collector: OpenTelemetry's SDK, fed with spans that are over, which it sends from its own thread.

What waits is bounded (`OTEL_BSP_MAX_QUEUE_SIZE`, 2048): where the collector is away, spans are lost and requests are
not. Everything here imports the SDK: nobody imports this before the plugin is used.
"""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING, Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from plugins.tracing.context import Parent
    from plugins.tracing.settings import TracingConfig
    from plugins.tracing.spans import Attributes
    from proxy.plugin import Services

FLUSH_SECONDS: Final = 5.0
"""How long a stop waits for the collector."""

POD: Final = {
    "k8s.pod.name": ("K8S_POD_NAME", "POD_NAME"),
    "k8s.pod.uid": ("K8S_POD_UID", "POD_UID"),
    "k8s.namespace.name": ("K8S_NAMESPACE_NAME", "K8S_NAMESPACE", "POD_NAMESPACE", "NAMESPACE"),
    "k8s.node.name": ("K8S_NODE_NAME", "NODE_NAME"),
    "k8s.container.name": ("K8S_CONTAINER_NAME", "CONTAINER_NAME"),
    "k8s.deployment.name": ("K8S_DEPLOYMENT_NAME", "DEPLOYMENT_NAME"),
}
"""Attributes by the variables in which pods are usually told of themselves; OTEL_RESOURCE_ATTRIBUTES goes before."""


class Pipeline:
    """Spans are made whole, as they are over: through the SDK's tracer each takes more than twice as long."""

    def __init__(self, config: TracingConfig, services: Services) -> None:
        headers = {name: value.get_secret_value() for name, value in config.headers.items()}
        exporter = OTLPSpanExporter(config.endpoint, headers=headers or None)
        self._processor = BatchSpanProcessor(_Counted(exporter, services))
        self._resource = resource(config, os.environ)

    def add(
        self,
        name: str,
        parent: Parent | None,
        ids: tuple[int, int],
        times: tuple[int, int],
        attributes: Attributes,
        *,
        is_client: bool,
        events: Sequence[tuple[str, int]] = (),
        is_failed: bool = False,
    ) -> None:
        """A span that is over. `ids` are the trace's and its own; times are nanoseconds since 1970."""
        state = "" if parent is None else parent.state
        span = ReadableSpan(
            name,
            context=_context(*ids, state, is_remote=False),
            parent=parent and _context(parent.trace_id, parent.span_id, state, is_remote=not is_client),
            resource=self._resource,
            attributes=attributes,
            events=[Event(event, timestamp=at) for event, at in events],
            kind=SpanKind.CLIENT if is_client else SpanKind.SERVER,
            status=_FAILED if is_failed else _UNSET,
            start_time=times[0],
            end_time=times[1],
            instrumentation_scope=_SCOPE,
        )
        self._processor.on_end(span)

    async def close(self) -> None:
        """Send what waits, for a few seconds at most."""
        loop, is_over = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._processor.shutdown()  # type: ignore[no-untyped-call]  # in the SDK
            if not loop.is_closed():
                loop.call_soon_threadsafe(is_over.set)

        threading.Thread(target=shut_down, name="last spans", daemon=True).start()
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await is_over.wait()
        except TimeoutError:
            pass


def samples(config: TracingConfig, environ: Mapping[str, str]) -> Callable[[int], bool]:
    """Whether a trace that begins here is recorded, by its id: the same for all who decide by ratio."""
    ratio = _sampler(config, environ)
    return lambda trace_id: ratio.should_sample(None, trace_id, "").decision is Decision.RECORD_AND_SAMPLE


def _sampler(config: TracingConfig, environ: Mapping[str, str]) -> TraceIdRatioBased:
    """Raises ValueError for a variable that is no ratio."""
    if config.sample is not None:
        return TraceIdRatioBased(config.sample)
    told = environ.get("OTEL_TRACES_SAMPLER_ARG") or "1"
    if environ.get("OTEL_TRACES_SAMPLER", "").endswith("always_off"):
        return TraceIdRatioBased(0)
    try:
        return TraceIdRatioBased(float(told))
    except ValueError:
        raise ValueError(f"OTEL_TRACES_SAMPLER_ARG is {told!r}; write a number from 0 to 1, as in 0.1") from None


def resource(config: TracingConfig, environ: Mapping[str, str]) -> Resource:
    """The SDK adds OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME, which go before."""
    pod = {name: next((environ[key] for key in keys if environ.get(key)), None) for name, keys in POD.items()}
    found = {name: value for name, value in pod.items() if value is not None}
    if "KUBERNETES_SERVICE_HOST" in environ and environ.get("HOSTNAME"):
        found.setdefault("k8s.pod.name", environ["HOSTNAME"])
    told = Resource.create({"service.name": "weir"}) if not environ.get("OTEL_SERVICE_NAME") else Resource.create()
    merged = Resource(found).merge(told)
    return merged.merge(Resource({"service.name": config.service_name})) if config.service_name else merged


class _Counted(SpanExporter):
    """Called on the SDK's thread: no one else adds to these two series."""

    def __init__(self, exporter: SpanExporter, services: Services) -> None:
        self._exporter = exporter
        self._spans = services.counter("weir_spans", "spans by what became of them", ("result",))
        for result in ("exported", "failed"):
            self._spans.add((result,), 0)

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        self._spans.add(("exported" if result is SpanExportResult.SUCCESS else "failed",), len(spans))
        return result

    @override
    def shutdown(self) -> None:
        self._exporter.shutdown()


def _context(trace_id: int, span_id: int, state: str, *, is_remote: bool) -> SpanContext:
    kept = TraceState.from_header([state]) if state else None
    return SpanContext(trace_id, span_id, is_remote, _SAMPLED, kept)


_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_SCOPE = InstrumentationScope("weir")
_UNSET, _FAILED = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
