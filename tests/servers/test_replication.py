"""A real streaming replica serves large reads, and nobody reads less than they wrote."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import processes
import psycopg
import pytest
from listing import SLOW_WORD, fill_with_long_texts
from own_postgres import OwnPostgres, migrated_on, standby_of
from processes import GREENLETS, Process, gunicorn, tasks_of, wait_until
from support import token_for

AWAY = "the replica is away"
BACK = "the replica is back"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("replicas")


@pytest.fixture(scope="module")
def primary(folder: Path) -> Iterator[OwnPostgres]:
    with migrated_on(folder / "primary") as primary:
        yield primary


@pytest.fixture(scope="module")
def replica(primary: OwnPostgres, folder: Path) -> Iterator[OwnPostgres]:
    replica = standby_of(primary, folder / "replica")
    yield replica
    replica.stop()


@pytest.fixture(scope="module")
def apis(primary: OwnPostgres, replica: OwnPostgres, folder: Path) -> Iterator[list[Process]]:
    """Two API processes that share nothing but the databases."""
    settings = {"DATABASE_REPLICA_URL": replica.url, "DATABASE_POOL_SIZE": 3, "RATE_LIMIT": "off"}
    one, two = (processes.copy_of_project(folder / name) for name in ("one", "two"))
    with (
        gunicorn(one, primary.url, measure=GREENLETS, **settings) as first,
        gunicorn(two, primary.url, **settings) as second,
    ):
        yield [first, second]


@contextmanager
def replay_paused(replica: OwnPostgres) -> Iterator[None]:
    replica.execute("SELECT pg_wal_replay_pause()")
    state = "SELECT pg_get_wal_replay_pause_state()"
    wait_until(lambda: replica.rows(state) == [("paused",)])
    try:
        yield
    finally:
        replica.execute("SELECT pg_wal_replay_resume()")


def wait_until_replayed(primary: OwnPostgres, replica: OwnPostgres) -> None:
    [written] = primary.rows("SELECT pg_current_wal_lsn()")
    replayed = "SELECT pg_last_wal_replay_lsn() >= %s"
    wait_until(lambda: replica.rows(replayed, *written) == [(True,)])


def titles(api: Process, user: str) -> list[str]:
    response = api.call("GET", user=user)
    assert response.status_code == 200, response.text
    return [task["title"] for task in response.json]


@contextmanager
def told_apart(primary: OwnPostgres, replica: OwnPostgres, user: str) -> Iterator[None]:
    """Make the primary's titles differ, by a change that no API made and the replica lacks."""
    wait_until_replayed(primary, replica)
    with replay_paused(replica):
        no_trigger = "SET session_replication_role = replica"
        rename = "UPDATE tasks SET title = 'At the primary' WHERE user_id"
        primary.execute(no_trigger, f"{rename} = '{user}'")
        yield


@contextmanager
def no_patience(replica: OwnPostgres) -> Iterator[None]:
    """Have the standby cancel at once whatever is in the way of replay."""
    replica.alter("SET max_standby_streaming_delay = 0")
    try:
        yield
    finally:
        replica.alter("RESET max_standby_streaming_delay")


def conflicts(replica: OwnPostgres) -> int:
    elsewhere = replica.url.replace("/tasks?", "/postgres?")  # where nothing is in its own way
    with psycopg.connect(elsewhere) as connection:
        count = "SELECT sum(confl_snapshot)::int FROM pg_stat_database_conflicts"
        [found] = connection.execute(count).fetchone() or [0]
        return int(found)


def test_list_comes_from_the_replica_and_a_single_task_from_the_primary(
    apis: list[Process], primary: OwnPostgres, replica: OwnPostgres
):
    task_id = apis[0].create("bob", "At the replica")
    with told_apart(primary, replica, "bob"):
        for api in apis:
            assert titles(api, "bob") == ["At the replica"]
            assert api.call("GET", task_id, user="bob").json["title"] == "At the primary"
            exported = api.call("GET", "export", user="bob", headers={"Accept": "application/json"})
            assert "At the replica" in exported.text


def test_everyone_reads_what_they_wrote_while_the_replica_lags(
    apis: list[Process], replica: OwnPostgres
):
    with replay_paused(replica):
        for number in range(10):
            writer, reader = apis[number % 2], apis[(number + 1) % 2]
            user = f"lagging-{number}"
            task_id = writer.create(user, "first")
            assert titles(reader, user) == ["first"]
            reader.create(user, "second")
            assert titles(writer, user) == ["second", "first"]
            assert writer.call("DELETE", task_id, user=user).status_code == 204
            assert titles(reader, user) == ["second"]


def test_everyone_reads_what_they_wrote_while_the_replica_follows(apis: list[Process]):
    def write_and_read(user: str) -> None:
        written: list[str] = []
        for number in range(25):
            apis[number % 2].create(user, str(number))
            written.insert(0, str(number))
            assert titles(apis[(number + 1) % 2], user) == written

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write_and_read, [f"following-{number}" for number in range(4)]))


def test_write_that_waits_for_a_standby_is_not_read_before_the_primary_shows_it(
    apis: list[Process], primary: OwnPostgres, replica: OwnPostgres
):
    """Its row at the replica would be a 404 at the primary, a cursor behind it a 422."""
    writer, reader = apis  # a user has one connection in each
    writer.create("grace", "shown")
    replayed = "SELECT FROM tasks WHERE title = 'waits'"
    with ThreadPoolExecutor(1) as pool:
        primary.alter("SET synchronous_standby_names = 'nowhere'")
        try:
            waiting = pool.submit(writer.create, "grace", "waits")
            wait_until(lambda: replica.rows(replayed))
            assert titles(reader, "grace") == ["shown"]
            first = reader.call("GET", "changes", user="grace").json
            again = reader.call("GET", f"changes?since={first['next']}", user="grace")
            assert again.status_code == 200, again.text
        finally:
            primary.alter("RESET synchronous_standby_names")
        waiting.result()
    assert titles(reader, "grace") == ["waits", "shown"]


@pytest.mark.parametrize("fails", ["away", "frozen"])
def test_replica_that_fails_slows_one_request_and_fails_none_until_it_is_back(
    apis: list[Process], primary: OwnPostgres, replica: OwnPostgres, fails: str
):
    api = apis[0]
    user = f"carol-{fails}"
    api.create(user, "At the replica")
    wait_until_replayed(primary, replica)
    before = api.output().count(AWAY), api.output().count(BACK)
    with getattr(replica, fails)():
        started = time.monotonic()
        assert titles(api, user) == ["At the replica"]
        assert time.monotonic() - started < 5
        started = time.monotonic()
        for _ in range(10):
            assert titles(api, user) == ["At the replica"]
        assert time.monotonic() - started < 8  # ten that each waited would take ten seconds
        assert api.output().count(AWAY) == before[0] + 1
    wait_until(lambda: api.output().count(BACK) == before[1] + 1)
    with told_apart(primary, replica, user):
        assert titles(api, user) == ["At the replica"]


def test_read_in_the_way_of_replay_is_served_by_the_primary_and_the_replica_stays(
    apis: list[Process], primary: OwnPostgres, replica: OwnPostgres
):
    api = apis[0]
    with psycopg.connect(primary.url) as connection:
        fill_with_long_texts(connection, "erin")
    search = f"{tasks_of('erin')}?q={SLOW_WORD}"
    api.create("frank", "x")
    wait_until_replayed(primary, replica)
    away, cancelled = api.output().count(AWAY), conflicts(replica)

    def is_cancelled_on_the_replica() -> bool:
        found = pool.submit(api.request, "GET", search, token=token_for("erin"))
        while not found.done():
            primary.execute("UPDATE tasks SET tags = '{}' WHERE user_id = 'frank'", "VACUUM tasks")
        assert found.result().status_code == 200
        return conflicts(replica) > cancelled

    with no_patience(replica), ThreadPoolExecutor(1) as pool:
        wait_until(is_cancelled_on_the_replica)
    assert api.output().count(AWAY) == away
    with told_apart(primary, replica, "frank"):
        assert titles(api, "frank") == ["x"]


def test_replica_whose_replay_stopped_with_a_lock_is_as_one_that_is_away(
    apis: list[Process], primary: OwnPostgres, replica: OwnPostgres
):
    """Every list would wait a second for the lock, and no log or metric tell why."""
    api = apis[0]
    api.create("heidi", "x")
    locked = "SELECT FROM pg_locks WHERE relation = 'tasks'::regclass AND granted"
    wait_until_replayed(primary, replica)
    before = api.output().count(AWAY), api.output().count(BACK)
    with psycopg.connect(primary.url) as locking, ExitStack() as paused:
        locking.execute("LOCK tasks")
        locking.execute("SELECT pg_current_xact_id(), pg_switch_wal()")
        wait_until(lambda: replica.rows(locked))
        paused.enter_context(replay_paused(replica))
        locking.commit()
        assert titles(api, "heidi") == ["x"]
        assert api.output().count(AWAY) == before[0] + 1
        started = time.monotonic()
        for _ in range(10):
            assert titles(api, "heidi") == ["x"]
        assert time.monotonic() - started < 4  # ten that each waited would take five seconds
        time.sleep(2)
        assert api.output().count(BACK) == before[1]
    wait_until(lambda: api.output().count(BACK) == before[1] + 1)


def test_replica_of_another_primary_is_not_read(
    primary: OwnPostgres, replica: OwnPostgres, folder: Path
):
    """With the same version of a user, it would serve other tasks as theirs."""
    with migrated_on(folder / "other") as other:
        project = processes.copy_of_project(folder / "elsewhere")
        with gunicorn(project, other.url, DATABASE_REPLICA_URL=replica.url) as api:
            api.create("ivan", "Elsewhere")
            assert titles(api, "ivan") == ["Elsewhere"]
            assert "is a replica of another primary" in api.output()


def test_replica_without_the_tables_is_as_one_that_is_away(primary: OwnPostgres, folder: Path):
    with_replica = {"DATABASE_REPLICA_URL": primary.url.replace("/tasks?", "/postgres?")}
    project = processes.copy_of_project(folder / "none")
    with gunicorn(project, primary.url, **with_replica) as api:
        api.create("dave", "x")
        assert titles(api, "dave") == ["x"]
        assert AWAY in api.output()
