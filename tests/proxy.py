"""A TCP proxy in front of PostgreSQL, which fails in the middle of a COMMIT."""

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from threading import Thread

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

COMMIT = b"COMMIT\0"  # the end of the message, whose text libpq ends with NUL


class Fault(Enum):
    """What happens at the next COMMIT."""

    CUT_BEFORE = "it never reaches the server, and both ends see the connection end"
    CUT_AFTER = "the server has committed, and its answer never reaches the client"
    SILENCE = "it never reaches the server, and nobody is told"


class Proxy:
    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self.connect = connect
        self.fault: Fault | None = None  # happens once
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:  # closed
                return
            Thread(target=self.serve, args=[client], daemon=True).start()

    def serve(self, client: socket.socket) -> None:
        with client, self.connect() as server:
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    if source is client and COMMIT in data and self.fault:
                        fault, self.fault = self.fault, None
                        if fault is Fault.CUT_AFTER:
                            server.sendall(data)
                            server.recv(65536)
                        if fault is Fault.SILENCE:
                            client.recv(1)  # until the client gives up
                        return
                    (server if source is client else client).sendall(data)


@contextmanager
def in_front_of(database_url: str) -> Iterator[tuple[Proxy, str]]:
    """Run a proxy; yield it and the database's address by way of it."""
    with psycopg.connect(database_url) as connection:
        host, port = connection.info.host, connection.info.port

    def connect() -> socket.socket:
        if not host.startswith("/"):
            return socket.create_connection((host, port))
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    proxy = Proxy(connect)
    given = conninfo_to_dict(database_url) | {"host": "127.0.0.1", "port": proxy.port}
    try:
        yield proxy, make_conninfo(**given, sslmode="disable", gssencmode="disable")
    finally:
        proxy.listener.shutdown(socket.SHUT_RDWR)
        proxy.listener.close()
