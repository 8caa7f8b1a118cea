"""PostgreSQL: a connection pool that survives the server's outages."""

from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from math import inf
from threading import Lock, Thread
from time import monotonic
from typing import Literal

import psycopg
from psycopg_pool import ConnectionPool, PoolTimeout

from config import Settings
from connection import CONNECTION_OPTIONS, Connection, Row, UnpreparedConnection, Value
from events import emit
from shares import Place, Shares
from sqlstates import CHANGED_RESULT, READ_ONLY
from trail import CURRENT, WRITES

POOL_CONNECT_TIMEOUT = 2  # seconds; after an outage, a probe has just succeeded
PROBE_TIMEOUT = 2.0  # seconds that a server which lets us in has to answer a statement
POOL_TIMEOUT = 1.0  # seconds a request waits for a connection
SHARE_OF_READS = 0.25  # of the connections: all others may wait for the disk, or a standby
REPLY_MARGIN = 1.5  # seconds that the server gets beyond its statement_timeout
WAITING_PER_CONNECTION = 2  # requests that may wait for one; enough to keep it busy
WAITING_WRITES = 50  # requests that wait for the share of writes
WAITING_FOR_SHARES = 200  # requests; refused at the same moment, they keep the process for 0.1 s
CLOSE_TIMEOUT = 0.1  # seconds for each of the pool's threads: a server that is silent holds them
DRAIN_PAUSE = 1.0  # seconds between two drains of the pool
LOCK_TIMEOUT = 3000  # milliseconds
REPLICA_LOCK_TIMEOUT = 500  # milliseconds; only replay has locks there, and keeps them if it stops
IDLE_IN_TRANSACTION_TIMEOUT = 10_000  # milliseconds


class DatabaseUnavailable(Exception):
    """The database is away or overloaded; the same request may succeed a little later."""


class DatabaseBusy(DatabaseUnavailable):
    """No connection is free, though it answers; or this user, or writes, hold all they may."""


class Database:
    """A process's connections. Nothing connects before the first request, so it may be forked."""

    def __init__(self, settings: Settings, *, is_primary: bool = True) -> None:
        self._settings: dict[str, Value] = {
            "statement_timeout": str(settings.database_statement_timeout),
            "lock_timeout": str(LOCK_TIMEOUT if is_primary else REPLICA_LOCK_TIMEOUT),
            "idle_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT),
        }
        self._reply_timeout = settings.database_statement_timeout / 1000 + REPLY_MARGIN
        self._url = settings.database_url
        self._is_primary = is_primary
        self._pool: ConnectionPool[Connection] = ConnectionPool(
            self._url,
            connection_class=Connection if settings.database_prepare else UnpreparedConnection,
            kwargs=CONNECTION_OPTIONS | {"connect_timeout": POOL_CONNECT_TIMEOUT},
            configure=self._configure,
            open=False,
            min_size=1,
            max_size=settings.database_pool_size,
            max_idle=300,
            max_lifetime=1800,
            # Reconnecting is the probe's work: the pool's own attempts back off for seconds.
            reconnect_timeout=0,
        )
        size = settings.database_pool_size
        self._shares = Shares(max(1, size // 2))
        self._kept_for_reads = int(size * SHARE_OF_READS)
        self._share_of_writes = Shares(size - self._kept_for_reads)
        self._waiting: deque[None] = deque()  # its length is a count that needs no lock
        self._drained_at = -inf
        self._is_suspect = False  # a connection was lost, or none was free: the next one probes
        self._is_down = False  # it was probed, and did not let us in
        self._probing = Lock()
        self._answered_at = -inf
        self._patience: float = POOL_CONNECT_TIMEOUT  # until the first is made: it may be far away

    def fetch(self, name: str, /, **values: Value) -> list[Row]:
        """Run a named statement; return its rows, each value as PostgreSQL wrote it, b"" for NULL.

        Raises:
            DatabaseUnavailable: no connection was available.
            psycopg.Error: the statement failed; `status_of` tells what that means.
        """
        with self.connection() as connection:
            return connection.fetch(name, **values)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Yield a connection whose statements, all of one user, take effect together or not at all.

        Raises:
            DatabaseUnavailable: no connection was available.
            psycopg.Error: COMMIT failed. Whether it took effect cannot be known here.
        """
        with self.connection() as connection:
            connection.in_transaction = True
            try:
                yield connection
            except BaseException:
                if not connection.closed:
                    connection.end(b"ROLLBACK")
                raise
            connection.end(b"COMMIT")

    def pool_stats(self) -> dict[str, int]:
        """Tell the pool's `pool_size`, `pool_available` and `requests_waiting`, at no cost."""
        waiting = len(self._waiting) + len(self._share_of_writes.waiting)
        return self._pool.get_stats() | {"requests_waiting": waiting}

    def is_crowded(self) -> bool:
        """Tell whether enough requests wait for a connection to keep them all busy.

        Those that wait for a share are in nobody's way, unless they are very many.
        """
        return (
            len(self._waiting) >= WAITING_PER_CONNECTION * self._pool.max_size
            or len(self._shares.waiting) >= WAITING_FOR_SHARES
            or len(self._share_of_writes.waiting) >= WAITING_WRITES
        )

    def close(self) -> None:
        self._pool.close(CLOSE_TIMEOUT)

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Yield a connection; raises as `fetch`."""
        asked_at = monotonic()
        if self._pool.closed:
            self._pool.open()
        if self._is_suspect:
            self._probe()
        place, of_writes = self._take_place(), None
        try:
            of_writes = self._take_place_of_writes(asked_at)
            connection = self._take(asked_at)
            try:
                yield connection
            except psycopg.Error as error:
                self._note_failure(connection, error)
                raise
            finally:
                self._pool.putconn(connection)
        finally:
            if of_writes is not None:
                self._share_of_writes.release(of_writes)
            if place is not None:
                self._shares.release(place)

    def _note_answer(self) -> None:
        self._answered_at = monotonic()
        self._patience = POOL_TIMEOUT

    def _note_failure(self, connection: Connection, error: psycopg.Error) -> None:
        if connection.closed:
            self._is_suspect = True
        elif error.sqlstate in {READ_ONLY, CHANGED_RESULT}:  # a standby now; to prepare anew
            self._discard(connection)
        elif error.diag.severity_nonlocalized == "ERROR":  # of a server that works; FATAL ends it
            self._note_answer()

    def _take_place(self) -> Place | None:
        """Take a place in the share of the request's user; None outside a user's request."""
        if (trail := CURRENT.get()) is None or trail.user is None:
            return None
        if (place := self._shares.acquire(trail.user, self._patience)) is None:
            raise DatabaseBusy("the user holds as many connections as one user may")
        return place

    def _take_place_of_writes(self, asked_at: float) -> Place | None:
        """Take a place among all writes; None for a read, or where reads have no share."""
        trail = CURRENT.get() if self._kept_for_reads else None
        if trail is None or trail.user is None or trail.environ["REQUEST_METHOD"] not in WRITES:
            return None
        if (place := self._share_of_writes.acquire("all", self._patience)) is None:
            raise self._gave_up(asked_at, "writes hold as many connections as they may")
        return place

    def _take(self, asked_at: float) -> Connection:
        """Take a connection from the pool, replacing those whose server has gone."""
        if self._is_suspect:  # since it waited for a share
            self._probe()
        for _ in range(self._pool.max_size + 1):
            try:
                connection = self._wait_for_connection()
            except PoolTimeout:
                raise self._gave_up(asked_at, "no connection was free") from None
            if not connection.is_stale():
                return connection
            self._emit("connection_stale")
            self._discard(connection)
            self._pool.putconn(connection)
            self._probe()
        raise DatabaseUnavailable("the server ends every connection")

    def _gave_up(self, asked_at: float, why: str) -> DatabaseUnavailable:
        """Make the error of who waited in vain; if nobody was answered, the server is suspect."""
        if self._answered_at >= asked_at:
            return DatabaseBusy(why)
        self._is_suspect = True
        return DatabaseUnavailable(f"{why}, and none answers")

    def _wait_for_connection(self) -> Connection:
        """Count the request while it waits: the pool's own count includes those that gave up."""
        self._waiting.append(None)
        try:
            return self._pool.getconn(self._patience)
        finally:
            self._waiting.pop()

    def _emit(self, event: Literal["connection_stale", "probe_failed"]) -> None:
        if self._is_primary:  # replicas.py emits a replica's failures
            emit(event)

    def _discard(self, connection: Connection) -> None:
        """Close a connection, and the idle others too: what ended one has ended them as well."""
        connection.close()
        # One made before the last drain was ended by the same outage.
        if self._drained_at < min(connection.made_at, monotonic() - DRAIN_PAUSE):
            self._drained_at = monotonic()
            self._pool.drain()

    def _probe(self) -> None:
        """Ask a suspect server for a connection: one request does, the others await the outcome.

        Where the server is known to be down, the others fail at once. If it is silent, a thread
        goes on asking.
        """
        asked_at = monotonic()
        self._is_suspect = True
        if not self._probing.acquire(timeout=0 if self._is_down else POOL_TIMEOUT):
            self._is_down = self._is_suspect  # False if the probe has just succeeded
            raise DatabaseUnavailable("the server is down, and is being asked")
        with ExitStack() as probing:
            probing.callback(self._probing.release)
            if self._answered_at > asked_at:  # another's probe, while this one waited
                return
            started = monotonic()
            try:
                self._probe_once()
            except psycopg.OperationalError as error:
                is_silent = monotonic() - started > POOL_TIMEOUT
                # A quick refusal may mean that others have all connections: our idle ones may be
                # good.
                has_idle = not is_silent and self._pool.get_stats()["pool_available"]
                self._is_suspect = self._is_down = not has_idle
                if is_silent:
                    with suppress(RuntimeError):  # the system has no more threads
                        Thread(target=self._keep_probing, name="prober", daemon=True).start()
                        probing.pop_all()  # the thread goes on, and lets others probe when it ends
                if self._is_down:
                    raise DatabaseUnavailable(str(error)) from None

    def _probe_once(self) -> None:
        """Have a statement answered: a pooler lets clients in even while its server is away."""
        try:
            with UnpreparedConnection.connect(self._url, **CONNECTION_OPTIONS) as connection:
                connection.reply_timeout = PROBE_TIMEOUT
                pid = connection.pgconn.backend_pid
                connection.fetch("select_whether_own_session", backend_pid=pid)
        except psycopg.OperationalError:
            self._emit("probe_failed")
            raise
        self._answered_at = monotonic()
        self._is_suspect = self._is_down = False

    def _keep_probing(self) -> None:
        """Ask until there is an answer, in place of requests: each would wait for a timeout.

        A refusal is an answer too: it is quick, so requests may ask again.
        """
        is_silent = True
        try:
            while is_silent and not self._pool.closed:
                started = monotonic()
                with suppress(psycopg.OperationalError):
                    self._probe_once()
                is_silent = self._is_down and monotonic() - started > POOL_TIMEOUT
        finally:
            self._probing.release()

    def _configure(self, connection: Connection) -> None:
        connection.reply_timeout = self._reply_timeout
        connection.on_answer = self._note_answer
        pid = connection.pgconn.backend_pid
        is_direct = connection.fetch("set_settings", backend_pid=pid, **self._settings)
        if not is_direct:  # behind a pooler, each transaction sets them
            connection.settings = self._settings
