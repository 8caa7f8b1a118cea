"""gunicorn, the same in development and production: `gunicorn wsgi:application` reads this."""

import socket
import struct
import sys
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from time import monotonic

import gunicorn.util  # type: ignore[import-untyped]
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]

import metrics_server
from config import ConfigError, Settings
from errors import error_body
from trail import new_request_id

try:
    settings = Settings.load()
    if settings.metrics_port:
        metrics_server.prepare(settings)  # before the application is loaded
except ConfigError as error:
    sys.exit(f"Error: {error}")

host = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
bind = f"{host}:{settings.api_port}"
workers = settings.web_concurrency
threads = settings.web_threads
worker_class = "gthread"
# Settings and migrations are checked once, in the master; nothing connects before the fork.
preload_app = True
keepalive = 75  # seconds; longer than the idle timeout of a load balancer in front
timeout = 30  # seconds
graceful_timeout = settings.graceful_timeout
loglevel = settings.log_level
control_socket_disable = True
sendfile = False  # Python's waits for ever for a client that does not read
if Path("/dev/shm").is_dir():
    worker_tmp_dir = "/dev/shm"  # a heartbeat on a disk may block


CLIENT_TIMEOUT = 10  # seconds in which a client neither sends what it began nor reads its answer
DRAIN_TIMEOUT = 5.0  # seconds for what a client still sends when its answer is on the way
LINGER_TIMEOUT = 1.0  # seconds of it without a byte


def when_ready(server):  # type: ignore[no-untyped-def]
    """Have the kernel end every wait for a client that stalls: a few would hold all threads."""
    for listener in server.LISTENERS:  # the sockets that it accepts inherit the options
        timeout = struct.pack("ll", CLIENT_TIMEOUT, 0)
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)

    server.log.error_log.addFilter(tells_of_no_stalled_client)


def tells_of_no_stalled_client(record):  # type: ignore[no-untyped-def]
    return not (record.exc_info and isinstance(record.exc_info[1], BlockingIOError))


def post_request(_worker, request, _environ, response):  # type: ignore[no-untyped-def]
    """Read the rest of a refused body: closing on unread bytes is a reset, and loses the answer."""
    if response and (response.status_code or 500) >= HTTPStatus.BAD_REQUEST:
        deadline = monotonic() + DRAIN_TIMEOUT
        with suppress(OSError, ParseException):
            while (seconds := deadline - monotonic()) > 0:
                request.unreader.sock.settimeout(min(seconds, LINGER_TIMEOUT))
                if not request.body.read(64 * 1024):
                    break


def on_starting(server):  # type: ignore[no-untyped-def]
    if settings.metrics_port:
        server.metrics_server = metrics_server.start(settings)


def post_worker_init(worker):  # type: ignore[no-untyped-def]
    if settings.metrics_port:
        import metrics

        metrics.watch_pool(worker.wsgi.extensions["database"])


def child_exit(_server, worker):  # type: ignore[no-untyped-def]
    """Forget the gauges of a worker that has ended; what it counted stays."""
    if settings.metrics_port:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(server):  # type: ignore[no-untyped-def]
    if settings.metrics_port:
        server.metrics_server.terminate()


def write_error(client, status, _reason, _message):  # type: ignore[no-untyped-def]
    """Answer what gunicorn refuses itself in the shape of every other error."""
    phrase = HTTPStatus(status).phrase
    request_id = new_request_id()
    body = error_body(status, request_id=request_id)
    head = (
        f"HTTP/1.1 {status} {phrase}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        f"X-Request-Id: {request_id}\r\n\r\n"
    )
    gunicorn.util.write_nonblock(client, head.encode("latin-1") + body)
    deadline = monotonic() + LINGER_TIMEOUT
    with suppress(OSError):
        client.shutdown(socket.SHUT_WR)
        while (seconds := deadline - monotonic()) > 0:
            client.settimeout(seconds)
            if not client.recv(64 * 1024):
                break


gunicorn.util.write_error = write_error
# gunicorn's own waits up to 2 s for the client to close, in the thread that serves all others.
gunicorn.util.close_graceful = gunicorn.util.close
