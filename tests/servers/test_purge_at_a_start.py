"""The purge at each start of `make run`."""

from pathlib import Path

import processes
import psycopg
from embedding import FAST
from processes import manage_run

import migrate
from development import embedded

REFUSE = r"""
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION E'not\n\ttoday'; END $$;
CREATE TRIGGER refuse BEFORE DELETE ON audit_log EXECUTE FUNCTION refuse();
"""


def test_purge_that_fails_is_told_in_one_line_and_the_api_starts(tmp_path: Path):
    folder = processes.copy_of_project(tmp_path)
    with embedded.running(folder / ".data" / "postgres", FAST) as url:
        migrate.migrate(url)
        with psycopg.connect(url, autocommit=True) as owner:
            owner.execute(REFUSE)
    with manage_run(folder) as process:
        assert "Warning: Not all was deleted: not today." in process.lines()
        assert "Traceback" not in process.output()
        assert process.request("GET", "/readyz").status_code == 200
