"""A real gunicorn with worker.py: slow clients, overload, and silent servers."""

import re
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from threading import Event

import processes
import psutil
import psycopg
import pytest
from issuer import Behaviour, Issuer, hang
from own_postgres import Postgres
from processes import GREENLETS, Process, gunicorn, tasks_of, wait_until
from raw_http import begun_post, head, read_to_end, send_raw, statuses
from support import SECRET, assert_error, token_for

from capacity.transfer_limits import RESPONSES_AT_ONCE

PATIENCE_WITH_CLIENTS = 1  # seconds; what worker.py grants is too long for a test
POOL_SIZE = 2
SHARE = 1  # of the pool, for a user
AT_ONCE = 0.5  # seconds at most for a response that has nothing to wait for
CRASH = "Traceback"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = processes.copy_of_project(tmp_path_factory.mktemp("worker"))
    worker = folder / "server/worker.py"
    shorter = rf"\1_TIMEOUT = {PATIENCE_WITH_CLIENTS} "
    text, changes = re.subn(r"\b(CLIENT|BODY)_TIMEOUT = [\d.]+ ", shorter, worker.read_text())
    assert changes == 2
    worker.write_text(text)
    return folder


@pytest.fixture(scope="module")
def api(folder: Path, url: str) -> Iterator[Process]:
    with gunicorn(folder, url, measure=GREENLETS, DATABASE_POOL_SIZE=POOL_SIZE) as process:
        yield process
        assert CRASH not in process.output()


def connect(api: Process) -> socket.socket:
    return socket.create_connection(("127.0.0.1", api.port), timeout=10)


def assert_live(api: Process) -> None:
    """Expect a quick response; the best of several, as other tests use the machine too."""
    assert min(seconds_until_live(api) for _ in range(5)) < AT_ONCE


def seconds_until_live(api: Process) -> float:
    started = time.monotonic()
    assert api.request("GET", "/livez").status_code == 200
    return time.monotonic() - started


# Clients that take their time


@pytest.mark.parametrize("begun", [b"GET /livez HT", begun_post("alice", 9)], ids=["head", "body"])
@pytest.mark.parametrize("clients", [4, 40])
def test_stalled_clients_do_not_keep_others_out(api: Process, begun: bytes, clients: int):
    with ExitStack() as stack:
        for _ in range(clients):
            stack.enter_context(connect(api)).sendall(begun)
        assert_live(api)


UNENDING = {
    "requests": (b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000),
    "chunks": (head("POST", "/", "Transfer-Encoding: chunked"), b"1\r\nx\r\n" * 10_000),
    "body": (head("POST", "/", "Content-Length: 100000000000"), b"x" * 64 * 1024),
}


@pytest.mark.parametrize("kind", UNENDING)
def test_client_that_never_stops_sending_keeps_nobody_waiting(api: Process, kind: str):
    begun, more = UNENDING[kind]
    done = Event()

    def send() -> None:
        while not done.is_set():
            with suppress(OSError), connect(api) as client:
                client.sendall(begun)
                while not done.is_set():
                    client.sendall(more)
                    with suppress(BlockingIOError):
                        client.recv(1024 * 1024, socket.MSG_DONTWAIT)

    with ThreadPoolExecutor(3) as pool:
        sending = [pool.submit(send) for _ in range(3)]
        time.sleep(1)
        waits = [seconds_until_live(api) for _ in range(10)]
        done.set()
        assert all(each.result() is None for each in sending)
    assert sorted(waits)[5] < 4  # a starved worker took 30, and was then killed


def test_user_whose_body_comes_in_tiny_chunks_keeps_nobody_waiting(api: Process):
    lines = ("Content-Type: application/json", "Transfer-Encoding: chunked", "Connection: close")
    begun = head("POST", tasks_of("alice"), *lines, f"Authorization: Bearer {token_for('alice')}")
    answered = 0
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(send_raw, api, begun + b"1\r\nx\r\n" * 200_000 + b"0\r\n\r\n")
        while not sending.done():
            assert api.request("GET", "/livez").status_code == 200
            answered += 1
    assert statuses(sending.result()) == [400]  # it is no JSON
    assert answered > 5  # or one, when it was read


def test_body_that_stalls_is_400_and_the_connection_ends(api: Process):
    with connect(api) as client:
        client.sendall(begun_post("alice", 9))
        response = read_to_end(client)
    assert response.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nConnection: close\r\n" in response
    assert b"is incomplete" in response


def test_body_that_drips_is_400_too(api: Process):
    with connect(api) as client:
        client.sendall(begun_post("alice", 900))
        client.settimeout(PATIENCE_WITH_CLIENTS / 4)
        for _ in range(20):
            with suppress(TimeoutError):
                assert client.recv(1024).startswith(b"HTTP/1.1 400 ")
                return
            client.sendall(b" ")
    pytest.fail("It was still waited for.")


def test_body_that_came_while_the_process_was_stopped_is_read(api: Process):
    [worker] = api.family()[1:]
    parts = [b'"title": "x"', b" " * 9, b"}"]
    with connect(api) as client:
        client.sendall(begun_post("alice", 1 + sum(map(len, parts))))
        for part in parts:
            time.sleep(0.3)
            worker.suspend()
            time.sleep(PATIENCE_WITH_CLIENTS + 1.2)
            client.sendall(part)
            worker.resume()
        assert client.recv(1024).startswith(b"HTTP/1.1 201 ")


def test_long_body_that_comes_steadily_is_waited_for(api: Process):
    parts = [b'"title": "x"', *[b" " * 300] * 12, b"}"]
    with connect(api) as client:
        client.sendall(begun_post("alice", 1 + sum(map(len, parts))))
        for part in parts:
            time.sleep(PATIENCE_WITH_CLIENTS / 4)
            client.sendall(part)
        assert client.recv(1024).startswith(b"HTTP/1.1 201 ")


def test_clients_that_do_not_read_do_not_keep_others_out_and_are_let_go(api: Process):
    large = head("GET", "/docs/assets/swagger-ui-bundle.js")
    [worker] = psutil.Process(api.pid).children()
    with ExitStack() as stack:
        ports = set()
        for _ in range(40):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", api.port))
            client.sendall(large * 6)
            ports.add(client.getsockname()[1])
        assert_live(api)
        wait_until(
            lambda: not ports & {each.raddr.port for each in worker.net_connections() if each.raddr}
        )


LARGE_LIST = 500 * 5000 * 4  # bytes, and more


@pytest.fixture(scope="module")
def large_list(url: str) -> bytes:
    """A request for a list that no socket's buffers hold; in HTTP/1.0, whose responses just end."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO tasks (user_id, title, description, version)"
            " SELECT 'reader', 'x', repeat('\U0001f600', 5000), 2 FROM generate_series(1, 500)"
        )
    authorization = f"Authorization: Bearer {token_for('reader')}"
    return f"GET {tasks_of('reader')} HTTP/1.0\r\n{authorization}\r\n\r\n".encode()


def ask_slowly(api: Process, request: bytes) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    client.connect(("127.0.0.1", api.port))
    client.sendall(request)
    return client


def read_slowly(client: socket.socket, slowest: int = 0) -> int:
    """Read to the end, so many bytes at 120 KB a second; return how many there were."""
    received = 0
    while part := client.recv((12 if received < slowest else 128) * 1024):
        received += len(part)
        time.sleep(0.1 if received < slowest else 0.08)
    return received


def test_client_that_reads_slowly_gets_all_of_it(api: Process, large_list: bytes):
    started = time.monotonic()
    with ask_slowly(api, large_list) as client:
        assert read_slowly(client, slowest=400_000) > LARGE_LIST
    assert time.monotonic() - started > 2 * PATIENCE_WITH_CLIENTS


def test_large_responses_of_a_user_one_after_the_other_are_all_sent(
    api: Process, large_list: bytes
):
    """Each holds one of the user's places only until it is sent."""
    for _ in range(RESPONSES_AT_ONCE + 1):
        assert len(send_raw(api, large_list)) > LARGE_LIST


def test_response_that_a_client_did_not_read_in_time_ends_in_a_reset(
    api: Process, large_list: bytes
):
    with ask_slowly(api, large_list) as client:
        client.recv(1)
        time.sleep(3 * PATIENCE_WITH_CLIENTS)
        with pytest.raises(ConnectionResetError):
            read_slowly(client)


def test_response_that_a_stop_cuts_off_ends_in_a_reset(folder: Path, url: str, large_list: bytes):
    with (
        gunicorn(folder, url, GRACEFUL_TIMEOUT=1) as process,
        ThreadPoolExecutor() as pool,
        ask_slowly(process, large_list) as client,
    ):
        client.recv(1)
        reading = pool.submit(read_slowly, client)
        stopped = time.monotonic()
        assert process.stop() == 0
        assert time.monotonic() - stopped >= 1  # it had all of its time
        with pytest.raises(ConnectionResetError):
            reading.result()


def test_client_that_waits_for_the_end_of_its_connection_sees_it_at_once(api: Process):
    waits = []
    for _ in range(5):
        started = time.monotonic()
        assert statuses(send_raw(api, head("GET", "/livez", "Connection: close"))) == [200]
        waits.append(time.monotonic() - started)
    assert min(waits) < AT_ONCE


def test_client_that_does_not_close_its_end_keeps_nobody_waiting(api: Process):
    with connect(api) as client:
        client.sendall(head("GET", "/livez", "Connection: close"))
        assert statuses(read_to_end(client)) == [200]
        assert_live(api)


# More than there are connections to the database, and servers that say nothing


def test_user_who_waits_for_more_than_a_share_gets_503_and_keeps_nobody_else_waiting(
    api: Process, url: str
):
    task_id = api.create()

    def toggle() -> tuple[int, float]:
        started = time.monotonic()
        status = api.call("PATCH", f"{task_id}/complete").status_code
        return status, time.monotonic() - started

    with ThreadPoolExecutor(10 * POOL_SIZE) as pool:
        with Postgres(url).locked(task_id):
            toggles = [pool.submit(toggle) for _ in range(10 * POOL_SIZE)]
            others = [api.call("GET", user="bob").status_code for _ in range(10)]
            wait_until(lambda: sum(each.done() for each in toggles) >= 10 * POOL_SIZE - SHARE)
            assert_live(api)
        responses = [each.result() for each in toggles]
    assert others == [200] * 10
    assert sorted(status for status, _ in responses) == [200] * SHARE + [503] * (
        10 * POOL_SIZE - SHARE
    )
    assert max(seconds for status, seconds in responses if status == 503) < 2.5
    assert api.call("GET", task_id).status_code == 200


def test_idle_clients_make_room_for_others_once_no_more_fit(folder: Path, url: str):
    with gunicorn(folder, url, WEB_CONNECTIONS=3) as process, ExitStack() as stack:
        kept = stack.enter_context(closing(process.connect()))
        assert processes.request_on(kept, "GET", "/livez").status_code == 200
        for begun in [b"", b"GET /livez HT"]:
            stack.enter_context(connect(process)).sendall(begun)
        assert process.request("GET", "/livez", timeout=5).status_code == 200
        assert CRASH not in process.output()


def flood(issuer: Issuer, connection: socket.socket) -> None:
    """Send trailers (RFC 9112, section 7.1.2) without a pause."""
    connection.settimeout(1)  # sending what nobody reads any more would wait for minutes
    with suppress(OSError):
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
        while not issuer.stopping.is_set():
            connection.sendall(b"X: y\r\n" * 10_000)


@pytest.mark.parametrize("behave", [hang, flood])
def test_issuer_that_hangs_keeps_no_other_request_waiting(
    folder: Path, url: str, issuer: Issuer, behave: Behaviour
):
    issuer.behave = behave
    settings = {"BETTER_AUTH_URL": issuer.origin, "BETTER_AUTH_SECRET": SECRET}
    with gunicorn(folder, url, **settings) as process, ThreadPoolExecutor() as pool:
        token = issuer.token()
        waiting = pool.submit(process.request, "GET", tasks_of("alice"), token=token)
        wait_until(lambda: issuer.requests)
        assert_live(process)
        assert behave is flood or not waiting.done()  # Python 3.14.8 ends a flood itself
        assert_error(waiting.result(), 503, "unavailable")


def test_application_is_served_without_gevent_too(folder: Path, url: str):
    program = "import sys; sys.modules['gevent'] = None; import wsgi; print(wsgi.application.name)"
    given = {"DATABASE_URL": url, "BETTER_AUTH_SECRET": SECRET}
    with processes.running(["-c", program], folder, **given) as process:
        assert process.wait() == 0, process.output()
        assert process.lines()[-1] == "tasks"


@pytest.mark.parametrize("begun", [b"", b"GET /livez HT"], ids=["nothing", "half a head"])
def test_connection_without_a_request_is_ended_in_its_time(folder: Path, url: str, begun: bytes):
    with gunicorn(folder, url, GUNICORN_CMD_ARGS="--keep-alive 1") as process:
        with connect(process) as client:
            client.sendall(begun)
            assert client.recv(1024) == b""
        assert CRASH not in process.output()
