"""Databases that tests make and lock, and PostgreSQL servers that they stop, kill and freeze."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import psutil
import psycopg
from embedding import pid_of_server
from processes import as_url, wait_until
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from pytest_postgresql.executors import NoopExecutor
from support import API_ROLE

import migrate
import roles
from config import PROJECT
from development import embedded

# Those that are killed leave no shared memory outside their folder.
SETTINGS = ("fsync=off", "max_connections=24", "dynamic_shared_memory_type=mmap")

# Without it, libpq's variables mean another server than our own; with it, they may be for it.
if "TEST_DATABASE_URL" not in os.environ:
    embedded.forget_libpq()


@contextmanager
def database_on(server: SimpleNamespace | NoopExecutor, name: str) -> Iterator[str]:
    """Make a database, a copy of the server's template if it has one, and drop it at the end."""
    login = {"host": server.host, "port": server.port, "user": server.user}
    login |= {"password": server.password} if server.password else {}
    maintenance = make_conninfo(**login, dbname=server.maintenance_dbname)
    database = sql.Identifier(name)
    template = sql.Identifier(server.template_dbname or "template1")
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(database, template)
    with psycopg.connect(maintenance, autocommit=True) as connection:
        connection.execute(create)
        yield as_url(make_conninfo(**login, dbname=name))
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(database))


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


class Postgres:
    """A database whose rows tests lock and whose connections they end."""

    def __init__(self, url: str) -> None:
        self.url = url

    def connect(self) -> psycopg.Connection[Any]:
        writable = "-c default_transaction_read_only=off"
        return psycopg.connect(self.url, autocommit=True, options=writable)

    def execute(self, *statements: str) -> None:
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            return connection.execute(statement.encode(), values).fetchall()

    def end_connections(
        self, which: str = "pid <> pg_backend_pid()", by: psycopg.Connection | None = None
    ) -> None:
        """End clients' connections, by one that is there where no other can be made."""
        end = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        clients = "backend_type = 'client backend' AND datname = current_database()"
        with nullcontext(by) if by else self.connect() as connection:
            connection.execute(f"{end} WHERE {clients} AND {which}".encode())

    def waiting(self) -> int:
        """Count the statements that wait for a lock."""
        waiting = "SELECT FROM pg_stat_activity"
        waiting += " WHERE wait_event_type = 'Lock' AND datname = current_database()"
        return len(self.rows(waiting))

    @contextmanager
    def locked(self, task_id: int) -> Iterator[None]:
        """Lock a task's row, so that whoever wants to change it has to wait."""
        with psycopg.connect(self.url) as connection:
            connection.execute("SELECT FROM tasks WHERE id = %s FOR UPDATE", [task_id])
            yield
            connection.rollback()

    @contextmanager
    def all_connections_taken(self) -> Iterator[None]:
        with ExitStack() as taken:
            with suppress(psycopg.OperationalError):
                while True:
                    taken.enter_context(self.connect())
            yield


class OwnPostgres(Postgres):
    """A server that tests stop, kill and freeze; its address stays the same."""

    def __init__(self, folder: Path, settings: Sequence[str] = SETTINGS) -> None:
        self.folder = folder
        self.settings = settings
        self.running = ExitStack()

    def start(self) -> None:
        self.url = self.running.enter_context(embedded.running(self.folder, self.settings))

    def stop(self) -> None:
        self.running.close()

    def alter(self, setting: str) -> None:
        """SET or RESET a setting of the server as it runs, and wait until it holds."""
        before = self.loaded_at()
        self.execute(f"ALTER SYSTEM {setting}", "SELECT pg_reload_conf()")
        wait_until(lambda: self.loaded_at() != before)
        self.execute("CHECKPOINT")  # its process is the one that has commits wait for a standby

    def loaded_at(self) -> object:
        """Tell when the server read its settings: a new connection has them all."""
        return self.rows("SELECT pg_conf_load_time()")

    @contextmanager
    def away(self) -> Iterator[None]:
        self.stop()
        try:
            yield
        finally:
            self.start()

    def postmaster(self) -> psutil.Process:
        return psutil.Process(pid_of_server(self.folder))

    def kill(self) -> None:
        self.postmaster().send_signal(signal.SIGKILL)
        self.stop()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop every process of the server: it accepts what is sent, and answers nothing."""
        postmaster = self.postmaster()
        postmaster.suspend()
        family = [postmaster, *postmaster.children()]
        for process in family[1:]:
            with suppress(psutil.NoSuchProcess):  # as a backend whose client has just left
                process.suspend()
        try:
            yield
        finally:
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.resume()


def load_migrations(
    host: str, port: int, user: str, dbname: str, password: str | None, **_: object
) -> None:
    url = make_conninfo(host=host, port=port, user=user, dbname=dbname, password=password)
    migrate.migrate(url)
    roles.grant(url, make_conninfo(url, **API_ROLE))


@contextmanager
def migrated_on(folder: Path, settings: Sequence[str] = SETTINGS) -> Iterator[OwnPostgres]:
    """Run a server with the tables of the API."""
    server = OwnPostgres(folder, settings)
    server.start()
    try:
        migrate.migrate(server.url)
        yield server
    finally:
        server.stop()


def standby_of(primary: OwnPostgres, folder: Path) -> OwnPostgres:
    """Start a server that replays what a primary writes, as it is written."""
    place = conninfo_to_dict(primary.url)
    copy = [embedded.binaries() / "pg_basebackup", "-D", folder, "-R", "-c", "fast"]
    copy += ["-h", place["host"], "-p", place["port"], "-U", place["user"]]
    subprocess.run(copy, check=True)
    (folder / f".s.PGSQL.{place['port']}.lock").unlink(missing_ok=True)  # the primary's own
    standby = OwnPostgres(folder, primary.settings)
    standby.start()
    return standby


def either_of(*servers: OwnPostgres, **options: str) -> str:
    """Write the address of whichever of these servers takes writes."""
    places = [conninfo_to_dict(server.url) for server in servers]
    several = {name: ",".join(str(place[name]) for place in places) for name in ("host", "port")}
    same = {name: str(places[0][name]) for name in ("user", "dbname")}
    return f"postgresql:///?{urlencode(several | same | options)}"


def raise_what_is_given_out(url: str) -> None:
    """Do what docs/database.md says of ids and versions after a restore."""
    text = (PROJECT / "docs/database.md").read_text()
    found = re.search(r"```sql\n(SELECT setval.+?)```", text, re.DOTALL)
    assert found
    with psycopg.connect(url) as connection:
        connection.execute(found[1].encode())
