"""The named statements of queries/*.sql."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from config import PROJECT, ConfigError

QUERIES_FOLDER = PROJECT / "queries"

HEAD = re.compile(r"^-- (name|fragment): *(.*)$", re.MULTILINE)
FRAGMENT = re.compile(r"\{(\w+)\}")
CHOICE = re.compile(r"<(\w+):([a-z|]+)>")
CHOSEN = re.compile(r"<(\w+)>")
PLACEHOLDER = re.compile(r"%\((\w+)\)s")


Template = tuple[str, dict[str, str]]  # the text in the file, and the choices that its name made


@dataclass(frozen=True, slots=True)
class Query:
    """A named statement, its placeholders numbered as PostgreSQL wants them."""

    name: str
    text: str
    parameters: tuple[str, ...]


def load_queries(folder: Path) -> dict[str, Query]:
    """Read the named statements of a folder's .sql files, with the fragments that they share.

    A name such as `select_tasks_<order:asc|desc>` is one statement for each choice; `<order>`
    stands for the choice in its text, and in the names and the text of its fragments, which may
    have choices of their own.

    Raises:
        ConfigError: a name is malformed, unknown or used twice, or a statement is empty.
    """
    fragments: dict[str, Template] = {}
    statements: dict[str, Template] = {}
    for path in sorted(folder.glob("*.sql")):
        before, *parts = HEAD.split(path.read_text(encoding="utf-8"))
        if before.strip():
            raise ConfigError(f"{path.name} has text before its first name.")
        for kind, head, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            body = re.sub(r"^--.*\n", "", text, flags=re.MULTILINE).strip().rstrip(";")
            known = fragments if kind == "fragment" else statements
            for name, choices in expand_name(head):
                if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in known or not body:
                    raise ConfigError(f"{path.name}: {name!r} is malformed, empty or used twice.")
                known[name] = body, choices
    return {
        name: number_placeholders(name, insert_fragments(body, fragments, choices))
        for name, (body, choices) in statements.items()
    }


def expand_name(head: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each name that a head stands for, with its choices."""
    found = CHOICE.findall(head)
    options = [[(label, option) for option in texts.split("|")] for label, texts in found]
    without_options = CHOICE.sub(r"<\1>", head)
    for choices in map(dict, product(*options)):
        yield insert_choices(without_options, choices), choices


def insert_choices(text: str, choices: dict[str, str]) -> str:
    return CHOSEN.sub(lambda found: choices.get(found[1], found[0]), text)


def insert_fragments(text: str, fragments: dict[str, Template], choices: dict[str, str]) -> str:
    """Put fragments in their places, once, at the start: no statement is built for a request."""
    text = insert_choices(text, choices)

    def insert(found: re.Match[str]) -> str:
        if found[1] not in fragments:
            raise ConfigError(f"queries: there is no fragment {found[1]!r}.")
        line = text[text.rfind("\n", 0, found.start()) + 1 : found.start()]
        indent = line[: len(line) - len(line.lstrip())]
        body, own = fragments[found[1]]
        fragment = insert_fragments(body, fragments, choices | own)
        return fragment.replace("\n", f"\n{indent}")

    return FRAGMENT.sub(insert, text)


def number_placeholders(name: str, statement: str) -> Query:
    parameters = tuple(dict.fromkeys(PLACEHOLDER.findall(statement)))
    text = PLACEHOLDER.sub(lambda found: f"${parameters.index(found[1]) + 1}", statement)
    return Query(name, text, parameters)


QUERIES = load_queries(QUERIES_FOLDER)
