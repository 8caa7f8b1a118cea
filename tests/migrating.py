"""Migrations, as their tests write them and look at them."""

import psycopg

UP, DOWN = "-- migrate:up", "-- migrate:down"


def applied(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT version FROM schema_migrations ORDER BY version")
        return [version for (version,) in rows]
