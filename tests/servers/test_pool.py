"""The pool by itself: a server that is full, or silent."""

import gc
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext

import psycopg
import pytest
from own_postgres import OwnPostgres
from pools import THREADS, insert, toggle
from processes import wait_until
from support import settings_for

import database
from config import PROJECT
from connection import CONNECTION_OPTIONS, UnpreparedConnection
from database import POOL_CONNECT_TIMEOUT, Database, DatabaseUnavailable
from trail import CURRENT, Trail


@pytest.fixture
def db(own_server: OwnPostgres) -> Iterator[Database]:
    """A pool on a server that tests fill and freeze."""
    with closing(Database(settings_for(own_server.url, database_pool_size=THREADS))) as db:
        yield db


def test_connections_at_hand_are_used_while_the_server_has_no_others(
    db: Database, own_server: OwnPostgres
):
    task_id = insert(db)
    with ThreadPoolExecutor(1) as pool, own_server.locked(task_id):
        lost = pool.submit(toggle, db, task_id)
        wait_until(own_server.waiting)
        db.fetch("select_version", user_id="alice")  # with a second connection
        own_server.end_connections("wait_event_type = 'Lock'")
        with pytest.raises(psycopg.OperationalError):
            lost.result()
    with own_server.all_connections_taken():
        assert insert(db)
        assert insert(db)


@contextmanager
def silent(own_server: OwnPostgres, db: Database, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Freeze the server, and have one request find that out."""
    patch.setitem(CONNECTION_OPTIONS, "connect_timeout", 2)
    insert(db)
    db._is_suspect = True
    with own_server.frozen():
        with pytest.raises(DatabaseUnavailable, match="timeout"):
            insert(db)
        yield


def test_silent_server_is_asked_by_no_request_and_the_first_after_its_return_succeeds(
    db: Database, own_server: OwnPostgres, monkeypatch: pytest.MonkeyPatch
):
    attempts = []
    monkeypatch.setattr("database.emit", attempts.append)
    with silent(own_server, db, monkeypatch):
        while len(attempts) < 3:  # the thread's, as no request waits for one
            with pytest.raises(DatabaseUnavailable, match="is being asked"):
                insert(db)
            time.sleep(0.1)
        [prober] = probers()
    prober.join()
    assert insert(db)


def test_silent_server_is_noticed_while_writes_hold_all_that_they_may(
    db: Database, own_server: OwnPostgres, monkeypatch: pytest.MonkeyPatch
):
    def write(user: str) -> int:
        CURRENT.set(trail := Trail({"REQUEST_METHOD": "POST"}))
        trail.user = user
        return insert(db)

    monkeypatch.setitem(CONNECTION_OPTIONS, "connect_timeout", 2)
    write("first")
    for _ in range(THREADS - int(THREADS * database.SHARE_OF_READS)):
        db._share_of_writes.acquire("all", 0)
    with own_server.frozen():
        with pytest.raises(DatabaseUnavailable, match="writes hold"):
            write("second")
        with pytest.raises(DatabaseUnavailable, match="timeout"):
            write("prober")
        started = time.monotonic()
        with pytest.raises(DatabaseUnavailable, match="is being asked"):
            write("third")
        assert time.monotonic() - started < database.POOL_TIMEOUT / 2
    CURRENT.set(None)


def test_server_that_became_suspect_while_a_request_waited_for_its_share_is_probed(
    db: Database, monkeypatch: pytest.MonkeyPatch
):
    def wait_for_share() -> None:
        db._is_suspect = True

    monkeypatch.setattr(db, "_take_place", wait_for_share)
    assert insert(db)
    assert not db._is_suspect


def probers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "prober"]


def test_close_waits_for_no_connection_that_is_being_made(db: Database, own_server: OwnPostgres):
    with own_server.frozen():
        db._pool.open()
        time.sleep(0.3)  # it is connecting now
        began = time.monotonic()
        db.close()
        assert time.monotonic() - began < POOL_CONNECT_TIMEOUT / 2


def test_silent_server_is_asked_no_more_once_the_pool_is_closed(
    db: Database, own_server: OwnPostgres, monkeypatch: pytest.MonkeyPatch
):
    with silent(own_server, db, monkeypatch):
        db.close()
        wait_until(lambda: not probers(), 10)


ASK_AMONG_GREENLETS = """
from gevent import monkey
monkey.patch_all()
import sys
from connection import CONNECTION_OPTIONS, UnpreparedConnection
from statements import QUERIES, Query
QUERIES["wait"] = Query("wait", "SELECT 'read' FROM pg_sleep(0.3)", ())
with UnpreparedConnection.connect(sys.argv[1], **CONNECTION_OPTIONS) as connection:
    connection.reply_timeout = 0.6
    print("asking", flush=True)
    print(connection.fetch("wait"))
"""


@pytest.mark.parametrize("server_too", [False, True])
def test_reply_that_comes_after_a_process_was_stopped_is_read(
    own_server: OwnPostgres, server_too: bool
):
    command = [sys.executable, "-c", ASK_AMONG_GREENLETS, own_server.url]
    with (
        subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as process,
        ExitStack() as at_the_end,
    ):
        at_the_end.callback(process.kill)
        assert process.stdout
        assert process.stdout.readline() == "asking\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGSTOP)
        with own_server.frozen() if server_too else nullcontext():
            time.sleep(0.8)
            process.send_signal(signal.SIGCONT)
            time.sleep(0.1)
        assert process.stdout.read() == "[(b'read',)]\n"


def test_attempt_to_connect_that_times_out_leaves_no_socket():
    with socket.create_server(("127.0.0.1", 0)) as silent_server:
        port = silent_server.getsockname()[1]
        url = f"postgresql://127.0.0.1:{port}/?sslmode=disable"
        gc.disable()  # a server collects rarely, too
        try:
            with pytest.raises(psycopg.OperationalError, match="timeout"):
                UnpreparedConnection.connect(url, **CONNECTION_OPTIONS | {"connect_timeout": 2})
            client, _ = silent_server.accept()
        finally:
            gc.enable()
        with client:
            client.settimeout(5)
            while client.recv(1024):
                pass


def test_silent_server_is_asked_by_the_next_request_where_no_thread_can_start(
    db: Database, own_server: OwnPostgres, monkeypatch: pytest.MonkeyPatch
):
    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setitem(CONNECTION_OPTIONS, "connect_timeout", 2)
    insert(db)
    db._is_suspect = True
    with own_server.frozen(), monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        with pytest.raises(DatabaseUnavailable, match="timeout"):
            insert(db)
    assert insert(db)
