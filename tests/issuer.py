"""An issuer to test against: Better Auth's key set and tokens, and many ways of failing."""

import base64
import json
import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from socketserver import BaseRequestHandler, ThreadingTCPServer
from threading import Event, Thread
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from flask import Flask
from support import bearer, settings_for, without_audit
from werkzeug.test import TestResponse

from auth import require_owner
from capacity.rate_limits import RateLimits
from errors import register_error_handlers
from headers import add_headers, trust_proxies
from lean_flask import LeanFlask
from observability.observe import observe

JWKS_PATH = "/api/auth/jwks"
LACKS_KEY = "The token is signed with a key that its issuer does not publish."
NOT_ACCEPTED = "The token is signed with an algorithm that is not accepted."
BAD_SIGNATURE = "The signature of the token is not valid."
MAKE_PRIVATE_KEY: dict[str, Callable[[], Any]] = {
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "PS256": lambda: rsa.generate_private_key(65537, 2048),
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
}
ALGORITHMS = list(MAKE_PRIVATE_KEY)

numbers = count(1)


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def part(content: Any) -> str:
    """Write a part of a token; bytes are taken as they are."""
    return base64url(content if isinstance(content, bytes) else json.dumps(content).encode())


@dataclass
class Key:
    """A key of the issuer, with the name and the algorithm under which it is published."""

    algorithm: str
    private: Any
    kid: str

    def entry(self) -> dict[str, Any]:
        """Describe the public key as Better Auth does: without `use`, `kid` at the end."""
        maker = jwt.get_algorithm_by_name(self.algorithm)
        public: Any = maker.to_jwk(self.private.public_key(), as_dict=True)
        members = {
            name: public[name] for name in ("crv", "kty", "x", "y", "n", "e") if name in public
        }
        return {"alg": self.algorithm} | members | {"kid": self.kid}

    def sign(self, claims: dict[str, Any], algorithm: str | None = None, **header: Any) -> str:
        """Sign claims, with a header as Better Auth writes it, `alg` and `kid`, or another one."""
        header = {"typ": None, "kid": self.kid} | header
        return jwt.encode(claims, self.private, algorithm or self.algorithm, header)

    def sign_raw(self, claims: Any, header: Any) -> str:
        """Sign by EdDSA what PyJWT would refuse to write."""
        signed = f"{part(header)}.{part(claims)}"
        return f"{signed}.{base64url(self.private.sign(signed.encode()))}"


def make_key(algorithm: str = "EdDSA", kid: str | None = None) -> Key:
    return Key(algorithm, MAKE_PRIVATE_KEY[algorithm](), kid or f"{next(numbers):032}")


one_key = cache(make_key)  # where any key of an algorithm will do: RSA keys take long to make


class Issuer:
    """An HTTP server that answers as it is told; `requests` has every request's head."""

    def __init__(self, *keys: Key, tls: ssl.SSLContext | None = None) -> None:
        self.keys: list[Key] = list(keys)
        self.tls = tls
        self.behave: Behaviour = answer_keys
        self.requests: list[str] = []
        self.stopping = Event()
        self.port = 0
        self.come_back()

    @property
    def origin(self) -> str:
        return f"{'https' if self.tls else 'http'}://localhost:{self.port}"

    def claims(self, **claims: Any) -> dict[str, Any]:
        """Make what Better Auth claims of alice, or the same with some claims changed."""
        now = int(time.time())
        user = {"id": "alice", "name": "Alice", "email": "alice@example.com", "emailVerified": True}
        rest = {"sub": "alice", "iat": now, "exp": now + 900}
        return user | rest | {"iss": self.origin, "aud": self.origin} | claims

    def token(self, key: Key | None = None, **claims: Any) -> str:
        return (key or self.keys[0]).sign(self.claims(**claims))

    def come_back(self) -> None:
        issuer = self

        class Handler(BaseRequestHandler):
            def handle(self) -> None:
                with suppress(OSError):
                    issuer.serve(self.request)

        self.stopping.clear()
        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, args=[0.01])
        self._thread.start()

    def go_away(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def serve(self, connection: socket.socket) -> None:
        if not self.tls:
            self.answer(connection)
            return
        with self.tls.wrap_socket(connection, server_side=True) as tls_connection:
            self.answer(tls_connection)

    def answer(self, connection: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            if not (received := connection.recv(4096)):
                return
            head += received
        self.requests.append(head.decode())
        self.behave(self, connection)


class Server(ThreadingTCPServer):
    allow_reuse_address = True
    request_queue_size = 64


Behaviour = Callable[[Issuer, socket.socket], None]


def respond(
    connection: socket.socket,
    body: bytes,
    status: str = "200 OK",
    headers: Iterable[str] = ("Content-Type: application/json",),
) -> None:
    head = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close"]
    connection.sendall("\r\n".join([*head, "", ""]).encode() + body)


def answer_keys(issuer: Issuer, connection: socket.socket, status: str = "200 OK") -> None:
    entries = [key.entry() for key in issuer.keys]
    respond(connection, json.dumps({"keys": entries}).encode(), status)


def answer_with(body: bytes, status: str = "200 OK", *headers: str) -> Behaviour:
    return lambda _, connection: respond(connection, body, status, headers)


def redirect(issuer: Issuer, connection: socket.socket) -> None:
    if issuer.requests[-1].startswith("GET /elsewhere"):
        answer_keys(issuer, connection)
    else:
        respond(connection, b"", "302 Found", [f"Location: {issuer.origin}/elsewhere"])


def hang(issuer: Issuer, _: socket.socket) -> None:
    issuer.stopping.wait(30)


def drip(start: bytes, drop: bytes = b" ") -> Behaviour:
    """Make a response that never ends and never pauses for long."""

    def behave(issuer: Issuer, connection: socket.socket) -> None:
        connection.sendall(start)
        while not issuer.stopping.wait(0.02):
            connection.sendall(drop)

    return behave


def cut_off(_: Issuer, connection: socket.socket) -> None:
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{"keys": [')


def reset(_: Issuer, connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


# Failures that last until the client gives up, and those that are over at once.
SLOW_FAILURES: dict[str, Behaviour] = {
    "nothing": hang,
    "a dripping head": drip(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
    "a dripping body": drip(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n"),
    "a dripping chunk": drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n"),
    "100 Continue for ever": drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}
FAILURES: dict[str, Behaviour] = {
    "a page": answer_with(b"<!doctype html><p>One moment", "200 OK", "Content-Type: text/html"),
    "500": answer_with(b"", "500 Internal Server Error"),
    "keys with a 500": lambda *call: answer_keys(*call, "500 Internal Server Error"),
    "403": answer_with(b"", "403 Forbidden"),
    "204": answer_with(b"", "204 No Content"),
    "a redirect": redirect,
    "a reset": reset,
    "half a response": cut_off,
    "no HTTP": lambda _, connection: connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "no length": lambda _, connection: connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n"),
    "a huge body": answer_with(b'{"keys": []}' + b" " * 5_000_000),
    "an endless body": drip(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 1_000_000),
    "endless headers": drip(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 1000),
    "no object": answer_with(b"[]"),
    "no keys": answer_with(b"{}"),
    "keys that are no list": answer_with(b'{"keys": "all of them"}'),
    "keys twice": answer_with(b'{"keys": [], "keys": []}'),
    "100,000 brackets": answer_with(b'{"keys": ' + b"[" * 100_000),
    "no UTF-8": answer_with(b'{"keys": ["\xff"]}'),
}


def gate_for(**settings: Any) -> Flask:
    """Build only the hooks that run before a view, and that route: a tenth of the work."""
    given = settings_for("postgresql://", **settings)
    app = LeanFlask("tasks", static_folder=None)
    app.extensions["rate_limits"] = RateLimits(given)
    add_headers(app, given)
    trust_proxies(app, given.trusted_proxies)
    observe(app, given)
    require_owner(app, given)
    register_error_handlers(app)
    return with_me(without_audit(app))


def gate_of(issuer: Issuer, **settings: Any) -> Flask:
    """Build it for the tokens of an issuer, and no others."""
    return gate_for(**{"better_auth_secret": "", "better_auth_url": issuer.origin} | settings)


def with_me(app: Flask) -> Flask:
    """Add a route that responds with the caller's id."""
    app.add_url_rule("/api/<user_id:user_id>/me", "me", lambda user_id: {"user_id": user_id})
    return app


def get_me(app: Flask, token: str, user_id: str = "alice") -> TestResponse:
    headers = bearer(token)
    return app.test_client().get(f"/api/{user_id}/me", headers=headers)


def send_at_once(app: Flask, tokens: list[str]) -> tuple[list[Any], list[float]]:
    """Send each token from a thread of its own; return the responses and how long each took."""

    def timed(token: str) -> tuple[Any, float]:
        started = time.monotonic()
        return get_me(app, token), time.monotonic() - started

    with ThreadPoolExecutor(len(tokens)) as threads:
        responses, seconds = zip(*threads.map(timed, tokens), strict=True)
    return list(responses), list(seconds)
