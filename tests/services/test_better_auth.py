"""A real Better Auth: its tokens are good here, and nothing else that it hands out is."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from http.client import HTTPConnection
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import jwt
import pytest
from flask import Flask
from issuer import ALGORITHMS
from processes import free_port, wait_until
from support import SECRET, User, app_on, assert_error, bearer

import jwks

FOLDER = Path(__file__).parent / "better_auth"
PERSON = {"name": "Alice", "email": "alice@example.com", "password": "only for tests"}


class Session:
    """What a browser has once its user has signed up."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cookies: dict[str, str] = {}
        self.user_id: str = self.request("POST", "/sign-up/email", PERSON)["user"]["id"]

    def request(self, method: str, path: str, body: Any = None) -> Any:
        connection = HTTPConnection("localhost", self.port, timeout=10)
        headers = {
            "Content-Type": "application/json",
            "Origin": f"http://localhost:{self.port}",
            "Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items()),
        }
        connection.request(method, f"/api/auth{path}", body and json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read()
        connection.close()
        assert response.status == 200, text
        for cookie in response.headers.get_all("Set-Cookie", []):
            self.cookies |= {name: each.value for name, each in SimpleCookie(cookie).items()}
        return json.loads(text)

    def token(self) -> str:
        token: str = self.request("GET", "/token")["token"]
        return token


@contextmanager
def better_auth(**keys: Any) -> Iterator[int]:
    """Run Better Auth, with these options for its keys, on the port that is yielded."""
    port = free_port()
    command = ["node", "server.js", str(port), SECRET, json.dumps(keys)]
    with subprocess.Popen(command, cwd=FOLDER) as popen:
        try:
            wait_until(lambda: is_served(port))
            yield port
        finally:
            popen.terminate()


def is_served(port: int) -> bool:
    connection = HTTPConnection("localhost", port, timeout=10)
    try:
        connection.request("GET", "/api/auth/ok")
    except ConnectionRefusedError:
        return False
    finally:
        connection.close()
    return True


def api_behind(port: int, database_url: str, **settings: Any) -> AbstractContextManager[Flask]:
    given = {"better_auth_secret": "", "better_auth_url": f"http://localhost:{port}"} | settings
    return app_on(database_url, **given)


def caller(app: Flask, user_id: str, token: str) -> User:
    user = User(app.test_client(), user_id)
    user.headers = bearer(token)
    return user


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_person_who_has_signed_up_creates_a_task_and_sees_no_others(
    database_url: str, algorithm: str
):
    with (
        better_auth(keyPairConfig={"alg": algorithm}) as port,
        api_behind(port, database_url) as app,
    ):
        session = Session(port)
        token = session.token()
        assert jwt.get_unverified_header(token)["alg"] == algorithm
        alice = caller(app, session.user_id, token)
        assert alice.create()["user_id"] == session.user_id
        assert_error(caller(app, "bob", token).call("GET"), 401, "unauthorized")


def test_token_of_a_new_key_is_good_and_so_is_one_of_the_key_before(
    database_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jwks, "FETCH_PAUSE", 0.0)
    with better_auth(rotationInterval=1) as port, api_behind(port, database_url) as app:
        session = Session(port)
        old = session.token()
        assert caller(app, session.user_id, old).call("GET").status_code == 200
        time.sleep(1.1)
        new = session.token()
        assert jwt.get_unverified_header(new)["kid"] != jwt.get_unverified_header(old)["kid"]
        for token in (new, old):
            assert caller(app, session.user_id, token).call("GET").status_code == 200


@pytest.mark.parametrize("cookie", ["better-auth.session_token", "better-auth.session_data"])
def test_cookie_is_no_token_also_where_its_secret_is_shared(database_url: str, cookie: str):
    with (
        better_auth() as port,
        api_behind(port, database_url, better_auth_secret=SECRET) as app,
    ):
        session = Session(port)
        alice = caller(app, session.user_id, session.cookies[cookie])
        assert_error(alice.call("GET"), 401, "unauthorized")
