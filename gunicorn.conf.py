"""gunicorn, the same in development and in production: `gunicorn wsgi:application` reads this file."""

import sys
from pathlib import Path

import gunicorn.util

from config import ConfigError, Settings
from errors import error_body

try:
    settings = Settings.load()
except ConfigError as error:
    sys.exit(f"Error: {error}")

bind = f"{settings.api_host}:{settings.api_port}"
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
if Path("/dev/shm").is_dir():
    worker_tmp_dir = "/dev/shm"  # a heartbeat on a disk may block


def write_error(sock, status, reason, _message):  # type: ignore[no-untyped-def]
    """Answer what gunicorn refuses itself in the shape of every other error."""
    body = error_body(status, f"{reason}.")
    head = (
        f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    gunicorn.util.write_nonblock(sock, head.encode("latin-1") + body)


gunicorn.util.write_error = write_error
