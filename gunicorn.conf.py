"""gunicorn, the same in development and production: `gunicorn wsgi:application` reads this."""

# ruff: noqa: E402 - whatever is imported before the patch would block all requests of its process
from gevent import monkey  # type: ignore[import-untyped]

monkey.patch_all()

import sys
from http import HTTPStatus
from pathlib import Path

import gunicorn.util  # type: ignore[import-untyped]

import worker
from config import ConfigError, Settings
from errors import error_body

try:
    settings = Settings.load()
except ConfigError as error:
    sys.exit(f"Error: {error}")

host = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
bind = f"{host}:{settings.api_port}"
workers = settings.web_concurrency
worker_connections = settings.web_connections
worker_class = worker.Worker
# Settings and migrations are checked once, in the master; nothing connects before the fork.
preload_app = True
keepalive = 75  # seconds; longer than the idle timeout of a load balancer in front
timeout = 30  # seconds
graceful_timeout = settings.graceful_timeout
loglevel = settings.log_level
control_socket_disable = True
sendfile = False  # a client's socket has a timeout, and os.sendfile knows of none
if Path("/dev/shm").is_dir():
    worker_tmp_dir = "/dev/shm"  # a heartbeat on a disk may block


def worker_exit(_server, ended):  # type: ignore[no-untyped-def]
    """Close the pool while its greenlets can still be ended: the interpreter's end is too late."""
    ended.wsgi.extensions["database"].close()


def write_error(client, status, _reason, _message):  # type: ignore[no-untyped-def]
    """Answer what gunicorn refuses itself in the shape of every other error."""
    phrase = HTTPStatus(status).phrase
    body = error_body(status)
    head = (
        f"HTTP/1.1 {status} {phrase}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    gunicorn.util.write_nonblock(client, head.encode("latin-1") + body)


gunicorn.util.write_error = write_error
gunicorn.util.close = worker.close
