"""Whether the process lives and can do its work, for load balancers and orchestrators."""

from flask import Response
from flask_smorest import Blueprint
from marshmallow import Schema, fields
from psycopg import Error

from blueprints import json_response, pool
from database import DatabaseUnavailable
from errors import ApiError, ErrorSchema
from migrate import pending_migrations

blueprint = Blueprint("health", __name__, description="For load balancers and orchestrators.")


class Health(Schema):
    """The state of the process."""

    status = fields.String(required=True)


@blueprint.get("/health")
@blueprint.response(200, Health)
def get_health() -> Response:
    """Tell that the process lives"""
    return json_response(b'{"status": "healthy"}')


@blueprint.get("/livez")
@blueprint.response(200, Health)
def get_liveness() -> Response:
    """Tell that the process lives, whatever the database does"""
    return json_response(b'{"status": "live"}')


@blueprint.get("/readyz")
@blueprint.response(200, Health)
@blueprint.alt_response(503, schema=ErrorSchema)
def get_readiness() -> Response:
    """Tell whether the database is reached and migrated"""
    try:
        with pool().connection() as connection:
            pending = pending_migrations(connection)
    except (DatabaseUnavailable, Error) as error:
        raise ApiError(503, "The database cannot be reached.") from error
    if pending:
        raise ApiError(503, "The database lacks migrations.")
    return json_response(b'{"status": "ready"}')
