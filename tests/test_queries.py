"""The SQL: parsed by PostgreSQL's own parser, held to the schema and to the project's rules."""

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pglast import ast as sql
from pglast import parse_sql
from pglast.enums import A_Expr_Kind
from pglast.visitors import Visitor
from support import MODULES

from config import PROJECT, ConfigError
from statements import PLACEHOLDER, QUERIES, QUERIES_FOLDER, Query, load_queries

SCHEMA = PROJECT / "schema.sql"

NAME = re.compile(r"^-- name: (.*)$", re.MULTILINE)
NAMED = pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES.keys())
VERBS = {"select", "insert", "update", "delete", "toggle", "restore", "set", "try", "commit"}
# What only maintenance may run, across all users.
OVER_USERS = {"select_trash_owners", "delete_expired_idempotency_keys", "delete_audit_entries"}
# The tables that hold users' data are those that the schema gives a user_id.
USER_TABLES = {
    statement.stmt.relation.relname
    for statement in parse_sql(
        "\n".join(re.findall(r"^CREATE TABLE .*?;$", SCHEMA.read_text(), re.MULTILINE | re.DOTALL))
    )
    if any(getattr(column, "colname", "") == "user_id" for column in statement.stmt.tableElts)
}
parse = cache(parse_sql)  # several rules look at each statement
SQL_IN_PYTHON = re.compile(
    r"\s*(SELECT\s|INSERT INTO\s|UPDATE\s+\w+\s+SET\s|DELETE FROM\s|WITH\s+\w+\s+AS\s"
    r"|(CREATE|DROP|ALTER)\s+(TABLE|INDEX|DATABASE|ROLE|SCHEMA|VIEW|FUNCTION)\s)",
    re.IGNORECASE,
)


class Rules(Visitor):
    """Collects what breaks the project's rules."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: list[str] = []

    def visit_ColumnRef(self, _: object, node: sql.ColumnRef) -> None:  # noqa: N802
        if any(isinstance(field, sql.A_Star) for field in node.fields):
            self.broken.append("it selects or returns *")

    def visit_SelectStmt(self, _: object, node: sql.SelectStmt) -> None:  # noqa: N802
        self.require_owner(tables_of(node.fromClause), node.whereClause)
        if node.limitCount and node.sortClause and "tasks" in tables_of(node.fromClause):
            last = node.sortClause[-1].node
            if not isinstance(last, sql.ColumnRef) or last.fields[-1].sval != "id":
                self.broken.append("it takes the first tasks of an order that does not end in id")

    def visit_UpdateStmt(self, _: object, node: sql.UpdateStmt) -> None:  # noqa: N802
        self.require_owner(tables_of((node.relation, *(node.fromClause or ()))), node.whereClause)
        written = {target.name for target in node.targetList}
        if node.relation.relname == "tasks" and "updated_at" not in written:
            self.broken.append("it changes a task without moving updated_at")

    def visit_DeleteStmt(self, _: object, node: sql.DeleteStmt) -> None:  # noqa: N802
        self.require_owner(tables_of((node.relation, *(node.usingClause or ()))), node.whereClause)

    def visit_InsertStmt(self, _: object, node: sql.InsertStmt) -> None:  # noqa: N802
        columns = {column.name for column in node.cols or ()}
        if node.relation.relname in USER_TABLES and "user_id" not in columns:
            self.broken.append(f"it inserts into {node.relation.relname} without user_id")

    def require_owner(self, tables: Iterable[str], where: object) -> None:
        for table in USER_TABLES.intersection(tables):
            if not is_owner_first(where):
                self.broken.append(f"it touches {table} without user_id = first in its WHERE")


def tables_of(items: Any) -> Iterator[str]:
    """Name the tables of a FROM or USING, joined or not."""
    for item in items or ():
        if isinstance(item, sql.RangeVar):
            yield item.relname
        elif isinstance(item, sql.JoinExpr):
            yield from tables_of((item.larg, item.rarg))


def is_owner_first(where: object) -> bool:
    """Tell whether a condition is `user_id = $n`, alone or as the first of an AND."""
    if isinstance(where, sql.BoolExpr) and where.boolop.name == "AND_EXPR":
        where = where.args[0]
    return (
        isinstance(where, sql.A_Expr)
        and where.kind == A_Expr_Kind.AEXPR_OP
        and where.name[0].sval == "="
        and isinstance(where.lexpr, sql.ColumnRef)
        and where.lexpr.fields[-1].sval == "user_id"
        and isinstance(where.rexpr, sql.ParamRef)
    )


def broken_rules(text: str) -> list[str]:
    rules = Rules()
    rules(parse(text))
    return rules.broken


@NAMED
def test_statement_keeps_the_rules(query: Query):
    assert len(parse(query.text)) == 1
    broken = broken_rules(query.text)
    assert bool(broken) is (query.name in OVER_USERS), broken


class Writes(Visitor):
    """Collects the tables that a statement writes."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: set[str] = set()

    def visit(self, _: object, node: sql.Node) -> None:
        if isinstance(node, sql.InsertStmt | sql.UpdateStmt | sql.DeleteStmt):
            self.tables.add(node.relation.relname)


def written_without_the_counter(text: str) -> set[str]:
    writes = Writes()
    writes(parse(text))
    read_by_clients = USER_TABLES - {"audit_log", "idempotency_keys"}
    return set() if "task_counters" in writes.tables else writes.tables & read_by_clients


@NAMED
def test_statement_that_writes_what_clients_read_moves_their_counter(query: Query):
    """Replicas, `changes` and lists' entity tags rely on it, and it keeps writes from deadlocks."""
    assert written_without_the_counter(query.text) == set()


@NAMED
def test_statement_that_creates_tasks_heeds_how_many_a_user_may_store(query: Query):
    assert ("INSERT INTO tasks (" in query.text) == ("max_stored" in query.parameters), "heed it"


def test_write_that_moves_no_counter_would_be_found():
    text = "WITH gone AS (DELETE FROM tasks WHERE user_id = $1 RETURNING id) SELECT id FROM gone"
    assert written_without_the_counter(text) == {"tasks"}


def test_no_blueprint_uses_a_statement_across_users():
    code = "".join(path.read_text() for path in (PROJECT / "blueprints").glob("*.py"))
    assert [name for name in OVER_USERS if name in code] == []
    assert set(re.findall(r"from purge import (.*)", code)) == {"purge_trash"}
    assert not re.search(r"^import purge", code, re.MULTILINE)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT id FROM tasks",
        "SELECT id FROM tasks WHERE id = $1",
        "SELECT id FROM tasks WHERE id = $1 AND user_id = $2",
        "SELECT id FROM tasks WHERE user_id = $1 OR id = $2",
        "SELECT id FROM tasks WHERE user_id <> $1",
        "SELECT id FROM (SELECT id FROM tasks) AS t WHERE user_id = $1",
        "SELECT * FROM tasks WHERE user_id = $1",
        "SELECT id FROM tasks WHERE user_id = $1 ORDER BY title LIMIT 1",
        "SELECT tasks.id FROM tasks JOIN task_counters ON true",
        "UPDATE schema_migrations SET version = id FROM tasks",
        "DELETE FROM schema_migrations USING tasks WHERE id = version",
        "UPDATE tasks SET updated_at = now() WHERE id = $1",
        "UPDATE tasks SET title = $2 WHERE user_id = $1",
        "DELETE FROM tasks WHERE id = $1",
        "DELETE FROM tasks WHERE user_id = $1 RETURNING *",
        "WITH t AS (DELETE FROM tasks RETURNING id) SELECT id FROM t",
        "INSERT INTO tasks (title) VALUES ($1)",
    ],
)
def test_statement_that_breaks_a_rule_is_found(text: str):
    assert broken_rules(text)


def test_list_is_taken_to_have_no_filters_only_where_none_is_given():
    """A filter that `has_no_filters` lacks would be passed over where it is the only one."""
    text = (QUERIES_FOLDER / "list_filters.sql").read_text()
    _, *parts = re.split(r"^-- fragment: (\w+)$", text, flags=re.MULTILINE)
    bodies = dict(zip(parts[::2], parts[1::2], strict=True))
    used, counted = (
        set(PLACEHOLDER.findall(bodies[name])) for name in ("passes_filters", "has_no_filters")
    )
    assert used == counted
    assert used


def test_every_statement_fits_the_schema(postgresql: psycopg.Connection):
    for query in QUERIES.values():
        if query.name == "commit":  # which has no plan
            continue
        nulls = ", ".join("NULL" for _ in query.parameters)
        execute = f"EXECUTE {query.name}({nulls})" if nulls else f"EXECUTE {query.name}"
        try:
            postgresql.execute(f"PREPARE {query.name} AS {query.text}")
            assert postgresql.execute(f"EXPLAIN {execute}").fetchone()
        except psycopg.Error as error:
            error.add_note(f"It is the statement {query.name}.")
            raise


@NAMED
def test_statement_begins_with_a_known_verb(query: Query):
    assert query.name.split("_")[0] in VERBS, "name it with one of them, or add the verb to VERBS"


def test_every_statement_is_used():
    code = "".join(path.read_text() for path in MODULES)
    heads = [
        head for path in QUERIES_FOLDER.glob("*.sql") for head in NAME.findall(path.read_text())
    ]
    names = [re.sub(r"<(\w+):[^>]*>", r"{\1}", head) for head in heads]
    assert [name for name in names if f'"{name}"' not in code] == []


@pytest.mark.parametrize("path", sorted(QUERIES_FOLDER.glob("*.sql")), ids=lambda path: path.name)
def test_sql_file_keeps_the_style(path: Path):
    text = path.read_text()
    assert [line for line in text.splitlines() if len(line) > 100] == []
    assert not re.search(r"^(?:    )* {1,3}[^ ]", text, re.MULTILINE)
    for part in re.split(r"^-- name: ", text, flags=re.MULTILINE)[1:]:
        assert part.splitlines()[1].startswith("-- "), f"{part.split()[0]} lacks its guarantee"
    assert text.count(";\n") == text.count("-- name: ")


def sql_strings(source: str) -> list[str]:
    constants = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    texts = [node.value for node in constants if isinstance(node.value, str)]
    return [text for text in texts if SQL_IN_PYTHON.match(text)]


@pytest.mark.parametrize("path", sorted(MODULES), ids=lambda path: path.name)
def test_python_holds_no_sql(path: Path):
    assert sql_strings(path.read_text()) == []


def test_sql_in_python_would_be_found():
    source = (
        "run('SELECT 1'); run(f'delete from tasks where id = {x}'); run('''\n WITH a AS (b)''')"
    )
    assert len(sql_strings(source)) == 3


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1;",
        "-- name: a\nSELECT 1;\n-- name: a\nSELECT 2;",
        "-- name: a\n-- nothing but a comment\n",
        "-- name: a\n;",
        "-- name:\nSELECT 1;",
        "-- name: Not A Name\nSELECT 1;",
    ],
)
def test_file_with_a_bad_name_or_an_empty_statement_is_refused(tmp_path: Path, text: str):
    (tmp_path / "bad.sql").write_text(text)
    with pytest.raises(ConfigError):
        load_queries(tmp_path)


def test_name_used_in_two_files_is_refused(tmp_path: Path):
    for name in ["a.sql", "b.sql"]:
        (tmp_path / name).write_text("-- name: twice\nSELECT 1;")
    with pytest.raises(ConfigError, match="twice"):
        load_queries(tmp_path)


def test_name_with_choices_is_a_statement_for_each(tmp_path: Path):
    (tmp_path / "a.sql").write_text(
        "-- fragment: of_asc\n1\n-- fragment: of_desc\n2\n-- fragment: end\n{of_<way>}\n"
        "-- name: a_<key:x|y>_<way:asc|desc>\nSELECT <key> + {end} < <other>;"
    )
    assert {name: query.text for name, query in load_queries(tmp_path).items()} == {
        "a_x_asc": "SELECT x + 1 < <other>",
        "a_x_desc": "SELECT x + 2 < <other>",
        "a_y_asc": "SELECT y + 1 < <other>",
        "a_y_desc": "SELECT y + 2 < <other>",
    }


def test_fragment_is_indented_as_the_line_it_stands_in(tmp_path: Path):
    (tmp_path / "a.sql").write_text(
        "-- fragment: inner\n(\n    1\n)\n-- fragment: outer\n(\n    {inner}\n)\n"
        "-- name: a\nSELECT\n    2 + {outer};"
    )
    assert load_queries(tmp_path)["a"].text.splitlines() == [
        *("SELECT", "    2 + (", "        (", "            1", "        )", "    )")
    ]


def test_placeholder_used_twice_is_one_parameter(tmp_path: Path):
    (tmp_path / "a.sql").write_text("-- name: a\nSELECT %(x)s, %(y)s, %(x)s, 5 % 2;")
    query = load_queries(tmp_path)["a"]
    assert (query.text, query.parameters) == ("SELECT $1, $2, $1, 5 % 2", ("x", "y"))
