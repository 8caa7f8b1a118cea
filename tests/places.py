"""Databases that tests use in turn, each with the pool and the auditor of the application."""

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import NamedTuple

from processes import wait_until
from support import settings_for

from database import Database, DatabaseUnavailable
from observability.audit import Auditor

# Not TRUNCATE, which makes new files for all tables and indexes: it takes six times as long.
# `tasks` comes first in this order: its triggers write to the other tables.
EMPTY = """
DO $$
DECLARE
    name regclass;
BEGIN
    FOR name IN
        SELECT oid FROM pg_class
        WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
            AND relname <> 'schema_migrations'
        ORDER BY relname DESC
    LOOP
        EXECUTE 'DELETE FROM ' || name;
    END LOOP;
    PERFORM setval(oid::regclass, 1, false) FROM pg_class
    WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace;
END $$
"""


class Place(NamedTuple):
    """The application's pool and auditor for one database."""

    database: Database
    auditor: Auditor


@contextmanager
def place_on(url: str) -> Iterator[Place]:
    # In tests one user calls from many threads, and has half of the connections.
    settings = settings_for(url, database_pool_size=16)
    with closing(Database(settings)) as database:
        wait_until(lambda: is_reached(database))
        yield Place(database, Auditor(settings))


def is_reached(database: Database) -> bool:
    """Open two connections: on a busy machine that may take longer than a request waits."""
    with suppress(DatabaseUnavailable), database.connection(), database.connection():
        return True
    return False
