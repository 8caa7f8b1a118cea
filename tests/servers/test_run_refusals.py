"""Starts of `make run` that are refused, each in one line."""

import socket
from pathlib import Path

import processes
import psycopg
import pytest
from processes import as_url, free_port, manage_run
from support import SECRET


def refusal(folder: Path, **environment: object) -> str:
    """Try to start, and return the one line that says why it does not."""
    given = {"API_PORT": free_port()} | environment
    with processes.running(["manage.py", "run"], folder, **given) as process:
        assert process.wait() == 1, process.output()
        [line] = process.lines()
    assert line.startswith("Error: ")
    return line


def test_second_start_on_one_folder_is_refused_and_the_first_goes_on(project: Path):
    with manage_run(project, BETTER_AUTH_SECRET=SECRET) as first:
        task_id = first.create()
        assert "already running" in refusal(project)
        assert processes.manage(project, "migrate")[0] == 0  # uses the running server
        assert "Set API_PORT" in refusal(project, API_PORT=first.port)
        assert first.call("GET", task_id).status_code == 200
        assert first.stop() == 0


def test_taken_port_is_refused_with_its_name(fresh: Path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        line = refusal(fresh, API_PORT=port)
    assert f"127.0.0.1 port {port}" in line
    assert "Set API_PORT" in line
    assert not (fresh / ".data").exists()


def test_given_database_without_secret_or_issuer_is_refused(project: Path):
    line = refusal(project, DATABASE_URL="postgresql://localhost/tasks")
    assert "Set BETTER_AUTH_SECRET" in line
    assert "BETTER_AUTH_URL" in line


def test_replica_of_another_server_than_its_own_is_refused(fresh: Path):
    line = refusal(fresh, DATABASE_REPLICA_URL="postgresql://localhost/tasks")
    assert "Set DATABASE_URL beside DATABASE_REPLICA_URL" in line
    assert not (fresh / ".data").exists()


@pytest.mark.parametrize("program", [["manage.py", "run"], ["-m", "gunicorn", "wsgi:application"]])
def test_short_secret_is_refused_with_the_same_line_by_both(project: Path, program: list[str]):
    with processes.running(program, project, BETTER_AUTH_SECRET="short") as process:
        assert process.wait() == 1
        [line] = process.lines()
    assert line.startswith("Error: BETTER_AUTH_SECRET must be 32 bytes or more")


def test_gunicorn_that_has_not_read_its_configuration_is_refused(project: Path, tmp_path: Path):
    program = ["-m", "gunicorn", "--chdir", str(project), "--bind", "127.0.0.1:0"]
    with processes.running([*program, "wsgi:application"], tmp_path) as process:
        assert process.wait() == 3
        assert f"gunicorn has not read gunicorn.conf.py: start it in {project}" in process.output()


@pytest.mark.parametrize(
    ("options", "ports"),
    [
        ("--worker-class gevent", ["API_PORT"]),
        ("--worker-class gthread --threads 4", ["API_PORT"]),
        ("--protocol uwsgi", ["API_PORT"]),
        ("--worker-connections 1001", ["API_PORT"]),
        ("--certfile pyproject.toml", ["API_PORT"]),
        ("--keyfile pyproject.toml", ["API_PORT"]),
        ("--user 65534", ["API_PORT", "METRICS_PORT"]),
    ],
)
def test_option_of_gunicorn_that_would_break_it_is_refused(
    project: Path, database_url: str, options: str, ports: list[str]
):
    given: dict[str, object] = {name: free_port() for name in ports}
    given |= {"GUNICORN_CMD_ARGS": options, "DATABASE_URL": as_url(database_url)}
    program = ["-m", "gunicorn", "wsgi:application"]
    with processes.running(program, project, BETTER_AUTH_SECRET=SECRET, **given) as process:
        assert process.wait() == 1, process.output()
        *_, line = process.lines()
    assert line.startswith("Error: ")
    assert options.split(maxsplit=1)[0] in line


def test_database_behind_the_code_is_refused_with_the_command_to_run(
    project: Path, postgresql: psycopg.Connection, database_url: str
):
    with postgresql.transaction():
        postgresql.execute("DROP TABLE tasks, schema_migrations")
    line = refusal(project, DATABASE_URL=as_url(database_url), BETTER_AUTH_SECRET=SECRET)
    assert "0001" in line
    assert "make migrate" in line
