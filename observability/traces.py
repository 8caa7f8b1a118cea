"""OpenTelemetry traces by OTLP/HTTP; imported only where OTEL_EXPORTER_OTLP_ENDPOINT is set."""

import logging
from collections.abc import Iterator, Sequence
from functools import cache
from threading import Lock, Thread
from time import perf_counter, time_ns

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import (
    SERVICE_NAME,
    SERVICE_VERSION,
    OTELResourceDetector,
    Resource,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import (
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    format_trace_id,
    get_tracer_provider,
    set_tracer_provider,
)
from opentelemetry.trace.propagation import set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from capacity.turns import in_turns, pause
from config import VERSION, Settings
from observability.observe import is_our_fault
from trail import METHODS, Report, Trail

log = logging.getLogger(__name__)

EXPORT_TIMEOUT = 5  # seconds
STOP_TIMEOUT = 1.0  # seconds
W3C = TraceContextTextMapPropagator()


class InTurns(list[ReadableSpan]):
    """Spans of which a few are encoded in a turn: a batch would block all requests for 10 ms."""

    def __iter__(self) -> Iterator[ReadableSpan]:
        yield from in_turns(super().__iter__())
        pause()  # the rest of encoding and sending takes milliseconds, too


class Exporter(OTLPSpanExporter):
    """Tells of an outage of the collector once, where its parent would log each attempt."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint, timeout=EXPORT_TIMEOUT)
        self.is_away = False
        self._message = ""  # the first one of an export: later ones name no cause
        logging.getLogger(OTLPSpanExporter.__module__).addFilter(self._keep)
        # That spans are dropped meanwhile goes without saying.
        logging.getLogger("opentelemetry.sdk._shared_internal").addFilter(
            lambda _: not self.is_away
        )

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._message = ""
        result = super().export(InTurns(spans))
        was_away, self.is_away = self.is_away, result is not SpanExportResult.SUCCESS
        if self.is_away and not was_away:
            told = "the collector of OTEL_EXPORTER_OTLP_ENDPOINT takes no spans: %s"
            log.warning(told, self._message)
        elif was_away and not self.is_away:
            log.warning("the collector is back")
        return result

    def _keep(self, record: logging.LogRecord) -> bool:
        self._message = self._message or record.getMessage()
        return False


def tracer(settings: Settings) -> Report:
    """Make the function that turns a request's trail into spans, all at once, when it is over.

    Raises:
        ValueError, RuntimeError: of the variables that the SDK reads, one is wrong.
    """
    logging.getLogger("opentelemetry.util.re").addFilter(without_value)
    # Made only to have those variables read at startup: in `start`, a wrong one would fail each
    # request.
    TracerProvider(shutdown_on_exit=False)
    BatchSpanProcessor(OTLPSpanExporter()).shutdown()  # type: ignore[no-untyped-call]
    starting = Lock()

    @cache
    def start() -> Tracer:
        """Start the exporter, whose thread would not survive a fork, at the first request."""
        endpoint = f"{settings.otel_exporter_otlp_endpoint.rstrip('/')}/v1/traces"
        name = Resource({SERVICE_NAME: "tasks", SERVICE_VERSION: VERSION})
        name = name.merge(OTELResourceDetector().detect())
        provider = TracerProvider(resource=Resource.create().merge(name))
        provider.add_span_processor(BatchSpanProcessor(Exporter(endpoint)))
        set_tracer_provider(provider)
        return provider.get_tracer("tasks")

    def trace(trail: Trail) -> None:
        with starting:
            started = start()
        record_spans(started, trail)

    return trace


def without_value(record: logging.LogRecord) -> bool:
    """Keep what a malformed OTEL_EXPORTER_OTLP_HEADERS holds, often a key, out of the log."""
    record.args = ("(not shown)",)
    return True


def stop() -> None:
    """Send the waiting spans, if the collector takes them; at the exit, nothing bounds the wait."""
    provider = get_tracer_provider()
    if isinstance(provider, TracerProvider):  # else there was no request
        sending = Thread(target=provider.shutdown, daemon=True)
        sending.start()
        sending.join(STOP_TIMEOUT)


def record_spans(tracer: Tracer, trail: Trail) -> None:
    """Write a span of the request and one of each statement; they hold no path and no user.

    Names are those of https://opentelemetry.io/docs/specs/semconv/http/http-spans/ and of
    https://opentelemetry.io/docs/specs/semconv/database/postgresql/.
    """
    method = name = trail.environ["REQUEST_METHOD"]
    if method not in METHODS:
        method, name = "_OTHER", "HTTP"  # the convention's names, also where no method was read
    offset = time_ns() - int(perf_counter() * 1e9)
    began = offset + int(trail.started * 1e9)
    attributes = {"http.request.method": method, "http.response.status_code": trail.status}
    if trail.route:
        attributes["http.route"] = trail.route
    span = tracer.start_span(
        f"{name} {trail.route}" if trail.route else name,
        W3C.extract(carrier_of(trail)),
        SpanKind.SERVER,
        attributes | {"tasks.request_id": trail.request_id},
        start_time=began,
    )
    if (context := span.get_span_context()).is_valid:  # not with OTEL_SDK_DISABLED
        trail.trace_id = format_trace_id(context.trace_id)
    parent = set_span_in_context(span)
    for run in trail.runs:
        start = offset + int(run.started * 1e9)
        of_run = {"db.system.name": "postgresql", "db.query.summary": run.statement}
        query = tracer.start_span(run.statement, parent, SpanKind.CLIENT, of_run, start_time=start)
        if run.error:
            query.set_status(Status(StatusCode.ERROR))
            query.set_attribute("error.type", run.error)
        if run.sqlstate:
            query.set_attribute("db.response.status_code", run.sqlstate)
        query.end(start + int(run.seconds * 1e9))
    if trail.status >= 500 or is_our_fault(trail):  # the latter: a response that failed midway
        span.set_status(Status(StatusCode.ERROR))
        span.set_attribute(
            "error.type", type(trail.error).__name__ if trail.error else str(trail.status)
        )
    span.end(began + int(trail.seconds * 1e9))


def carrier_of(trail: Trail) -> dict[str, str]:
    names = {"traceparent": "HTTP_TRACEPARENT", "tracestate": "HTTP_TRACESTATE"}
    return {name: trail.environ[key] for name, key in names.items() if key in trail.environ}
