"""Who may: which tokens are taken, whose path they open, what the others are told."""

import hmac
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flask import Flask
from issuer import Issuer, api_for, ask, base64url, gate_for, one_key, part
from support import SECRET, User, app_for, assert_error, settings_for, token_for

from auth import LEEWAY, REMEMBERED_TOKENS, TokenRefused, token_verifier
from database import DatabaseUnavailable

IN_AN_HOUR = int(time.time()) + 3600
GOOD: dict[str, Any] = {"sub": "alice", "exp": IN_AN_HOUR}
HS256 = {"alg": "HS256", "typ": "JWT"}
OPERATIONS = [
    ("GET", "/api/alice/tasks"),
    ("POST", "/api/alice/tasks"),
    ("GET", "/api/alice/tasks/1"),
    ("PUT", "/api/alice/tasks/1"),
    ("DELETE", "/api/alice/tasks/1"),
    ("PATCH", "/api/alice/tasks/1/complete"),
]


def seal(signed: str, secret: str | bytes = SECRET, digest: str = "sha256") -> str:
    secret = secret.encode() if isinstance(secret, str) else secret
    return f"{signed}.{base64url(hmac.digest(secret, signed.encode(), digest))}"


def token_of(claims: Any, header: Any = None, **options: Any) -> str:
    """Sign with the secret what PyJWT would refuse to: bytes are taken as they are."""
    return seal(f"{part(header or HS256)}.{part(claims)}", **options)


def claiming(text: str) -> str:
    """Make a token of claims that Python's json cannot write, beside a good `sub` and `exp`."""
    return token_of(f'{{"sub": "alice", "exp": {IN_AN_HOUR}, {text}}}'.encode())


def expiring(text: str) -> str:
    return token_of(f'{{"sub": "alice", "exp": {text}}}'.encode())


TOKEN = token_of(GOOD)
HEAD, CLAIMS, SIGNATURE = TOKEN.split(".")
NESTED = b"[" * 50_000 + b"]" * 50_000

WRONG_SIGNATURES = {
    "alg none": f"{part({'alg': 'none'})}.{CLAIMS}.",
    "alg none, signed": token_of(GOOD, {"alg": "none"}),
    "alg None": token_of(GOOD, {"alg": "NonE"}),
    "alg empty": token_of(GOOD, {"alg": ""}),
    "no alg": token_of(GOOD, {"typ": "JWT"}),
    "alg null": token_of(GOOD, {"alg": None}),
    "alg a list": token_of(GOOD, {"alg": ["HS256"]}),
    "alg an object": token_of(GOOD, {"alg": {}}),
    "alg hs256": token_of(GOOD, {"alg": "hs256"}),
    "HS384": token_of(GOOD, {"alg": "HS384"}, digest="sha384"),
    "HS512": token_of(GOOD, {"alg": "HS512"}, digest="sha512"),
    "RS256, sealed with the secret": token_of(GOOD, {"alg": "RS256", "kid": "1"}),
    "another secret": token_of(GOOD, secret="another secret, of 32 bytes or more"),
    "an empty secret": token_of(GOOD, secret=""),
    "another user's signature": f"{HEAD}.{part(GOOD | {'sub': 'bob'})}.{SIGNATURE}",
    "a short signature": TOKEN[:-8],
    "another last character": TOKEN[:-1] + chr(ord(TOKEN[-1]) ^ 1),
}
WRONG_FORMS = {
    "two parts": f"{HEAD}.{CLAIMS}",
    "two parts and a dot": f"{HEAD}.{CLAIMS}.",
    "four parts": f"{TOKEN}.{SIGNATURE}",
    "five parts": f"{HEAD}.{CLAIMS}.{SIGNATURE}.{SIGNATURE}.{SIGNATURE}",
    "a dot at the end": f"{TOKEN}.",
    "a dot at the start": f".{TOKEN}",
    "dots alone": "..",
    "= after the header": seal(f"{HEAD}=.{CLAIMS}"),
    "= after the claims": seal(f"{HEAD}.{CLAIMS}=="),
    "= after the signature": f"{TOKEN}=",
    "+ and / of plain base64": f"{HEAD}.{CLAIMS}.{SIGNATURE[:-2]}+/",
    "letters beyond ASCII": f"{HEAD}.{CLAIMS}.{SIGNATURE[:-1]}é",
    "two tokens": f"{TOKEN},{TOKEN}",
    "a token and a word": f"{TOKEN} x",
    "quotes": f'"{TOKEN}"',
    "no base64": f"{HEAD}x.{CLAIMS}.{SIGNATURE}",
    "header no object": token_of(GOOD, b'["HS256"]'),
    "header no JSON": token_of(GOOD, b"HS256"),
    "header UTF-16": token_of(GOOD, json.dumps(HS256).encode("utf-16")),
    "claims no object": token_of([GOOD]),
    "claims no JSON": token_of(b"sub=alice"),
    "claims with a byte order mark": token_of(b"\xef\xbb\xbf" + json.dumps(GOOD).encode()),
    "claims no UTF-8": token_of(b'{"sub": "\xff", "exp": 1}'),
    "sub twice": claiming('"sub": "alice"'),
    "exp twice": claiming(f'"exp": {IN_AN_HOUR}'),
    "a name twice, deep down": claiming('"x": {"y": 1, "y": 1}'),
    "alg twice": token_of(GOOD, b'{"alg": "none", "alg": "HS256"}'),
    "a claim NaN": claiming('"x": NaN'),
    "a claim of 5,000 digits": claiming(f'"x": {"9" * 5000}'),
    "a claim past reach": claiming('"x": 1e400'),
    "deep claims": token_of(b'{"x": ' + NESTED + b"}"),
    "deep header": token_of(GOOD, b'{"alg": "HS256", "x": ' + NESTED + b"}"),
    "a deep typ": token_of(GOOD, b'{"alg": "HS256", "typ": ' + b"[" * 900 + b"]" * 900 + b"}"),
    "kid a number": token_of(GOOD, HS256 | {"kid": 1}),
    "kid null": token_of(GOOD, HS256 | {"kid": None}),
    "crit unknown": token_of(GOOD, HS256 | {"crit": ["exp"]}),
    "crit empty": token_of(GOOD, HS256 | {"crit": []}),
    "crit no list": token_of(GOOD, HS256 | {"crit": "b64"}),
    "b64 false": token_of(GOOD, HS256 | {"crit": ["b64"], "b64": False}),
    "b64 false, claims as they are": seal(
        f"{part(HS256 | {'crit': ['b64'], 'b64': False})}.{json.dumps(GOOD)}"
    ),
}
WRONG_CLAIMS = {
    "no sub": token_of({"exp": IN_AN_HOUR}),
    "sub empty": token_of(GOOD | {"sub": ""}),
    "sub null": token_of(GOOD | {"sub": None}),
    "sub a number": token_of(GOOD | {"sub": 12}),
    "sub true": token_of(GOOD | {"sub": True}),
    "sub a list": token_of(GOOD | {"sub": ["alice"]}),
    "sub an object": token_of(GOOD | {"sub": {"id": "alice"}}),
    "sub with NUL": token_of(GOOD | {"sub": "alice\0"}),
    "sub with half a pair": token_of(GOOD | {"sub": "alice\ud83d"}),
    "sub of 256 characters": token_of(GOOD | {"sub": "x" * 256}),
    "sub of 1 MB": token_of(GOOD | {"sub": "x" * 1_000_000}),
    "no exp": token_of({"sub": "alice"}),
    "exp null": token_of(GOOD | {"exp": None}),
    "exp a float": token_of(GOOD | {"exp": IN_AN_HOUR + 0.5}),
    "exp a string": token_of(GOOD | {"exp": str(IN_AN_HOUR)}),
    "exp true": token_of(GOOD | {"exp": True}),
    "exp a list": token_of(GOOD | {"exp": [IN_AN_HOUR]}),
    "exp zero": token_of(GOOD | {"exp": 0}),
    "exp negative": token_of(GOOD | {"exp": -IN_AN_HOUR}),
    "exp NaN": expiring("NaN"),
    "exp Infinity": expiring("Infinity"),
    "exp 1e400": expiring("1e400"),
    "exp 1e10": expiring("1e10"),
    "exp of 5,000 digits": expiring("9" * 5000),
    "exp of 4,000 digits": expiring("9" * 4000),
    "exp 9e18": expiring("9000000000000000000"),
    "exp in milliseconds": expiring(str(IN_AN_HOUR * 1000)),
    "iat in the future": token_of(GOOD | {"iat": IN_AN_HOUR}),
    "iat a word": token_of(GOOD | {"iat": "now"}),
    "iat null": token_of(GOOD | {"iat": None}),
    "nbf in the future": token_of(GOOD | {"nbf": IN_AN_HOUR}),
    "nbf a list": token_of(GOOD | {"nbf": []}),
    "jti a number": token_of(GOOD | {"jti": 1}),
    "an aud, and none is ours": token_of(GOOD | {"aud": "elsewhere"}),
}
OTHER_PURPOSES = {
    "session token": "kQ3v9TtYw1nXz5RbCf7HjLmP2sD4gA8e",
    "signed session token": f"kQ3v9TtYw1nXz5RbCf7HjLmP2sD4gA8e.{'x' * 43}=",
    "e-mail verification": token_of({"email": "a@example.com", "iat": 1, "exp": IN_AN_HOUR}),
    "cookie cache": token_of(
        {"session": {"userId": "alice"}, "user": {"id": "alice"}, "exp": IN_AN_HOUR}
    ),
    "typ of a session cache": token_of(GOOD, HS256 | {"typ": "better-auth.session-cache+jwt"}),
    "typ at+jwt": token_of(GOOD, HS256 | {"typ": "at+jwt"}),
    "typ JWE": token_of(GOOD, HS256 | {"typ": "JWE"}),
    "typ empty": token_of(GOOD, HS256 | {"typ": ""}),
    "typ null": token_of(GOOD, HS256 | {"typ": None}),
    "typ a list": token_of(GOOD, HS256 | {"typ": ["JWT"]}),
}
REFUSED = WRONG_SIGNATURES | WRONG_FORMS | WRONG_CLAIMS | OTHER_PURPOSES


@pytest.fixture(scope="module")
def api() -> Flask:
    return api_for()


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    issuer = Issuer(one_key("EdDSA"))
    yield issuer
    issuer.go_away()


def assert_refused(app: Flask, token: str, message: str | None = None) -> None:
    """Require that the token itself is refused, not the path that it was sent to."""
    response = ask(app, token)
    assert_error(response, 401, "unauthorized", message)
    assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert response.json
    assert response.json["message"] != "This path belongs to another user."


def test_a_token_of_sub_and_exp_is_enough(api: Flask):
    response = ask(api, TOKEN)
    assert (response.status_code, response.json) == (200, {"user_id": "alice"})


@pytest.mark.parametrize("token", REFUSED.values(), ids=REFUSED)
def test_token_is_refused(api: Flask, token: str):
    assert_refused(api, token)


ACCEPTED = {
    "no typ": token_of(GOOD, {"alg": "HS256"}),
    "typ in small letters": token_of(GOOD, HS256 | {"typ": "jwt"}),
    "kid, which HMAC does not need": token_of(GOOD, HS256 | {"kid": "1"}),
    "iat and nbf": token_of(GOOD | {"iat": IN_AN_HOUR - 3700, "nbf": IN_AN_HOUR - 3700}),
    "any issuer, where none is set": token_of(GOOD | {"iss": "https://example.com"}),
    "claims of a user": token_of(GOOD | {"name": "Alice 🦊", "emailVerified": True, "age": 1.5}),
    "the last second of 9999": token_of(GOOD | {"exp": 253402300799}),
}


@pytest.mark.parametrize("token", ACCEPTED.values(), ids=ACCEPTED)
def test_token_is_accepted(api: Flask, token: str):
    assert ask(api, token).status_code == 200


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"exp": IN_AN_HOUR - 7200}, "The token has expired."),
        ({"nbf": IN_AN_HOUR}, "The token is not valid yet."),
        ({"aud": "elsewhere"}, "The token is meant for another audience."),
        ({"exp": None}, "The token lacks the claim exp."),
        ({"sub": None}, "The token lacks the claim sub."),
        ({"sub": ""}, "The token does not name a user."),
        ({"exp": IN_AN_HOUR + 0.5}, "The token has no valid expiry."),
    ],
)
def test_refusal_says_what_is_wrong(api: Flask, claims: dict[str, Any], message: str):
    assert_refused(api, token_of(GOOD | claims), message)


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
def test_clocks_may_differ_by_seconds(api: Flask, name: str):
    now, sign = int(time.time()), -1 if name == "exp" else 1
    assert ask(api, token_of(GOOD | {name: now + sign * (LEEWAY - 5)})).status_code == 200
    assert_refused(api, token_of(GOOD | {name: now + sign * (LEEWAY + 30)}))
    assert LEEWAY <= 30


def test_remembered_token_is_refused_once_expired(api: Flask, monkeypatch: pytest.MonkeyPatch):
    now = time.time()
    token = token_of(GOOD | {"exp": int(now) + 100})
    for later, status in [(0, 200), (99, 200), (100 + LEEWAY - 2, 200), (100 + LEEWAY + 1, 401)]:
        monkeypatch.setattr("auth.time.time", lambda then=now + later: then)
        assert ask(api, token).status_code == status, later
    assert_refused(api, token, "The token has expired.")


def test_token_is_verified_once_and_refused_ones_are_not_kept(monkeypatch: pytest.MonkeyPatch):
    verify = token_verifier(settings_for("postgresql://"))
    verified: list[str] = []
    decode = jwt.decode
    monkeypatch.setattr("auth.jwt.decode", lambda *a, **b: verified.append(a[0]) or decode(*a, **b))
    for _ in range(3):
        assert verify(TOKEN) == "alice"
        with pytest.raises(TokenRefused):
            verify(WRONG_SIGNATURES["another secret"])
    assert verified.count(TOKEN) == 1
    assert len(verified) == 4
    assert 0 < REMEMBERED_TOKENS <= 10_000


NO_TOKENS: dict[str, dict[str, str]] = {
    "no header": {},
    "an empty header": {"Authorization": ""},
    "the scheme alone": {"Authorization": "Bearer"},
    "the scheme and a space": {"Authorization": "Bearer "},
    "the scheme and spaces": {"Authorization": "Bearer    "},
    "a user and a password": {"Authorization": "Basic YTpi"},
    "another scheme": {"Authorization": f"Token {TOKEN}"},
    "no scheme": {"Authorization": TOKEN},
    "no space": {"Authorization": f"Bearer{TOKEN}"},
    "a tab": {"Authorization": f"Bearer\t{TOKEN}"},
    "an equals sign": {"Authorization": f"Bearer={TOKEN}"},
}


@pytest.mark.parametrize("headers", NO_TOKENS.values(), ids=NO_TOKENS)
def test_challenge_names_no_error_where_no_token_was_sent(api: Flask, headers: dict[str, str]):
    response = api.test_client().get("/api/alice/me", headers=headers)
    assert_error(response, 401, "unauthorized", "Send a token in the header Authorization: Bearer.")
    assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("start", ["Bearer ", "bearer ", "BEARER ", "bEaReR ", "Bearer   "])
def test_scheme_is_taken_in_any_case_and_with_any_spaces(api: Flask, start: str):
    response = api.test_client().get("/api/alice/me", headers={"Authorization": f"{start}{TOKEN}"})
    assert response.status_code == 200


def test_token_elsewhere_than_in_the_header_is_none(api: Flask):
    client = api.test_client()
    client.set_cookie("Authorization", f"Bearer {TOKEN}")
    response = client.get("/api/alice/me", query_string={"access_token": TOKEN})
    assert_error(response, 401, "unauthorized")
    assert response.headers["WWW-Authenticate"] == "Bearer"


class NoDatabase:
    """Answers 503 as soon as a request uses it."""

    def is_crowded(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        raise DatabaseUnavailable(name)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_refused_request_never_reaches_the_database(method: str, path: str):
    app = app_for()
    app.extensions["database"] = NoDatabase()
    client = app.test_client()
    alice = {"Authorization": f"Bearer {TOKEN}"}
    assert_error(
        client.open(path, method=method, headers=alice, json={"title": "x"}), 503, "unavailable"
    )
    others = {
        "no token": {},
        "a bad token": {"Authorization": "Bearer x"},
        "an expired token": {"Authorization": f"Bearer {token_for('alice', exp=1)}"},
        "another user's token": {"Authorization": f"Bearer {token_for('bob')}"},
    }
    for name, headers in others.items():
        for body in [{"json": {"title": "x"}}, {"data": b"no JSON"}, {}]:
            response = client.open(path, method=method, headers=headers, **body)
            assert_error(response, 401, "unauthorized")
            challenge = "Bearer" if name == "no token" else 'Bearer error="invalid_token"'
            assert response.headers["WWW-Authenticate"] == challenge, name


def test_no_route_answers_options_itself_which_needs_no_token(application: Flask):
    for rule in application.url_map.iter_rules():
        assert rule.provide_automatic_options, rule


@pytest.mark.parametrize(
    "other", ["bob", "Alice", "alice ", "alic", "alicee", "alice%2Fme", "%61lice%00"]
)
def test_path_of_another_user_is_refused(api: Flask, other: str):
    assert_error(ask(api, TOKEN, other), 401, "unauthorized", "This path belongs to another user.")


@pytest.mark.parametrize("headers", [{}, {"Authorization": f"Bearer {TOKEN}"}])
def test_token_plays_no_part_in_404_405_and_options(api: Flask, headers: dict[str, str]):
    client = api.test_client()
    for path in [
        "/",
        "/api",
        "/api/alice",
        "/api/alice/tasks/0",
        "/api/alice/tasks/x",
        "/api/alice/tasks/",
    ]:
        assert_error(client.get(path, headers=headers), 404, "not_found")
    for method, path in [
        ("PATCH", "/api/alice/tasks"),
        ("POST", "/api/alice/tasks/1"),
        ("GET", "/api/alice/tasks/1/complete"),
    ]:
        assert_error(client.open(path, method=method, headers=headers), 405, "method_not_allowed")
    for _, path in OPERATIONS:
        response = client.options(path, headers=headers)
        assert (response.status_code, response.data) == (200, b"")
    assert client.get("/health", headers=headers).status_code == 200


def test_head_needs_a_token_as_get_does(api: Flask):
    client = api.test_client()
    assert client.head("/api/alice/me").status_code == 401
    assert (
        client.head("/api/alice/me", headers={"Authorization": f"Bearer {TOKEN}"}).status_code
        == 200
    )


USER_IDS = [
    "auth0|12345",
    "kQ3v9TtYw1nXz5RbCf7HjLmP2sD4gA8e",
    "alice+tasks@example.com",
    "a/b",
    "/",
    "//a//",
]
USER_IDS += [
    "100%",
    "%2F",
    "%41",
    "a?b=c",
    "a#b",
    "a b",
    " ",
    "a;b=c",
    "a:b@c",
    "Jürgen",
    "ﬁ",
    "用户",
    "🦊",
]
USER_IDS += [
    "tasks",
    "a/tasks/12",
    "a/tasks/12/complete",
    "tasks/tasks",
    "…",
    "<b>'\"\\",
    "0",
    "null",
]
USER_IDS += ["x" * 255, "🦊" * 255]


def test_user_id_may_hold_any_character(app: Flask):
    for user_id in USER_IDS:
        user = User(app.test_client(), user_id)
        response = user.call("POST", json={"title": user_id[:200] if user_id.strip() else "x"})
        assert response.status_code == 201, user_id
        task = response.json
        assert task["user_id"] == user_id
        location = urlsplit(response.headers["Location"])
        assert not location.query, user_id
        assert user.call("GET", location.path).json == task, user_id
        assert user.call("PATCH", f"{task['id']}/complete").json["completed"] is True, user_id
        assert user.call("PUT", task["id"], json={"title": "New"}).json["title"] == "New", user_id
        assert [each["id"] for each in user.all()] == [task["id"]], user_id
        assert user.call("DELETE", task["id"]).status_code == 204, user_id
        assert user.all() == [], user_id


def test_kinds_of_tokens_follow_the_settings(issuer: Issuer):
    own, theirs = TOKEN, issuer.token()
    secret_only = gate_for()
    issuer_only = gate_for(better_auth_secret="", better_auth_url=issuer.origin)
    both = gate_for(better_auth_url=issuer.origin)
    accepted = [
        [ask(app, token).status_code for token in (own, theirs)]
        for app in (secret_only, issuer_only, both)
    ]
    assert accepted == [[200, 401], [401, 200], [200, 200]]
    message = "The token is signed with an algorithm that is not accepted."
    assert_refused(secret_only, theirs, message)
    assert_refused(issuer_only, own, message)
    for secret in ["", SECRET[:5]]:
        assert_refused(issuer_only, token_of(GOOD, secret=secret), message)


NEW_SECRET = "the secret after it, of 32 bytes or more"


def test_while_a_secret_is_changed_tokens_of_both_are_taken():
    old, new = TOKEN, token_of(GOOD, secret=NEW_SECRET)
    before = gate_for()
    changing = gate_for(better_auth_secret=NEW_SECRET, better_auth_secret_previous=SECRET)
    after = gate_for(better_auth_secret=NEW_SECRET)
    accepted = [
        [ask(app, token).status_code for token in (old, new)]
        for app in (before, changing, changing, after)
    ]
    assert accepted == [[200, 401], [200, 200], [200, 200], [401, 200]]
    assert_refused(after, old, "The signature of the token is not valid.")
    assert_refused(changing, token_of(GOOD | {"exp": 1}), "The token has expired.")
    assert_refused(changing, token_of(GOOD | {"sub": ""}), "The token does not name a user.")


@pytest.mark.parametrize("token", REFUSED.values(), ids=REFUSED)
def test_token_that_is_refused_is_so_by_the_previous_secret_too(token: str):
    verify = token_verifier(
        settings_for(
            "postgresql://", better_auth_secret=NEW_SECRET, better_auth_secret_previous=SECRET
        )
    )
    with pytest.raises(TokenRefused):
        verify(token)


@pytest.mark.parametrize("digest", ["sha384", "sha512"])
def test_hs256_is_the_one_algorithm_of_the_secret_however_long_it_is(digest: str):
    app, secret = gate_for(better_auth_secret="s" * 64), "s" * 64
    assert ask(app, token_of(GOOD, secret=secret)).status_code == 200
    header = HS256 | {"alg": digest.replace("sha", "HS")}
    message = "The token is signed with an algorithm that is not accepted."
    assert_refused(app, token_of(GOOD, header, secret=secret, digest=digest), message)


def test_public_key_is_no_secret_of_hmac(issuer: Issuer):
    """RFC 8725, section 2.1: if a public key were used as a secret, anybody could sign with it."""
    key = issuer.keys[0]
    public = key.private.public_key()
    subject_info = PublicFormat.SubjectPublicKeyInfo
    secrets = {
        "PEM": public.public_bytes(Encoding.PEM, subject_info),
        "PEM without its last line": public.public_bytes(Encoding.PEM, subject_info).rstrip(),
        "DER": public.public_bytes(Encoding.DER, subject_info),
        "raw": public.public_bytes_raw(),
        "x": key.entry()["x"],
        "JWK": json.dumps(key.entry()),
        "kid": key.kid,
    }
    for app in (
        gate_for(better_auth_url=issuer.origin),
        gate_for(better_auth_secret="", better_auth_url=issuer.origin),
    ):
        for secret in secrets.values():
            for header in (HS256, HS256 | {"kid": key.kid}, {"alg": "EdDSA", "kid": key.kid}):
                assert_refused(app, token_of(issuer.claims(), header, secret=secret))


def test_session_cache_of_the_issuers_own_key_is_refused(issuer: Issuer):
    """Better Auth signs its cookie cache with the same key: type and audience tell it apart."""
    app = gate_for(better_auth_url=issuer.origin)
    key, audience = issuer.keys[0], "better-auth:session-cache"
    cache = issuer.claims(aud=audience, sid="kQ3v9TtYw1nXz5RbCf7HjLmP2sD4gA8e")
    assert_refused(app, key.sign(cache, typ="better-auth.session-cache+jwt"))
    assert_refused(app, key.sign(cache))
    assert_refused(app, key.sign(issuer.claims(), typ="better-auth.session-cache+jwt"))


OURS = "https://app.example.com"
CLAIM_SETS: dict[str, dict[str, Any]] = {
    "neither": {},
    "iss": {"iss": OURS},
    "aud": {"aud": OURS},
    "both": {"iss": OURS, "aud": OURS},
    "one of several aud": {"iss": OURS, "aud": ["x", OURS]},
    "another iss": {"iss": "https://evil.example.com", "aud": OURS},
    "another aud": {"iss": OURS, "aud": "https://evil.example.com"},
    "iss with a slash": {"iss": f"{OURS}/", "aud": OURS},
    "aud with a slash": {"iss": OURS, "aud": f"{OURS}/"},
    "iss a list": {"iss": [OURS], "aud": OURS},
    "iss null": {"iss": None, "aud": OURS},
    "aud an object": {"iss": OURS, "aud": {OURS: True}},
    "aud with a number": {"iss": OURS, "aud": [OURS, 1]},
    "aud empty": {"iss": OURS, "aud": []},
    "aud null": {"iss": OURS, "aud": None},
}
COMPLETE = {"both", "one of several aud"}
RULES: dict[str, tuple[dict[str, str], set[str], set[str]]] = {
    # settings; the claim sets accepted in a token of the secret; those in one of the issuer
    "origin of BETTER_AUTH_URL": (
        {"better_auth_url": f"{OURS}/api/auth"},
        {"neither", "iss", "aud"} | COMPLETE,
        COMPLETE,
    ),
    "JWT_ISSUER": (
        {"better_auth_url": "https://other.example.com", "jwt_issuer": OURS, "jwt_audience": OURS},
        COMPLETE,
        COMPLETE,
    ),
    "JWT_AUDIENCE": (
        {"better_auth_url": OURS, "jwt_audience": OURS},
        {"aud"} | COMPLETE,
        COMPLETE,
    ),
    "JWKS_URL and JWT_ISSUER": (
        {"jwt_issuer": OURS},
        {"iss", "aud empty", "aud null"},
        {"iss", "aud empty", "aud null"},
    ),
}


@pytest.mark.parametrize(("settings", "own", "theirs"), RULES.values(), ids=RULES)
def test_iss_and_aud_are_demanded(
    issuer: Issuer, settings: dict[str, str], own: set[str], theirs: set[str]
):
    app = gate_for(**settings, jwks_url=f"{issuer.origin}/api/auth/jwks")
    key = issuer.keys[0]
    claims = {name: GOOD | each for name, each in CLAIM_SETS.items()}
    header = {"alg": "EdDSA", "kid": key.kid}

    def accepted(tokens: dict[str, str]) -> set[str]:
        return {name for name, token in tokens.items() if ask(app, token).status_code == 200}

    assert accepted({name: token_of(each) for name, each in claims.items()}) == own
    assert accepted({name: key.sign_raw(each, header) for name, each in claims.items()}) == theirs
