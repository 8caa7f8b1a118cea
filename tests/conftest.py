"""What tests are given: a PostgreSQL server a session, a database and a client a test."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from processes import database_on, wait_until
from pytest_postgresql import factories
from support import API_ROLE, User, settings_for

import embedded
import migrate
import roles
from app import create_app
from database import Database, DatabaseUnavailable


def load_migrations(
    host: str, port: int, user: str, dbname: str, password: str | None, **_: object
) -> None:
    url = psycopg.conninfo.make_conninfo(
        host=host, port=port, user=user, dbname=dbname, password=password
    )
    migrate.migrate(url)
    roles.grant(url, psycopg.conninfo.make_conninfo(url, **API_ROLE))


SERVER_SETTINGS = ["fsync=off", "full_page_writes=off", "max_wal_size=64MB"]
MEMORY = Path("/dev/shm")
ENOUGH_MEMORY = 2**30  # bytes; a run takes half of it


def pytest_configure() -> None:
    """Keep the tests' files in memory: a new database is 300 of them, ten times faster there."""
    free = shutil.disk_usage(MEMORY).free if MEMORY.is_dir() else 0
    if free > ENOUGH_MEMORY and "TMPDIR" not in os.environ:
        os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)


def pytest_xdist_setupnodes(config: pytest.Config) -> None:
    """Start one server for all processes of the tests: each would take a second to make its own."""
    if "TEST_DATABASE_URL" not in os.environ:
        stack = ExitStack()
        config.add_cleanup(stack.close)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "postgres"
        server = embedded.running(folder, SERVER_SETTINGS)
        os.environ["TEST_DATABASE_URL"] = stack.enter_context(server)


LONGEST = {"test_run", "test_schemathesis", "test_transfer"}


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Have the modules that take longest begin first, then the others that start processes."""

    def turn(item: pytest.Function) -> tuple[bool, bool]:
        return item.module.__name__ not in LONGEST, not hasattr(item.module, "processes")

    items.sort(key=turn)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A PostgreSQL server: TEST_DATABASE_URL's, or an embedded one of this session."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield address_of(url)
        return
    folder = tmp_path_factory.mktemp("server") / "postgres"
    with embedded.running(folder, SERVER_SETTINGS) as url:
        yield address_of(url)


def address_of(url: str) -> SimpleNamespace:
    """Give pytest-postgresql an address in the form of its own servers."""
    with psycopg.connect(url) as connection:
        info = connection.info
        return SimpleNamespace(
            host=info.host,
            port=info.port,
            user=info.user,
            password=info.password or None,
            options="",
            maintenance_dbname=info.dbname,
            template_dbname=None,
        )


template = factories.postgresql_noproc(depends_on="server", load=[load_migrations])
postgresql = factories.postgresql("template")


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
def url(server: SimpleNamespace, request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a database of this module's own, for servers that run as in production."""
    with database_on(server, f"{request.module.__name__} {os.getpid()}") as url:
        migrate.migrate(url)
        yield url


@pytest.fixture(scope="session")
def application() -> Flask:
    return create_app(settings_for("postgresql://"))


@pytest.fixture
def app(application: Flask, database_url: str) -> Iterator[Flask]:
    """The application on a database of this test's own."""
    # In tests one user calls from many threads, and has half of the connections.
    settings = settings_for(database_url, database_pool_size=16)
    application.extensions["database"] = database = Database(settings)
    application.extensions["auditor"].url = database_url
    wait_until(lambda: is_reached(database))
    yield application
    database.close()


def is_reached(database: Database) -> bool:
    """Open a first connection: on a busy machine that may take longer than a request waits."""
    with suppress(DatabaseUnavailable), database.connection():
        return True
    return False


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
