"""Who is calling, and is the path theirs: decided once, before any view runs."""

import re
import time
from functools import lru_cache
from typing import Any, NamedTuple

import jwt
from flask import Flask

from capacity.rate_limits import RateLimits, caller_at
from config import Settings
from converters import MAX_USER_ID_LENGTH
from errors import ApiError
from field_types import UNSTORABLE
from jwks import KEY_OF_ALGORITHM, KeySet, KeysUnavailable, UnknownKey
from lean_flask import current_request
from strict_json import parse_json
from trail import CURRENT, note_error

PUBLIC_ENDPOINTS = frozenset(
    {
        "health.get_health",
        "health.get_liveness",
        "health.get_readiness",
        "docs.get_openapi",
        "docs.get_swagger_ui",
        "docs.get_redoc",
        "docs.get_asset",
    }
)

SYMMETRIC_ALGORITHM = "HS256"
LEEWAY = 30  # seconds that the issuer's clock may be ahead or behind
LAST_EXPIRY = 253_402_300_799  # the end of the year 9999, the last that RFC 3339 can write
REMEMBERED_TOKENS = 4096

COMPACT_TOKEN = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)

# The closed set of reasons: a name for logs and metrics, a sentence for the client.
MESSAGE_OF_REFUSAL = {
    "algorithm": "The token is signed with an algorithm that is not accepted.",
    "audience": "The token is meant for another audience.",
    "claim": "The token lacks the claim {claim}.",
    "expired": "The token has expired.",
    "expiry": "The token has no valid expiry.",
    "immature": "The token is not valid yet.",
    "invalid": "The token is not valid.",
    "issuer": "The token is from another issuer.",
    "key_unknown": "The token is signed with a key that its issuer does not publish.",
    "key_unnamed": "The token does not name its key.",
    "keys_unavailable": "The keys of the token's issuer are not available right now.",
    "malformed": "The token is not a JWT.",
    "missing": "Send a token in the header Authorization: Bearer.",
    "owner": "This path belongs to another user.",
    "signature": "The signature of the token is not valid.",
    "subject": "The token does not name a user.",
    "type": "The token is of a type that is not accepted.",
}
REASON_OF_ERROR: dict[type[jwt.PyJWTError], str] = {
    jwt.ImmatureSignatureError: "immature",
    jwt.InvalidAudienceError: "audience",
    jwt.InvalidIssuerError: "issuer",
    jwt.MissingRequiredClaimError: "claim",
    jwt.exceptions.InvalidSubjectError: "subject",
}
CLAIM_OF_REASON = {"issuer": "iss", "audience": "aud"}
MAX_LOGGED_CLAIM = 200  # characters


class TokenRefused(Exception):
    """A token that this API refuses: the text is for the client, the reason for counting."""

    def __init__(self, reason: str, claim: str = "", subject: str | None = None) -> None:
        super().__init__(MESSAGE_OF_REFUSAL[reason].format(claim=claim))
        self.reason = reason
        self.subject = subject  # of an expired token whose signature is good


class Verified(NamedTuple):
    """What is cached of a token: its user, its expiry, and the key that verified it."""

    subject: str
    expiry: int
    algorithm: str
    kid: str | None
    key: Any


def unauthorized(refusal: TokenRefused) -> ApiError:
    """Make a 401 with the challenge of RFC 6750, section 3.

    No `error` where no token was sent, nor where it is good, but another user's.
    """
    is_bad = refusal.reason not in {"missing", "owner"}
    challenge = 'Bearer error="invalid_token"' if is_bad else "Bearer"
    return ApiError(401, str(refusal), headers={"WWW-Authenticate": challenge})


def note_refusal(reason: str, subject: str | None = None) -> None:
    if trail := CURRENT.get():
        trail.refused = reason
        trail.user = trail.user or subject


class TokenVerifier:
    """Turns a token into its `sub`, and remembers those that it has verified."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._key_set = KeySet(settings.key_set_url) if settings.key_set_url else None
        both = (settings.better_auth_secret, settings.better_auth_secret_previous)
        self._secrets = [secret for secret in both if secret]
        # A token costs 30 µs or more to verify and is sent with every request of its user.
        self._verify_once = lru_cache(REMEMBERED_TOKENS)(self._verify)

    def __call__(self, token: str) -> str:
        """Return the token's user.

        Raises:
            TokenRefused: it is not accepted.
            KeysUnavailable: the issuer's keys cannot be fetched.
        """
        known = self._verify_once(token)
        # Since it was verified, its key may have been withdrawn, or it may have expired.
        if known.key not in self._find_keys(known.algorithm, known.kid):
            raise TokenRefused("signature")
        if time.time() >= known.expiry + LEEWAY:
            raise TokenRefused("expired", subject=known.subject)
        return known.subject

    def _find_keys(self, algorithm: str, kid: str | None) -> list[Any]:
        """Choose by algorithm: secrets are for HMAC only, a public key for its own algorithm."""
        if algorithm == SYMMETRIC_ALGORITHM and self._secrets:
            return self._secrets
        if algorithm not in KEY_OF_ALGORITHM or not self._key_set:
            raise TokenRefused("algorithm")
        if kid is None:
            raise TokenRefused("key_unnamed")
        try:
            return [self._key_set.find(kid, algorithm)]
        except UnknownKey:
            raise TokenRefused("key_unknown") from None

    def _expected(self, algorithm: str, claims: dict[str, Any]) -> tuple[str | None, str | None]:
        """Return the `iss` and `aud` that a token must have; None: any `iss` will do, but no `aud`.

        Better Auth signs no HS256 token for an API: those are made by the front end's own code,
        often without `iss`, needed only with JWT_ISSUER, or `aud`, needed only with JWT_AUDIENCE.
        """
        settings, is_secret = self._settings, algorithm == SYMMETRIC_ALGORITHM
        issuer = settings.jwt_issuer if is_secret and "iss" not in claims else settings.issuer
        audience = settings.jwt_audience if is_secret and "aud" not in claims else settings.audience
        return issuer or None, audience or None

    def _verify(self, token: str) -> Verified:
        header, claims = parse_token(token)
        algorithm, kid = header.get("alg", "none"), header.get("kid")
        keys = self._find_keys(algorithm, kid)
        issuer, audience = self._expected(algorithm, claims)
        for key in keys:
            try:
                jwt.decode(
                    token,
                    key,
                    algorithms=[algorithm],
                    issuer=issuer,
                    audience=audience,
                    leeway=LEEWAY,
                    options={"require": ["exp", "sub"], "enforce_minimum_key_length": True},
                )
            except jwt.InvalidSignatureError:
                continue
            except jwt.ExpiredSignatureError:
                check_claims(claims)
                raise TokenRefused("expired", subject=claims["sub"]) from None
            except jwt.PyJWTError as error:
                reason = REASON_OF_ERROR.get(type(error), "invalid")
                if name := CLAIM_OF_REASON.get(reason):  # the log says how it differs from ours
                    came = repr(claims.get(name))[:MAX_LOGGED_CLAIM]
                    ours = {"iss": issuer, "aud": audience}[name]
                    note_error(type(error)(f"{name} is {came}, and here {ours or 'not set'}"))
                raise TokenRefused(reason, getattr(error, "claim", "")) from None
            check_claims(claims)
            return Verified(claims["sub"], claims["exp"], algorithm, kid, key)
        raise TokenRefused("signature")


def parse_token(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read header and claims more strictly than PyJWT: no padding, duplicate names or other types.

    Raises:
        TokenRefused: it is not a JWT, or one for another purpose.
    """
    if not COMPACT_TOKEN.fullmatch(token):
        raise TokenRefused("malformed")
    try:
        header, claims = (
            parse_json(jwt.utils.base64url_decode(part)) for part in token.split(".")[:2]
        )
    except ValueError:
        raise TokenRefused("malformed") from None
    if not isinstance(header, dict) or not isinstance(claims, dict):
        raise TokenRefused("malformed")
    if not all(isinstance(header.get(name, ""), str) for name in ("alg", "kid", "typ")):
        raise TokenRefused("malformed")
    if header.get("typ", "JWT").upper() != "JWT":
        raise TokenRefused("type")
    return header, claims


def check_claims(claims: dict[str, Any]) -> None:
    """Refuse what PyJWT lets through: a `sub` that no user can have, an `exp` that is no int."""
    subject, expiry = claims["sub"], claims["exp"]
    is_id = isinstance(subject, str) and 1 <= len(subject) <= MAX_USER_ID_LENGTH
    if not is_id or UNSTORABLE.search(subject):
        raise TokenRefused("subject")
    if type(expiry) is not int or expiry > LAST_EXPIRY:
        raise TokenRefused("expiry")


def bearer_token(header: str | None) -> str:
    """Take the token out of an Authorization header (RFC 6750, section 2.1).

    Raises:
        TokenRefused: there is none.
    """
    scheme, _, rest = (header or "").partition(" ")
    token = rest.strip(" ")
    if scheme.lower() != "bearer" or not token:
        raise TokenRefused("missing")
    return token


def require_owner(app: Flask, settings: Settings) -> None:
    """Let a request with a route through only for the user that its path belongs to."""
    limits: RateLimits = app.extensions["rate_limits"]
    verify = TokenVerifier(settings)

    def check_owner() -> None:
        req = current_request()
        if req.endpoint is None or req.endpoint in PUBLIC_ENDPOINTS:
            return
        if req.method == "OPTIONS":  # its response reveals nothing about anybody
            return
        try:
            subject = verify(bearer_token(req.environ.get("HTTP_AUTHORIZATION")))
        except TokenRefused as error:
            note_refusal(error.reason, error.subject)  # before the limit, whose 429 would hide it
            # A token that has expired is no guess, and must not use up its neighbours' quota.
            caller = f"user {error.subject}" if error.subject else caller_at(req.environ)
            limits.auth_failures.count(caller, environ=req.environ)
            raise unauthorized(error) from None
        except KeysUnavailable:
            note_refusal("keys_unavailable")
            raise ApiError(503, MESSAGE_OF_REFUSAL["keys_unavailable"]) from None
        if trail := CURRENT.get():
            trail.user = subject
        limits.requests.count(subject, environ=req.environ)
        owner = (req.view_args or {}).get("user_id", "")
        if subject != owner:
            # A slash in an id is sent as %2F: a plain one behind the caller's own begins a path.
            raw_path = req.environ.get("RAW_URI", "").partition("?")[0].lower()
            if owner.startswith(f"{subject}/") and raw_path.count("%2f") <= subject.count("/"):
                raise ApiError(404)  # a path of the user's own, where there is nothing
            note_refusal("owner")
            raise unauthorized(TokenRefused("owner"))

    app.before_request(check_owner)
