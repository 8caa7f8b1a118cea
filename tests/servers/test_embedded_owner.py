"""Whose the data of the embedded PostgreSQL is, and stays, whoever starts it."""

import os
import pwd
import stat
from pathlib import Path

import pytest
from embedding import AS_ROOT, FAST, copy_of, keep, kept, line_of, modes_above

import embedded
from embedded import EmbeddedError, running

NOBODY = pwd.getpwnam("nobody").pw_uid if AS_ROOT else os.geteuid()
ANOTHER_USER = 65000  # an id no account needs to have


def open_to_all(path: Path) -> bool:
    return all(place.stat().st_mode & stat.S_IXOTH for place in (path, *path.parents))


def starts_for_another(folder: Path) -> bool:
    """Start it twice; False where root's binaries are closed to others, which one line reports."""
    if AS_ROOT and not open_to_all(embedded.binaries()):
        with pytest.raises(EmbeddedError, match="may not enter"), running(folder, FAST):
            pass
        return False
    with running(folder, FAST) as url:
        word = keep(url)
    with running(folder, FAST) as url:
        assert kept(url) == word
    return True


@pytest.fixture
def no_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "_namespaces_allowed", lambda: False)


@pytest.mark.usefixtures("no_namespaces")
def test_without_namespaces_root_hands_the_data_alone_to_nobody(pristine: Path, open_folder: Path):
    folder = copy_of(pristine, open_folder / "postgres")
    above = modes_above(folder)
    owner = NOBODY if starts_for_another(folder) else os.geteuid()
    assert {path.stat().st_uid for path in (folder, *folder.rglob("*"))} == {owner}
    assert modes_above(folder) == above


@pytest.mark.usefixtures("no_namespaces")
def test_without_namespaces_a_first_start_makes_a_folder_only_nobody_may_enter(
    open_folder: Path,
):
    folder = open_folder / ".data" / "postgres"
    if starts_for_another(folder):
        made = folder.parent.stat()
        assert stat.S_IMODE(made.st_mode) == (0o710 if AS_ROOT else 0o700)
        assert made.st_uid == os.geteuid()


@pytest.mark.usefixtures("no_namespaces")
@pytest.mark.parametrize("closed", ["data", "binaries"])
def test_closed_folder_is_named_in_one_line_and_left_alone(
    closed: str, tmp_path: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    (kept_data := tmp_path / "postgres").mkdir()
    tools = {"data": embedded.binaries(), "binaries": tmp_path / "bin"}[closed]
    folder = {"data": kept_data, "binaries": open_folder / "postgres"}[closed]
    monkeypatch.setattr(embedded, "binaries", lambda: tools)
    tmp_path.chmod(0o700 if AS_ROOT else 0)  # root enters it all the same, nobody does not
    with pytest.raises(EmbeddedError) as error, running(folder):
        pass
    tmp_path.chmod(0o700)
    assert str(tmp_path) in line_of(error)
    assert not AS_ROOT or "run as an ordinary user or set DATABASE_URL" in line_of(error)
    assert kept_data.stat().st_uid == os.geteuid()


def test_data_of_an_ordinary_user_stays_theirs_when_root_starts_it(
    pristine: Path, open_folder: Path
):
    folder = copy_of(pristine, open_folder / "postgres")
    owner = ANOTHER_USER if AS_ROOT else os.geteuid()
    for path in (folder, *folder.rglob("*")):
        os.chown(path, owner, -1)
    starts_for_another(folder)
    assert {path.stat().st_uid for path in (folder, *folder.rglob("*"))} == {owner}
