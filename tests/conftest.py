"""The fixtures: one PostgreSQL server for a session, a database and a client for each test."""

import gc
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from types import ModuleType, SimpleNamespace

import psycopg
import pytest
from certificates import write_certificate
from flask import Flask
from flask.testing import FlaskClient
from issuer import Issuer, gate_of, make_key, with_me
from migrating import NewDatabase
from own_postgres import (
    OwnPostgres,
    Postgres,
    address_of,
    database_on,
    load_migrations,
    migrated_on,
)
from places import EMPTY, Place, place_on
from pools import THREADS, NewPool
from processes import RunHere, manage_here
from pytest_postgresql import factories
from pytest_postgresql.executors import NoopExecutor
from support import API_ROLE, SET, Lines, NewApp, User, app_for, app_on, listening, settings_for

from database import Database
from development import embedded
from run_gunicorn import on_stop

SERVER_SETTINGS = ["fsync=off", "full_page_writes=off", "max_wal_size=64MB"]
MEMORY = Path("/dev/shm")
ENOUGH_MEMORY = 2**30  # bytes; a run takes half of it
# Characters of TMPDIR. In a longer one, a server's socket may have no room in the server's folder,
# and gets another address at each start: the tests would not find the server again.
LONGEST_FOLDER = 16
END_OF_WINDOW = 3  # seconds; few tests take as long


def pytest_configure(config: pytest.Config) -> None:
    """Keep the tests' files in memory: there, a new database's 300 are made ten times faster."""
    free = shutil.disk_usage(MEMORY).free if os.access(MEMORY, os.W_OK) else 0
    if not 0 < len(os.environ.get("TMPDIR", "")) <= LONGEST_FOLDER:
        short = str(MEMORY) if free > ENOUGH_MEMORY else "/tmp"
        os.environ["TMPDIR"] = tempfile.tempdir = short
    os.environ["no_proxy"] = "*"  # all that the tests ask is on this machine
    # coverage would begin a measurement in every child process, and pytest-cov two more in those of
    # xdist. Of the three, only one is reported and heeds `no_cover`.
    cov = config.pluginmanager.get_plugin("_cov")
    if cov and hasattr(config, "workerinput"):
        cov.cov_controller.cov.stop()


def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    """Start one server for all processes of the tests: each would take a second to make its own."""
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)  # see pytest_configure
    if "TEST_DATABASE_URL" not in os.environ:
        stack = ExitStack()
        config.add_cleanup(stack.close)
        on_stop(signal.default_int_handler)  # or a closed terminal leaves 100 MB in memory
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "postgres"
        server = embedded.running(folder, SERVER_SETTINGS)
        os.environ["TEST_DATABASE_URL"] = stack.enter_context(server)


# The first three tell a mistake by its name, before many others fail along.
ORDER = ["test_queries", "test_documents", "test_migrations"]
ORDER += ["test_schemathesis_at_length", "test_worker", "test_outage", "test_run"]
ORDER += ["test_jwks_fetches", "test_schemathesis", "test_transfer_limits"]
ORDER += ["test_list_combinations", "test_served", "test_jwks_waits"]


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """After those, begin with what takes longest, so that no process ends long after others."""
    items.sort(key=lambda item: (*ORDER, item.module.__name__).index(item.module.__name__))
    gc.freeze()  # what was imported is not looked through again and again


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A PostgreSQL server: TEST_DATABASE_URL's, or an embedded one of this session."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield address_of(url)
        return
    folder = tmp_path_factory.mktemp("server") / "postgres"
    with embedded.running(folder, SERVER_SETTINGS) as url:
        yield address_of(url)


template = factories.postgresql_noproc(depends_on="server", load=[load_migrations])
postgresql = factories.postgresql("template")


@pytest.fixture(autouse=True)
def _no_end_of_the_hour() -> None:
    """Begin no test in the last seconds of a rate limit's window: its counts would start again."""
    if (left := 3600 - time.time() % 3600) < END_OF_WINDOW:
        time.sleep(left)


@pytest.fixture
def database_url(postgresql: psycopg.Connection) -> str:
    """The address of this test's database for the API, in its own role."""
    return psycopg.conninfo.make_conninfo(**postgresql.info.get_parameters() | API_ROLE)


@pytest.fixture
def owner_url(postgresql: psycopg.Connection) -> str:
    """The address of this test's database for what operators run, in the role of its owner."""
    info = postgresql.info
    return psycopg.conninfo.make_conninfo(**info.get_parameters(), password=info.password)


@pytest.fixture(scope="module")
def url(template: NoopExecutor, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a database of this module's own, for servers that run as in production."""
    with database_on(template, f"{request.module.__name__} {os.getpid()}") as url:
        yield url


@pytest.fixture
def new_database(server: SimpleNamespace) -> Iterator[NewDatabase]:
    """Yield a function that makes an empty database and returns its address."""
    numbers = count()
    with ExitStack() as made:

        def make(name: str = "migrated") -> str:
            name = f"{name} {os.getpid()} {next(numbers)}"
            return made.enter_context(database_on(server, name))

        yield make


@pytest.fixture
def empty_url(new_database: NewDatabase) -> str:
    """The address of an empty database, to be migrated."""
    return new_database()


@pytest.fixture(scope="module")
def own_database(url: str) -> Postgres:
    """This module's own database, for tests to lock its rows and to end its connections."""
    return Postgres(url)


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnPostgres]:
    """A server of this module's own, for what cannot be done to one that others use."""
    with migrated_on(tmp_path_factory.mktemp("own") / "postgres") as server:
        yield server


@pytest.fixture(scope="session")
def application() -> Flask:
    """The application, which has no database and enters nothing in an audit."""
    return app_for()


@pytest.fixture
def new_place(database_url: str) -> Iterator[Place]:
    with place_on(database_url) as place:
        yield place


@pytest.fixture(scope="session")
def kept_place(template: NoopExecutor) -> Iterator[tuple[Place, psycopg.Connection]]:
    """The database that a process keeps, with its owner's connection to empty it."""
    with (
        database_on(template, f"kept {os.getpid()}") as url,
        psycopg.connect(url, autocommit=True) as owner,
        place_on(psycopg.conninfo.make_conninfo(url, **API_ROLE)) as place,
    ):
        yield place, owner


@pytest.fixture
def emptied_place(kept_place: tuple[Place, psycopg.Connection]) -> Place:
    place, owner = kept_place
    owner.execute(EMPTY)
    return place


@pytest.fixture
def app(application: Flask, request: pytest.FixtureRequest) -> Iterator[Flask]:
    """The application, on a database without rows of other tests.

    A test that also takes `postgresql` may change more than rows, and gets a new database. All
    others share one, which is emptied for each: that takes a tenth of the time.
    """
    reaches_around = "postgresql" in request.fixturenames
    place: Place = request.getfixturevalue("new_place" if reaches_around else "emptied_place")
    reports = application.extensions["reports"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(application.extensions, "database", place.database)
        patch.setitem(application.extensions, "auditor", place.auditor)
        reports.append(place.auditor.report)
        yield application
        reports.remove(place.auditor.report)
    place.auditor.close(10)


@pytest.fixture
def new_app(database_url: str) -> Iterator[NewApp]:
    """Yield a function that builds an application of its own on this test's database."""
    with ExitStack() as made:
        yield lambda **given: made.enter_context(app_on(**{"database_url": database_url} | given))


@pytest.fixture
def client(application: Flask) -> FlaskClient:
    """For requests that never reach a database."""
    return application.test_client()


@pytest.fixture
def alice(app: Flask) -> User:
    return User(app.test_client(), "alice")


@pytest.fixture
def bob(app: Flask) -> User:
    return User(app.test_client(), "bob")


@pytest.fixture
def trashed(alice: User) -> dict:
    """A task with all its fields set, as it was before it was deleted."""
    task = alice.call("PUT", alice.create(**SET)["id"], json={"title": "t", "completed": True}).json
    assert alice.call("DELETE", task["id"]).status_code == 204
    return task


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What was logged so far, each line as JSON."""
    with listening("json") as stream:
        yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the events that were emitted so far."""
    heard: list[str] = []
    monkeypatch.setattr("events.LISTENERS", [lambda event, *_: heard.append(event)])
    return heard


@pytest.fixture
def run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunHere:
    """Run a command of manage.py in this process."""
    return lambda *command, **given: manage_here(monkeypatch, tmp_path, *command, **given)


@pytest.fixture
def new_pool(url: str) -> Iterator[NewPool]:
    """Yield a function that makes a pool on the module's own database."""
    with ExitStack() as made:
        yield lambda **given: made.enter_context(closing(Database(settings_for(url, **given))))


@pytest.fixture
def db(new_pool: NewPool) -> Database:
    """A pool on the module's own database, for tests that use it directly."""
    return new_pool(database_pool_size=THREADS)


@pytest.fixture
def exploring(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """schemathesis, imported late: every process of the tests reads this, and few need it."""
    import exploring

    monkeypatch.setattr("schemathesis.python.wsgi.get_client", exploring.Client)
    return exploring


@pytest.fixture(scope="module")
def whole_app() -> Flask:
    """The whole application without a database, and a route that tells who calls."""
    return with_me(app_for())


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_certificate(tmp_path_factory.mktemp("tls") / "localhost.pem")


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """An issuer of tokens with one key, for a test to break."""
    issuer = Issuer(make_key())
    yield issuer
    issuer.go_away()


@pytest.fixture
def gate(issuer: Issuer) -> Flask:
    """Only the hooks that run before a view, for the tokens of that issuer."""
    return gate_of(issuer)
