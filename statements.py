"""The named statements of queries/*.sql."""

import re
from dataclasses import dataclass
from pathlib import Path

from config import PROJECT, ConfigError

QUERIES_FOLDER = PROJECT / "queries"

HEAD = re.compile(r"^-- (name|fragment): *(.*)$", re.MULTILINE)
FRAGMENT = re.compile(r"\{(\w+)\}")
PLACEHOLDER = re.compile(r"%\((\w+)\)s")


@dataclass(frozen=True, slots=True)
class Query:
    """A named statement, its placeholders numbered as PostgreSQL wants them."""

    name: str
    text: str
    parameters: tuple[str, ...]


def load_queries(folder: Path) -> dict[str, Query]:
    """Read the named statements of a folder's .sql files, with the fragments that they share.

    Raises:
        ConfigError: a name is malformed, unknown or used twice, or a statement is empty.
    """
    texts: dict[str, dict[str, str]] = {"name": {}, "fragment": {}}
    for path in sorted(folder.glob("*.sql")):
        before, *parts = HEAD.split(path.read_text())
        if before.strip():
            raise ConfigError(f"{path.name} has text before its first name.")
        for kind, name, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            body = re.sub(r"^--.*\n", "", text, flags=re.MULTILINE).strip().rstrip(";")
            if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in texts[kind] or not body:
                raise ConfigError(f"{path.name}: {name!r} is malformed, empty or used twice.")
            texts[kind][name] = body
    return {
        name: number_placeholders(name, insert_fragments(text, texts["fragment"]))
        for name, text in texts["name"].items()
    }


def insert_fragments(text: str, fragments: dict[str, str]) -> str:
    """Put fragments in their places, once, at the start: no statement is made for a request."""

    def insert(found: re.Match[str]) -> str:
        if found[1] not in fragments:
            raise ConfigError(f"queries: there is no fragment {found[1]!r}.")
        return insert_fragments(fragments[found[1]], fragments)

    return FRAGMENT.sub(insert, text)


def number_placeholders(name: str, statement: str) -> Query:
    parameters = tuple(dict.fromkeys(PLACEHOLDER.findall(statement)))
    text = PLACEHOLDER.sub(lambda found: f"${parameters.index(found[1]) + 1}", statement)
    return Query(name, text, parameters)


QUERIES = load_queries(QUERIES_FOLDER)
