"""Exports that break off on their way: no client takes what it has for all of it."""

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse, IncompleteRead
from pathlib import Path

import processes
import psycopg
import pytest
from processes import Process, wait_until
from support import assert_error, bearer, token_for
from transfers import store

EACH_VERSION = pytest.mark.parametrize(
    "version", [(11, "HTTP/1.1"), (10, "HTTP/1.0")], ids=["1.1", "1.0"]
)


@pytest.fixture
def api(database_url: str, owner_url: str, tmp_path: Path) -> Iterator[Process]:
    store(owner_url, 6000, 5000)
    folder = processes.copy_of_project(tmp_path)
    with processes.gunicorn(folder, processes.as_url(database_url)) as process:
        yield process


@contextmanager
def begun_export(api: Process, version: tuple[int, str]) -> Iterator[HTTPResponse]:
    connection: HTTPConnection = api.connect()
    connection._http_vsn, connection._http_vsn_str = version
    headers = bearer(token_for("alice"))
    connection.request("GET", processes.tasks_of("alice", "export"), headers=headers)
    response = connection.getresponse()
    assert response.status == 200
    yield response
    connection.close()


@EACH_VERSION
def test_export_that_fails_on_its_way_breaks_off(
    api: Process, owner_url: str, version: tuple[int, str]
):
    with begun_export(api, version) as response:
        with psycopg.connect(owner_url) as other:
            other.execute("ALTER TABLE tasks RENAME TO gone")
        with pytest.raises((IncompleteRead, ConnectionError)):
            response.read()
    assert api.is_live()


def test_export_that_fails_before_a_byte_is_sent_is_a_500_and_one_line(
    database_url: str, owner_url: str, tmp_path: Path
):
    store(owner_url, 1000, 10)
    folder = processes.copy_of_project(tmp_path)
    query = folder / "queries/transfer.sql"
    failing = query.read_text().replace("    max(id)\n", "    max(id) + 0 / (1000 - max(id))\n")
    query.write_text(failing)  # at the second page; zstd keeps the first until its buffer is full
    with processes.gunicorn(folder, processes.as_url(database_url)) as api:
        headers = {"Accept-Encoding": "zstd", "X-Request-Id": "export-1"}
        response = api.call("GET", "export", headers=headers)
        wait_until(lambda: "export-1" in api.output())
    assert_error(response, 500, "internal_error")
    assert response.headers["X-Request-Id"] == "export-1"
    [line] = [json.loads(line) for line in api.lines() if '"event": "request"' in line]
    assert (line["request_id"], line["status"], line["user"]) == ("export-1", 500, "alice")
    assert line["cause"].startswith("DivisionByZero")


@EACH_VERSION
def test_export_that_a_stop_at_once_cuts_off_breaks_off(api: Process, version: tuple[int, str]):
    with begun_export(api, version) as response:
        api.popen.send_signal(signal.SIGQUIT)
        assert api.wait() == 0
        with pytest.raises((IncompleteRead, ConnectionError)):
            response.read()
