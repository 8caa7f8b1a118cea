"""What may come in, what goes out: the fields of the API with their rules."""

import re
from typing import Any

from marshmallow import RAISE, Schema, ValidationError, fields
from marshmallow.validate import Length

from converters import LARGEST_ID

LONGEST_TITLE = 200  # characters
LONGEST_DESCRIPTION = 5000  # characters

# PostgreSQL's text holds no NUL, and UTF-8 no half of a surrogate pair.
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
STORABLE_PATTERN = r"^[^\u0000]*$"
# What str.strip() takes for white space, and \s of ECMA 262 does not: U+001C to U+001F and U+0085.
TITLE_PATTERN = r"^[^\u0000]*[^\s\u0000\u001c-\u001f\u0085][^\u0000]*$"


class Text(fields.String):
    """A string that PostgreSQL can store."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        if UNSTORABLE.search(text):
            raise ValidationError("Must not contain NUL or half of a surrogate pair.")
        return text


class TrimmedText(Text):
    """A string whose white space at both ends does not count."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return super()._deserialize(value, attr, data, **kwargs).strip()


class StrictBoolean(fields.Boolean):
    """true or false, where marshmallow's own takes "yes" and 1 for true as well."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class StrictSchema(Schema):
    """An object without other fields than its own."""

    class Meta:
        unknown = RAISE


class TaskCreate(StrictSchema):
    """A task to be created."""

    title = TrimmedText(
        required=True,
        validate=Length(1, LONGEST_TITLE),
        metadata={
            "description": "White space at both ends is dropped.",
            "pattern": TITLE_PATTERN,
            "examples": ["Buy milk"],
        },
    )
    description = Text(
        allow_none=True,
        validate=Length(max=LONGEST_DESCRIPTION),
        metadata={"pattern": STORABLE_PATTERN, "examples": ["Two bottles"]},
    )


class TaskUpdate(TaskCreate):
    """What is to be written into a task; an optional field that is left out stays as it is."""

    completed = StrictBoolean(metadata={"examples": [True]})


class Task(StrictSchema):
    """A task."""

    id = fields.Integer(
        required=True,
        metadata={"format": "int64", "minimum": 1, "maximum": LARGEST_ID, "examples": [12]},
    )
    user_id = fields.String(
        required=True, metadata={"description": "The owner.", "examples": ["demo"]}
    )
    title = fields.String(
        required=True, validate=Length(1, LONGEST_TITLE), metadata={"examples": ["Buy milk"]}
    )
    description = fields.String(
        required=True,
        allow_none=True,
        validate=Length(max=LONGEST_DESCRIPTION),
        metadata={"examples": ["Two bottles"]},
    )
    completed = fields.Boolean(required=True, metadata={"examples": [False]})
    created_at = fields.AwareDateTime(
        required=True,
        metadata={"description": "Never moves.", "examples": ["2026-11-20T09:30:00.123456+00:00"]},
    )
    updated_at = fields.AwareDateTime(
        required=True,
        metadata={
            "description": "Moves with every change.",
            "examples": ["2026-11-20T09:30:00.123456+00:00"],
        },
    )
