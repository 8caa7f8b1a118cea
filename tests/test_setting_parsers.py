"""What a setting's text is read as, and what is told of one that is almost right."""

import pytest
from support import SECRET

import setting_parsers as parsers
from config import ConfigError, Settings, parse

ENOUGH = {"DATABASE_URL": "postgresql://localhost/tasks", "BETTER_AUTH_SECRET": SECRET}


@pytest.mark.parametrize(
    ("rest", "told"),
    [
        ("me:pw@db:6543/d?pgbouncer=true", "without pgbouncer, which"),
        ("db/d?schema=public&sslmode=require&connection_limit=1", "without schema and connection_"),
        ("db/d?prepared_statement_cache_size=0", "without prepared_statement_cache_size, which"),
        ("me:pass?word=x@db/d?pgbouncer=true", "an address that libpq understands"),
        ("db/d?user=me&password=pass&word=x", "an address that libpq understands"),
        ("db/d?sslkey=k&sslpassword=pass&word=x", "an address that libpq understands"),
        ("db/d?sslmode=require&!word", "an address that libpq understands"),
    ],
)
def test_option_of_another_driver_is_named_and_no_part_of_a_password(rest: str, told: str):
    with pytest.raises(ConfigError, match=told) as refused:
        parse("database_url", f"postgresql://{rest}")
    assert "word" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
@pytest.mark.parametrize("driver", ["", "+asyncpg", "+psycopg", "+psycopg2"])
def test_database_url_loses_its_driver_and_keeps_all_else(scheme: str, driver: str):
    rest = "me:p%40ss@db.example/tasks?sslmode=require&channel_binding=require"
    settings = Settings.load(ENOUGH | {"DATABASE_URL": f"{scheme}{driver}://{rest}"})
    assert settings.database_url == f"{scheme}://{rest}"


@pytest.mark.parametrize("rest", ["me:p%40ss@%40socket/a%40b", "me@/tasks?host=@socket"])
def test_database_url_may_name_a_socket(rest: str):
    url = f"postgresql://{rest}"
    assert Settings.load(ENOUGH | {"DATABASE_URL": url}).database_url == url


def test_white_space_around_a_value_is_no_part_of_it():
    url = " postgresql://me@localhost/tasks\n"
    assert Settings.load(ENOUGH | {"DATABASE_URL": url}).database_url == url.strip()
    assert parse("database_url", url) == url.strip()


@pytest.mark.parametrize(
    ("asyncpg", "libpq"), [("require", "sslmode=require"), ("true", "ssl=true")]
)
def test_ssl_of_asyncpg_is_sslmode_of_libpq(asyncpg: str, libpq: str):
    given = {"DATABASE_URL": f"postgresql+asyncpg://h/d?ssl={asyncpg}"}
    assert Settings.load(ENOUGH | given).database_url == f"postgresql://h/d?{libpq}"


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("log_level", "WARNING", "warning"), ("database_prepare", "Off", False)],
)
def test_word_is_taken_in_capitals_too(name: str, text: str, value: object):
    assert parse(name, text) == value


@pytest.mark.parametrize("number", [0, 65535])
def test_number_may_be_the_least_and_the_most_allowed(number: int):
    assert parse("metrics_port", str(number)) == number


def test_origins_are_several_between_commas():
    origins = ("http://a", "https://b.example:8443", "capacitor://localhost", "https://*.b.example")
    settings = Settings.load(ENOUGH | {"CORS_ORIGINS": " ,".join(origins)})
    assert settings.cors_origins == origins


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("https://APP.example.com", "in lower case"),
        ("Capacitor://localhost", "in lower case"),
        ('["http://localhost:3000"]', "without brackets, quotes"),
        ("https://*.com", "such as"),
    ],
)
def test_origin_that_is_almost_one_is_told_what_to_mend(text: str, told: str):
    with pytest.raises(ConfigError, match=told):
        Settings.load(ENOUGH | {"CORS_ORIGINS": text})


@pytest.mark.parametrize(
    "text", ["0.0.0.0", "::", "fe80::1%eth0", "localhost", "my_host", "api.example.com."]
)
def test_host_is_a_name_or_an_address(text: str):
    assert parse("api_host", text) == text


@pytest.mark.parametrize(
    "url", ["redis://:p%40ss@redis:6379/1", "rediss://redis?socket_timeout=1", "unix:///run/redis"]
)
def test_redis_is_named_as_its_client_writes_it(url: str):
    assert Settings.load(ENOUGH | {"REDIS_URL": url}).redis_url == url


@pytest.mark.parametrize(
    ("text", "requests_and_seconds"),
    [
        ("off", None),
        ("OFF", None),
        ("600/minute", (600, 60)),
        ("5/Second", (5, 1)),
        ("20 per 5 seconds", (20, 5)),
        ("1 per day", (1, 86_400)),
        ("100/2hours", (100, 7200)),
    ],
)
def test_limit_is_read_as_requests_and_seconds(
    text: str, requests_and_seconds: tuple[int, int] | None
):
    assert parsers.parse_rate(text) == requests_and_seconds
    assert parse("rate_limit", text) == parse("auth_failure_limit", text) == text
