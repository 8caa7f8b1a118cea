"""The issuer's keys: which tokens they verify, and what happens while the issuer fails."""

import json
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from flask import Flask
from issuer import (
    ALGORITHMS,
    FAILURES,
    JWKS_PATH,
    SLOW_FAILURES,
    Behaviour,
    Issuer,
    Key,
    answer_keys,
    answer_with,
    api_for,
    ask,
    base64url,
    drip,
    gate_for,
    hang,
    make_key,
    one_key,
)
from jwt.algorithms import ECAlgorithm
from support import assert_error, token_for

import jwks
from config import PROJECT
from jwks import MOST_KEYS

LACKS_KEY = "The token is signed with a key that its issuer lacks."
NOT_ACCEPTED = "The token is signed with an algorithm that is not accepted."
UNNAMED = "The token does not name its key."
BAD_SIGNATURE = "The signature of the token is not valid."


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer(make_key())
    yield issuer
    issuer.go_away()


@pytest.fixture
def api(issuer: Issuer) -> Flask:
    return api_of(issuer)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the issuer as often as there is a reason to."""
    monkeypatch.setattr(jwks, "FETCH_PAUSE", 0.0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, eager: None) -> None:
    """Ask as often, and wait only briefly: at times, even a healthy issuer may take longer."""
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", 0.3)


@pytest.fixture
def stale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat keys as old as soon as they are fetched."""
    monkeypatch.setattr(jwks, "REFRESH_AFTER", 0.0)


def api_of(issuer: Issuer, **settings: Any) -> Flask:
    return gate_for(**{"better_auth_secret": "", "better_auth_url": issuer.origin} | settings)


def ask_at_once(app: Flask, tokens: list[str]) -> tuple[list[Any], list[float]]:
    """Send each token from a thread of its own; return the answers and how long each took."""

    def timed(token: str) -> tuple[Any, float]:
        started = time.monotonic()
        return ask(app, token), time.monotonic() - started

    with ThreadPoolExecutor(len(tokens)) as threads:
        answers, seconds = zip(*threads.map(timed, tokens), strict=True)
    return list(answers), list(seconds)


def eventually(holds: Callable[[], bool]) -> bool:
    """Give the background some seconds to do its work."""
    for _ in range(1000):
        if holds():
            return True
        time.sleep(0.01)
    return False


# Which key


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_token_of_each_algorithm_is_accepted(issuer: Issuer, api: Flask, algorithm: str):
    issuer.keys = [make_key(), one_key(algorithm)]
    assert ask(api, issuer.token(one_key(algorithm))).json == {"user_id": "alice"}
    assert_error(ask(api, issuer.token(make_key(kid=one_key(algorithm).kid))), 401, "unauthorized")


@pytest.mark.parametrize("unnamed", [{}, {"alg": None}])
def test_key_without_alg_is_good_for_the_algorithms_of_its_kind(
    issuer: Issuer, api: Flask, unnamed: dict[str, None]
):
    keys = [one_key(algorithm) for algorithm in ALGORITHMS]
    entries = [{n: v for n, v in key.entry().items() if n != "alg"} | unnamed for key in keys]
    issuer.behave = answer_with(json.dumps({"keys": entries}).encode())
    for key in keys:
        assert ask(api, issuer.token(key)).status_code == 200
    either = one_key("RS256")
    assert ask(api, either.sign(issuer.claims(), "PS256")).status_code == 200
    for algorithm in ["RS384", "RS512", "PS384"]:
        assert_error(
            ask(api, either.sign(issuer.claims(), algorithm)), 401, "unauthorized", NOT_ACCEPTED
        )


@pytest.mark.parametrize("declared", ALGORITHMS)
def test_key_is_good_for_its_own_algorithm_alone(issuer: Issuer, api: Flask, declared: str):
    issuer.keys = [Key(declared, one_key(declared).private, "its name")]
    for algorithm in set(ALGORITHMS) - {declared}:
        kinds = {declared, algorithm}
        signer = one_key(declared if kinds == {"PS256", "RS256"} else algorithm)
        token = signer.sign(issuer.claims(), algorithm, kid="its name")
        assert_error(ask(api, token), 401, "unauthorized", LACKS_KEY)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"kid": None}, "The token is not a JWT."),
        ({"kid": 1}, "The token is not a JWT."),
        ({"kid": ["1"]}, "The token is not a JWT."),
        ({"kid": ""}, LACKS_KEY),
        ({"kid": "1" * 1_000_000}, LACKS_KEY),
        ({"kid": "../../etc/passwd"}, LACKS_KEY),
    ],
)
def test_kid_must_be_a_name_of_the_issuer(
    issuer: Issuer, api: Flask, header: dict[str, Any], message: str
):
    assert_error(
        ask(api, issuer.keys[0].sign_raw(issuer.claims(), {"alg": "EdDSA"} | header)),
        401,
        "unauthorized",
        message,
    )


def test_token_without_kid_is_refused_without_asking_the_issuer(issuer: Issuer, api: Flask):
    assert_error(
        ask(api, issuer.keys[0].sign_raw(issuer.claims(), {"alg": "EdDSA"})),
        401,
        "unauthorized",
        UNNAMED,
    )
    assert issuer.requests == []


def test_keys_that_a_token_brings_along_are_ignored(issuer: Issuer, api: Flask):
    attacker = Issuer(make_key(kid=issuer.keys[0].kid))
    key = attacker.keys[0]
    url = attacker.origin + JWKS_PATH
    headers = [{"jku": url}, {"x5u": url}, {"jwk": key.entry()}, {"x5c": [key.entry()["x"]]}]
    try:
        for header in [{}, *headers, {"jku": url, "jwk": key.entry()}]:
            token = key.sign(issuer.claims(), **header)
            assert_error(ask(api, token), 401, "unauthorized", BAD_SIGNATURE)
        assert attacker.requests == []
    finally:
        attacker.go_away()


# What is fetched, and how often


def test_fetch_is_one_plain_request(issuer: Issuer):
    app = api_of(issuer, jwks_url=f"http://127.0.0.1:{issuer.port}/a/jwks?tenant=1&x=%20y#top")
    assert ask(app, issuer.token()).status_code == 200
    assert issuer.requests[0].split("\r\n") == [
        "GET /a/jwks?tenant=1&x=%20y HTTP/1.1",
        f"Host: 127.0.0.1:{issuer.port}",
        "Accept-Encoding: identity",
        "Accept: application/json",
        "User-Agent: tasks",
        "",
        "",
    ]
    assert len(issuer.requests) == 1


def test_keys_are_fetched_once_for_many_requests(issuer: Issuer, api: Flask):
    tokens = [issuer.token(jti=str(number)) for number in range(50)]
    answers, _ = ask_at_once(api, tokens)
    assert {answer.status_code for answer in answers} == {200}
    assert len(issuer.requests) == 1
    assert issuer.requests[0].startswith(f"GET {JWKS_PATH} HTTP/1.1\r\n")


def test_50_unknown_kids_at_once_cost_one_fetch_at_most(
    issuer: Issuer, api: Flask, monkeypatch: pytest.MonkeyPatch
):
    assert ask(api, issuer.token()).status_code == 200
    tokens = [issuer.token(make_key()) for _ in range(50)]

    def fetches() -> int:
        before = len(issuer.requests)
        for answer in ask_at_once(api, tokens)[0]:
            assert_error(answer, 401, "unauthorized", LACKS_KEY)
        return len(issuer.requests) - before

    monkeypatch.setattr(jwks, "FETCH_PAUSE", 60.0)
    assert fetches() == 0
    monkeypatch.setattr(jwks, "monotonic", lambda: time.monotonic() + 70)
    assert fetches() == 1
    assert fetches() == 0


def test_new_key_is_picked_up_at_its_first_token(issuer: Issuer, api: Flask, eager: None):
    assert ask(api, issuer.token()).status_code == 200
    old, new = issuer.keys[0], make_key("ES256")
    issuer.keys.append(new)
    assert ask(api, issuer.token(new)).status_code == 200
    assert ask(api, issuer.token(old)).status_code == 200
    assert len(issuer.requests) == 2


def test_removed_key_is_refused_even_for_a_remembered_token(
    issuer: Issuer, api: Flask, eager: None, stale: None
):
    token = issuer.token()
    assert ask(api, token).status_code == 200
    issuer.keys = [make_key()]
    assert eventually(lambda: ask(api, token).status_code == 401)
    assert_error(ask(api, token), 401, "unauthorized", LACKS_KEY)


def test_key_replaced_under_its_name_is_refused_even_for_a_remembered_token(
    issuer: Issuer, api: Flask, eager: None, stale: None
):
    token, kid = issuer.token(), issuer.keys[0].kid
    assert ask(api, token).status_code == 200
    issuer.keys = [make_key(kid=kid)]
    assert eventually(lambda: ask(api, token).status_code == 401)
    assert_error(ask(api, token), 401, "unauthorized", BAD_SIGNATURE)
    assert ask(api, issuer.token()).status_code == 200


def test_old_keys_are_refreshed_without_waiting(
    issuer: Issuer, api: Flask, monkeypatch: pytest.MonkeyPatch, stale: None
):
    assert ask(api, issuer.token()).status_code == 200
    monkeypatch.setattr(jwks, "FETCH_PAUSE", 0.0)
    issuer.behave = hang
    _, seconds = ask_at_once(api, [issuer.token(jti="1")])
    assert seconds[0] < jwks.FETCH_TIMEOUT / 2
    assert eventually(lambda: len(issuer.requests) == 2)


# An issuer that fails


ALL_FAILURES = SLOW_FAILURES | FAILURES


@pytest.mark.parametrize("behave", ALL_FAILURES.values(), ids=ALL_FAILURES)
def test_failing_issuer_is_503_in_time_and_then_forgiven(
    issuer: Issuer, api: Flask, impatient: None, behave: Behaviour
):
    issuer.behave = behave
    answers, seconds = ask_at_once(api, [issuer.token(jti=str(number)) for number in range(4)])
    for answer in answers:
        assert_error(answer, 503, "unavailable")
    assert max(seconds) < 2.5
    assert not any("/elsewhere" in request for request in issuer.requests)
    issuer.behave = answer_keys
    assert eventually(lambda: ask(api, issuer.token()).status_code == 200)


@pytest.mark.parametrize("behave", ALL_FAILURES.values(), ids=ALL_FAILURES)
def test_keys_stay_good_while_the_issuer_fails(
    issuer: Issuer, api: Flask, impatient: None, stale: None, behave: Behaviour
):
    remembered = issuer.token()
    assert eventually(lambda: ask(api, remembered).status_code == 200)
    issuer.behave = behave
    fetches = len(issuer.requests)
    assert eventually(
        lambda: ask(api, remembered).status_code == 200 and len(issuer.requests) > fetches
    )
    for token in [remembered, issuer.token(jti="new")]:
        assert ask(api, token).status_code == 200
    assert_error(ask(api, issuer.token(make_key())), 401, "unauthorized", LACKS_KEY)


def test_issuer_that_is_gone_is_503_until_it_comes_back(
    issuer: Issuer, api: Flask, eager: None, caplog: pytest.LogCaptureFixture
):
    issuer.go_away()
    assert_error(
        ask(api, issuer.token()),
        503,
        "unavailable",
        "The keys of the token's issuer cannot be had right now.",
    )
    assert f"could not be fetched from {issuer.origin}{JWKS_PATH}" in caplog.text
    issuer.come_back()
    assert ask(api, issuer.token()).status_code == 200


def test_failed_fetch_is_not_repeated_within_the_pause(issuer: Issuer, api: Flask):
    issuer.behave = answer_with(b"", "500 Internal Server Error")
    for _ in range(10):
        assert_error(ask(api, issuer.token()), 503, "unavailable")
    assert len(issuer.requests) == 1


def test_keys_are_forgotten_after_a_day_without_the_issuer(
    issuer: Issuer, api: Flask, eager: None, stale: None, monkeypatch: pytest.MonkeyPatch
):
    remembered = issuer.token()
    assert ask(api, remembered).status_code == 200
    issuer.go_away()
    assert ask(api, remembered).status_code == 200
    monkeypatch.setattr(jwks, "FORGET_AFTER", 0.0)
    for token in [remembered, issuer.token(jti="new")]:
        assert_error(ask(api, token), 503, "unavailable")
    issuer.come_back()
    monkeypatch.setattr(jwks, "FORGET_AFTER", 60.0)
    assert eventually(lambda: ask(api, remembered).status_code == 200)


def test_secret_keeps_working_while_the_issuer_hangs(issuer: Issuer):
    issuer.behave = hang
    app = api_for(better_auth_url=issuer.origin)
    assert ask(app, token_for("alice")).status_code == 200
    assert issuer.requests == []


def test_hanging_issuer_holds_each_request_for_two_seconds_at_most(issuer: Issuer, api: Flask):
    """With the real constants: four at once take as long as one, and then none waits."""
    issuer.behave = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n")
    started = time.monotonic()
    answers, seconds = ask_at_once(api, [issuer.token(jti=str(number)) for number in range(4)])
    for answer in answers:
        assert_error(answer, 503, "unavailable")
    assert time.monotonic() - started < 3.5
    assert min(seconds) > 1.5
    answers, seconds = ask_at_once(api, [issuer.token(jti=str(number)) for number in range(4)])
    assert max(seconds) < 1
    assert len(issuer.requests) == 1


def test_fetch_beyond_its_time_holds_no_request(
    issuer: Issuer, api: Flask, monkeypatch: pytest.MonkeyPatch
):
    """A DNS lookup, for one, has no timeout that we could set."""
    released = threading.Event()
    monkeypatch.setattr(jwks, "fetch", lambda _: str(released.wait(10)).encode())
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", 1.0)
    for longest in [5.0, 0.7]:  # the first waits out its time, the second comes after it
        answers, seconds = ask_at_once(api, [issuer.token()])
        assert_error(answers[0], 503, "unavailable")
        assert seconds[0] < longest
    released.set()


def test_while_the_issuer_hangs_one_request_waits_for_it(
    issuer: Issuer, api: Flask, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", 0.5)
    issuer.behave = hang
    ask(api, issuer.token())
    monkeypatch.setattr(jwks, "FETCH_PAUSE", 0.0)
    assert eventually(lambda: all(thread.name != "jwks" for thread in threading.enumerate()))
    _, seconds = ask_at_once(api, [issuer.token(jti=str(number)) for number in range(8)])
    assert len([each for each in seconds if each > 0.4]) <= 4


# What the key set may hold


def entry_of(algorithm: str, **changes: Any) -> dict[str, Any]:
    return one_key(algorithm).entry() | {"kid": "broken"} | changes


PRIVATE_PART = base64url(one_key("EdDSA").private.private_bytes_raw())
OTHER_CURVE = ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256K1()).public_key(), as_dict=True)
BROKEN_ENTRIES: dict[str, Any] = {
    "null": None,
    "a number": 1,
    "a list": [],
    "nothing": {},
    "no kty": entry_of("EdDSA", kty=None),
    "kty a list": entry_of("EdDSA", kty=["OKP"]),
    "kty of a secret": {"kty": "oct", "kid": "broken", "k": "c2VjcmV0", "alg": "HS256"},
    "crv an object": entry_of("EdDSA", crv={}),
    "crv of no signature": entry_of("EdDSA", crv="X25519"),
    "crv of another": entry_of("ES256", crv="P-521"),
    "x missing": entry_of("EdDSA", x=None),
    "x a number": entry_of("EdDSA", x=1),
    "x short": entry_of("EdDSA", x="AAAA"),
    "x no base64": entry_of("EdDSA", x="!"),
    "x half a pair": entry_of("EdDSA", x="\ud800"),
    "a point beside the curve": entry_of("ES256", y=one_key("ES256").entry()["x"]),
    "n a number": entry_of("RS256", n=1),
    "n empty": entry_of("RS256", n=""),
    "e even": entry_of("RS256", e="AQAA"),
    "alg a list": entry_of("RS256", alg=["RS256"]),
    "alg not taken": entry_of("RS256", alg="RS512"),
    "alg none": entry_of("RS256", alg="none"),
    "kid missing": entry_of("EdDSA", kid=None),
    "kid a number": entry_of("EdDSA", kid=1),
    "kid a list": entry_of("EdDSA", kid=[]),
    "use enc": entry_of("RS256", use="enc"),
    "use a list": entry_of("RS256", use=["sig"]),
    "with its private part": entry_of("EdDSA", d=PRIVATE_PART),
    "Ed448": Key("EdDSA", ed448.Ed448PrivateKey.generate(), "broken").entry(),
    "secp256k1": entry_of("ES256") | OTHER_CURVE,
}


@pytest.mark.parametrize("entry", BROKEN_ENTRIES.values(), ids=BROKEN_ENTRIES)
def test_key_set_survives_an_entry_that_is_no_key_of_ours(entry: Any):
    good = one_key("EdDSA")
    for entries in ([entry, good.entry()], [good.entry(), entry]):
        keys = jwks.parse_key_set(json.dumps({"keys": entries}).encode())
        assert list(keys) == [(good.kid, "EdDSA")]


def test_key_that_is_too_short_is_refused(issuer: Issuer, api: Flask):
    short = Key("RS256", rsa.generate_private_key(65537, 1024), "short")  # noqa: S505
    issuer.keys = [short]
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = issuer.token()
    assert_error(ask(api, token), 401, "unauthorized", "The token is not valid.")


def test_other_members_of_a_key_set_are_ignored(issuer: Issuer, api: Flask):
    entry = issuer.keys[0].entry() | {"use": "sig", "key_ops": ["verify"], "x5c": [], "new": {}}
    issuer.behave = answer_with(json.dumps({"version": 2, "keys": [entry]}).encode())
    assert ask(api, issuer.token()).status_code == 200


def test_more_keys_than_an_issuer_has_are_none(issuer: Issuer, api: Flask, caplog: Any):
    issuer.behave = answer_with(json.dumps({"keys": [{}] * (MOST_KEYS + 1)}).encode())
    assert_error(ask(api, issuer.token()), 503, "unavailable")
    assert len([each for each in caplog.records if each.name == "jwks"]) == 1


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of localhost, signed by itself, with its key."""
    private = one_key("ES256").private
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(
            x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False
        )
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    path.write_bytes(
        builder.sign(private, hashes.SHA256()).public_bytes(Encoding.PEM)
        + private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    return path


@pytest.fixture
def tls_issuer(certificate: Path) -> Iterator[Issuer]:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    issuer = Issuer(make_key(), tls=tls)
    yield issuer
    issuer.go_away()


def test_keys_come_over_tls(tls_issuer: Issuer, certificate: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert ask(api_of(tls_issuer), tls_issuer.token()).status_code == 200


@pytest.mark.parametrize("failure", ["nothing", "a dripping body"])
def test_fetch_over_tls_ends_in_time(
    tls_issuer: Issuer, certificate: Path, monkeypatch: pytest.MonkeyPatch, failure: str
):
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", 1.0)
    tls_issuer.behave = SLOW_FAILURES[failure]
    started = time.monotonic()
    with pytest.raises((OSError, HTTPException, ValueError)):
        jwks.parse_key_set(jwks.fetch(tls_issuer.origin))
    assert len(tls_issuer.requests) == 1
    assert time.monotonic() - started < 5


GREENLET = """
from gevent import monkey
monkey.patch_all()
import jwks
jwks.FETCH_TIMEOUT = 0.5
jwks.fetch("https://localhost:{port}")
"""


def test_fetch_whose_handshake_drips_ends_in_time(issuer: Issuer, monkeypatch: pytest.MonkeyPatch):
    """As in production: Python limits the time of the whole handshake, gevent of each read."""
    record = b"\x16\x03\x03\x40\x00"  # the head of a handshake record of 16 KiB
    monkeypatch.setattr(issuer, "serve", partial(drip(record), issuer))
    program = [sys.executable, "-c", GREENLET.format(port=issuer.port)]
    done = subprocess.run(
        program, check=False, cwd=PROJECT, timeout=10, capture_output=True, text=True
    )
    assert "EOF occurred" in done.stderr.splitlines()[-1]


def test_fetch_that_is_cut_off_does_not_go_on_in_plain_text(tls_issuer: Issuer, certificate: Path):
    """Or whoever is in between could add what the issuer never sent."""
    tls_issuer.behave = lambda _, connection: socket.socket.sendall(connection, b"in plain text")
    context = ssl.create_default_context(cafile=certificate)
    with (
        socket.create_connection(("localhost", tls_issuer.port)) as plain,
        plain.dup() as twin,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        select.select([connection], [], [], 5)
        jwks.cut(twin)
        with suppress(OSError):
            assert connection.recv(100) == b""


def test_certificate_that_nobody_vouches_for_is_refused(
    tls_issuer: Issuer, caplog: pytest.LogCaptureFixture
):
    assert_error(ask(api_of(tls_issuer), tls_issuer.token()), 503, "unavailable")
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
    assert tls_issuer.requests == []
