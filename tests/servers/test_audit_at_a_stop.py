"""The audit's entries that wait when the server stops."""

import time
from pathlib import Path

import psycopg
from processes import as_url, copy_of_project, gunicorn, wait_until
from support import audit_entries


def test_entries_that_wait_at_a_stop_are_written(
    database_url: str, postgresql: psycopg.Connection, tmp_path: Path
):
    waiting = (
        "SELECT FROM pg_locks AS lock JOIN pg_database ON pg_database.oid = lock.database"
        " WHERE NOT granted AND relation = 'audit_log'::regclass AND datname = current_database()"
    )
    with gunicorn(copy_of_project(tmp_path), as_url(database_url)) as process:
        postgresql.execute("LOCK TABLE audit_log IN EXCLUSIVE MODE")
        assert process.request("GET", "/api/alice/tasks").status_code == 401
        wait_until(lambda: postgresql.execute(waiting).fetchall())
        assert process.request("GET", "/api/alice/tasks").status_code == 401
        process.popen.terminate()
        time.sleep(0.3)
        postgresql.rollback()
        assert process.wait() == 0
    assert len(audit_entries(postgresql)) == 2
