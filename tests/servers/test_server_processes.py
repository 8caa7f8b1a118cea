"""A real gunicorn's processes: how they start, stop, reload and replace one another."""

import os
import re
import resource
import signal
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import processes
import psutil
import pytest
from own_postgres import Postgres
from processes import PATIENCE, Process, gunicorn, request_on, tasks_of, wait_until
from raw_http import begun_post, head, read_to_end, send_raw, statuses
from support import SECRET, token_for

from server.worker import LONGEST_ROUND, spawn_if_possible

SPIN = """
answer = application.wsgi_app
def spin(environ, start_response):
    while environ["QUERY_STRING"] == "spin":
        pass
    return answer(environ, start_response)
application.wsgi_app = spin
"""

FORK_FAILS = """
def pre_fork(server, worker):
    if os.path.exists("full"):
        raise BlockingIOError("Resource temporarily unavailable")
"""

RUN_WITH_FEW_FILES = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
os.execv(sys.argv[1], sys.argv[1:])
"""


@contextmanager
def soft_limit_of_files(most: int) -> Iterator[None]:
    """Lower it for this process, and for those that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_worker_that_is_stuck_is_ended_and_another_takes_its_place(
    database_url: str, tmp_path: Path
):
    folder = processes.copy_of_project(tmp_path)
    (folder / "wsgi.py").write_text((folder / "wsgi.py").read_text() + SPIN)
    config = folder / "gunicorn.conf.py"
    text, changes = re.subn(
        r"^timeout = \d+", "timeout = 1", config.read_text(), flags=re.MULTILINE
    )
    assert changes == 1
    config.write_text(text)
    with gunicorn(folder, processes.as_url(database_url)) as process:
        assert send_raw(process, head("GET", "/livez?spin")) == b""
        wait_until(process.is_live)
        assert "WORKER TIMEOUT" in process.output()


def test_workers_that_were_stopped_with_the_master_go_on(folder: Path, url: str):
    patience = {"GUNICORN_CMD_ARGS": "--timeout 2"}
    with gunicorn(folder, url, **patience) as api, ThreadPoolExecutor(1) as pool:
        postgres, task_id = Postgres(url), api.create()
        with postgres.locked(task_id):
            toggled = pool.submit(api.call, "PATCH", f"{task_id}/complete", timeout=PATIENCE)
            wait_until(postgres.waiting)
            master, worker = api.family()
            for each in (master, worker):
                each.suspend()
        time.sleep(LONGEST_ROUND + 1)
        master.resume()
        time.sleep(0.3)  # so that its first check comes before any sign of life
        worker.resume()
        assert toggled.result().status_code == 200
        assert "WORKER TIMEOUT" not in api.output()


@pytest.mark.parametrize(("started", "is_child"), [(1, False), (2, True)])
def test_start_without_its_first_worker_fails_and_so_does_a_worker_itself(
    started: int, is_child: bool
):
    def fail() -> None:
        raise BlockingIOError

    server = SimpleNamespace(worker_age=started, pid=os.getpid() + is_child)
    with pytest.raises(BlockingIOError):
        spawn_if_possible(fail, server)


def test_worker_that_cannot_be_started_is_started_later_and_the_others_serve(fresh: Path, url: str):
    """As where the system has no more processes, or too little memory for one."""
    with (fresh / "gunicorn.conf.py").open("a") as configuration:
        configuration.write(FORK_FAILS)
    with gunicorn(fresh, url, WEB_CONCURRENCY=2) as api:
        wait_until(lambda: len(api.family()) == 3)
        (fresh / "full").touch()
        api.family()[1].kill()
        api.wait_for_output("no worker can be started now: Resource temporarily unavailable")
        api.create()
        api.popen.send_signal(signal.SIGHUP)
        wait_until(lambda: api.output().count("no worker can be started now") > 3)
        api.create()
        (fresh / "full").unlink()
        wait_until(lambda: len(api.family()) == 3)
        api.create()


def test_process_may_open_as_many_files_as_its_clients_need(folder: Path, url: str):
    with ExitStack() as stack:
        with soft_limit_of_files(128):
            process = stack.enter_context(gunicorn(folder, url, WEB_CONNECTIONS=200))
        for _ in range(190):
            stack.enter_context(socket.create_connection(("127.0.0.1", process.port)))
        assert process.call("GET").status_code == 200
        assert "Too many open files" not in process.output()


def test_start_is_refused_where_clients_need_more_files_than_may_be_open(folder: Path, url: str):
    command = ["-c", RUN_WITH_FEW_FILES, sys.executable, "-m", "gunicorn", "wsgi:application"]
    given = {"DATABASE_URL": url, "BETTER_AUTH_SECRET": SECRET}
    with processes.running(command, folder, **given) as process:
        assert process.wait() == 1
        [line] = process.lines()
    assert line.startswith("Error: WEB_CONNECTIONS=1000 takes 2116 open files")


def test_nothing_connects_to_the_database_before_the_fork(api: Process):
    assert api.call("GET").status_code == 200
    master = psutil.Process(api.pid)
    [worker] = master.children()
    assert len(worker.net_connections("all")) > 1
    assert [each.status for each in master.net_connections("all")] == [psutil.CONN_LISTEN]


def test_toggles_at_once_in_two_servers_lose_none(api: Process, folder: Path, url: str):
    with gunicorn(folder, url) as other, ThreadPoolExecutor(20) as pool:
        path = f"{api.create()}/complete"
        toggles = [pool.submit(each.call, "PATCH", path) for each in (api, other) * 10]
        completed = [toggle.result().json["completed"] for toggle in toggles]
        assert sorted(completed) == [False] * 10 + [True] * 10


def test_reload_under_load_loses_no_request(api: Process):
    done = Event()
    token, path = token_for("alice"), tasks_of("alice")

    def keep_asking(kept: bool) -> int:
        connection = api.connect()
        count = 0
        while not done.is_set():
            assert request_on(connection, "GET", path, token=token).status_code == 200
            count += 1
            if not kept:
                connection.close()
        connection.close()
        return count

    [before] = psutil.Process(api.pid).children()
    with ThreadPoolExecutor() as pool:
        clients = [pool.submit(keep_asking, kept) for kept in (True, False, True, False)]
        api.popen.send_signal(signal.SIGHUP)
        wait_until(lambda: before not in psutil.Process(api.pid).children() or clients[0].done())
        done.set()
        assert all(client.result() > 0 for client in clients)
    assert len(psutil.Process(api.pid).children()) == 1


def test_worker_that_finishes_its_last_requests_is_not_taken_for_stuck(folder: Path, url: str):
    options = {"GUNICORN_CMD_ARGS": "--timeout 2", "GRACEFUL_TIMEOUT": 20}
    body = b'{"title": "Buy milk"}'
    with gunicorn(folder, url, **options) as api:
        with socket.create_connection(("127.0.0.1", api.port), timeout=PATIENCE) as client:
            client.sendall(begun_post("alice", len(body)))
            for one_more_then_one_less in (signal.SIGTTIN, signal.SIGTTOU):
                api.popen.send_signal(one_more_then_one_less)
                wait_until(lambda: len(api.family()) == 3)
            time.sleep(5)
            client.sendall(body[1:])
            assert statuses(read_to_end(client)) == [201]
        wait_until(lambda: len(api.family()) == 2)


def test_reload_is_not_stopped_by_a_setting_that_has_become_wrong(folder: Path, api: Process):
    wrong = folder / ".env"
    wrong.write_text("LOG_LEVEL=loud\n")
    [before] = psutil.Process(api.pid).children()
    api.popen.send_signal(signal.SIGHUP)
    wait_until(lambda: before not in psutil.Process(api.pid).children())
    wrong.unlink()
    wait_until(api.is_live)
    assert api.call("GET").status_code == 200
    assert api.popen.poll() is None  # a worker goes on for a moment without its master


def test_worker_that_has_answered_its_share_is_replaced_and_no_request_fails(
    folder: Path, url: str
):
    with gunicorn(folder, url, GUNICORN_CMD_ARGS="--max-requests 3") as process:
        [before] = psutil.Process(process.pid).children()
        wait_until(
            lambda: (
                process.request("GET", "/livez").status_code != 200
                or before not in psutil.Process(process.pid).children()
            )
        )
        assert process.request("GET", "/livez").status_code == 200
