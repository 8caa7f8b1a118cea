"""Migrations while the release before them runs on."""

import random
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from migrating import FILES

import migrate
from database import LOCK_TIMEOUT

OLD_CODE = {
    "select_tasks": """
        SELECT coalesce(json_agg(task), '[]')
        FROM (
            SELECT id, user_id, title, description, completed, created_at, updated_at
            FROM tasks WHERE user_id = %(user_id)s ORDER BY id DESC
        ) AS task""",
    "insert_task": """
        WITH task AS (
            INSERT INTO tasks (user_id, title, description) VALUES (%(user_id)s, 'new', NULL)
            RETURNING id, user_id, title, description, completed, created_at, updated_at
        )
        SELECT id, row_to_json(task) FROM task""",
    "update_task": """
        WITH task AS (
            UPDATE tasks SET title = 'changed', completed = NOT completed,
                updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond')
            WHERE user_id = %(user_id)s AND id = %(task_id)s
            RETURNING id, user_id, title, description, completed, created_at, updated_at
        )
        SELECT row_to_json(task) FROM task""",
    "delete_task": """
        DELETE FROM tasks WHERE user_id = %(user_id)s AND id = %(task_id)s RETURNING id""",
}
OLD_USERS = 500
OLD_TASKS = 5000


@pytest.fixture
def url_of_old_release(empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database as the first release left it, full of tasks."""
    shutil.copy(FILES[0], tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(migrate, "MIGRATIONS_FOLDER", tmp_path)
        migrate.migrate(empty_url)
    with psycopg.connect(empty_url) as connection:
        connection.execute(
            "INSERT INTO tasks (user_id, title)"
            " SELECT 'user ' || n %% %s, 'old' FROM generate_series(1, %s) AS n",
            (OLD_USERS, OLD_TASKS),
        )
    return empty_url


def run_old_code(url: str, number: int, is_over: threading.Event) -> tuple[int, float]:
    """Run what the first release ran, until it is over; return how often, and the longest wait."""
    dice, runs, longest = random.Random(number), 0, 0.0
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"SET lock_timeout = {LOCK_TIMEOUT}")
        while not is_over.is_set() or runs < 100:
            task_id = dice.randint(1, OLD_TASKS)
            owner = f"user {task_id % OLD_USERS}" if runs % 10 else f"new user {dice.randrange(9)}"
            values = {"user_id": owner, "task_id": task_id}
            started = time.monotonic()
            connection.execute(OLD_CODE[dice.choice(list(OLD_CODE))], values)
            longest = max(longest, time.monotonic() - started)
            runs += 1
    return runs, longest


def test_migrations_block_no_writer_and_count_every_task(url_of_old_release: str):
    """The release before this one runs on while they are applied to a table that is in use."""
    url, is_over = url_of_old_release, threading.Event()
    place = "SELECT pg_relation_filenode('tasks')"
    with psycopg.connect(url) as connection:
        written_at = connection.execute(place).fetchone()
    with ThreadPoolExecutor(4) as threads:
        writers = [threads.submit(run_old_code, url, number, is_over) for number in range(4)]
        try:
            migrate.migrate(url)
        finally:
            is_over.set()
        runs, longest = zip(*(writer.result() for writer in writers), strict=True)
    assert min(runs) >= 100
    assert max(longest) < LOCK_TIMEOUT / 1000
    with psycopg.connect(url) as connection:
        assert connection.execute(place).fetchone() == written_at, "the table was rewritten"
        wrong = connection.execute(
            "SELECT user_id, version, newest, stored, in_fact FROM task_counters FULL JOIN ("
            " SELECT user_id, max(version) AS newest, count(title) AS in_fact FROM ("
            "  SELECT user_id, version, title FROM tasks"
            "  UNION ALL SELECT user_id, version, NULL FROM purged_tasks"
            " ) AS written GROUP BY user_id"
            ") AS found USING (user_id)"
            " WHERE version IS NULL OR newest IS NULL OR version < newest OR stored <> in_fact"
        )
        assert wrong.fetchall() == []
        assert connection.execute("SELECT count(*) > 0 FROM purged_tasks").fetchone() == (True,)
