"""Each error of PostgreSQL has its status."""

import psycopg
import pytest
from pools import NewPool, insert

from sqlstates import status_of
from statements import QUERIES, Query


@pytest.mark.parametrize("prepare", [True, False])
def test_error_with_a_code_that_nobody_knows_is_500(
    new_pool: NewPool, prepare: bool, monkeypatch: pytest.MonkeyPatch
):
    text = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'ZZ123'; END $$"
    monkeypatch.setitem(QUERIES, "fail", Query("fail", text, ()))
    db = new_pool(database_prepare=prepare)
    with pytest.raises(psycopg.Error) as error:
        db.fetch("fail")
    assert insert(db)
    assert (error.value.sqlstate, status_of(error.value)) == ("ZZ123", 500)


@pytest.mark.parametrize(
    ("status", "codes"),
    [
        (409, "23503 23505"),
        (422, "22001 22003 22021 22P02 22P05 23514"),
        (503, "08000 08006 0A000 25006 25P03 25P04 40001 40P01 53100 53200 53300 55P03"),
        (503, "57014 57P01 57P02 57P03 57P05 57ZZZ"),
        (500, "0A001 23502 25P02 26000 42501 42601 42P01 55000 XX000 ZZ123"),
    ],
)
def test_every_sqlstate_has_its_status(status: int, codes: str):
    for code in codes.split():
        error = psycopg.DatabaseError()
        error.sqlstate = code
        assert (code, status_of(error)) == (code, status)


def test_error_without_sqlstate_is_503_only_where_the_connection_is_to_blame():
    assert status_of(psycopg.OperationalError("the connection is lost")) == 503
    assert status_of(psycopg.ProgrammingError("a mistake of ours")) == 500
