"""gunicorn's gevent worker: drops stalled clients; a stop waits only for requests in flight."""

import os
import re
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from functools import cache, partial
from math import inf
from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit, setrlimit
from time import monotonic
from typing import Any

import gevent  # type: ignore[import-untyped]
from gevent import GreenletExit
from gevent.pool import Pool  # type: ignore[import-untyped]
from gevent.server import StreamServer  # type: ignore[import-untyped]
from gunicorn.http import wsgi  # type: ignore[import-untyped]
from gunicorn.http.errors import (  # type: ignore[import-untyped]
    InvalidHeader,
    UnsupportedTransferCoding,
)
from gunicorn.sock import ssl_context  # type: ignore[import-untyped]
from gunicorn.workers.ggevent import GeventWorker  # type: ignore[import-untyped]

from capacity.turns import PAUSE
from config import ConfigError, Settings

TICK = 0.2  # seconds between two checks on the master and the clients
ACCEPT_PAUSE = 0.001  # seconds that other processes get to take their share of new clients
CLIENT_TIMEOUT = 10.0  # seconds that a client may pause in sending its body or reading its response
BODY_TIMEOUT = 20.0  # seconds that it may pause in all, and more for a long body: reading.py
SEND_BUFFER = 256 * 1024  # bytes; a client is seen to read only once a third of it is free
LAST_TASKS = 2  # seconds of a stop kept for the process itself: closing, the audit's entries
KEPT_AT_LEAST = 1.0  # seconds that a client may idle in a stop, or while others find no room
DRAIN_TIMEOUT = 5.0  # seconds to read what a client still sends once its response is on the way
LINGER_TIMEOUT = 1.0  # seconds of DRAIN_TIMEOUT without a byte
LONGEST_ROUND = 5.0  # seconds between two of the master's checks on its workers, usually one
OTHER_FILES = 100  # that a process opens besides its clients and pools: metrics, Redis, log
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets, and drops what is left to send
CLOSE = re.compile(r"(?:^|,)[ \t]*close[ \t]*(?:,|$)", re.IGNORECASE)  # RFC 9112, section 9.6
# RFC 9112, section 3.2; gunicorn joins two such headers with a comma.
HOST = re.compile(r"(?:[\w.~%!$&'()*+;=-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?", re.ASCII)
ANSWERING, ENDED = inf, -inf  # in place of the time since which a client is waited for


class Server(StreamServer):  # type: ignore[misc]
    """Leaves clients to the other processes: otherwise the first would accept them all."""

    @property
    def max_accept(self) -> int:
        """One at a time shares best; with many greenlets the loop is slow, and must accept more."""
        return 1 + len(self.pool or ()) // 8

    def wrap_socket_and_handle(self, client: socket.socket, address: Any) -> None:
        """Bound the TLS handshake; one that fails is the client's affair."""
        with suppress(OSError):
            with gevent.Timeout(CLIENT_TIMEOUT, TimeoutError):  # in all, however it drips
                secured = self.wrap_socket(client, **self.ssl_args)
            with closing(secured):
                self.handle(secured, address)

    def do_handle(self, *args: Any) -> None:
        super().do_handle(*args)
        self.stop_accepting()
        self._timer = self.loop.timer(ACCEPT_PAUSE)
        self._timer.start(self._start_accepting_if_started)


class Worker(GeventWorker):  # type: ignore[misc]
    """Distinguishes connections that wait for a request from those being answered."""

    tls: ssl.SSLContext  # of the master, as read_certificate left it at the fork

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The time since which each client is waited for; ANSWERING while it gets a response.
        self.waiting_since: dict[socket.socket, float] = {}

    def init_process(self) -> None:
        """Keep the settings as plain attributes: gunicorn looks up some twenty for each request."""
        settings = self.cfg.settings
        self.cfg.__dict__.update({name: setting.get() for name, setting in settings.items()})
        super().init_process()

    def run(self) -> None:
        """Serve until told to stop, then until what is in flight has been answered."""
        tls = {"ssl_context": self.tls} if self.cfg.is_ssl else {}
        clients = Pool(self.worker_connections)
        servers = [
            Server(listener, partial(self.handle, listener), spawn=clients, **tls)
            for listener in self.sockets
        ]
        for server in servers:
            server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
            server.start()
        try:
            while self.alive:
                self.notify()
                kept = self.cfg.keepalive or CLIENT_TIMEOUT
                self.end_idle_connections(KEPT_AT_LEAST if clients.full() else kept)
                gevent.sleep(TICK)
            for server in servers:
                server.close()
            stopped = monotonic()
            deadline = stopped + self.cfg.graceful_timeout - LAST_TASKS
            while clients and monotonic() < deadline:
                self.notify()
                if monotonic() > stopped + KEPT_AT_LEAST:  # a proxy may just be sending on one
                    self.end_idle_connections(KEPT_AT_LEAST)
                gevent.sleep(TICK)
        finally:  # also where the process is told to end at once
            for client, since in self.waiting_since.items():
                if since == ANSWERING:  # cut off by the end of this process
                    reset_at_close(client)

    def handle(self, listener: Any, client: socket.socket, addr: Any) -> None:
        self.waiting_since[client] = monotonic()
        try:
            super().handle(listener, client, addr)
        finally:
            del self.waiting_since[client]

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Answer a request; its client has CLIENT_TIMEOUT for each step.

        Raises:
            StopIteration: the connection ends here.
        """
        if self.waiting_since[sock] == ENDED:
            if not has_arrived(req):  # the rest would not be read
                raise StopIteration
            req.force_close()
        self.waiting_since[sock] = ANSWERING
        req.unreader.patience = BODY_TIMEOUT
        sock.settimeout(CLIENT_TIMEOUT)
        is_kept = False
        try:
            is_kept = self.answer(listener_name, req, sock, addr)
        except (TimeoutError, BrokenPipeError):
            reset_at_close(sock)
            sock.close()
        except (GreenletExit, SystemExit):  # the process is told to end at once
            sock.close()
        finally:
            sock.settimeout(None)
            req.unreader.patience = inf
            self.waiting_since[sock] = monotonic()
        if not is_kept:
            raise StopIteration
        if req.unreader.buf.tell():  # the next request is here already: others first
            gevent.sleep(0)
        elif not self.cfg.is_ssl:  # which may hold more than the socket
            sock._wait(sock._read_event)  # to read at once would nearly always be in vain

    def answer(self, listener_name: Any, req: Any, sock: socket.socket, addr: Any) -> bool:
        """Have the application answer; return whether the connection is kept.

        Raises:
            InvalidHeader: the request names no host, several, or a malformed one.
            UnsupportedTransferCoding: its body has a coding other than chunked.
            TimeoutError: the client does not read.
            BrokenPipeError: it has gone, or the response broke off.
        """
        response, environ = wsgi.create(req, sock, addr, listener_name, self.cfg)
        req.version = min(req.version, (1, 1))  # the response names the version spoken here
        host = environ.get("HTTP_HOST")
        if (host is None and req.version == (1, 1)) or not HOST.fullmatch(host or ""):
            raise InvalidHeader("Host", req=req)
        if (coding := environ.get("HTTP_TRANSFER_ENCODING")) and coding.lower() != "chunked":
            raise UnsupportedTransferCoding(coding)
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False
        is_last = CLOSE.search(environ.get("HTTP_CONNECTION", ""))
        if is_last or not self.alive or not self.cfg.keepalive:
            response.force_close()
        parts = self.wsgi(environ, response.start_response)
        try:
            for part in filter(None, parts):  # an empty one would send nothing
                response.write(part)
            response.close()
        except Exception as error:
            if isinstance(error, OSError) or not response.headers_sent:
                raise
            self.log.exception("A response broke off.")
            raise BrokenPipeError from error
        finally:
            if close := getattr(parts, "close", None):
                close()
        return not response.should_close()

    def timeout_ctx(self) -> AbstractContextManager[None]:
        """Start no timer for each request that a client may send: `run` checks all connections."""
        return nullcontext()

    def end_idle_connections(self, kept: float) -> None:
        """Make their reads end; what has arrived before that is still answered."""
        now = monotonic()
        for client, since in self.waiting_since.items():
            if ENDED < since < now - kept:
                self.waiting_since[client] = ENDED
                # On a duplicate: on the socket itself, gevent would fail the pending read.
                with (
                    suppress(OSError),
                    socket.fromfd(client.fileno(), client.family, client.type) as twin,
                ):
                    twin.shutdown(socket.SHUT_RD)


def has_arrived(req: Any) -> bool:
    """Tell whether all of a request has arrived; False for a chunked one, as nobody knows."""
    return bool(getattr(req.body.reader, "length", inf) <= req.unreader.buf.tell())


def spawn_if_possible(spawn: Callable[[], Any], server: Any) -> None:
    """Start a worker; if there is no room for one, the master tries again a second later.

    gunicorn itself would end those that serve, as soon as one could not be replaced.
    """
    try:
        spawn()
    except OSError as error:
        if server.worker_age == 1 or os.getpid() != server.pid:  # a start, which fails; a child
            raise
        server.log.error("no worker can be started now: %s", error)  # noqa: TRY400 - no fault of code


def unless_stopped(check: Callable[[], None]) -> Callable[[], None]:
    """Wrap the master's check on its workers: none directly after the master itself was stopped.

    They were stopped with it, and have had no time for a sign of life since.
    """
    checked_at = monotonic()

    def check_in_time() -> None:
        nonlocal checked_at
        last, checked_at = checked_at, monotonic()
        if checked_at - last < LONGEST_ROUND:
            check()

    return check_in_time


def read_certificate(cfg: Any) -> None:
    """Read it in the master: a pair that cannot be used would end each worker, again and again.

    Raises:
        OSError, TypeError: it cannot be used; the one before, if any, stays.
    """
    Worker.tls = ssl_context(cfg)


# Once: a reload keeps the application's settings, so the server's too.
load_settings = cache(Settings.load)


def raise_file_limit(settings: Settings) -> None:
    """Raise the soft limit of open files, often 1024, to what the clients of a process need.

    Raises:
        ConfigError: it is above the hard limit (getrlimit(2)), which only root may raise.
    """
    # A client may upload a file; a replica has a pool, too.
    needed = 2 * (settings.web_connections + settings.database_pool_size) + OTHER_FILES
    soft, hard = (inf if most == RLIM_INFINITY else most for most in getrlimit(RLIMIT_NOFILE))
    if needed > hard:
        raise ConfigError(
            f"WEB_CONNECTIONS={settings.web_connections} takes {needed} open files a process, and"
            f" {hard} are allowed: raise that limit (ulimit -Hn) or set fewer."
        )
    if needed > soft:
        setrlimit(RLIMIT_NOFILE, (needed, RLIM_INFINITY if hard == inf else int(hard)))


def reset_at_close(client: socket.socket) -> None:
    """Let a client see that its response broke off: to HTTP/1.0, any other end means completion."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


def close(client: socket.socket) -> None:
    """Close a connection so that a client that is still sending can read its response.

    Closing with unread bytes is a reset, which loses what is on the way.
    """
    deadline = monotonic() + DRAIN_TIMEOUT
    with suppress(OSError):
        client.shutdown(socket.SHUT_WR)
        while (seconds := deadline - monotonic()) > 0:
            client.settimeout(min(seconds, LINGER_TIMEOUT))
            if not client.recv(64 * 1024):
                break
            gevent.sleep(PAUSE)
    client.close()
