"""What each feature adds to a request: with it and without it, in turns, in one process."""

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

from flask import Flask

from bench.cpu import Cost, Environ, api_on, environ, wsgi_cost
from bench.postgres import Connection, connect, fill, query
from bench.traffic import ORIGIN, STATUSES, Traffic

USERS = 1000
TASKS_PER_USER = 20
OTLP = "OTEL_EXPORTER_OTLP_ENDPOINT"


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature, and what makes the difference: settings, headers, a logger, or SQL."""

    name: str
    operation: str
    is_default: bool = True
    settings_with: dict[str, str] = field(default_factory=dict)
    settings_without: dict[str, str] = field(default_factory=dict)
    headers_with: dict[str, str] = field(default_factory=dict)
    logger: str = ""
    statements: tuple[str, str] = ("", "")  # of queries/: with it, without it


FEATURES = (
    Feature("a line in the log", "get", logger="tasks.request"),
    Feature(
        "the rate limit, counted in the process", "get", settings_without={"RATE_LIMIT": "off"}
    ),
    Feature("CORS headers", "get", headers_with={"HTTP_ORIGIN": ORIGIN}),
    Feature(
        "row-level security, beside the query's own condition",
        "get",
        statements=("enable_row_security", "disable_row_security"),
    ),
    Feature("an entry in the audit", "create", statements=("enable_audit", "disable_audit")),
    Feature("Idempotency-Key", "create", headers_with={"HTTP_IDEMPOTENCY_KEY": "anew"}),
    Feature("compression, zstd", "list", headers_with={"HTTP_ACCEPT_ENCODING": "zstd"}),
    Feature("compression, gzip", "list", headers_with={"HTTP_ACCEPT_ENCODING": "gzip"}),
    Feature("If-Match", "toggle", headers_with={"HTTP_IF_MATCH": "*"}),
    Feature("`SERVER_TIMING`", "get", False, settings_with={"SERVER_TIMING": "on"}),
    Feature("`METRICS_PORT`", "get", False, settings_with={"METRICS_PORT": "9464"}),
    Feature("`OTEL_EXPORTER_OTLP_ENDPOINT`", "get", False, settings_with={OTLP: ""}),
)


@dataclass(frozen=True, slots=True)
class Added:
    """What a feature adds to a request, and that request without it."""

    feature: Feature
    cost: Cost
    without: Cost


def measure_features(url: str, rounds: int, count: int) -> list[Added]:
    """Measure each feature beside its absence, in short turns; the median of the differences."""
    with (
        TemporaryDirectory(prefix="bench-") as folder,
        collector() as endpoint,
        redirect_stderr(Path(os.devnull).open("w")),
        connect(url) as connection,
    ):
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        connection.execute(query("never_wait_for_disk"))
        fill(connection, USERS, TASKS_PER_USER)
        traffic = Traffic(connection, USERS)
        found = []
        for feature in FEATURES:
            given = dict(feature.settings_with)
            if OTLP in given:
                given[OTLP] = endpoint
            with_it, without = api_on(url, **given), api_on(url, **feature.settings_without)
            found.append(
                measure(feature, with_it, without, connection, traffic, rounds=rounds, count=count)
            )
        return found


def measure(
    feature: Feature,
    with_it: Flask,
    without: Flask,
    connection: Connection,
    traffic: Traffic,
    *,
    rounds: int,
    count: int,
) -> Added:
    turns: list[tuple[Cost, Cost]] = []
    for _ in range(rounds + 1):
        costs = []
        for app, is_on in ((with_it, True), (without, False)):
            if statement := feature.statements[not is_on]:
                connection.execute(query(statement))
            if feature.logger:
                logging.getLogger(feature.logger).disabled = not is_on
            requests = requests_of(feature, traffic, count, is_on=is_on)
            status = STATUSES[feature.operation]
            costs.append(wsgi_cost(app, requests, status))
        turns.append((costs[0], costs[1]))
        if feature.statements[0]:
            connection.execute(query(feature.statements[0]))
        if feature.logger:
            logging.getLogger(feature.logger).disabled = False
    for app in (with_it, without):
        app.extensions["database"].close()
    turns = turns[1:]  # the first round warms up
    cpu = median(one.cpu - other.cpu for one, other in turns)
    elapsed = median(one.elapsed - other.elapsed for one, other in turns)
    bare = Cost(
        median(other.cpu for _, other in turns), median(other.elapsed for _, other in turns)
    )
    return Added(feature, Cost(cpu, elapsed), bare)


def requests_of(feature: Feature, traffic: Traffic, count: int, *, is_on: bool) -> list[Environ]:
    environs = [environ(request) for request in traffic.requests(feature.operation, count)]
    for each in environs:
        for name, value in feature.headers_with.items():
            each.pop(name, None)
            if is_on:
                each[name] = str(uuid4()) if value == "anew" else value
    return environs


SINK = """
from http.server import BaseHTTPRequestHandler, HTTPServer

class Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

server = HTTPServer(("127.0.0.1", 0), Collector)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def collector() -> Iterator[str]:
    """Run what takes traces and forgets them, in a process of its own; yield its address."""
    process: Any = subprocess.Popen([sys.executable, "-c", SINK], stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait()
