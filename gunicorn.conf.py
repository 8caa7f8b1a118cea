"""gunicorn, the same in development and production: `gunicorn wsgi:application` reads this."""

# ruff: noqa: E402 - whatever is imported before the patch would block all requests of its process
from gevent import monkey  # type: ignore[import-untyped]

monkey.patch_all()

import gc
import os
import sys
from functools import partial
from http import HTTPStatus
from time import perf_counter
from typing import Any

import gunicorn.http.message  # type: ignore[import-untyped]
import gunicorn.http.unreader  # type: ignore[import-untyped]
import gunicorn.http.wsgi  # type: ignore[import-untyped]
import gunicorn.util  # type: ignore[import-untyped]

from config import ConfigError
from cors import cors_headers
from errors import ApiError, error_body
from headers import ERROR_HEADERS
from observability import metrics_server
from observability.observe import finish
from server import plain_requests, reading, responses, worker
from trail import CURRENT, Trail

try:
    settings = worker.load_settings()
    worker.raise_file_limit(settings)
    if settings.metrics_port:
        metrics_server.prepare(settings)  # before the application is loaded
except ConfigError as error:
    sys.exit(f"Error: {error}")

host = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
bind = f"{host}:{settings.api_port}"
workers = settings.web_concurrency
worker_connections = settings.web_connections
worker_class = worker.Worker
# Settings and migrations are checked once, in the master; no connection is open at the fork.
preload_app = True
http_parser = "python"  # pinned: the compiled one, where installed, answers some errors differently
limit_request_line = reading.MAX_REQUEST_LINE
limit_request_field_size = reading.MAX_HEAD  # a token may be long, too
keepalive = 130  # seconds; a proxy must be the first to close: nginx after 60, Caddy after 120
timeout = 30  # seconds without a sign of life, after which the master ends a worker
graceful_timeout = settings.graceful_timeout + worker.LAST_TASKS
loglevel = settings.log_level
control_socket_disable = True
# gunicorn takes nothing from a proxy's headers, as both lists are empty; "*" only spares it parsing
# each peer's address. headers.py reads those of TRUSTED_PROXIES.
forwarded_allow_ips = "*"
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""
if os.access("/dev/shm", os.W_OK):
    worker_tmp_dir = "/dev/shm"  # a heartbeat on a disk may block


def when_ready(server):  # type: ignore[no-untyped-def]
    """Exempt what was loaded before the fork from garbage collection, and collect rarely."""
    # A reload would add gunicorn's handlers to ours: they wait for room in a full pipe.
    server.log.setup = lambda _cfg: None
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


AUDIT_TIMEOUT = 1.0  # seconds to write the audit's pending entries


def worker_exit(_server, ended):  # type: ignore[no-untyped-def]
    """End what runs in greenlets now: at the interpreter's exit it is too late."""
    if not hasattr(ended, "wsgi"):  # the master calls this too, for one that it finds gone
        return
    ended.wsgi.extensions["auditor"].close(AUDIT_TIMEOUT)
    ended.wsgi.extensions["database"].close()
    if reader := ended.wsgi.extensions["reader"]:
        reader.close()
    if settings.otel_exporter_otlp_endpoint:
        from observability import traces

        traces.stop()


def on_starting(server):  # type: ignore[no-untyped-def]
    """Refuse options of gunicorn's that would break this server, and serve the metrics.

    Raises:
        ConfigError: an option is refused, or METRICS_PORT is taken.
    """
    if server.worker_class is not worker.Worker:  # no other drops stalled clients
        raise ConfigError("Leave out gunicorn's --worker-class: this server needs its own.")
    if server.cfg.protocol != "http":  # plain_requests.py reads nothing else
        raise ConfigError("Leave out gunicorn's --protocol: this server speaks HTTP alone.")
    if server.cfg.worker_connections > settings.web_connections:
        message = "Set WEB_CONNECTIONS, which also raises the limit of open files,"
        raise ConfigError(f"{message} instead of --worker-connections.")
    if server.cfg.is_ssl:
        try:
            worker.read_certificate(server.cfg)
        except (OSError, TypeError) as error:  # the latter: --keyfile alone
            raise ConfigError(f"TLS fails with gunicorn's --certfile, --keyfile: {error}") from None
    server.spawn_worker = partial(worker.spawn_if_possible, server.spawn_worker, server)
    server.murder_workers = worker.unless_stopped(server.murder_workers)
    if settings.metrics_port:
        if server.cfg.uid != os.geteuid():  # whose workers could not write into its folder
            raise ConfigError("METRICS_PORT rules out gunicorn's --user: start it as that user.")
        server.metrics_server = metrics_server.start(settings)


def on_reload(server):  # type: ignore[no-untyped-def]
    """Take a certificate that was renewed; one that cannot be used changes nothing."""
    if server.cfg.is_ssl:
        try:
            worker.read_certificate(server.cfg)
        except OSError as error:
            server.log.error("the old certificate stays in use: %s", error)  # noqa: TRY400 - no fault of code


def post_worker_init(started):  # type: ignore[no-untyped-def]
    gunicorn.util.write_error = partial(write_error, started.wsgi.extensions["reports"])
    if settings.metrics_port:
        from observability import metrics

        metrics.watch_pool(started.wsgi.extensions["database"])


def child_exit(_server, ended):  # type: ignore[no-untyped-def]
    """Forget the gauges of a worker that has ended; what it counted stays."""
    if settings.metrics_port:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(ended.pid)  # type: ignore[no-untyped-call]


def on_exit(server):  # type: ignore[no-untyped-def]
    if settings.metrics_port:
        metrics_server.stop(server.metrics_server)


# gunicorn passes on nothing of a request that it cannot read: a single allowed origin is assumed.
UNREAD: dict[str, Any] = {"REQUEST_METHOD": None}
if len(settings.cors_origins) == 1:
    UNREAD["HTTP_ORIGIN"] = settings.cors_origins[0]
allowed = cors_headers(settings.cors_origins)


def write_error(reports, client, status, _reason, _message):  # type: ignore[no-untyped-def]
    """Answer and report, as any other error, what gunicorn refuses or what failed outside Flask."""
    trail = CURRENT.get() or Trail(UNREAD)
    CURRENT.set(trail)
    trail.status = status
    trail.seconds_to_response = trail.seconds = perf_counter() - trail.started
    error: Any = sys.exception()
    # If the client is at fault, only the error's type: its text quotes what was sent.
    trail.error = error if status == 500 else ApiError(status, type(error).__name__)
    body = error_body(status)
    trail.size = len(body)
    headers = [("X-Request-Id", trail.request_id), *ERROR_HEADERS, *allowed(trail.environ)]
    finish(trail, reports)
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
        f"Date: {responses.http_date()}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        + "".join(f"{name}: {value}\r\n" for name, value in headers)
        + "\r\n"
    )
    gunicorn.util.write_nonblock(client, head.encode("latin-1") + body)


gunicorn.util.close = worker.close
gunicorn.util.http_date = responses.http_date
gunicorn.http.get_parser = plain_requests.get_parser
gunicorn.http.message.MAX_REQUEST_LINE = reading.MAX_REQUEST_LINE
gunicorn.http.message.Message.max_buffer_headers = reading.longest_head
gunicorn.http.unreader.SocketUnreader.chunk = reading.read_chunk_in_turn
gunicorn.http.wsgi.Response = responses.Response
gunicorn.http.wsgi.create = plain_requests.create
