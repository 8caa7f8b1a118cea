"""Real processes for tests: started, waited for, called over HTTP, and ended whatever happens."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.message import Message
from http.client import HTTPConnection, HTTPException
from itertools import cycle
from pathlib import Path
from random import SystemRandom
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import psutil
import pytest
from click.testing import CliRunner
from psycopg.conninfo import conninfo_to_dict
from support import GENEROUS, JSON, SECRET, bearer, token_for

from children import end_with_parent
from config import PROJECT, SETTINGS
from manage import commands

PATIENCE = 30.0  # seconds that a slow machine gets for what takes one
RunHere = Callable[..., tuple[int, list[str]]]  # as manage_here returns it
# Below those that Linux gives to clients; none is another test process's, or given out twice soon.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
PORTS = cycle(SystemRandom().sample(range(20_000 + WORKER, 32_000, 8), 1500))
NO_PART_OF_THE_PRODUCT = shutil.ignore_patterns(".*", "bench", "docs", "tests")


class Response(NamedTuple):
    """A response that came over HTTP, with the names that werkzeug gives one."""

    status_code: int
    headers: Message
    data: bytes

    @property
    def text(self) -> str:
        return self.data.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.data)

    @property
    def content_type(self) -> str | None:
        return self.headers["Content-Type"]


class Process:
    """A program of ours that runs, serves on `port`, and writes all it says to one file."""

    def __init__(self, popen: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.popen = popen
        self.port = port
        self.log = log

    @property
    def pid(self) -> int:
        return self.popen.pid

    def output(self) -> str:
        return self.log.read_text()

    def lines(self) -> list[str]:
        return [line for line in self.output().splitlines() if line.strip()]

    def family(self) -> list[psutil.Process]:
        """List the process and all that it started, directly or not."""
        try:
            found = psutil.Process(self.pid)
            return [found, *found.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def connect(self, timeout: float = 10) -> HTTPConnection:
        return HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def request(self, method: str, path: str, timeout: float = 10, **options: Any) -> Response:
        """Send one request on a connection of its own."""
        connection = self.connect(timeout)
        try:
            return request_on(connection, method, path, **options)
        finally:
            connection.close()

    def call(self, method: str, path: Any = "", user: str = "alice", **options: Any) -> Response:
        """Send one request as a user, below this user's tasks."""
        return self.request(method, tasks_of(user, path), token=token_for(user), **options)

    def create(self, user: str = "alice", title: str = "Buy milk") -> int:
        response = self.call("POST", user=user, json={"title": title})
        assert response.status_code == 201, response.text
        task_id: int = response.json["id"]
        return task_id

    def is_live(self) -> bool:
        with suppress(OSError, HTTPException):
            return self.request("GET", "/livez", timeout=2).status_code == 200
        return False

    def wait_until_live(self) -> None:
        wait_until(lambda: self.is_live() or self.popen.poll() is not None)
        assert self.popen.poll() is None, self.output()

    def wait_for_output(self, text: str) -> None:
        wait_until(lambda: text in self.output() or self.popen.poll() is not None)
        assert text in self.output()

    def wait(self, timeout: float = PATIENCE) -> int:
        return self.popen.wait(timeout)

    def stop(self) -> int:
        self.popen.terminate()
        return self.wait()


def tasks_of(user: str, path: Any = "") -> str:
    return f"/api/{quote(user, safe='')}/tasks/{path}".removesuffix("/")


def request_on(
    connection: HTTPConnection,
    method: str,
    path: str,
    *,
    json: Any = None,
    token: str | None = None,
    body: Any = None,
    headers: dict[str, str] | None = None,
) -> Response:
    """Send one request on an open connection; `json` stands for a body and its type."""
    sent = bearer(token) if token else {}
    if json is not None:
        body = to_json(json)
        sent |= JSON
    connection.request(method, path, body, sent | (headers or {}))
    response = connection.getresponse()
    return Response(response.status, response.headers, response.read())


def as_url(conninfo: str, scheme: str = "postgresql", **query: str) -> str:
    """Write a connection string as the address that DATABASE_URL holds."""
    parameters = {name: str(value) for name, value in conninfo_to_dict(conninfo).items()}
    return f"{scheme}:///?{urlencode(parameters | query, quote_via=quote)}"


def to_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def wait_until(condition: Callable[[], Any], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def wait_until_gone(family: list[psutil.Process], seconds: float) -> None:
    """Wait until none of these processes runs; one that nobody has reaped yet does not."""

    def runs(process: psutil.Process) -> bool:
        with suppress(psutil.NoSuchProcess):
            return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
        return False

    wait_until(lambda: not any(runs(process) for process in family), seconds)


def free_port() -> int:
    """Find a port on which nothing listens."""
    while True:
        with suppress(OSError), socket.create_server(("127.0.0.1", port := next(PORTS))):
            return port


def copy_of_project(parent: Path) -> Path:
    """Copy what runs, without the .env and the .data of whoever runs the tests."""
    return Path(shutil.copytree(PROJECT, parent / "project", ignore=NO_PART_OF_THE_PRODUCT))


def plain_environment() -> dict[str, str]:
    """Keep of the environment what programs need to run, and nothing that configures ours."""
    names = ("PATH", "HOME", "TMPDIR", "LANG")
    return {name: os.environ[name] for name in names if name in os.environ}


def coverage_of(folder: Path, concurrency: str) -> dict[str, str]:
    """Return the variables with which a copy of the project is measured, if the tests are."""
    if "COVERAGE_PROCESS_CONFIG" not in os.environ:
        return {}
    file = os.environ.get("COVERAGE_FILE", str(PROJECT / ".coverage"))
    return {
        "COVERAGE_PROCESS_START": str(folder / "pyproject.toml"),
        "COVERAGE_FILE": file,
        "COVERAGE_CONCURRENCY": concurrency,
    }


@contextmanager
def running(
    arguments: list[str],
    folder: Path,
    port: int = 0,
    measure: str = "thread",
    **environment: object,
) -> Iterator[Process]:
    """Run Python with `arguments` in `folder`; at the end, stop all of it.

    `measure` is its kind of concurrency, which coverage has to know; empty: not measured.
    """
    log = folder.parent / f"output-{time.monotonic_ns()}.txt"
    with log.open("wb") as file:
        popen = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=folder,
            env=plain_environment()
            | (coverage_of(folder, measure) if measure else {})
            | {name: str(value) for name, value in environment.items()},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            preexec_fn=end_with_parent(signal.SIGTERM),
        )
    process = Process(popen, port, log)
    try:
        yield process
    finally:
        family = process.family()
        popen.terminate()
        try:
            popen.wait(15)
        finally:
            for left in family:
                with suppress(psutil.NoSuchProcess):
                    left.kill()
            popen.wait()


# Coverage doubles the time a server takes to start, so only one of several alike is measured.
GREENLETS = "gevent"


@contextmanager
def gunicorn(
    folder: Path, database_url: str, measure: str = "", **environment: object
) -> Iterator[Process]:
    """Run gunicorn as in production, on a port of its own, until it answers."""
    port = int(str(environment.pop("API_PORT", 0))) or free_port()
    arguments = ["-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:application"]
    given = {
        "DATABASE_URL": database_url,
        "BETTER_AUTH_SECRET": SECRET,
        "API_PORT": port,
        "WEB_CONCURRENCY": 1,
        **{name.upper(): rate for name, rate in GENEROUS.items()},
    }
    with running(arguments, folder, port, measure, **given | environment) as process:
        process.wait_until_live()
        yield process


@contextmanager
def manage_run(folder: Path, measure: str = "", **environment: object) -> Iterator[Process]:
    """Run `manage.py run`, on a port of its own, until it has printed what it prints."""
    port = int(str(environment.pop("API_PORT", 0))) or free_port()
    given = {"API_PORT": port, "WEB_CONCURRENCY": 1}
    with running(["manage.py", "run"], folder, port, measure, **given | environment) as process:
        process.wait_for_output("/docs")
        yield process


def manage_here(
    patch: pytest.MonkeyPatch, folder: Path, *command: str, **environment: object
) -> tuple[int, list[str]]:
    """Run a command of manage.py as in an empty folder, in this process, which is faster."""
    for name in SETTINGS:
        patch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        patch.setenv(name, str(value))
    patch.setattr("config.PROJECT", folder)
    patch.setattr("manage.on_stop", lambda _: None)
    done = CliRunner().invoke(commands, command)
    return done.exit_code, done.output.splitlines()


def manage(folder: Path, *command: str, **environment: object) -> tuple[int, list[str]]:
    """Run a command of manage.py to its end; return its exit code and its lines."""
    with running(["manage.py", *command], folder, **environment) as process:
        return process.wait(), process.lines()
