"""Tables of users: keyed by the user, and row-level security under each statement's WHERE."""

import psycopg
import pytest
from support import EVERY_TABLE, User, tables_with_users, write_to_every_table

from statements import QUERIES


@pytest.mark.parametrize("table", tables_with_users())
def test_table_of_users_has_one_policy_and_it_names_the_owner(
    postgresql: psycopg.Connection, table: str
):
    policies = """
        SELECT relrowsecurity, polpermissive, polcmd, pg_get_expr(polqual, polrelid), polwithcheck
        FROM pg_class LEFT JOIN pg_policy ON polrelid = pg_class.oid
        WHERE pg_class.oid = %s::regclass
        """
    owner = "(user_id = current_setting('app.user_id'::text, true))"
    assert postgresql.execute(policies, [table]).fetchall() == [(True, True, "*", owner, None)]


def test_primary_key_of_a_table_of_users_begins_with_the_user(postgresql: psycopg.Connection):
    """A user's rows stand together, and every statement finds them by it."""
    keys = dict(
        postgresql.execute(
            "SELECT conrelid::regclass::text, pg_get_constraintdef(oid)"
            " FROM pg_constraint WHERE contype = 'p'"
        ).fetchall()
    )
    for table in tables_with_users():
        assert keys[table].startswith("PRIMARY KEY (user_id"), table


@pytest.mark.parametrize("table", tables_with_users())
def test_table_of_users_shows_the_api_only_the_rows_of_the_named_user(
    alice: User, bob: User, database_url: str, table: str
):
    for user in [alice, bob]:
        write_to_every_table(user)
    count = f"SELECT user_id FROM {table} GROUP BY user_id"  # noqa: S608
    with psycopg.connect(database_url, autocommit=True) as as_api:
        assert as_api.execute(count).fetchall() == []
        with as_api.transaction():
            as_api.execute("SELECT set_config('app.user_id', 'alice', true)")
            assert as_api.execute(count).fetchall() == [("alice",)], EVERY_TABLE
        assert as_api.execute(count).fetchall() == []


def test_statement_without_an_owner_in_its_where_still_reads_ones_own_rows_alone(
    alice: User, bob: User, monkeypatch: pytest.MonkeyPatch
):
    mine, _ = alice.create(), bob.create()
    query = QUERIES["select_tasks"]
    leaky = query.text.replace("user_id = $1 AND", "user_id = coalesce(user_id, $1) AND")
    assert leaky != query.text
    monkeypatch.setitem(
        QUERIES, "select_tasks", type(query)("select_tasks", leaky, query.parameters)
    )
    assert alice.all() == [mine]
