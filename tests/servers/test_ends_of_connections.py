"""Connections that a stop of the server ends: what was sent is done and answered, or not done."""

import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import processes
from own_postgres import Postgres
from processes import GREENLETS, Process, gunicorn, request_on, tasks_of, wait_until
from raw_http import head, read_to_end, statuses
from support import token_for

from server.worker import KEPT_AT_LEAST

TASK = b'{"title":"x"}'


def connect(api: Process) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", api.port), timeout=10)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def response_to(client: socket.socket) -> bytes:
    with suppress(ConnectionResetError):  # what was not answered may end so
        return read_to_end(client)
    return b""


def test_request_at_a_stop_is_done_and_answered_or_not_done(tmp_path: Path, url: str):
    lines = [f"Authorization: Bearer {token_for('mallory')}", f"Content-Length: {len(TASK)}"]
    begun = head("POST", tasks_of("mallory"), "Content-Type: application/json", *lines)
    folder = processes.copy_of_project(tmp_path)
    with gunicorn(folder, url, measure=GREENLETS) as api, ExitStack() as stack:
        clients = [stack.enter_context(connect(api)) for _ in range(200)]
        for client in clients:
            client.sendall(head("GET", "/livez"))
            client.recv(4096)
        api.popen.send_signal(signal.SIGTERM)
        time.sleep(KEPT_AT_LEAST)
        for client in clients:
            with suppress(OSError):
                client.sendall(begun)
            time.sleep(0.002)
            with suppress(OSError):
                client.sendall(TASK)
        responses = [statuses(response_to(client)) for client in clients]
        assert api.wait() == 0
    done = Postgres(url).rows("SELECT FROM tasks WHERE user_id = 'mallory'")
    assert responses.count([201]) == len(done)
    assert responses.count([]) == len(responses) - len(done)


def test_request_that_came_just_before_its_connection_is_ended_is_answered(folder: Path, url: str):
    with gunicorn(folder, url, GUNICORN_CMD_ARGS="--keep-alive 1") as api, ExitStack() as stack:
        clients = [stack.enter_context(connect(api)) for _ in range(50)]
        for client in clients:
            client.sendall(head("GET", "/livez"))
            client.recv(4096)
        [worker] = api.family()[1:]
        worker.suspend()
        time.sleep(1.5)
        for client in clients:
            client.sendall(head("GET", "/livez"))
        worker.resume()
        assert [statuses(response_to(client)) for client in clients] == [[200]] * 50


def test_stop_does_not_wait_for_connections_without_a_request(folder: Path, url: str):
    options = {"measure": GREENLETS, "GRACEFUL_TIMEOUT": "60"}
    with gunicorn(folder, url, **options) as process, ExitStack() as stack:
        for sent in (b"", b"GET /livez HT", head("GET", "/livez")) * 3:
            stack.enter_context(connect(process)).sendall(sent)
        started = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - started < 10
        assert "Traceback" not in process.output()


def test_request_on_a_connection_long_idle_is_answered_while_the_server_stops(
    folder: Path, url: str
):
    database = Postgres(url)
    with gunicorn(folder, url) as process, ThreadPoolExecutor() as pool:
        task_id = process.create()
        kept = process.connect()
        assert request_on(kept, "GET", "/livez").status_code == 200
        time.sleep(KEPT_AT_LEAST)
        with database.locked(task_id):
            toggle = pool.submit(process.call, "PATCH", f"{task_id}/complete")
            wait_until(database.waiting)
            process.popen.terminate()
            wait_until(lambda: not process.is_live())  # to those who connect
            response = request_on(kept, "GET", "/livez")
            assert (response.status_code, response.headers["Connection"]) == (200, "close")
            assert process.popen.poll() is None
        assert toggle.result().status_code == 200
        assert process.wait() == 0
        kept.close()
