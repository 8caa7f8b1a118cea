"""HTTP as bytes."""

import re
import socket
from email import message_from_bytes

from processes import Process, Response, tasks_of
from support import token_for


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def begun_post(user: str, length: int) -> bytes:
    """Begin to send a task, with the first byte of its body."""
    token = f"Authorization: Bearer {token_for(user)}"
    lines = ("Content-Type: application/json", f"Content-Length: {length}", token)
    return head("POST", tasks_of(user), *lines) + b"{"


def send_raw(api: Process, data: bytes) -> bytes:
    """Send everything before reading anything, as simple clients do; return the whole response."""
    with socket.create_connection(("127.0.0.1", api.port), timeout=10) as client:
        client.sendall(data)
        return read_to_end(client)


def read_to_end(client: socket.socket) -> bytes:
    response = b""
    while part := client.recv(64 * 1024):
        response += part
    return response


def statuses(response: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", response)]


def parse(response: bytes) -> Response:
    head, _, body = response.partition(b"\r\n\r\n")
    status, _, headers = head.partition(b"\r\n")
    return Response(int(status.split()[1]), message_from_bytes(headers), body)
