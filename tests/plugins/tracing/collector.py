"""A collector: OTLP over HTTP on a free port of 127.0.0.1, decoded by OpenTelemetry's own protobuf classes."""

import asyncio
import contextlib
import gzip
from dataclasses import dataclass, field

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests import wire


@dataclass
class Span:
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    state: str
    attributes: dict
    resource: dict
    events: list
    status: int
    start: int
    end: int


@dataclass
class Collector:
    url: str = ""
    status: int = 200
    spans: list[Span] = field(default_factory=list)
    headers: list[dict] = field(default_factory=list)
    hangs: asyncio.Event | None = None

    async def after(self, count):
        """So many spans, the exchanges' before their attempts'."""
        await wire.until(lambda: len(self.spans) >= count)
        assert len(self.spans) == count
        return sorted(self.spans, key=lambda span: (span.kind, span.start))

    async def take(self, request):
        if self.hangs is not None:
            await self.hangs.wait()
        body = await request.read()
        if request.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if self.status == 200:
            self.spans += spans_of(ExportTraceServiceRequest.FromString(body))
        return web.Response(status=self.status, content_type="application/x-protobuf")


def spans_of(sent):
    for group in sent.resource_spans:
        resource = values(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.trace_state)
                events = [(event.name, event.time_unix_nano) for event in span.events]
                times = (span.start_time_unix_nano, span.end_time_unix_nano)
                yield Span(
                    span.name, span.kind, *ids, values(span.attributes), resource, events, span.status.code, *times
                )


def values(attributes):
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@contextlib.asynccontextmanager
async def collector():
    found = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", found.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield found
    finally:
        await runner.cleanup()
