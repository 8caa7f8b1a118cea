"""The owner of the embedded PostgreSQL's data, which stays the same whoever starts the server.

Only the account that runs the tests may enter pytest's folders, so they stand in for root's home.
"""

import os
import pwd
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from embedding import AS_ROOT, FAST, copy_of, keep, kept, modes_above
from processes import wait_until

from development import embedded
from development.embedded import running

NOBODY = pwd.getpwnam("nobody").pw_uid if AS_ROOT else os.geteuid()
ANOTHER_USER = 65000 if AS_ROOT else os.geteuid()  # an id no account needs to have

RUN_AND_BE_KILLED = """
import os, pathlib, signal, sys
from development import embedded
embedded._namespaces_allowed = lambda: False
with embedded.running(pathlib.Path(sys.argv[1]), ["fsync=off"]):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def start_twice(folder: Path) -> None:
    with running(folder, FAST) as url:
        word = keep(url)
    with running(folder, FAST) as url:
        assert kept(url) == word


def owners(folder: Path) -> set[int]:
    return {path.stat().st_uid for path in (folder, *folder.rglob("*"))}


@pytest.fixture
def no_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forbid user namespaces, as Docker does by default."""
    monkeypatch.setattr(embedded, "_namespaces_allowed", lambda: False)


def test_data_of_this_account_stays_its_own(pristine: Path, tmp_path: Path):
    folder = copy_of(pristine, tmp_path / "postgres")
    start_twice(folder)
    assert owners(folder) == {os.geteuid() if embedded._namespaces_allowed() else NOBODY}


@pytest.mark.usefixtures("no_namespaces")
def test_without_namespaces_the_user_nobody_runs_the_server_in_roots_private_folder(
    pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    programs = copy_of(embedded.binaries().parent, tmp_path / "programs")
    monkeypatch.setattr(embedded, "binaries", lambda: programs / "bin")
    folder = copy_of(pristine, tmp_path / "postgres")
    above = modes_above(folder)
    start_twice(folder)
    assert owners(folder) == {NOBODY}
    assert modes_above(folder) == above


@pytest.mark.usefixtures("no_namespaces")
def test_without_namespaces_a_first_start_makes_a_folder_only_root_may_enter(tmp_path: Path):
    folder = tmp_path / ".data" / "postgres"
    start_twice(folder)
    made = folder.parent.stat()
    assert (stat.S_IMODE(made.st_mode), made.st_uid) == (0o700, os.geteuid())


def test_without_namespaces_it_ends_with_the_killed_process_that_started_it(
    pristine: Path, tmp_path: Path
):
    folder = copy_of(pristine, tmp_path / "postgres")
    command = [sys.executable, "-c", RUN_AND_BE_KILLED, str(folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    wait_until(lambda: not (folder / "postmaster.pid").exists())


def test_data_of_an_ordinary_user_stays_theirs_when_root_starts_it(pristine: Path, tmp_path: Path):
    folder = copy_of(pristine, tmp_path / "postgres")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, ANOTHER_USER, -1)
    start_twice(folder)
    assert owners(folder) == {ANOTHER_USER}
