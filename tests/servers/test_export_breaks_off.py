"""Exports that break off when the database fails them on their way."""

from http.client import IncompleteRead
from pathlib import Path

import processes
import psycopg
import pytest
from support import token_for
from transfers import store


@pytest.mark.parametrize("version", [(11, "HTTP/1.1"), (10, "HTTP/1.0")], ids=["1.1", "1.0"])
def test_export_that_fails_on_its_way_breaks_off(
    database_url: str, owner_url: str, tmp_path: Path, version: tuple[int, str]
):
    store(owner_url, 6000, 5000)
    folder = processes.copy_of_project(tmp_path)
    with processes.gunicorn(folder, processes.as_url(database_url)) as api:
        connection = api.connect()
        connection._http_vsn, connection._http_vsn_str = version  # type: ignore[attr-defined]
        headers = {"Authorization": f"Bearer {token_for('alice')}"}
        connection.request("GET", processes.tasks_of("alice", "export"), headers=headers)
        response = connection.getresponse()
        assert response.status == 200
        with psycopg.connect(owner_url) as other:
            other.execute("ALTER TABLE tasks RENAME TO gone")
        with pytest.raises((IncompleteRead, ConnectionError)):
            response.read()
        connection.close()
        assert api.is_live()
