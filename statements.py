"""The named statements of queries/*.sql."""

import re
from dataclasses import dataclass
from pathlib import Path

from config import PROJECT, ConfigError

QUERIES_FOLDER = PROJECT / "queries"

QUERY_NAME = re.compile(r"^-- name: *(.*)$", re.MULTILINE)
PLACEHOLDER = re.compile(r"%\((\w+)\)s")


@dataclass(frozen=True, slots=True)
class Query:
    """A named statement, its placeholders numbered as PostgreSQL wants them."""

    name: str
    text: str
    parameters: tuple[str, ...]


def load_queries(folder: Path) -> dict[str, Query]:
    """Read the named statements of a folder's .sql files.

    Raises:
        ConfigError: a name is malformed or used twice, or a statement is empty.
    """
    queries: dict[str, Query] = {}
    for path in sorted(folder.glob("*.sql")):
        head, *parts = QUERY_NAME.split(path.read_text())
        if head.strip():
            raise ConfigError(f"{path.name} has text before its first name.")
        for name, text in zip(parts[::2], parts[1::2], strict=True):
            statement = re.sub(r"^--.*\n", "", text, flags=re.MULTILINE).strip().rstrip(";")
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in queries or not statement:
                raise ConfigError(f"{path.name}: {name!r} is malformed, empty or used twice.")
            queries[name] = number_placeholders(name, statement)
    return queries


def number_placeholders(name: str, statement: str) -> Query:
    parameters = tuple(dict.fromkeys(PLACEHOLDER.findall(statement)))
    text = PLACEHOLDER.sub(lambda found: f"${parameters.index(found[1]) + 1}", statement)
    return Query(name, text, parameters)


QUERIES = load_queries(QUERIES_FOLDER)
