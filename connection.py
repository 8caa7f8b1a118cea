"""A connection that runs the statements of queries/ by libpq, on behalf of a user."""

import fcntl
import select
import sys
import termios
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import monotonic, perf_counter
from typing import Any, Self

import psycopg
from psycopg.pq import DiagnosticField, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

from statements import QUERIES, Query
from trail import CURRENT, Run

CONNECT_TIMEOUT = 5  # seconds; a database that sleeps when idle takes a few to wake up
REPLY_TIMEOUT = 10.0  # seconds to wait for a server that sends nothing, not even a timeout's error
CANCEL_TIMEOUT = 0.5  # seconds that the server gets to take a request to cancel
# Keepalives are sent while waiting; on Linux, tcp_user_timeout bounds them as well as what is sent.
CONNECTION_OPTIONS: dict[str, Any] = {
    "autocommit": True,
    "client_encoding": "UTF8",  # a role or a database may be set to another
    "connect_timeout": CONNECT_TIMEOUT,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "application_name": "tasks",
}

SUCCESSES = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK, ExecStatus.PIPELINE_SYNC)

# What a parameter may be. All are sent as text; the statement determines the type.
Value = str | bytes | int | bool | list[str] | list[int] | None
Row = tuple[bytes, ...]


def encode(value: Value) -> bytes | None:
    if value is None:
        return None
    text = array_of(value) if isinstance(value, list) else value
    data = text if isinstance(text, bytes) else str(text).encode()
    if b"\0" in data:  # libpq would silently cut the text off there
        raise psycopg.DataError("PostgreSQL text cannot hold NUL")
    return data


def array_of(values: Sequence[str | int]) -> str:
    """Write an array as PostgreSQL reads it, each value quoted."""
    quoted = [str(value).replace("\\", r"\\").replace('"', r"\"") for value in values]
    return "{" + ",".join([f'"{value}"' for value in quoted]) + "}"


def rows_of(result: PGresult) -> list[Row]:
    fields, value = range(result.nfields), result.get_value
    return [tuple([value(row, field) or b"" for field in fields]) for row in range(result.ntuples)]


def waiter(descriptor: int) -> Callable[[float], bool]:
    """Make the function that waits up to so many seconds for data; it returns whether any came.

    gevent's `poll` makes a new watcher for each call: a twentieth of all that a request costs.
    """
    if "gevent.monkey" in sys.modules and sys.modules["gevent.monkey"].is_module_patched("select"):
        from gevent import get_hub  # type: ignore[import-untyped]
        from gevent.socket import wait  # type: ignore[import-untyped]

        watcher = get_hub().loop.io(descriptor, 1)  # libev's EV_READ

        def is_readable(seconds: float) -> bool:
            with suppress(TimeoutError):
                wait(watcher, seconds)
                return True
            return False

        return is_readable
    readable = select.poll()
    readable.register(descriptor, select.POLLIN)
    return lambda seconds: bool(readable.poll(1000 * seconds))


class Connection(psycopg.Connection[Any]):
    """psycopg's connection, with named statements run by libpq directly.

    psycopg's cursor costs a quarter of a request: docs/decisions/0007-statements-by-libpq.md.
    """

    prepares = True  # False for a pooler that cannot, and for a connection that runs little
    reply_timeout = REPLY_TIMEOUT

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.made_at = monotonic()
        self.settings: dict[str, Value] = {}  # set in each transaction, where the session has none
        self.in_transaction = False  # a user's, begun by its first statement
        self._prepared_names: set[str] = set()
        self.on_answer: Callable[[], None] = lambda: None  # the pool notes that the server works
        options = {option.keyword: option.val for option in self.pgconn.info}
        self._has_to_write = options.get(b"target_session_attrs") in {b"read-write", b"primary"}
        self._await_reply = waiter(self.pgconn.socket)
        self._writable = select.poll()
        self._writable.register(self.pgconn.socket, select.POLLIN | select.POLLOUT)

    @classmethod
    def connect(cls, *args: Any, **kwargs: Any) -> Self:
        try:
            return super().connect(*args, **kwargs)
        except psycopg.Error as error:  # its traceback is a cycle, with a socket that timed out
            raise error.with_traceback(None) from None
        except (RuntimeError, UnicodeError) as error:  # no thread to look it up; `db..svc`
            raise psycopg.OperationalError(f"the host's name is not found: {error}") from None

    def run(self, name: str, values: Mapping[str, Value]) -> PGresult:
        """Run a named statement and return its result, each value as PostgreSQL wrote it.

        Raises:
            psycopg.Error: the statement failed; `status_of` tells what that means.
        """
        return self.run_together([name], values)[0]

    def run_together(self, names: Sequence[str], values: Mapping[str, Value]) -> list[PGresult]:
        """Run named statements, a user's in one transaction, in one round trip.

        The trail has them as one run, by the name of the last. Raises as `run`.
        """
        if trail := CURRENT.get():
            trail.backend_pid = self.pgconn.backend_pid  # which a connection that is lost forgets
        # In a transaction that has begun, the user is set already.
        has_begun = self.in_transaction and self.pgconn.transaction_status != TransactionStatus.IDLE
        started, kind, sqlstate = perf_counter(), None, None
        try:
            if values.get("user_id") is None or has_begun:
                results = self._run_at_once(names, values)
            else:  # safe through a pooler, too: the user is unset when the transaction ends
                request_id = trail.request_id if trail else ""
                given = {**values, **self.settings, "request_id": request_id}
                first = "set_user_and_settings" if self.settings else "set_user"
                results = self._run_at_once([first, *names], given, begins=self.in_transaction)[1:]
        except psycopg.Error as failure:
            kind, sqlstate = type(failure).__name__, failure.sqlstate
            raise
        finally:
            if trail:
                trail.runs.append(Run(names[-1], started, perf_counter() - started, kind, sqlstate))
        self.on_answer()
        return results

    def _run_at_once(
        self, names: Sequence[str], values: Mapping[str, Value], *, begins: bool = False
    ) -> list[PGresult]:
        """Run different statements in one round trip, which also prepares those that are new.

        With `begins`, BEGIN goes first, and the transaction stays open. What is prepared comes
        after what runs before it: behind a pooler, that makes the settings.
        """
        queries = [QUERIES[name] for name in names]
        # Encoded before anything is sent, as that may fail.
        calls = [(query, [encode(values[each]) for each in query.parameters]) for query in queries]
        new = set(names) - self._prepared_names if self.prepares else set()
        if len(calls) == 1 and not new:
            self._send(*calls[0])
            return [self._result()]
        self.pgconn.enter_pipeline_mode()
        if begins:
            self.pgconn.send_query_params(b"BEGIN", None)
        preparing: list[str | None] = []  # None for what runs
        for query, arguments in calls:
            if query.name in new:
                self.pgconn.send_prepare(query.name.encode(), query.text.encode())
                preparing.append(query.name)
            self._send(query, arguments)
            preparing.append(None)
        self.pgconn.pipeline_sync()
        results = self._results(until_sync=True)
        self.pgconn.exit_pipeline_mode()
        replies = list(zip(preparing, results[begins:], strict=False))  # none, if BEGIN failed
        for name, result in replies:
            if name and result.status == ExecStatus.COMMAND_OK:  # also if all else is rolled back
                self._prepared_names.add(name)
            elif name and self.settings:  # PgBouncer takes it for used, and would refuse it again
                self.close()
        for result in results:  # a failed commit adds one more
            self._checked(result)
        return [result for name, result in replies if not name]

    def _send(self, query: Query, arguments: list[bytes | None]) -> None:
        if self.prepares:
            self.pgconn.send_query_prepared(query.name.encode(), arguments)
        else:
            self.pgconn.send_query_params(query.text.encode(), arguments)

    def fetch(self, name: str, /, **values: Value) -> list[Row]:
        """Run a named statement; return its rows as `Database.fetch`; raises as `run`."""
        return rows_of(self.run(name, values))

    def end(self, command: bytes) -> None:
        """End a transaction, if one has begun; psycopg's own `transaction` may wait for ever.

        The trail has it as a run, by the command's name: a COMMIT waits for the server's disk.

        Raises:
            psycopg.Error: it failed, or was answered by a rollback, as a statement had failed.
        """
        self.in_transaction = False
        if self.pgconn.transaction_status == TransactionStatus.IDLE:
            return
        started, kind, sqlstate = perf_counter(), None, None
        try:
            self.pgconn.send_query(command)
            result = self._result()
            if result.command_status != command:
                why = "a failed transaction was to be committed"
                raise psycopg.errors.InFailedSqlTransaction(why)
        except psycopg.Error as failure:
            kind, sqlstate = type(failure).__name__, failure.sqlstate
            raise
        finally:
            if trail := CURRENT.get():
                took = perf_counter() - started
                trail.runs.append(Run(command.decode().lower(), started, took, kind, sqlstate))

    def _result(self) -> PGresult:
        """Await a command's result. An error may come behind its rows, as that of a timeout."""
        first, *_ = [self._checked(result) for result in self._results()]
        return first

    def _results(self, *, until_sync: bool = False) -> list[PGresult]:
        """Await a command's or a pipeline's results: a server that hangs keeps no timeout itself.

        Raises:
            psycopg.OperationalError: the server does not reply, or has gone.
        """
        deadline = monotonic() + self.reply_timeout
        results: list[PGresult] = []
        pgconn, nones = self.pgconn, 0  # one ends a command, two in a row end the connection
        while pgconn.flush():  # what does not fit into the socket's buffers is sent piece by piece
            self._await(self._await_room, deadline)
        while True:
            while pgconn.is_busy():
                self._await(self._await_reply, deadline)
            if (result := pgconn.get_result()) is not None:
                nones = 0
                results.append(result)
                if result.status == ExecStatus.PIPELINE_SYNC:
                    return results
                continue
            nones += 1
            if results and not until_sync:
                return results
            if nones == 2:
                raise psycopg.OperationalError("the connection was lost")

    def _await(self, wait: Callable[[float], bool], deadline: float) -> None:
        # Again as long as this process was stopped, if it was: its server may have been, with it.
        if not wait(max(0, deadline - monotonic())) and not wait(
            min(max(0, monotonic() - deadline), self.reply_timeout)
        ):
            # A commit that waits for a standby outlives its socket, and would keep its session.
            with suppress(psycopg.Error):
                self.cancel_safe(timeout=CANCEL_TIMEOUT)
            self.close()
            raise psycopg.OperationalError("the server does not reply")
        self.pgconn.consume_input()

    def _await_room(self, seconds: float) -> bool:
        """Wait until we can send more, or read: the server may be waiting for us to read."""
        return bool(self._writable.poll(1000 * seconds))

    @staticmethod
    def _checked(result: PGresult) -> PGresult:
        if result.status in SUCCESSES:
            return result
        if result.error_field(DiagnosticField.SQLSTATE) is None:
            raise psycopg.OperationalError(result.get_error_message())
        error = psycopg.errors.error_from_result(result)
        error.args = (error.diag.message_primary,)  # not DETAIL: it may quote a row in the log
        raise error

    def is_stale(self) -> bool:
        """Tell whether an idle connection has something to read: a last message, or its end.

        True also where the address asks for a server that takes writes, and this one has said that
        it no longer does. Costs two microseconds; asking the server costs a round trip.
        """
        status = b"default_transaction_read_only"
        if self._has_to_write and self.pgconn.parameter_status(status) == b"on":
            return True
        unread = fcntl.ioctl(self.pgconn.socket, termios.FIONREAD, bytes(4))  # an int of C
        try:
            self.pgconn.consume_input()
        except psycopg.OperationalError:
            return True
        return any(unread)


class UnpreparedConnection(Connection):
    prepares = False
