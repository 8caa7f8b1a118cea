"""How PostgreSQL runs the statements of `manage.py purge`: each reads little in vain."""

from collections.abc import Iterator

import psycopg
import pytest
from plans import pages_of, plan_of

from config import SETTINGS
from purge import ENTRIES_PER_STATEMENT

ROWS = 60_000  # with fewer, the planner may not choose the plans that read too much
CHUNK = 100


@pytest.fixture
def planned(postgresql: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """The owner's connection, whose plans are those for all values."""
    postgresql.execute("SET plan_cache_mode = force_generic_plan")
    postgresql.execute("SET enable_seqscan = off")
    yield postgresql
    postgresql.rollback()


def fill(connection: psycopg.Connection, statement: str) -> None:
    connection.execute(statement, {"rows": ROWS})
    connection.execute("ANALYZE")


def test_purge_of_keys_reads_those_that_it_deletes(planned: psycopg.Connection):
    fill(
        planned,
        "INSERT INTO idempotency_keys"
        " (user_id, key, fingerprint, status, headers, body, created_at, expires_at)"
        " SELECT n %% 100, n, '', 201, '{}', '{}', now(), now() - n * interval '1 second'"
        " FROM generate_series(1, %(rows)s) AS n",
    )
    plan = plan_of(planned, "delete_expired_idempotency_keys", after="-infinity", max_rows=CHUNK)
    assert pages_of(plan) <= 4 * CHUNK
    row = planned.execute("SELECT count(*) FROM idempotency_keys").fetchone()
    assert row == (ROWS - CHUNK,)


@pytest.mark.parametrize(("days", "deleted"), [(ROWS - 10, 10), (0, CHUNK)])
def test_purge_of_the_audit_reads_no_more_entries_than_it_may_delete(
    planned: psycopg.Connection, days: int, deleted: int
):
    """Once vacuum has freed the pages of old entries, entries of all ages share the same pages."""
    fill(
        planned,
        "INSERT INTO audit_log (at, user_id, action)"
        " SELECT now() - make_interval(days => n), '', '' FROM generate_series(1, %(rows)s) AS n"
        " ORDER BY hashint4(n)",
    )
    planned.execute("SET effective_cache_size = '1MB'")  # the table is larger than memory
    plan = plan_of(planned, "delete_audit_entries", after="-infinity", max_rows=CHUNK, days=days)
    assert pages_of(plan) <= 5 * CHUNK
    row = planned.execute("SELECT count(*) FROM audit_log").fetchone()
    assert row == (ROWS - deleted,)


def test_purge_of_the_audit_stays_far_below_its_timeout_on_a_slow_disk():
    """One that reads a thousand pages in a second, where no two entries are on the same page."""
    seconds = ENTRIES_PER_STATEMENT / 1000
    assert seconds < SETTINGS["database_statement_timeout"].default / 1000 / 2


def test_purge_of_the_audit_walks_past_nothing_that_it_deleted_before(
    planned: psycopg.Connection,
):
    """While an older transaction is open, as here its own, the index keeps what was deleted."""
    fill(
        planned,
        "INSERT INTO audit_log (at, user_id, action)"
        " SELECT now() - make_interval(days => n), '', '' FROM generate_series(1, %(rows)s) AS n",
    )
    deleting = "DELETE FROM audit_log WHERE at < now() - make_interval(days => 100) RETURNING at"
    after = max(planned.execute(deleting))[0]
    plan = plan_of(planned, "delete_audit_entries", after=after, max_rows=CHUNK, days=0)
    assert pages_of(plan) <= 5 * CHUNK


def test_purge_spares_new_entries_of_an_audit_in_partitions(planned: psycopg.Connection):
    """A ctid is a place within one partition: here, both entries have the same."""
    for statement in [
        "ALTER TABLE audit_log RENAME TO whole",
        "CREATE TABLE audit_log (LIKE whole INCLUDING DEFAULTS) PARTITION BY RANGE (at)",
        "CREATE TABLE old PARTITION OF audit_log FOR VALUES FROM (MINVALUE) TO ('2000-01-01')",
        "CREATE TABLE new PARTITION OF audit_log DEFAULT",
        "INSERT INTO audit_log (at, user_id, action) VALUES ('1999-01-01','',''), (now(),'','')",
    ]:
        planned.execute(statement.encode())
    plan_of(planned, "delete_audit_entries", after="-infinity", max_rows=CHUNK, days=1)
    assert planned.execute("SELECT at = now() FROM audit_log").fetchall() == [(True,)]


def test_purge_finds_that_no_trash_is_due_by_one_entry_of_each_user(planned: psycopg.Connection):
    fill(
        planned,
        "WITH owners AS ("
        "    INSERT INTO task_counters (user_id, version, stored)"
        "    SELECT 'user ' || n, %(rows)s, %(rows)s FROM generate_series(1, 10) AS n"
        "    RETURNING user_id"
        ") INSERT INTO tasks (user_id, title, version, deleted_at)"
        " SELECT user_id, 'deleted', n, now() FROM owners, generate_series(1, %(rows)s / 30) AS n",
    )
    plan = plan_of(planned, "select_trash_owners", after="", days=30, max_rows=1000)
    assert plan["Actual Rows"] == 10
    assert pages_of(plan) <= 10 * 10
