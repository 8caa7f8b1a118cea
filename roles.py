"""The API's own database role: it reads and writes users' rows, and can change no table."""

import logging
from contextlib import suppress

import psycopg
from psycopg.conninfo import conninfo_to_dict

from config import CommandError, Settings
from connection import Connection, Value
from database import IDLE_IN_TRANSACTION_TIMEOUT, LOCK_TIMEOUT
from migrate import only_runner

log = logging.getLogger(__name__)


def grant(owner_url: str, api_url: str, statement_timeout: int | None = None) -> None:
    """As the tables' owner, let the role of `api_url` serve the API; create it if need be.

    Nothing is done where that is the owner, or the address names no role. Warn of others that may
    write where row-level security does not stop them.

    `statement_timeout` is in milliseconds, and is set only on a role that is created.

    Raises:
        CommandError: the database cannot be reached, or this owner may not do so.
    """
    given = conninfo_to_dict(api_url)
    name, password = given.get("user"), given.get("password")
    with only_runner(owner_url) as connection:  # concurrent GRANTs on one table fail
        connection.add_notice_handler(log_warning)
        if name not in (None, connection.info.user):
            verifier = password and connection.pgconn.encrypt_password(
                str(password).encode(), str(name).encode(), b"scram-sha-256"
            )
            values: dict[str, Value] = {
                "role": str(name),
                "verifier": verifier.decode() if verifier else None,
                "timeout": statement_timeout or Settings().database_statement_timeout,
                "lock_timeout": LOCK_TIMEOUT,
                "idle_timeout": IDLE_IN_TRANSACTION_TIMEOUT,
            }
            give_rights(connection, values)
        [(writers,)] = connection.fetch("select_other_writers", role=str(name))
        if writers:
            log.warning(
                "other roles may write to audit_log or schema_migrations: %s", writers.decode()
            )


def give_rights(connection: Connection, values: dict[str, Value]) -> None:
    try:
        with suppress(psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation):
            run_grants(connection, values)
            return
        run_grants(connection, values)  # a runner on another database has just made the role
    except psycopg.Error as error:
        reason = error.diag.message_primary or error  # not LINE: it quotes the verifier
        message = f"The role {values['role']!s} cannot be given its rights: {reason}"
        if isinstance(error, psycopg.errors.InsufficientPrivilege):
            message += ' ("Roles" in README.md has what the owner needs)'
        raise CommandError(message) from None


def log_warning(notice: psycopg.errors.Diagnostic) -> None:
    """Log a warning of the server, without its statement, which may hold a verifier."""
    if notice.severity_nonlocalized == "WARNING":
        log.warning("%s", notice.message_primary)


def run_grants(connection: Connection, values: dict[str, Value]) -> None:
    grants = connection.fetch("select_grants", **values)
    with connection.transaction():
        for (statement,) in grants:
            connection.execute(statement)
