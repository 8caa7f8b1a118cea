"""The embedded PostgreSQL, as its tests look at it."""

import os
import subprocess
import uuid
from pathlib import Path

import psycopg
import pytest

from development.embedded import EmbeddedError, running

FAST = ("fsync=off",)
AS_ROOT = os.geteuid() == 0


def pid_of_server(folder: Path) -> int:
    return int((folder / "postmaster.pid").read_text().split()[0])


def show(url: str, setting: str) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(f"SHOW {setting}".encode()).fetchone()
    assert row
    return str(row[0])


def keep(url: str) -> str:
    """Commit a random word, as a setting of the database; `kept` reads it back."""
    word = uuid.uuid4().hex
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE tasks SET application_name = '{word}'".encode())
    return word


def kept(url: str) -> str:
    return show(url, "application_name")


def modes_above(folder: Path) -> dict[Path, tuple[int, int, int]]:
    above = {path: path.stat() for path in folder.parents}
    return {path: (s.st_mode, s.st_uid, s.st_gid) for path, s in above.items()}


def copy_of(data: Path, folder: Path) -> Path:
    """Copy a data folder: a thousand files, for which shutil takes four times as long."""
    subprocess.run(["cp", "-R", data, folder], check=True)  # noqa: S607
    return folder


def refusal_of(folder: Path, *settings: str) -> str:
    """Start a server that is refused in one line; return it."""
    with pytest.raises(EmbeddedError) as error, running(folder, settings):
        pass
    [line] = str(error.value).splitlines()
    assert line.strip()
    return line
