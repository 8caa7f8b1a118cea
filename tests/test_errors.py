"""Every error has the one shape, and reveals nothing of its cause."""

import logging
from collections.abc import Callable

import psycopg
import pytest
from flask import Flask
from support import User, assert_error
from werkzeug.exceptions import HTTPException, default_exceptions

import errors
from database import DatabaseUnavailable
from observability.observe import is_our_fault
from sqlstates import STATUS_OF_SQLSTATE
from trail import Trail


def failing(error: Exception) -> Callable[..., None]:
    def fetch(*_: object, **__: object) -> None:
        raise error

    return fetch


@pytest.mark.parametrize(
    "error", [RuntimeError("cause"), KeyError("cause"), RecursionError("cause")]
)
def test_fault_of_ours_is_500_and_its_cause_stands_in_the_log_alone(
    app: Flask,
    alice: User,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
):
    monkeypatch.setattr(app.extensions["database"], "fetch", failing(error))
    response = alice.call("GET")
    assert_error(response, 500, "internal_error", "Something went wrong on our side.")
    assert "cause" not in response.text
    assert "cause" in caplog.text
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("sqlstate", "status", "code"),
    [
        ("22021", 422, "validation_error"),
        ("23505", 409, "conflict"),
        ("42501", 500, "internal_error"),
        ("57014", 503, "unavailable"),
    ],
)
def test_sqlstate_decides_the_status(
    application: Flask, monkeypatch: pytest.MonkeyPatch, sqlstate: str, status: int, code: str
):
    error = psycopg.errors.lookup(sqlstate)("cause")
    monkeypatch.setattr(application.extensions["database"], "fetch", failing(error))
    response = User(application.test_client(), "alice").call("GET")
    assert_error(response, status, code)
    assert "cause" not in response.text


def test_database_that_is_away_is_503_with_its_cause_in_the_log_alone(
    application: Flask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    error = DatabaseUnavailable("secret host")
    monkeypatch.setattr(application.extensions["database"], "fetch", failing(error))
    response = User(application.test_client(), "alice").call("GET")
    assert_error(response, 503, "unavailable")
    assert "secret host" not in response.text
    assert "secret host" in caplog.text


@pytest.mark.parametrize("error", default_exceptions.values(), ids=lambda error: error.__name__)
def test_every_http_error_of_the_framework_has_the_shape(
    application: Flask, error: type[HTTPException]
):
    with application.test_request_context():
        response = errors.answer_http_error(error())
    assert response.status_code == error.code
    assert response.json.keys() == {"error", "message"}
    assert response.json["message"].endswith(".")


def test_table_of_sqlstates_names_no_unknown_status():
    assert set(STATUS_OF_SQLSTATE.values()) <= errors.CODE_OF_STATUS.keys()


@pytest.mark.parametrize("status", [each for each in errors.CODE_OF_STATUS if each >= 500])
def test_status_of_our_own_faults_is_logged_as_one(status: int):
    trail = Trail({})
    trail.status = status
    assert is_our_fault(trail)


def test_success_logs_no_warning(alice: User, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        alice.create()
    assert caplog.text == ""
