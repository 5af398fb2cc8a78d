"""Records spans with OpenTelemetry, and exports them with OTLP over HTTP.

Spans contain names, numbers and ids. Callers must put no prompts, answers or error messages into
them. Error messages can quote a request.
"""

import logging
import os
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from importlib.metadata import version

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from shared.errors import ErrorCode

Attributes = Mapping[str, str | int | float | bool | Sequence[str] | None]
"""Attributes of spans and events by name. Attributes that are None are left out."""

EXPORT_MS = 1000
"""Milliseconds between two exports, unless OTEL_BSP_SCHEDULE_DELAY is set.

OpenTelemetry's default is 5,000. A process that is killed loses the spans since its last export.
"""
CLOSE_S = 2.0
"""Maximum seconds for the last export, at the end of the process."""
LOG_S = 60.0
"""Minimum seconds between two log lines about failed exports."""

log = structlog.get_logger()


class Span:
    """One operation within a trace."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def traceparent(self) -> str | None:
        """W3C header that makes another span a child of this span.

        None if this span isn't sampled.
        """
        context = self._span.get_span_context()
        if not context.trace_flags.sampled:
            return None
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    def rename(self, name: str) -> None:
        """Replace the name of the span."""
        self._span.update_name(name)

    def set(self, attributes: Attributes) -> None:
        """Add attributes to the span, or replace attributes of the same names."""
        self._span.set_attributes(_present(attributes))

    def event(self, name: str, attributes: Attributes, *, at_ns: int) -> None:
        """Add an event that occurred at a Unix time in nanoseconds."""
        self._span.add_event(name, _present(attributes), at_ns)

    def fail(self, error: ErrorCode | str) -> None:
        """Record that the operation failed.

        The span's status becomes `error` only for failures of the server, and not for mistakes of
        the client, as in OpenTelemetry's conventions for HTTP.
        """
        self._span.set_attribute("error.type", str(error))
        if isinstance(error, ErrorCode) and error.status >= 500:
            self._span.set_status(trace.StatusCode.ERROR)

    def end(self, *, at_ns: int | None = None) -> None:
        """End the span now or at a Unix time in nanoseconds. Later changes have no effect."""
        self._span.end(at_ns)


class Tracer:
    """Starts spans. A separate thread exports the spans that have ended.

    If the collector can't be reached, spans are dropped and a warning is logged. OpenTelemetry's
    environment variables set everything that `Tracer` doesn't, such as headers and sampling.
    """

    def __init__(self, endpoint: str, *, service: str, pool: str) -> None:
        """Create a tracer that exports to `endpoint`, the base URL of a collector."""
        _log_failures()
        self._provider = TracerProvider(
            resource=_resource(service, pool),
            # `close` limits the time of the last export. An exit handler would not.
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces")
        self._provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                schedule_delay_millis=_unless_set("OTEL_BSP_SCHEDULE_DELAY", EXPORT_MS),
            )
        )
        self._tracer = self._provider.get_tracer("lorikeet", version("lorikeet-serve"))
        self._propagator = TraceContextTextMapPropagator()

    def serve(self, name: str, headers: Mapping[str, str]) -> Span:
        """Start the span of a request to this process.

        The span continues the trace in the header `traceparent` of `headers`. If the header is
        missing or invalid, the span begins a new trace.
        """
        parent = self._propagator.extract(dict(headers))
        return Span(self._tracer.start_span(name, parent, trace.SpanKind.SERVER))

    def consume(
        self, name: str, traceparent: str, attributes: Attributes, *, start_ns: int | None = None
    ) -> Span:
        """Start the span of work on a message, as a child of the span with this `traceparent`.

        `start_ns` is the Unix time in nanoseconds at which the work began, by default now.
        """
        parent = self._propagator.extract({"traceparent": traceparent})
        return Span(
            self._tracer.start_span(
                name, parent, trace.SpanKind.CONSUMER, _present(attributes), start_time=start_ns
            )
        )

    def close(self) -> None:
        """Export the spans that have ended, for at most `CLOSE_S` seconds. Blocks."""
        # OpenTelemetry's exporter would retry for up to 30 s.
        thread = threading.Thread(target=self._provider.shutdown, daemon=True)
        thread.start()
        thread.join(CLOSE_S)


def _present(attributes: Attributes) -> dict[str, str | int | float | bool | Sequence[str]]:
    return {name: value for name, value in attributes.items() if value is not None}


def _resource(service: str, pool: str) -> Resource:
    about = {
        "service.version": version("lorikeet-serve"),
        "service.instance.id": str(uuid.uuid4()),
        "lorikeet.pool": pool,
    }
    if "OTEL_SERVICE_NAME" not in os.environ:
        about["service.name"] = service
    return Resource.create(about)


def _unless_set(variable: str, value: int) -> int | None:
    """Return `value`, or None if the environment variable `variable` is set.

    If a setting is None, OpenTelemetry reads the environment variable itself.
    """
    return None if variable in os.environ else value


def _log_failures() -> None:
    """Write OpenTelemetry's warnings to this process's log instead of standard error."""
    logger = logging.getLogger("opentelemetry")
    logger.propagate = False
    logger.handlers = [_FailureLog(logging.WARNING)]


class _FailureLog(logging.Handler):
    """Logs OpenTelemetry's warnings, at most one in `LOG_S` seconds."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self._next_s = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        """Log the warning, unless another one was logged within the last `LOG_S` seconds."""
        now = time.monotonic()
        if now >= self._next_s:
            self._next_s = now + LOG_S
            log.warning("traces_not_exported", reason=record.getMessage())
