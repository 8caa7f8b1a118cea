"""`make run`: real starts of manage.py in a copy of the project, stopped and killed."""

import json
import os
import shlex
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace

import processes
import psutil
import psycopg
import pytest
from embedding import pid_of_server
from own_postgres import database_on
from processes import GREENLETS, Process, free_port, manage_run, wait_until, wait_until_gone
from support import SECRET

import manage
import migrate
from development import embedded

DEADLINE = 10  # seconds in which everything that was started has to end


def curl_line(process: Process) -> str:
    [line] = [line for line in process.lines() if line.startswith("curl")]
    return line


def paste(line: str) -> tuple[int, bytes]:
    """Run a curl line as a shell would; without curl, send what it would send."""
    if shutil.which("curl"):
        done = subprocess.run(["sh", "-c", line + r" -w '\n%{http_code}'"], capture_output=True)  # noqa: PLW1510, S607
        body, _, status = done.stdout.rpartition(b"\n")
        return int(status), body
    _, _, url, _, content_type, _, body, _, authorization = shlex.split(line)
    headers = dict(header.split(": ") for header in (content_type, authorization))
    with closing(HTTPConnection(*url.split("/")[2].split(":"), timeout=10)) as connection:
        connection.request("POST", url, body, headers)
        response = connection.getresponse()
        return response.status, response.read()


def database_of(folder: Path) -> str:
    url = embedded.url_of_running(folder / ".data" / "postgres")
    assert url
    return url


@contextmanager
def slow_toggle(process: Process, folder: Path) -> Iterator[tuple[psycopg.Connection, object]]:
    """Keep a request in flight that waits until the yielded connection unlocks its row."""
    task_id = process.create()
    url = database_of(folder)
    with ThreadPoolExecutor() as pool, psycopg.connect(url) as connection:
        connection.execute("SELECT FROM tasks WHERE id = %s FOR UPDATE", [task_id])
        toggle = pool.submit(process.call, "PATCH", f"{task_id}/complete")
        with psycopg.connect(url, autocommit=True) as other:
            waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            wait_until(lambda: other.execute(waiting).fetchone())
        yield connection, toggle


# The first start


def test_fresh_copy_serves_and_keeps_secret_and_data(fresh: Path):
    with manage_run(fresh, measure=GREENLETS) as process:
        assert f"http://127.0.0.1:{process.port}/docs" in process.output()
        status, body = paste(curl_line(process))
        assert (status, json.loads(body)["user_id"]) == (201, "demo")
        assert process.request("GET", "/readyz").status_code == 200
        with psycopg.connect(database_of(fresh)) as owner:
            roles = "SELECT DISTINCT usename FROM pg_stat_activity WHERE application_name = 'tasks'"
            assert owner.execute(roles).fetchall() == [(manage.API_ROLE,)]
            old = "INSERT INTO tasks (user_id, title, deleted_at) VALUES ('demo', 'old', %s)"
            owner.execute(old, [datetime.now(UTC) - timedelta(days=31)])
        assert process.stop() == 0

    secret = fresh / ".data" / "secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(secret.parent.stat().st_mode) & 0o007 == 0
    kept = secret.read_text()
    assert len(kept) >= 32

    (fresh / ".env").write_text("DATABASE_URL=\nBETTER_AUTH_SECRET=\n")  # as if unset
    with manage_run(fresh) as process:
        assert secret.read_text() == kept
        status, newer = paste(curl_line(process))
        assert (status, json.loads(newer)["id"]) == (201, json.loads(body)["id"] + 2)
        with psycopg.connect(database_of(fresh)) as owner:
            assert owner.execute("SELECT FROM tasks WHERE title = 'old'").fetchall() == []
        code, [token] = processes.manage(fresh, "token", "auth0|1")
        assert code == 0
        path = processes.tasks_of("auth0|1")
        assert process.request("GET", path, token=token).json == []


def test_own_server_serves_where_the_shell_names_another(fresh: Path):
    foreign = {"PGSERVICE": "nowhere", "PGHOSTADDR": "127.0.0.9", "PGOPTIONS": "-c nonsense=1"}
    with manage_run(fresh, BETTER_AUTH_SECRET=SECRET, **foreign) as process:
        process.create()


def test_package_that_pip_was_killed_in_is_installed_again(fresh: Path):
    packages = fresh / ".venv/lib/python3.13/site-packages"
    for name, last in [("half", "RECORD"), ("whole", "INSTALLER")]:
        (packages / f"{name}-1.0.dist-info").mkdir(parents=True)
        (packages / f"{name}-1.0.dist-info" / last).touch()
    (fresh / ".venv/bin").mkdir()
    for program in ("pip", "python"):
        (fresh / ".venv/bin" / program).symlink_to("/bin/true")
    subprocess.run(["make", ".venv/run"], cwd=fresh, check=True, capture_output=True)  # noqa: S607
    assert [path.name for path in packages.iterdir()] == ["whole-1.0.dist-info"]


# The end


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_stop_lets_a_slow_request_finish_and_leaves_nothing(project: Path, how: signal.Signals):
    with (
        manage_run(project, BETTER_AUTH_SECRET=SECRET) as process,
        slow_toggle(process, project) as (lock, toggle),
    ):
        family = process.family()
        assert len(family) > 3
        os.killpg(process.pid, how)  # as a terminal does
        signalled = time.monotonic()
        time.sleep(0.5)
        lock.rollback()
        lock.close()
        assert toggle.result().status_code == 200
        assert toggle.result().json["completed"] is True
        assert process.wait() == 0
        wait_until_gone(family, DEADLINE)
        assert time.monotonic() - signalled < DEADLINE
        assert "Traceback" not in process.output()


def test_stop_before_gunicorn_listens_to_it_is_a_clean_one(fresh: Path):
    slow = "import time\nprint('begun', flush=True)\ntime.sleep(60)\n"
    (fresh / "gunicorn.conf.py").write_text(slow)
    with processes.running(["manage.py", "run"], fresh, API_PORT=free_port()) as process:
        process.wait_for_output("begun")
        assert process.stop() == 0


def test_command_migrate_starts_the_embedded_server_and_stops_it(project: Path):
    code, _ = processes.manage(project, "migrate")
    assert code == 0
    assert embedded.url_of_running(project / ".data" / "postgres") is None


def test_kill_leaves_nothing_and_the_next_start_has_all_data(project: Path):
    with manage_run(project, BETTER_AUTH_SECRET=SECRET) as process:
        task_id = process.create()
        family = process.family()
        process.popen.kill()
        wait_until_gone(family, DEADLINE)
    with manage_run(project, BETTER_AUTH_SECRET=SECRET) as process:
        assert process.call("GET", task_id).status_code == 200


@pytest.fixture(params=[signal.SIG_DFL, signal.SIG_IGN], ids=["without nohup", "with nohup"])
def hang_up(request: pytest.FixtureRequest) -> Iterator[signal.Handlers]:
    """Set what nohup changes, and all that is started inherits."""
    handler = signal.signal(signal.SIGHUP, request.param)
    yield request.param
    signal.signal(signal.SIGHUP, handler)


def test_closed_terminal_is_a_clean_stop(project: Path, hang_up: signal.Handlers):
    with manage_run(project) as process:
        process.popen.send_signal(signal.SIGHUP)
        if hang_up == signal.SIG_IGN:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)
            assert process.stop() == 0
        assert process.wait() == 0


def test_killed_database_ends_the_api_with_one_line(project: Path):
    with manage_run(project) as process:
        family = process.family()
        pid = pid_of_server(project / ".data/postgres")
        psutil.Process(pid).kill()
        assert process.wait(DEADLINE) == 1
        assert process.lines()[-1].startswith("Error: PostgreSQL has ended")
        assert "Traceback" not in process.output()
        wait_until_gone(family, DEADLINE)


# A given database


@pytest.fixture(scope="module")
def given(
    server: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Process, Path, str]]:
    """A start on a database that is given in .env, as SQLAlchemy and Neon write its address.

    The database is ahead of the code, and importing the embedded server ends the process.
    """
    folder = processes.copy_of_project(tmp_path_factory.mktemp("given"))
    (folder / "development/embedded.py").write_text("raise SystemExit('imported')")
    with database_on(server, f"given {os.getpid()}") as url:
        migrate.migrate(url)
        with psycopg.connect(url) as connection:
            connection.execute("INSERT INTO schema_migrations VALUES ('9999')")
        _, _, rest = url.partition("://")
        lines = [f"DATABASE_URL=postgresql+asyncpg://{rest}&sslmode=prefer&channel_binding=prefer"]
        lines += ["CORS_ORIGINS=https://app.example.com", "BETTER_AUTH_SECRET=short", "API_PORT=1"]
        lines += ["BETTER_AUTH_URL=http://localhost:3000"]
        (folder / ".env").write_text("\n".join(lines))
        with manage_run(folder, BETTER_AUTH_SECRET=SECRET) as process:
            yield process, folder, url


def test_given_database_is_used_and_nothing_embedded_is_made(
    given: tuple[Process, Path, str],
):
    process, folder, url = given
    task_id = process.create("dora")
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT id FROM tasks WHERE user_id = 'dora'")
        assert found.fetchone() == (task_id,)
    assert not (folder / ".data").exists()


def test_curl_line_has_what_a_configured_issuer_asks_for(given: tuple[Process, Path, str]):
    assert paste(curl_line(given[0]))[0] == 201


def test_database_ahead_of_the_code_serves(given: tuple[Process, Path, str]):
    assert given[0].request("GET", "/readyz").status_code == 200


def test_env_file_is_read_and_the_environment_outranks_it(
    given: tuple[Process, Path, str],
):
    headers = {"Origin": "https://app.example.com", "Access-Control-Request-Method": "GET"}
    response = given[0].request("OPTIONS", "/api/alice/tasks", headers=headers)
    assert response.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    assert given[0].call("GET").status_code == 200  # with the environment's secret and port


# What is printed, and what is shared with production


def test_address_of_ipv6_is_bound_in_brackets(project: Path):
    given = {"DATABASE_URL": "postgresql://localhost/tasks", "BETTER_AUTH_SECRET": SECRET}
    given |= {"API_HOST": "::1", "API_PORT": "8123"}
    program = "import runpy; print(runpy.run_path('gunicorn.conf.py')['bind'])"
    with processes.running(["-c", program], project, **given) as process:
        assert process.wait() == 0, process.output()
        assert process.lines() == ["[::1]:8123"]


def test_worker_that_the_master_finds_gone_has_nothing_to_close(project: Path):
    given = {"DATABASE_URL": "postgresql://localhost/tasks", "BETTER_AUTH_SECRET": SECRET}
    program = "import runpy; runpy.run_path('gunicorn.conf.py')['worker_exit'](None, object())"
    with processes.running(["-c", program], project, **given) as process:
        assert process.wait() == 0, process.output()
