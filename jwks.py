"""The issuer's public keys: fetched once, refreshed in the background, kept while the issuer is away.

RFC 7517 for the format; https://www.better-auth.com/docs/plugins/jwt for what the issuer sends.
"""

import json
import logging
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from math import inf
from socket import SHUT_RDWR
from threading import Lock, Thread, Timer
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from jwt import PyJWK
from jwt.exceptions import PyJWTError

log = logging.getLogger(__name__)

FETCH_TIMEOUT = 2.0  # seconds, for the whole of a fetch
LARGEST_KEY_SET = 256 * 1024  # bytes
REFRESH_AFTER = 300.0  # seconds
FETCH_PAUSE = 5.0  # seconds between two fetches, however many requests ask
FORGET_AFTER = 24 * 3600.0  # seconds that keys stay good while the issuer is away

# What a key without `alg` may sign, by its `kty` and `crv` (RFC 7518, section 3.1; RFC 8037).
ALGORITHMS_OF_KEY = {
    ("OKP", "Ed25519"): ("EdDSA",),
    ("EC", "P-256"): ("ES256",),
    ("EC", "P-521"): ("ES512",),
    ("RSA", None): ("RS256", "PS256"),
}


class KeysUnavailable(Exception):
    """No key could be had from the issuer so far."""


class UnknownKey(Exception):
    """The issuer has no key of this name and algorithm."""


def fetch(url: str) -> bytes:
    """Download a key set within FETCH_TIMEOUT, whatever the server does; redirects are refused.

    Raises:
        OSError, HTTPException: it cannot be reached, or answers badly, too slowly or too much.
    """
    parts = urlsplit(url)
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=FETCH_TIMEOUT)
    connection.connect()
    # The socket's timeout is one of each read: a server that drips would outlive it.
    deadline = Timer(FETCH_TIMEOUT, connection.sock.shutdown, [SHUT_RDWR])
    deadline.daemon = True
    deadline.start()
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("GET", target, headers={"Accept": "application/json"})
        response = connection.getresponse()
        if response.status != HTTPStatus.OK:
            raise HTTPException(f"it answered with status {response.status}")
        body = response.read(LARGEST_KEY_SET + 1)
    finally:
        deadline.cancel()
        connection.close()
    if len(body) > LARGEST_KEY_SET:
        raise HTTPException(f"it is larger than {LARGEST_KEY_SET} bytes")
    return body


def parse_key_set(body: bytes) -> dict[tuple[str, str], Any]:
    """Read the signing keys of a JWKS by `kid` and algorithm; keys of other kinds are passed over.

    Raises:
        ValueError: it is no key set.
    """
    try:
        entries = list(json.loads(body)["keys"])
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"it is no key set: {error!r}") from error
    keys = {}
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
            continue
        for algorithm in ALGORITHMS_OF_KEY.get((entry.get("kty"), entry.get("crv")), ()):
            if entry.get("alg", algorithm) == algorithm and isinstance(entry.get("kid"), str):
                with suppress(PyJWTError):
                    keys[entry["kid"], algorithm] = PyJWK(entry, algorithm).key
    return keys


class KeySet:
    """The keys of one issuer. Safe between threads; a fork starts its own fetches."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._keys: dict[tuple[str, str], Any] = {}
        self._fetched_at = self._asked_at = -inf
        self._fetching: Thread | None = None
        self._lock = Lock()
        self.generation = 0  # moves whenever the keys have changed

    def find(self, kid: str, algorithm: str) -> Any:
        """Return the public key of this name for this algorithm, fetching the set where needed.

        Raises:
            UnknownKey: the issuer has no such key.
            KeysUnavailable: no key set could be had, or none for so long that none is trusted.
        """
        age = monotonic() - self._fetched_at
        if age > FORGET_AFTER:
            self._refresh(wait=True)
        elif age > REFRESH_AFTER:
            self._refresh(wait=False)
        if monotonic() - self._fetched_at > FORGET_AFTER:
            raise KeysUnavailable
        if (kid, algorithm) not in self._keys:
            self._refresh(wait=True)
        try:
            return self._keys[kid, algorithm]
        except KeyError:
            raise UnknownKey from None

    def _refresh(self, *, wait: bool) -> None:
        with self._lock:
            if self._fetching is None or not self._fetching.is_alive():
                if monotonic() - self._asked_at < FETCH_PAUSE:
                    return
                self._asked_at = monotonic()
                self._fetching = Thread(target=self._fetch, name="jwks", daemon=True)
                self._fetching.start()
            fetching = self._fetching
        if wait:
            fetching.join(FETCH_TIMEOUT)

    def _fetch(self) -> None:
        try:
            keys = parse_key_set(fetch(self._url))
        except (OSError, HTTPException, ValueError) as error:
            log.warning("the issuer's keys could not be fetched from %s: %s", self._url, error)
            return
        if keys.keys() != self._keys.keys():
            self.generation += 1
        self._keys = keys
        self._fetched_at = monotonic()
