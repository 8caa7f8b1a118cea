"""The embedded PostgreSQL starts for anyone, survives kills, harms no folder, fails in one line."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from embedding import FAST, copy_of, keep, kept, modes_above, pid_of_server, refusal_of, show
from processes import wait_until

from development import embedded, postgres_programs
from development.embedded import running, url_of_running

RUN_FOR_EVER = """
import pathlib, sys, time
from development import embedded
with embedded.running(pathlib.Path(sys.argv[1]), ["fsync=off"]):
    print("running", flush=True)
    time.sleep(60)
"""


@pytest.fixture(scope="module")
def folder(pristine: Path) -> Path:
    """Give the data folder that all tests start, kill and start again."""
    return copy_of(pristine, pristine.with_name("battered"))


@pytest.fixture(scope="module")
def live(pristine: Path) -> Iterator[tuple[Path, str]]:
    """Run one server for the tests that only look at it."""
    copy = copy_of(pristine, pristine.with_name("live"))
    with running(copy, FAST) as url:
        yield copy, url


@pytest.fixture
def other_process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Run another Python process that runs PostgreSQL on `folder`."""
    code = [sys.executable, "-c", RUN_FOR_EVER, str(folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(code, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "running\n"
        yield process
        process.kill()
    wait_until(lambda: not (folder / "postmaster.pid").exists())


# The first start


def test_first_start_makes_a_durable_database_in_a_private_folder(tmp_path: Path):
    folder = tmp_path / ".data" / "postgres"
    above = modes_above(folder.parent)
    with running(folder) as url:
        for setting in ("fsync", "synchronous_commit", "full_page_writes", "data_checksums"):
            assert show(url, setting) == "on"
        assert show(url, "listen_addresses") == ""
        with psycopg.connect(url) as connection:
            assert connection.info.dbname == connection.info.user == "tasks"
    assert {stat.S_IMODE(path.stat().st_mode) for path in (folder, folder.parent)} == {0o700}
    assert modes_above(folder.parent) == above


def test_database_folds_the_case_of_all_letters(live: tuple[Path, str]):
    with psycopg.connect(live[1]) as connection:
        assert connection.execute("VALUES (lower('ÄÖЖΣ'))").fetchone() == ("äöжσ",)


def test_first_start_succeeds_after_an_interrupted_one(pristine: Path):
    assert (pristine / "PG_VERSION").exists()
    assert not pristine.with_name(".postgres.initdb-1").exists()


# The socket and the URL


@pytest.mark.parametrize("name", ["a space & more?", "a,comma", "caf\udce9", "long" * 30])
def test_every_name_of_a_folder_gets_a_private_socket(name: str, pristine: Path):
    with tempfile.TemporaryDirectory() as short:  # pytest's own name may be long
        check_socket(copy_of(pristine, Path(short, name)), is_short=name.startswith("a space"))


def test_socket_is_short_where_temporary_files_have_a_long_path(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    long = tmp_path / ("long" * 30)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    check_socket(copy_of(pristine, long / "postgres"), is_short=False)


def check_socket(folder: Path, *, is_short: bool) -> None:
    with running(folder, FAST) as url:
        sockets = Path(parse_qs(urlsplit(url).query)["host"][0])
        assert show(url, "fsync") == "off"
        assert url_of_running(folder) == url
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert (sockets == folder) == is_short
    assert folder.exists()
    assert sockets == folder or not sockets.exists()


def test_server_ignores_the_callers_libpq_variables(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setenv("PGDATA", "/nowhere")
    with running(folder, FAST) as url:
        assert show(url, "port") == "5432"


def test_no_url_is_given_where_no_server_runs(folder: Path):
    assert url_of_running(folder) is None
    assert url_of_running(folder / "nowhere") is None
    with running(folder, FAST) as url:
        assert url_of_running(folder) == url
        os.kill(pid_of_server(folder), signal.SIGKILL)
        wait_until(lambda: url_of_running(folder) is None)
        assert (folder / "postmaster.pid").exists()


def test_copy_of_a_running_servers_folder_is_not_taken_for_it(
    live: tuple[Path, str], tmp_path: Path
):
    shutil.copy(live[0] / "postmaster.pid", tmp_path)
    assert url_of_running(live[0]) == live[1]
    assert url_of_running(tmp_path) is None


def test_another_processs_server_is_found_and_not_started_again(
    folder: Path, other_process: subprocess.Popen[str]
):
    assert f"already running on {folder}" in refusal_of(folder)
    url = url_of_running(folder)
    assert url
    assert show(url, "fsync") == "off"
    assert other_process.poll() is None


# Stopping


def test_server_is_out_of_reach_of_the_terminals_interrupt(live: tuple[Path, str]):
    assert os.getsid(pid_of_server(live[0])) != os.getsid(0)


def test_callers_error_passes_unchanged_and_the_server_stops(folder: Path):
    clients = []

    def fail(url: str) -> None:
        clients.append(psycopg.connect(url))
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"), running(folder, FAST) as url:
        fail(url)
    with clients[0] as client, pytest.raises(psycopg.OperationalError):
        client.execute("SHOW fsync")
    assert "fast shutdown" in folder.with_name("battered.log").read_text()
    assert url_of_running(folder) is None
    assert not (folder / "postmaster.pid").exists()


def test_server_that_cannot_stop_is_ended_by_force(folder: Path, monkeypatch: pytest.MonkeyPatch):
    short = [(how, 0.1) for how, _ in postgres_programs.STOP_SECONDS]
    monkeypatch.setattr(postgres_programs, "STOP_SECONDS", short)
    with running(folder, FAST):
        os.kill(pid := pid_of_server(folder), signal.SIGSTOP)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_server_writes_to_its_log_and_not_to_the_terminal(
    folder: Path, capfd: pytest.CaptureFixture[str]
):
    for _ in range(2):
        with running(folder, FAST):
            pass
    assert capfd.readouterr() == ("", "")
    log = folder.with_name("battered.log").read_text()
    assert log.count("ready to accept connections") == 1


# Violence


def test_data_survives_a_killed_server(folder: Path):
    with running(folder) as url:
        word = keep(url)
        os.kill(pid_of_server(folder), signal.SIGKILL)
    with running(folder, FAST) as url:
        assert kept(url) == word


def test_data_survives_a_killed_caller_and_the_next_start_succeeds_at_once(
    folder: Path, other_process: subprocess.Popen[str]
):
    url = url_of_running(folder)
    assert url
    word = keep(url)
    other_process.kill()
    other_process.wait()
    with running(folder, FAST) as url:
        assert kept(url) == word


def test_next_start_waits_for_a_server_that_is_still_ending(
    folder: Path, other_process: subprocess.Popen[str]
):
    os.kill(pid := pid_of_server(folder), signal.SIGSTOP)
    other_process.kill()
    other_process.wait()
    os.kill(pid, signal.SIGINT)  # what Linux did
    threading.Timer(0.3, os.kill, (pid, signal.SIGCONT)).start()
    with running(folder, FAST) as url:
        assert pid_of_server(folder) != pid
        assert show(url, "fsync") == "off"


def test_killed_caller_leaves_no_server_behind(folder: Path, other_process: subprocess.Popen[str]):
    other_process.kill()
    other_process.wait()
    if sys.platform == "linux":
        wait_until(lambda: not (folder / "postmaster.pid").exists())
        assert "fast shutdown" in folder.with_name("battered.log").read_text()


def test_lock_file_whose_pid_another_program_took_does_not_stop_a_start(folder: Path):
    with running(folder, FAST):
        lock_file = (folder / "postmaster.pid").read_text().splitlines()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as another:
        lines = [str(another.pid), *lock_file[1:]]
        (folder / "postmaster.pid").write_text("\n".join(lines) + "\n")
        if sys.platform == "linux":
            with running(folder, FAST) as url:
                assert show(url, "fsync") == "off"
        another.kill()


# Refusals


def test_second_start_on_one_folder_is_refused_with_one_line(live: tuple[Path, str]):
    folder, url = live
    assert refusal_of(folder, *FAST) == f"PostgreSQL is already running on {folder}"
    assert url_of_running(folder) == url


def test_server_that_holds_no_lock_of_ours_is_not_harmed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(embedded, "RETRY_TIMEOUT", 0.1)
    with running(folder, FAST) as url:
        folder.with_name("battered.lock").unlink()
        told = refusal_of(folder, *FAST)
        assert "already running" in told
        assert "postmaster.pid" in told
        assert url_of_running(folder) == url


def test_failing_start_is_told_in_postgresqls_own_words(folder: Path):
    told = refusal_of(folder, "no_such_setting=1")
    assert "cannot start on" in told
    assert 'unrecognized configuration parameter "no_such_setting"' in told
