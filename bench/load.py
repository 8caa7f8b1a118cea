"""A load generator for machines without wrk: one thread, keep-alive, the same plan and report.

    python -m bench.load PLAN PORT SECONDS CONNECTIONS

It shares the machine with the servers, so it does no more than send prepared bytes and find where
a response ends.
"""

import json
import socket
import sys
from itertools import cycle
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from time import perf_counter

HOST = "127.0.0.1"
RESPONSE_TIMEOUT = 10  # seconds


def request_bytes(line: str) -> bytes:
    method, path, token, origin, body = line.split("\t")
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nOrigin: {origin}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return (head + body).encode()


def is_complete(response: bytes) -> bool:
    """Tell whether a response has ended; only a 204 may leave its length unsaid."""
    head, end, body = response.partition(b"\r\n\r\n")
    if not end:
        return False
    _, found, rest = head.lower().partition(b"\r\ncontent-length:")
    if not found and response[9:12] != b"204":
        raise ValueError("A response without Content-Length is not understood.")
    return not found or len(body) >= int(rest.partition(b"\r\n")[0])


class Connection:
    """One connection at a time, opened anew where the server closes it after a response."""

    def __init__(self, port: int, selector: DefaultSelector) -> None:
        self._address = (HOST, port)
        self._selector = selector
        self._socket: socket.socket | None = None

    def send(self, request: bytes) -> None:
        if self._socket is None:
            self._socket = socket.create_connection(self._address, RESPONSE_TIMEOUT)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(self._socket, EVENT_READ, self)
        self._received = b""
        self.started = perf_counter()
        self._socket.sendall(request)

    def receive(self) -> tuple[float, bytes] | None:
        """Return seconds and response, or None before its end; a truncated one is returned too."""
        assert self._socket
        data = self._socket.recv(65536)
        self._received += data
        if data and not is_complete(self._received):
            return None
        if not data or b"\r\nconnection: close" in self._received[:1000].lower():
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None
        return perf_counter() - self.started, self._received


def load(requests: list[bytes], port: int, seconds: float, connections: int) -> dict[str, float]:
    next_request = cycle(requests).__next__
    selector = DefaultSelector()
    latencies: list[float] = []
    refused = broken = 0
    started = perf_counter()
    for _ in range(connections):
        Connection(port, selector).send(next_request())
    while (elapsed := perf_counter() - started) < seconds:
        ready = selector.select(RESPONSE_TIMEOUT)
        if not ready:
            raise TimeoutError(f"No response within {RESPONSE_TIMEOUT} seconds.")
        for key, _ in ready:
            connection: Connection = key.data
            if response := connection.receive():
                latencies.append(response[0])
                refused += response[1][9:10] not in {b"2", b""}
                broken += not is_complete(response[1])
                connection.send(next_request())
    latencies.sort()
    return {
        "requests": len(latencies),
        "seconds": elapsed,
        "p50": latencies[len(latencies) // 2] * 1e3,
        "p99": latencies[len(latencies) * 99 // 100] * 1e3,
        "refused": refused,
        "broken": broken,
    }


def main(plan: str, port: str, seconds: str, connections: str) -> None:
    requests = [request_bytes(line) for line in Path(plan).read_text().splitlines()]
    print(json.dumps(load(requests, int(port), float(seconds), int(connections))))


if __name__ == "__main__":
    main(*sys.argv[1:])
