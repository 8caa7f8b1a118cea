"""What a real gunicorn writes to its log, and what it does not import."""

import json
import re
import signal
import subprocess
import sys
from http.client import IncompleteRead
from itertools import dropwhile
from pathlib import Path

import processes
import psutil
import pytest
from processes import wait_until

from config import PROJECT


def test_what_is_off_is_not_imported():
    script = (
        "import sys; from app import create_app; from config import Settings;"
        "create_app(Settings(database_url='postgresql://', better_auth_secret='x' * 32));"
        "off = {'observability.metrics', 'observability.traces'};"
        "off |= {'opentelemetry', 'prometheus_client', 'google', 'requests'};"
        "print([n for n in sys.modules if n in off])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=PROJECT,
        env=processes.plain_environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_every_line_of_gunicorn_is_json(tmp_path: Path, url: str):
    folder = processes.copy_of_project(tmp_path)
    with processes.gunicorn(folder, url, measure=processes.GREENLETS) as api:
        api.create()
        response = api.request("GET", "/nope", headers={"X-Request-Id": "mine"})
        assert response.json["details"] == {"request_id": "mine"}
        api.request("GET", "/bad", headers={"bad header": "eyJ"})
        wait_until(lambda: '"status": 400' in api.output())
        assert api.stop() == 0
        lines = [json.loads(line) for line in api.lines()]
    assert all({"time", "level", "event"} <= line.keys() for line in lines)
    assert [line["status"] for line in lines if line["event"] == "request"] == [201, 404, 400]
    assert any("Listening at" in line["event"] for line in lines)
    assert "eyJ" not in json.dumps(lines)


def test_what_no_greenlet_catches_is_a_line_of_json(tmp_path: Path):
    """gevent reports that no name is like this; and for us, it is a database that is away."""
    folder = processes.copy_of_project(tmp_path)
    with processes.gunicorn(folder, "postgresql://api@db..svc/tasks") as api:
        assert api.request("GET", "/readyz").status_code == 503
        wait_until(lambda: '"status": 503' in api.output())
        lines = [json.loads(line) for line in api.lines()]
    [uncaught] = {line["event"] for line in lines if line["event"].startswith("not caught")}
    assert "idna" in uncaught
    assert all("Traceback" in line["exception"] for line in lines if line["event"] == uncaught)
    assert "psycopg.pool" not in {line.get("logger") for line in lines}


def test_path_is_in_no_line_of_gunicorn_even_at_debug(tmp_path: Path, url: str):
    with processes.gunicorn(processes.copy_of_project(tmp_path), url, LOG_LEVEL="debug") as api:
        api.request("GET", "/private")
        wait_until(lambda: '"status": 404' in api.output())
        assert "private" not in api.output()


@pytest.mark.parametrize("level", ["info", "debug"])
def test_every_line_is_json_after_a_reload_too(tmp_path: Path, url: str, level: str):
    """gunicorn's own handler, which it adds again, would also wait for room in a full pipe."""
    with processes.gunicorn(processes.copy_of_project(tmp_path), url, LOG_LEVEL=level) as api:
        for _ in range(2):
            [before] = psutil.Process(api.pid).children()
            api.popen.send_signal(signal.SIGHUP)
            wait_until(lambda old=before: old not in psutil.Process(api.pid).children())
        assert api.stop() == 0
        # At debug, gunicorn's options come first, as text: our log is not set up before they are.
        lines = dropwhile(lambda line: not line.startswith("{"), api.lines())
        events = [json.loads(line)["event"] for line in lines]
    assert len([event for event in events if "Booting worker" in event]) == 3


def test_export_that_postgresql_ends_is_one_line_with_what_it_said(tmp_path: Path, url: str):
    folder = processes.copy_of_project(tmp_path)
    query = folder / "queries/transfer.sql"
    fails_at_the_second_page = "(%(after_id)s / (1 - least(%(after_id)s, 1)))"
    query.write_text(query.read_text().replace("%(after_id)s", fails_at_the_second_page))
    with processes.gunicorn(folder, url) as api:
        api.create()
        with pytest.raises((IncompleteRead, ConnectionError)):
            api.call("GET", "export")
        wait_until(lambda: "/export" in api.output())
        assert api.stop() == 0
        [line] = [line for line in api.lines() if "exception" in line or "Traceback" in line]
    line = json.loads(line)
    assert (line["level"], line["status"], line["sqlstate"]) == ("error", 200, "22012")
    assert line["cause"] == "DivisionByZero: division by zero"


def test_line_below_the_level_that_is_set_is_not_written(tmp_path: Path, url: str):
    folder = processes.copy_of_project(tmp_path)
    with processes.gunicorn(folder, url, LOG_LEVEL="warning") as api:
        api.create()
        assert api.stop() == 0
        assert {json.loads(line)["level"] for line in api.lines()} <= {"warning"}


def test_text_is_for_people(tmp_path: Path, url: str):
    folder = processes.copy_of_project(tmp_path)
    with processes.gunicorn(folder, url, LOG_FORMAT="text") as api:
        api.create()
        [line] = [line for line in api.lines() if "/tasks" in line]
    assert re.match(r"\d{4}-\S+Z \[info +\] request +.*status=201", line)
    assert "\x1b" not in line
