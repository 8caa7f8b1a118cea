"""Tokens of the secret: a good one, and those that have to be refused."""

import hmac
import json
import time
from typing import Any

from flask import Flask
from issuer import base64url, get_me, part
from support import SECRET, assert_error

IN_AN_HOUR = int(time.time()) + 3600
GOOD: dict[str, Any] = {"sub": "alice", "exp": IN_AN_HOUR}
HS256 = {"alg": "HS256", "typ": "JWT"}


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
DEEP_HEADER = token_of(GOOD, b'{"alg": "HS256", "x": ' + NESTED + b"}")
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


def assert_refused(app: Flask, token: str, message: str | None = None) -> None:
    """Require that the token itself is refused, not the path that it was sent to."""
    response = get_me(app, token)
    assert_error(response, 401, "unauthorized", message)
    assert response.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert response.json
    assert response.json["message"] != "This path belongs to another user."
