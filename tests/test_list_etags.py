"""ETags of lists: what changes them, and what If-None-Match spares."""

import pytest
from flask import Flask
from listing import get_list
from support import User, assert_error

from config import VERSION


@pytest.mark.parametrize("query", ["", "?limit=1", "?sort=title&q=milk", "?tag=x"])
def test_if_none_match_of_the_list_is_304_until_a_task_changes(alice: User, query: str):
    task, path = alice.create(tags=["x"]), alice.tasks + query
    etag = alice.call("GET", path).headers["ETag"]
    for sent in [etag, f"W/{etag}", "*", f'"x", {etag}']:
        response = alice.call("GET", path, headers={"If-None-Match": sent})
        assert (response.status_code, response.data) == (304, b"")
        assert response.headers["ETag"] == etag
    alice.call("PATCH", f"{task['id']}/complete")
    response = alice.call("GET", path, headers={"If-None-Match": etag})
    assert (response.status_code, response.json[0]["completed"]) == (200, True)
    assert response.headers["ETag"] != etag


def test_if_none_match_of_an_empty_list_is_304(alice: User):
    etag = get_list(alice).headers["ETag"]
    assert alice.call("GET", headers={"If-None-Match": etag}).status_code == 304


def test_every_write_changes_the_etag_and_no_other_users(alice: User, bob: User):
    before, bobs = get_list(alice).headers["ETag"], get_list(bob).headers["ETag"]
    seen = {before}
    task = alice.create()
    for write in [
        lambda: None,
        lambda: alice.call("PATCH", task["id"], json={"title": "b"}),
        lambda: alice.call("PATCH", f"{task['id']}/complete"),
        lambda: alice.call("DELETE", task["id"]),
    ]:
        write()
        etag = get_list(alice).headers["ETag"]
        assert etag not in seen
        seen.add(etag)
    assert get_list(bob).headers["ETag"] == bobs
    assert alice.call("GET", headers={"If-None-Match": before}).status_code == 200


def test_etag_names_the_version_of_the_api(alice: User):
    assert get_list(alice).headers["ETag"].startswith(f'"{VERSION}-')


def test_etag_of_another_epoch_is_not_fresh(
    app: Flask, alice: User, monkeypatch: pytest.MonkeyPatch
):
    """As after a backup was restored that did not have this user, whose versions begin anew."""
    before = get_list(alice).headers["ETag"]
    monkeypatch.setitem(app.config, "CHANGES_EPOCH", "restored")
    response = alice.call("GET", headers={"If-None-Match": before})
    assert (response.status_code, response.headers["ETag"] != before) == (200, True)


def test_bad_parameter_is_422_also_with_a_fresh_etag(alice: User):
    headers = {"If-None-Match": get_list(alice).headers["ETag"]}
    response = alice.call("GET", f"{alice.tasks}?limit=0", headers=headers)
    assert_error(response, 422, "validation_error")
