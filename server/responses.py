"""Responses as gunicorn's worker sends them, in fewer steps and system calls than its own."""

import fcntl
import re
import socket
import termios
from email.utils import formatdate
from functools import lru_cache
from sys import byteorder
from time import time

from gunicorn.http import wsgi  # type: ignore[import-untyped]
from gunicorn.http.errors import InvalidResponseHeader  # type: ignore[import-untyped]

PIECE = 64 * 1024  # bytes of a response that are sent at once
LEAST_READ = 5000  # bytes that a client's side takes in worker.CLIENT_TIMEOUT; as reading.BODY_RATE
MAX_UNREAD = 64 * 1024  # bytes of a body; if as many are unread, the connection is closed
# RFC 9112, section 5
HEADER_LINES = re.compile(r"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t -~\x80-\xff]*\r\n)*")


class Response(wsgi.Response):  # type: ignore[misc]
    """Sends a response's head with its first bytes: one system call and one packet for most."""

    head = b""
    headers_sent: bool

    def should_close(self) -> bool:
        """Close, and say so, where the rest of the body is too long to be read (RFC 9112, 9.6)."""
        reader = self.req.body.reader
        left: int = getattr(reader, "length", 0)
        is_in_chunks = getattr(reader, "parser", None) is not None  # each may be one byte
        has_failed: bool = self.req.body.failed
        return left >= MAX_UNREAD or is_in_chunks or has_failed or super().should_close()

    def process_headers(self, headers: list[tuple[str, str]]) -> None:
        """Keep the headers, none of them the server's; `send_headers` checks them all at once."""
        self.headers += headers
        for name, value in headers:
            if name.lower() == "content-length":
                self.response_length = int(value)

    def send_headers(self) -> None:
        if self.headers_sent:
            return
        lines = "".join([f"{name}: {value}\r\n" for name, value in self.headers])
        if lines.count("\n") != len(self.headers) or not HEADER_LINES.fullmatch(lines):
            raise InvalidResponseHeader(", ".join(name for name, _ in self.headers))
        self.headers_sent = True
        self.head = f"{''.join(self.default_headers())}{lines}\r\n".encode("latin-1")

    def _emit_body(self, data: bytes) -> None:
        self._send(b"%X\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def close(self) -> None:
        self.send_headers()
        self._send(b"0\r\n\r\n" if self.chunked else b"")

    def _send(self, data: bytes) -> None:
        """Send piece by piece: the timeout is for each, however long the response is."""
        start = 0
        if self.head:
            first, self.head, start = self.head + data[:PIECE], b"", PIECE
            send_piece(self.sock, first[self.sock.send(first) :])
        for begin in range(start, len(data), PIECE):
            send_piece(self.sock, data[begin : begin + PIECE])


def send_piece(sock: socket.socket, piece: bytes) -> None:
    """Wait for room as long as the client reads: there is none until it has read much.

    The kernel waits for a third of worker.SEND_BUFFER, and the client's for much of its own buffer.

    Raises:
        TimeoutError: it reads less than LEAST_READ.
    """
    while piece:
        unread = count_unread(sock)
        try:
            piece = piece[sock.send(piece) :]
        except TimeoutError:
            if unread - count_unread(sock) < LEAST_READ:
                raise


def count_unread(sock: socket.socket) -> int:
    """Count the bytes that the client's side has not acknowledged."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)), byteorder)


def http_date() -> str:
    """Write this moment for the header Date, formatted once a second."""
    return date_of_second(int(time()))


@lru_cache(maxsize=1)
def date_of_second(second: int) -> str:
    return formatdate(second, usegmt=True)
