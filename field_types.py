"""The field types that marshmallow lacks, or checks too loosely."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from marshmallow import EXCLUDE, RAISE, Schema, ValidationError, fields, missing
from marshmallow.decorators import POST_LOAD, PRE_LOAD, VALIDATES, VALIDATES_SCHEMA

MAX_FIELDS = 50  # of an object, known or not
FIRST_DUE = datetime(1970, 1, 1, tzinfo=UTC)
END_OF_DUE = datetime(2201, 1, 1, tzinfo=UTC)

# PostgreSQL's text holds no NUL, and UTF-8 no half of a surrogate pair.
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
STORABLE_PATTERN = r"^[^\x00]*$"
# What str.strip() takes for white space, and \s of ECMA 262 does not: U+001C to U+001F and U+0085;
# U+FEFF is the other way round.
NOT_BLANK_PATTERN = r"^[^\x00]*([^\s\x00\x1c-\x1f\x85]|\ufeff)[^\x00]*$"

DAY_PATTERN = (
    r"((19[7-9]\d|2[01]\d\d|2200)-"
    r"((0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)"
    r"|(19[79][26]|198[048]|2000|2[01](0[48]|[2468][048]|[13579][26]))-02-29)"
)
TIME_PATTERN = r"([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+)?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)"
# Without the hours that an offset would move out of the years 1970 to 2200.
DUE_PATTERN = (
    r"^(?!1970-01-01[Tt].*\+(?!00:00)|2200-12-31[Tt].*-(?!00:00)\d\d:)"
    rf"{DAY_PATTERN}([Tt]{TIME_PATTERN})?$"
)


class Text(fields.String):
    """A string that PostgreSQL can store."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        text = value if type(value) is str else super()._deserialize(value, attr, data, **kwargs)
        if UNSTORABLE.search(text):
            raise ValidationError("Must not contain NUL or half of a surrogate pair.")
        return text


class TrimmedText(Text):
    """A string without the white space at both ends."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return super()._deserialize(value, attr, data, **kwargs).strip()


class StrictBoolean(fields.Boolean):
    """true or false, where marshmallow's own takes "yes" and 1 for true as well."""

    default_error_messages = {  # noqa: RUF012 - marshmallow's own form
        "invalid": "Must be true or false."
    }

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=value)
        return value


class StrictInteger(fields.Integer):
    """An integer as JSON Schema means it: 1.0 is one, "1" is not."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(strict=True, **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if type(value) is int:  # as nearly always: marshmallow's check costs six times as much
            return value
        whole = int(value) if isinstance(value, float) and value.is_integer() else value
        return super()._deserialize(whole, attr, data, **kwargs)


class Due(fields.String):
    """A `date-time` or a `full-date` of RFC 3339, section 5.6: a moment or a whole day."""

    default_error_messages = {  # noqa: RUF012 - marshmallow's own form
        "invalid": "Must be a moment such as 2026-11-20T09:30:00Z, or a day such as 2026-11-20.",
        "range": "Must be in the years 1970 to 2200.",
    }
    # Not the hour 24, which Python 3.14 reads as the next day's 0, and RFC 3339 does not have.
    MOMENT = re.compile(
        r"\d{4}-\d\d-\d\d[Tt]([01]\d|2[0-3]):\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:[0-5]\d)",
        re.ASCII,
    )
    DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise self.make_error("invalid")
        due = value
        try:
            if self.DAY.fullmatch(value):
                moment = datetime.fromisoformat(value).replace(tzinfo=UTC)
            elif self.MOMENT.fullmatch(value):
                moment = datetime.fromisoformat(value.upper())
                due = moment.astimezone(UTC).isoformat()  # PostgreSQL reads no offset of 16 hours
            else:
                raise self.make_error("invalid")
        except (ValueError, OverflowError):
            raise self.make_error("invalid") from None
        if not FIRST_DUE <= moment < END_OF_DUE:
            raise self.make_error("range")
        return due


def moment_of(due: str) -> str:
    """Turn a day into its midnight UTC, as it is stored."""
    return due if "T" in due else f"{due}T00:00:00Z"


class BoundedList(fields.List[Any]):
    """A list whose length is checked before its items: there may be very many."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        if isinstance(value, list):
            for check in self.validators:
                check(value)
        return super()._deserialize(value, attr, data, **kwargs)


class Tags(BoundedList):
    """A list without duplicates, in the client's order."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> list[Any]:
        tags = super()._deserialize(value, attr, data, **kwargs)
        if len(set(tags)) < len(tags):
            raise ValidationError("Must not have the same tag twice.")
        return tags


class ResponseSchema(Schema):
    """An object in a response. Clients must ignore unknown fields: later versions may add some."""

    class Meta:
        unknown = EXCLUDE


class StrictSchema(Schema):
    """An object in a request: unknown fields are refused."""

    error_messages = {"type": "Must be an object."}  # noqa: RUF012 - marshmallow's own form

    class Meta:
        unknown = RAISE

    def load(self, data: Any, **options: Any) -> Any:
        """Load data by a shorter way than marshmallow's, which is left to name the faults.

        In an object of more fields than any schema has, only one unknown field is named.
        """
        if isinstance(data, dict):
            if len(data) > MAX_FIELDS:
                unknown = next(name for name in data if name not in self.fields)
                raise ValidationError({unknown: [self.error_messages["unknown"]]})
            if not any(options.values()) and not self._needs_marshmallow:
                try:
                    return self._load_faultless(data)
                except ValidationError:
                    pass  # and have marshmallow name what is wrong
        try:
            return super().load(data, **options)
        except ValidationError as error:
            # marshmallow's frame and its error hold each other, and with them a whole file.
            raise error.with_traceback(None) from None

    def _load_faultless(self, data: dict[str, Any]) -> Any:
        """Do what marshmallow does for the fields that are there, in less than half of its time.

        Raises:
            ValidationError: there is a fault, not necessarily the one that is named in the end.
        """
        loaded, known = {}, self.load_fields
        for name, value in data.items():
            if name not in known:
                raise ValidationError(name)
            field = known[name]
            if value is None:
                loaded[name] = field.deserialize(None)
                continue
            loaded[name] = taken = field._deserialize(value, name, data)
            for check in field.validators:
                check(taken)
        for name in self._not_optional:
            if name not in data:
                loaded[name] = known[name].deserialize(missing)
        for name, *_ in self._hooks[POST_LOAD]:
            loaded = getattr(self, name)(loaded)
        return loaded

    @cached_property
    def _not_optional(self) -> list[str]:
        """The fields that are required or have a default."""
        named = self.load_fields.items()
        return [name for name, each in named if each.required or each.load_default is not missing]

    @cached_property
    def _needs_marshmallow(self) -> bool:
        """Whether the schema has what `_load_faultless` leaves out."""
        kinds = (PRE_LOAD, VALIDATES, VALIDATES_SCHEMA)
        return (
            bool(self.many or self.partial or self.unknown != RAISE)
            or any(self._hooks[kind] for kind in kinds)
            or any(
                each.data_key or each.attribute or each.pre_load or each.post_load
                for each in self.load_fields.values()
            )
        )


class Choice(fields.Field[Any]):
    """One of several objects, told apart by the text or boolean that stands under `tag`."""

    def __init__(self, tag: str, schemas: Mapping[str | bool, Schema], **options: Any) -> None:
        super().__init__(**options)
        self.tag = tag
        self.schemas = schemas

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if not isinstance(value, dict):
            raise ValidationError("Must be an object.")
        name = value.get(self.tag)
        if not isinstance(name, str | bool) or name not in self.schemas:
            names = ", ".join(map(str, self.schemas))
            raise ValidationError({self.tag: [f"Must be one of: {names}."]})
        return self.schemas[name].load(value)
