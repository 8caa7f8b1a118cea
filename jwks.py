"""The issuer's public keys: fetched once, refreshed in the background, kept while it is away.

RFC 7517 for the format; https://www.better-auth.com/docs/plugins/jwt for what the issuer sends.
"""

import logging
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from io import BufferedReader, RawIOBase
from math import inf
from socket import SHUT_RDWR, socket
from ssl import create_default_context
from threading import Lock, Thread, Timer
from time import monotonic, sleep
from typing import Any
from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from capacity.turns import PAUSE
from events import emit
from strict_json import parse_json

log = logging.getLogger(__name__)

FETCH_TIMEOUT = 2.0  # seconds that a request waits for a fetch, and a fetch for its response
MAX_KEY_SET_SIZE = 256 * 1024  # bytes
REFRESH_AFTER = 300.0  # seconds
FETCH_PAUSE = 5.0  # seconds between two fetches, however many requests ask
MAX_KEYS = 100  # per issuer; each takes some time to read
FORGET_AFTER = 24 * 3600.0  # seconds that keys are trusted while the issuer is away

HEADERS = {"Accept": "application/json", "User-Agent": "tasks"}  # some firewalls demand the latter

# The `kty` and `crv` that an algorithm's key must have (RFC 7518, section 3.1; RFC 8037).
KEY_OF_ALGORITHM = {
    "EdDSA": ("OKP", "Ed25519"),
    "ES256": ("EC", "P-256"),
    "ES512": ("EC", "P-521"),
    "PS256": ("RSA", None),
    "RS256": ("RSA", None),
}

KeyName = tuple[str, str]  # `kid` and algorithm: a key is good for its own algorithm only


class KeysUnavailable(Exception):
    """No key set was ever fetched from the issuer, or none for longer than FORGET_AFTER."""


class UnknownKey(Exception):
    """The issuer has no key of this name and algorithm."""


def fetch(url: str) -> bytes:
    """Download a key set, within FETCH_TIMEOUT of connecting; redirects are refused.

    Raises:
        OSError, HTTPException, ValueError: it cannot be reached, or its response is unusable.
        RuntimeError: the system has no thread to look its name up, or to keep the deadline.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    tls = create_default_context() if parts.scheme == "https" else None
    default_port = 443 if tls else 80
    connection = HTTPConnection(host, parts.port or default_port, timeout=FETCH_TIMEOUT)
    connection.default_port = default_port  # which the header Host leaves out
    connection.response_class = PacedResponse
    with closing(connection):
        connection.connect()  # without TLS, which follows under the deadline
        # The socket's timeout applies to each read: a server that drips would outlast it, even in
        # the handshake. TLS takes over the socket, so the deadline needs a duplicate.
        with connection.sock.dup() as twin:
            deadline = Timer(FETCH_TIMEOUT, cut, [twin])
            deadline.daemon = True
            deadline.start()
            try:
                if tls:
                    connection.sock = tls.wrap_socket(connection.sock, server_hostname=host)
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                connection.request("GET", target, headers=HEADERS)
                with connection.getresponse() as response:
                    if response.status != 200:
                        raise HTTPException(f"it answered with status {response.status}")
                    body = response.read(MAX_KEY_SET_SIZE + 1)
            finally:
                deadline.cancel()
    if len(body) > MAX_KEY_SET_SIZE:
        raise HTTPException(f"it is larger than {MAX_KEY_SET_SIZE} bytes")
    return body


class PacedResponse(HTTPResponse):
    """Yields between reads, so that the deadline and others can run: a sender may never pause."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fp = BufferedReader(Paced(self.fp))


class Paced(RawIOBase):
    def __init__(self, file: Any) -> None:
        self.file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        sleep(PAUSE)
        read: int = self.file.readinto1(buffer)
        return read

    def close(self) -> None:
        self.file.close()
        super().close()


def cut(twin: socket) -> None:
    """Shut a connection down under its reader; SSLSocket.shutdown would have it read plain text."""
    with suppress(OSError):
        twin.shutdown(SHUT_RDWR)


def parse_key_set(body: bytes) -> dict[KeyName, Any]:
    """Read the public keys of a JWKS by name, skipping entries that cannot be used.

    Raises:
        ValueError: it is not a key set.
    """
    try:
        content = parse_json(body)
    except ValueError as error:  # of a page in HTML, for one
        raise ValueError(f"it cannot be read as JSON: {error}") from None
    match content:
        case {"keys": [*entries]} if len(entries) <= MAX_KEYS:
            return dict(pair for entry in entries for pair in keys_of(entry))
        case {"keys": [*_]}:
            raise ValueError(f"it has more than {MAX_KEYS} keys")
        case _:  # the issuer's openid-configuration, for one
            raise ValueError('it is no key set: it has no list "keys"')


def keys_of(entry: Any) -> Iterator[tuple[KeyName, Any]]:
    """Read an entry of a JWKS; without `alg`, an RSA key is good for both RSA algorithms."""
    if not isinstance(entry, dict) or entry.get("use") not in (None, "sig"):
        return
    kid = entry.get("kid")
    if not isinstance(kid, str) or "d" in entry:
        log.warning("a key of the issuer is skipped: it has no name, or includes its private part")
        return
    for algorithm, (kty, crv) in KEY_OF_ALGORITHM.items():
        if (
            entry.get("kty") == kty
            and crv in (None, entry.get("crv"))
            and entry.get("alg") in (None, algorithm)
        ):
            try:
                yield (kid, algorithm), PyJWK(entry, algorithm).key
            except (PyJWTError, UnsupportedAlgorithm) as error:
                log.warning("the issuer's key %r cannot be used: %s", kid, error)
                return


class KeySet:
    """The keys of one issuer. Thread-safe; after a fork, each process fetches for itself."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._body: bytes | None = None
        self._keys: dict[KeyName, Any] = {}
        self._fetched_at = self._asked_at = -inf
        self._failure = ""  # why the last fetch failed
        self._fetching: Thread | None = None
        self._lock = Lock()

    def find(self, kid: str, algorithm: str) -> Any:
        """Return the public key of this name for this algorithm, fetching the set where needed.

        Raises:
            UnknownKey: the issuer has no such key.
            KeysUnavailable: no key set was fetched, or the last one is too old to trust.
        """
        age = monotonic() - self._fetched_at
        if age > REFRESH_AFTER:
            self._refresh(wait=age > FORGET_AFTER)
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
            idle = self._fetching is None or not self._fetching.is_alive()
            starts = idle and monotonic() - self._asked_at >= FETCH_PAUSE
            if starts:
                self._asked_at = monotonic()
                thread = Thread(target=self._fetch, name="jwks", daemon=True)
                with suppress(RuntimeError):  # the system has no more threads: try again later
                    thread.start()
                    self._fetching = thread
            fetching, deadline = self._fetching, self._asked_at + FETCH_TIMEOUT
        # While the issuer fails, only the request that starts a fetch waits for it.
        if wait and fetching and (starts or not self._failure):
            fetching.join(max(0.0, deadline - monotonic()))

    def _fetch(self) -> None:
        started = monotonic()
        try:
            body = fetch(self._url)
            # A set that is still the same is not read again, nor is what is wrong in it told again.
            keys = self._keys if body == self._body else parse_key_set(body)
        except (OSError, HTTPException, ValueError, RuntimeError) as error:
            emit("jwks_failed")
            if self._failure != repr(error):  # told once, not every five seconds
                self._failure = repr(error)
                log.warning(
                    "the issuer's keys could not be fetched from %s, after %.1f s: %s",
                    self._url,
                    monotonic() - started,
                    error,
                )
            return
        if keys != self._keys or self._fetched_at == -inf:
            level = logging.INFO if keys else logging.WARNING  # without any, it refuses all tokens
            log.log(level, "the issuer at %s has %d keys for use here", self._url, len(keys))
        self._body, self._keys = body, keys
        self._fetched_at = monotonic()
        emit("jwks_fetched")
        if self._failure:
            log.warning("the issuer's keys can be fetched again")
        self._failure = ""
