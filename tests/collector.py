"""A collector of traces, as OpenTelemetry's SDK finds one by OTLP/HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from processes import wait_until


class Collector:
    """Takes spans, on a port of its own."""

    def __init__(self, port: int) -> None:
        self.spans: list[Span] = []
        self.services: set[tuple[str, str]] = set()  # names and versions
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                collector.take(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            told = {each.key: each.value.string_value for each in resource.resource.attributes}
            self.services.add((told["service.name"], told.get("service.version", "")))
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def of_request(self, request_id: str) -> tuple[Span, list[Span]]:
        """Wait for the span of a request; return it and those of its statements."""
        wait_until(lambda: self.server_spans(request_id))
        [span] = self.server_spans(request_id)
        return span, [each for each in self.spans if each.parent_span_id == span.span_id]

    def server_spans(self, request_id: str) -> list[Span]:
        return [s for s in self.spans if attributes(s).get("tasks.request_id") == request_id]


def attributes(span: Span) -> dict[str, Any]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


@contextmanager
def collecting(port: int = 0) -> Iterator[Collector]:
    """Run a collector; port 0 takes any that is free."""
    collector = Collector(port)
    try:
        yield collector
    finally:
        collector.server.shutdown()
        collector.server.server_close()
