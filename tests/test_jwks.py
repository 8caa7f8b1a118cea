"""The issuer's keys: which tokens they verify, and what a set of them may hold."""

import json
import re
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from flask import Flask
from issuer import (
    ALGORITHMS,
    BAD_SIGNATURE,
    JWKS_PATH,
    LACKS_KEY,
    NOT_ACCEPTED,
    Issuer,
    Key,
    answer_with,
    base64url,
    get_me,
    make_key,
    one_key,
)
from jwt.algorithms import ECAlgorithm
from support import assert_error
from tokens import assert_refused

import jwks
from jwks import MAX_KEY_SET_SIZE, MAX_KEYS

UNNAMED = "The token does not name its key."


# Which key


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_token_of_each_algorithm_is_accepted(issuer: Issuer, gate: Flask, algorithm: str):
    issuer.keys = [make_key(), one_key(algorithm)]
    assert get_me(gate, issuer.token(one_key(algorithm))).json == {"user_id": "alice"}
    assert_refused(gate, issuer.token(make_key(kid=one_key(algorithm).kid)))


@pytest.mark.parametrize("unnamed", [{}, {"alg": None}])
def test_key_without_alg_is_good_for_the_algorithms_of_its_kind(
    issuer: Issuer, gate: Flask, unnamed: dict[str, None]
):
    keys = [one_key(algorithm) for algorithm in ALGORITHMS]
    entries = [{n: v for n, v in key.entry().items() if n != "alg"} | unnamed for key in keys]
    issuer.behave = answer_with(json.dumps({"keys": entries}).encode())
    for key in keys:
        assert get_me(gate, issuer.token(key)).status_code == 200
    either = one_key("RS256")
    assert get_me(gate, either.sign(issuer.claims(), "PS256")).status_code == 200
    for algorithm in ["RS384", "RS512", "PS384"]:
        assert_refused(gate, either.sign(issuer.claims(), algorithm), NOT_ACCEPTED)


@pytest.mark.parametrize("declared", ALGORITHMS)
def test_key_is_good_for_its_own_algorithm_alone(issuer: Issuer, gate: Flask, declared: str):
    issuer.keys = [Key(declared, one_key(declared).private, "its name")]
    for algorithm in set(ALGORITHMS) - {declared}:
        kinds = {declared, algorithm}
        signer = one_key(declared if kinds == {"PS256", "RS256"} else algorithm)
        token = signer.sign(issuer.claims(), algorithm, kid="its name")
        assert_refused(gate, token, LACKS_KEY)


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
    issuer: Issuer, gate: Flask, header: dict[str, Any], message: str
):
    token = issuer.keys[0].sign_raw(issuer.claims(), {"alg": "EdDSA"} | header)
    assert_refused(gate, token, message)


def test_token_without_kid_is_refused_without_asking_the_issuer(issuer: Issuer, gate: Flask):
    assert_refused(gate, issuer.keys[0].sign_raw(issuer.claims(), {"alg": "EdDSA"}), UNNAMED)
    assert issuer.requests == []


def test_keys_that_a_token_brings_along_are_ignored(issuer: Issuer, gate: Flask):
    attacker = Issuer(make_key(kid=issuer.keys[0].kid))
    key = attacker.keys[0]
    url = attacker.origin + JWKS_PATH
    headers = [{"jku": url}, {"x5u": url}, {"jwk": key.entry()}, {"x5c": [key.entry()["x"]]}]
    try:
        for header in [{}, *headers, {"jku": url, "jwk": key.entry()}]:
            token = key.sign(issuer.claims(), **header)
            assert_refused(gate, token, BAD_SIGNATURE)
        assert attacker.requests == []
    finally:
        attacker.go_away()


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


def test_key_that_is_good_for_two_algorithms_is_told_to_be_broken_once(caplog: Any):
    entry = entry_of("RS256", n="") | {"alg": None}
    assert jwks.parse_key_set(json.dumps({"keys": [entry]}).encode()) == {}
    assert len(caplog.records) == 1


def test_key_that_is_too_short_is_refused(issuer: Issuer, gate: Flask):
    short = Key("RS256", rsa.generate_private_key(65537, 1024), "short")  # noqa: S505
    issuer.keys = [short]
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = issuer.token()
    assert_refused(gate, token, "The token is not valid.")


def test_other_members_of_a_key_set_are_ignored(issuer: Issuer, gate: Flask):
    entry = issuer.keys[0].entry() | {"use": "sig", "key_ops": ["verify"], "x5c": [], "new": {}}
    issuer.behave = answer_with(json.dumps({"version": 2, "keys": [entry]}).encode())
    assert get_me(gate, issuer.token()).status_code == 200


def test_set_as_large_as_one_may_be_is_taken(issuer: Issuer, gate: Flask):
    entries = [issuer.keys[0].entry()] + [{}] * (MAX_KEYS - 1)
    issuer.behave = answer_with(json.dumps({"keys": entries}).encode().ljust(MAX_KEY_SET_SIZE))
    assert get_me(gate, issuer.token()).status_code == 200


def test_key_set_with_too_many_keys_is_503(issuer: Issuer, gate: Flask, caplog: Any):
    issuer.behave = answer_with(json.dumps({"keys": [{}] * (MAX_KEYS + 1)}).encode())
    assert_error(get_me(gate, issuer.token()), 503, "unavailable")
    assert len([each for each in caplog.records if each.name == "jwks"]) == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<!doctype html><title>Sign in</title>", "it cannot be read as JSON: Expecting value"),
        (b"\x1f\x8b\x08", "it cannot be read as JSON: 'utf-8' codec"),
        (b'{"keys": [], "keys": []}', "it cannot be read as JSON: an object has a name twice"),
        (b'{"issuer": "https://x", "jwks_uri": "https://x/keys"}', "it is no key set: "),
        (b'{"keys": {}}', 'it is no key set: it has no list "keys"'),
        (json.dumps({"keys": [{}] * (MAX_KEYS + 1)}).encode(), "it has more than 100 keys"),
    ],
)
def test_refusal_of_a_key_set_says_what_came_instead(body: bytes, message: str):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        jwks.parse_key_set(body)
