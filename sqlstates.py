"""SQLSTATE as HTTP: what a database's error means for the client."""

import psycopg

READ_ONLY = "25006"
CHANGED_RESULT = "0A000"  # of a prepared statement, whose column has another type since

# The longest prefix of an SQLSTATE that is listed decides. What is not listed is our fault: 500.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
STATUS_OF_SQLSTATE = {
    "08": 503,  # connection exceptions
    CHANGED_RESULT: 503,
    "22": 422,  # data exceptions
    "23503": 409,  # foreign key violation
    "23505": 409,  # unique violation
    "23514": 422,  # check violation
    READ_ONLY: 503,  # a standby, in a failover
    "25P03": 503,  # idle in transaction for too long
    "25P04": 503,  # transaction took too long
    "40": 503,  # serialization failure, deadlock
    "53": 503,  # out of connections, memory or disk
    "55P03": 503,  # lock not available in time
    "57": 503,  # shutdown, crash, statement timeout
}


def status_of(error: psycopg.Error) -> int:
    """Find a database error's HTTP status; OperationalError without SQLSTATE: connection lost."""
    if error.sqlstate is None:
        return 503 if isinstance(error, psycopg.OperationalError) else 500
    for length in (5, 2):
        if status := STATUS_OF_SQLSTATE.get(error.sqlstate[:length]):
            return status
    return 500
