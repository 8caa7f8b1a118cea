"""The API as it is run: a first start of `make run`, and a gunicorn that is used and killed.

tests/servers has all other tests of servers.
"""

import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import processes
import psutil
import pytest
from collector import Collector, collecting
from own_postgres import OwnPostgres
from processes import (
    GREENLETS,
    Process,
    RunHere,
    free_port,
    gunicorn,
    manage_run,
    request_on,
    tasks_of,
    wait_until,
    wait_until_gone,
)
from raw_http import head, send_raw, statuses
from support import JSON, SECRET, assert_error, token_for

from capacity.transfer_limits import LARGE_RESPONSE, RESPONSES_AT_ONCE
from config import PROJECT
from server.responses import MAX_UNREAD
from server.worker import LINGER_TIMEOUT


def test_fresh_copy_serves_what_its_curl_line_sends(tmp_path: Path):
    folder = processes.copy_of_project(tmp_path)
    with manage_run(folder, measure=GREENLETS) as process:
        assert f"http://127.0.0.1:{process.port}/docs" in process.output()
        [line] = [line for line in process.lines() if line.startswith("curl")]
        _, _, url, _, content_type, _, body, _, authorization = shlex.split(line)
        headers = dict(header.split(": ") for header in (content_type, authorization))
        assert url == f"http://127.0.0.1:{process.port}/api/demo/tasks"
        created = process.request("POST", "/api/demo/tasks", body=body, headers=headers)
        assert (created.status_code, created.json["title"]) == (201, json.loads(body)["title"])
        assert process.request("GET", "/readyz").status_code == 200
        assert process.stop() == 0
        assert "Traceback" not in process.output()


@pytest.fixture(scope="module")
def metrics_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def api(
    own_server: OwnPostgres,
    collector: Collector,
    metrics_port: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Process]:
    """gunicorn with all that can be switched on, to be stopped with nothing to complain of."""
    folder = processes.copy_of_project(tmp_path_factory.mktemp("served"))
    settings = {
        "METRICS_PORT": metrics_port,
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server.server_port}",
        "OTEL_BSP_SCHEDULE_DELAY": 100,
    }
    with gunicorn(folder, own_server.url, measure=GREENLETS, **settings) as process:
        yield process
        family = process.family()
        assert process.stop() == 0
        wait_until_gone(family, 10)
        assert "Traceback" not in process.output()


def created(port: int) -> float | None:
    """Ask for Prometheus' count of tasks that were created; None until it can be asked."""
    with suppress(OSError), urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        [count] = re.findall(r"^tasks_created_total (\S+)", response.read().decode(), re.MULTILINE)
        return float(count)
    return None


# First: the coverage of what a killed worker has run is lost.
def test_killed_worker_is_replaced_and_what_it_counted_is_kept(api: Process, metrics_port: int):
    api.create()
    wait_until(lambda: created(metrics_port))
    before = created(metrics_port) or 0
    workers = [child for child in psutil.Process(api.pid).children() if is_worker(child)]
    for worker in workers:
        worker.kill()
    wait_until(lambda: not any(worker.is_running() for worker in workers))
    wait_until(api.is_live)
    api.create()
    assert created(metrics_port) == before + 1


def is_worker(process: psutil.Process) -> bool:
    return "metrics_server" not in "".join(process.cmdline())


def test_health_check_of_the_image_tells_a_server_from_none(api: Process):
    dockerfile = (PROJECT / "Dockerfile").read_text()
    [check] = re.findall(r'^ +CMD (\["python".*)', dockerfile, re.MULTILINE)
    for port, is_healthy in [(api.port, True), (free_port(), False)]:
        given = processes.plain_environment() | {"API_PORT": str(port)}
        command = [sys.executable, *json.loads(check)[1:]]
        done = subprocess.run(command, env=given, stderr=subprocess.DEVNULL, check=False)
        assert (done.returncode == 0) == is_healthy


def test_six_operations_work_on_one_connection_that_is_kept(api: Process):
    connection, token, path = api.connect(), token_for("carol"), tasks_of("carol")
    created = request_on(connection, "POST", path, token=token, json={"title": "Buy milk"})
    assert (kept := connection.sock)
    one = f"{path}/{created.json['id']}"
    assert (created.status_code, created.headers["Location"]) == (201, one)
    assert request_on(connection, "GET", path, token=token).json == [created.json]
    assert request_on(connection, "GET", one, token=token).json == created.json
    updated = request_on(connection, "PUT", one, token=token, json={"title": "Buy bread"})
    assert (updated.status_code, updated.json["title"]) == (200, "Buy bread")
    toggled = request_on(connection, "PATCH", f"{one}/complete", token=token, headers=JSON)
    assert (toggled.status_code, toggled.json["completed"]) == (200, True)
    deleted = request_on(connection, "DELETE", one, token=token, headers=JSON)
    assert (deleted.status_code, deleted.data) == (204, b"")
    assert_error(request_on(connection, "GET", one, token=token), 404, "not_found")
    assert connection.sock is kept
    connection.close()


@pytest.mark.parametrize("value", ["close", "Close", "TE, close", "keep-alive,close"])
def test_connection_that_the_client_ends_is_closed(api: Process, value: str):
    response = send_raw(api, head("GET", "/livez", f"Connection: {value}") + head("GET", "/livez"))
    assert statuses(response) == [200]
    assert b"Connection: close\r\n" in response


@pytest.mark.parametrize("unread", [MAX_UNREAD - 1, MAX_UNREAD, MAX_UNREAD + 1])
def test_body_left_unread_is_read_to_its_end_or_the_connection_is_said_to_end(
    api: Process, unread: int
):
    begun = head("POST", "/nowhere", f"Content-Length: {unread}") + b"x" * unread
    response = send_raw(api, begun + head("GET", "/livez", "Connection: close"))
    is_said_to_end = b"Connection: close" in response.partition(b"\r\n\r\n")[0]
    assert is_said_to_end == (unread >= MAX_UNREAD)
    assert statuses(response) == ([404] if is_said_to_end else [404, 200])


def test_request_without_a_token_is_401(api: Process):
    assert_error(api.request("GET", tasks_of("alice")), 401, "unauthorized")


def test_request_that_is_no_http_has_an_error_of_the_one_shape(api: Process):
    assert_error(api.request("GET", "/", headers={"bad header": "x"}), 400, "bad_request")


def test_request_and_its_statement_are_spans_at_the_collector(api: Process, collector: Collector):
    assert api.call("GET", headers={"X-Request-Id": "traced"}).status_code == 200
    span, [statement] = collector.of_request("traced")
    assert (span.name, statement.name) == ("GET /api/{user_id}/tasks", "select_tasks")


def test_token_of_the_command_is_accepted(api: Process, run_here: RunHere):
    given = {"DATABASE_URL": "postgresql://", "BETTER_AUTH_SECRET": SECRET}
    code, [token] = run_here("token", "auth0|1", **given)
    assert code == 0
    assert api.request("GET", tasks_of("auth0|1"), token=token).json == []


def test_database_away_is_503_and_the_first_request_after_its_return_succeeds(
    api: Process, own_server: OwnPostgres
):
    task_id = api.create()
    with own_server.away():
        api.call("GET")
        assert_error(api.call("GET"), 503, "unavailable")
        assert api.request("GET", "/livez").status_code == 200
        assert_error(api.request("GET", "/readyz"), 503, "unavailable")
    assert api.call("GET", task_id).status_code == 200
    assert api.request("GET", "/readyz").status_code == 200


def test_large_lists_one_after_another_are_all_answered(api: Process, own_server: OwnPostgres):
    own_server.execute(
        "INSERT INTO tasks (user_id, title, description, version)"
        " SELECT 'reader', 'x', repeat('x', 5000), 2 FROM generate_series(1, 300)"
    )
    for _ in range(RESPONSES_AT_ONCE + 1):
        response = api.call("GET", user="reader")
        assert (response.status_code, len(response.data) > LARGE_RESPONSE) == (200, True)


def test_end_of_a_connection_is_told_at_once(api: Process):
    def seconds() -> float:
        started = time.monotonic()
        send_raw(api, head("GET", "/livez", "Connection: close"))
        return time.monotonic() - started

    assert min(seconds() for _ in range(5)) < LINGER_TIMEOUT
