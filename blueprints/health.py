"""Whether the process is alive and can do its work, for load balancers and orchestrators."""

from math import inf
from threading import Lock
from time import monotonic

from flask import Response, current_app
from flask_smorest import Blueprint
from marshmallow import fields
from psycopg import Error

from blueprints import json_response, primary
from config import ConfigError
from database import DatabaseBusy, DatabaseUnavailable
from errors import ApiError
from field_types import ResponseSchema
from migrate import pending_migrations

blueprint = Blueprint("health", __name__, description="For load balancers and orchestrators.")


class Health(ResponseSchema):
    status = fields.String(required=True)


@blueprint.get("/health")
@blueprint.response(200, Health)
def get_health() -> Response:
    """Report that the process is alive, as clients of 1.0 expect"""
    return json_response(b'{"status": "healthy"}')


@blueprint.get("/livez")
@blueprint.response(200, Health)
def get_liveness() -> Response:
    """Report that the process is alive, whatever the database does"""
    return json_response(b'{"status": "live"}')


@blueprint.get("/readyz")
@blueprint.response(200, Health)
@blueprint.alt_response(503, response="unavailable")
def get_readiness() -> Response:
    """Report whether the database can be reached and is migrated"""
    readiness: Readiness = current_app.extensions["readiness"]
    readiness.require()
    return json_response(b'{"status": "ready"}')


Fault = tuple[str, Exception | None]  # a sentence, and its cause


class Readiness:
    """Asks the database once for concurrent probes: anybody may probe, as often as they like."""

    def __init__(self) -> None:
        self._asking = Lock()
        self._asked_at = -inf
        self._fault: Fault | None = None

    def require(self) -> None:
        """Raise ApiError, 503, unless the database is ready."""
        wanted_at = monotonic()
        with self._asking:
            if self._asked_at < wanted_at:  # nobody has asked since this probe came
                asked_at = monotonic()
                self._fault = find_fault()
                self._asked_at = asked_at  # not before: if asking raises, the next probe asks again
            fault = self._fault
        if fault:
            message, cause = fault
            raise ApiError(503, message) from cause


def find_fault() -> Fault | None:
    try:
        with primary().connection() as connection:
            pending = pending_migrations(connection)
    except DatabaseBusy:
        return None  # without this instance, the others would be busier still
    except (DatabaseUnavailable, Error) as error:
        return "The database cannot be reached.", error
    except ConfigError as error:  # its table of versions is another program's
        return "The database lacks migrations.", error
    return ("The database lacks migrations.", None) if pending else None
