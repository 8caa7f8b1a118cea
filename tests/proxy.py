"""A TCP proxy in front of PostgreSQL: a network that is slow, silent, or ends at the worst time."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from threading import Event, Thread

import psycopg
from processes import as_url
from psycopg.conninfo import conninfo_to_dict, make_conninfo

RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time
LATENCY = 0.05  # seconds, each way


class Weather(Enum):
    """What happens to the traffic."""

    FINE = "it passes"
    SLOW = "it takes a while"
    SILENT = "it vanishes, and nobody is told"
    RESET = "connections are reset"
    CUT_BEFORE = "a commit never reaches the server"
    CUT_AT = "a commit reaches the server, its answer is cut in the middle"
    CUT_AFTER = "a commit reaches the server, its answer vanishes"
    SILENT_COMMIT = "a commit never reaches the server, and nobody is told"


CUTS = (Weather.CUT_BEFORE, Weather.CUT_AT, Weather.CUT_AFTER, Weather.SILENT_COMMIT)


class Proxy:
    """Passes on what comes to `port`, unless `weather` says otherwise."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self.connect = connect
        self.weather = Weather.FINE
        self.closed = Event()
        self.pairs: set[tuple[socket.socket, socket.socket]] = set()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self.listener.getsockname()[1]
        Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with suppress(OSError):  # the listener was closed
            while True:
                client, _ = self.listener.accept()
                if self.weather is Weather.RESET:
                    reset(client)
                    continue
                try:
                    server = self.connect()
                except OSError:
                    reset(client)
                    continue
                pair = client, server
                self.pairs.add(pair)
                Thread(target=self.carry, args=pair, daemon=True).start()
                Thread(target=self.bring_back, args=pair, daemon=True).start()

    def carry(self, client: socket.socket, server: socket.socket) -> None:
        """Pass on what the API says. A write outside a transaction is its own commit.

        A COMMIT is a command, or the statement of that name.
        """
        in_transaction = False
        with suppress(OSError):
            while data := client.recv(65536):
                in_transaction = in_transaction or b"BEGIN\0" in data
                inserts = b"\0insert_task\0" in data  # runs it; to prepare it begins without NUL
                ends = b"COMMIT\0" in data or b"\0commit\0" in data
                commits = ends or (not in_transaction and inserts)
                if ends or b"ROLLBACK\0" in data:
                    in_transaction = False
                if commits and self.weather in CUTS:
                    self.cut(client, server, data)
                    break
                self.wait()
                server.sendall(data)
        self.end(client, server)

    def cut(self, client: socket.socket, server: socket.socket, commit: bytes) -> None:
        how = self.weather
        if how is Weather.SILENT_COMMIT:
            client.recv(1)  # until the client gives up
        elif how is not Weather.CUT_BEFORE:
            self.pairs.discard((client, server))  # no reply is brought back any more
            server.sendall(commit)
            time.sleep(LATENCY)  # it is done by now, or about to be
        if how is Weather.CUT_AT:
            client.sendall(b"2\0\0\0\x04D")  # BindComplete, and the first byte of a row

    def bring_back(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                self.wait()
                if (client, server) in self.pairs:
                    client.sendall(data)
        self.end(client, server)

    def wait(self) -> None:
        if self.weather is Weather.SLOW:
            time.sleep(LATENCY)
        while self.weather is Weather.SILENT and not self.closed.is_set():
            time.sleep(0.05)

    def end(self, *pair: socket.socket) -> None:
        self.pairs.discard(pair)
        for each in pair:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)  # wakes a thread that reads from it
            each.close()

    def reset_all(self) -> None:
        self.weather = Weather.RESET
        for pair in list(self.pairs):
            reset(pair[0])


def reset(client: socket.socket) -> None:
    with suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        client.shutdown(socket.SHUT_RD)
        client.close()


@contextmanager
def in_front_of(url: str) -> Iterator[tuple[Proxy, str]]:
    """Run a proxy in front of a server; yield it and the address by way of it."""
    given = conninfo_to_dict(url)
    with psycopg.connect(url) as connection:
        host, port = connection.info.host, connection.info.port

    def connect() -> socket.socket:
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    proxy = Proxy(connect)
    place = {"host": "127.0.0.1", "port": proxy.port}
    try:
        yield proxy, as_url(make_conninfo(**given | place, sslmode="disable", gssencmode="disable"))
    finally:
        proxy.closed.set()
        proxy.listener.shutdown(socket.SHUT_RDWR)
        proxy.listener.close()
        proxy.reset_all()
