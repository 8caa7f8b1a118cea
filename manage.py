"""The commands of development and operation: `python manage.py --help`, or the Makefile."""

import signal

if __name__ == "__main__":  # until `commands` listens, Ctrl-C ends it without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import logging
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import click
import psycopg

import migrate as migrations
import purge as purges
import roles
from config import PROJECT, CommandError, Settings, parse, read_environ, require_free_port
from database import Database, DatabaseUnavailable
from run_gunicorn import make_token, on_stop, serve

DEVELOPMENT_FOLDER = PROJECT / "development"  # not in the image
DATA_FOLDER = PROJECT / ".data"
DATABASE_FOLDER = DATA_FOLDER / "postgres"
SECRET_FILE = DATA_FOLDER / "secret"

API_ROLE = "tasks_api"  # of the embedded server

MIGRATION_TEMPLATE = """\
-- migrate:up
SET LOCAL lock_timeout = '2s';
SET LOCAL statement_timeout = '10s';

-- migrate:down
SET LOCAL lock_timeout = '2s';
"""


class Commands(click.Group):
    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; every failure that was foreseen ends in one line."""
        try:
            return super().invoke(ctx)
        except CommandError as error:
            raise click.ClickException(line_of(error)) from None
        except OSError as error:
            if error.filename is None:
                raise
            # Of a clone that is read-only or another user's, for instance.
            raise click.ClickException(f"{error.strerror}: {error.filename}.") from None
        except KeyboardInterrupt as stop:
            [number] = stop.args or (signal.SIGINT,)
            sys.exit(128 + number)  # as a shell tells it; click would say "Aborted!" and tell 1


def line_of(error: CommandError) -> str:
    """Write an error as one line; what it quotes may have several."""
    return " ".join(str(error).split()).removesuffix(".") + "."


@click.group(cls=Commands)
def commands() -> None:
    """Run and look after the task API."""
    on_stop(interrupt)  # as process 1, Python would ignore SIGTERM


def interrupt(number: int, _: object) -> None:
    raise KeyboardInterrupt(number)


def own_postgres() -> ModuleType:
    """Import what runs a local server; where a database is given, it is not needed."""
    if not DEVELOPMENT_FOLDER.exists():
        raise CommandError("Set DATABASE_URL: there is no PostgreSQL of its own here.")
    from development import embedded

    embedded.forget_libpq()
    return embedded


@contextmanager
def database_url() -> Iterator[str]:
    """Yield the owner's database address: the given one, or that of an embedded server."""
    environ = read_environ()
    for name in ("migration_database_url", "database_url"):
        if given := environ.get(name.upper()):
            yield parse(name, given)
            return
    embedded = own_postgres()
    if url := embedded.url_of_running(DATABASE_FOLDER):
        yield url
        return
    with embedded.running(DATABASE_FOLDER) as url:
        yield url


def kept_secret() -> str:
    """Read the secret that goes with the embedded server, made at the first call."""
    if not SECRET_FILE.exists():
        DATA_FOLDER.mkdir(mode=0o700, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=DATA_FOLDER) as new:  # for its owner alone
            new.write(secrets.token_urlsafe(48))
            new.flush()
            try:
                SECRET_FILE.hardlink_to(new.name)
            except FileExistsError:
                pass  # another process was first
            except OSError:  # the file system has no hard links
                SECRET_FILE.touch(0o600, exist_ok=False)
                shutil.copyfile(new.name, SECRET_FILE)
    return SECRET_FILE.read_text()


@commands.command()
def run() -> None:
    """Serve the API, with a PostgreSQL of its own where DATABASE_URL names none."""
    environ = read_environ()
    if sys.stderr.isatty():  # a person reads
        environ = {"LOG_FORMAT": "text"} | environ
    secret = environ.get("BETTER_AUTH_SECRET")
    is_embedded = "DATABASE_URL" not in environ
    stand_in = {"DATABASE_URL": "postgresql://", "BETTER_AUTH_SECRET": secret or "-" * 32}
    # Faults in the settings are reported before anything starts or is made.
    settings = Settings.load(environ | stand_in if is_embedded else environ)
    if is_embedded and settings.database_replica_url:  # it has other tasks under the same ids
        raise CommandError("Set DATABASE_URL beside DATABASE_REPLICA_URL, or neither.")
    require_free_port(settings.api_host, settings.api_port, "API")
    if not is_embedded:
        sys.exit(serve(settings, environ))
    code = 0
    with suppress(KeyboardInterrupt), (own := own_postgres()).running(DATABASE_FOLDER) as url:
        migrations.migrate(url)
        try:
            purge_all(replace(settings, database_url=url))
        except CommandError as error:
            click.echo(f"Warning: {line_of(error)}", err=True)
        api_url = urlsplit(url)._replace(netloc=f"{API_ROLE}@").geturl()
        own.forget_libpq(environ)
        environ |= {"DATABASE_URL": api_url, "BETTER_AUTH_SECRET": secret or kept_secret()}
        settings = Settings.load(environ)
        roles.grant(url, api_url, settings.database_statement_timeout)
        code = serve(settings, environ, DATABASE_FOLDER)
    sys.exit(code)


@commands.command()
@click.argument("user", default="demo")
def token(user: str) -> None:
    """Print a token for USER, signed with the secret; good for twelve hours."""
    environ = read_environ()
    if not environ.get("DATABASE_URL"):
        secret = environ.get("BETTER_AUTH_SECRET") or kept_secret()
        environ |= {"DATABASE_URL": "postgresql://", "BETTER_AUTH_SECRET": secret}
    settings = Settings.load(environ)
    if not user:
        raise CommandError("A token is for a user: their id has one character at least.")
    if not settings.better_auth_secret:
        raise CommandError("Set BETTER_AUTH_SECRET: only its tokens can be made here.")
    click.echo(make_token(settings, user))


@commands.command()
def migrate() -> None:
    """Apply the pending migrations, then give the API's role its rights."""
    with database_url() as url:
        migrations.migrate(url)
        environ = read_environ()
        if given := environ.get("DATABASE_URL"):
            timeout = environ.get("DATABASE_STATEMENT_TIMEOUT")
            roles.grant(
                url,
                parse("database_url", given),
                parse("database_statement_timeout", timeout) if timeout else None,
            )


@commands.command()
def rollback() -> None:
    """Undo the newest migration."""
    with database_url() as url:
        migrations.rollback(url)


@commands.command()
def purge() -> None:
    """Delete for good what has expired, such as trash after TRASH_DAYS; for cron."""
    with database_url() as url:
        as_owner = {"DATABASE_URL": url, "BETTER_AUTH_SECRET": "-" * 32}  # no token is read here
        click.echo(purge_all(Settings.load(read_environ() | as_owner)))


def purge_all(settings: Settings) -> str:
    """Delete what has expired, as the tables' owner, each kind even if another fails.

    Returns the sentence to print.

    Raises:
        CommandError: not all was deleted.
    """
    trash, audit = settings.trash_days, settings.audit_days
    kinds: dict[str, Callable[[Database], int]] = {
        f"tasks that were in the trash for {trash} days": partial(
            purges.purge_old_trash, days=trash
        ),
        "expired idempotency keys": purges.purge_idempotency_keys,
        f"audit entries older than {audit} days": partial(purges.purge_audit, days=audit),
    }
    try:
        with migrations.connect(settings.database_url) as connection:
            migrations.require_none_pending(connection)  # the pool would only log why it cannot
            if migrations.is_true(connection, "select_whether_policies_apply"):
                raise CommandError(
                    f"Row-level security hides rows from the role {connection.info.user}: set"
                    " MIGRATION_DATABASE_URL to the tables' owner (and force it on no table)."
                )
    except psycopg.Error as error:
        raise CommandError(f"The database refused it: {error}") from None
    # Where no log is set up, the pool's message about each connection would precede the cause.
    logging.getLogger("psycopg.pool").addHandler(logging.NullHandler())
    deleted: list[str] = []
    failures: list[Exception] = []
    with closing(Database(settings)) as database:
        for kind, purge_kind in kinds.items():
            try:
                deleted.append(f"{purge_kind(database)} {kind}")
            except (DatabaseUnavailable, psycopg.Error) as error:
                failures.append(error)
    if failures:
        raise CommandError(f"Not all was deleted: {failures[0]}")
    return f"Deleted {', '.join(deleted)}."


@commands.command()
@click.argument("name")
def migration(name: str) -> None:
    """Begin a migration called NAME."""
    slug = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    if not slug:
        raise CommandError("A migration's name needs a letter or a digit.")
    number = int(migrations.known_migrations()[-1]) + 1
    file = migrations.MIGRATIONS_FOLDER / f"{number:04d}_{slug}.sql"
    file.write_text(MIGRATION_TEMPLATE)
    click.echo(file.relative_to(PROJECT))


@commands.command()
def schema() -> None:
    """Write schema.sql: what all migrations make of an empty database."""
    embedded = own_postgres()
    with (
        tempfile.TemporaryDirectory() as folder,
        embedded.running(Path(folder, "postgres"), ["fsync=off"]) as url,
    ):
        migrations.migrate(url)
        migrations.dump_schema(url, embedded.binaries(), PROJECT / "schema.sql")


@commands.command()
def docs() -> None:
    """Write openapi.json, .env.example and the README's table of settings."""
    if not DEVELOPMENT_FOLDER.exists():
        raise CommandError("The image has no files to generate: run it in the sources.")
    from development import generated  # only here: it builds the whole application

    for path, text in generated.files().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    commands()
