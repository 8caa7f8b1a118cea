"""The fields that the API takes and returns, with their rules."""

from typing import Any

from marshmallow import fields, post_load
from marshmallow.validate import Length, OneOf

from converters import MAX_ID
from field_types import (
    DUE_PATTERN,
    NOT_BLANK_PATTERN,
    STORABLE_PATTERN,
    Due,
    ResponseSchema,
    StrictBoolean,
    StrictSchema,
    Tags,
    Text,
    TrimmedText,
    moment_of,
)

MAX_TITLE_LENGTH = 200  # characters
MAX_DESCRIPTION_LENGTH = 5000  # characters
PRIORITIES = ("none", "low", "medium", "high")
MAX_TAGS = 20
MAX_TAG_LENGTH = 50  # characters

# What only the server writes, also of a task in the trash.
SERVER_FIELDS = (
    "id",
    "user_id",
    "version",
    "created_at",
    "updated_at",
    "completed_at",
    "deleted_at",
)


class TaskFields(StrictSchema):
    """What a client may write of a task."""

    description = Text(
        allow_none=True,
        validate=Length(max=MAX_DESCRIPTION_LENGTH),
        metadata={"pattern": STORABLE_PATTERN, "examples": ["Two bottles"]},
    )
    priority = fields.String(
        allow_none=True, validate=OneOf(PRIORITIES), metadata={"examples": ["high"]}
    )
    due_at = Due(
        allow_none=True,
        metadata={
            "description": "A moment (RFC 3339, with offset; kept to the microsecond) or, for a"
            " whole day, a date.",
            "pattern": DUE_PATTERN,
            "examples": ["2026-11-21T09:30:00+01:00", "2026-11-21"],
        },
    )
    tags = Tags(
        TrimmedText(
            validate=Length(1, MAX_TAG_LENGTH),
            metadata={"pattern": NOT_BLANK_PATTERN, "examples": ["home"]},
        ),
        allow_none=True,
        validate=Length(max=MAX_TAGS),
        metadata={
            "description": "White space at both ends of a tag is dropped; then all must differ.",
            "uniqueItems": True,
            "examples": [["home", "shop"]],
        },
    )

    @post_load
    def mark_day(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Store a day as its midnight, and note that it is a day."""
        if "due_at" in data:
            due = data["due_at"]
            data["due_at"] = due and moment_of(due)
            data["due_all_day"] = data["due_at"] != due
        return data


def title_field(*, required: bool) -> TrimmedText:
    return TrimmedText(
        required=required,
        validate=Length(1, MAX_TITLE_LENGTH),
        metadata={
            "description": "White space at both ends is dropped.",
            "pattern": NOT_BLANK_PATTERN,
            "examples": ["Buy milk"],
        },
    )


class TaskCreate(TaskFields):
    title = title_field(required=True)


class TaskUpdate(TaskCreate):
    """What is to be written into a task; an optional field that is left out stays as it is."""

    completed = StrictBoolean(metadata={"examples": [True]})


class TaskPatch(TaskFields):
    """What is to change (RFC 7396): a field that is left out keeps its value."""

    title = title_field(required=False)
    completed = StrictBoolean(metadata={"examples": [True]})


class TaskImport(TaskUpdate):
    """A task to be imported. It may have what only the server writes, as an export does."""

    class Meta(StrictSchema.Meta):
        include = {  # noqa: RUF012 - marshmallow's own form
            name: fields.Raw(allow_none=True, metadata={"description": "Ignored."})
            for name in SERVER_FIELDS
        }

    @post_load
    def drop_ignored(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        return {name: value for name, value in data.items() if name not in SERVER_FIELDS}


class Task(ResponseSchema):
    id = fields.Integer(
        required=True,
        metadata={"format": "int64", "minimum": 1, "maximum": MAX_ID, "examples": [12]},
    )
    user_id = fields.String(
        required=True, metadata={"description": "The owner.", "examples": ["demo"]}
    )
    title = fields.String(
        required=True, validate=Length(1, MAX_TITLE_LENGTH), metadata={"examples": ["Buy milk"]}
    )
    description = fields.String(
        required=True,
        allow_none=True,
        validate=Length(max=MAX_DESCRIPTION_LENGTH),
        metadata={"examples": ["Two bottles"]},
    )
    completed = fields.Boolean(required=True, metadata={"examples": [False]})
    priority = fields.String(
        required=True, validate=OneOf(PRIORITIES), metadata={"examples": ["high"]}
    )
    due_at = Due(
        required=True,
        allow_none=True,
        metadata={
            "description": "A moment (RFC 3339), given in UTC, or, for a whole day, a date.",
            "examples": ["2026-11-21T08:30:00+00:00", "2026-11-21"],
        },
    )
    tags = fields.List(fields.String(), required=True, metadata={"examples": [["home", "shop"]]})
    created_at = fields.AwareDateTime(
        required=True,
        metadata={
            "description": "Never changes.",
            "examples": ["2026-11-20T09:30:00.123456+00:00"],
        },
    )
    updated_at = fields.AwareDateTime(
        required=True,
        metadata={
            "description": "When the task was last changed.",
            "examples": ["2026-11-20T09:30:00.123456+00:00"],
        },
    )
    completed_at = fields.AwareDateTime(
        required=True,
        allow_none=True,
        metadata={"description": "When it was completed.", "examples": [None]},
    )
    version = fields.Integer(
        required=True,
        metadata={
            "format": "int64",
            "description": "Grows with every change; in quotes, the task's ETag.",
            "examples": [57],
        },
    )
