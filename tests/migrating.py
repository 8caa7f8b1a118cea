"""Migrations, as their tests write them and look at them."""

from collections.abc import Callable
from pathlib import Path

import psycopg

import migrate
from development import embedded

FILES = sorted(migrate.MIGRATIONS_FOLDER.glob("*.sql"))
UP, DOWN = "-- migrate:up", "-- migrate:down"

NewDatabase = Callable[..., str]


def applied(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT version FROM schema_migrations ORDER BY version")
        return [version for (version,) in rows]


def schema_of(url: str, folder: Path) -> str:
    """Dump a database; leave out the server's version and the settings for reading the dump."""
    file = folder / f"{len(list(folder.iterdir()))}.sql"
    migrate.dump_schema(url, embedded.binaries(), file)
    return without_noise(file.read_text())


def without_noise(dump: str) -> str:
    noise = ("--", "SET ", "\\", "SELECT pg_catalog.set_config(")
    return "\n".join(line for line in dump.splitlines() if line and not line.startswith(noise))
