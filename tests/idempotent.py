"""Requests under an Idempotency-Key, and responses that are sent again."""

from typing import Any

from support import User
from werkzeug.test import TestResponse

KEY = {"Idempotency-Key": '"8e03978e-40d5-43e8-bc93-6894a57f9324"'}
MILK = {"title": "Grüße 🐄"}
KEPT = ("Content-Type", "ETag", "Location")


def post(user: User, key: dict[str, str] = KEY, **fields: Any) -> TestResponse:
    return user.call("POST", json=MILK | fields, headers=key)


def assert_replayed(response: TestResponse, first: TestResponse) -> None:
    assert (response.status_code, response.data) == (first.status_code, first.data)
    assert [response.headers.get(n) for n in KEPT] == [first.headers.get(n) for n in KEPT]
    assert response.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
