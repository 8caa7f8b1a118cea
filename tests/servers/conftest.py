"""What the tests of real servers are given: gunicorn, copies of the project, and data folders."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import processes
import pytest
from embedding import FAST
from processes import Process, gunicorn

from development.embedded import running


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return processes.copy_of_project(tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the project, with the data that the tests before have left."""
    folder = processes.copy_of_project(tmp_path_factory.mktemp("run"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Path]:
    """A copy of the project in which nothing has run."""
    folder = processes.copy_of_project(tmp_path)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def api(folder: Path, url: str) -> Iterator[Process]:
    with gunicorn(folder, url) as process:
        yield process


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a data folder to copy from, beside half of one from an interrupted first start."""
    parent = tmp_path_factory.mktemp("embedded")
    (parent / ".postgres.initdb-1" / "base").mkdir(parents=True)
    (parent / "postgres").mkdir()
    with running(parent / "postgres", FAST):
        pass
    return parent / "postgres"
