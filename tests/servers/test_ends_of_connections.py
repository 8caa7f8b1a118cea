"""Where a connection ends, both sides agree on it: what was answered, and what was not read."""

import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import processes
import pytest
from processes import GREENLETS, Process, gunicorn, tasks_of
from support import token_for

from worker import KEPT_AT_STOP, MOST_UNREAD

TASK = b'{"title":"x"}'
NEXT = b"GET /livez HTTP/1.1\r\n\r\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return processes.copy_of_project(tmp_path_factory.mktemp("ends"))


@pytest.fixture(scope="module")
def api(folder: Path, url: str) -> Iterator[Process]:
    with gunicorn(folder, url, measure=GREENLETS) as process:
        yield process


def connect(api: Process) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", api.port), timeout=10)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def head(method: str, path: str, *lines: str) -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def read_to_end(client: socket.socket) -> bytes:
    answer = b""
    with suppress(ConnectionResetError):
        while part := client.recv(64 * 1024):
            answer += part
    return answer


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", answer)]


def test_request_at_a_stop_is_done_and_answered_or_not_done(folder: Path, url: str):
    lines = [f"Authorization: Bearer {token_for('mallory')}", f"Content-Length: {len(TASK)}"]
    begun = head("POST", tasks_of("mallory"), "Content-Type: application/json", *lines)
    with gunicorn(folder, url, measure=GREENLETS) as api, ExitStack() as stack:
        clients = [stack.enter_context(connect(api)) for _ in range(200)]
        for client in clients:
            client.sendall(head("GET", "/livez"))
            client.recv(4096)
        time.sleep(KEPT_AT_STOP)
        api.popen.send_signal(signal.SIGTERM)
        for client in clients:
            with suppress(OSError):
                client.sendall(begun)
            time.sleep(0.002)
            with suppress(OSError):
                client.sendall(TASK)
        answers = [statuses(read_to_end(client)) for client in clients]
        assert api.wait() == 0
    assert {status for answer in answers for status in answer} <= {201}


@pytest.mark.parametrize("value", ["close", "Close", "TE, close", "keep-alive,close"])
def test_connection_that_the_client_ends_is_closed(api: Process, value: str):
    with connect(api) as client:
        client.sendall(head("GET", "/livez", f"Connection: {value}") + NEXT)
        answer = read_to_end(client)
    assert statuses(answer) == [200]
    assert b"Connection: close\r\n" in answer


@pytest.mark.parametrize("unread", [MOST_UNREAD - 1, MOST_UNREAD, MOST_UNREAD + 1])
def test_body_left_unread_is_read_to_its_end_or_the_connection_is_said_to_end(
    api: Process, unread: int
):
    with connect(api) as client:
        client.sendall(head("POST", "/nowhere", f"Content-Length: {unread}"))
        client.sendall(b"x" * unread + head("GET", "/livez", "Connection: close"))
        answer = read_to_end(client)
    first = answer.partition(b"\r\n\r\n")[0]
    is_said_to_end = b"Connection: close" in first
    assert statuses(answer) == ([404] if is_said_to_end else [404, 200])
    assert is_said_to_end == (unread >= MOST_UNREAD)
