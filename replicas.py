"""Large reads from a replica, as new as the primary has them: docs/decisions/0016-replicas.md."""

import logging
import re
from dataclasses import replace
from threading import Lock, Thread
from time import sleep

import psycopg

from config import Settings
from connection import Row, Value, rows_of
from database import Database, DatabaseBusy, DatabaseUnavailable
from events import emit
from sqlstates import status_of
from statements import QUERIES

log = logging.getLogger(__name__)

# Only these: a single row costs the primary no more than the version check before such a read.
LARGE_READS = frozenset(
    name for name, query in QUERIES.items() if re.search("(json|string)_agg\\(", query.text)
)
STATEMENT_TIMEOUT = 1000  # milliseconds; after that the primary is asked
# The replica works: it was busy, a statement took too long, or replay of the primary ended it.
STEPPED_BACK = (DatabaseBusy, psycopg.errors.QueryCanceled, psycopg.errors.SerializationFailure)
NO_REPLICA = "the server of DATABASE_REPLICA_URL is no replica"
OTHER_PRIMARY = "the server of DATABASE_REPLICA_URL is a replica of another primary"
PAUSE = 1.0  # seconds between two attempts to reach a replica that is away


def system_of(database: Database) -> list[Row]:
    """Tell one primary's data from another's; nothing where the role may not know."""
    try:
        return database.fetch("select_system_identifier")
    except psycopg.errors.InsufficientPrivilege:
        return []


class Reader:
    """Runs a request's reads: large ones on the replica, if it has all that the user wrote."""

    def __init__(self, settings: Settings, primary: Database) -> None:
        self._primary = primary
        timeout = min(settings.database_statement_timeout, STATEMENT_TIMEOUT)
        url = settings.database_replica_url
        self._replica = Database(
            replace(settings, database_url=url, database_statement_timeout=timeout),
            is_primary=False,
        )
        self.is_away = False
        self._is_ours = False  # it was asked, and is a replica of our primary
        self._lock = Lock()

    def fetch(self, name: str, /, **values: Value) -> list[Row]:
        """Run a named statement; return its rows and raise as `Database.fetch`."""
        if name in LARGE_READS and not self.is_away and not self._replica.is_crowded():
            rows = self._ask_replica(name, values)
            if rows is not None:
                return rows
        return self._primary.fetch(name, **values)

    def close(self) -> None:
        self.is_away = False
        self._replica.close()

    def _ask_replica(self, name: str, values: dict[str, Value]) -> list[Row] | None:
        """Ask the replica; None where it is busy, slow or away, or has another version of the user.

        Every write increments its user's version. It is read from the primary first, then from the
        replica before the rows: so the rows are at least as new as this request. A newer version
        may be a commit that still waits for a synchronous standby, which the primary hides.
        """
        [(written,)] = self._primary.fetch("select_version", user_id=values["user_id"])
        try:
            if not self._is_ours:
                self._require_replica()
            with self._replica.connection() as connection:
                replayed, read = connection.run_together(["select_replayed_version", name], values)
        except STEPPED_BACK:
            return None
        except (DatabaseUnavailable, psycopg.Error) as error:
            if isinstance(error, psycopg.Error) and status_of(error) < 500:
                raise  # the request's own fault
            self._leave(error)
            return None
        [(replayed_to,)] = rows_of(replayed)
        if not replayed_to:
            self._leave(DatabaseUnavailable(NO_REPLICA))
            return None
        return rows_of(read) if replayed_to == written else None

    def _leave(self, error: Exception) -> None:
        with self._lock:
            if self.is_away:
                return
            self.is_away = True
        emit("replica_failed")
        log.warning("the replica is away, the primary serves: %s", error)
        waiting = Thread(target=self._await_return, args=[str(error)], name="replica", daemon=True)
        try:
            waiting.start()
        except RuntimeError:  # the system has no more threads: the next failure tries again
            self.is_away = False

    def _require_replica(self) -> None:
        [(replayed_to,)] = self._replica.fetch("select_replayed_version", user_id="")
        if not replayed_to:
            raise DatabaseUnavailable(NO_REPLICA)
        if system_of(self._replica) != system_of(self._primary):
            raise DatabaseUnavailable(OTHER_PRIMARY)
        self._replica.fetch("select_task", user_id="", task_id=0)  # replay may have tasks locked
        self._is_ours = True

    def _await_return(self, cause: str) -> None:
        told = {cause}  # often only that no connection was free: the next one says why
        sleep(PAUSE)
        while self.is_away:
            try:
                self._require_replica()
            except (DatabaseUnavailable, psycopg.Error) as error:
                emit("replica_failed")
                if str(error) not in told:
                    told.add(str(error))
                    log.warning("the replica is still away: %s", error)
                sleep(PAUSE)
            else:
                self.is_away = False
                log.warning("the replica is back")
