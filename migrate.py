"""Numbered SQL migrations, applied by dbmate, one runner at a time."""

import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, urlencode

import psycopg

from children import end_with_parent
from config import PROJECT, CommandError, ConfigError, Settings
from connection import CONNECTION_OPTIONS, Connection, UnpreparedConnection, Value

log = logging.getLogger(__name__)

MIGRATIONS_FOLDER = PROJECT / "migrations"
DBMATE = Path(sys.executable).with_name("dbmate")
LOCK_KEY = 0x7461736B73  # "tasks"
RUNNER_TIMEOUT = 300.0  # seconds to wait for another runner
POLL_INTERVAL = 0.2  # seconds
PATIENT_OPTIONS = CONNECTION_OPTIONS | {"connect_timeout": 30}  # seconds; cron tries only once

# Errors of libpq and the server that waiting does not mend: the address is wrong.
WRONG_ADDRESS = re.compile(
    r'invalid \S+ value:? .*|invalid port number: .*|(?:database|role) ".*" does not exist'
    r"|password authentication failed.*|no pg_hba\.conf entry .*"
    r"|fe_sendauth: no password supplied|root certificate file \".*\" does not exist"
    r"|no such database: .*|SASL authentication failed"  # PgBouncer's
    r"|unrecognized configuration parameter .*|server does not support SSL, but SSL was required"
    r"|certificate verify failed|server certificate for .* does not match host name \".*\""
    r"|connection requires a valid client certificate|private key file \".*\" has .* access"
)
REFUSED_OPTIONS = re.compile("unsupported startup parameter|support command-line options")


def known_migrations() -> list[str]:
    return sorted(path.name.split("_")[0] for path in MIGRATIONS_FOLDER.glob("*.sql"))


def pending_migrations(connection: Connection) -> list[str]:
    """List the versions that migrations/ has and the database has not.

    Raises:
        psycopg.Error: the database cannot tell.
        ConfigError: its table of versions is not ours.
    """
    known = known_migrations()
    try:
        [(pending,)] = connection.fetch("select_pending_migrations", versions=known)
    except psycopg.errors.UndefinedTable:
        return known
    except psycopg.errors.UndefinedFunction:  # no operator compares our text with a number
        message = "The table schema_migrations is another program's: use a database without it."
        raise ConfigError(message) from None
    return pending.decode().split(",") if pending else []


def require_none_pending(connection: Connection) -> None:
    """Refuse a database that is behind the code; a ConfigError, too, if the role may not ask."""
    try:
        pending = pending_migrations(connection)
    except psycopg.errors.InsufficientPrivilege as error:
        message = f"The role {connection.info.user} lacks rights ({error}): run `make migrate`."
        raise ConfigError(message) from None
    if not pending:
        return
    [(places,)] = connection.fetch("select_other_places_of_tables")
    if places:
        raise ConfigError(
            f"The tables are in the schema {places.decode()}, which the search_path of the role"
            f" {connection.info.user} does not name: set it, best for the whole database."
        )
    raise ConfigError(
        f"The database lacks migrations ({', '.join(pending)}):"
        " run `make migrate`, or `python manage.py migrate` where there is no make."
    )


def require_utf8(connection: Connection) -> None:
    """Refuse a database that cannot hold every character, by a ConfigError."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        message = f"The database holds text as {encoding}: make one with ENCODING 'UTF8'."
        raise ConfigError(message)


def require_migrated(settings: Settings) -> None:
    """Refuse to start on a database that is behind the code; one that is away may still come back.

    Warn of a standby, and of a role that row-level security does not bind.

    Raises:
        ConfigError: migrations are pending, the role has no rights or no triggers, the address is
            wrong, or the database cannot hold every character.
    """
    try:
        url = settings.database_url
        with UnpreparedConnection.connect(url, **CONNECTION_OPTIONS) as connection:
            require_utf8(connection)
            require_none_pending(connection)
            if not is_true(connection, "select_whether_triggers_run"):
                message = "Triggers do not run: set session_replication_role to origin, or,"
                raise ConfigError(f"{message} as the owner, ALTER TABLE tasks ENABLE TRIGGER USER.")
            if connection.info.parameter_status("in_hot_standby") == "on":
                log.warning("the server of DATABASE_URL is a standby, which takes no writes")
            if not is_true(connection, "select_whether_policies_apply"):
                log.warning(
                    "row-level security does not apply to the role %s: give DATABASE_URL one of"
                    " its own, and MIGRATION_DATABASE_URL the tables' owner",
                    connection.info.user,
                )
    except psycopg.Error as error:
        if wrong := wrong_address(str(error)):
            is_role = wrong.startswith(("role", "password"))
            hint = " `make migrate` creates a missing role, changes no password." if is_role else ""
            raise ConfigError(f"DATABASE_URL is wrong: {wrong}.{hint}") from None
        log.warning("the database cannot be asked, requests get 503 until it can: %s", error)


def wrong_address(error: str) -> str | None:
    """Find what is wrong with the address; None where one of its hosts may still come up."""
    attempts = error.split("\n- host: ")[1:] or [error]
    found = [WRONG_ADDRESS.search(attempt) for attempt in attempts]
    return found[0][0] if found[0] and all(found) else None


def migrate(url: str) -> None:
    """Apply all pending migrations.

    Raises:
        CommandError: a migration failed, or the database cannot be reached or used.
    """
    with only_runner(url) as connection:
        require_utf8(connection)
        if not is_true(connection, "select_whether_case_is_folded"):
            log.warning(
                "search and the order by title do not ignore the case of all letters: see the"
                " database's locale (LC_CTYPE)"
            )
        pending = pending_migrations(connection)
        [(others,)] = connection.fetch("select_tables_in_the_way")
        if others and pending == known_migrations():
            message = f"There are tables that no migration has made ({others.decode()})"
            raise CommandError(f"{message}: see docs/taking_over.md.")
        if pending:
            file = next(MIGRATIONS_FOLDER.glob(f"{pending[0]}_*.sql"))
            for (drop,) in connection.fetch("select_drop_of_index", migration=file.read_bytes()):
                connection.execute(drop)  # a run that was cut off has left the index
            run_dbmate(connection, "migrate")


def rollback(url: str) -> None:
    """Undo the newest migration, unless this code does not know it; raises as `migrate`."""
    with only_runner(url) as connection:
        newest = known_migrations()[-1]
        with suppress(psycopg.errors.UndefinedTable):  # dbmate says that there is nothing to undo
            [(newer,)] = connection.fetch("select_newer_migrations", newest=newest)
            if newer:
                message = f"The database has newer migrations ({newer.decode()}): "
                raise CommandError(f"{message}roll back with the code that brought them.")
        run_dbmate(connection, "rollback")


def dump_schema(url: str, bin_folder: Path, file: Path) -> None:
    """Write the schema to a file, with the pg_dump of `bin_folder`; raises as `migrate`."""
    with only_runner(url) as connection:
        path = f"{bin_folder}{os.pathsep}{os.environ.get('PATH', '')}"
        # In UTC, as the moments in constraints are written in the zone of the session.
        run_dbmate(connection, "dump", DBMATE_SCHEMA_FILE=str(file), PATH=path, PGTZ="UTC")


def connect(url: str) -> Connection:
    """Connect as the tables' owner; a CommandError if that fails."""
    try:
        return UnpreparedConnection.connect(url, **PATIENT_OPTIONS)
    except psycopg.Error as error:
        place = "The database of MIGRATION_DATABASE_URL, or else of DATABASE_URL,"
        raise CommandError(f"{place} cannot be reached: {error}") from None


@contextmanager
def only_runner(url: str) -> Iterator[Connection]:
    """Hold the lock of all runners; dbmate's own would deadlock with CREATE INDEX CONCURRENTLY."""
    with connect(url) as connection:
        try:
            if is_pooled(connection, url):
                message = "Migrations need PostgreSQL itself, not a pooler: "
                raise CommandError(f"{message}set MIGRATION_DATABASE_URL.")
            take_lock(connection)
            yield connection
        except psycopg.errors.InsufficientPrivilege as error:
            message = f"Only the tables' owner may migrate ({error}): set MIGRATION_DATABASE_URL."
            raise CommandError(message) from None
        except psycopg.Error as error:
            raise CommandError(f"The database refused it: {error}") from None


def is_pooled(connection: Connection, url: str) -> bool:
    """Tell whether the session is a pooler's, which would keep the lock.

    A pooler tells a pid of its own. So does Neon's proxy, but it passes a client's options on.
    """
    if is_true(connection, "select_whether_own_session", backend_pid=connection.pgconn.backend_pid):
        return False
    given = parameters_of(connection)
    options = CONNECTION_OPTIONS | {"options": f"{given.get('options', '')} -c tasks.is_direct=on"}
    try:
        with UnpreparedConnection.connect(url, **options) as other:
            return not is_true(other, "select_whether_options_arrive")
    except psycopg.OperationalError as error:
        if REFUSED_OPTIONS.search(str(error)):  # by PgBouncer, by RDS Proxy
            return True
        raise


def take_lock(connection: Connection) -> None:
    """Take the lock of all runners, for the session; a CommandError if another keeps it."""
    deadline, attempts = time.monotonic() + RUNNER_TIMEOUT, 0
    while not is_true(connection, "try_migration_lock", key=LOCK_KEY):
        attempts += 1
        if attempts == 2:  # at first, our own session before may just be ending
            log.warning("another runner holds the lock of migrations, waiting for it")
        if time.monotonic() > deadline:
            raise CommandError("Another runner has held the lock for minutes.")
        time.sleep(POLL_INTERVAL)


def is_true(connection: Connection, statement: str, **values: Value) -> bool:
    return connection.fetch(statement, **values) == [(b"t",)]


def run_dbmate(connection: Connection, command: str, **variables: str) -> None:
    [(schema, may_create)] = connection.fetch("select_place_of_tables")
    if not schema:
        raise CommandError("There is none of the schemas that search_path names: create one.")
    if may_create != b"t":
        raise CommandError(
            f"The role {connection.info.user} may not create tables in the schema"
            f" {schema.decode()}: grant it CREATE there, or set MIGRATION_DATABASE_URL."
        )
    [(options,)] = connection.fetch("select_options_of_migrations")
    # All that counts is in the address: libpq's variables (PG*) would lead dbmate elsewhere.
    given = {n: v for n, v in os.environ.items() if not n.startswith(("PG", "DBMATE_"))}
    environment = given | {
        "DATABASE_URL": dbmate_url(connection, options.decode()),
        "DBMATE_MIGRATIONS_DIR": str(MIGRATIONS_FOLDER),
        "DBMATE_NO_DUMP_SCHEMA": "true",
        "DBMATE_STRICT": "true",
    }
    done = subprocess.run(
        [DBMATE, "--env-file", os.devnull, command],  # .env is not written for it
        env=environment | variables,
        check=False,
        preexec_fn=end_with_parent(signal.SIGTERM),  # it runs under the lock of this process
    )
    if done.returncode:
        raise CommandError(f"dbmate {command} failed.")


def parameters_of(connection: Connection) -> dict[str, str]:
    """Return what a connection was made with; psycopg's own way needs a home directory."""
    options = connection.pgconn.info
    return {each.keyword.decode(): each.val.decode() for each in options if each.val}


def dbmate_url(connection: Connection, options: str = "") -> str:
    """Write the address of an open connection, with more options, as dbmate's driver reads it.

    That driver knows less than libpq: no service files, no channel_binding, TLS unless told not to.
    """
    info = connection.info
    given = parameters_of(connection)
    query = {"sslmode": "require" if connection.pgconn.ssl_in_use else "disable"}
    if given.get("sslmode", "").startswith("verify-"):
        query["sslmode"] = given["sslmode"]
    if options := f"{given.get('options', '')} {options}".strip():
        query["options"] = options
    for name in ("sslrootcert", "sslcert", "sslkey"):
        if given.get(name, "system") != "system":
            query[name] = given[name]
    login = quote(info.user, safe="")
    if info.password:
        login += f":{quote(info.password, safe='')}"
    if info.host.startswith("/"):
        query |= {"host": info.host, "port": str(info.port)}
        place = ""
    else:
        if info.hostaddr:  # the same server, where a name has several addresses
            query["hostaddr"] = info.hostaddr
        place = f"[{info.host}]" if ":" in info.host else info.host
        place += f":{info.port}"
    return f"postgres://{login}@{place}/{quote(info.dbname, safe='')}?{urlencode(query)}"
