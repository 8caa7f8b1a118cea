"""Which tokens are taken: their form, their claims, their age, and who has signed them."""

import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from flask import Flask
from issuer import BAD_SIGNATURE, NOT_ACCEPTED, Issuer, gate_for, get_me
from support import SECRET, settings_for
from tokens import (
    DEEP_HEADER,
    GOOD,
    HS256,
    IN_AN_HOUR,
    REFUSED,
    TOKEN,
    WRONG_SIGNATURES,
    assert_refused,
    token_of,
)

from auth import LEEWAY, REMEMBERED_TOKENS, TokenRefused, TokenVerifier


def test_a_token_of_sub_and_exp_is_enough(whole_app: Flask):
    response = get_me(whole_app, TOKEN)
    assert (response.status_code, response.json) == (200, {"user_id": "alice"})


@pytest.mark.parametrize("token", REFUSED.values(), ids=REFUSED)
def test_token_is_refused(whole_app: Flask, token: str):
    assert_refused(whole_app, token)


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
def test_token_is_accepted(whole_app: Flask, token: str):
    assert get_me(whole_app, token).status_code == 200


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ({"exp": IN_AN_HOUR - 7200}, "The token has expired."),
        ({"nbf": IN_AN_HOUR}, "The token is not valid yet."),
        ({"aud": "elsewhere"}, "The token is meant for another audience."),
        ({"exp": None}, "The token lacks the claim exp."),
        ({"sub": None}, "The token lacks the claim sub."),
        ({"sub": ""}, "The token does not name a user."),
        ({"sub": 5}, "The token does not name a user."),
        ({"sub": "\0", "exp": 1}, "The token does not name a user."),
        ({"exp": IN_AN_HOUR + 0.5}, "The token has no valid expiry."),
    ],
)
def test_refusal_says_what_is_wrong(whole_app: Flask, claims: dict[str, Any], message: str):
    assert_refused(whole_app, token_of(GOOD | claims), message)


@pytest.mark.parametrize("name", ["exp", "iat", "nbf"])
def test_clocks_may_differ_by_seconds(whole_app: Flask, name: str):
    now, sign = int(time.time()), -1 if name == "exp" else 1
    assert get_me(whole_app, token_of(GOOD | {name: now + sign * (LEEWAY - 5)})).status_code == 200
    assert_refused(whole_app, token_of(GOOD | {name: now + sign * (LEEWAY + 30)}))
    assert LEEWAY <= 30


def test_remembered_token_is_refused_once_expired(
    whole_app: Flask, monkeypatch: pytest.MonkeyPatch
):
    now = time.time()
    token = token_of(GOOD | {"exp": int(now) + 100})
    for later, status in [(0, 200), (99, 200), (100 + LEEWAY - 2, 200), (100 + LEEWAY + 1, 401)]:
        monkeypatch.setattr("auth.time.time", lambda then=now + later: then)
        assert get_me(whole_app, token).status_code == status, later
    assert_refused(whole_app, token, "The token has expired.")


def test_token_is_verified_once_and_refused_ones_are_not_kept(monkeypatch: pytest.MonkeyPatch):
    verify = TokenVerifier(settings_for("postgresql://"))
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


def test_kinds_of_tokens_follow_the_settings(issuer: Issuer):
    own, theirs = TOKEN, issuer.token()
    secret_only = gate_for()
    issuer_only = gate_for(better_auth_secret="", better_auth_url=issuer.origin)
    both = gate_for(better_auth_url=issuer.origin)
    accepted = [
        [get_me(app, token).status_code for token in (own, theirs)]
        for app in (secret_only, issuer_only, both)
    ]
    assert accepted == [[200, 401], [401, 200], [200, 200]]
    assert_refused(secret_only, theirs, NOT_ACCEPTED)
    assert_refused(issuer_only, own, NOT_ACCEPTED)
    for secret in ["", SECRET[:5]]:
        assert_refused(issuer_only, token_of(GOOD, secret=secret), NOT_ACCEPTED)


def test_deep_header_is_no_500():
    assert get_me(gate_for(), DEEP_HEADER).status_code in {401, 200}  # Python 3.14 can read it


NEW_SECRET = "the secret after it, of 32 bytes or more"


def test_while_a_secret_is_changed_tokens_of_both_are_taken():
    old, new = TOKEN, token_of(GOOD, secret=NEW_SECRET)
    before = gate_for()
    changing = gate_for(better_auth_secret=NEW_SECRET, better_auth_secret_previous=SECRET)
    after = gate_for(better_auth_secret=NEW_SECRET)
    accepted = [
        [get_me(app, token).status_code for token in (old, new)]
        for app in (before, changing, changing, after)
    ]
    assert accepted == [[200, 401], [200, 200], [200, 200], [401, 200]]
    assert_refused(after, old, BAD_SIGNATURE)
    assert_refused(changing, token_of(GOOD | {"exp": 1}), "The token has expired.")
    assert_refused(changing, token_of(GOOD | {"sub": ""}), "The token does not name a user.")


@pytest.mark.parametrize("token", REFUSED.values(), ids=REFUSED)
def test_previous_secret_accepts_no_token_that_the_current_one_refuses(token: str):
    settings = settings_for(
        "postgresql://", better_auth_secret=NEW_SECRET, better_auth_secret_previous=SECRET
    )
    verify = TokenVerifier(settings)
    with pytest.raises(TokenRefused):
        verify(token)


@pytest.mark.parametrize("digest", ["sha384", "sha512"])
def test_hs256_is_the_one_algorithm_of_the_secret_however_long_it_is(digest: str):
    app, secret = gate_for(better_auth_secret="s" * 64), "s" * 64
    assert get_me(app, token_of(GOOD, secret=secret)).status_code == 200
    header = HS256 | {"alg": digest.replace("sha", "HS")}
    assert_refused(app, token_of(GOOD, header, secret=secret, digest=digest), NOT_ACCEPTED)


def test_public_key_is_not_accepted_as_a_secret_of_hmac(issuer: Issuer):
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
        return {name for name, token in tokens.items() if get_me(app, token).status_code == 200}

    assert accepted({name: token_of(each) for name, each in claims.items()}) == own
    assert accepted({name: key.sign_raw(each, header) for name, each in claims.items()}) == theirs
