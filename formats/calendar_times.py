"""When a VTODO is due (RFC 5545, sections 3.3.4 to 3.3.6)."""

import re
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from zoneinfo import ZoneInfo, available_timezones

from icalendar import vDate, vDatetime, vDuration
from icalendar.parser import Contentline
from icalendar.timezone.windows_to_olson import WINDOWS_TO_OLSON
from marshmallow import ValidationError

MICROSECOND = "X-TASKS-MICROSECOND"  # iCalendar itself has no fractions of a second
FLOATING_ZONE = "X-WR-TIMEZONE"  # of a calendar: the zone of times without one, by convention
DURATION = re.compile(r"([+-]?P)([0-9WD]*)(T.*)?")

Todo = dict[str, list[Contentline]]


def due_of(todo: Todo) -> date | None:
    """Return DUE, or DTSTART + DURATION (section 3.6.2), in UTC; None where neither is there.

    Raises:
        ValidationError: it cannot be understood.
    """
    try:
        if "DUE" in todo:
            return in_utc(moment_of(todo, "DUE"))
        if {"DTSTART", "DURATION"} <= todo.keys():
            return end_of(moment_of(todo, "DTSTART"), todo["DURATION"])
    except (LookupError, ValueError, OverflowError):
        read = "DUE" if "DUE" in todo else "DTSTART or DURATION"
        raise ValidationError({"due_at": [f"{read} is malformed."]}) from None
    return None


def end_of(start: date, duration: list[Contentline]) -> date:
    """Add a duration: days and weeks by the calendar and the local clock, times exactly."""
    found = DURATION.fullmatch(duration[0].parts()[2].strip().upper())
    if not found:
        raise ValueError("no duration")
    sign, days, time = found.groups()
    nominal: timedelta = vDuration.from_ical(sign + days) if days else timedelta()
    exact: timedelta = vDuration.from_ical(sign + time) if time else timedelta()
    return in_utc(start + nominal) + exact


def in_utc(moment: date) -> date:
    return moment.astimezone(UTC) if isinstance(moment, datetime) else moment


def moment_of(todo: Todo, name: str) -> date:
    """Read a date, or a moment in its own time zone."""
    if len(todo[name]) > 1:
        raise ValidationError({"due_at": [f"{name} must not appear more than once."]})
    _, params, value = todo[name][0].parts()
    if not all(isinstance(params.get(each, ""), str) for each in ("TZID", MICROSECOND)):
        raise ValueError("a list where one value is wanted")
    if len(value) == len("20261120"):
        day: date = vDate.from_ical(value)
        return day
    zone = None
    if not value.endswith("Z"):
        if "TZID" in params:
            zone = zone_of(params["TZID"], name)
        elif FLOATING_ZONE in todo:
            zone = zone_of_calendar(todo[FLOATING_ZONE][0])
    seconds = re.sub("60(?=Z?$)", "59", value)  # a leap second (section 3.3.12)
    moment: datetime = vDatetime.from_ical(seconds, zone)
    if moment.tzinfo is None:
        # Nextcloud Tasks writes all its times so: a line then mends the whole file.
        message = (
            f"A time without a zone is ambiguous: end {name} with Z, give it a TZID,"
            f" or begin the calendar with a line such as {FLOATING_ZONE}:Europe/Berlin."
        )
        raise ValidationError({"due_at": [message]})
    return moment.replace(microsecond=int(params.get(MICROSECOND, 0)))


@lru_cache(maxsize=8)  # each task of the calendar asks, and the line may be long
def zone_of_calendar(line: Contentline) -> ZoneInfo:
    return zone_of(line.parts()[2], FLOATING_ZONE)


def zone_of(tzid: str, name: str) -> ZoneInfo:
    """Find a time zone by its name, by Microsoft's, or by a name with a vendor's prefix."""
    parts = tzid.split("/")
    names = [WINDOWS_TO_OLSON.get(tzid, ""), *("/".join(parts[-count:]) for count in (3, 2, 1))]
    for each in names:
        if each in zone_names():
            return ZoneInfo(each)
    message = (
        f"{tzid[:80]}: {name} names no time zone of IANA or Microsoft; give it one, such as"
        " Europe/Berlin."
    )
    raise ValidationError({"due_at": [message]})


@cache
def zone_names() -> frozenset[str]:
    return frozenset(available_timezones() - {"localtime"})  # the server's own zone
