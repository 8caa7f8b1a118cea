"""What may come in, what goes out: the fields of the API with their rules."""

import re
from typing import Any, ClassVar

from marshmallow import Schema, fields
from marshmallow.validate import Length

LONGEST_TITLE = 200  # characters
LONGEST_DESCRIPTION = 5000  # characters

# PostgreSQL's text holds no NUL, and UTF-8 no lone surrogate.
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class Text(fields.String):
    """A string that PostgreSQL can store."""

    default_error_messages: ClassVar[dict[str, str]] = {
        "unstorable": "Must not contain NUL or half of a surrogate pair."
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = super()._deserialize(value, attr, data, **kwargs)
        if UNSTORABLE.search(text):
            raise self.make_error("unstorable")
        return text


class TrimmedText(Text):
    """A string whose white space at both ends does not count."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return super()._deserialize(value, attr, data, **kwargs).strip()


class StrictBoolean(fields.Boolean):
    """true or false: marshmallow's own takes "yes" and 1 for true as well."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


def title_field() -> TrimmedText:
    return TrimmedText(
        required=True,
        validate=Length(1, LONGEST_TITLE),
        metadata={
            "description": "White space at both ends is dropped.",
            "pattern": r"^[^\u0000]*\S[^\u0000]*$",
        },
    )


def description_field() -> Text:
    return Text(
        allow_none=True,
        validate=Length(max=LONGEST_DESCRIPTION),
        metadata={"pattern": r"^[^\u0000]*$"},
    )


class TaskCreate(Schema):
    """A task to be created."""

    title = title_field()
    description = description_field()


class TaskUpdate(Schema):
    """What is to be written into a task; an optional field that is left out stays as it is."""

    title = title_field()
    description = description_field()
    completed = StrictBoolean()


class Task(Schema):
    """A task."""

    id = fields.Integer(required=True, strict=True, metadata={"format": "int64", "minimum": 1})
    user_id = fields.String(required=True, metadata={"description": "The owner."})
    title = fields.String(required=True, validate=Length(1, LONGEST_TITLE))
    description = fields.String(
        required=True, allow_none=True, validate=Length(max=LONGEST_DESCRIPTION)
    )
    completed = fields.Boolean(required=True)
    created_at = fields.AwareDateTime(required=True)
    updated_at = fields.AwareDateTime(required=True)
