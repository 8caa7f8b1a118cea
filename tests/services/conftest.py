"""What the tests beside other services are given: those services."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from own_postgres import OwnPostgres, migrated_on
from pgbouncer import PATIENCE, TIMEOUTS, PgBouncer
from psycopg.conninfo import make_conninfo
from redis_server import RedisServer

import roles


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnPostgres]:
    with migrated_on(tmp_path_factory.mktemp("pooled") / "postgres") as pooled:
        roles.grant(pooled.url, make_conninfo(pooled.url, user="tasks_api"))
        for name in TIMEOUTS:
            pooled.execute(f"ALTER ROLE tasks_api SET {name} = '{PATIENCE}'")
        pooled.execute("ALTER ROLE tasks_api SET client_encoding = 'LATIN1'")
        pooled.execute("ALTER ROLE tasks_api SET TimeZone = 'Asia/Kolkata'")
        pooled.execute("ALTER ROLE tasks_api SET row_security = off")
        pooled.execute("ALTER ROLE tasks_api SET transaction_timeout = '20s'")
        yield pooled


@pytest.fixture(scope="module")
def pooler(pooled: OwnPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PgBouncer]:
    pooler = PgBouncer(tmp_path_factory.mktemp("pgbouncer"), pooled)
    yield pooler
    pooler.stop()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    yield server
    server.kill()
