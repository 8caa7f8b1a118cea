"""What is deleted for good: from the trash on request, or by `manage.py purge` when due."""

from collections.abc import Iterator

import psycopg

from connection import Value
from database import Database

TASKS_PER_STATEMENT = 1000  # takes milliseconds, far from any statement_timeout
OWNERS_PER_STATEMENT = 1000
KEYS_PER_STATEMENT = 100  # with their responses, each up to 4 MB: a thousand would take seconds
ENTRIES_PER_STATEMENT = 2000  # each may be on a page of its own, which a disk has to read


def purge_trash(database: Database, user_id: str, days: int | None = None) -> Iterator[int]:
    """Delete what one user has in the trash, all or what is older than `days`.

    Yields how many tasks each statement deleted, as a later one may fail. What is trashed or
    restored meanwhile, or both, stays: its version is newer.
    """
    for task_ids, newest in database.fetch(
        "select_trash_chunks", user_id=user_id, days=days, size=TASKS_PER_STATEMENT
    ):
        for _, number in database.fetch(
            "delete_trashed_tasks", user_id=user_id, task_ids=task_ids, newest=newest, versions=None
        ):
            yield int(number)


def purge_old_trash(database: Database, days: int) -> int:
    """Delete what has been in anybody's trash for more than `days`; return how many tasks.

    Raises:
        psycopg.Error: it failed for at least one user, as the first such error tells.
        DatabaseUnavailable: no connection was available; the users from there on keep theirs.
    """
    deleted = 0
    failures: list[psycopg.Error] = []
    after = ""
    while owners := database.fetch(
        "select_trash_owners", after=after, days=days, max_rows=OWNERS_PER_STATEMENT
    ):
        for owner in (owner.decode() for owner, is_due in owners if is_due == b"t"):
            try:
                for number in purge_trash(database, owner, days):
                    deleted += number
            except psycopg.Error as error:  # such as during a long import of theirs: others go on
                failures.append(error)
        after = owners[-1][0].decode()
    if failures:
        raise failures[0]
    return deleted


def purge_idempotency_keys(database: Database) -> int:
    """Delete everybody's keys that have expired; return how many."""
    return delete_oldest(database, "delete_expired_idempotency_keys", max_rows=KEYS_PER_STATEMENT)


def purge_audit(database: Database, days: int) -> int:
    """Delete the audit's entries that are older than `days`; return how many."""
    return delete_oldest(
        database, "delete_audit_entries", max_rows=ENTRIES_PER_STATEMENT, days=days
    )


def delete_oldest(database: Database, statement: str, max_rows: int, **values: Value) -> int:
    """Run a statement until it finds less than it may delete; return how much it deleted.

    Not until it finds nothing: where many rows are written, some come due during each run, and it
    would never end. Each run begins where the last ended. As long as an older transaction is open,
    such as a backup's, it would otherwise walk past all that were deleted before, longer each time.
    """
    deleted, after = 0, "-infinity"
    while True:
        [(count, last)] = database.fetch(statement, after=after, max_rows=max_rows, **values)
        deleted += int(count)
        if int(count) < max_rows:
            return deleted
        after = last.decode()
