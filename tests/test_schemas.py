"""What comes in is loaded as marshmallow would load it, which is asked only about faults."""

from typing import Any

import marshmallow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blueprints.batch import Batch
from field_types import StrictSchema
from schemas import TaskCreate, TaskImport, TaskPatch, TaskUpdate

pytestmark = pytest.mark.no_cover  # examples by the hundred, of code that other tests cover
examples = settings(derandomize=True, deadline=None, max_examples=200)


def mostly(good: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    bad = (
        st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just([]) | st.just({})
    )
    return st.integers(0, 5).flatmap(lambda number: good if number else bad)


def some_of(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    optional = {name: mostly(good) for name, good in fields.items()}
    return mostly(st.fixed_dictionaries({}, optional=optional))


TEXT = st.text(st.sampled_from("ab \0\ud800"), max_size=4) | st.just("x" * 201)
TASK = some_of(
    title=TEXT,
    description=TEXT,
    completed=st.booleans(),
    priority=st.sampled_from(["low", "high", "urgent"]),
    due_at=st.sampled_from(["2026-11-21", "2026-11-21T09:30:00+01:00", "1969-12-31", "soon"]),
    tags=st.lists(TEXT, max_size=3),
    id=st.integers(0, 2),
)
OPERATION = some_of(
    op=st.sampled_from(["create", "patch", "complete", "delete"]),
    id=st.integers(0, 9) | st.sampled_from([1.0, 1.5, 2**63]),
    version=st.integers(0, 9),
    completed=st.booleans(),
    task=TASK,
)
BATCH = some_of(operations=st.lists(OPERATION, max_size=4), more=st.none())


def outcome(schema: StrictSchema, data: Any, **options: Any) -> Any:
    try:
        return schema.load(data, **options)
    except marshmallow.ValidationError as error:
        return error.normalized_messages()


@pytest.mark.parametrize(
    ("schemas", "bodies"),
    [([TaskCreate(), TaskUpdate(), TaskPatch(), TaskImport()], TASK), ([Batch()], BATCH)],
    ids=["task", "batch"],
)
def test_load_does_what_marshmallow_does(
    schemas: list[StrictSchema], bodies: st.SearchStrategy[Any]
):
    @examples
    @given(bodies)
    def compare(data: Any) -> None:
        found = [outcome(schema, data) for schema in schemas]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(StrictSchema, "load", marshmallow.Schema.load)
            assert found == [outcome(schema, data) for schema in schemas]

    compare()


@pytest.mark.parametrize("options", [{"many": True}, {"partial": True}, {"unknown": "exclude"}])
def test_schema_with_options_is_left_to_marshmallow(options: dict[str, Any]):
    for schema, given_later in [(TaskCreate(**options), {}), (TaskCreate(), options)]:
        for data in [{}, [{"title": "x"}], {"title": "x", "more": 1}]:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(StrictSchema, "_load_faultless", None)
                assert outcome(schema, data, **given_later) is not None


def test_valid_bodies_are_loaded_without_marshmallow(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(marshmallow.Schema, "load", None)
    for schema in (TaskCreate(), TaskUpdate(), TaskPatch(), TaskImport()):
        assert schema.load({"title": " Buy milk "}) == {"title": "Buy milk"}
