"""Traces: one from a request over the queue to the published adapter, as W3C `traceparent`. Knows no exporter's name.

A trace id is always made and carried, so that log lines of different processes can be told together. Spans are
recorded and exported over OTLP (HTTP) only where OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is
set; the exporter is not even imported otherwise. OpenTelemetry's own variables configure the rest.
"""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from db.telemetry.version import VERSION

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
Value = str | bool | int | float

_w3c = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("onward", VERSION)


def exporting() -> bool:
    return any(os.environ.get(name) for name in ENDPOINTS)


def configure(component: str) -> Callable[[], None]:
    """Export this process's spans where an endpoint is set. Returns what sends the last ones; call it at the end."""
    if not exporting():
        return lambda: None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    about = {"service.name": f"onward-{component}", "service.version": VERSION}
    provider = TracerProvider(resource=Resource.create(about))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider.shutdown


@contextmanager
def span(
    name: str,
    parent: str | None = None,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    links: Sequence[str] = (),
    **about: Value,
) -> Iterator[Span]:
    """The current span of the block. `parent` is a traceparent; without one the current span is the parent, and
    without that a new trace begins. `links` are traceparents of other traces that belong to it."""
    context = _context(parent)
    if not exporting():
        with trace.use_span(_unrecorded(context)) as unrecorded:
            yield unrecorded
        return
    others = [Link(found) for found in (trace.get_current_span(_context(x)).get_span_context() for x in links)]
    with _tracer.start_as_current_span(name, context, kind=kind, links=others, attributes=about) as recorded:
        yield recorded


def begun(name: str, parent: str | None = None, links: Sequence[str] = (), **about: Value) -> Span:
    """A span that its owner ends with `.end()`; not the current one."""
    context = _context(parent)
    if not exporting():
        return _unrecorded(context)
    others = [Link(trace.get_current_span(_context(x)).get_span_context()) for x in links]
    return _tracer.start_span(name, context, links=others, attributes=about)


@contextmanager
def within(traceparent: str | None) -> Iterator[None]:
    """Lines of the block belong to this trace. No span is made."""
    if traceparent is None:
        yield
        return
    with trace.use_span(trace.get_current_span(_context(traceparent))):
        yield


def traceparent(of: Span | None = None) -> str | None:
    """The given span's, or the current one's; None outside of any."""
    carrier: dict[str, str] = {}
    _w3c.inject(carrier, None if of is None else trace.set_span_in_context(of))
    return carrier.get("traceparent")


def incoming(headers: Mapping[str, str]) -> str | None:
    """The traceparent that a caller sent, where it is well formed."""
    found = trace.get_current_span(_w3c.extract(headers, Context()))
    return traceparent(found) if found.get_span_context().is_valid else None


def trace_id() -> str | None:
    """32 hexadecimal digits, or None outside of any span."""
    context = trace.get_current_span().get_span_context()
    return trace.format_trace_id(context.trace_id) if context.is_valid else None


def _context(parent: str | None) -> Context | None:
    return None if parent is None else _w3c.extract({"traceparent": parent}, Context())


def _unrecorded(context: Context | None) -> Span:
    """A span that is only a place in a trace: its parent's trace with an id of its own."""
    above = trace.get_current_span(context).get_span_context()
    number = above.trace_id if above.is_valid else secrets.randbits(128) or 1
    return NonRecordingSpan(SpanContext(number, secrets.randbits(64) or 1, False, TraceFlags(TraceFlags.SAMPLED)))
