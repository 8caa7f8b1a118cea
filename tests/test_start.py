"""The start: which addresses and roles of the database are refused at once, in one line."""

from typing import Any

import psycopg
import pytest
from support import settings_for

import migrate
from config import ConfigError
from migrate import require_migrated


def test_start_in_a_role_without_rights_is_refused(
    database_url: str, postgresql: psycopg.Connection
):
    postgresql.execute("REVOKE SELECT ON schema_migrations FROM tasks_api")
    postgresql.commit()
    with pytest.raises(ConfigError, match="make migrate"):
        require_migrated(settings_for(database_url))


def test_start_in_the_role_of_the_owner_warns_that_no_policy_applies(
    owner_url: str, database_url: str, caplog: pytest.LogCaptureFixture
):
    require_migrated(settings_for(database_url))
    assert caplog.messages == []
    require_migrated(settings_for(owner_url))
    [line] = caplog.messages
    assert line.startswith("row-level security does not apply to the role ")


def test_start_in_a_role_that_runs_no_triggers_is_refused(
    database_url: str, postgresql: psycopg.Connection
):
    name = postgresql.info.dbname
    postgresql.execute(f'ALTER DATABASE "{name}" SET session_replication_role = replica')
    postgresql.commit()
    with pytest.raises(ConfigError, match="session_replication_role"):
        require_migrated(settings_for(database_url))


def test_start_on_triggers_that_a_restore_left_disabled_is_refused(
    database_url: str, postgresql: psycopg.Connection
):
    ours = "SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE NOT tgisinternal"
    for table, trigger in postgresql.execute(ours).fetchall():
        for state in ("DISABLE", "ENABLE REPLICA"):
            postgresql.execute(f"ALTER TABLE {table} {state} TRIGGER {trigger}".encode())
            postgresql.commit()
            with pytest.raises(ConfigError, match=f"ALTER TABLE {table} ENABLE TRIGGER USER"):
                require_migrated(settings_for(database_url))
        postgresql.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER".encode())
    postgresql.commit()
    require_migrated(settings_for(database_url))


def test_start_beside_a_disabled_trigger_of_somebody_else_is_not_refused(
    database_url: str, postgresql: psycopg.Connection
):
    postgresql.execute(
        "CREATE TRIGGER theirs BEFORE UPDATE ON tasks"
        " FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    )
    postgresql.execute("ALTER TABLE tasks DISABLE TRIGGER theirs")
    postgresql.commit()
    require_migrated(settings_for(database_url))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("dbname=nowhere", 'database "nowhere" does not exist'),
        # A server that asks for a password does not tell whether there is such a role.
        ("user=nobody", '(role|password).+"nobody".+`make migrate` creates a missing role'),
        ("sslmode=perhaps", 'invalid sslmode value: "perhaps"'),
        ("port=99999", 'invalid port number: "99999"'),
        ("options='-c nonsense=1'", 'unrecognized configuration parameter "nonsense"'),
    ],
)
def test_start_with_a_wrong_address_is_refused(database_url: str, wrong: str, told: str):
    with pytest.raises(ConfigError, match=f"^DATABASE_URL is wrong: {told}"):
        require_migrated(settings_for(f"{database_url} {wrong}"))


@pytest.mark.parametrize(
    "refusal",
    [
        "certificate verify failed",
        'server certificate for "db" (and 1 other name) does not match host name "127.0.0.1"',
        "connection requires a valid client certificate",
        'private key file "/key.pem" has group or world access',
    ],
)
def test_refusal_by_tls_counts_as_a_wrong_address(refusal: str):
    """In the words of libpq and PostgreSQL; the server of the tests speaks no TLS."""
    found = migrate.WRONG_ADDRESS.search(f'connection to server at "127.0.0.1" failed: {refusal}')
    assert found
    assert found[0] == refusal


@pytest.fixture
def nowhere(database_url: str) -> dict[str, Any]:
    """The parts of an address whose host has no such database."""
    parts = psycopg.conninfo.conninfo_to_dict(database_url) | {"dbname": "nowhere"}
    parts.pop("hostaddr", None)  # one, where the tests name several hosts
    return parts


def test_start_is_not_refused_but_warned_of_while_another_host_may_come_up(
    nowhere: dict[str, Any], caplog: pytest.LogCaptureFixture
):
    nowhere["host"] += ",/nowhere"
    require_migrated(settings_for(psycopg.conninfo.make_conninfo(**nowhere)))
    [line] = caplog.messages
    assert line.startswith("the database cannot be asked, requests get 503 until it can: ")


def test_start_with_an_address_that_is_wrong_at_each_host_is_refused(nowhere: dict[str, Any]):
    nowhere["host"] += f",{nowhere['host']}"
    with pytest.raises(ConfigError, match='wrong: database "nowhere" does not exist'):
        require_migrated(settings_for(psycopg.conninfo.make_conninfo(**nowhere)))
