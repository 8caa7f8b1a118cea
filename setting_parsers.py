"""How a setting's text is read: each function returns its value, or says what it must be."""

import re
from collections.abc import Callable
from socket import socket
from typing import Any
from urllib.parse import SplitResult, urlsplit

from jwt.algorithms import HMACAlgorithm
from jwt.exceptions import InvalidKeyError
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

NUMBER = re.compile("[0-9]{1,20}")  # int() refuses more than 4,300 in words of its own
MIN_SECRET_LENGTH = 32  # bytes; RFC 7518, section 3.2, for HS256
RATE = re.compile(
    r"([1-9][0-9]{0,9})\s*(?:/|per)\s*([1-9][0-9]{0,3})?\s*(second|minute|hour|day)s?",
    re.ASCII | re.IGNORECASE,
)
# A part of a label that has two more behind it: https://*.com would be half of the web.
SUBDOMAIN_WILDCARD = re.compile(r"\*(?=[a-z0-9-]*(?:\.[a-z0-9-]+){2,}(?::\d+)?$)")
APP_SCHEME = re.compile(r"^(?!https?:)[a-z][a-z0-9+.-]*://", re.IGNORECASE)
# Labels as DNS has them (else no connection could be tried), or an address of IPv6.
HOST = re.compile(
    r"(?:[A-Z0-9_-]{1,63}\.)*[A-Z0-9_-]{1,63}\.?|(?=.*:)[0-9A-F:.]+(?:%[\w.-]+)?",
    re.ASCII | re.IGNORECASE,
)
SECONDS_OF_UNIT = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}


def integer(minimum: int, maximum: int) -> Callable[[str], int]:
    """Make a parser of whole numbers from `minimum` to `maximum`; others raise ValueError."""

    def parse(text: str) -> int:
        if not NUMBER.fullmatch(text) or not minimum <= int(text) <= maximum:
            raise ValueError(f"a whole number from {minimum} to {maximum}")
        return int(text)

    return parse


def one_of(*choices: str) -> Callable[[str], str]:
    """Make a parser of these words, in capitals too; others raise ValueError."""

    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"{', '.join(choices[:-1])} or {choices[-1]}")
        return text.lower()

    return parse


def switch(text: str) -> bool:
    return one_of("on", "off")(text) == "on"


def secret(text: str) -> str:
    if len(text.encode()) < MIN_SECRET_LENGTH:
        raise ValueError(f"{MIN_SECRET_LENGTH} bytes or more (try: openssl rand -base64 32)")
    no_secret = ValueError("a random secret, not a key pair's PEM, SSH key or JWK")
    if text.startswith(("-----BEGIN", "{")):
        raise no_secret
    try:
        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(text)  # else it would refuse each token
    except InvalidKeyError:
        raise no_secret from None
    return text


def split_address(text: str) -> SplitResult:
    """Split an address as urlsplit does, with a ValueError that says what it must be."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:  # brackets without an IPv6 address, or no such port
        raise ValueError("an address with a host and a port that exist") from None
    return parts


def host(text: str) -> str:
    if not HOST.fullmatch(text):
        raise ValueError("a host's name or address in ASCII, without port and brackets")
    return text


def web_url(text: str) -> str:
    parts = split_address(text)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("an address that begins with http:// or https://")
    if not HOST.fullmatch(parts.hostname) or parts.netloc.endswith(":") or re.search(r"\s", text):
        raise ValueError("an address with the name of one host, in ASCII (punycode)")
    return text


def key_set_url(text: str) -> str:
    if "@" in urlsplit(web_url(text)).netloc:
        raise ValueError("an address without user and password, which would not be sent")
    if not text.isascii():
        raise ValueError("an address in ASCII, with all other characters percent-encoded")
    return text


def origin_of(url: str) -> str:
    """Reduce an address to its origin, as Better Auth does for `iss` and `aud`.

    https://html.spec.whatwg.org/#ascii-serialisation-of-an-origin: no user, no default port.
    """
    if not url:
        return ""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2].lower()
    default_port = ":443" if parts.scheme == "https" else ":80"
    return f"{parts.scheme}://{host.removesuffix(default_port)}"


def origins(text: str) -> tuple[str, ...]:
    found = tuple(origin.strip() for origin in text.split(",") if origin.strip())
    for origin in found:
        # The pages of an app on a phone have a scheme of their own, as in capacitor://localhost.
        url = APP_SCHEME.sub("http://", SUBDOMAIN_WILDCARD.sub("x", origin))
        is_address = url.startswith(("http://", "https://")) and "*" not in url  # nor a JSON list
        if not is_address or origin_of(web_url(url)) != url or origin != origin.lower():
            raise ValueError(
                "origins as browsers send them, between commas, such as https://app.example.com"
                " or https://*.app.example.com: in lower case, without brackets, quotes, a path or"
                " the default port"
            )
    return found


def postgres_url(text: str) -> str:
    """Take libpq's URLs; drop the driver suffix that SQLAlchemy adds to the scheme.

    asyncpg's `ssl` is libpq's `sslmode`, but for `ssl=true`, which libpq knows.
    """
    scheme, separator, rest = text.partition("://")
    scheme = scheme.partition("+")[0]
    if not separator or scheme not in {"postgresql", "postgres"}:
        raise ValueError("an address that begins with postgresql://")
    url = re.sub(r"([?&])ssl=(?!true(?:&|$))", r"\1sslmode=", f"{scheme}://{rest}")
    no_address = ValueError("an address that libpq understands, with special characters escaped")
    authority, _, path = rest.partition("?")[0].partition("/")
    if authority.count("@") > 1 or "@" in path:  # libpq would show a part of the password as a host
        raise no_address
    try:
        conninfo_to_dict(url)
    except ProgrammingError:  # its text may hold a part of the password
        raise unknown_options(rest.partition("?")[2]) or no_address from None
    return url


def unknown_options(query: str) -> ValueError | None:
    """Name those that libpq does not know, as of Prisma or JDBC; none that may be of a password."""
    known = {option.keyword.decode() for option in Conninfo.get_defaults()}
    names = [pair.partition("=")[0] for pair in query.split("&")]
    unknown = [name for name in names if name.isidentifier() and name not in known]
    if not unknown or "@" in query or {"password", "sslpassword"}.intersection(names):
        return None
    return ValueError(f"an address without {' and '.join(unknown)}, which libpq does not know")


def parse_rate(text: str) -> tuple[int, int] | None:
    """Read `600/minute` or `20 per 5 seconds` as requests and seconds, `off` as None."""
    if text.lower() == "off":
        return None
    if not (match := RATE.fullmatch(text)):
        raise ValueError("off, or a limit such as 600/minute or 20 per 5 seconds")
    requests, units, unit = match.groups()
    return int(requests), int(units or 1) * SECONDS_OF_UNIT[unit.lower()]


def rate(text: str) -> str:
    parse_rate(text)
    return text


def redis_url(text: str) -> str:
    parts = split_address(text)
    wanted = {"redis": parts.hostname, "rediss": parts.hostname, "unix": parts.path}
    if not wanted.get(parts.scheme):
        raise ValueError("an address that begins with redis://, rediss:// or unix://")
    if parts.scheme != "unix":
        host(parts.hostname or "")
    import redis  # only here: 7 MB that most do without

    try:
        connection: Any = redis.ConnectionPool.from_url(text).make_connection()  # not yet made
        with socket() as unused:  # redis-py itself takes -1, and would fail at each request
            unused.settimeout(connection.socket_timeout)
            unused.settimeout(connection.socket_connect_timeout)
    except (AttributeError, OverflowError, TypeError, ValueError, redis.RedisError):
        raise ValueError("an address with options that redis-py can use") from None
    return text
