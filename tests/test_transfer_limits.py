"""Files however large and clients however slow keep nobody else waiting."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from io import BytesIO
from itertools import count
from threading import Event, Semaphore

import pytest
from batches import batch, each
from flask import Flask
from idempotent import KEY, assert_replayed
from support import JSON, NewApp, User, assert_error
from transfers import EACH_FORMAT, bring, export, send, store, written
from werkzeug.test import TestResponse

from capacity import turns
from capacity.transfer_limits import (
    BODIES_AT_ONCE,
    IMPORTS_AT_ONCE,
    LARGE_BODY,
    LARGE_RESPONSE,
    PLACE_TIMEOUT,
    RESPONSES_AT_ONCE,
)


@pytest.fixture
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ["blueprints.transfer", "capacity.transfer_limits"]:
        monkeypatch.setattr(f"{module}.PLACE_TIMEOUT", 0.1)


def test_client_that_reads_slowly_keeps_no_connection(new_app: NewApp):
    alice = User(new_app(database_pool_size=1).test_client(), "alice")
    bring(alice, [{"title": f"{number}"} for number in range(600)])
    parts = iter(alice.call("GET", "export", buffered=False).response)
    begun = [next(parts), next(parts)]
    assert len(alice.all()) == 600
    assert len(json.loads(b"".join([*begun, *parts]))) == 600


def test_statement_larger_than_the_buffers_of_a_socket_arrives(alice: User):
    tasks = [{"title": f"{number}", "description": "😀" * 5000} for number in range(400)]
    bring(alice, tasks)
    assert [task["title"] for task in written(alice)] == [task["title"] for task in tasks]


class SlowFile(BytesIO):
    """An empty list, sent only once `done` is set."""

    def __init__(self, begun: Semaphore, done: Event) -> None:
        super().__init__(b"[]")
        self.begun = begun
        self.done = done

    def read(self, size: int | None = -1) -> bytes:
        self.begun.release()
        self.done.wait()
        return super().read(size)


@contextmanager
def slow_imports(*users: User) -> Iterator[None]:
    """Keep a file of each user on its way; all of them arrive in the end."""
    begun, done = Semaphore(0), Event()

    def import_slowly(user: User) -> int:
        sent = {"content_length": 2, "content_type": "application/json"}
        return user.call("POST", "import", input_stream=SlowFile(begun, done), **sent).status_code

    with ThreadPoolExecutor() as pool:
        responses = [pool.submit(import_slowly, user) for user in users]
        try:
            assert all(begun.acquire(timeout=10) for _ in users)
            yield
        finally:
            done.set()
        assert {each.result() for each in responses} == {201}


@pytest.mark.usefixtures("_short_waits")
def test_user_sends_few_large_bodies_at_once(app: Flask, alice: User, bob: User):
    bodies, large = app.extensions["bodies"], json.dumps({"title": "x"}).ljust(LARGE_BODY + 1)
    in_chunks = {"input_stream": BytesIO(b"{}"), "headers": JSON | {"Transfer-Encoding": "chunked"}}
    broken = {"wsgi.input": Broken(), "CONTENT_LENGTH": str(LARGE_BODY + 1)}
    with ExitStack() as others:
        for _ in range(BODIES_AT_ONCE):
            others.callback(bodies.release, bodies.acquire("alice", 0))
        assert_error(alice.call("POST", data=large, headers=JSON), 503, "unavailable")
        assert_error(alice.call("POST", **in_chunks), 503, "unavailable")
        assert alice.call("POST", data=large[:LARGE_BODY], headers=JSON).status_code == 201
        assert bob.call("POST", data=large, headers=JSON).status_code == 201
    for sent, status in [({"environ_overrides": broken}, 400), ({"data": large}, 201)]:
        for _ in range(BODIES_AT_ONCE + 1):
            assert alice.call("POST", headers=JSON, **sent).status_code == status


def test_body_that_has_arrived_waits_for_no_place(alice: User, monkeypatch: pytest.MonkeyPatch):
    large = json.dumps([{"title": "x"}]).ljust(LARGE_BODY + 1)
    taken: list[str] = []
    monkeypatch.setattr(
        "request_bodies.body_place", lambda user_id: nullcontext(taken.append(user_id))
    )
    assert send(alice, large, "application/json").status_code == 201
    assert taken == []
    path = f"{alice.create()['id']}/complete"
    assert alice.call("PATCH", path, data=large, headers=KEY).status_code == 200
    assert taken == ["alice"]


class Broken(BytesIO):
    """A body whose client has gone."""

    def read(self, _: int | None = -1) -> bytes:
        raise OSError


def test_files_on_their_way_keep_no_other_user_from_importing(app: Flask, alice: User):
    with slow_imports(*(User(app.test_client(), f"user {n}") for n in range(IMPORTS_AT_ONCE))):
        assert alice.call("POST", "import", json=[]).status_code == 201


@pytest.mark.usefixtures("_short_waits")
def test_import_beside_as_many_as_there_may_be_is_503_and_others_go_on(app: Flask, alice: User):
    places = app.extensions["import_places"]
    with ExitStack() as others:
        for _ in range(IMPORTS_AT_ONCE):
            places.acquire()
            others.callback(places.release)
        refused = alice.call("POST", "import", json=[])
        assert_error(refused, 503, "unavailable")
        assert int(refused.headers["Retry-After"]) >= 10  # the whole file is sent again
        assert alice.call("GET").status_code == 200
    for _ in range(IMPORTS_AT_ONCE + 1):
        assert alice.call("POST", "import", json=[]).status_code == 201


@pytest.mark.usefixtures("_short_waits")
def test_user_whose_file_is_on_its_way_waits_with_the_next_and_others_do_not(
    alice: User, bob: User
):
    with slow_imports(alice):
        assert_error(alice.call("POST", "import", json=[]), 503, "unavailable")
        assert bob.call("POST", "import", json=[]).status_code == 201
        # Whoever may not send it does not join her queue either.
        assert bob.call("POST", f"{alice.tasks}/import", json=[]).status_code == 401
        assert bob.call("OPTIONS", f"{alice.tasks}/import", json=[]).status_code == 200
    assert alice.call("POST", "import", json=[]).status_code == 201


def test_export_waits_for_a_place_and_a_list_does_not(
    app: Flask, alice: User, owner_url: str, monkeypatch: pytest.MonkeyPatch
):
    store(owner_url, 300, 5000)
    waited: list[float] = []
    downloads = app.extensions["downloads"]
    monkeypatch.setattr(downloads, "acquire", lambda _, timeout: waited.append(timeout))
    for path in ["export", ""]:
        assert_error(alice.call("GET", path), 503, "unavailable")
    assert waited == [PLACE_TIMEOUT, 0]


@pytest.mark.usefixtures("_short_waits")
def test_user_receives_few_large_responses_at_once(alice: User, bob: User, owner_url: str):
    store(owner_url, 300, 5000)
    large = ["", "export", "", "export"]
    held = [alice.call("GET", path, buffered=False) for path in large]
    assert {each.status_code for each in held} == {200}
    assert len(held) == RESPONSES_AT_ONCE
    for path in large:
        assert_error(alice.call("GET", path), 503, "unavailable")
    assert alice.call("GET", f"{alice.tasks}?limit=1").status_code == 200
    assert bob.call("GET", "export").status_code == 200
    held.pop().close()
    for path in large:
        assert alice.call("GET", path).status_code == 200
    for response in held:
        response.close()


LONG_FILES = {
    "application/json": json.dumps([{"title": "x"}] * 1000),
    "text/csv": "title" + "\n" * 1000,
    "text/calendar": "BEGIN:VCALENDAR\r" + "A:\r" * 1000,
}


@pytest.mark.no_cover
@EACH_FORMAT
def test_long_file_gives_others_their_turn_whatever_it_holds(
    alice: User, owner_url: str, monkeypatch: pytest.MonkeyPatch, content_type: str
):
    pauses: list[float] = []
    monkeypatch.setattr("capacity.turns.sleep", pauses.append)
    monkeypatch.setattr("capacity.turns.monotonic", count(step=turns.TURN / 100).__next__)
    send(alice, LONG_FILES[content_type], content_type)
    assert len(pauses) >= 9
    store(owner_url, 1000, 1)
    pauses.clear()
    if content_type != "application/json":  # PostgreSQL's own text, page by page
        export(alice, content_type)
        assert len(pauses) >= 9


def test_turn_begins_anew_after_each_pause(monkeypatch: pytest.MonkeyPatch):
    now, pauses = 0.0, []
    monkeypatch.setattr(turns, "monotonic", lambda: now)
    monkeypatch.setattr(turns, "sleep", pauses.append)
    for _ in turns.in_turns(range(9)):
        now += 0.4 * turns.TURN
    assert len(pauses) == 3


def test_large_response_to_a_write_is_sent_however_many_its_user_receives(
    alice: User,
):
    bring(alice, [{"title": "x", "description": "😀" * 5000}] * 100)
    tasks = alice.all()
    held = [alice.call("GET", "export", buffered=False) for _ in range(RESPONSES_AT_ONCE)]
    response = batch(alice, *each("complete", tasks))
    assert (response.status_code, len(response.data) > LARGE_RESPONSE) == (200, True)
    for response in held:
        response.close()


def test_large_response_is_replayed_few_times_at_once(alice: User):
    """A request of 3 KB would be answered by megabytes, for nothing."""
    bring(alice, [{"title": "x", "description": "😀" * 5000}] * 100)
    body = {"operations": each("complete", alice.all())}

    def complete() -> TestResponse:
        return alice.call("POST", "batch", json=body, headers=KEY, buffered=False)

    first, *held = [complete() for _ in range(1 + RESPONSES_AT_ONCE)]
    assert_error(complete(), 503, "unavailable")
    held.pop().close()
    held += [first, complete()]
    assert_replayed(held[-1], first)
    for response in held:
        response.close()
