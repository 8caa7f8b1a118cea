"""PostgreSQL: the named statements of queries/, a pool that survives its server, SQLSTATE as HTTP."""

import logging
import re
import select
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any

import psycopg
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.pq.abc import PGresult
from psycopg_pool import ConnectionPool, PoolTimeout

from config import PROJECT, ConfigError, Settings

log = logging.getLogger(__name__)

QUERIES_FOLDER = PROJECT / "queries"
MIGRATIONS_FOLDER = PROJECT / "migrations"

CONNECT_TIMEOUT = 5  # seconds; a database that sleeps when idle needs some to wake
POOL_TIMEOUT = 1.0  # seconds a request waits for a connection
LOCK_TIMEOUT = 3000  # milliseconds
IDLE_IN_TRANSACTION_TIMEOUT = 10_000  # milliseconds
# A dead link is noticed while sending (tcp_user_timeout) and while waiting (keepalives): both are needed.
CONNECTION_OPTIONS: dict[str, Any] = {
    "autocommit": True,
    "connect_timeout": CONNECT_TIMEOUT,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "application_name": "tasks",
}

READ_ONLY = "25006"

# The longest prefix of an SQLSTATE that stands here decides. What is missing is our fault: 500.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
STATUS_OF_SQLSTATE = {
    "08": 503,  # connection exceptions
    "22": 422,  # data exceptions
    "23503": 409,  # foreign key violation
    "23505": 409,  # unique violation
    "23514": 422,  # check violation
    READ_ONLY: 503,  # a standby, in a failover
    "25P03": 503,  # idle in transaction for too long
    "25P04": 503,  # transaction took too long
    "40": 503,  # serialization failure, deadlock
    "53": 503,  # out of connections, memory or disk
    "55P03": 503,  # lock not available in time
    "57": 503,  # shutdown, crash, statement timeout
}

QUERY_NAME = re.compile(r"^-- name: *(.*)$", re.MULTILINE)
PLACEHOLDER = re.compile(r"%\((\w+)\)s")

# What a parameter may be, and how PostgreSQL reads it: text, and the statement tells the type.
Value = str | int | bool | None


class DatabaseUnavailable(Exception):
    """The database is away or overloaded; the same request may succeed a little later."""


@dataclass(frozen=True, slots=True)
class Query:
    """A named statement, its placeholders numbered as PostgreSQL wants them."""

    name: str
    text: str
    parameters: tuple[str, ...]


def load_queries(folder: Path) -> dict[str, Query]:
    """Read the named statements of a folder's .sql files.

    Raises:
        ConfigError: a name is malformed or used twice, or a statement is empty.
    """
    queries: dict[str, Query] = {}
    for path in sorted(folder.glob("*.sql")):
        head, *parts = QUERY_NAME.split(path.read_text())
        if head.strip():
            raise ConfigError(f"{path.name} has text before its first name.")
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            statement = re.sub(r"^--.*\n", "", text, flags=re.MULTILINE).strip().rstrip(";")
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in queries or not statement:
                raise ConfigError(f"{path.name}: {name!r} is malformed, empty or used twice.")
            queries[name] = number_placeholders(name, statement)
    return queries


def number_placeholders(name: str, statement: str) -> Query:
    parameters = tuple(dict.fromkeys(PLACEHOLDER.findall(statement)))
    text = PLACEHOLDER.sub(lambda found: f"${parameters.index(found[1]) + 1}", statement)
    return Query(name, text, parameters)


QUERIES = load_queries(QUERIES_FOLDER)


def encode(value: Value) -> bytes | None:
    if value is None:
        return None
    data = str(value).encode()
    if b"\0" in data:  # libpq would cut the text off there, without a word
        raise psycopg.DataError("PostgreSQL text cannot hold NUL")
    return data


class Connection(psycopg.Connection[Any]):
    """psycopg's connection, with named statements run by libpq directly.

    psycopg's cursor costs more per statement than all of this project's own code: docs/decisions/.
    """

    prepares = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._prepared_names: set[str] = set()

    def run(self, name: str, values: Mapping[str, Value]) -> PGresult:
        """Run a named statement and return its result, each value as PostgreSQL wrote it.

        Raises:
            psycopg.Error: the statement failed; `status_of` tells what that means.
        """
        query = QUERIES[name]
        arguments = [encode(values[parameter]) for parameter in query.parameters]
        if not self.prepares:
            return self._checked(self.pgconn.exec_params(query.text.encode(), arguments))
        if name not in self._prepared_names:
            self._checked(self.pgconn.prepare(name.encode(), query.text.encode()))
            self._prepared_names.add(name)
        return self._checked(self.pgconn.exec_prepared(name.encode(), arguments))

    @staticmethod
    def _checked(result: PGresult) -> PGresult:
        if result.status in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            return result
        message = result.error_message.decode(errors="replace").strip()
        sqlstate = result.error_field(DiagnosticField.SQLSTATE)
        if sqlstate is None:
            raise psycopg.OperationalError(message)
        raise psycopg.errors.lookup(sqlstate.decode())(message)


class UnpreparedConnection(Connection):
    prepares = False


def status_of(error: psycopg.Error) -> int:
    """Find the HTTP status of a database error; one without SQLSTATE lost its connection."""
    if error.sqlstate is None:
        return 503 if isinstance(error, psycopg.OperationalError) else 500
    for length in (5, 2):
        if status := STATUS_OF_SQLSTATE.get(error.sqlstate[:length]):
            return status
    return 500


def known_migrations() -> list[str]:
    return sorted(path.name.split("_")[0] for path in MIGRATIONS_FOLDER.glob("*.sql"))


def pending_migrations(connection: Connection) -> list[str]:
    """List the versions that migrations/ has and the database has not.

    Raises:
        psycopg.Error: the database cannot tell.
    """
    known = known_migrations()
    try:
        result = connection.run("select_pending_migrations", {"versions": f"{{{','.join(known)}}}"})
    except psycopg.errors.UndefinedTable:
        return known
    pending = result.get_value(0, 0)
    return pending.decode().split(",") if pending else []


def require_migrated(settings: Settings) -> None:
    """Refuse to start on a database that is behind the code; one that is away may still come.

    Raises:
        ConfigError: migrations are pending.
    """
    try:
        with Connection.connect(settings.database_url, **CONNECTION_OPTIONS) as connection:
            pending = pending_migrations(connection)
    except psycopg.Error as error:
        log.warning("the database cannot be asked, requests get 503 until it can: %s", error)
        return
    if pending:
        raise ConfigError(f"The database lacks migrations ({', '.join(pending)}): make migrate")


def is_stale(connection: Connection) -> bool:
    """Tell whether an idle connection has something to read: its server's last words, or its end.

    Costs a microsecond, where asking the server costs a round trip.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


class Database:
    """A process's connections. Nothing connects before the first request, so it may be forked."""

    def __init__(self, settings: Settings) -> None:
        self._timeouts = {
            "statement_timeout": str(settings.database_statement_timeout),
            "lock_timeout": str(LOCK_TIMEOUT),
            "idle_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT),
        }
        self._url = settings.database_url
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            self._url,
            connection_class=Connection if settings.database_prepare else UnpreparedConnection,
            kwargs=CONNECTION_OPTIONS,
            configure=self._configure,
            open=False,
            min_size=1,
            max_size=settings.database_pool_size or settings.web_threads,
            timeout=POOL_TIMEOUT,
            max_idle=300,
            max_lifetime=1800,
            # Reconnecting is the probe's work: the pool's own attempts back off for seconds.
            reconnect_timeout=0,
        )
        self._down = False
        self._probing = Lock()
        self._next_probe = 0.0

    def fetch(self, name: str, **values: Value) -> tuple[bytes | None, ...] | None:
        """Run a named statement; return its first row, each value as PostgreSQL wrote it, or None.

        Raises:
            DatabaseUnavailable: no connection could be had.
            psycopg.Error: the statement failed; `status_of` tells what that means.
        """
        with self._connection() as connection:
            result = connection.run(name, values)
            if not result.ntuples:
                return None
            return tuple(result.get_value(0, column) for column in range(result.nfields))

    def pending_migrations(self) -> list[str]:
        """As the function of this name, on a connection of the pool.

        Raises:
            DatabaseUnavailable, psycopg.Error: as `fetch`.
        """
        with self._connection() as connection:
            return pending_migrations(connection)

    def close(self) -> None:
        self._pool.close()

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        connection = self._take()
        try:
            yield connection
        except psycopg.Error as error:
            if error.sqlstate == READ_ONLY:  # the primary has become a standby: leave it at once
                connection.close()
                self._pool.drain()
            if connection.closed:
                self._down = True
            raise
        finally:
            self._pool.putconn(connection)

    def _take(self) -> Connection:
        if self._pool.closed:
            self._pool.open()
        if self._down:
            self._probe()
        try:
            connection = self._pool.getconn()
            if not is_stale(connection):
                return connection
            connection.close()
            self._pool.putconn(connection)
            self._pool.drain()
            self._probe()
            return self._pool.getconn()
        except PoolTimeout:
            self._down = True
            raise DatabaseUnavailable("no connection was free in time") from None

    def _probe(self) -> None:
        """Ask a server that seems down for a connection: one thread does, the others fail at once."""
        self._down = True
        if not self._probing.acquire(blocking=False):
            raise DatabaseUnavailable("it is down, and another request asks for it")
        started = monotonic()
        try:
            if started < self._next_probe:
                raise DatabaseUnavailable("it is down, and was asked for just now")
            Connection.connect(self._url, **CONNECTION_OPTIONS).close()
            self._down = False
        except psycopg.OperationalError as error:
            # A refusal is quick, and asked for again soon; silence costs a timeout.
            self._next_probe = monotonic() + 2 * (monotonic() - started)
            raise DatabaseUnavailable(str(error)) from None
        finally:
            self._probing.release()

    def _configure(self, connection: Connection) -> None:
        connection.run("set_timeouts", self._timeouts)
